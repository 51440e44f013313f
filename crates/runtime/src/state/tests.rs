//! The store, its records and gates.

use oci::runtime::Spec;

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    (dir, Store { root, named: false })
}

fn record(process: Option<FirstProcess>) -> Record {
    let spec = Spec::default();
    Record {
        format: FORMAT,
        id: "a".into(),
        bundle: "/b".into(),
        created: String::new(),
        process,
        descriptors: Vec::new(),
        scope: None,
        spec,
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let (_dir, store) = store();
    for id in ["", ".", "..", "a/b", "a b", ".seccomp", "ä"] {
        assert!(matches!(store.create(id), Err(StateError::Id { .. })), "{id}");
    }
    assert!(matches!(store.open("a"), Err(StateError::Missing)));
    drop(store.create("a_+-.1").unwrap());
    assert!(matches!(store.create("a_+-.1"), Err(StateError::Exists)));
    store.filters().unwrap();
    assert_eq!(store.ids().unwrap(), ["a_+-.1"]);
}

#[test]
fn a_record_is_found_again_and_one_of_tomorrow_is_refused() {
    let (_dir, store) = store();
    let locked = store.create("a").unwrap();
    assert!(matches!(locked.place.load(), Err(StateError::Missing)));
    locked.save(&record(None)).unwrap();
    assert_eq!(locked.place.load().unwrap(), record(None));
    let process = FirstProcess { pid: 7, start_ticks: 1 << 40 };
    for process in [process, FirstProcess { pid: 8, ..process }] {
        locked.save_process(process).unwrap();
        assert_eq!(locked.place.load().unwrap(), record(Some(process)));
    }
    locked.save(&record(Some(process))).unwrap();
    assert_eq!(locked.place.load().unwrap(), record(Some(process)));
    locked.save(&Record { format: FORMAT + 1, ..record(None) }).unwrap();
    assert!(matches!(locked.place.load(), Err(StateError::Format { format, .. }) if format == FORMAT + 1));
    fs::write(locked.place.record(), r#"{"format": 77, "of": "later"}"#).unwrap();
    assert!(matches!(locked.place.load(), Err(StateError::Format { format: 77, .. })));
    fs::write(locked.place.record(), "{").unwrap();
    assert!(matches!(locked.place.load(), Err(StateError::Record { .. })));
    locked.remove().unwrap();
    assert!(matches!(store.lock("a"), Err(StateError::Missing)));
}

#[test]
fn a_container_that_others_replaced_is_not_the_same() {
    let (_dir, store) = store();
    let ours = store.create("a").unwrap();
    ours.release().unwrap();
    let ours = ours.regain().unwrap();
    ours.release().unwrap();
    store.lock("a").unwrap().remove().unwrap();
    drop(store.create("a").unwrap());
    assert!(matches!(ours.regain(), Err(StateError::Missing)));
}

#[test]
fn a_container_without_process_is_being_made_or_has_failed() {
    let (_dir, store) = store();
    let hierarchies = Hierarchies::default();
    let locked = store.create("a").unwrap();
    let place = store.open("a").unwrap();
    assert_eq!(place.status(&record(None), &hierarchies).unwrap(), Status::Creating);
    assert_eq!(locked.status(&record(None), &hierarchies).unwrap(), Status::Stopped);
    drop(locked);
    assert_eq!(place.status(&record(None), &hierarchies).unwrap(), Status::Stopped);
}

#[test]
fn a_number_that_another_process_has_is_not_the_first_process() {
    let own = FirstProcess::new(rustix::process::getpid()).unwrap();
    assert!(own.open().is_some());
    assert!(FirstProcess { start_ticks: own.start_ticks + 1, ..own }.open().is_none());
}

#[test]
fn a_gate_is_open_for_those_who_come_while_somebody_waits() {
    let (_dir, store) = store();
    let locked = store.create("a").unwrap();
    assert!(locked.place.gate().is_none());
    let reader = locked.make_gate().unwrap();
    let gate = locked.place.gate().unwrap();
    oci_runtime::open_gate(&gate).unwrap();
    let mut byte = [0];
    assert_eq!(rustix::io::read(&reader, &mut byte).unwrap(), 1);
    drop(reader);
    assert!(locked.place.gate().is_none());
}
