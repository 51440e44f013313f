use super::*;

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn resolved(json: &str, capabilities: &[&str]) -> Result<Option<Filter>, String> {
    let profile = Profile::parse(json).map_err(|err| errdefs::chain(&err))?;
    resolve(&profile, &owned(capabilities), Arch::X86_64, (5, 15)).map_err(|err| err.to_string())
}

#[test]
fn conditions_decide_which_rules_count() {
    for (condition, counts) in [
        (r#""includes":{}"#, true),
        (r#""includes":null,"excludes":null"#, true),
        (r#""includes":{"caps":["CAP_A"]}"#, true),
        (r#""includes":{"caps":["CAP_A","CAP_B"]}"#, false),
        (r#""excludes":{"caps":["CAP_A","CAP_B"]}"#, false),
        (r#""excludes":{"caps":["CAP_B"]}"#, true),
        (r#""includes":{"arches":["arm64"]}"#, false),
        (r#""includes":{"arches":["arm64","amd64"]}"#, true),
        (r#""excludes":{"arches":["amd64"]}"#, false),
        (r#""includes":{"minKernel":"5.15"}"#, true),
        (r#""includes":{"minKernel":"5.16"}"#, false),
        (r#""excludes":{"minKernel":"4.8"}"#, false),
        (r#""includes":{"caps":["CAP_A"]},"excludes":{"minKernel":"4.8"}"#, false),
    ] {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",{condition}}}]}}"#
        );
        let filter = resolved(&json, &["CAP_A"]).unwrap().unwrap();
        assert_eq!(filter.syscalls.len() == 1, counts, "{condition}");
    }
}

#[test]
fn wrong_profiles_are_refused_in_dockers_words() {
    for (json, message) in [
        ("{x", "Decoding seccomp profile failed: key must be a string at line 1 column 2"),
        (r#"{"syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW"}]}"#, "string  is not a valid action for seccomp"),
        (
            r#"{"defaultAction":"SCMP_ACT_KILL","syscalls":[{"name":"read"}]}"#,
            "string  is not a valid action for seccomp",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_KILL","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#,
            "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or \
             'archMap'",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_KILL","syscalls":[{"name":"read","names":["write"],"action":"SCMP_ACT_ALLOW"}]}"#,
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
        ),
        (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY cannot be used as default action"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"read","action":"SCMP_ACT_NOTIFY"}]}"#,
            "SCMP_ACT_NOTIFY needs listenerPath, which is not set",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/s",
                "syscalls":[{"names":["read","write"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"m"}"#,
            "listenerMetadata must not be set without listenerPath",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_KILL","flags":["SECCOMP_FILTER_FLAG_X"]}"#,
            "seccomp flag SECCOMP_FILTER_FLAG_X is not known",
        ),
    ] {
        assert_eq!(resolved(json, &[]).unwrap_err(), message, "{json}");
    }
    assert!(resolved(r#"{"defaultAction":"SCMP_ACT_KILL","syscalls":[{"includes":{"minKernel":"4"}}]}"#, &[]).is_err());
    assert_eq!(resolved(r#"{"defaultAction":"","syscalls":null}"#, &[]), Ok(None));
}

#[test]
fn a_filter_prints_as_the_runtime_specification_has_it() {
    let json = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}],
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "comment": "x",
                      "args": [{"index": 1, "value": 2, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#;
    expect_test::expect![[r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":2,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#]]
    .assert_eq(&serde_json::to_string(&resolved(json, &[]).unwrap().unwrap()).unwrap());
}

#[test]
fn what_a_program_alone_does_not_do_and_what_the_specification_forbids_is_named() {
    let filter =
        |rest: &str| resolved(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW"{rest}}}"#), &[]).unwrap().unwrap();
    let program_only = |rest: &str| filter(rest).require_program_only().map_err(|err| err.to_string());
    let text = "seccomp flag SECCOMP_FILTER_FLAG_LOG is not supported yet";
    assert_eq!(program_only(r#","flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_LOG"]"#).unwrap_err(), text);
    let text = "SCMP_ACT_NOTIFY and listenerPath are not supported yet";
    assert_eq!(program_only(r#","listenerPath":"/s""#).unwrap_err(), text);
    assert_eq!(program_only(r#","flags":["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]"#), Ok(()));
    let rule = |rest: &str| filter(&format!(r#","syscalls":[{{"names":["read"],"action":"SCMP_ACT_LOG"{rest}}}]"#));
    let strict = |filter: Filter| filter.require_strict().map_err(|err| format!("{}: {err}", err.field()));
    let only = "only SCMP_ACT_ERRNO and SCMP_ACT_TRACE have one";
    let text = format!("defaultErrnoRet: SCMP_ACT_ALLOW has no error number, {only}");
    assert_eq!(strict(filter(r#","defaultErrnoRet":1"#)).unwrap_err(), text);
    let text = format!("syscalls[0].errnoRet: SCMP_ACT_LOG has no error number, {only}");
    assert_eq!(strict(rule(r#","errnoRet":1"#)).unwrap_err(), text);
    let errno = |action, value| {
        let rule = format!(r#"{{"names":["read"],"action":"SCMP_ACT_{action}","errnoRet":{value}}}"#);
        strict(filter(&format!(r#","syscalls":[{rule}]"#)))
    };
    assert_eq!((errno("ERRNO", 4095), errno("TRACE", 65535)), (Ok(()), Ok(())));
    assert_eq!(errno("ERRNO", 4096).unwrap_err(), TOO_GREAT);
    let text = "syscalls[0].errnoRet: 65537 is no number of SCMP_ACT_TRACE, which takes those from 0 to 65535";
    assert_eq!(errno("TRACE", 65537).unwrap_err(), text);
    let argument = r#","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]"#;
    let text = "syscalls[0].args[0].index: 6 is not between 0 and 5, the numbers of the arguments";
    assert_eq!(strict(rule(argument)).unwrap_err(), text);
    assert_eq!(strict(rule("")), Ok(()));
}

const TOO_GREAT: &str = "syscalls[0].errnoRet: 4096 is no number of SCMP_ACT_ERRNO, which takes those from 0 to 4095";

#[test]
fn every_refusal_has_its_field_and_the_words_that_it_takes() {
    let rules = |second: &str| {
        format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["read"],"action":"SCMP_ACT_LOG"}},{second}]}}"#
        )
    };
    for (json, field, word) in [
        (rules(r#"{"names":["read"]}"#), "syscalls[1].action", "SCMP_ACT_KILL_PROCESS"),
        (rules(r#"{"name":"a","names":["b"],"action":"SCMP_ACT_LOG"}"#), "syscalls[1].names", ""),
        (rules(r#"{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}"#), "listenerPath", ""),
        (r#"{"syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG"}]}"#.into(), "defaultAction", "SCMP_ACT_ERRNO"),
        (
            r#"{"defaultAction":"SCMP_ACT_LOG","flags":["SECCOMP_FILTER_FLAG_LOG","X"]}"#.into(),
            "flags[1]",
            "SECCOMP_FILTER_FLAG_TSYNC",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_LOG","architectures":["SCMP_ARCH_X86","X"]}"#.into(),
            "architectures[1]",
            "SCMP_ARCH_X32",
        ),
    ] {
        let profile = Profile::parse(&json).unwrap();
        let filter = resolve(&profile, &[], Arch::X86_64, (6, 1)).map(Option::unwrap);
        let err = filter.and_then(|filter| filter.require_strict()).unwrap_err();
        assert_eq!(err.field(), field, "{json}");
        assert!(if word.is_empty() { err.allowed().is_empty() } else { err.allowed().contains(&word) }, "{json}");
    }
}
