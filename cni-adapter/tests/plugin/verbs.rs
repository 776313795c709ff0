//! What podwired is asked, and what is made of answers that a real one can not be brought to.

use std::time::Duration;

use podwire_control::model::*;
use podwire_control::service::BackendError;
use serde_json::json;

use crate::run::{CONTAINER, Service};

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
fn what_podwired_answers_has_a_code_a_kind() {
    let service = leasing();
    let one = Refusal::new("port a", "reason one");
    let two = vec![one.clone(), Refusal::new("port b", "reason two")];
    for (error, code, words) in [
        (BackendError::Refused(two), 100, "reason one; port b: reason two"),
        (BackendError::AlreadyExists(one), 100, "reason one"),
        (BackendError::Unavailable("it starts".into()), 11, "it starts"),
        (BackendError::Internal("it broke".into()), 104, "it broke"),
    ] {
        *service.fake.fails.lock().unwrap() = Some(error);
        for command in ["ADD", "DEL", "CHECK", "GC"] {
            service.call(command, "1.1.0").run().failed("1.1.0", code, words);
        }
        service.call("STATUS", "1.1.0").run().failed("1.1.0", 50, words);
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
