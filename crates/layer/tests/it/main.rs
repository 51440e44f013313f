//! Layers applied alone and stacked by overlayfs give the tree that extracting them one after the other gives.
//!
//! The reference is a model in memory, written from the words of image-spec's layer.md: deletions first, then entries.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fuzz;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::select;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    what: What,
    mode: u32,
    uid: u32,
    mtime: i64,
    note: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Step {
    Put(String, Node),
    Whiteout(String),
    Opaque(String),
}

type Tree = BTreeMap<String, Node>;

fn unknown() -> Node {
    Node { what: What::Directory, mode: 0o755, uid: 0, mtime: 0, note: None }
}

fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(slash, _)| &path[..slash])
}

fn remove_below(tree: &mut Tree, path: &str) {
    let below = format!("{path}/");
    tree.retain(|other, _| !other.starts_with(&below));
}

fn is_directory(tree: &Tree, path: &str) -> bool {
    tree.get(path).is_some_and(|node| node.what == What::Directory)
}

fn imply(tree: &mut Tree, path: &str) {
    if !is_directory(tree, path) {
        tree.insert(path.to_owned(), unknown());
    }
}

fn extract(tree: &mut Tree, layer: &[Step]) {
    for step in layer {
        match step {
            Step::Whiteout(path) => {
                tree.remove(path);
                remove_below(tree, path);
            }
            Step::Opaque(path) => remove_below(tree, path),
            Step::Put(..) => {}
        }
    }
    for step in layer {
        let path = match step {
            Step::Put(path, _) | Step::Whiteout(path) | Step::Opaque(path) => path,
        };
        for ancestor in ancestors(path) {
            imply(tree, ancestor);
        }
        match step {
            Step::Put(_, node) => {
                if node.what != What::Directory {
                    remove_below(tree, path);
                }
                tree.insert(path.clone(), node.clone());
            }
            Step::Opaque(_) => imply(tree, path),
            Step::Whiteout(_) => {}
        }
    }
}

/// Steps that lead through a file or a symlink of the same layer are another test's.
fn without_detours(steps: Vec<Step>) -> Vec<Step> {
    let mut own = Tree::new();
    let mut kept = Vec::new();
    for step in steps {
        let path = match &step {
            Step::Put(path, _) | Step::Whiteout(path) => path.clone(),
            Step::Opaque(path) => format!("{path}/x"),
        };
        if ancestors(&path).any(|ancestor| own.contains_key(ancestor) && !is_directory(&own, ancestor)) {
            continue;
        }
        // What the layer deletes is not its own.
        match &step {
            Step::Put(..) => extract(&mut own, std::slice::from_ref(&step)),
            _ => ancestors(&path).for_each(|ancestor| imply(&mut own, ancestor)),
        }
        kept.push(step);
    }
    kept
}

fn tar(layer: &[Step]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for step in layer {
        let (path, node) = match step {
            Step::Put(path, node) => (path.clone(), node.clone()),
            Step::Whiteout(path) => {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                (format!("{parent}/.wh.{name}"), Node { what: What::File(vec![]), ..unknown() })
            }
            Step::Opaque(path) => (format!("{path}/.wh..wh..opq"), Node { what: What::File(vec![]), ..unknown() }),
        };
        if let Some(note) = &node.note {
            builder.append_pax_extensions([("SCHILY.xattr.user.note", &note[..])]).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_mode(node.mode);
        header.set_uid(node.uid.into());
        header.set_gid(0);
        header.set_mtime(node.mtime as u64);
        let (kind, data) = match &node.what {
            What::Directory => (tar::EntryType::Directory, &[][..]),
            What::File(data) => (tar::EntryType::Regular, &data[..]),
            What::Symlink(target) => {
                header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
                (tar::EntryType::Symlink, &[][..])
            }
        };
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn read_tree(root: &Path, path: &str, tree: &mut Tree) {
    let full = if path.is_empty() { root.join(".") } else { root.join(path) };
    let meta = fs::symlink_metadata(&full).unwrap();
    let what = if meta.is_dir() {
        What::Directory
    } else if meta.is_symlink() {
        What::Symlink(fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec())
    } else {
        What::File(fs::read(&full).unwrap())
    };
    let mut note = [0; 16];
    let note = rustix::fs::lgetxattr(&full, "user.note", &mut note).ok().map(|length| note[..length].to_vec());
    let mode = if meta.is_symlink() { 0o777 } else { meta.mode() & 0o7777 };
    tree.insert(path.to_owned(), Node { what: what.clone(), mode, uid: meta.uid(), mtime: meta.mtime(), note });
    if what == What::Directory {
        for entry in fs::read_dir(&full).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let below = if path.is_empty() { name } else { format!("{path}/{name}") };
            read_tree(root, &below, tree);
        }
    }
}

/// Mounted nowhere: it goes with the descriptor, also when the test is killed.
fn mount(lowers: &[PathBuf]) -> OwnedFd {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for lower in lowers {
        fsconfig_set_string(&context, "lowerdir+", lower).unwrap();
    }
    for option in ["index", "metacopy", "redirect_dir"] {
        fsconfig_set_string(&context, option, "off").unwrap();
    }
    fsconfig_create(&context).unwrap();
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY).unwrap()
}

/// Applies the layers in `order`, each alone; then, from below, lets them inherit; then looks at the overlay.
fn stacked(layers: &[Vec<Step>], order: &[usize], copied: usize) -> Tree {
    let scratch = tempfile::tempdir().unwrap();
    let directory = |index: usize| scratch.path().join(format!("l{index}"));
    let mut applied = vec![(Vec::new(), Vec::new()); layers.len()];
    for index in order {
        let first = scratch.path().join("first");
        let target = if *index == copied { &first } else { &directory(*index) };
        fs::create_dir(target).unwrap();
        let done = layer::apply(&tar(&layers[*index])[..], target).unwrap();
        applied[*index] = (done.implied, done.whiteouts);
        if *index == copied {
            fs::create_dir(directory(*index)).unwrap();
            layer::clone_tree(&first, &directory(*index)).unwrap();
        }
    }
    for (index, (implied, whiteouts)) in applied.iter().enumerate() {
        let lowers: Vec<PathBuf> = (0..index).rev().map(directory).collect();
        layer::inherit(&directory(index), implied, whiteouts, &lowers).unwrap();
    }
    let empty = scratch.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let lowers: Vec<PathBuf> = (0..layers.len()).rev().map(directory).chain([empty]).collect();
    let mounted = mount(&lowers);
    let merged = Path::new("/proc/self/fd").join(mounted.as_raw_fd().to_string()).join(".");
    let mut tree = Tree::new();
    read_tree(&merged, "", &mut tree);
    tree
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(select(vec!["a", "b", "c"]), 1..4).prop_map(|names| names.join("/"))
}

fn node() -> impl Strategy<Value = Node> {
    let what = prop_oneof![
        3 => Just(What::Directory),
        3 => prop::collection::vec(any::<u8>(), 0..20).prop_map(What::File),
        1 => Just(What::Symlink(b"a/b".to_vec())),
    ];
    (what, select(vec![0o755, 0o700, 0o1777, 0o2750]), 0u32..3, 1i64..1000, any::<bool>()).prop_map(
        |(what, mode, uid, mtime, note)| {
            let link = matches!(what, What::Symlink(_));
            let note = (note && what == What::Directory).then(|| b"n".to_vec());
            Node { what, mode: if link { 0o777 } else { mode }, uid, mtime, note }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (path(), node()).prop_map(|(path, node)| Step::Put(path, node)),
        2 => path().prop_map(Step::Whiteout),
        1 => path().prop_map(Step::Opaque),
    ]
}

fn layers() -> impl Strategy<Value = Vec<Vec<Step>>> {
    prop::collection::vec(prop::collection::vec(step(), 0..8).prop_map(described_once).prop_map(without_detours), 1..5)
}

/// An xattr stays when a directory is described twice in one layer; the model has no such history.
fn described_once(layer: Vec<Step>) -> Vec<Step> {
    let mut seen = std::collections::HashSet::new();
    layer.into_iter().filter(|step| !matches!(step, Step::Put(path, _) if !seen.insert(path.clone()))).collect()
}

#[test]
fn privileged_any_order_gives_the_tree_of_sequential_extraction() {
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(layers in layers(), seed in any::<usize>())| {
        let mut model = Tree::from([(String::new(), unknown())]);
        for layer in &layers {
            extract(&mut model, layer);
        }
        let mut order: Vec<usize> = (0..layers.len()).collect();
        order.rotate_left(seed % layers.len());
        order.reverse();
        prop_assert_eq!(stacked(&layers, &order, seed % (layers.len() + 1)), model);
    });
}
