//! The client and the service, over a real Unix socket.

#![allow(clippy::unwrap_used)] // a test, its helpers included

mod fake;

use std::time::Duration;

use fake::{Fake, Running, attachment, port_report};
use podwire_control::client::{Client, ClientError};
use podwire_control::model::*;
use podwire_control::service::{Backend, CONNECTIONS_MAX};
use tokio_stream::StreamExt;

const DEADLINE: Duration = Duration::from_secs(10);

async fn start() -> (Running, Client) {
    let running = Running::start();
    let client = Client::connect(&running.socket, DEADLINE).await.unwrap();
    (running, client)
}

/// What the fake's attachment was asked for with, had its addresses been given.
fn given() -> AttachRequest {
    let Attachment { key, network, netns, pod, kind, addresses, host_ports, bandwidth, .. } = attachment();
    let addresses = AddressSource::Given(addresses);
    AttachRequest { key, network, netns, pod, kind, addresses, mac: None, mtu: None, host_ports, bandwidth }
}

fn route(prefix: &str, via: Via) -> Object {
    Object::Route(Route { prefix: prefix.parse().unwrap(), via })
}

#[tokio::test]
async fn every_question_is_answered_as_the_backend_answers_it() {
    let (running, client) = start().await;
    let fake = &running.fake;
    assert_eq!(client.status().await, Ok(Fake::status_report()));
    assert_eq!(client.ports().await.unwrap(), fake.ports().unwrap());
    assert_eq!(client.ports().await.unwrap()[1], port_report("pod-a", PortState::Up));
    assert_eq!(client.bridges().await.unwrap(), fake.bridges().unwrap());
    let blue = "blue".parse().unwrap();
    assert_eq!(client.macs(Some(&blue)).await.unwrap(), fake.macs(Some(&blue)).unwrap());
    assert_eq!(client.macs(None).await.unwrap()[0].bridge, "pods");
    assert_eq!(client.routes().await.unwrap(), fake.routes().unwrap());
    assert_eq!(client.vteps().await.unwrap(), fake.vteps().unwrap());
    let address = "10.244.2.7".parse().unwrap();
    assert_eq!(client.route(address).await.unwrap(), fake.route(address).unwrap());
    assert_eq!(client.counters().await.unwrap(), fake.counters().unwrap());
    assert_eq!(client.drops().await.unwrap(), fake.drops().unwrap());
    let ranges = ["10.244.1.201".parse().unwrap()];
    let added = client.change_ranges(&ranges, &[]).await.unwrap();
    assert_eq!((added.added.as_slice(), added.removed), (&ranges[..], Vec::new()));
    assert_eq!(client.ipam().await.unwrap(), fake.ipam().unwrap());
    assert_eq!(client.change_ranges(&[], &ranges).await.unwrap().removed, ranges);
    assert_eq!(client.limits().await.unwrap(), fake.limits().unwrap());
    let query = ExplainQuery {
        in_port: "pod-a".parse().unwrap(),
        src: None,
        dst: address,
        proto: Protocol::Tcp,
        sport: None,
        dport: Some(80),
        size: None,
        src_mac: None,
        dst_mac: None,
    };
    assert_eq!(client.explain(&query).await.unwrap(), fake.explain(query.clone()).unwrap());
    let two_families = ExplainQuery { src: Some("fd00::1".parse().unwrap()), ..query };
    let said = client.explain(&two_families).await.unwrap_err().to_string();
    assert_eq!(said, "trace: src fd00::1 and dst 10.244.2.7 are not of one family; use two IPv4 or two IPv6 addresses");
}

#[tokio::test]
async fn a_statement_says_what_it_changed_and_is_idempotent() {
    let (_running, client) = start().await;
    let objects = [route("10.1.0.0/16", Via::Host), route("10.2.0.0/16", Via::Blackhole)];
    let first = client.apply(Owner::Cli, &objects).await.unwrap();
    assert_eq!((first.generation, first.changed.len(), first.unchanged), (8, 2, 0));
    let again = client.apply(Owner::Cli, &objects).await.unwrap();
    assert_eq!((again.changed, again.unchanged), (Vec::new(), 2));
    let gone = client.change(Owner::Cli, &[], &[objects[0].key()]).await.unwrap();
    assert_eq!(gone.changed, [Changed { key: objects[0].key(), action: Action::Removed }]);
    let altered = client.change(Owner::Cni, &[route("10.2.0.0/16", Via::Host)], &[]).await.unwrap();
    assert_eq!(altered.changed[0].action, Action::Changed);
}

#[tokio::test]
async fn refusals_come_with_every_object_and_its_remedy() {
    let (running, client) = start().await;
    let nowhere = || Via::Vtep("nowhere".parse().unwrap());
    let objects = [route("10.1.0.0/16", nowhere()), route("10.2.0.0/16", nowhere())];
    let error = client.change(Owner::Cli, &objects, &[]).await.unwrap_err();
    assert_eq!(
        error.sentences(),
        [
            "route 10.1.0.0/16: via nowhere: there is no such VTEP; add it first",
            "route 10.2.0.0/16: via nowhere: there is no such VTEP; add it first",
        ]
    );

    // What is wrong by itself never reaches the backend, and all of it is named.
    let same = route("10.3.0.0/16", Via::Host);
    let error = client.apply(Owner::Cli, &[route("10.0.0.1/8", Via::Host), same.clone(), same]).await.unwrap_err();
    let ClientError::Refused { refusals, more: 0 } = error else { panic!("{error:?}") };
    assert_eq!(
        refusals[0].to_string(),
        "route 10.0.0.1/8: prefix 10.0.0.1/8 has bits set beyond its length; write 10.0.0.0/8"
    );
    assert_eq!(refusals[1].to_string(), "route 10.3.0.0/16: it is stated twice; state it once");
    assert!(running.fake.stated.lock().unwrap().is_empty());

    let missing = client.change(Owner::Cli, &[], &[Key::Port("pod-x".parse().unwrap())]).await.unwrap_err();
    assert_eq!(missing, ClientError::NotFound(Refusal::new("port pod-x", "cli stated no such object; see the list")));
    let unrouted = client.route("fd00::1".parse().unwrap()).await.unwrap_err();
    assert!(
        matches!(&unrouted, ClientError::NotFound(refusal) if refusal.object == "route to fd00::1"),
        "{unrouted:?}"
    );
    for owner in [Owner::File, Owner::Kernel] {
        let said = client.apply(owner, &[]).await.unwrap_err().to_string();
        assert_eq!(said, format!("owner {owner}: can not be used through the API; use cli, cni, kubernetes or etcd"));
    }
}

#[tokio::test]
async fn a_great_many_refusals_still_arrive_with_the_rest_counted() {
    let (_running, client) = start().await;
    let bad: Vec<_> = (0..5000_u32).map(|at| route(&format!("10.{}.{}.1/24", at / 256, at % 256), Via::Host)).collect();
    let error = client.apply(Owner::Cli, &bad).await.unwrap_err();
    let ClientError::Refused { refusals, more } = &error else { panic!("{error:?}") };
    assert!(refusals.len() > 10 && refusals.len() as u64 + more == 5000, "{} and {more}", refusals.len());
    assert!(error.sentences().last().unwrap().ends_with("more objects were refused; mend these first"));
}

#[tokio::test]
async fn two_hundred_thousand_routes_fit_one_statement() {
    let (_running, client) = start().await;
    let prefix = |at: u32| ipnet::IpNet::new(std::net::Ipv6Addr::from(0xfd00 << 112 | u128::from(at) << 64).into(), 64);
    let via = || Via::Vtep("a-node-with-a-rather-long-name.example.org".parse().unwrap());
    let routes: Vec<_> =
        (0..200_000).map(|at| Object::Route(Route { prefix: prefix(at).unwrap(), via: via() })).collect();
    let long = Client::connect(&_running.socket, Duration::from_secs(60)).await.unwrap();
    assert_eq!(long.apply(Owner::Kubernetes, &routes).await.unwrap().changed.len(), 200_000);
    drop(client);
}

#[tokio::test]
async fn events_arrive_until_the_daemon_stops() {
    let (mut running, client) = start().await;
    let mut events = client.events().await.unwrap();
    client.apply(Owner::Cli, &[]).await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!((event.kind, event.object.as_str()), (EventKind::GenerationPublished, "generation 8"));
    running.stop();
    assert_eq!(events.next().await, Ok(None));
    tokio::time::timeout(DEADLINE, &mut running.served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let (running, _client) = start().await;
    let uri = format!("unix://{}", running.socket.display());
    let channel = tonic::transport::Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
    let service = "podwire.v1.Podwire".to_owned();
    let health =
        HealthClient::new(channel.clone()).check(HealthCheckRequest { service: service.clone() }).await.unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);

    let ask = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::once(ask)).await.unwrap();
    let answer = answers.into_inner().next().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&service) && names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_client_that_dies_leaves_its_change_whole_and_others_undisturbed() {
    let (running, client) = start().await;
    *running.fake.change_takes.lock().unwrap() = Duration::from_millis(200);
    let dying = Client::connect(&running.socket, Duration::from_millis(50)).await.unwrap();
    let object = route("10.1.0.0/16", Via::Host);
    let error = dying.change(Owner::Cli, std::slice::from_ref(&object), &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::Deadline { call: "change", .. }), "{error}");
    drop(dying);
    client.status().await.unwrap();
    // The next change waits for the one begun, so it finds the object there.
    let after = client.change(Owner::Cli, &[object], &[]).await.unwrap();
    assert_eq!((after.changed, after.unchanged), (Vec::new(), 1));
}

#[tokio::test]
async fn a_flood_of_connections_and_garbage_leaves_the_api_answering() {
    use tokio::io::AsyncWriteExt;
    let (running, client) = start().await;
    let mut floods = Vec::new();
    for _ in 0..200 {
        if let Ok(mut flood) = tokio::net::UnixStream::connect(&running.socket).await {
            let _ = flood.write_all(b"\x00\xff not http/2 at all \r\n\r\n").await;
            floods.push(flood);
        }
    }
    client.status().await.unwrap();
    drop(floods);
    let calls: Vec<_> = (0..500)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { client.ports().await.map(|ports| ports.len()) }
            })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(3));
    }
    Client::connect(&running.socket, DEADLINE).await.unwrap().status().await.unwrap();
}

#[tokio::test]
async fn more_connections_than_there_are_places_are_all_served() {
    let (running, client) = start().await;
    *running.fake.attach_takes.lock().unwrap() = Duration::from_millis(5);
    let at_once = (0..150).map(|number| {
        let socket = running.socket.clone();
        tokio::spawn(async move {
            let key = AttachmentKey { ifname: format!("net{number}"), ..attachment().key };
            let client = Client::connect(&socket, DEADLINE).await?;
            client.attach(&AttachRequest { key, ..given() }).await
        })
    });
    for one in at_once.collect::<Vec<_>>() {
        one.await.unwrap().unwrap();
    }
    assert_eq!(running.fake.asked.lock().unwrap().len(), 150);
    drop(client);
}

#[tokio::test]
async fn who_finds_no_place_waits_as_long_as_it_likes() {
    let (running, client) = start().await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        idle.push(tokio::net::UnixStream::connect(&running.socket).await.unwrap());
    }
    client.status().await.unwrap();
    let impatient = Client::connect(&running.socket, Duration::from_millis(200)).await.unwrap();
    let error = impatient.status().await.unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }), "{error}");
    let patient = Client::connect(&running.socket, DEADLINE).await.unwrap();
    let asked = tokio::spawn(async move { patient.status().await });
    drop(idle);
    assert!(asked.await.unwrap().is_ok());
}

#[tokio::test]
async fn nobody_at_the_socket_is_said_with_its_path_and_a_question() {
    let error = Client::connect("/nowhere/podwired.sock".as_ref(), DEADLINE).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot reach podwired at /nowhere/podwired.sock: No such file or directory (os error 2); \
         is podwired running, and may this user open its socket?"
    );
    let (mut running, client) = start().await;
    running.stop();
    tokio::time::timeout(DEADLINE, &mut running.served).await.unwrap().unwrap().unwrap();
    let said = client.status().await.unwrap_err().to_string();
    assert!(said.contains("is podwired running"), "{said}");
}

#[tokio::test]
async fn a_containers_interface_is_attached_looked_at_and_taken_away() {
    let (_running, client) = start().await;
    let Attachment { key, network, netns, addresses, .. } = attachment();
    let other = AttachmentKey { ifname: "net1".into(), ..key.clone() };
    let given = AttachRequest { key: other.clone(), ..given() };
    assert_eq!(client.attach(&given).await.unwrap(), Attachment { key: other.clone(), ..attachment() });
    let leased = AttachRequest { addresses: AddressSource::Lease { wanted: Vec::new() }, ..given };
    assert!(matches!(client.attach(&leased).await, Err(ClientError::Exhausted(refusal)) if refusal.object == "ipam"));
    assert_eq!((client.detach(&key).await, client.detach(&other).await), (Ok(true), Ok(false)));
    let drifts = client.check_attachment(&key, &netns, &addresses).await.unwrap();
    assert_eq!(drifts, ["/run/netns/cni-8e3f has 10.244.1.10/24", "/run/netns/cni-8e3f has fd00:244:1::a/64"]);
    assert!(matches!(client.check_attachment(&other, &netns, &[]).await, Err(ClientError::NotFound(_))));
    assert_eq!(client.collect_attachments(&network, &[]).await.unwrap(), std::slice::from_ref(&key));
    assert_eq!(client.collect_attachments(&network, std::slice::from_ref(&key)).await.unwrap(), []);
    assert_eq!(client.collect_attachments(&"others".parse().unwrap(), &[]).await.unwrap(), []);
    assert_eq!(client.attachments().await.unwrap(), [attachment()]);
    let address = addresses[0].addr();
    assert_eq!(client.release_address(address, true).await, Ok(key));
    assert!(matches!(client.release_address(address, false).await, Err(ClientError::Refused { .. })));
    let said = Readiness { cannot_attach: Some("no address is free".into()), pods_suffer: None };
    assert_eq!(client.readiness().await, Ok(said));
}
