//! Frames over interfaces that are there.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use podwire_tests::binary::binary;
use podwire_tests::netns::{Netns, Wire};
use serde_json::Value;

use super::said;

/// Two namespaces on one cable, `nic0` to `nic1`.
fn cable() -> (Netns, Netns) {
    let (near, far) = (Netns::new("wire-tx"), Netns::new("wire-rx"));
    Netns::veth((&near, "nic0"), (&far, "nic1"), Wire::default());
    (near, far)
}

/// What `podwire-perf wire` reports as JSON.
fn wired(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

/// Both interfaces from where we are.
fn wire(near: &Netns, far: &Netns, options: &[&str]) -> Output {
    let mut command = Command::new(binary("podwire-perf"));
    command.args(["wire", "-o", "json", "--tx-if", "nic0", "--rx-if", "nic1"]).args(options);
    command.arg("--tx-netns").arg(near.path()).arg("--rx-netns").arg(far.path());
    command.stdin(Stdio::null()).output().expect("podwire-perf starts")
}

#[test]
fn every_frame_over_a_cable_is_counted_once_and_timed() {
    let (near, far) = cable();
    for (options, kind) in [
        (&["--size", "64"][..], "AF_PACKET"),
        (&["--size", "imix", "--flows", "20", "--sinks", "2"], "AF_PACKET"),
        (&["--size", "1518", "--sink", "packet"], "AF_PACKET"),
        (&["--size", "64", "--flows", "5", "--sink", "xdp"], "AF_XDP in copy mode (native, queues: 1)"),
        (&["--size", "imix", "--sink", "xdp"], "AF_XDP in copy mode (native, queues: 1)"),
        (&["--size", "64", "--sink", "xdp-generic"], "AF_XDP in copy mode (generic, queues: 1)"),
    ] {
        let report = wired(&wire(&near, &far, &[&["--rate", "3000", "--seconds", "0.5"], options].concat()));
        let trial = &report["trials"][0];
        assert_eq!(report["receiving"]["kind"], kind);
        assert_eq!(report["sending"]["mode"], "copy", "a veth has no zero-copy");
        assert!(report["sending"]["fallback"].as_str().is_some_and(|why| why.contains("zero-copy")), "{report}");
        assert!(trial["sent"].as_u64().is_some_and(|sent| sent > 100 && sent <= 1_500), "{trial}");
        assert_eq!(trial["received"], trial["sent"], "{trial}");
        for none in ["lost", "duplicates", "reordered", "refused", "sink_drops"] {
            assert_eq!(trial[none], 0, "{none}: {trial}");
        }
        assert!(trial["latency"]["p50_us"].as_f64().is_some_and(|us| us > 0.0 && us < 1e6), "{trial}");
    }
    let link = far.ip("-d link show dev nic1");
    assert!(!link.contains("xdp") && !link.contains("PROMISC"), "the interface is as it was: {link}");
}

#[test]
fn the_highest_rates_over_a_cable_are_found() {
    let (near, far) = cable();
    let report = wired(&wire(&near, &far, &["--search", "--rate", "4000", "--seconds", "0.1"]));
    let rate = |name: &str| report["search"][name].as_f64().expect("a rate");
    assert!(rate("pdr_pps") > 0.0 && rate("pdr_pps") <= 4_000.0 && rate("ndr_pps") <= rate("pdr_pps"), "{report:#}");
    assert!(report["search"]["loss_curve"].as_array().is_some_and(|curve| curve.len() > 3), "{report:#}");
}

#[test]
fn a_sender_and_a_sink_that_know_nothing_of_each_other_agree() {
    let (near, far) = cable();
    let mac = far.mac("nic1");
    let start = |netns: &Netns, options: &[&str]| {
        let mut command = netns.command(&binary("podwire-perf"));
        command.args(["wire", "-o", "json", "--dst-mac", &mac]).args(options);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("podwire-perf starts")
    };
    let sink = start(&far, &["--rx-if", "nic1", "--seconds", "4"]);
    std::thread::sleep(Duration::from_millis(1_500));
    let sender = start(&near, &["--tx-if", "nic0", "--rate", "2000", "--seconds", "0.5", "--size", "512"]);
    let sent = wired(&sender.wait_with_output().expect("podwire-perf ends"));
    let seen = wired(&sink.wait_with_output().expect("podwire-perf ends"));
    let (sent, seen) = (&sent["trials"][0], &seen["trials"][0]);
    assert!(sent["sent"].as_u64().is_some_and(|sent| sent > 100), "{sent}");
    assert_eq!((&seen["received"], &seen["lost"]), (&sent["sent"], &Value::from(0)), "{seen}");
    assert_eq!((&seen["sent"], &seen["latency"]), (&Value::Null, &Value::Null), "two machines have two clocks");
}

#[test]
fn what_the_sending_interface_refuses_is_told_apart() {
    let (near, far) = cable();
    let mac = far.mac("nic1");
    far.ip("link set nic1 down");
    let mut command = near.command(&binary("podwire-perf"));
    command.args(["wire", "-o", "json", "--tx-if", "nic0", "--rate", "2000", "--seconds", "0.2", "--dst-mac", &mac]);
    let report = wired(&command.output().expect("podwire-perf starts"));
    let trial = &report["trials"][0];
    assert!(trial["sent"].as_u64().is_some_and(|sent| sent > 10), "{trial}");
    assert_eq!(trial["refused"], trial["sent"], "{trial}");
}

#[test]
fn what_can_not_be_sent_over_a_cable_is_refused_with_a_remedy() {
    let (near, far) = cable();
    for (options, says) in [
        (&["--size", "1519"][..], "--size has to be from 64 to 1518 on nic0, or imix"),
        (&["--queues", "2", "--flows", "1"], "raise --flows"),
        (&["--queues", "60", "--flows", "60"], "`ethtool -L` may give it more"),
        (&["--mode", "zero-copy"], "cannot bind an AF_XDP socket to queue 0 of nic0 in zero-copy mode"),
    ] {
        let output = wire(&near, &far, options);
        assert!(!output.status.success() && said(&output).contains(says), "{options:?}: {}", said(&output));
    }
    near.ip("link set nic0 down");
    assert!(said(&wire(&near, &far, &[])).contains("nic0 is down: `ip link set nic0 up`"));
}
