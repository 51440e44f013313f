use super::*;
use serde_json::json;

fn container() -> Json {
    json!({
        "Id": "x", "Name": "/n", "State": {"Status": "running", "Pid": 5}, "Created": "2026-01-01T00:00:00Z",
        "Config": {"Hostname": "h", "Cmd": ["a", "b"], "Labels": {"a": "2", "z": "1"}, "Entrypoint": null},
        "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}, "NetworkMode": "host",
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "NanoCpus": 5},
        "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "443/tcp": null}},
        "Extra": {"b": [1, null], "a": {}}
    })
}

fn apply(template: &str) -> String {
    match Format::parse(template).and_then(|format| format.apply_or_raw("container.InspectResponse", &container())) {
        Ok(text) => text,
        Err(err) => err.to_string(),
    }
}

#[test]
fn values_are_gos() {
    for (template, text) in [
        ("{{.State.Status}}", "running"),
        ("{{.State}}", "{running false false false false false 5 0    <nil>}"),
        ("{{.HostConfig.RestartPolicy}} {{.HostConfig.Ulimits}}", "{on-failure 3} [nofile=1:2]"),
        ("{{.Config.Entrypoint}} {{.Config.Volumes}} {{.Config.StopTimeout}}", "[] map[] <nil>"),
        ("{{json .Config.Entrypoint}} {{json .State.Health}}", "null null"),
        ("{{json .HostConfig.RestartPolicy}}", r#"{"Name":"on-failure","MaximumRetryCount":3}"#),
        ("{{.HostConfig.NetworkMode.IsHost}} {{.HostConfig.RestartPolicy.IsOnFailure}}", "true true"),
        ("{{.ID}} {{.Id}} {{.HostConfig.NanoCPUs}} {{.HostConfig.NanoCpus}}", "map has"),
        ("{{.HostConfig.NanoCpus}}", "5"),
        ("{{.Extra}}", "map[a:map[] b:[1 <nil>]]"),
        ("{{.NetworkSettings.Ports}}", "map[443/tcp:[] 80/tcp:[{0.0.0.0 8080}]]"),
        ("{{range $p, $b := .NetworkSettings.Ports}}{{$p.Port}}={{len $b}} {{end}}", "443=0 80=1 "),
        (r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#, "8080"),
        ("{{index .Config.Labels \"nope\"}}|{{.Config.Labels.nope}}", "|<no value>"),
        (
            "{{printf \"%T %v %+v\" .Config.Cmd .Config.Cmd .HostConfig.RestartPolicy}}",
            "strslice.StrSlice [a b] {Name:on-failure MaximumRetryCount:3}",
        ),
    ] {
        assert!(apply(template).contains(text), "{template}: {}", apply(template));
    }
}

#[test]
fn functions_are_gos_and_dockers() {
    for (template, text) in [
        ("{{json .Config.Cmd}}", r#"["a","b"]"#),
        ("{{join .Config.Cmd \" \"}}", "a b"),
        ("{{range .Config.Cmd}}<{{.}}>{{else}}none{{end}}", "<a><b>"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a=2 z=1 "),
        ("{{range $i, $e := .Config.Cmd}}{{if $i}},{{end}}{{$e}}{{end}}", "a,b"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{range .Config.Cmd}}{{break}}x{{end}}{{range .Config.Cmd}}{{continue}}x{{end}}.", "."),
        ("{{if .State.Pid}}yes{{else}}no{{end}}", "yes"),
        ("{{if .State.Paused}}a{{else if .State.Pid}}b{{else}}c{{end}}", "b"),
        ("{{with $x := .Name}}{{$x}}{{end}}{{with .State.Error}}e{{else}}none{{end}}", "/nnone"),
        ("{{$x := 1}}{{$x}}{{$x = 2}}{{$x}}", "12"),
        ("{{$x := 1}}{{range .Config.Cmd}}{{$x = .}}{{end}}{{$x}}", "b"),
        ("{{upper .Id}} {{title \"ab cd\"}} {{lower \"AB\"}}", "X Ab Cd ab"),
        ("{{pad .Id 1 2}}|{{truncate .State.Status 3}}", " x  |run"),
        ("{{index (split .Name \"/\") 1}} {{.Name | printf \"%s-%s\" \"a\"}}", "n a-/n"),
        ("{{println .Id}}{{print 1 2 \"a\" \"b\" 3}}", "x\n1 2ab3"),
        (
            "{{printf \"%-4s|%4d|%04d|%x|%q|%5.1f|%t\" .Id 7 7 255 \"a\" 1.25 true}}",
            "x   |   7|0007|ff|\"a\"|  1.2|true",
        ),
        ("{{printf \"%d %s\" \"a\"}}{{printf \"a\" 1}}", "%!d(string=a) %!s(MISSING)a%!(EXTRA int=1)"),
        (
            "{{and 1 0 2}} {{or 0 \"x\"}} {{not 1}} {{eq 1 2 1}} {{lt 1 2}} {{ge \"b\" \"a\"}}",
            "0 x false true true true",
        ),
        (
            "{{slice .State.Status 1 3}} {{len .Config.Cmd}} {{html \"<a>\"}} {{urlquery \"a b&\"}}",
            "un 2 &lt;a&gt; a+b%26",
        ),
        ("a {{- .Id -}} b{{/* c */}}", "axb"),
        ("{{define \"a\"}}[{{.}}]{{end}}{{template \"a\" .Id}}{{block \"b\" 1}}<{{.}}>{{end}}", "[x]<1>"),
        ("{{0x10}} {{1_000}} {{1e3}} {{'a'}} {{`r`}} {{\"\\u00e9\"}}", "16 1000 1000 97 r é"),
    ] {
        assert_eq!(apply(template), text, "{template}");
    }
}

#[test]
fn mistakes_read_as_gos() {
    for (template, sentence) in [
        ("{{.Foo}}", ":1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""),
        ("{{.Config.Foo.Bar}}", ":1:9: executing \"\" at <.Config.Foo.Bar>: map has no entry for key \"Foo\""),
        ("{{.Name.Foo}}", ":1:7: executing \"\" at <.Name.Foo>: can't evaluate field Foo in type interface {}"),
        ("a\n{{.Foo}}", ":2:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\""),
        (
            "{{index .Config.Cmd 9}}",
            ":1:2: executing \"\" at <index .Config.Cmd 9>: error calling index: index out of range: 9",
        ),
        ("{{upper 1}}", ":1:8: executing \"\" at <1>: expected string; found 1"),
        ("{{upper}}", ":1:2: executing \"\" at <upper>: wrong number of args for upper: want 1 got 0"),
        ("{{3 | upper}}", ":1:6: executing \"\" at <upper>: wrong type for value; expected string; got int"),
        (
            "{{join .Name \",\"}}",
            ":1:7: executing \"\" at <.Name>: wrong type for value; expected []string; got string",
        ),
        ("{{eq .Name 1}}", ":1:2: executing \"\" at <eq .Name 1>: error calling eq: incompatible types for comparison"),
        ("{{nil}}", ":1:2: executing \"\" at <nil>: nil is not a command"),
        ("{{template \"x\"}}", ":1:11: executing \"\" at <{{template \"x\"}}>: template \"x\" not defined"),
        ("{{", ":1: unclosed action"),
        ("a\n{{", ":2: unclosed action"),
        ("{{.Id}", ":1: bad character U+007D '}'"),
        ("{{foo .Id}}", ":1: function \"foo\" not defined"),
        ("{{$x}}", ":1: undefined variable \"$x\""),
        ("{{(}}", ":1: unclosed left paren"),
        ("{{)}}", ":1: unexpected right paren"),
        ("{{\"a}}", ":1: unterminated quoted string"),
        ("{{..}}", ":1: unexpected <.> in operand"),
        ("{{|}}", ":1: unexpected \"|\" in command"),
        ("{{if}}x{{end}}", ":1: missing value for if"),
        ("{{if .Id}}", ":1: unexpected EOF"),
        ("{{end}}", ":1: unexpected {{end}}"),
        ("{{else}}", ":1: unexpected {{else}}"),
        ("{{break}}", ":1: {{break}} outside {{range}}"),
        ("{{.Id | 3}}", ":1: non executable command in pipeline stage 2"),
        ("{{true.x}}", ":1: unexpected . after term \"true\""),
    ] {
        assert_eq!(apply(template), format!("template: {sentence}"), "{template}");
    }
    let deep = "{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}";
    assert!(apply(deep).contains("exceeded maximum template depth"), "{}", apply(deep));
}

#[test]
fn a_template_has_a_name_and_types_have_theirs() {
    let told = |template: &str| {
        let format = Format::parse_as(template, "version")?;
        format.apply("system.versionInfo", &json!({"Server": {"ApiVersion": "1.1"}}))
    };
    assert_eq!(told("{{.Server.APIVersion}}").unwrap(), "1.1");
    for (template, sentence) in [
        (
            "{{.Foo}}",
            "version:1:2: executing \"version\" at <.Foo>: can't evaluate field Foo in type system.versionInfo",
        ),
        (
            "{{.Server.Foo}}",
            "version:1:9: executing \"version\" at <.Server.Foo>: can't evaluate field Foo in type *types.Version",
        ),
        ("{{", "version:1: unclosed action"),
    ] {
        assert_eq!(told(template).unwrap_err().to_string(), format!("template: {sentence}"));
    }
}

#[test]
fn rows_have_columns_and_labels() {
    let fields = json!({"ID": "a<b", "Names": "n"});
    let labels = BTreeMap::from([("x.y-z".to_owned(), "1".to_owned())]);
    let told = |template: &str| {
        let format = Format::parse(template).unwrap();
        format.apply_row("*a.Row", fields.as_object().unwrap(), Some(&labels)).unwrap_or_else(|err| err.to_string())
    };
    for (template, text) in [
        ("{{json .}}", r#"{"ID":"a\u003cb","Names":"n"}"#),
        ("{{json .ID}}", r#""a<b""#),
        ("{{.Label \"x.y-z\"}}{{.Label \"no\"}}", "1"),
        ("{{.Label}}", "template: :1:2: executing \"\" at <.Label>: wrong number of args for Label: want 1 got 0"),
        ("{{.No}}", "template: :1:2: executing \"\" at <.No>: can't evaluate field No in type *a.Row"),
        ("{{.ID.X}}", "template: :1:5: executing \"\" at <.ID.X>: can't evaluate field X in type string"),
    ] {
        assert_eq!(told(template), text, "{template}");
    }
    let head = |template: &str| Format::parse(template).unwrap().apply_head(&[("ID", "CONTAINER ID")]);
    assert_eq!(head("{{upper .ID}} {{.Label \"x.y-z\"}} {{.No}}"), "CONTAINER ID y z <no value>");
}
