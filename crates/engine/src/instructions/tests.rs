use super::*;

fn changed(before: Config, changes: &[&str]) -> Result<Config, String> {
    let changes: Vec<String> = changes.iter().map(|change| change.to_string()).collect();
    let mut config = before;
    apply(&changes, &mut config).map(|()| config).map_err(|err| err.to_string())
}

fn strings(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|word| word.to_string()).collect())
}

#[test]
fn every_instruction_does_its_part() {
    let before = Config { env: strings(&["PATH=/bin", "A=1"]), cmd: strings(&["old"]), ..Config::default() };
    let config = changed(
        before,
        &[
            "# a comment\nENV PATH=$PATH:/x \\\n  B=\"two words\"",
            "env C three  words",
            "ENTRYPOINT a b",
            "EXPOSE 80 90-91/UDP",
            "LABEL one=1 'two words'='x y'",
            "ONBUILD RUN make",
            "STOPSIGNAL 9",
            "USER ${U:-web}:$A",
            "VOLUME /v /w",
            "WORKDIR /a/./b",
            "WORKDIR ../c",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD [\"x\", \"y\"]",
        ],
    )
    .unwrap();
    assert_eq!(config.env, strings(&["PATH=/bin:/x", "A=1", "B=two words", "C=three  words"]));
    assert_eq!((config.entrypoint, config.cmd), (strings(&["/bin/sh", "-c", "a b"]), None));
    let ports: Vec<String> = config.exposed_ports.unwrap().into_keys().collect();
    assert_eq!(ports, ["80/tcp", "90/udp", "91/udp"]);
    let labels = config.labels.unwrap();
    assert_eq!((&*labels["one"], &*labels["two words"]), ("1", "x y"));
    assert_eq!(config.on_build, strings(&["RUN make"]));
    assert_eq!((&*config.stop_signal, &*config.user, &*config.working_dir), ("9", "web:1", "/a/c"));
    let volumes: Vec<String> = config.volumes.unwrap().into_keys().collect();
    assert_eq!(volumes, ["/v", "/w"]);
    let check = config.healthcheck.unwrap();
    assert_eq!((check.test, check.interval, check.retries), (strings(&["CMD", "x", "y"]), 90_000_000_000, 3));
}

#[test]
fn commands_are_lists_or_for_the_shell() {
    for (change, cmd, entrypoint) in [
        ("CMD [\"x\", \"y\"]", strings(&["x", "y"]), None),
        ("CMD x y", strings(&["/bin/sh", "-c", "x y"]), None),
        ("CMD [x]", strings(&["/bin/sh", "-c", "[x]"]), None),
        ("CMD [\"a\"]\nENTRYPOINT [\"b\"]", strings(&["a"]), strings(&["b"])),
        ("ENTRYPOINT []", None, None),
    ] {
        let config = changed(Config::default(), &[change]).unwrap();
        assert_eq!((config.cmd, config.entrypoint), (cmd, entrypoint), "{change}");
    }
}

#[test]
fn words_are_read_as_by_a_shell() {
    let env = Config { env: strings(&["A=1", "E="]), ..Config::default() };
    for (word, wanted) in [
        ("$A", "1"),
        ("${A}x", "1x"),
        ("'$A'", "$A"),
        ("\"$A b\"", "1 b"),
        ("\\$A", "$A"),
        ("${E:-d}", "d"),
        ("${E-d}", ""),
        ("${N-d}", "d"),
        ("${A:+$A$A}", "11"),
        ("a$", "a$"),
        ("\"a\\n\\\"\"", "a\\n\""),
    ] {
        let config = changed(env.clone(), &[&format!("ENV X={word}")]).unwrap();
        assert_eq!(config.env.unwrap()[2], format!("X={wanted}"), "{word}");
    }
}

#[test]
fn sentences_are_dockers() {
    for (change, sentence) in [
        ("FROM x", "FROM is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV =x", "ENV names can not be blank"),
        ("ENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
        ("EXPOSE 80/foo", "Invalid proto: foo"),
        ("EXPOSE x", "Invalid containerPort: x"),
        ("USER", "USER requires exactly one argument"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK x", "Unknown type \"X\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("STOPSIGNAL nosuch", "invalid signal: nosuch"),
        ("LABEL 'a=b", "unexpected end of statement while looking for matching single-quote"),
    ] {
        assert_eq!(changed(Config::default(), &[change]), Err(sentence.to_owned()), "{change}");
    }
}
