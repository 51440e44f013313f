use serde_json::{Map, json};

use super::*;
use crate::auth::AuthConfig;
use crate::container::CreateRequest;
use crate::exec::{ExecCreate, ExecStart};

fn request(body: &str) -> CreateRequest {
    decode(body.as_bytes()).unwrap()
}

/// What is said of a body that is refused.
fn refusal<T: Document + Default + std::fmt::Debug>(body: &[u8]) -> String {
    errdefs::chain(&decode::<T>(body).unwrap_err())
}

#[test]
fn nulls_read_as_absent_and_unknown_fields_are_ignored() {
    let request = request(
        r#"{"Image":"a","Cmd":null,"Tty":null,"HostConfig":{"Binds":null,"Memory":5,"LogConfig":null},"New":[{}]}"#,
    );
    assert_eq!((request.config.image.as_str(), request.config.cmd), ("a", None));
    assert_eq!(request.host_config.unwrap().memory, 5);
    assert_eq!(decode::<ExecStart>(b"null").unwrap(), ExecStart::default());
}

#[test]
fn names_are_found_in_any_case_but_better_as_they_are() {
    let request = request(r#"{"image":"a","hOSTcONFIG":{"memory":5,"CPUSHARES":7},"Tty":true,"tty ":5}"#);
    let host = request.host_config.unwrap();
    assert_eq!((request.config.image.as_str(), host.memory, host.cpu_shares, request.config.tty), ("a", 5, 7, true));
}

#[test]
fn nulls_among_values_are_zero_and_arrays_have_their_length() {
    let request = request(
        r#"{"Env":[null,"A=b"],"Labels":{"a":null},"ExposedPorts":{"80/tcp":null},"Cmd":[null],
            "HostConfig":{"ConsoleSize":[7,8,"x"],"Mounts":[null],"PortBindings":{"80/tcp":null}}}"#,
    );
    let (config, host) = (request.config, request.host_config.unwrap());
    assert_eq!((config.env.unwrap(), config.cmd.unwrap()), (vec![String::new(), "A=b".into()], vec![String::new()]));
    assert_eq!((config.labels.unwrap()["a"].as_str(), config.exposed_ports.unwrap().len()), ("", 1));
    assert_eq!(host.port_bindings.unwrap()["80/tcp"], None);
    assert_eq!((host.console_size, host.mounts.unwrap().len()), ([7, 8], 1));
    let short: ExecStart = decode(br#"{"ConsoleSize":[7]}"#).unwrap();
    assert_eq!(short.console_size, Some([7, 0]));
}

#[test]
fn a_command_may_be_one_text() {
    let request = request(r#"{"Cmd":"a b","Entrypoint":["x"],"HostConfig":{"CapAdd":"ALL"}}"#);
    assert_eq!(
        (request.config.cmd.unwrap(), request.config.entrypoint.unwrap()),
        (vec!["a b".into()], vec!["x".into()])
    );
    assert_eq!(request.host_config.unwrap().cap_add.unwrap(), ["ALL"]);
}

#[test]
fn texts_are_read_as_go_reads_them() {
    let image = |text: &[u8]| {
        let body = [b"{\"Image\":\"", text, b"\"}"].concat();
        decode::<CreateRequest>(&body).unwrap().config.image
    };
    assert_eq!(image(br#"a\n\t\"\\\/\u00e9"#), "a\n\t\"\\/é");
    assert_eq!(image(br"\ud83d\ude00!"), "😀!");
    assert_eq!(image(br"\ud800x\udc00\ud800\u0041"), "\u{fffd}x\u{fffd}\u{fffd}A");
    assert_eq!(image(b"a\xffb"), "a\u{fffd}b");
}

#[test]
fn a_container_without_anything_to_run_is_told_apart() {
    for (body, given) in [
        ("{}", false),
        ("null", false),
        ("{}}", false),
        (r#"{"HostConfig":{"Memory":1}}"#, false),
        (r#"{"Config":{"Image":"x"}}"#, false),
        (r#"{"Image":null}"#, true),
        (r#"{"tty":false}"#, true),
    ] {
        assert_eq!(CreateRequest::decode(body.as_bytes()).unwrap().is_some(), given, "{body}");
    }
}

/// Each is what dockerd 28.5 answers (built with Go 1.27), behind `invalid JSON: `.
#[test]
fn wrong_types_are_told_in_gos_words() {
    for (body, told) in [
        (r#"{"Image":5}"#, "number into Go struct field .Image of type string"),
        (r#"{"image":7}"#, "number into Go struct field .image of type string"),
        (r#"{"Env":[1]}"#, "number into .Env.0 of type string"),
        (r#"{"Env":"a"}"#, "string into Go struct field .Env of type []string"),
        (r#"{"Tty":"x","Image":5}"#, "string into Go struct field .Tty of type bool"),
        (r#"{"Cmd":5}"#, "number into Go value of type string"),
        (r#"{"Cmd":["a",5]}"#, "array into Go value of type string"),
        (r#"{"Cmd":true}"#, "bool into Go value of type string"),
        (r#"{"Labels":{"a/b~c":5}}"#, "number into Go struct field .Labels.a~1b~0c of type string"),
        (r#"{"Labels":{"0":5}}"#, "number into .Labels.0 of type string"),
        (r#"{"ExposedPorts":[]}"#, "array into Go struct field .ExposedPorts of type nat.PortSet"),
        (r#"{"ExposedPorts":{"80/tcp":1}}"#, "number into Go struct field .ExposedPorts.80~1tcp of type struct {}"),
        (r#"{"StopTimeout":1.5}"#, "number 1.5 into Go struct field .StopTimeout of type int"),
        (r#"{"Healthcheck":[]}"#, "array into Go struct field .Healthcheck of type v1.HealthcheckConfig"),
        (
            r#"{"Healthcheck":{"Interval":"5s"}}"#,
            "string into Go struct field .Healthcheck.Interval of type time.Duration",
        ),
        (r#"{"HostConfig":"x"}"#, "string into Go struct field .HostConfig of type container.HostConfig"),
        (r#"{"HostConfig":{"Memory":"x"}}"#, "string into Go struct field .HostConfig.Memory of type int64"),
        (r#"{"HostConfig":{"Memory":1e3}}"#, "number 1e3 into Go struct field .HostConfig.Memory of type int64"),
        (
            r#"{"HostConfig":{"Memory":99999999999999999999}}"#,
            "number 99999999999999999999 into Go struct field .HostConfig.Memory of type int64",
        ),
        (
            r#"{"HostConfig":{"BlkioWeight":-1}}"#,
            "number -1 into Go struct field .HostConfig.BlkioWeight of type uint16",
        ),
        (r#"{"HostConfig":{"ConsoleSize":[1,"a"]}}"#, "string into .HostConfig.ConsoleSize.1 of type uint"),
        (r#"{"HostConfig":{"Devices":["x"]}}"#, "string into .HostConfig.Devices.0 of type container.DeviceMapping"),
        (r#"{"HostConfig":{"Ulimits":{}}}"#, "object into Go struct field .HostConfig.Ulimits of type []*units.Ulimit"),
        (
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":5}]}}}"#,
            "number into Go struct field .HostConfig.PortBindings.80~1tcp.0.HostPort of type string",
        ),
        (
            r#"{"HostConfig":{"RestartPolicy":{"Name":1}}}"#,
            "number into Go struct field .HostConfig.RestartPolicy.Name of type container.RestartPolicyMode",
        ),
        (
            r#"{"HostConfig":{"Mounts":[{"TmpfsOptions":{"Options":[[1]]}}]}}"#,
            "number into .HostConfig.Mounts.0.TmpfsOptions.Options.0.0 of type string",
        ),
        (
            r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{"IPAMConfig":5}}}}"#,
            "number into Go struct field .NetworkingConfig.EndpointsConfig.a.IPAMConfig of type network.EndpointIPAMConfig",
        ),
        ("[]x", "array into Go value of type container.CreateRequest"),
        ("truex", "bool into Go value of type container.CreateRequest"),
    ] {
        assert_eq!(refusal::<CreateRequest>(body.as_bytes()), format!("invalid JSON: json: cannot unmarshal {told}"));
    }
    for (body, told) in [
        (r#"{"Cmd":"x"}"#, "string into Go struct field ExecOptions.Cmd of type []string"),
        (r#"{"Cmd":[5]}"#, "number into ExecOptions.Cmd.0 of type string"),
        ("5", "number into Go value of type container.ExecOptions"),
    ] {
        assert_eq!(refusal::<ExecCreate>(body.as_bytes()), format!("invalid JSON: json: cannot unmarshal {told}"));
    }
    let told = "invalid JSON: json: cannot unmarshal number into Go struct field ExecStartOptions.Tty of type bool";
    assert_eq!(refusal::<ExecStart>(br#"{"Tty":5}"#), told);
}

#[test]
fn broken_texts_are_told_in_gos_words() {
    let (value, key) = ("looking for beginning of value", "looking for beginning of object key string");
    for (body, found, place) in [
        ("{x", "'x'", key),
        ("{,}", "','", key),
        (r#"{"a":1,}"#, "'}'", key),
        ("{'a':1}", r"'\''", key),
        ("[1,]", "']'", value),
        (r#"{"a":}"#, "'}'", value),
        ("+1", "'+'", value),
        ("é", "'é'", value),
        ("\u{feff}{}", r"'\ufeff'", value),
        ("\0", r"'\x00'", value),
        (" ]", "']'", value),
        (r#"{"a" 1}"#, "'1'", "after object key"),
        (r#"{"a":1 "b"}"#, "'\"'", "after object key:value pair"),
        (r#"{"a":01}"#, "'1'", "after object key:value pair"),
        (r#"{"a":1]"#, "']'", "after object key:value pair"),
        ("[1 2]", "'2'", "after array element"),
        ("[1}", "'}'", "after array element"),
        ("{\"a\":\"x\ny\"}", r"'\n'", "in string"),
        ("{\"a\":\"\u{1}\"}", r"'\x01'", "in string"),
        ("[-]", "']'", "in numeric literal"),
        ("[1.x]", "'x'", "in numeric literal"),
        ("[1e]", "']'", "in numeric literal"),
        ("nope", "'o'", "in literal null (expecting 'u')"),
        ("[tr]", "']'", "in literal true (expecting 'u')"),
    ] {
        assert_eq!(
            refusal::<CreateRequest>(body.as_bytes()),
            format!("invalid JSON: invalid character {found} {place}")
        );
    }
    assert_eq!(refusal::<ExecStart>(b"\xff"), r"invalid JSON: invalid character '\xff' looking for beginning of value");
    for (body, told) in [
        ("", "invalid JSON: got EOF while reading request body"),
        (" \n", "invalid JSON: got EOF while reading request body"),
        (r#"["\q"]"#, r"invalid JSON: invalid escape sequence `\q` in string"),
        (r#"["\u12x"]"#, r#"invalid JSON: invalid escape sequence `\u12x"` in string"#),
        ("{}{}", "unexpected content after JSON"),
        ("null x", "unexpected content after JSON"),
        // Not what stands behind is told, but what is wrong before.
        (r#"{"Image":5,x"#, "invalid JSON: invalid character 'x' looking for beginning of object key string"),
    ] {
        assert_eq!(refusal::<CreateRequest>(body.as_bytes()), told, "{body}");
    }
}

#[test]
fn a_text_that_stops_anywhere_is_told_to_have_stopped() {
    let whole =
        br#"{"Image":"a\n\u00e9","HostConfig":{"Memory":-1.5e+3,"Privileged":true,"Binds":[null,false, "x" ]}}"#;
    for length in 1..whole.len() {
        assert_eq!(refusal::<CreateRequest>(&whole[..length]), "invalid JSON: unexpected EOF", "{length}");
    }
}

#[test]
fn depth_costs_no_stack() {
    let nested = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    decode::<ExecStart>(nested(9_999).as_bytes()).unwrap();
    assert_eq!(refusal::<ExecStart>(nested(10_000).as_bytes()), "invalid JSON: exceeded max depth");
}

/// A document that has every field of a shape.
fn example(shape: &Shape) -> Value {
    match shape {
        Shape::Text(_) => "x".into(),
        Shape::Bool => true.into(),
        Shape::Number(..) => 1.into(),
        Shape::Words => json!(["x"]),
        Shape::List(_, element) => vec![example(element)].into(),
        Shape::Array(_, length, element) => vec![example(element); *length].into(),
        Shape::Map(_, element) => json!({"k": example(element)}),
        Shape::Object(_, fields) => {
            let members = fields.iter().map(|(name, shape)| ((*name).to_owned(), example(shape)));
            members.collect::<Map<String, Value>>().into()
        }
    }
}

/// Shapes and types must not drift apart: what is declared is kept, and what is kept is declared.
fn shape_and_type_agree<T: Document + Default + serde::Serialize>(ignored: &[&str]) {
    let mut sent = example(&T::SHAPE);
    let kept = serde_json::to_value(decode::<T>(sent.to_string().as_bytes()).unwrap()).unwrap();
    for pointer in ignored {
        let (object, name) = pointer.rsplit_once('/').unwrap();
        assert!(sent.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(name).is_some(), "{pointer}");
    }
    assert_eq!(kept, sent);
}

#[test]
fn shapes_and_types_agree() {
    shape_and_type_agree::<CreateRequest>(&["/HostConfig/KernelMemory", "/HostConfig/Mounts/0/ClusterOptions"]);
    shape_and_type_agree::<ExecCreate>(&[]);
    shape_and_type_agree::<ExecStart>(&[]);
    shape_and_type_agree::<AuthConfig>(&[]);
}

#[test]
fn documents_are_compacted_as_go_does_it() {
    let compacted = |text: &str| match compact(text.as_bytes()) {
        Ok(bytes) => String::from_utf8(bytes).unwrap(),
        Err(err) => err.to_string(),
    };
    for (text, expected) in [
        (" { \"a b\" : [ 1.0 , \"\\\" x\" ] }\n", "{\"a b\":[1.0,\"\\\" x\"]}"),
        ("", "unexpected end of JSON input"),
        ("{\"a\":", "unexpected end of JSON input"),
        ("ABC", "invalid character 'A' looking for beginning of value"),
        ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
        ("{\"a\":1} x", "invalid character 'x' after top-level value"),
    ] {
        assert_eq!(compacted(text), expected, "{text}");
    }
}
