use expect_test::{Expect, expect};

use super::*;
use dockerfile::Arg;

/// All steps of a stage that begins with `base`.
fn steps(base: &ExecConfig, text: &str) -> (Stage, Vec<Result<Step, StepError>>) {
    let dockerfile = dockerfile::parse(&format!("FROM scratch\n{text}")).unwrap();
    let mut arguments = Arguments::new([("FOO".to_owned(), Some("2".to_owned()))].into(), &Default::default());
    arguments.add_global(&Arg { name: "G".into(), default: Some("g".into()) });
    let (mut stage, _) = Stage::begin(base, false, arguments.for_stage(), dockerfile.escape);
    let steps = dockerfile.stages[0].instructions.iter().map(|instruction| stage.step(instruction, false)).collect();
    (stage, steps)
}

fn check(text: &str, wanted: Expect) {
    let (stage, steps) = steps(&ExecConfig::default(), text);
    let mut told = String::new();
    for step in steps {
        match step {
            Ok(step) => told.push_str(&format!("{} => {:?}\n", step.words.join(" "), step.operation)),
            Err(err) => told.push_str(&format!("error: {err}\n")),
        }
    }
    told.push_str(&sorted(&said(&stage.config)));
    wanted.assert_eq(&told);
}

/// JSON in the order of its names, whatever order serde_json was built to keep.
fn sorted(value: &serde_json::Value) -> String {
    let serde_json::Value::Object(members) = value else { return value.to_string() };
    let mut members: Vec<String> = members.iter().map(|(name, value)| format!("{name:?}:{}", sorted(value))).collect();
    members.sort();
    format!("{{{}}}", members.join(","))
}

/// What differs from an empty configuration.
fn said(config: &Config) -> serde_json::Value {
    let (mut value, empty) = (serde_json::to_value(config).unwrap(), serde_json::to_value(Config::default()).unwrap());
    value.as_object_mut().unwrap().retain(|name, value| empty.get(name) != Some(value) && name != "Env");
    value
}

#[test]
fn histories_are_dockers() {
    check(
        "ARG FOO=1\nENV A=b C=\"d e\"\nLABEL x=y\nRUN echo $FOO > /f\nWORKDIR w\nWORKDIR x/../y\nUSER 1:1\n\
         EXPOSE 80 81/udp\nVOLUME /v\nCMD [\"a\",\"b\"]\nENTRYPOINT ep\nHEALTHCHECK --interval=5s CMD true\n\
         STOPSIGNAL 9\nSHELL [\"/bin/sh\",\"-ec\"]\nONBUILD RUN echo hi\nMAINTAINER me",
        expect![[r#"
            /bin/sh -c #(nop)  ARG FOO=1 => None
            /bin/sh -c #(nop)  ENV A=b C=d e => None
            /bin/sh -c #(nop)  LABEL x=y => None
            |1 FOO=2 /bin/sh -c echo $FOO > /f => Run(RunStep { command: ["/bin/sh", "-c", "echo $FOO > /f"], env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=b", "C=d e", "FOO=2"], network: Default, script: None, mounts: [] })
            /bin/sh -c #(nop) WORKDIR /w => MakeDirectory("/w")
            /bin/sh -c #(nop) WORKDIR /w/y => MakeDirectory("/w/y")
            /bin/sh -c #(nop)  USER 1:1 => None
            /bin/sh -c #(nop)  EXPOSE 80 81/udp => None
            /bin/sh -c #(nop)  VOLUME [/v] => None
            /bin/sh -c #(nop)  CMD ["a" "b"] => None
            /bin/sh -c #(nop)  ENTRYPOINT ["/bin/sh" "-c" "ep"] => None
            /bin/sh -c #(nop)  HEALTHCHECK &{[CMD-SHELL true] 5s 0s 0s 0s 0} => None
            /bin/sh -c #(nop)  STOPSIGNAL 9 => None
            /bin/sh -ec #(nop)  SHELL [/bin/sh -ec] => None
            /bin/sh -ec #(nop)  ONBUILD RUN echo hi => None
            /bin/sh -ec #(nop)  MAINTAINER me => None
            {"Cmd":["a","b"],"Entrypoint":["/bin/sh","-c","ep"],"ExposedPorts":{"80/tcp":{},"81/udp":{}},"Healthcheck":{"Interval":5000000000,"Test":["CMD-SHELL","true"]},"Labels":{"x":"y"},"OnBuild":["RUN echo hi"],"Shell":["/bin/sh","-ec"],"StopSignal":"9","User":"1:1","Volumes":{"/v":{}},"WorkingDir":"/w/y"}"#]],
    );
}

#[test]
fn files_are_copied_where_they_belong() {
    check(
        "WORKDIR /w\nCOPY a .\nCOPY --chown=1:2 --chmod=755 a b/\nADD a /c\nCOPY --chmod=9 a b\nADD --checksum=x a b",
        expect![[r#"
            /bin/sh -c #(nop) WORKDIR /w => MakeDirectory("/w")
            /bin/sh -c #(nop) COPY   in .  => Copy { files: Files { sources: ["a"], inline: [], destination: "/w/", from: "", chown: "", chmod: "", link: false, parents: false, exclude: [], checksum: "", keep_git_dir: None, unpack: None }, add: false }
            /bin/sh -c #(nop) COPY   in b/  => Copy { files: Files { sources: ["a"], inline: [], destination: "/w/b/", from: "", chown: "1:2", chmod: "755", link: false, parents: false, exclude: [], checksum: "", keep_git_dir: None, unpack: None }, add: false }
            /bin/sh -c #(nop) ADD   in /c  => Copy { files: Files { sources: ["a"], inline: [], destination: "/c", from: "", chown: "", chmod: "", link: false, parents: false, exclude: [], checksum: "", keep_git_dir: None, unpack: None }, add: true }
            error: invalid chmod parameter: '9'. it should be octal string and between 0 and 07777
            error: checksum requires HTTP(S) or Git sources
            {"WorkingDir":"/w"}"#]],
    );
}

#[test]
fn heredocs_are_run() {
    check(
        "RUN <<E\none\ntwo\nE\nRUN cat <<-A <<B\n\tone\n\tA\ntwo\nB\nRUN <<S\n#!/bin/python3\nprint()\nS\n\
         RUN --network=none x\nRUN --mount=type=tmpfs,target=/x y\nRUN --security=insecure x",
        expect![[r##"
            /bin/sh -c one
            two
             => Run(RunStep { command: ["/bin/sh", "-c", "one\ntwo\n"], env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], network: Default, script: None, mounts: [] })
            /bin/sh -c cat <<-A <<B
            	one
            A
            two
            B => Run(RunStep { command: ["/bin/sh", "-c", "cat <<-A <<B\n\tone\nA\ntwo\nB"], env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], network: Default, script: None, mounts: [] })
            /dev/pipes/S => Run(RunStep { command: ["/dev/pipes/S"], env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], network: Default, script: Some(InlineFile { name: "S", text: "#!/bin/python3\nprint()\n", expand: true, raw: "#!/bin/python3\nprint()\n" }), mounts: [] })
            /bin/sh -c x => Run(RunStep { command: ["/bin/sh", "-c", "x"], env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], network: None, script: None, mounts: [] })
            /bin/sh -c y => Run(RunStep { command: ["/bin/sh", "-c", "y"], env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], network: Default, script: None, mounts: [RunMount { target: "/x", read_only: false, what: Tmpfs(0) }] })
            error: the --security option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled
            {}"##]],
    );
}

#[test]
fn a_base_is_gone_on_from() {
    let base = ExecConfig {
        env: Some(vec!["PATH=/x".into(), "A=1".into()]),
        cmd: Some(vec!["old".into()]),
        on_build: Some(vec!["RUN x".into()]),
        ..ExecConfig::default()
    };
    let (stage, triggers) = Stage::begin(&base, false, Arguments::default(), '\\');
    assert_eq!(
        (stage.config.env.unwrap(), triggers),
        (vec!["PATH=/x".into(), "A=1".to_owned()], vec!["RUN x".to_owned()])
    );
    // An entry point takes a base's command away, and one that was said here stays.
    assert_eq!(steps(&base, "ENTRYPOINT [\"a\"]").0.config.cmd, None);
    assert_eq!(steps(&base, "CMD [\"b\"]\nENTRYPOINT [\"a\"]").0.config.cmd, Some(vec!["b".into()]));
    let again = steps(&base, "HEALTHCHECK CMD a\nHEALTHCHECK CMD b").1;
    assert_eq!(
        again[1].as_ref().unwrap().note.as_deref(),
        Some("Note: overriding previous HEALTHCHECK: [CMD-SHELL a]\n")
    );
}

#[test]
fn with_buildkit_the_later_of_a_variable_and_an_argument_counts() {
    let environment = |buildkit, text: &str| {
        let dockerfile = dockerfile::parse(&format!("FROM scratch\n{text}RUN x")).unwrap();
        let arguments = Arguments::new([("FOO".to_owned(), Some("2".to_owned()))].into(), &Default::default());
        let (mut stage, _) = Stage::begin(&ExecConfig::default(), buildkit, arguments, '\\');
        let instructions = &dockerfile.stages[0].instructions;
        let step = instructions.iter().map(|instruction| stage.step(instruction, false).unwrap()).last().unwrap();
        let Operation::Run(run) = step.operation else { panic!("{:?}", step.operation) };
        run.env[1..].join(" ")
    };
    for (text, classic, buildkit) in [
        ("ENV FOO=1\nARG FOO\nENV BAR=$FOO\n", "FOO=1 BAR=1", "BAR=2 FOO=2"),
        ("ARG FOO\nENV FOO=1\n", "FOO=1", "FOO=1"),
        ("ENV FOO=1\nARG FOO\nENV FOO=${FOO}3\n", "FOO=13", "FOO=23"),
        // An argument without a value is none.
        ("ENV B=1\nARG B\n", "B=1", "B=1"),
        ("ENV B=1\nARG B=2\n", "B=1", "B=2"),
        ("ENV B=1\nARG B=2\nARG B\n", "B=1", "B=2"),
        ("ENV B=1\nARG B=2\nENV B=3\nARG B\n", "B=3", "B=3"),
    ] {
        assert_eq!([environment(false, text), environment(true, text)], [classic, buildkit], "{text}");
    }
}
