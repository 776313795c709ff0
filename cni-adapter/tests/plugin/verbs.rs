//! What podwired is asked, and what is made of its answers.

use std::time::Duration;

use podwire_control::model::*;
use podwire_control::service::BackendError;
use serde_json::{Value, json};

use crate::run::{CONTAINER, Service, VERSIONS};

fn dual() -> Vec<ipnet::IpNet> {
    ["10.244.1.10/24", "fd00:244:1::a/64"].map(|text| text.parse().unwrap()).into()
}

/// A service that leases two addresses.
fn leasing() -> Service {
    let service = Service::start();
    *service.fake.leases.lock().unwrap() = dual();
    service
}

#[test]
fn an_add_tells_what_podwired_made_in_the_form_of_its_version() {
    let service = leasing();
    for version in VERSIONS {
        let ran = service.call("ADD", version).key("dns", json!({"nameservers": ["10.96.0.10"]})).run();
        assert!(ran.ok, "{ran:?}");
        let said = ran.said;
        assert_eq!(said["cniVersion"], version);
        assert_eq!(said["interfaces"][0]["name"], "eth0");
        assert_eq!(said["interfaces"][0]["sandbox"], "/run/netns/none-of-this-name");
        assert_eq!(said["interfaces"][0]["mtu"], if version == "1.1.0" { json!(1450) } else { Value::Null });
        assert_eq!(said["ips"][1]["address"], "fd00:244:1::a/64");
        assert_eq!(said["ips"][1]["version"], if version < "1" { json!("6") } else { Value::Null });
        assert_eq!(said["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.244.1.1"}));
        assert_eq!(said["dns"]["nameservers"][0], "10.96.0.10");
    }
}

#[test]
fn an_add_asks_for_all_that_runtime_and_configuration_say() {
    let service = leasing();
    let call =
        service.call("ADD", "1.0.0").with("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0");
    let call = call.key("port", json!("veth-xdp")).key("mtu", json!(1400));
    let runtime = json!({
        "ips": ["10.244.1.7/24"], "mac": "02:00:00:00:00:07",
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 1000, "ingressBurst": 2000},
    });
    assert!(call.key("runtimeConfig", runtime).run().ok);
    let asked = service.fake.asked.lock().unwrap().pop().unwrap();
    let expected = AttachRequest {
        key: AttachmentKey { container: CONTAINER.parse().unwrap(), ifname: "eth0".into() },
        network: "pods".parse().unwrap(),
        netns: "/run/netns/none-of-this-name".into(),
        pod: Some(PodName { namespace: "default".into(), name: "web-0".into() }),
        kind: PortKind::VethXdp,
        addresses: AddressSource::Lease { wanted: vec!["10.244.1.7".parse().unwrap()] },
        mac: "02:00:00:00:00:07".parse().ok(),
        mtu: Some(1400),
        host_ports: vec![HostPort { host_ip: None, host_port: 8080, container_port: 80, transport: Transport::Tcp }],
        bandwidth: Bandwidth { ingress: Some(RateLimit { bits_per_s: 1000, burst_bits: 2000 }), egress: None },
    };
    assert_eq!(asked, expected);
}

#[test]
fn an_add_behind_others_keeps_what_they_made() {
    let previous = json!({
        "cniVersion": "1.0.0", "interfaces": [{"name": "net0"}], "ips": [{"address": "192.0.2.7/24", "interface": 0}],
    });
    let said = leasing().call("ADD", "1.0.0").key("prevResult", previous).run().said;
    assert_eq!((&said["interfaces"][0]["name"], &said["interfaces"][1]["name"]), (&json!("net0"), &json!("eth0")));
    assert_eq!((&said["ips"][0]["interface"], &said["ips"][1]["interface"]), (&json!(0), &json!(1)));
}

/// What podwired answers, and the code and a word of what the runtime is told.
fn refusals() -> Vec<(BackendError, u64, &'static str)> {
    let one = Refusal::new("port a", "reason one");
    vec![
        (
            BackendError::Refused(vec![one.clone(), Refusal::new("port b", "reason two")]),
            100,
            "reason one; port b: reason two",
        ),
        (BackendError::AlreadyExists(one.clone()), 100, "reason one"),
        (BackendError::Exhausted(one), 101, "reason one"),
        (BackendError::Unavailable("it starts".into()), 11, "it starts"),
        (BackendError::Internal("it broke".into()), 104, "it broke"),
    ]
}

#[test]
fn what_podwired_refuses_has_a_code_a_kind() {
    let service = leasing();
    for (error, code, word) in refusals() {
        *service.fake.fails.lock().unwrap() = Some(error);
        for version in VERSIONS {
            service.call("ADD", version).run().failed(version, code, word);
            service.call("DEL", version).run().failed(version, code, word);
        }
        service.call("CHECK", "0.4.0").run().failed("0.4.0", code, word);
        service.call("GC", "1.1.0").run().failed("1.1.0", code, word);
        service.call("STATUS", "1.1.0").run().failed("1.1.0", 50, word);
    }
}

#[test]
fn an_answer_that_takes_too_long_is_to_be_tried_again_and_an_add_is_taken_back() {
    let service = leasing();
    *service.fake.attach_takes.lock().unwrap() = Duration::from_millis(1500);
    service.call("ADD", "1.0.0").key("timeout", json!(1)).run().failed("1.0.0", 11, "within 1 s");
    assert_eq!(service.fake.detached.lock().unwrap().len(), 1, "the ADD was taken back");
}

#[test]
fn an_add_whose_result_nobody_reads_is_taken_back() {
    let service = leasing();
    let call = service.call("ADD", "1.0.0");
    let mut plugin = std::process::Command::new(env!("CARGO_BIN_EXE_podwire-cni"));
    plugin.envs(call.environment.clone()).stdin(std::process::Stdio::piped());
    let mut plugin = plugin.stdout(std::fs::File::create("/dev/full").unwrap()).spawn().unwrap();
    std::io::Write::write_all(&mut plugin.stdin.take().unwrap(), call.config.to_string().as_bytes()).unwrap();
    assert!(!plugin.wait().unwrap().success());
    assert_eq!(service.fake.asked.lock().unwrap().len(), 1);
    assert_eq!(service.fake.detached.lock().unwrap().len(), 1);
}

#[test]
fn a_del_is_done_whether_there_was_something_or_not() {
    let service = Service::start();
    for version in VERSIONS {
        service.call("DEL", version).run().done();
        service.call("DEL", version).with("CNI_CONTAINERID", "unknown").with("CNI_NETNS", "").run().done();
    }
    let detached = service.fake.detached.lock().unwrap();
    assert_eq!((detached.len(), detached[1].container.as_str()), (8, "unknown"));
}

#[test]
fn a_check_passes_on_every_drift_and_succeeds_without_one() {
    let service = Service::start();
    for version in &VERSIONS[1..] {
        service.call("CHECK", version).run().failed(version, 103, "/run/netns/none-of-this-name has 10.244.1.10/24");
        let unknown = service.call("CHECK", version).with("CNI_CONTAINERID", "unknown");
        unknown.run().failed(version, 103, "there is none");
    }
    let none = json!({"interfaces": [{"name": "eth0", "sandbox": "/a"}], "ips": []});
    service.call("CHECK", "1.0.0").key("prevResult", none).run().done();
}

#[test]
fn a_gc_names_the_network_and_what_is_to_stay() {
    let service = Service::start();
    service.call("GC", "1.1.0").run().done();
    service.call("GC", "1.1.0").key("cni.dev/valid-attachments", Value::Null).run().done();
    let kept = service.fake.kept.lock().unwrap().clone();
    assert_eq!(kept, [1, 0].map(|kept| ("pods".parse().unwrap(), kept)));
}

#[test]
fn a_status_says_what_ails() {
    let service = Service::start();
    let (pool, uplink) = (Some("no address is free".to_owned()), Some("the uplink is down".to_owned()));
    for (cannot_attach, pods_suffer, code, word) in [
        (pool.clone(), None, 50, "no address is free"),
        (None, uplink.clone(), 51, "the uplink is down"),
        (pool, uplink, 51, "no address is free; the uplink is down"),
    ] {
        *service.fake.readiness.lock().unwrap() = Readiness { cannot_attach, pods_suffer };
        service.call("STATUS", "1.1.0").run().failed("1.1.0", code, word);
    }
    *service.fake.readiness.lock().unwrap() = Readiness::default();
    service.call("STATUS", "1.1.0").with("CNI_CONTAINERID", "").with("CNI_IFNAME", "").run().done();
}
