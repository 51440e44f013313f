//! What is read never panics, comes to an end, and says the same twice.

use std::time::{Duration, Instant};

use dockerfile::{Patterns, expand, expand_words, glob_match, ignored, parse, parse_partly, parse_trigger};
use testkit::mutate::{Mutator, rounds};

use crate::reference;

/// What a text of at most some kilobytes may take, in a build without optimization, beside other work.
const PATIENCE: Duration = Duration::from_secs(10);

/// Parts of Dockerfiles, of which others are made.
const PARTS: [&str; 30] = [
    "FROM busybox AS one\n",
    "FROM --platform=$BUILDPLATFORM ${A:-b}:${C#*/} AS two\n",
    "# syntax=docker/dockerfile:1\n",
    "# escape=`\n",
    "# check=skip=all;error=true\n",
    "ARG A=1 B=\"2 3\" C='4'\n",
    "ENV A=b\\ c D $E\n",
    "ENV A b c\n",
    "RUN echo a && \\\n  # comment\n\n  echo b\n",
    "RUN <<EOF\necho $A\nEOF\n",
    "RUN <<-'EOF' cat <<\"OTHER\"\n\ta\n\tEOF\nb\nOTHER\n",
    "RUN --mount=type=cache,target=/x,id=$A,sharing=locked --mount=type=secret,id=y,env=Z,required make\n",
    "RUN --network=none --security=sandbox true\n",
    "RUN [\"a\", \"b\\n\\u0041\"]\n",
    "COPY --from=one --chown=1:2 --chmod=u+x --exclude=*.o a b/ c/./d /e/\n",
    "COPY <<a <<b /to/\n1\na\n2\nb\n",
    "COPY --parents --link [\"a b\", \"/c\"]\n",
    "ADD --checksum=sha256:00 --keep-git-dir https://h/x.git#v1:d /y\n",
    "ADD --unpack=true http://h/${A}/b.tar /c\n",
    "HEALTHCHECK --interval=1m30s --retries=3 CMD [\"x\"]\n",
    "HEALTHCHECK NONE\n",
    "ONBUILD COPY a b\n",
    "SHELL [\"/bin/sh\", \"-c\"]\n",
    "LABEL a=b \"c d\"='e f'\n",
    "EXPOSE 80/tcp $P-90\n",
    "STOPSIGNAL SIGTERM\nUSER a:b\nWORKDIR ../c\nVOLUME /d e\n",
    "CMD a\nENTRYPOINT [\"b\"]\n",
    "MAINTAINER me\n",
    "\u{feff}",
    "${A:-${B:+${C:?no}}}${D%%*a}${E/x/y}${F//[a-z]/\"q\"}\n",
];

/// A Dockerfile of such parts, mostly with something wrong in it.
fn text(mutator: &mut Mutator) -> String {
    let parts: Vec<&str> = (0..=mutator.below(12)).map(|_| *mutator.pick(&PARTS)).collect();
    let text = parts.concat();
    match mutator.once_in(4) {
        true => text,
        false => String::from_utf8_lossy(&mutator.bytes(text.as_bytes())).into_owned(),
    }
}

/// Does it within its time.
fn within<T>(what: &str, text: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    assert!(begun.elapsed() < PATIENCE, "{what} of {text:?} took {:?}", begun.elapsed());
    done
}

#[test]
fn slow_dockerfiles_of_any_shape_are_read_or_refused() {
    rounds(|mutator| {
        let text = text(mutator);
        let read = within("parse", &text, || parse(&text));
        assert_eq!(format!("{read:?}"), format!("{:?}", parse(&text)));
        // What can be read of a broken one is what it begins with.
        let partly = parse_partly(&text);
        match (&read, &partly) {
            (Ok(whole), Ok((part, None))) => assert_eq!(format!("{whole:?}"), format!("{part:?}"), "{text:?}"),
            (Err(why), Ok((_, Some(other)))) => assert_eq!(why.to_string(), other.why.to_string(), "{text:?}"),
            (Err(why), Err(other)) => assert_eq!(why.to_string(), other.to_string(), "{text:?}"),
            (read, partly) => panic!("{read:?} but {partly:?} of {text:?}"),
        }
        // An error has a line that is there.
        let lines = text.lines().count().max(1);
        if let Err(why) = &read {
            assert!(
                why.line() <= lines && why.end() <= lines,
                "{why} at {}-{} of {lines}: {text:?}",
                why.line(),
                why.end()
            );
        }
        let value = |name: &str| (name < "M").then(|| text.chars().take(100).collect::<String>());
        for stage in read.iter().flat_map(|dockerfile| &dockerfile.stages) {
            for instruction in &stage.instructions {
                within("expand", &text, || instruction.expand('\\', &value).map(drop).unwrap_or_default());
            }
        }
        text.lines().for_each(|line| drop(parse_trigger(line)));
    });
}

/// Parts of words with variables.
const WORDS: [&str; 26] = [
    "$",
    "{",
    "}",
    "${",
    "$A",
    "${B}",
    ":-",
    ":+",
    ":?",
    "-",
    "+",
    "?",
    "#",
    "##",
    "%",
    "%%",
    "/",
    "//",
    "*",
    "[a-c]",
    "[!x]",
    "\"",
    "'",
    "\\",
    "a b",
    "\u{e4}\u{1f600}",
];

#[test]
fn slow_words_of_any_shape_come_to_something_bounded() {
    rounds(|mutator| {
        let word: String = (0..=mutator.below(24)).map(|_| *mutator.pick(&WORDS)).collect();
        let long = "ab*[c".repeat(1 << mutator.below(12));
        let value = |name: &str| match name {
            "A" => Some(long.clone()),
            "B" => Some("x/y.z".to_owned()),
            _ => None,
        };
        let escape = *mutator.pick(&['\\', '`']);
        let come = within("expand", &word, || expand(&word, escape, &value));
        if let Ok(text) = &come {
            assert!(text.len() <= 1 << 20, "{} bytes of {word:?}", text.len());
        }
        let words = within("expand_words", &word, || expand_words(&word, escape, &value));
        assert_eq!(come.is_ok(), words.is_ok(), "{word:?}");
        // Without anything that means something a word is what it says.
        let plain: String = word.chars().filter(|letter| letter.is_alphanumeric() || *letter == '/').collect();
        assert_eq!(expand(&plain, escape, &value).unwrap(), plain);
    });
}

/// Letters of patterns and paths.
const LETTERS: [&str; 9] = ["a", "b", ".", "/", "*", "**", "?", "\\", "**/"];

fn name(mutator: &mut Mutator) -> String {
    (0..=mutator.below(3)).map(|_| *mutator.pick(&["a", "b", ".a", "ab"])).collect()
}

#[test]
fn slow_ignore_patterns_mean_what_the_reference_says() {
    rounds(|mutator| {
        let mut lines = Vec::new();
        for _ in 0..=mutator.below(4) {
            let exception = if mutator.once_in(3) { "!" } else { "" };
            let pattern: String = (0..=mutator.below(6)).map(|_| *mutator.pick(&LETTERS)).collect();
            lines.push(format!("{exception}{pattern}"));
        }
        let text = lines.join("\n");
        let cleaned = ignored(&text);
        let path: Vec<String> = (0..=mutator.below(3)).map(|_| name(mutator)).collect();
        let path = path.join("/");
        let Ok(patterns) = Patterns::read(&text) else { return };
        let cleaned: Vec<&str> = cleaned.iter().map(String::as_str).collect();
        // Three stars are Go's business.
        if !text.contains("***") {
            assert_eq!(
                patterns.exclude(&path),
                reference::excludes(&cleaned, &path),
                "{text:?} ({cleaned:?}) of {path:?}"
            );
        }
        let broken = String::from_utf8_lossy(&mutator.bytes(text.as_bytes())).into_owned();
        let longer = format!("{}/{path}", "a".repeat(mutator.below(200)));
        within("patterns", &broken, || {
            Patterns::read(&broken).map(|patterns| patterns.exclude(&longer)).unwrap_or_default()
        });
        within("glob", &broken, || glob_match(&broken, &longer));
    });
}
