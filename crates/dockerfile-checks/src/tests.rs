//! What is found, check by check: `Rule@line[-line] detail`, and what fails behind `!`.

use std::collections::BTreeMap;

use dockerfile::Patterns;

use crate::{BaseImage, Checking, Findings, Images, Request, answer, print_errors, print_warnings};

const PLATFORM: [&str; 3] = ["linux", "amd64", ""];

fn request(text: &str) -> Request {
    Request {
        text: text.to_owned(),
        build_platform: PLATFORM.map(str::to_owned),
        target_platform: PLATFORM.map(str::to_owned),
        all_stages: true,
        ..Request::default()
    }
}

/// What is found where every image is for `platform` and says nothing else.
fn found(request: Request, image: &BaseImage) -> Findings {
    let checking = Checking::begin(request);
    let images: Images = checking.images().into_iter().map(|wanted| (wanted, Ok(image.clone()))).collect();
    checking.finish(&images)
}

fn plain() -> BaseImage {
    BaseImage { platform: PLATFORM.map(str::to_owned), ..BaseImage::default() }
}

fn told(findings: &Findings) -> Vec<String> {
    let lines =
        |(first, last): (usize, usize)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    let warning =
        |warning: &crate::Warning| format!("{}@{} {}", warning.rule.name, lines(warning.lines), warning.detail);
    let failure = findings
        .failure
        .iter()
        .map(|failure| format!("!{} {}", failure.lines.map(lines).unwrap_or_default(), failure.message));
    findings.warnings.iter().map(warning).chain(failure).collect()
}

fn check(text: &str, wanted: &[&str]) {
    assert_eq!(told(&found(request(text), &plain())), wanted, "{text}");
}

#[test]
fn a_good_dockerfile_has_nothing() {
    check(
        "# syntax=docker/dockerfile:1\nARG TAG=1\nFROM --platform=$BUILDPLATFORM busybox:$TAG AS build\nARG TARGETARCH\n\
         WORKDIR /x\nRUN echo $NOT_OURS > \"$HOME\"\nFROM scratch\nARG TARGETARCH\nCOPY --from=build /a ${TARGETARCH}\n",
        &[],
    );
}

#[test]
fn lines_show_by_themselves() {
    for (text, wanted) in [
        ("FROM a AS Build\n", &["StageNameCasing@1 Stage name 'Build' should be lowercase"][..]),
        ("FROM a as b\n", &["FromAsCasing@1 'as' and 'FROM' keywords' casing do not match"]),
        ("from a AS b\n", &["FromAsCasing@1 'AS' and 'from' keywords' casing do not match"]),
        ("FROM a As b\n", &["FromAsCasing@1 'As' and 'FROM' keywords' casing do not match"]),
        // Casing of its own is told once.
        (
            "From a as b\n",
            &["ConsistentInstructionCasing@1 Command 'From' should match the case of the command majority (uppercase)"],
        ),
        ("FROM a\nRUN b \\\n\n  c\nRUN d\n", &["NoEmptyContinuation@4 Empty continuation line"]),
        (
            "FROM a\nrun b\nRun c\nRUN d\n",
            &[
                "ConsistentInstructionCasing@2 Command 'run' should match the case of the command majority (uppercase)",
                "ConsistentInstructionCasing@3 Command 'Run' should match the case of the command majority (uppercase)",
            ],
        ),
        (
            "from a\nrun b\nRUN c\n",
            &["ConsistentInstructionCasing@3 Command 'RUN' should match the case of the command majority (lowercase)"],
        ),
        // As many of each are upper case.
        (
            "from a\nRUN c\n",
            &["ConsistentInstructionCasing@1 Command 'from' should match the case of the command majority (uppercase)"],
        ),
        (
            "FROM a AS b\nFROM b AS b\n",
            &["DuplicateStageName@2 Duplicate stage name \"b\", stage names should be unique"],
        ),
        (
            "FROM a AS context\n",
            &["ReservedStageName@1 Stage name should not use the same name as reserved stage \"context\""],
        ),
        (
            "FROM a\nMAINTAINER me\n",
            &["MaintainerDeprecated@2 Maintainer instruction is deprecated in favor of using label"],
        ),
    ] {
        check(text, wanted);
    }
}

#[test]
fn commands_are_lists_and_alone() {
    for (text, wanted) in [
        (
            "FROM a\nCMD b c\n",
            &[
                "JSONArgsRecommended@2 JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            ][..],
        ),
        (
            "FROM a\nSHELL [\"b\"]\nentrypoint c\nENTRYPOINT [\"d\"]\n",
            &[
                "ConsistentInstructionCasing@3 Command 'entrypoint' should match the case of the command majority (uppercase)",
                "MultipleInstructionsDisallowed@3 Multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used",
            ],
        ),
        ("FROM a AS b\nCMD [\"c\"]\nFROM b\nCMD [\"d\"]\n", &[]),
        (
            "FROM a\nHEALTHCHECK NONE\nHEALTHCHECK CMD \\\n b\n",
            &[
                "MultipleInstructionsDisallowed@2 Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used",
            ],
        ),
    ] {
        check(text, wanted);
    }
    let own_shell = BaseImage { has_shell: true, ..plain() };
    assert_eq!(told(&found(request("FROM a\nCMD b\n"), &own_shell)), [""; 0]);
}

#[test]
fn variables_are_set_before_they_are_used() {
    for (text, wanted) in [
        ("FROM a$B\n", &["UndefinedArgInFrom@1 FROM argument 'B' is not declared"][..]),
        (
            "ARG BASE=a\nFROM a$BAS\n",
            &["UndefinedArgInFrom@2 FROM argument 'BAS' is not declared (did you mean BASE?)"],
        ),
        ("ARG B\nFROM a$B\n", &[]),
        (
            "FROM --platform=$BULIDPLATFORM a\n",
            &[
                "UndefinedArgInFrom@1 FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?)",
                "!1 empty platform value from expression $BULIDPLATFORM (did you mean BUILDPLATFORM?)",
            ],
        ),
        ("ARG A=x\nFROM a\nCOPY $A /\n", &["UndefinedVar@3 Usage of undefined variable '$A'"]),
        (
            "FROM a\nARG foo=x\nCOPY ${fo} $foo /\n",
            &["UndefinedVar@3 Usage of undefined variable '$fo' (did you mean $foo?)"],
        ),
        // Each word by itself.
        (
            "FROM a\nENV x=$y$y z=$y\n",
            &["UndefinedVar@2 Usage of undefined variable '$y'", "UndefinedVar@2 Usage of undefined variable '$y'"],
        ),
        ("FROM a\nARG b\nENV c=$b\n", &[]),
        ("FROM a\nARG b=$c\n", &["UndefinedVar@2 Usage of undefined variable '$c'"]),
        // The image may say that by which programs are found, but it is always there.
        ("FROM a\nENV PATH=$PAHT:/x\n", &["UndefinedVar@2 Usage of undefined variable '$PAHT' (did you mean $PATH?)"]),
        ("FROM a AS b\nENV c=d\nARG e=f\nFROM b\nCOPY $c$e /\n", &[]),
        ("FROM a\nRUN echo $x\nEXPOSE $x\n", &[]),
        ("FROM a\nRUN --mount=target=$x b\n", &["UndefinedVar@2 Usage of undefined variable '$x'"]),
        ("FROM a\nCOPY <<EOF /x\n$y\nEOF\n", &["UndefinedVar@2-4 Usage of undefined variable '$y'"]),
        (
            "FROM a\nWORKDIR ${x?no}\n",
            &["UndefinedVar@2 Usage of undefined variable '$x'", "!2 failed to process \"${x?no}\": x: no"],
        ),
    ] {
        check(text, wanted);
    }
    let image = BaseImage { env: vec!["JAVA_HOME=/x".to_owned()], ..plain() };
    assert_eq!(told(&found(request("FROM a\nCOPY a $JAVA_HOME/\n"), &image)), [""; 0]);
    let wanted = ["UndefinedVar@2 Usage of undefined variable '$JAVAHOME' (did you mean $JAVA_HOME?)"];
    assert_eq!(told(&found(request("FROM a\nCOPY a $JAVAHOME/\n"), &image)), wanted);
}

#[test]
fn platforms_and_bases_are_no_constants() {
    for (text, wanted) in [
        (
            "FROM --platform=$TARGETPLATFORM a\n",
            &[
                "RedundantTargetPlatform@1 Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ][..],
        ),
        (
            "FROM --platform=${TARGETPLATFORM} a\n",
            &[
                "RedundantTargetPlatform@1 Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior",
            ],
        ),
        (
            "FROM --platform=linux/amd64 a AS b\n",
            &["FromPlatformFlagConstDisallowed@1 FROM --platform flag should not use constant value \"linux/amd64\""],
        ),
        ("FROM --platform=linux/amd64 a AS b-amd64\n", &[]),
        ("FROM --platform=linux/x86_64 a AS amd64\n", &[]),
        ("FROM --platform=linux/amd64 a AS linux\n", &[]),
        (
            "ARG B\nFROM $B\n",
            &[
                "InvalidDefaultArgInFrom@2 Default value for ARG $B results in empty or invalid base image name",
                "!2 base name ($B) should not be blank",
            ],
        ),
        (
            "ARG B\nFROM a:$B\n",
            &[
                "InvalidDefaultArgInFrom@2 Default value for ARG a:$B results in empty or invalid base image name",
                "!2 failed to parse stage name \"a:\": invalid reference format",
            ],
        ),
        ("ARG B\nFROM a${B:-:1}\n", &[]),
    ] {
        check(text, wanted);
    }
    let given =
        Request { arguments: BTreeMap::from([("B".to_owned(), "a".to_owned())]), ..request("ARG B\nFROM $B\n") };
    let wanted = ["InvalidDefaultArgInFrom@2 Default value for ARG $B results in empty or invalid base image name"];
    assert_eq!(told(&found(given, &plain())), wanted);
    let arm = BaseImage { platform: ["linux", "arm64", "v8"].map(str::to_owned), ..plain() };
    let wanted = [
        "InvalidBaseImagePlatform@1 Base image a:1 was pulled with platform \"linux/arm64/v8\", expected \"linux/amd64\" for current build",
    ];
    assert_eq!(told(&found(request("FROM a:1\n"), &arm)), wanted);
    assert_eq!(told(&found(request("FROM --platform=linux/arm64 a AS arm64\n"), &arm)), [""; 0]);
}

#[test]
fn the_rest_is_found() {
    for (text, wanted) in [
        (
            "FROM a\nWORKDIR b\nWORKDIR c\n",
            &["WorkdirRelativePath@2 Relative workdir \"b\" can have unexpected results if the base image changes"][..],
        ),
        ("FROM a AS b\nWORKDIR /b\nFROM b\nWORKDIR c\n", &[]),
        (
            "FROM a\nENV b c\nLABEL d e\nenv f=g\n",
            &[
                "ConsistentInstructionCasing@4 Command 'env' should match the case of the command majority (uppercase)",
                "LegacyKeyValueFormat@2 \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
                "LegacyKeyValueFormat@3 \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
            ],
        ),
        (
            "FROM a\nARG GITHUB_TOKEN\nENV api_key=1 PUBLIC_KEY=2 KEYS=3 Password=4\n",
            &[
                "SecretsUsedInArgOrEnv@2 Do not use ARG or ENV instructions for sensitive data (ARG \"GITHUB_TOKEN\")",
                "SecretsUsedInArgOrEnv@3 Do not use ARG or ENV instructions for sensitive data (ENV \"api_key\")",
                "SecretsUsedInArgOrEnv@3 Do not use ARG or ENV instructions for sensitive data (ENV \"Password\")",
            ],
        ),
        (
            "FROM a\nEXPOSE 80/TCP 81/tcp\n",
            &["ExposeProtoCasing@2 Defined protocol '80/TCP' in EXPOSE instruction should be lowercase"],
        ),
        (
            "FROM a\nEXPOSE 127.0.0.1:80:81 82:83/Udp [::1]:84:85 86-87\n",
            &[
                "ExposeInvalidFormat@2 EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:81'",
                "ExposeProtoCasing@2 Defined protocol '82:83/Udp' in EXPOSE instruction should be lowercase",
                "ExposeInvalidFormat@2 EXPOSE instruction should not define an IP address or host-port mapping, found '82:83/Udp'",
                "ExposeInvalidFormat@2 EXPOSE instruction should not define an IP address or host-port mapping, found '[::1]:84:85'",
            ],
        ),
        ("FROM a\nEXPOSE 80/foo\n", &["!2 invalid port: \"80/foo\": invalid proto: foo"]),
    ] {
        check(text, wanted);
    }
}

#[test]
fn experimental_checks_are_asked_for() {
    let mut ask = request(
        "# check=experimental=CopyIgnoredFile\nFROM a\nCOPY x.o y /\nADD z/x.o https://x/x.o /\nCOPY --from=b x.o /\n",
    );
    ask.ignore = Patterns::read("**/*.o\n").unwrap();
    let wanted = [
        "CopyIgnoredFile@3 Attempting to Copy file \"x.o\" that is excluded by .dockerignore",
        "CopyIgnoredFile@4 Attempting to Add file \"z/x.o\" that is excluded by .dockerignore",
    ];
    assert_eq!(told(&found(ask.clone(), &plain())), wanted);
    ask.text = ask.text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(told(&found(ask, &plain())), [""; 0]);
    let head = "# check=experimental=all\n";
    for (text, wanted) in [
        ("# b is it\nFROM a AS b\n", &[][..]),
        (
            "# no\nFROM a AS b\n",
            &["InvalidDefinitionDescription@3 Comment for FROM should follow the format: `# b <description>`"],
        ),
        ("# no\n#\nFROM a AS b\n", &[]),
        ("# no\nFROM a\n", &[]),
        (
            "FROM a\n# no\nARG b\n# b no\n# c is it\nARG b c\n# d\nARG e f\n",
            &[
                "InvalidDefinitionDescription@4 Comment for ARG should follow the format: `# b <description>`",
                "InvalidDefinitionDescription@9 Comment for ARG should follow the format: `# <arg_key> <description>`",
            ],
        ),
    ] {
        check(&format!("{head}{text}"), wanted);
    }
}

#[test]
fn checks_are_skipped_and_may_fail_a_build() {
    let text = "FROM a as B\nMAINTAINER x\n";
    let of = |directive: &str, check: Option<&str>| {
        let ask = Request { check: check.map(str::to_owned), ..request(&format!("# check={directive}\n{text}")) };
        let findings = found(ask, &plain());
        let names: Vec<&str> = findings.warnings.iter().map(|warning| warning.rule.name).collect();
        (
            names.join(" "),
            findings.violation.map(|violation| violation.to_string()),
            findings.failure.map(|failure| failure.message),
        )
    };
    let all = "StageNameCasing FromAsCasing MaintainerDeprecated".to_owned();
    assert_eq!(of("error=false", None), (all.clone(), None, None));
    assert_eq!(of("skip=StageNameCasing, FromAsCasing", None), ("MaintainerDeprecated".to_owned(), None, None));
    let left = "FromAsCasing MaintainerDeprecated".to_owned();
    let sentence = Some("lint violation found for rules: FromAsCasing, MaintainerDeprecated".to_owned());
    assert_eq!(of("skip=StageNameCasing;error=true", None), (left, sentence.clone(), sentence));
    assert_eq!(of("skip=all;error=true", None), (String::new(), None, None));
    let later = Request { text: "# check=error=true\nFROM a\nWORKDIR b\nCMD c\nWORKDIR d\n".to_owned(), ..request("") };
    let violation = found(later, &plain()).violation.map(|violation| violation.to_string());
    // In the order in which they were found, not in that of the alphabet.
    assert_eq!(violation.as_deref(), Some("lint violation found for rules: WorkdirRelativePath, JSONArgsRecommended"));
    // What the client says counts instead.
    assert_eq!(of("skip=all", Some("")), (all, None, None));
    for (directive, check, what) in
        [("no", None, "check options"), ("", Some("no"), "build-arg:BUILDKIT_DOCKERFILE_CHECK")]
    {
        let why = Some(format!("failed to parse {what}: invalid check option \"no\""));
        assert_eq!(of(directive, check), (String::new(), why.clone(), why));
    }
}

#[test]
fn what_cannot_be_built_is_told() {
    for (text, wanted) in [
        ("", &["! the Dockerfile cannot be empty"][..]),
        ("# x\n", &["!1 file with no instructions"]),
        ("ARG a\n", &["! dockerfile contains no stages to build"]),
        (
            "FROM a as b\nFRMO b\n",
            &[
                "FromAsCasing@1 'as' and 'FROM' keywords' casing do not match",
                "!2 dockerfile parse error on line 2: unknown instruction: FRMO (did you mean FROM?)",
            ],
        ),
        (
            "FROM a foo b\n",
            &[
                "FromAsCasing@1 'foo' and 'FROM' keywords' casing do not match",
                "!1 dockerfile parse error on line 1: FROM requires either one or three arguments",
            ],
        ),
        (
            "MAINTAINER a\nFROM b\n",
            &[
                "MaintainerDeprecated@1 Maintainer instruction is deprecated in favor of using label",
                "!1 no build stage in current context",
            ],
        ),
        ("FROM a\nCOPY <<EOF /x\nb\n", &["!2-3 unterminated heredoc"]),
        (
            "FROM a\nCOPY --from=$b c d\n",
            &[
                "! variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
            ],
        ),
        ("FROM a\nCOPY --from=3 c d\n", &["! invalid stage index 3"]),
        ("FROM a AS b\nCOPY --from=b c d\n", &["!2 circular dependency detected on stage: b"]),
        (
            "FROM a AS b\nCOPY --from=c c d\nFROM a AS c\n",
            &["!2 cannot copy from stage \"c\", it needs to be defined before current stage \"b\""],
        ),
    ] {
        check(text, wanted);
    }
    let broken_off = Checking::begin(request("FROM --platform=linux/foo a as b\nCMD c\n")).broken_off();
    let wanted = [
        "FromAsCasing@1 'as' and 'FROM' keywords' casing do not match",
        "FromPlatformFlagConstDisallowed@1 FROM --platform flag should not use constant value \"linux/foo\"",
    ];
    assert_eq!(told(&broken_off), wanted);
    let checking = Checking::begin(request("FROM b\nWORKDIR c\nSTOPSIGNAL d\nCMD e\n")).until(3);
    let wanted = ["WorkdirRelativePath@2 Relative workdir \"c\" can have unexpected results if the base image changes"];
    assert_eq!(told(&checking.finish(&Images::new())), wanted);
    let ask = Request { target: "biuld".to_owned(), ..request("FROM a AS build\n") };
    assert_eq!(told(&found(ask, &plain())), ["! target stage \"biuld\" could not be found (did you mean build?)"]);
    let checking = Checking::begin(request("FROM a\nFROM b\n"));
    let images = checking.images().into_iter().map(|wanted| {
        let outcome = if wanted.name == "b" { Err("b: gone".to_owned()) } else { Ok(plain()) };
        (wanted, outcome)
    });
    let images = images.collect();
    assert_eq!(told(&checking.finish(&images)), ["!2 b: gone"]);
}

#[test]
fn only_stages_that_are_needed_count() {
    let text = "FROM a AS b\nCMD x\nFROM c AS d\nCMD y\nFROM b\nCOPY --from=e f g\n";
    let ask = |all_stages, target: &str| {
        let checking = Checking::begin(Request { all_stages, target: target.to_owned(), ..request(text) });
        let images: Vec<String> = checking.images().into_iter().map(|image| image.name).collect();
        let lines = checking.finish(&Images::new()).warnings.iter().map(|warning| warning.lines.0).collect::<Vec<_>>();
        (images.join(" "), lines)
    };
    assert_eq!(ask(true, ""), ("a c e".to_owned(), vec![2, 4]));
    assert_eq!(ask(false, ""), ("a e".to_owned(), vec![2]));
    assert_eq!(ask(false, "D"), ("c".to_owned(), vec![4]));
}

#[test]
fn what_an_image_asks_for_is_checked_where_it_is_used() {
    let image = BaseImage { on_build: vec!["COPY $x /".to_owned()], ..plain() };
    let wanted = ["UndefinedVar@2 Usage of undefined variable '$x'"];
    assert_eq!(told(&found(request("\nFROM a\n"), &image)), wanted);
    check(
        "FROM a AS b\nONBUILD CMD c\nFROM b\n",
        &[
            "JSONArgsRecommended@3 JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        ],
    );
}

#[test]
fn answers_are_documents_of_clients() {
    let text = "FROM a as b\nCMD [\"<x>\"]\n";
    let findings = found(request(text), &plain());
    let answer = answer::lint("Dockerfile", text, &findings);
    let json = "{\n  \"warnings\": [\n    {\n      \"ruleName\": \"FromAsCasing\",\n      \"description\": \"The 'as' keyword should match the case of the 'from' keyword\",\n      \
        \"url\": \"https://docs.docker.com/go/dockerfile/rule/from-as-casing/\",\n      \"detail\": \"'as' and 'FROM' keywords' casing do not match\",\n      \
        \"location\": {\n        \"ranges\": [\n          {\n            \"start\": {\n              \"line\": 1\n            },\n            \"end\": {\n              \"line\": 1\n            }\n          }\n        ]\n      }\n    }\n  ],\n  \
        \"sources\": [\n    {\n      \"filename\": \"Dockerfile\",\n      \"data\": \"RlJPTSBhIGFzIGIKQ01EIFsiPHg+Il0K\",\n      \"language\": \"Dockerfile\"\n    }\n  ]\n}";
    assert_eq!((answer.json.as_str(), answer.code), (json, Some(1)));
    let printed = "\nWARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n'as' and 'FROM' keywords' casing do not match\n\
        Dockerfile:1\n--------------------\n   1 | >>> FROM a as b\n   2 |     CMD [\"<x>\"]\n   3 |     \n--------------------\n";
    assert_eq!(answer.text, printed);
    assert_eq!(print_warnings("Dockerfile", text, &findings), printed);
    let clean = found(request("FROM a\n"), &plain());
    let answer = answer::lint("D", "FROM a\n", &clean);
    assert!(answer.json.starts_with("{\n  \"warnings\": null,\n  \"sources\": [") && answer.code == Some(0));
    let wrong = found(request("FROM\n"), &plain());
    let failure = wrong.failure.unwrap();
    let sentence = "dockerfile parse error on line 1: FROM requires either one or three arguments\n";
    let lines = "D:1\n--------------------\n   1 | >>> FROM\n   2 |     \n--------------------\n";
    assert_eq!(print_errors("D", "FROM\n", &failure), format!("{sentence}{lines}"));
}

#[test]
fn targets_and_outlines_are_told() {
    let text = "# BASE where it begins\nARG BASE=a\nARG TAG=${BASE}x\nARG UNUSED=u\n# b builds\nFROM $TAG AS b\n# word to say\nARG word=hello\nARG none\n\
                RUN --mount=type=secret,id=s,required --mount=type=ssh c\nFROM scratch\nCOPY --from=b /x /\n";
    let stages = dockerfile::parse(text).unwrap().stages;
    let targets = answer::targets(text, &stages);
    assert_eq!(targets.text, "TARGET    DESCRIPTION\nb         builds\n(default) \n");
    assert!(targets.json.contains("\"default\": true,\n      \"base\": \"scratch\""));
    let of = |target: &str| {
        let ask = Request { target: target.to_owned(), all_stages: false, ..request(text) };
        answer::outline(&found(ask, &plain())).unwrap().text
    };
    let all = "BUILD ARG   VALUE   DESCRIPTION\nBASE        a       where it begins\nTAG         ax      \nword        hello   to say\nnone                \n\n\
               SECRET   REQUIRED\ns        true\n\nSSH       REQUIRED\ndefault   \n\n";
    assert_eq!(of("b"), format!("TARGET:      b\nDESCRIPTION: builds\n\n{all}"));
    assert_eq!(of(""), all);
    let described = answer::describe();
    assert!(
        described
            .text
            .starts_with("NAME                 VERSION DESCRIPTION\noutline              1.0.0   List all parameters")
    );
}

#[test]
fn hostile_texts_end() {
    let mut names = String::from("FROM a\n");
    (0..20_000).for_each(|index| names.push_str(&format!("COPY $v{index} /\n")));
    assert_eq!(found(request(&names), &plain()).warnings.len(), 1000);
    let mut stages = format!("FROM a AS s0\nENV x={}\n", "y".repeat(60_000));
    (1..20_000).for_each(|index| stages.push_str(&format!("FROM s{} AS s{index}\n", index - 1)));
    let failure = found(request(&stages), &plain()).failure.unwrap();
    assert_eq!(failure.message, "variables are too long");
    let grows = format!("FROM a\nENV x={}\n{}", "y".repeat(60_000), "ENV x=$x$x\n".repeat(40));
    assert!(found(request(&grows), &plain()).failure.unwrap().message.contains("variables are too long"));
}
