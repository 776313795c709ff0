//! Cases for scenario files: the standard set is sound, and what makes no sense is refused with its name.

use super::*;

const ONE: &str = "[[scenario]]\nname = \"a\"\ntopology = \"node\"\nmeasure = { kind = \"stream\", streams = 1 }\n\
                   sides = [\"kernel-bridge\", \"podwire\"]\n";

fn stream(streams: usize) -> Measure {
    Measure::Stream { streams, congestion: None }
}

#[test]
fn the_standard_set_is_sound_and_has_what_the_first_figures_had() {
    let standard = read(None).unwrap();
    let has = |measure: &Measure, side: &str| {
        standard.iter().any(|one| one.measure == *measure && one.sides.iter().any(|other| other.to_string() == side))
    };
    assert!(has(&stream(1), "podwire"));
    assert!(has(&stream(1), "podwire idle_pods=250"));
    assert!(has(&stream(4), "podwire"));
    assert!(has(&Measure::Request { rate: None }, "podwire"));
    assert!(has(&Measure::Request { rate: None }, "podwire poll=busy"));
    assert!(has(&Measure::FirstPing { silence: 10.0 }, "podwire"));
    assert!(has(&Measure::Idle {}, "podwire idle_pods=98"));
    for wire in [Wire::Offloads, Wire::Plain] {
        assert!(standard.iter().any(|one| one.topology == Topology::Nodes && one.wire == Some(wire)));
    }
    // Estimated without set-up; the rest of ten minutes is for that.
    let seconds: f64 = standard.iter().map(estimate).sum();
    assert!(seconds < 510.0, "{seconds} s of measuring");
}

/// After each trial by frames it is waited until none comes any more.
fn silence(by: Generator) -> f64 {
    if by == Generator::UdpSockets { 0.0 } else { 0.1 }
}

#[allow(clippy::cast_precision_loss, reason = "small counts")]
fn estimate(scenario: &Scenario) -> f64 {
    let once = match scenario.measure {
        Measure::FirstPing { silence } => silence,
        Measure::Packets { search: true, by, .. } => 24.0 * (scenario.seconds + silence(by)),
        Measure::Packets { by, .. } => scenario.warm_up + scenario.seconds + 2.0 * silence(by),
        _ => scenario.warm_up + scenario.seconds,
    };
    once * scenario.rounds as f64 * scenario.sides.len() as f64
}

#[test]
fn what_is_not_said_has_its_default() {
    let scenario = &parse(ONE).unwrap()[0];
    assert_eq!((scenario.rounds, scenario.wire, scenario.targets.len()), (5, None, 0));
    assert_eq!((scenario.time(), scenario.warm_up()), (Duration::from_secs(2), Duration::from_millis(500)));
}

#[test]
fn a_stream_says_whose_congestion_control_it_has() {
    let cubic = ONE.replace("streams = 1", "streams = 4, congestion = \"cubic\"");
    assert_eq!(parse(&cubic).unwrap()[0].measure.describe(), "4 TCP streams by cubic");
    assert_eq!(parse(ONE).unwrap()[0].measure.describe(), "one TCP stream");
    let error = parse(&ONE.replace("streams = 1", "streams = 1, congestion = \"\"")).unwrap_err();
    assert!(format!("{error:#}").contains("`congestion` has to be the name"), "{error:#}");
}

#[test]
fn packets_have_one_size_or_the_simple_imix() {
    let packets = |size: &str| parse(&ONE.replace("\"stream\", streams = 1", &format!("\"packets\", size = {size}")));
    assert_eq!(packets("512").unwrap()[0].measure.describe(), "a flood of UDP in frames of 512 bytes by UDP sockets");
    let imix = packets("\"imix\"").unwrap();
    assert_eq!(imix[0].measure, Measure::Packets { size: PacketSize::Imix, search: false, by: Generator::UdpSockets });
    for (size, says) in [("1469", "`size` has to be from 64 to 1468"), ("\"mix\"", "use bytes, or imix")] {
        let error = format!("{:#}", packets(size).unwrap_err());
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn packets_say_what_they_are_made_by_and_what_is_told_of_them() {
    let packets = |more: &str| {
        let written = format!("\"packets\", size = 64{more}");
        parse(&ONE.replace("\"stream\", streams = 1", &written)).map(|mut all| all.remove(0).measure)
    };
    let lost = [Metric::RefusedPercent, Metric::SwitchLossPercent, Metric::SinkLossPercent];
    let rates = [Metric::NdrKpps, Metric::PdrKpps, Metric::FloodKpps];
    for (more, says, metrics) in [
        ("", "a flood of UDP in frames of 64 bytes by UDP sockets", vec![Metric::FloodKpps]),
        (", by = \"af-xdp\"", "by AF_XDP", [&rates[2..], &lost].concat()),
        (", by = \"af-xdp-to-af-packet\", search = true", "by AF_XDP to AF_PACKET, highest", [rates, lost].concat()),
        (", by = \"udp-sockets\", search = true", "by UDP sockets, highest rates", rates.to_vec()),
    ] {
        let measure = packets(more).unwrap();
        assert!(measure.describe().contains(says), "{more}: {}", measure.describe());
        assert_eq!(measure.metrics(), metrics, "{more}");
    }
    let plain = serde_json::to_string(&packets("").unwrap()).unwrap();
    assert!(!plain.contains("by"), "reports of before are compared with: {plain}");
    let error = format!("{:#}", packets(", by = \"dpdk\"").unwrap_err());
    assert!(error.contains("unknown variant `dpdk`") && error.contains("`af-xdp`"), "{error}");
}

#[test]
fn a_scenario_that_makes_no_sense_is_refused() {
    for (line, says) in [
        ("round = 3", "unknown field `round`"),
        ("rounds = 0", "`rounds` has to be"),
        ("seconds = 0", "`seconds` has to be"),
        ("seconds = nan", "`seconds` has to be"),
        ("warm_up = -1.0", "`warm_up` has to be"),
        ("wire = \"plain\"", "`wire` is the cable between two nodes"),
        ("targets = [{ at_least = 1.0, at_most = 2.0 }]", "either `at_least` or `at_most`"),
        ("targets = [{ at_lest = 1.0 }]", "unknown field `at_lest`"),
        ("targets = [{ of = \"cable\", at_least = 1.0 }]", "names cable, which is not in `sides`"),
        ("targets = [{ metric = \"p50_us\", at_least = 1.0 }]", "has no p50_us"),
    ] {
        let error = format!("{:#}", parse(&format!("{ONE}{line}\n")).unwrap_err());
        assert!(error.contains(says), "{line}: {error}");
    }
}

#[test]
fn a_side_or_measure_that_does_not_fit_is_refused() {
    for (from, to, says) in [
        ("\"podwire\"", "\"kernel-vxlan\"", "kernel-vxlan is not for one node"),
        ("\"node\"", "\"nodes\"", "kernel-bridge is not for across nodes"),
        ("\"podwire\"", "\"kernel-bridge\"", "named twice"),
        ("\"podwire\"", "\"switch\"", "\"switch\" is no side"),
        ("\"stream\", streams = 1", "\"idle\"", "kernel-bridge has no process"),
        ("\"stream\", streams = 1", "\"idle\", streams = 1", "unknown field `streams`"),
        ("\"stream\", streams = 1", "\"stream\", stream = 1", "unknown field `stream`"),
        ("streams = 1", "streams = 0", "`streams` has to be"),
        ("\"stream\", streams = 1", "\"packets\", size = 63", "`size` has to be"),
        ("[\"kernel-bridge\", \"podwire\"]", "[]", "`sides` is empty"),
    ] {
        assert!(ONE.contains(from), "{from}");
        let error = format!("{:#}", parse(&ONE.replace(from, to)).unwrap_err());
        assert!(error.contains(says), "{to}: {error}");
    }
    assert!(format!("{:#}", parse(&format!("{ONE}{ONE}")).unwrap_err()).contains("two scenarios a"));
    assert!(parse("").is_err());
}

#[test]
fn scenarios_are_chosen_by_name() {
    let two = format!("{ONE}{}", ONE.replace("\"a\"", "\"b\""));
    let chosen = only(parse(&two).unwrap(), &["b".to_owned()]).unwrap();
    assert_eq!(chosen.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["b"]);
    let error = only(parse(&two).unwrap(), &["c".to_owned()]).unwrap_err().to_string();
    assert_eq!(error, "there is no scenario c: there are a, b");
}
