use super::*;

fn log(kind: &str, options: &[(&str, &str)]) -> LogConfig {
    let config = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    LogConfig { kind: kind.to_owned(), config: Some(config) }
}

fn config() -> Config {
    Config {
        image: "busybox".to_owned(),
        env: Some(vec!["A=1".to_owned(), "B=2".to_owned()]),
        labels: Some([("l.x".to_owned(), "x".to_owned()), ("m".to_owned(), "y".to_owned())].into()),
        ..Config::default()
    }
}

fn plan_of(kind: &str, options: &[(&str, &str)]) -> Result<LogPlan, String> {
    let subject = LogSubject {
        id: "0123456789abcdef",
        name: "web",
        image_id: "sha256:9876543210",
        command: vec!["sh", "-c", "x"],
        config: &config(),
        hostname: "host",
        dir: Path::new("/c"),
    };
    plan(&log(kind, options), &subject).map_err(|err| errdefs::chain(&err))
}

#[test]
fn names_of_options_are_checked_as_docker_checks_them() {
    let check = |kind: &str, options: &[(&str, &str)], expected: &str| {
        let found = validate(&log(kind, options)).map_or_else(|err| err.to_string(), |()| String::new());
        assert_eq!(found, expected, "{kind} {options:?}");
    };
    check("json-file", &[("max-size", "10m"), ("max-file", "3"), ("compress", "x"), ("tag", "{{")], "");
    check("json-file", &[("max-size", "q"), ("cache-max-size", "5"), ("cache-disabled", "true")], "");
    check("json-file", &[("foo", "1")], "unknown log opt 'foo' for json-file log driver");
    check("json-file", &[("mode", "x")], "logger: logging mode not supported: x");
    check("json-file", &[("mode", "non-blocking"), ("max-buffer-size", "4m")], "");
    let sentence = "logger: max-buffer-size option is only supported with 'mode=non-blocking'";
    check("json-file", &[("max-buffer-size", "1m")], sentence);
    let sentence = "error parsing option max-buffer-size: invalid size: 'q'";
    check("json-file", &[("mode", "non-blocking"), ("max-buffer-size", "q")], sentence);
    check("syslog", &[("cache-disabled", "x")], "invalid value for option cache-disabled: x");
    check("local", &[("labels", "a")], "unknown log opt 'labels' for log driver local");
    check("journald", &[("max-size", "1m")], "unknown log opt 'max-size' for journald log driver");
    check("syslog", &[("syslog-address", "foo://x")], "unsupported scheme: 'foo'");
    check("syslog", &[("syslog-address", "/dev/log")], "unsupported scheme: ''");
    check("syslog", &[("syslog-address", "udp://[::1")], "parse \"udp://[::1\": missing ']' in host");
    check("syslog", &[("syslog-address", "tcp://h:x")], "parse \"tcp://h:x\": invalid port \":x\" after host");
    check("syslog", &[("syslog-facility", "zz")], "invalid syslog facility");
    check("syslog", &[("syslog-format", "zz")], "Invalid syslog format");
    check("nope", &[], "error looking up logging plugin nope: plugin \"nope\" not found");
    check("etwlogs", &[], "error looking up logging plugin etwlogs: plugin \"etwlogs\" not found");
    check("gelf", &[], "log driver gelf is not supported yet: json-file, local, journald, syslog and none are");
    check("none", &[("foo", "1")], "");
}

#[test]
fn values_are_read_at_the_start() {
    let check = |kind: &str, option: (&str, &str), sentence: &str| {
        let prefix = "failed to create task for container: failed to initialize logging driver: ";
        assert_eq!(plan_of(kind, &[option]).unwrap_err(), format!("{prefix}{sentence}"), "{option:?}");
    };
    check("json-file", ("max-size", "q"), "invalid size: 'q'");
    check("json-file", ("max-size", "-1"), "invalid size: '-1'");
    check("json-file", ("max-size", "1.2.3k"), "strconv.ParseFloat: parsing \"1.2.3\": invalid syntax");
    check("json-file", ("max-size", "0"), "max-size must be a positive number");
    check("json-file", ("max-file", "x"), "strconv.Atoi: parsing \"x\": invalid syntax");
    check(
        "json-file",
        ("max-file", "99999999999999999999"),
        "strconv.Atoi: parsing \"99999999999999999999\": value out of range",
    );
    check("json-file", ("max-file", "0"), "max-file cannot be less than 1");
    check("json-file", ("compress", "x"), "strconv.ParseBool: parsing \"x\": invalid syntax");
    let sentence = "compress cannot be true when max-file is less than 2 or max-size is not set";
    check("json-file", ("compress", "true"), sentence);
    check("local", ("max-size", "x"), "invalid value for max-size: x: invalid size: 'x'");
    check("local", ("max-file", "1"), "compression cannot be enabled when max file count is 1");
    let sentence = "error reading compress log option: strconv.ParseBool: parsing \"x\": invalid syntax";
    check("local", ("compress", "x"), sentence);
    assert!(plan_of("json-file", &[("labels-regex", "(")]).unwrap_err().contains("error parsing regexp: "));
    assert!(plan_of("json-file", &[("tag", "{{")]).unwrap_err().contains("template: log-tag:1: "));
}

/// The sentences are dockerd's; where ours differs, it says less.
#[test]
fn a_tag_that_does_not_fit_is_told_without_the_containers_values() {
    let check = |tag: &str, sentence: &str| {
        let prefix = "failed to create task for container: failed to initialize logging driver: template: log-tag:";
        let found = plan_of("json-file", &[("tag", tag)]).unwrap_err();
        assert_eq!(found, format!("{prefix}{sentence}"), "{tag}");
    };
    let no = "can't evaluate field Nope in type";
    check("{{.Nope}}", &format!("1:2: executing \"log-tag\" at <.Nope>: {no} *logger.Info"));
    check("{{.Name.Nope}}", &format!("1:7: executing \"log-tag\" at <.Name.Nope>: {no} string"));
    check("{{.ContainerEnv.Nope}}", &format!("1:15: executing \"log-tag\" at <.ContainerEnv.Nope>: {no} []string"));
    check("a\n{{ .Nope }}", &format!("2:3: executing \"log-tag\" at <.Nope>: {no} *logger.Info"));
    for tag in [
        "{{range .ContainerEnv.A}}{{end}}",
        "{{.ContainerEnv 1}}",
        "{{index .ContainerEnv 9}}",
        "{{len 1 .ContainerEnv}}",
    ] {
        let found = plan_of("json-file", &[("tag", tag)]).unwrap_err();
        assert!(found.contains("executing \"log-tag\" at <") && !found.contains("A=1"), "{tag}: {found}");
    }
}

#[test]
fn files_have_dockers_defaults() {
    let json = plan_of("json-file", &[]).unwrap().file.unwrap();
    assert_eq!((json.path.to_str().unwrap(), json.compact), ("/c/0123456789abcdef-json.log", false));
    assert_eq!((json.max_size_bytes, json.max_files, json.compress), (None, 1, false));
    let local = plan_of("local", &[]).unwrap().file.unwrap();
    assert_eq!((local.path.to_str().unwrap(), local.compact), ("/c/local-logs/container.log", true));
    assert_eq!((local.max_size_bytes, local.max_files, local.compress), (Some(20 << 20), 5, true));
    assert_eq!(local.buffer_max_bytes, None);
    let options = [("mode", "non-blocking"), ("max-size", "1.5k")];
    let json = plan_of("json-file", &options).unwrap().file.unwrap();
    assert_eq!((json.buffer_max_bytes, json.max_size_bytes), (Some(1_000_000), Some(1500)));
    assert_eq!(plan_of("none", &[]), Ok(LogPlan::default()));
}

#[test]
fn chosen_labels_and_variables_are_put_in_every_line() {
    let attrs = |options: &[(&str, &str)]| {
        let file = plan_of("json-file", options).unwrap().file.unwrap();
        file.attrs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(attrs(&[("labels", "l.x,q"), ("env", "B")]), "B=2 l.x=x");
    assert_eq!(attrs(&[("labels-regex", "^(m|n)"), ("env-regex", "A|C")]), "A=1 m=y");
    assert_eq!(attrs(&[("tag", "{{.Name}}/{{.ID}} {{.ImageName}}")]), "tag=web/0123456789ab busybox");
    assert_eq!(attrs(&[("tag", "plain")]), "tag=plain");
}

#[test]
fn servers_are_known_by_their_addresses() {
    let server = |options: &[(&str, &str)]| match plan_of("syslog", options).unwrap().server {
        Some(LogServer::Syslog(server)) => server,
        other => panic!("{other:?}"),
    };
    let tag = "0123456789ab".to_owned();
    assert_eq!(server(&[]), SyslogServer { facility: 3, tag, ..SyslogServer::default() });
    let there = server(&[("syslog-address", "tcp://[::1]"), ("syslog-facility", "local3"), ("tag", "{{.FullID}}")]);
    assert_eq!((there.network.as_str(), there.address.as_str(), there.facility), ("tcp", "[::1]:514", 19));
    let there = server(&[("syslog-address", "udp://a.b:1"), ("syslog-facility", "7"), ("syslog-format", "rfc5424")]);
    assert_eq!((there.address.as_str(), there.facility, there.format), ("a.b:1", 7, SyslogFormat::Rfc5424));
    let planned = plan_of("syslog", &[("syslog-address", "unixgram:///x")]).unwrap();
    let file = planned.file.unwrap();
    assert_eq!(file.path, Path::new("/c/container-cached.log"));
    assert_eq!((file.buffer_max_bytes, planned.server_buffer_max_bytes), (Some(1_000_000), None));
    assert_eq!(plan_of("syslog", &[("cache-disabled", "1")]).unwrap().file, None);
}

#[test]
fn the_journal_is_told_dockers_fields() {
    let options = [("labels", "l.x"), ("tag", "t"), ("mode", "blocking"), ("cache-max-size", "1k")];
    let planned = plan_of("journald", &options).unwrap();
    let Some(LogServer::Journal(fields)) = planned.server else { panic!("no journal") };
    let shown: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        shown,
        [
            "CONTAINER_ID=0123456789ab",
            "CONTAINER_ID_FULL=0123456789abcdef",
            "CONTAINER_NAME=web",
            "CONTAINER_TAG=t",
            "IMAGE_NAME=busybox",
            "L_X=x",
            "SYSLOG_IDENTIFIER=t"
        ]
    );
    let file = planned.file.unwrap();
    assert_eq!((file.buffer_max_bytes, file.max_size_bytes), (None, Some(1000)));
}
