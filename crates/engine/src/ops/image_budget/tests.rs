use super::*;

fn budget(high_bytes: u64, low_bytes: u64) -> ImageBudgetConfig {
    ImageBudgetConfig { high_bytes, low_bytes, pins: Vec::new() }
}

/// One digit is enough to tell digests apart.
fn digest(digit: char) -> Digest {
    format!("sha256:{}", digit.to_string().repeat(64)).parse().unwrap()
}

/// `a:xy` is the image `a` of layers `x` and `y`, ten bytes each; `<b` says that it was built from `b`, `!` that it stays.
fn candidates(all: &[&str]) -> Vec<Candidate> {
    let one = |text: &&str| {
        let (text, parent) = text.split_once('<').unwrap_or((text, ""));
        let (name, layers) = text.split_once(':').unwrap();
        let stays = layers.ends_with('!').then(|| "pinned".to_owned());
        let layers = layers.trim_end_matches('!').chars().map(|digit| (ChainId(digest(digit)), 10)).collect();
        let parent = parent.chars().next().map(digest);
        let id = digest(name.chars().next().unwrap());
        Candidate { id, parent, name: name.to_owned(), layers, last_used_nanos: 0, stays }
    };
    all.iter().map(one).collect()
}

#[track_caller]
fn check(all: &[&str], total: u64, (high, low): (u64, u64), expected: &str) {
    let candidates = candidates(all);
    let fates = plan(&candidates, total, &budget(high, low));
    let told = candidates.iter().zip(&fates).map(|(one, fate)| match fate {
        Fate::Goes(bytes) => format!("{}-{bytes}", one.name),
        Fate::Stays(why) => format!("{}: {why}", one.name),
    });
    assert_eq!(told.collect::<Vec<_>>().join(", "), expected);
}

#[test]
fn the_least_recently_used_go_until_the_low_mark() {
    check(&["a:1", "b:2"], 20, (20, 10), "a: there is room, b: there is room");
    check(&["a:1", "b:2", "c:3"], 30, (25, 20), "a-10, b: there is room without it, c: there is room without it");
    check(&["a:1", "b:2", "c:3"], 30, (25, 5), "a-10, b-10, c-10");
}

#[test]
fn shared_layers_go_with_their_last_image() {
    check(&["a:12", "b:13", "c:4"], 40, (30, 10), "a-10, b-20, c: there is room without it");
}

#[test]
fn what_is_held_stays_and_parents_wait_for_what_was_built_from_them() {
    check(&["a:1!", "b:2"], 20, (15, 0), "a: pinned, b-10");
    check(&["a:1", "b:12<a", "c:3!"], 30, (20, 10), "a-10, b-10, c: pinned");
    check(&["a:1", "b:12!<a"], 20, (10, 0), "a: other images were built from it, b: pinned");
}

#[test]
fn pins_are_names_with_stars() {
    for (pattern, name, expected) in [
        ("debian", "debian:bookworm", true),
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
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
}
