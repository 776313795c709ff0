//! Cases for reports: what is worked out of the rounds, and what is shown of it.

use std::collections::BTreeMap;

use super::*;
use crate::scenario;

/// A report of the first standard scenario with these figures for the bridge and for podwire.
pub(crate) fn report(bridge: &[f64], podwire: &[f64]) -> Report {
    let mut scenario = scenario::read(None).unwrap().remove(0);
    scenario.sides = ["kernel-bridge", "podwire", "ovs"].map(|side| side.parse().unwrap()).to_vec();
    scenario.targets.retain(|target| target.of.is_none());
    let mut one = ScenarioReport::empty(scenario);
    for (side, rounds) in [("kernel-bridge", bridge), ("podwire", podwire)] {
        let offloads = BTreeMap::from([("scatter-gather".to_owned(), true), ("tx-checksumming".to_owned(), false)]);
        let interface = InterfaceOffloads { place: "pod <a>".into(), interface: "eth0".into(), offloads };
        let mut side = SideReport::new(side.parse().unwrap(), vec![interface]);
        rounds.iter().for_each(|&gbps| side.add(&Sample::of(&[(Metric::Gbps, gbps)])));
        one.sides.push(side);
    }
    one.skipped.push(Skipped { side: "ovs".parse().unwrap(), why: "it is <not> there".into() });
    one.judge();
    let host = Host {
        cpu: "A & B".into(),
        cores: 2,
        kernel: "6.1".into(),
        governor: Some("performance".into()),
        release_build: true,
    };
    Report {
        schema: SCHEMA,
        started_unix_ms: 1,
        host,
        congestion_control: Some("cubic".into()),
        versions: vec![("podwired".into(), "podwired 0.1.0".into())],
        scenarios: vec![one],
        budget: None,
    }
}

#[test]
fn medians_are_compared_with_the_first_side() {
    let report = report(&[10.0, 30.0, 20.0], &[18.0, 1.0, 19.0]);
    let one = &report.scenarios[0];
    let figure = |side: usize| one.sides[side].figure(Metric::Gbps).unwrap();
    assert_eq!((figure(0).median, figure(0).ratio), (20.0, Some(1.0)));
    assert_eq!((figure(1).median, figure(1).ratio), (18.0, Some(0.9)));
    let [verdict] = one.verdicts.as_slice() else { panic!("{:?}", one.verdicts) };
    assert!(!verdict.met);
    assert_eq!(verdict.sentence(&one.scenario), "podwire / kernel-bridge, Gb/s: 0.90, wanted at least 1 (missed)");
}

#[test]
fn a_machine_that_others_use_is_told_of() {
    let mut report = report(&[20.0], &[18.0]);
    let texts = |report: &Report| [report.render(Format::Table).unwrap(), html::render(report)];
    assert!(texts(&report).iter().all(|text| !text.contains("others used")));
    report.scenarios[0].others_cores = Some(0.1);
    assert!(texts(&report).iter().all(|text| !text.contains("others used")));
    report.scenarios[0].others_cores = Some(1.5);
    assert!(texts(&report).iter().all(|text| text.contains("others used 1.50 cores")));
}

#[test]
fn nothing_is_divided_by_nothing() {
    let report = report(&[0.0], &[1.0]);
    assert_eq!(report.scenarios[0].sides[1].figures[0].ratio, None);
    assert!(report.scenarios[0].verdicts.is_empty());
}

#[test]
fn an_absolute_target_is_for_the_figure_itself() {
    let mut report = report(&[20.0], &[18.0]);
    let target = &mut report.scenarios[0].scenario.targets[0];
    (target.absolute, target.at_least, target.at_most) = (true, None, Some(18.0));
    report.scenarios[0].judge();
    let verdict = &report.scenarios[0].verdicts[0];
    assert!(verdict.met);
    assert_eq!(verdict.sentence(&report.scenarios[0].scenario), "podwire, Gb/s: 18.00, wanted at most 18 (met)");
}

#[test]
fn the_table_has_a_line_a_side_and_says_what_was_skipped_and_missed() {
    let text = report(&[20.0], &[18.0]).render(Format::Table).unwrap();
    assert!(text.starts_with("A & B, 2 cores, governor performance, Linux 6.1, TCP cubic\n"), "{text}");
    let words = |start: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.trim_start().starts_with(start));
        line.unwrap_or_else(|| panic!("no {start} in {text}")).split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(words("podwire "), ["podwire", "18.00", "(0.90)", "-", "-"]);
    assert_eq!(words("skipped:"), ["skipped:", "ovs:", "it", "is", "<not>", "there"]);
    assert_eq!(words("off in podwire"), ["off", "in", "podwire:", "tx-checksumming", "(eth0)"]);
    assert!(text.contains("wanted at least 1 (missed)"), "{text}");
    let columns: Vec<usize> =
        text.lines().filter(|line| line.contains("Gb/s  ") || line.starts_with("  podwire  ")).map(str::len).collect();
    assert!(columns.windows(2).all(|pair| pair[0] == pair[1]), "{columns:?} in {text}");
}

#[test]
fn what_made_the_packets_is_said_once_where_it_was_the_same() {
    let mut report = report(&[20.0], &[18.0]);
    let packets = |report: &Report| -> Vec<String> {
        let table = report.render(Format::Table).unwrap();
        table.lines().filter_map(|line| line.trim_start().strip_prefix("packets")).map(str::to_owned).collect()
    };
    assert!(packets(&report).is_empty());
    for (side, made_by) in report.scenarios[0].sides.iter_mut().zip(["by <a>", "by <a>"]) {
        side.add(&Sample { made_by: Some(made_by.to_owned()), ..Sample::default() });
    }
    assert_eq!(packets(&report), [": by <a>"]);
    report.scenarios[0].sides[1].made_by = Some("by <b>".to_owned());
    assert_eq!(packets(&report), [" of kernel-bridge: by <a>", " of podwire: by <b>"]);
    let page = html::render(&report);
    assert!(page.contains("<td>packets</td><td>by &lt;b&gt;</td>"), "{page}");
}

#[test]
fn json_comes_back_as_it_was_and_another_shape_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/report.json");
    let report = report(&[20.0], &[18.0]);
    report.write_json(&path).unwrap();
    assert_eq!(Report::read(&path).unwrap(), report);
    std::fs::write(&path, "{\"schema\": 99}").unwrap();
    assert!(Report::read(&path).unwrap_err().to_string().contains("schema Some(99), not 1"));
    assert!(Report::read(&folder.path().join("none")).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn the_page_needs_nothing_and_lets_no_text_become_markup() {
    let mut report = report(&[20.0, 21.0], &[18.0]);
    report.scenarios[0].scenario.name = "<script>'\"&".into();
    report.scenarios[0].sides[1].loss_curve =
        vec![LossPoint { kpps: 10.0, loss: 0.0 }, LossPoint { kpps: 20.0, loss: 0.5 }];
    let page = html::render(&report);
    assert!(page.contains("&lt;script&gt;&#39;&quot;&amp;") && !page.contains("<script"), "{page}");
    assert!(page.contains("it is &lt;not&gt; there") && page.contains("pod &lt;a&gt;") && page.contains("A &amp; B"));
    for outside in ["http:", "https:", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("prefers-color-scheme: dark"));
    for tag in ["svg", "section", "table", "tr", "td", "text", "details", "p", "h2"] {
        let (opened, closed) = (
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count(),
            page.matches(&format!("</{tag}>")).count(),
        );
        assert_eq!(opened, closed, "{tag}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}

#[test]
fn the_charts_show_every_side() {
    let report = report(&[20.0, 21.0], &[18.0]);
    let sides = &report.scenarios[0].sides;
    let bars = svg::bars(sides, Metric::Gbps);
    assert_eq!((bars.matches("<rect").count(), bars.matches("class='mark'").count()), (2, 3), "{bars}");
    assert!(bars.contains(">18.00 (0.88)<"), "{bars}");
    let latency: Vec<SideReport> = [("kernel-bridge", 30.0), ("podwire", 20.0)]
        .map(|(side, us)| {
            let mut side = SideReport::new(side.parse().unwrap(), Vec::new());
            side.add(&Sample::of(&[(Metric::P50Us, us), (Metric::P99Us, us * 2.0), (Metric::MaxUs, us * 100.0)]));
            side
        })
        .to_vec();
    let chart = svg::percentiles(&latency);
    assert_eq!((chart.matches("<polyline").count(), chart.matches("<circle").count()), (2, 6), "{chart}");
    assert!([">10.00<", ">100.0<", ">1000<", ">10000<"].iter().all(|tick| chart.contains(tick)), "{chart}");
}

#[test]
fn a_budget_has_its_chart_and_its_tables_and_comes_back_from_json() {
    let mut report = report(&[20.0], &[18.0]);
    assert!(!html::render(&report).contains("cost a stage"));
    report.budget = Some(crate::budget::sample());
    let page = html::render(&report);
    assert!(page.contains("<h3>cost a stage, ns a packet at an MTU of 9000</h3>"), "{page}");
    assert_eq!(page.matches(">coalesce<").count(), 3, "a bar at each MTU, and a row");
    assert!(page.contains("Not counted: the kernel&#39;s copies"));
    let text = report.render(Format::Table).unwrap();
    assert!(text.contains("lookup L3, cache off") && text.contains("200 Gb/s inside one node"), "{text}");
    let back: Report = serde_json::from_str(&report.render(Format::Json).unwrap()).unwrap();
    assert_eq!(back.budget.unwrap().costs, report.budget.unwrap().costs);
}

#[test]
fn figures_are_shown_with_as_many_digits_as_count() {
    for (value, text) in [(12_345.6, "12346"), (123.45, "123.5"), (17.346, "17.35"), (0.0, "0.00"), (0.01234, "0.0123")]
    {
        assert_eq!(short(value), text);
    }
}
