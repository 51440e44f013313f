use proptest::prelude::*;

use super::*;

fn parsed(words: &str) -> MountOptions {
    let words: Vec<_> = words.split(',').map(str::to_owned).collect();
    parse(&words)
}

#[test]
fn words_become_flags_and_the_rest_is_the_file_systems() {
    let options = parsed("rbind,ro,nosuid,rw,rprivate,rro,size=65536k,noswap");
    assert!(options.bind && options.bind_recursive && options.propagation_recursive);
    let attributes = Attributes { set: Attributes::NO_SUID, clear: Attributes::READ_ONLY, propagation: 0 };
    assert_eq!(options.attributes, attributes);
    assert_eq!(options.attributes_recursive.set, Attributes::READ_ONLY);
    assert_eq!(options.propagation, Attributes::PRIVATE);
    assert_eq!(options.data, [("size".into(), Some("65536k".into())), ("noswap".into(), None)]);
}

#[test]
fn access_times_exclude_each_other() {
    let options = parsed("noatime,relatime");
    assert_eq!((options.attributes.set, options.attributes.clear), (0, Attributes::ATIME_MASK));
    let options = parsed("relatime,noatime");
    assert_eq!(options.attributes.set, Attributes::NO_ATIME);
    assert_eq!(options.attributes.clear, Attributes::ATIME_MASK);
}

#[test]
fn flags_of_the_file_system_are_taken_back_by_their_opposites() {
    let options = parsed("sync,lazytime,dirsync,async,silent,noiversion,ridmap,idmap,remount,tmpcopyup");
    assert_eq!(options.superblock, ["lazytime", "dirsync"]);
    assert_eq!((options.id_map, options.remount, options.copy_up), (Some(false), true, true));
    assert!(options.data.is_empty());
}

#[test]
fn every_word_of_runcs_table_has_its_recursive_one() {
    for word in [
        "ro",
        "rw",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "nodiratime",
        "diratime",
        "relatime",
        "norelatime",
        "noatime",
        "atime",
        "strictatime",
        "nostrictatime",
        "nosymfollow",
        "symfollow",
    ] {
        let (plain, recursive) = (parsed(word), parsed(&format!("r{word}")));
        assert_eq!(plain.attributes, recursive.attributes_recursive, "{word}");
        assert!(!plain.attributes.is_empty() && recursive.attributes.is_empty(), "{word}");
        assert!(plain.data.is_empty() && recursive.data.is_empty(), "{word}");
    }
}

/// Words with what they set, and what they clear, among flags that nothing else touches.
const SWITCHES: [(&str, &str, u64); 6] = [
    ("ro", "rw", Attributes::READ_ONLY),
    ("nosuid", "suid", Attributes::NO_SUID),
    ("nodev", "dev", Attributes::NO_DEV),
    ("noexec", "exec", Attributes::NO_EXEC),
    ("nosymfollow", "symfollow", Attributes::NO_SYMLINKS),
    ("nodiratime", "diratime", Attributes::NO_DIR_ATIME),
];

fn word() -> impl Strategy<Value = String> {
    let known = (0..SWITCHES.len(), any::<bool>(), any::<bool>()).prop_map(|(index, on, recursive)| {
        let (set, clear, _) = SWITCHES[index];
        format!("{}{}", if recursive { "r" } else { "" }, if on { set } else { clear })
    });
    let others = "r?(bind|noatime|relatime|strictatime|private|slave|shared|unbindable|idmap|remount|sync|async|size=[0-9]{1,4})";
    prop_oneof![known, others, any::<String>()]
}

proptest! {
    #[test]
    fn the_last_word_wins_and_every_word_has_an_effect(words in prop::collection::vec(word(), 0..12)) {
        let options = parse(&words);
        for (prefix, attributes) in [("", options.attributes), ("r", options.attributes_recursive)] {
            for (set, clear, bit) in SWITCHES {
                let said = words.iter().rev().find_map(|word| {
                    let plain = word.strip_prefix(prefix)?;
                    (plain == set || plain == clear).then_some(plain == set)
                });
                let (is_set, is_cleared) = (attributes.set & bit != 0, attributes.clear & bit != 0);
                prop_assert_eq!((is_set, is_cleared), (said == Some(true), said == Some(false)), "{:?} {}", words, set);
            }
            // The kernel refuses a mode of access times that does not clear the others.
            let times = attributes.set & Attributes::ATIME_MASK;
            prop_assert!(times == 0 || attributes.clear & Attributes::ATIME_MASK == Attributes::ATIME_MASK);
        }
        // What is nobody's is the file system's, in its order.
        let sizes: Vec<_> = words.iter().filter_map(|word| word.strip_prefix("size=")).collect();
        let given: Vec<_> = options.data.iter().filter(|(key, _)| key == "size").filter_map(|(_, value)| value.as_deref()).collect();
        prop_assert_eq!(sizes, given);
    }

    #[test]
    fn no_mount_is_too_strange_to_be_planned_or_refused(
        destination in "(/?(proc|a|\\.\\.|\u{e9}|)){0,4}",
        kind in "bind|tmpfs|proc|sysfs|cgroup|mqueue|overlay||[a-z]{1,8}",
        options in prop::collection::vec(word(), 0..6),
        ids in prop::collection::vec((any::<u32>(), any::<u32>(), any::<u32>()), 0..3),
    ) {
        let range = |(container_id, host_id, size)| oci::runtime::IdMapping { container_id, host_id, size };
        let uid_mappings: Vec<_> = ids.into_iter().map(range).collect();
        let gid_mappings = uid_mappings.clone();
        let mount = oci::runtime::Mount {
            destination: destination.into(), kind, options, uid_mappings, gid_mappings, ..Default::default()
        };
        let spec = oci::runtime::Spec { mounts: vec![mount; 2], ..Default::default() };
        if let Ok(plan) = crate::mounts::MountPlan::below_root("mounts[0]".into(), &spec.mounts[0]) {
            prop_assert!(plan.destination.is_absolute());
            let mut both = vec![plan.clone(), plan];
            crate::remount::plan(&mut both);
            let _ = crate::id_map::check(&both, None);
        }
    }
}
