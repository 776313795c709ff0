//! What the copy is good for, and when it is not used.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// Commits one more route.
fn state(store: &mut Store, number: u16) {
    store.commit(&Batch::objects(Owner::Cli, &[route(number, Via::Host)], &[])).unwrap();
}

/// A store with a batch of every kind in it, and what it remembers.
fn filled(place: &Place) -> Remembered {
    let (mut store, _) = Store::open(place.clone()).unwrap();
    let (attached, stated) = ([attachment("a")], ranges(&["10.244.1.9"]));
    let released = ReleaseRows { released: vec![("fd00::7".parse().unwrap(), 5)], ..ReleaseRows::default() };
    let mut batch = Batch::objects(Owner::Cli, &[], &[]);
    (batch.attached, batch.ranges, batch.releases) = (&attached, Some(stated.as_slice()), Some(&released));
    store.commit(&batch).unwrap();
    state(&mut store, 1);
    Opened::read(store.main).unwrap().remembered
}

/// Ways to damage a file.
const DAMAGES: [fn(&Path); 5] = [
    |file| fs::write(file, "").unwrap(),
    |file| fs::write(file, vec![0xa5; 100_000]).unwrap(),
    |file| fs::write(file, &fs::read(file).unwrap()[..100]).unwrap(),
    |file| fs::write(file, &fs::read(file).unwrap()[..8_192]).unwrap(),
    |file| fs::write(file, fs::read(file).unwrap().iter().map(|byte| byte ^ 0x10).collect::<Vec<_>>()).unwrap(),
];

#[test]
fn a_damaged_store_is_made_anew_from_its_copy_and_kept_aside() {
    for (at, damage) in DAMAGES.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), "node1");
        let before = filled(&place);
        fs::write(place.damaged(), "of another time").unwrap();
        damage(&place.main);
        let damaged = fs::read(&place.main).unwrap();
        assert_eq!(Store::peek(&place).unwrap(), before, "case {at}");
        assert_eq!(fs::read(&place.main).unwrap(), damaged, "to look changes nothing");

        let (mut store, remembered) = Store::open(place.clone()).unwrap();
        assert_eq!((remembered, store.unusable()), (before, None), "case {at}");
        assert!(fs::read(place.damaged()).unwrap() == damaged, "case {at}: it is kept");
        let warnings: Vec<String> = store.warnings().collect();
        let names = [&place.main, &place.copy, &place.damaged()].map(|path| path.display().to_string());
        assert!(warnings.len() == 1 && names.iter().all(|name| warnings[0].contains(name)), "{warnings:?}");
        state(&mut store, 2);
        drop(store);

        for used in [&place, &Place { main: place.copy.clone(), ..place.clone() }] {
            assert_eq!(Store::peek(used).unwrap().objects.len(), 2, "case {at}: both files go on");
        }
        let (store, _) = Store::open(place.clone()).unwrap();
        assert_eq!(store.warnings().count(), 0, "the next start is clean");
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["copy.redb", FILE_NAME, "podwired.redb.damaged"]);
        assert_eq!(fs::metadata(&place.copy).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_copy_that_is_behind_is_made_equal_by_a_whole_store() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path(), "node1");
    filled(&place);
    let (mut store, _) = Store::open(place.clone()).unwrap();
    let behind = fs::read(&place.copy).unwrap();
    state(&mut store, 2);
    drop(store);
    fs::write(&place.copy, behind).unwrap();
    drop(Store::open(place.clone()).unwrap());
    fs::write(&place.main, "damaged").unwrap();
    assert_eq!(load(dir.path()).len(), 2);
}

#[test]
fn a_copy_is_not_used_where_it_is_none_of_this_store() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path(), "node1");
    filled(&place);
    let own = fs::read(&place.copy).unwrap();
    let others = tempfile::tempdir().unwrap();
    drop(try_open(others.path(), "node2").unwrap());
    let of_other = fs::read(others.path().join(FILE_NAME)).unwrap();
    fs::write(&place.main, "damaged").unwrap();
    for copy in [&of_other[..], &own[..own.len() / 2], b"damaged too", b""] {
        fs::write(&place.copy, copy).unwrap();
        let error = Store::open(place.clone()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert_eq!(fs::read(&place.main).unwrap(), b"damaged");
        assert!(!place.damaged().exists());
    }

    fs::write(&place.main, of_other).unwrap();
    fs::write(&place.copy, &own).unwrap();
    let error = Store::open(place.clone()).unwrap_err();
    assert!(matches!(error, StoreError::OtherNode { .. }), "{error}");

    fs::remove_file(&place.main).unwrap();
    let (mut store, remembered) = Store::open(place.clone()).unwrap();
    assert_eq!(remembered, Remembered::default(), "moved away, so that it starts empty");
    let warning = store.warnings().next().unwrap();
    let aside = place.copy.with_extension("redb.old");
    assert!(warning.contains("began with an empty one") && warning.contains(&aside.display().to_string()), "{warning}");
    state(&mut store, 9);
    drop(store);
    fs::write(&place.main, "damaged").unwrap();
    assert_eq!(load(dir.path()).len(), 1, "what was stated since");
    // Wanted back after all.
    fs::rename(&aside, &place.main).unwrap();
    let (store, remembered) = Store::open(place.clone()).unwrap();
    assert_eq!((remembered.attachments.len(), store.warnings().count()), (1, 0));
    drop(store);

    // Killed before the empty file was there, and before it was more than empty.
    fs::rename(&place.copy, &aside).unwrap();
    for main in [None, Some("")] {
        fs::remove_file(&place.main).unwrap();
        if let Some(text) = main {
            fs::write(&place.main, text).unwrap();
        }
        assert_eq!(load(dir.path()), [], "{main:?}");
        fs::remove_file(&place.copy).unwrap();
    }
}

#[test]
fn a_copy_that_can_not_follow_is_removed_and_made_again_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path(), "node1");
    filled(&place);
    let (mut store, _) = Store::open(place.clone()).unwrap();
    fs::write(&place.copy, "damaged").unwrap();
    for number in [2, 3] {
        state(&mut store, number);
        assert!(!place.copy.exists());
        assert_eq!(store.warnings().count(), 1, "told once");
    }
    drop(store);
    let (mut store, _) = Store::open(place.clone()).unwrap();
    assert!(place.copy.exists() && store.warnings().count() == 0);
    // Behind by a batch.
    store
        .copy
        .as_mut()
        .unwrap()
        .commit(&batch::encode(&Batch::objects(Owner::Cli, &[], &[route(1, Via::Host).key()])).unwrap().unwrap())
        .unwrap();
    state(&mut store, 4);
    assert!(!place.copy.exists() && store.warnings().count() == 1);
    drop(store);

    let nowhere = Place { copy: dir.path().join("none/copy.redb"), ..place };
    let (mut store, remembered) = Store::open(nowhere.clone()).unwrap();
    assert_eq!((remembered.objects.len(), store.warnings().count()), (4, 1));
    state(&mut store, 5);
    let warning = store.warnings().next().unwrap();
    assert!(warning.contains(&nowhere.copy.display().to_string()) && warning.contains("has space"), "{warning}");
}

#[test]
fn while_the_disk_fails_the_copy_is_served_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path(), "node1");
    let before = filled(&place);
    let elsewhere = dir.path().join("elsewhere");
    // A file that can not be opened for writing, by root too.
    fs::rename(&place.main, &elsewhere).unwrap();
    fs::create_dir(&place.main).unwrap();
    let (mut store, remembered) = Store::open(place.clone()).unwrap();
    assert_eq!(remembered, before);
    assert!(store.unusable().unwrap().contains("control.state_dir can be written"), "{store:?}");
    let warnings: Vec<String> = store.warnings().collect();
    assert!(
        warnings[0].contains("what was stored holds") && warnings[0].contains("nothing can be stored"),
        "{warnings:?}"
    );
    let refused = store.commit(&Batch::objects(Owner::Cli, &[route(2, Via::Host)], &[])).unwrap_err();
    assert!(
        matches!(&refused, StoreError::Open { source, .. } if source.kind() == ErrorKind::IsADirectory),
        "{refused}"
    );

    fs::remove_dir(&place.main).unwrap();
    store.look_again().unwrap_err();
    assert!(!place.main.exists(), "a store that is gone is not made anew behind what is served");
    fs::copy(&elsewhere, &place.main).unwrap();
    state(&mut store, 2);
    assert_eq!((store.unusable(), store.warnings().count()), (None, 0));
    drop(store);
    assert_eq!(load(dir.path()).len(), 2);
}

#[test]
fn a_store_that_is_back_with_other_content_waits_for_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path(), "node1");
    filled(&place);
    let of_before = fs::read(&place.main).unwrap();
    state(&mut Store::open(place.clone()).unwrap().0, 2);
    fs::remove_file(&place.main).unwrap();
    fs::create_dir(&place.main).unwrap();
    let (mut store, _) = Store::open(place.clone()).unwrap();
    fs::remove_dir(&place.main).unwrap();
    fs::write(&place.main, of_before).unwrap();
    let refused = store.commit(&Batch::objects(Owner::Cli, &[route(3, Via::Host)], &[])).unwrap_err();
    assert!(refused.to_string().contains("restart podwired"), "{refused}");
    drop(store);
    assert_eq!(load(dir.path()).len(), 1, "the store is what counts");
}

#[test]
fn a_store_that_is_found_damaged_while_it_is_in_use_is_made_anew_too() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path(), "node1");
    filled(&place);
    let (mut store, _) = Store::open(place.clone()).unwrap();
    state(&mut store, 2);
    // As after an I/O error.
    store.main.database = None;
    fs::write(&place.main, "damaged").unwrap();
    let refused = store.commit(&Batch::objects(Owner::Cli, &[route(3, Via::Host)], &[])).unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }) && store.unusable().is_some(), "{refused}");
    state(&mut store, 3);
    assert!(store.unusable().is_none() && fs::read(place.damaged()).unwrap() == b"damaged");
    drop(store);
    assert_eq!(load(dir.path()).len(), 3);
}
