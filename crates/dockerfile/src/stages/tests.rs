use proptest::prelude::*;

use super::*;
use crate::{CommandLine, HealthCheck, InlineFile, Pair, RunNetwork, expand, parse_trigger};

fn kinds(text: &str) -> Vec<Kind> {
    let parsed = parse(&format!("FROM scratch\n{text}")).unwrap();
    parsed.stages[0].instructions.iter().map(|instruction| instruction.kind.clone()).collect()
}

fn pair(name: &str, value: &str) -> Pair {
    Pair { name: name.into(), value: value.into(), is_legacy: false }
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn stages_have_names_and_bases() {
    let text = "ARG A=1\nFROM --platform=$P a:$A AS One\nRUN x\nfrom one as two\n";
    let parsed = parse(text).unwrap();
    assert_eq!(parsed.meta_args().cloned().collect::<Vec<_>>(), [Arg { name: "A".into(), default: Some("1".into()) }]);
    let stages: Vec<_> = parsed.stages.iter().map(|stage| (&*stage.name, &*stage.base, &*stage.platform)).collect();
    assert_eq!(stages, [("one", "a:$A", "$P"), ("two", "one", "")]);
    assert_eq!(parsed.stage("TWO"), Some(1));
    assert_eq!(parsed.stages[0].instructions[0].line, 3);
}

#[test]
fn lines_go_on_and_comments_do_not_count() {
    let command = |text: &str| match &kinds(text)[0] {
        Kind::Run(run) => run.command.words.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(command("RUN a \\\n  b \\\n# no\n  c\n"), ["a   b   c"]);
    assert_eq!(command("RUN a \\\n\n  b\n"), ["a   b"]);
    assert_eq!(command("  RUN  a\t\\\\\n"), ["a\t\\\\"]);
    assert_eq!(command("RUN [\"a\", \"b c\"]\n"), ["a", "b c"]);
    assert_eq!(command("RUN [\"a\", b]\n"), ["[\"a\", b]"]);
    let parsed = parse("# escape=`\n# syntax = x/y:1 \nFROM a\nRUN b `\n c\n").unwrap();
    assert_eq!((parsed.escape, parsed.syntax.as_deref()), ('`', Some("x/y:1")));
    assert_eq!(parsed.stages[0].instructions[0].original, "RUN b  c");
    // Directives stand in front of everything.
    assert_eq!(parse("# no\n# escape=`\nFROM a\n").unwrap().escape, '\\');
    assert_eq!(parse("\u{feff}FROM a\r\nRUN b\\\r\n c\r\n").unwrap().stages[0].instructions[0].original, "RUN b c");
    let empty = parse("FROM a\nRUN b\\\n\nc\n").unwrap().empty_continuations;
    assert_eq!(empty, [crate::EmptyContinuation { text: "RUN bc".into(), line: 4 }]);
}

#[test]
fn heredocs_are_files() {
    let file =
        |name: &str, text: &str, expand| InlineFile { name: name.into(), text: text.into(), expand, raw: text.into() };
    let Kind::Run(run) = &kinds("RUN <<A cat <<-'B'\n one\nA\n\ttwo\n\tB\n")[0] else { panic!() };
    let second = InlineFile { raw: "\ttwo\n".into(), ..file("B", "two\n", false) };
    assert_eq!(run.command.files, [file("A", " one\n", true), second]);
    let Kind::Copy(copy) = &kinds("COPY a <<\"E F\" /x/\n$y\nE F\n")[0] else { panic!() };
    // A name with a blank falls into two words.
    assert_eq!((&copy.sources[..], copy.inline.len()), (&texts(&["a", "<<\"E", "F\""])[..], 0));
    let Kind::Copy(copy) = &kinds("COPY a <<EOF /x/\n$y\nEOF\n")[0] else { panic!() };
    assert_eq!(copy.inline, [file("EOF", "$y\n", true)]);
    assert_eq!(kinds("ONBUILD RUN <<E\nx\nE\n"), [Kind::OnBuild("RUN <<E\nx\nE".into())]);
}

#[test]
fn instructions_are_understood() {
    for (text, wanted) in [
        ("ENV a=b c=\"d e\"", Kind::Env(vec![pair("a", "b"), pair("c", "\"d e\"")])),
        ("ENV a b  c", Kind::Env(vec![Pair { is_legacy: true, ..pair("a", "b  c") }])),
        ("LABEL \"x y\"=1", Kind::Label(vec![pair("\"x y\"", "1")])),
        ("EXPOSE 81 80/udp", Kind::Expose(texts(&["80/udp", "81"]))),
        ("VOLUME [\"/a\", \"/b c\"]", Kind::Volume(texts(&["/a", "/b c"]))),
        ("CMD a b", Kind::Cmd(CommandLine { words: texts(&["a b"]), shell: true, files: vec![] })),
        ("CMD []", Kind::Cmd(CommandLine { words: vec![], shell: false, files: vec![] })),
        ("SHELL [\"a\"]", Kind::Shell(texts(&["a"]))),
        ("USER  me ", Kind::User("me".into())),
        ("MAINTAINER a b", Kind::Maintainer("a b".into())),
        ("onbuild run x", Kind::OnBuild("run x".into())),
        (
            "HEALTHCHECK --interval=5s --retries=3 CMD x y",
            Kind::HealthCheck(HealthCheck {
                test: texts(&["CMD-SHELL", "x y"]),
                interval: 5_000_000_000,
                retries: 3,
                ..HealthCheck::default()
            }),
        ),
    ] {
        assert_eq!(kinds(text), [wanted], "{text}");
    }
    let Kind::Add(add) = &kinds("ADD --chown=a:b --chmod=755 --link --unpack=false a b /c/")[0] else { panic!() };
    assert_eq!((&*add.chown, &*add.chmod, add.link, add.unpack), ("a:b", "755", true, Some(false)));
    assert_eq!((&add.sources[..], &*add.destination), (&texts(&["a", "b"])[..], "/c/"));
    let Kind::Run(run) = &kinds("RUN --network=none --mount=type=cache,target=/x --mount=type=tmpfs,dst=/y z")[0]
    else {
        panic!()
    };
    assert_eq!(
        (run.network, run.mounts.len(), &run.flags[..]),
        (RunNetwork::None, 2, &texts(&["network", "mount", "mount"])[..])
    );
}

#[test]
fn variables_are_replaced_where_they_count() {
    let lookup = |name: &str| (name == "V").then(|| "w x".to_owned());
    let expanded = |text: &str| {
        let parsed = parse(&format!("FROM scratch\n{text}")).unwrap();
        parsed.stages[0].instructions[0].expand('\\', &lookup).map(|instruction| instruction.kind)
    };
    assert_eq!(expanded("ENV a=\"$V\" b=$V"), Ok(Kind::Env(vec![pair("a", "w x"), pair("b", "w x")])));
    assert_eq!(expanded("WORKDIR /$V"), Ok(Kind::Workdir("/w x".into())));
    assert_eq!(expanded("CMD $V"), Ok(Kind::Cmd(CommandLine { words: texts(&["$V"]), shell: true, files: vec![] })));
    let Ok(Kind::Run(run)) = expanded("RUN --mount=type=bind,source=$V,target=/x,rw y") else { panic!() };
    assert_eq!((&*run.mounts[0].source, run.mounts[0].read_only), ("w x", false));
    assert_eq!(expanded("USER ${X:?no}").unwrap_err().to_string(), "failed to process \"${X:?no}\": X: no");
}

#[test]
fn what_is_wrong_is_told_as_buildkit_tells_it() {
    for (text, wanted) in [
        ("", "file with no instructions"),
        ("# a\n", "file with no instructions"),
        ("RUN x\n", "no build stage in current context"),
        ("FROM a\nFRO x\n", "dockerfile parse error on line 2: unknown instruction: FRO (did you mean FROM?)"),
        ("FROM a\n\nxyzzy\n", "dockerfile parse error on line 3: unknown instruction: xyzzy"),
        ("FROM a b\n", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        (
            "FROM a AS 1b\n",
            "dockerfile parse error on line 1: invalid name for build stage: \"1b\", name can't start with a number or \
             contain symbols",
        ),
        ("FROM a\nRUN <<E\nx\n", "unterminated heredoc"),
        ("FROM a\nENV x\n", "ENV must have two arguments"),
        ("FROM a\nENV x=1 y\n", "Syntax error - can't find = in \"y\". Must be of the form: name=value"),
        ("FROM a\nENV\n", "dockerfile parse error on line 2: ENV requires at least one argument"),
        (
            "FROM a\nCOPY x\n",
            "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. \
             Destination could not be determined",
        ),
        (
            "FROM a\nCOPY --chwon=1 x y\n",
            "dockerfile parse error on line 2: unknown flag: --chwon (did you mean chown?)",
        ),
        ("FROM a\nCOPY --from x y\n", "dockerfile parse error on line 2: missing a value on flag: --from"),
        ("FROM a\nRUN --network=x y\n", "dockerfile parse error on line 2: invalid network mode \"x\""),
        ("FROM a\nCMD [\"a\", 1]\n", "when using JSON array syntax, arrays must be comprised of strings only"),
        (
            "FROM a\nONBUILD ONBUILD RUN x\n",
            "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("FROM a\nHEALTHCHECK x\n", "dockerfile parse error on line 2: Unknown type \"X\" in HEALTHCHECK (try CMD)"),
        ("# escape=x\nFROM a\n", "invalid escape token 'x' does not match ` or \\"),
        ("# escape=\\\n# escape=`\nFROM a\n", "only one escape parser directive can be used"),
    ] {
        assert_eq!(parse(text).unwrap_err().to_string(), wanted, "{text:?}");
    }
    let err = parse(&format!("FROM a\nRUN {}\n", "x".repeat(70_000))).unwrap_err();
    assert_eq!((err.line(), err.to_string()), (2, "dockerfile line greater than max allowed size of 65535".to_owned()));
}

#[test]
fn triggers_are_one_instruction() {
    assert_eq!(parse_trigger("RUN x").map(|trigger| trigger.original), Ok("RUN x".to_owned()));
    assert!(parse_trigger("RUN x\nRUN y").is_err() && parse_trigger("FROM x").is_err());
}

#[test]
fn deep_nests_are_no_matter() {
    assert!(parse(&format!("FROM a\n{}RUN x\n", "ONBUILD \\\n".repeat(100_000))).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s)((FROM|RUN|ENV|COPY|ADD|ONBUILD|ARG|HEALTHCHECK|# escape=|LABEL|SHELL)? ?[-=a$\\{\\}:<'\"\\[\\],\\\\`\\n/#%* ]{0,12}){0,8}") {
        if let Ok(parsed) = parse(&text) {
            for instruction in parsed.stages.iter().flat_map(|stage| &stage.instructions) {
                let _ = instruction.expand(parsed.escape, &|_| Some("a$b".to_owned()));
            }
        }
        let _ = expand(&text, '\\', &|_| None);
        if let Ok(patterns) = crate::Patterns::read(&text) {
            patterns.exclude("a/b");
        }
        let _ = crate::glob_match(&text, "a/b");
    }

    #[test]
    fn no_letters_make_it_panic(text in any::<String>()) {
        let _ = parse(&text);
        let _ = parse(&format!("FROM a\nRUN {text}"));
        let _ = expand(&text, '`', &|_| Some(String::new()));
    }
}
