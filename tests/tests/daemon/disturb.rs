//! Clients that misbehave: frames must not notice, and statements stay whole.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use podwire_control::model::{Key, Object, Owner, Via};
use podwire_tests::binary::binary;

use crate::api::{Api, eventually, node, pod, route};
use crate::stream::Stream;

/// Routes of a request that takes a while.
const MANY: u16 = 20_000;

fn many_routes() -> Vec<Object> {
    (0..MANY).map(|n| route(&format!("10.{}.{}.0/24", 16 + n / 256, n % 256), Via::Blackhole)).collect()
}

#[test]
fn a_client_that_is_killed_in_the_middle_of_a_call_loses_no_frame_and_leaves_no_half() {
    let node = node();
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    let api = Api::of(&node);
    let file = tempfile::NamedTempFile::new().unwrap();
    let ports = ["10", "11"].iter().zip([&a, &b]).map(|(host, pod)| {
        format!(
            "[[port]]\nname = \"pod-{host}\"\nnetns = \"{}\"\naddresses = [\"10.244.1.{host}/24\", \"fd00:244:1::{:x}/64\"]\n",
            pod.netns.path().display(),
            host.parse::<u8>().unwrap()
        )
    });
    let routes = (0..MANY)
        .map(|n| format!("[[route]]\nprefix = \"10.{}.{}.0/24\"\nvia = \"blackhole\"\n", 16 + n / 256, n % 256));
    std::fs::write(file.path(), ports.chain(routes).collect::<String>()).unwrap();
    let stream = Stream::start(&a, &b);
    for delay_ms in [20, 80, 150, 300] {
        let mut command = std::process::Command::new(binary("podwire"));
        command.arg("--socket").arg(node.socket()).args(["apply", "-f"]).arg(file.path());
        let mut client = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        client.kill().unwrap();
        client.wait().unwrap();
        let routes = api.ask(api.client.routes()).unwrap().len();
        assert!(routes == 0 || routes == usize::from(MANY), "half a statement: {routes} routes");
    }
    let (sent, lost) = stream.end();
    assert!(sent > 20, "{sent} sent");
    assert_eq!(lost, 0, "of {sent}");
}

#[test]
fn a_flood_of_connections_garbage_and_huge_requests_loses_no_frame() {
    let node = node();
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    let api = Api::of(&node);
    let stream = Stream::start(&a, &b);
    let mut connections: Vec<UnixStream> = (0..96).filter_map(|_| UnixStream::connect(node.socket()).ok()).collect();
    assert!(connections.len() > 64);
    for (number, connection) in connections.iter_mut().enumerate() {
        connection.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let byte = u8::try_from(number % 256).unwrap();
        // Refused ones are closed under the writer, which is what they deserve.
        let _ = match number % 3 {
            0 => connection.write_all(&vec![byte; 100_000]),
            1 => connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x00"),
            _ => Ok(()),
        };
    }
    assert_eq!(api.ask(api.client.status()).unwrap().node, "node1", "who is connected is served");
    drop(connections);
    eventually(Duration::from_secs(5), "places are given back", || node.podwire_outcome(&["status"]).ok());

    let calls = (0..200).map(|_| api.client.counters());
    api.ask(async {
        let calls: Vec<_> = calls.map(|call| async { call.await.map(drop) }).collect();
        for call in calls {
            call.await.unwrap();
        }
    });
    // Larger than a request may be: 33 MB of routes that are one key.
    let huge = vec![route("10.9.0.0/16", Via::Port("p".repeat(60).parse().unwrap())); 400_000];
    assert!(api.ask(api.client.apply(Owner::Etcd, &huge)).is_err());
    let (sent, lost) = stream.end();
    assert!(sent > 20, "{sent} sent");
    assert_eq!(lost, 0, "of {sent}");
    assert_eq!(api.ask(api.client.routes()).unwrap().len(), 0);
}

#[test]
fn large_statements_and_questions_lose_no_frame() {
    let node = node();
    let (a, b) = (pod(&node, 10), pod(&node, 11));
    let api = Api::of(&node);
    let stream = Stream::start(&a, &b);
    let routes = many_routes();
    let applied = api.ask(api.client.apply(Owner::Etcd, &routes)).unwrap();
    assert_eq!(applied.changed.len(), routes.len());
    assert_eq!(api.ask(api.client.routes()).unwrap().len(), routes.len());
    let deletes: Vec<Key> = routes.iter().map(Object::key).collect();
    api.ask(api.client.change(Owner::Etcd, &[], &deletes)).unwrap();
    let (sent, lost) = stream.end();
    assert_eq!(lost, 0, "of {sent}");
}

#[test]
fn a_reader_of_events_that_reads_nothing_holds_nobody_up() {
    let node = node();
    let api = Api::of(&node);
    let mut watcher = std::process::Command::new(binary("podwire"));
    watcher.arg("--socket").arg(node.socket()).arg("events").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut watcher = watcher.spawn().unwrap();
    let other = api.ask(api.client.events()).unwrap();
    for n in 0..3 {
        api.ask(api.client.apply(Owner::Etcd, &many_routes()[n..][..2_000])).unwrap();
    }
    drop(other);
    watcher.kill().unwrap();
    let mut seen = String::new();
    watcher.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    watcher.wait().unwrap();
    assert_eq!(api.ask(api.client.routes()).unwrap().len(), 2_000);
}
