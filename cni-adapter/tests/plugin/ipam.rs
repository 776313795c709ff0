//! Addresses from another plugin: a script that notes how it was called, and the real host-local where it is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use podwire_control::model::{AddressSource, Refusal};
use podwire_control::service::BackendError;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::run::{CONTAINER, Call, Service};

/// Where Debian has the reference plugins.
const REFERENCE_PLUGINS: &str = "/usr/lib/cni";
const GIVES: &str =
    r#"{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.7/24", "gateway": "10.9.0.1"}], "dns": {"search": ["a"]}}"#;

/// A script that notes each call and its request, and answers `say` to ADD.
fn script(say: &str, exit: i32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("giver");
    let text = format!(
        "#!/bin/sh\necho \"$CNI_COMMAND $CNI_CONTAINERID\" >>{0}/calls\ncat >{0}/request\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\n\
         echo noise >&2\nprintf '%s' '{say}'\nexit {exit}\n",
        folder.path().display()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn calls(folder: &TempDir) -> String {
    let text = fs::read_to_string(folder.path().join("calls")).unwrap_or_default();
    text.lines().map(|line| line.replace(CONTAINER, "C")).collect::<Vec<_>>().join(", ")
}

fn call(service: &Service, command: &str, folder: &Path) -> Call {
    let call = service.call(command, "1.1.0").with("CNI_PATH", format!("/nowhere:{}", folder.display()));
    call.key("ipam", json!({"type": "giver", "extra": 1}))
}

#[test]
fn addresses_are_given_by_the_plugin_and_taken_back_after_the_interface() {
    let (service, giver) = (Service::start(), script(GIVES, 0));
    let said = call(&service, "ADD", giver.path()).run().said;
    assert_eq!(said["ips"][0]["address"], "10.9.0.7/24", "{said}");
    assert_eq!(said["dns"], json!({"search": ["a"]}));
    let asked = service.fake.asked.lock().unwrap().pop().unwrap();
    assert_eq!(asked.addresses, AddressSource::Given(vec!["10.9.0.7/24".parse().unwrap()]));
    let request: Value = serde_json::from_slice(&fs::read(giver.path().join("request")).unwrap()).unwrap();
    assert_eq!((&request["ipam"]["extra"], &request["more"]), (&json!(1), &json!(1)), "the configuration came whole");

    *service.fake.readiness.lock().unwrap() = podwire_control::model::Readiness::default();
    for command in ["GC", "STATUS", "DEL"] {
        call(&service, command, giver.path()).run().done();
    }
    let told = json!({"interfaces": [{"name": "eth0", "sandbox": "/a"}], "ips": []});
    call(&service, "CHECK", giver.path()).key("prevResult", told).run().done();
    assert_eq!(calls(&giver), "ADD C, GC C, STATUS C, DEL C, CHECK C");
}

#[test]
fn its_error_is_passed_on_with_its_code_and_nothing_is_attached() {
    let error = r#"{"cniVersion": "1.1.0", "code": 147, "msg": "range is full", "details": "really"}"#;
    for (say, exit, code, word) in [
        (error, 1, 147, "giver: range is full"),
        ("not JSON", 1, 102, "no error object"),
        ("", 3, 102, "exit status: 3"),
    ] {
        let (service, giver) = (Service::start(), script(say, exit));
        let add = call(&service, "ADD", giver.path());
        add.clone().with("CNI_CONTAINERID", "new").run().failed("1.1.0", code, word);
        assert_eq!(calls(&giver), "ADD new, DEL new", "it may have given a part");
        add.run().failed("1.1.0", code, word);
        assert_eq!(calls(&giver), "ADD new, DEL new, ADD C", "an interface that is there keeps its addresses");
        assert_eq!(service.fake.asked.lock().unwrap().len(), 0);
    }
}

#[test]
fn what_a_plugin_that_fails_gave_is_kept_while_its_interface_may_be_there() {
    let (service, giver) = (Service::start(), script("", 3));
    *service.fake.fails.lock().unwrap() = Some(BackendError::Internal("it broke".into()));
    call(&service, "ADD", giver.path()).run().failed("1.1.0", 102, "what it gave is kept");
    assert_eq!(calls(&giver), "ADD C");
}

#[test]
fn a_plugin_that_would_run_itself_is_refused() {
    let (service, folder) = (Service::start(), tempfile::tempdir().unwrap());
    for name in ["podwire-cni", "another-name"] {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_podwire-cni"), folder.path().join(name)).unwrap();
        let add = call(&service, "ADD", folder.path()).key("ipam", json!({"type": name}));
        add.run().failed("1.1.0", 7, "leave `ipam` out");
    }
    assert_eq!(service.fake.asked.lock().unwrap().len(), 0);
}

#[test]
fn what_it_gave_is_taken_back_when_the_rest_fails() {
    for (say, error, code) in [
        (r#"{"cniVersion": "1.1.0"}"#, None, 102),
        (r#"{"ips": [{"address": "x"}]}"#, None, 102),
        (GIVES, Some(BackendError::Refused(vec![Refusal::new("port", "no")])), 100),
    ] {
        let (service, giver) = (Service::start(), script(say, 0));
        *service.fake.fails.lock().unwrap() = error;
        let ran = call(&service, "ADD", giver.path()).with("CNI_CONTAINERID", "new").run();
        ran.failed("1.1.0", code, "");
        assert!(ran.stderr.contains("noise"), "its log goes to ours");
        assert_eq!(calls(&giver), "ADD new, DEL new");
    }
}

#[test]
fn addresses_are_kept_while_their_interface_may_stay() {
    for (error, code) in
        [(BackendError::Internal("it broke".into()), 104), (BackendError::Unavailable("it broke".into()), 11)]
    {
        let (service, giver) = (Service::start(), script(GIVES, 0));
        *service.fake.fails.lock().unwrap() = Some(error);
        call(&service, "ADD", giver.path()).run().failed("1.1.0", code, "could not be taken back");
        call(&service, "DEL", giver.path()).run().failed("1.1.0", code, "it broke");
        assert_eq!(calls(&giver), "ADD C");
    }
}

#[test]
fn nothing_is_given_while_podwired_is_away() {
    let (service, giver) = (Service::start(), script(GIVES, 0));
    let away = json!(giver.path().join("none.sock"));
    call(&service, "ADD", giver.path()).key("socket", away).run().failed("1.1.0", 11, "cannot reach podwired");
    assert_eq!(calls(&giver), "");
}

#[test]
fn host_local_gives_and_takes_back() {
    let program = Path::new(REFERENCE_PLUGINS).join("host-local");
    assert!(program.exists(), "{} is missing: run `make deps`", program.display());
    let (service, state) = (Service::start(), tempfile::tempdir().unwrap());
    let ranges = json!([[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64", "rangeEnd": "fd00:9::6"}]]);
    let ipam = json!({"type": "host-local", "dataDir": state.path(), "ranges": ranges});
    let call = |command: &str, container: usize| {
        let call = service.call(command, "1.0.0").with("CNI_PATH", REFERENCE_PLUGINS);
        // The first is the one that the fake has.
        let id = if container == 0 { CONTAINER.to_owned() } else { format!("c{container}") };
        call.with("CNI_CONTAINERID", id).key("ipam", ipam.clone())
    };
    let said = call("ADD", 0).run().said;
    assert_eq!(
        (&said["ips"][0]["address"], &said["ips"][1]["address"]),
        (&json!("10.9.0.2/24"), &json!("fd00:9::2/64"))
    );
    call("ADD", 0).run().failed("1.0.0", 999, "duplicate");
    let given = || {
        let files = fs::read_dir(state.path().join("pods")).unwrap();
        files.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("10.9")).count()
    };
    assert_eq!(given(), 1, "a second ADD takes nothing away");
    for container in 1..5 {
        assert!(call("ADD", container).run().ok);
    }
    call("ADD", 5).run().failed("1.0.0", 999, "host-local: ");
    assert_eq!(given(), 5, "an ADD that failed for want of IPv6 has no IPv4 address either");
    *service.fake.fails.lock().unwrap() = Some(BackendError::Exhausted(Refusal::new("port", "no")));
    call("DEL", 4).run().failed("1.0.0", 101, "no");
    assert_eq!(given(), 5, "an address stays while its interface does");
    *service.fake.fails.lock().unwrap() = None;
    (0..6).for_each(|container| call("DEL", container).run().done());
    assert_eq!(given(), 0);
}
