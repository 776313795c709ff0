//! What the CLI prints, against a service on a real Unix socket, to the letter.

#![allow(clippy::unwrap_used)] // a test, its helpers included

mod fake;

use std::io::{self, Write};

use fake::Running;
use podwire_control::cli::{Exit, run};

/// What a command printed and how it ended.
struct Said {
    exit: Exit,
    out: String,
    err: String,
}

async fn podwire(running: &Running, line: &str) -> Said {
    let socket = running.socket.display().to_string();
    let args = ["podwire", "--socket", &socket].into_iter().chain(line.split_whitespace()).map(Into::into);
    let args: Vec<std::ffi::OsString> = args.collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run(args, &mut out, &mut err).await;
    Said { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// Compares with the file of the verb's name; `PODWIRE_BLESS=1` writes it instead.
fn golden(name: &str, found: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("PODWIRE_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{path} differs; look at it, then bless it with PODWIRE_BLESS=1");
}

#[tokio::test]
async fn tables_and_json_are_what_they_were() {
    let running = Running::start();
    for (name, line) in [
        ("status", "status"),
        ("port_list", "port list"),
        ("port_show", "port show pod-b"),
        ("bridge_list", "bridge list"),
        ("mac_list", "mac list --bridge blue"),
        ("route_list", "route list"),
        ("route_get", "route get 10.244.2.7"),
        ("vtep_list", "vtep list"),
        ("attachment_list", "attachment list"),
        ("ipam_list", "ipam list"),
        ("ipam_release", "ipam release --force 10.244.1.10"),
        ("stats", "stats"),
        ("drops", "drops"),
        ("drops_all", "drops --all"),
        ("trace", "trace --in pod-a --dst 10.244.2.10 --proto tcp --dport 80"),
        ("ipam_show", "ipam show"),
        ("show_limits", "show limits"),
    ] {
        for (format, suffix) in [("table", "txt"), ("json", "json")] {
            let said = podwire(&running, &format!("{line} -o {format}")).await;
            assert_eq!((said.exit, said.err.as_str()), (Exit::Done, ""), "{line}");
            golden(&format!("{name}.{suffix}"), &said.out);
        }
    }
}

#[tokio::test]
async fn a_port_added_twice_is_unchanged_and_deleted_twice_is_an_error() {
    let running = Running::start();
    let add = "port add pod-a --kind tap --netns a --ifname eth0 --ip 10.244.1.10/24 --ip fd00:244:1::a/64";
    for (line, exit, out, err) in [
        (add, Exit::Done, "port pod-a: added\n", ""),
        (add, Exit::Done, "port pod-a: unchanged\n", ""),
        ("port add pod-a --netns a --mtu 1400", Exit::Done, "port pod-a: changed\n", ""),
        ("port del pod-a", Exit::Done, "port pod-a: removed\n", ""),
        ("port del pod-a", Exit::Refused, "", "error: port pod-a: cli stated no such object; see the list\n"),
        ("port show pod-x", Exit::Refused, "", "error: port pod-x: there is none; see 'podwire port list'\n"),
        (
            "route add 10.0.0.1/8 via host",
            Exit::Refused,
            "",
            "error: route 10.0.0.1/8: prefix 10.0.0.1/8 has bits set beyond its length; write 10.0.0.0/8\n",
        ),
        (
            "vtep add node2 --remote 172.31.0.2 --mac 02:00:00:00:00:02 -o json",
            Exit::Done,
            "{\n  \"changed\": [\n    {\n      \"action\": \"added\",\n      \"object\": \"vtep node2\"\n    }\n  ],\n  \
             \"generation\": 9,\n  \"unchanged\": 0\n}\n",
            "",
        ),
    ] {
        let said = podwire(&running, line).await;
        assert_eq!((said.exit, said.out.as_str(), said.err.as_str()), (exit, out, err), "{line}");
    }
}

#[tokio::test]
async fn a_range_added_twice_is_unchanged_and_deleted_twice_is_an_error() {
    let running = Running::start();
    let range = "10.244.1.201-10.244.1.204";
    for (line, exit, out, err) in [
        ("range add", Exit::Done, "range 10.244.1.201-10.244.1.204: added\n", ""),
        ("range add", Exit::Done, "range 10.244.1.201-10.244.1.204: unchanged\n", ""),
        ("range del", Exit::Done, "range 10.244.1.201-10.244.1.204: removed\n", ""),
        (
            "range del",
            Exit::Refused,
            "",
            "error: range 10.244.1.201-10.244.1.204: the CLI stated no such range; see 'podwire ipam show'\n",
        ),
        (
            "range add -o json",
            Exit::Done,
            "{\n  \"added\": [\n    \"10.244.1.201-10.244.1.204\"\n  ],\n  \"removed\": []\n}\n",
            "",
        ),
    ] {
        let said = podwire(&running, &format!("ipam {line} {range}")).await;
        assert_eq!((said.exit, said.out.as_str(), said.err.as_str()), (exit, out, err), "{line}");
    }
    let said = podwire(&running, "ipam range add 10.244.1.9-10.244.1.1").await;
    assert!(said.exit == Exit::Usage && said.err.contains("write FIRST-LAST"), "{}", said.err);
}

#[tokio::test]
async fn a_file_is_applied_whole_or_refused_by_object() {
    let running = Running::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = format!("apply -f {}", file.path().display());
    std::fs::write(file.path(), "[[route]]\nprefix = '10.1.0.0/16'\nvia = 'host'\n").unwrap();
    let said = podwire(&running, &line).await;
    assert_eq!(said.out, "route 10.1.0.0/16: added\n1 changed, 0 unchanged, generation 8\n", "{}", said.err);
    std::fs::write(file.path(), r#"{"route": [{"prefix": "10.1.0.0/16", "via": "host", "metric": 1}]}"#).unwrap();
    let said = podwire(&running, &line).await;
    assert_eq!(said.exit, Exit::Refused);
    assert!(said.err.starts_with("error: file ") && said.err.contains("unknown field `metric`"), "{}", said.err);
    std::fs::write(file.path(), "").unwrap();
    let said = podwire(&running, &line).await;
    assert_eq!(said.out, "route 10.1.0.0/16: removed\n1 changed, 0 unchanged, generation 8\n", "{}", said.err);
}

#[tokio::test]
async fn events_are_printed_until_the_daemon_stops() {
    let mut running = Running::start();
    let socket = running.socket.display().to_string();
    let printing = tokio::spawn(async move {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = ["podwire", "events", "--socket", &socket].map(Into::into);
        let exit = run(args, &mut out, &mut err).await;
        (exit, String::from_utf8(out).unwrap())
    });
    while running.fake.events.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    podwire(&running, "route add 10.1.0.0/16 via blackhole").await;
    running.stop();
    let (exit, out) = printing.await.unwrap();
    assert_eq!(exit, Exit::Done);
    assert_eq!(out, "22:13:20.123Z  generation_published  generation 9: every worker uses it\n");
}

#[tokio::test]
async fn usage_ends_with_2_and_help_and_completions_with_0() {
    let running = Running::start();
    for line in ["", "port", "port ad", "route add 10.0.0.0/8", "port add p", "status --frob"] {
        let said = podwire(&running, line).await;
        assert_eq!((said.exit, said.out.as_str()), (Exit::Usage, ""), "{line}");
        assert!(!said.err.is_empty(), "{line}");
    }
    for (line, part) in [("--help", "trace"), ("completions bash", "_podwire"), ("--version", "podwire 0.")] {
        let said = podwire(&running, line).await;
        assert!(said.exit == Exit::Done && said.out.contains(part), "{line}: {}{}", said.out, said.err);
    }
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_named_with_the_remedy() {
    let mut err = Vec::new();
    let args = ["podwire", "--socket", "/nowhere/podwired.sock", "status"].map(Into::into);
    assert_eq!(run(args, &mut Vec::new(), &mut err).await, Exit::Refused);
    let err = String::from_utf8(err).unwrap();
    assert!(err.starts_with("error: cannot reach podwired at /nowhere/podwired.sock"), "{err}");
}

/// A pipe whose reader has gone.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_closed_pipe_is_how_a_reader_says_enough() {
    let running = Running::start();
    let socket = running.socket.display().to_string();
    for verb in [&["stats", "--watch"][..], &["status"], &["completions", "zsh"], &["--help"]] {
        let args = ["podwire", "--socket", &socket].iter().chain(verb).map(Into::into).collect::<Vec<_>>();
        let mut err = Vec::new();
        assert_eq!(run(args, &mut Gone, &mut err).await, Exit::Done, "{verb:?}");
        assert!(err.is_empty(), "{verb:?}");
    }
}
