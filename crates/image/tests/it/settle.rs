//! What need not survive a power cut before something else does.

use image::{ImageRecord, Lasting, Store};
use oci::Digest;
use redb::{Database, ReadableTable, TableDefinition};

use crate::archive::{docker, layer};
use crate::{Scratch, leftovers};

const UNSETTLED: TableDefinition<'_, &str, &str> = TableDefinition::new("unsettled");

/// A step of a build: a layer of one file on what was before.
fn step(store: &Store, parent: Option<&ImageRecord>, name: &str) -> Digest {
    let tar = layer(&[(name, name)]);
    image::build_from(store, parent, (None, &tar[..]), (None, Lasting::Later), |_| {}).unwrap().id
}

/// Opens the store as another boot does: whatever was not settled is another one's.
fn after_a_crash(scratch: Scratch) -> Scratch {
    let Scratch { dir, store } = scratch;
    drop(store);
    {
        let database = Database::create(dir.path().join("images.redb")).unwrap();
        let write = database.begin_write().unwrap();
        let mut table = write.open_table(UNSETTLED).unwrap();
        let keys: Vec<String> = table.iter().unwrap().map(|row| row.unwrap().0.value().to_owned()).collect();
        for key in &keys {
            table.insert(&key[..], "another").unwrap();
        }
        drop(table);
        write.commit().unwrap();
    }
    Scratch { store: Store::open(dir.path()).unwrap(), dir }
}

#[test]
fn privileged_steps_are_there_after_a_death_and_gone_after_a_crash() {
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &[layer(&[("a", "1")])], "")).unwrap();
    let base = scratch.store.resolve("a:1").unwrap();
    let before = leftovers(scratch.dir.path());
    let first = step(&scratch.store, Some(&base), "one");
    let said = (None, Lasting::Later);
    let parent = scratch.store.get(&first).unwrap();
    let second = image::derive(&scratch.store, Some(&parent), said, |image| image.author = "b".to_owned()).unwrap().id;
    let alone = step(&scratch.store, None, "alone");
    drop((base, parent));
    let scratch = scratch.reopened();
    for id in [&first, &second, &alone] {
        assert!(scratch.store.get(id).is_some());
    }
    let scratch = after_a_crash(scratch);
    assert_eq!(scratch.store.list().len(), 1);
    assert_eq!(scratch.store.resolve("a:1").unwrap().chain.len(), 1);
    assert!(scratch.store.torn().is_empty());
    // What the image has, and nothing of the steps.
    assert_eq!(leftovers(scratch.dir.path()), before);
    // The same again is as new.
    let base = scratch.store.resolve("a:1").unwrap();
    assert_eq!(step(&scratch.store, Some(&base), "one"), first);
    image::settle(&scratch.store).unwrap();
    drop(base);
    let scratch = after_a_crash(scratch);
    assert!(scratch.store.get(&first).is_some());
}

#[test]
fn privileged_what_has_to_last_settles_what_it_is_made_of() {
    let check = |settle: &dyn Fn(&Store, &ImageRecord)| {
        let scratch = Scratch::new();
        let first = step(&scratch.store, None, "one");
        let record = scratch.store.get(&first).unwrap();
        settle(&scratch.store, &record);
        drop(record);
        let scratch = after_a_crash(scratch);
        let record = scratch.store.get(&first).expect("a step that was settled");
        assert!(scratch.store.snapshots().layer(&record.chain[0]).join("one").exists());
        // From now on it is like every other one, though it is made again.
        assert_eq!(step(&scratch.store, None, "one"), first);
        drop(record);
        assert!(after_a_crash(scratch).store.get(&first).is_some());
    };
    check(&|store, _| image::settle(store).unwrap());
    check(&|store, step| drop(store.tag(step.id.as_str(), &"b:1".parse().unwrap()).unwrap()));
    check(&|store, step| drop(store.build(Some(step), &layer(&[("b", "2")])[..], None, |_| {}).unwrap()));
    check(&|store, step| {
        image::derive(store, Some(step), (None, Lasting::Now), |image| image.author = "b".to_owned()).unwrap();
    });
}
