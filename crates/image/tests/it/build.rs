//! Images of one layer more: what commit and import make.

use std::io::{self, Read};

use image::{Lasting, Store};
use oci::image::History;

use crate::archive::{docker, layer};
use crate::{Scratch, leftovers};

/// Gives some bytes of a layer, and then breaks off as a client does that goes away.
struct Cut<'a>(&'a [u8]);

impl Read for Cut<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the client went away")),
            count => Ok(count),
        }
    }
}

fn step(comment: &str) -> History {
    History { comment: comment.to_owned(), ..History::default() }
}

#[test]
fn privileged_an_image_grows_by_a_layer() {
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &[layer(&[("a", "1")])], "")).unwrap();
    let parent = scratch.store.resolve("a:1").unwrap();
    let build = |store: &Store| {
        let name = Some("b:1".parse().unwrap());
        store.build(Some(&parent), &layer(&[("b", "22")])[..], name, |image| image.history.push(step("why"))).unwrap()
    };
    let built = build(&scratch.store);
    assert_eq!(build(&scratch.store).id, built.id, "the same layer gives the same image");
    let scratch = scratch.reopened();
    let child = scratch.store.resolve("b:1").unwrap();
    assert_eq!((&child.id, child.parent.as_ref()), (&built.id, Some(&parent.id)));
    assert_eq!(child.chain.len(), 2);
    assert_eq!(child.chain[0], parent.chain[0], "the layer below is shared");
    assert_eq!(child.size_bytes, parent.size_bytes + 2);
    assert_eq!(child.config.history.last(), Some(&step("why")));
    let path = scratch.store.snapshots().layer(&child.chain[1]).join("b");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "22");
}

#[test]
fn privileged_what_breaks_off_leaves_nothing() {
    let scratch = Scratch::new();
    let tar = layer(&[("big", &"x".repeat(1 << 20))]);
    for length in [0, 100, 512, 700, tar.len() / 2] {
        let built = scratch.store.build(None, Cut(&tar[..length]), None, |_| {});
        assert!(errdefs::chain(&built.unwrap_err()).contains("the client went away"), "{length}");
        assert!(leftovers(scratch.dir.path()).is_empty(), "{length}");
        assert!(scratch.store.list().is_empty());
    }
    scratch.store.build(None, &tar[..], None, |_| {}).unwrap();
}

#[test]
fn privileged_an_image_says_something_else_of_the_same_layers() {
    let scratch = Scratch::new();
    scratch.load(&docker(Some("a:1"), &[layer(&[("a", "1")])], "")).unwrap();
    let parent = scratch.store.resolve("a:1").unwrap();
    let name = Some("b:1".parse().unwrap());
    let derived =
        image::derive(&scratch.store, Some(&parent), (name, Lasting::Now), |image| image.history.push(step("why")))
            .unwrap();
    let scratch = scratch.reopened();
    let child = scratch.store.resolve("b:1").unwrap();
    assert_eq!((&child.id, child.parent.as_ref()), (&derived.id, Some(&parent.id)));
    assert_eq!((&child.chain, child.size_bytes), (&parent.chain, parent.size_bytes));
    assert_eq!(child.config.history.last(), Some(&step("why")));
    // Without a parent it has no layer at all.
    let empty =
        image::derive(&scratch.store, None, (None, Lasting::Now), |image| image.platform.os = "linux".to_owned())
            .unwrap();
    assert!(scratch.store.get(&empty.id).unwrap().chain.is_empty());
}
