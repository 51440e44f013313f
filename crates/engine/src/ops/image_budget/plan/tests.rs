use std::sync::Arc;

use oci::image::{ExecConfig, ImageConfig};
use snapshot::ChainId;

use super::*;

fn budget(high_bytes: u64, low_bytes: u64) -> ImageBudgetConfig {
    ImageBudgetConfig { high_bytes, low_bytes, ..ImageBudgetConfig::default() }
}

/// One digit is enough to tell digests apart.
fn digest(digit: char) -> Digest {
    format!("sha256:{}", digit.to_string().repeat(64)).parse().unwrap()
}

/// Digits are layers of ten bytes, letters are blobs of one.
fn part(letter: char) -> (Part, u64) {
    match letter.is_ascii_digit() {
        true => (Part::Layer(ChainId(digest(letter))), 10),
        false => (Part::Blob(digest(letter)), 1),
    }
}

/// `a:xy` is the image `a` with the parts `x` and `y`; `<b` says that it was built from `b`, `!` that it stays. `+` is
/// between images of one name.
fn groups(all: &[&str]) -> Vec<Group> {
    let one = |text: &str| {
        let (text, parent) = text.split_once('<').unwrap_or((text, ""));
        let (name, parts) = text.split_once(':').unwrap();
        let stays = parts.ends_with('!').then(|| "pinned".to_owned());
        let parts = parts.trim_end_matches('!').chars().map(part).collect();
        let parent = parent.chars().next().map(digest);
        Member { id: digest(name.chars().next().unwrap()), parent, parts, stays }
    };
    let group = |text: &&str| Group { members: text.split('+').map(one).collect(), last_used_nanos: 0 };
    all.iter().map(group).collect()
}

#[track_caller]
fn check(all: &[&str], held: &str, (high, low): (u64, u64), expected: &str) {
    let groups = groups(all);
    let held = held.chars().map(|letter| part(letter).0).collect();
    let Decision { fates, why } = plan(&groups, &held, &budget(high, low));
    let told = all.iter().zip(&fates).zip(&why).map(|((text, fate), why)| match fate {
        Fate::Goes(bytes) => {
            format!("{}-{}", &text[..1], bytes.iter().map(u64::to_string).collect::<Vec<_>>().join("+"))
        }
        Fate::Stays => format!("{}: {why}", &text[..1]),
    });
    assert_eq!(told.collect::<Vec<_>>().join(", "), expected);
}

#[test]
fn the_least_recently_used_go_until_the_low_mark() {
    check(&["a:1", "b:2"], "", (20, 10), "a: there is room, b: there is room");
    check(&["a:1", "b:2", "c:3"], "", (25, 20), "a-10, b: there is room without it, c: there is room without it");
    check(&["a:1", "b:2", "c:3"], "", (25, 5), "a-10, b-10, c-10");
}

#[test]
fn shared_parts_go_with_their_last_image() {
    check(&["a:12", "b:13", "c:4"], "", (30, 10), "a-10, b-20, c: there is room without it");
}

#[test]
fn kept_blobs_count() {
    check(&["a:1b", "b:2c"], "", (21, 11), "a-11, b: there is room without it");
    check(&["a:1b", "b:2c"], "", (22, 11), "a: there is room, b: there is room");
    check(&["a:1b", "b:2b"], "", (20, 5), "a-10, b-11");
}

#[test]
fn what_is_held_stays_and_parents_wait_for_what_was_built_from_them() {
    check(&["a:1!", "b:2"], "", (15, 0), "a: other images were built from it, b-10");
    check(&["a:1", "b:12<a", "c:3!"], "", (20, 10), "a-10, b-10, c: there is room without it");
    check(&["a:1", "b:12!<a"], "", (10, 0), "a: other images were built from it, b: other images were built from it");
}

#[test]
fn images_of_one_name_go_together_or_stay_together() {
    check(&["a:1+b:2", "c:3"], "", (25, 15), "a-10+10, c: there is room without it");
    check(&["a:1+b:2!", "c:3"], "", (25, 15), "a: other images were built from it, c-10");
    check(
        &["a:1+b:2", "c:13<b", "d:4!"],
        "",
        (35, 30),
        "a: there is room without it, c-10, d: there is room without it",
    );
}

#[test]
fn nothing_goes_for_next_to_nothing() {
    let nothing = "others have its layers: it would free next to nothing";
    // Both layers of the first are in the second, which stays.
    check(&["a:12", "b:12!", "c:3"], "", (25, 20), &format!("a: {nothing}, b: there is room without it, c-10"));
    // A container has them, though its image is gone.
    check(&["a:12", "c:3"], "12", (25, 20), &format!("a: {nothing}, c-10"));
    // Together they free something.
    check(&["a:12", "b:12", "c:3!"], "", (25, 10), "a-0, b-20, c: there is room without it");
}

#[test]
fn who_shares_a_name_is_of_one_group() {
    let names = |all: &[&[&str]]| {
        sharing(&all.iter().map(|names| names.iter().map(|name| (*name).to_owned()).collect()).collect::<Vec<_>>())
    };
    assert_eq!(names(&[&["a"], &["b"], &[], &["c", "a"], &[]]), [vec![0, 3], vec![1], vec![2], vec![4]]);
    // By way of another one.
    assert_eq!(names(&[&["a"], &["b"], &["c"], &["c", "b", "a"]]), [vec![0, 1, 2, 3]]);
}

/// An image of these names; those behind `/` are its for its platform alone.
fn image(names: &str, label: Option<&str>) -> ImageRecord {
    let parse = |names: &str| names.split_whitespace().map(|name| name.parse().unwrap()).collect::<Vec<Reference>>();
    let (own, beside) = names.split_once(" / ").unwrap_or((names, ""));
    let labels = label.map(|value| [(PIN.to_owned(), value.to_owned())].into());
    let config = ImageConfig { config: ExecConfig { labels, ..Default::default() }, ..Default::default() };
    ImageRecord {
        id: digest('1'),
        config: Arc::new(config),
        config_bytes: 0,
        chain: Vec::new(),
        size_bytes: 0,
        references: parse(own),
        manifest: None,
        layer_blobs: Vec::new(),
        index: None,
        came_by: Default::default(),
        attested: Vec::new(),
        platform_of: parse(beside),
        parent: None,
        last_tagged: None,
    }
}

#[test]
fn what_no_registry_is_known_to_have_stays() {
    let at = |name: &str| format!("{name}@{}", digest('2'));
    let only_here = |names: &str| format!("no registry is known to have {names}: it may be nowhere else");
    for (names, expected) in [
        (format!("a:1 {}", at("a")), None),
        (at("a"), None),
        (format!("/ a:1 {}", at("a")), None),
        ("a:1".to_owned(), Some(only_here("a:1"))),
        (String::new(), Some(only_here("it"))),
        // Somebody's own name for what was pulled.
        (format!("a:1 mine:2 {}", at("a")), Some(only_here("mine:2"))),
        (format!("/ a:1 mine:2 {}", at("a")), Some(only_here("mine:2"))),
    ] {
        let names = names.strip_prefix("/ ").map_or(names.clone(), |beside| format!(" / {beside}"));
        assert_eq!(pinned(&image(&names, None), &budget(1, 1)), expected, "{names}");
    }
}

#[test]
fn labels_and_patterns_pin() {
    let names = format!("a:1 a@{}", digest('2'));
    let pinned = |image: &ImageRecord, pin: &str| {
        let pins = Some(pin.to_owned()).filter(|pin| !pin.is_empty()).into_iter().collect();
        super::pinned(image, &ImageBudgetConfig { pins, ..budget(1, 1) })
    };
    assert_eq!(pinned(&image(&names, Some("true")), ""), Some("pinned by its label longshore.pin".to_owned()));
    assert_eq!(pinned(&image(&names, Some("false")), ""), None);
    assert_eq!(pinned(&image(&names, None), "a"), Some("pinned by image-pins a".to_owned()));
    // The name is another image's here, and this one's for its platform.
    assert_eq!(pinned(&image(&format!(" / {names}"), None), "a:*"), Some("pinned by image-pins a:*".to_owned()));
}

#[test]
fn pins_are_names_with_stars() {
    let digested = format!("debian@{}", digest('2'));
    for (pattern, name, expected) in [
        ("debian", "debian:bookworm", true),
        ("debian", &digested[..], true),
        (&digested[..], &digested[..], true),
        ("docker.io/library/debian", "debian:bookworm", true),
        ("docker.io/library/debian:book*", "debian:bookworm", true),
        ("docker.io/*", "debian:bookworm", true),
        ("debian", "debian-slim:1", false),
        ("debian:bookworm", "debian:bookworm", true),
        ("debian:bookworm", "debian:bookworm-slim", false),
        ("debian:*slim", "debian:bookworm-slim", true),
        ("localhost:5000/*", "localhost:5000/a/b:1", true),
        ("localhost:5000/a", "localhost:5000/a:1", true),
        ("*", "anything:1", true),
        ("*/a:1*3", "x/a:123", true),
        ("*/a:1*3", "x/a:124", false),
        ("", "a:1", false),
    ] {
        assert_eq!(is_meant(pattern, &name.parse().unwrap()), expected, "{pattern} {name}");
    }
}
