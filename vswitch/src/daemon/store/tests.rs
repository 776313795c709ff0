//! What is committed is there after a restart, and a file that can not be used is left as it is.

mod copy;

use super::attachment::tests::stored;
use super::layout::{ATTACHMENTS, META, OBJECTS, RANGES, RELEASES};
use super::*;
use crate::daemon::ipam::ReleaseRows;
use crate::daemon::ledger::any;
use podwire_control::model::{AttachmentKey, Route, Via};
use proptest::prelude::*;
use std::path::Path;
use std::process::{Command, Stdio};

const FILE_NAME: &str = "podwired.redb";

fn route(number: u16, via: Via) -> Object {
    let [high, low] = number.to_be_bytes();
    Object::Route(Route { prefix: format!("10.{high}.{low}.0/24").parse().unwrap(), via })
}

/// A store's place in a directory, its copy beside it.
fn place(dir: &Path, node: &str) -> Place {
    Place { main: dir.join(FILE_NAME), copy: dir.join("copy.redb"), node: node.to_owned() }
}

fn try_open(dir: &Path, node: &str) -> Result<Store, StoreError> {
    Store::open(place(dir, node)).map(|(store, _)| store)
}

fn open(dir: &Path) -> Store {
    try_open(dir, "node1").unwrap()
}

fn load(dir: &Path) -> Vec<(Owner, Object)> {
    Store::open(place(dir, "node1")).unwrap().1.objects
}

#[test]
fn what_cli_and_cni_stated_survives_and_what_others_stated_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a/b");
    let mut store = open(&state);
    for owner in Owner::ALL {
        store.commit(&Batch::objects(owner, &[route(1, Via::Host), route(2, Via::Host)], &[])).unwrap();
    }
    store.commit(&Batch::objects(Owner::Cli, &[route(2, Via::Blackhole)], &[route(1, Via::Host).key()])).unwrap();
    drop(store);
    let kept = vec![
        (Owner::Cli, route(2, Via::Blackhole)),
        (Owner::Cni, route(1, Via::Host)),
        (Owner::Cni, route(2, Via::Host)),
    ];
    assert_eq!(load(&state), kept);
    assert_eq!(load(&state), kept, "reading changes nothing");
}

fn ranges(texts: &[&str]) -> Vec<IpRange> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// An attachment of some container.
fn attachment(container: &str) -> StoredAttachment {
    let record = format!(
        r#"{{"version":1,"attachment":{{"container":"{container}","ifname":"eth0","network":"n","netns":"/run/netns/a",
        "netns_dev":4,"netns_ino":7,"boot_id":"b","pod":null,"port":"{container}","kind":"tap","addresses":[],"leased":true,
        "gateways":[],"mac":"0a:58:0a:f4:01:02","mtu":1450,"host_ports":[],"ingress":null,"egress":null}}}}"#
    );
    super::attachment::decode(record.as_bytes()).unwrap()
}

#[test]
fn one_batch_carries_objects_attachments_ranges_and_releases() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let addresses: [IpAddr; 2] = ["10.244.1.7".parse().unwrap(), "fd00::7".parse().unwrap()];
    let objects = [route(1, Via::Host)];
    let (attached, stated) = ([attachment("a"), attachment("b")], ranges(&["10.244.1.16-10.244.1.20", "10.244.1.9"]));
    let released = ReleaseRows { released: vec![(addresses[0], 4), (addresses[1], 5)], ..ReleaseRows::default() };
    let mut batch = Batch::objects(Owner::Cni, &objects, &[]);
    (batch.attached, batch.ranges, batch.releases) = (&attached, Some(stated.as_slice()), Some(&released));
    store.commit(&batch).unwrap();
    let killed = snapshot_of(dir.path());
    let mut store = open(killed.path());
    assert_eq!(store.main.objects().unwrap(), [(Owner::Cni, route(1, Via::Host))]);
    assert_eq!(store.main.attachments().unwrap(), attached);
    assert_eq!(store.main.ranges().unwrap(), stated);
    assert_eq!(store.main.releases().unwrap(), [(addresses[0], 4), (addresses[1], 5)]);

    let keys: Vec<AttachmentKey> = ["a", "never-there"].map(|name| attachment(name).attachment.key).to_vec();
    let forgotten = ReleaseRows { released: vec![(addresses[1], 9)], forgotten: [addresses[0]].into() };
    let batch = Batch { detached: &keys, ranges: Some(&stated[1..]), releases: Some(&forgotten), ..Batch::default() };
    store.commit(&batch).unwrap();
    assert_eq!(store.main.objects().unwrap().len(), 1, "what a batch does not speak of stays");
    assert_eq!(store.main.attachments().unwrap(), attached[1..]);
    assert_eq!(store.main.ranges().unwrap(), stated[1..]);
    assert_eq!(store.main.releases().unwrap(), [(addresses[1], 9)]);
    store.commit(&Batch { ranges: Some(&[]), ..Batch::default() }).unwrap();
    assert_eq!(store.main.ranges().unwrap(), []);
}

#[test]
fn a_store_of_before_gets_the_tables_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.commit(&Batch::objects(Owner::Cli, &[route(1, Via::Host)], &[])).unwrap();
    write(&mut store, |write| {
        assert!(write.delete_table(ATTACHMENTS).unwrap());
        assert!(write.delete_table(RANGES).unwrap());
        assert!(write.delete_table(RELEASES).unwrap());
    });
    drop(store);
    let mut store = open(dir.path());
    assert_eq!(store.main.objects().unwrap(), [(Owner::Cli, route(1, Via::Host))]);
    assert_eq!(store.main.attachments().unwrap(), []);
    assert_eq!((store.main.ranges().unwrap(), store.main.releases().unwrap()), (Vec::new(), Vec::new()));
    store.commit(&Batch { attached: &[attachment("a")], ..Batch::default() }).unwrap();
    assert_eq!(store.main.attachments().unwrap(), [attachment("a")]);
}

/// The file as it is at this moment, as a power cut or a kill would leave it, under another directory.
fn snapshot_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(dir.join(FILE_NAME), copy.path().join(FILE_NAME)).unwrap();
    copy
}

#[test]
fn a_commit_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for number in 0..20 {
        store.commit(&Batch::objects(Owner::Cli, &[route(number, Via::Host)], &[])).unwrap();
        let killed = snapshot_of(dir.path());
        assert_eq!(load(killed.path()).len(), usize::from(number) + 1);
    }
}

#[test]
fn a_second_process_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let error = try_open(dir.path(), "node1").unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().starts_with("another podwired uses the store /"), "{error}");
    drop(store);
    open(dir.path());
}

#[test]
fn a_store_of_another_node_or_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let other = |error: StoreError| error.to_string();
    drop(store);
    let error = other(try_open(dir.path(), "node2").unwrap_err());
    assert!(error.contains("is of node \"node1\", and node.name is \"node2\""), "{error}");

    store = open(dir.path());
    write(&mut store, |write| {
        let mut meta = write.open_table(META).unwrap();
        meta.insert("schema", 2u64.to_be_bytes().as_slice()).unwrap();
    });
    drop(store);
    let error = other(try_open(dir.path(), "node1").unwrap_err());
    assert!(error.contains("is of version 2, and this podwired knows version 1"), "{error}");
}

fn write(store: &mut Store, with: impl FnOnce(&redb::WriteTransaction)) {
    let transaction = store.main.database.as_ref().unwrap().begin_write().unwrap();
    with(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn a_record_of_a_later_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    write(&mut store, |write| {
        let mut table = write.open_table(OBJECTS).unwrap();
        table.insert(("cli", "port a"), br#"{"version":9}"#.as_slice()).unwrap();
    });
    let error = store.main.objects().unwrap_err().to_string();
    assert!(error.contains("holds port a of owner cli, which is not understood: it is of version 9"), "{error}");
    let good = super::attachment::encode(&attachment("a")).unwrap();
    for (container, record, expected) in [
        ("a", br#"{"version":9}"#.as_slice(), "holds eth0 of container a, which is not understood: it is of version 9"),
        ("b", &good, "holds eth0 of container b, which is not understood: the record is of eth0 of container a"),
    ] {
        write(&mut store, |write| {
            write.open_table(ATTACHMENTS).unwrap().insert((container, "eth0"), record).unwrap();
        });
        let error = store.main.attachments().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        store.commit(&Batch { detached: &[attachment(container).attachment.key], ..Batch::default() }).unwrap();
    }
    write(&mut store, |write| {
        write.open_table(RANGES).unwrap().insert(0, "10.0.0.0/24").unwrap();
        write.open_table(RELEASES).unwrap().insert([10, 0, 0].as_slice(), 1).unwrap();
    });
    let (range, release) =
        (store.main.ranges().unwrap_err().to_string(), store.main.releases().unwrap_err().to_string());
    assert!(range.contains("holds the range 10.0.0.0/24, which is not understood: it is no range"), "{range}");
    assert!(release.contains("holds the release [0a, 00, 00], which is not understood: it is of no"), "{release}");
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let whole = tempfile::tempdir().unwrap();
    open(whole.path()).commit(&Batch::objects(Owner::Cli, &[route(1, Via::Host)], &[])).unwrap();
    let good = std::fs::read(whole.path().join(FILE_NAME)).unwrap();
    let mut zeroed = good.clone();
    zeroed[..4096].fill(0);
    let cases = [b"no database at all".to_vec(), vec![0xa5; 1 << 16], good[..good.len() / 2].to_vec(), zeroed];
    for (at, bytes) in cases.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE_NAME);
        std::fs::write(&file, &bytes).unwrap();
        let error = try_open(dir.path(), "node1").unwrap_err().to_string();
        assert!(error.contains("is damaged") && error.contains("move it away"), "case {at}: {error}");
        assert!(std::fs::read(&file).unwrap() == bytes, "case {at}: the file was changed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_page_is_told_or_was_not_in_use(page in 0usize..64, byte in any::<u8>(), width in 1usize..4096) {
        let dir = tempfile::tempdir().unwrap();
        let stated: Vec<_> = (0..50).map(|number| route(number, Via::Host)).collect();
        open(dir.path()).commit(&Batch::objects(Owner::Cli, &stated, &[])).unwrap();
        let file = dir.path().join(FILE_NAME);
        let mut bytes = std::fs::read(&file).unwrap();
        let at = (page * 4096) % bytes.len();
        let end = (at + width).min(bytes.len());
        bytes[at..end].iter_mut().for_each(|old| *old ^= byte);
        std::fs::write(&file, &bytes).unwrap();
        let copy = std::fs::read(place(dir.path(), "node1").copy).unwrap();
        std::fs::remove_file(place(dir.path(), "node1").copy).unwrap();
        let is_all = |loaded: &[(Owner, Object)]| {
            loaded.len() == stated.len() && loaded.iter().all(|(_, object)| stated.contains(object))
        };
        match Store::open(place(dir.path(), "node1")) {
            Ok((_, remembered)) => prop_assert!(is_all(&remembered.objects), "the page was not in use, so all is there"),
            Err(error) => {
                let damaged = matches!(error, StoreError::Damaged { .. });
                prop_assert!(damaged || matches!(error, StoreError::Version { .. }), "{}", error);
                prop_assert!(std::fs::read(&file).unwrap() == bytes, "the file was changed");
                std::fs::write(place(dir.path(), "node1").copy, copy).unwrap();
                prop_assert!(!damaged || is_all(&load(dir.path())), "and all is in the copy");
            }
        }
    }

    #[test]
    fn attachments_are_given_back_as_they_were_committed_last(rounds in prop::collection::vec((stored(), any::<bool>()), 1..12)) {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = std::collections::BTreeMap::new();
        let mut store = open(dir.path());
        for (stored, delete) in rounds {
            let key = stored.attachment.key.clone();
            if delete {
                store.commit(&Batch { detached: std::slice::from_ref(&key), ..Batch::default() }).unwrap();
                expected.remove(&key);
            } else {
                store.commit(&Batch { attached: std::slice::from_ref(&stored), ..Batch::default() }).unwrap();
                expected.insert(key, stored);
            }
        }
        drop(store);
        let loaded = open(dir.path()).main.attachments().unwrap();
        prop_assert_eq!(loaded, expected.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn the_store_gives_back_what_was_committed_last(rounds in prop::collection::vec((any::object(), any::<bool>()), 1..12)) {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = std::collections::BTreeMap::new();
        let mut store = open(dir.path());
        for (object, delete) in rounds {
            let key = object.key();
            if delete {
                store.commit(&Batch::objects(Owner::Cni, &[], std::slice::from_ref(&key))).unwrap();
                expected.remove(&key);
            } else {
                store.commit(&Batch::objects(Owner::Cni, std::slice::from_ref(&object), &[])).unwrap();
                expected.insert(key, object);
            }
        }
        drop(store);
        let loaded: std::collections::BTreeMap<_, _> = load(dir.path()).into_iter().map(|(_, object)| (object.key(), object)).collect();
        prop_assert_eq!(loaded, expected);
    }
}

/// The directory the other process of the next test fills.
const FULL_DIR: &str = "PODWIRE_TEST_FULL_DIR";

#[test]
fn a_full_disk_is_an_error_that_loses_nothing() {
    if let Ok(dir) = std::env::var(FULL_DIR) {
        return fill(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).commit(&Batch::objects(Owner::Cli, &[route(0, Via::Host)], &[])).unwrap();
    let blocks = std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().len() / 512 + 8;
    // A limit on the size of files, as a disk that is nearly full; 'sh' has it in blocks of 512 bytes.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" --exact \"$1\" --nocapture");
    let this = "daemon::store::tests::a_full_disk_is_an_error_that_loses_nothing";
    let filled = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(this)
        .env(FULL_DIR, dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&filled.stdout).into_owned() + &String::from_utf8_lossy(&filled.stderr);
    assert!(filled.status.success() && output.contains("1 passed"), "{output}");
    assert_eq!(load(dir.path()), [(Owner::Cli, route(0, Via::Host)), (Owner::Cli, route(1, Via::Host))]);
}

/// Commits more than fits, then something small, under a file size limit.
fn fill(dir: &Path) {
    let mut store = open(dir);
    let many: Vec<_> = (2..60_000).map(|number| route(number, Via::Host)).collect();
    let (stated, attached) = (ranges(&["10.244.1.9"]), [attachment("a")]);
    let mut batch = Batch::objects(Owner::Cli, &many, &[]);
    (batch.attached, batch.ranges) = (&attached, Some(stated.as_slice()));
    let error = store.commit(&batch).unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    assert!(error.to_string().contains("nothing of the request was stored"), "{error}");
    assert_eq!(store.main.objects().unwrap(), [(Owner::Cli, route(0, Via::Host))]);
    assert_eq!((store.main.attachments().unwrap(), store.main.ranges().unwrap()), (Vec::new(), Vec::new()));
    store.commit(&Batch::objects(Owner::Cli, &[route(1, Via::Host)], &[])).unwrap();
}
