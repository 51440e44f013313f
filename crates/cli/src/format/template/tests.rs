use super::*;
use serde_json::json;

fn apply(template: &str) -> String {
    let value = json!({
        "Id": "x", "Name": "/n", "State": {"Status": "running", "Pid": 5},
        "Config": {"Hostname": "h", "Cmd": ["a", "b"], "Labels": {"a": "2", "z": "1"}},
        "List": [1, 2], "None": null
    });
    match Format::parse(template).and_then(|format| format.apply(&value)) {
        Ok(text) => text,
        Err(err) => err.to_string(),
    }
}

#[test]
fn dockers_functions() {
    for (template, text) in [
        ("{{.State.Status}}", "running"),
        ("{{.State}}", "{running 5 <nil>}"),
        ("{{ .State }}", "{running 5 <nil>}"),
        (
            "{{json .}}",
            r#"{"Id":"x","Name":"/n","State":{"Status":"running","Pid":5},"Config":{"Hostname":"h","Cmd":["a","b"],"Labels":{"a":"2","z":"1"}},"List":[1,2],"None":null}"#,
        ),
        ("{{json .Config.Cmd}}", r#"["a","b"]"#),
        ("{{join .Config.Cmd \" \"}}", "a b"),
        ("{{range .List}}<{{.}}>{{end}}", "<1><2>"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a=2 z=1 "),
        ("{{if .State.Pid}}yes{{else}}no{{end}}", "yes"),
        ("{{upper .Id}} {{title \"ab cd\"}} {{lower \"AB\"}}", "X Ab Cd ab"),
        ("{{pad .Id 1 2}}|{{truncate .State.Status 3}}", " x  |run"),
        ("{{index (split .Name \"/\") 1}}", "n"),
        ("{{.Config.Labels.nope}}", "<no value>"),
        ("{{println .Id}}", "x\n"),
        ("{{.ID}} {{.State.PID}}", "x 5"),
        ("{{.Config.Labels.A}}", "<no value>"),
    ] {
        assert_eq!(apply(template), text, "{template}");
    }
}

#[test]
fn mistakes_read_as_gos() {
    assert_eq!(apply("{{.Foo}}"), "template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\"");
    assert_eq!(apply("{{.id}}"), "template: :1:2: executing \"\" at <.id>: map has no entry for key \"id\"");
    assert_eq!(apply("{{"), "template: :1: unclosed action");
    assert_eq!(apply("{{.Id}"), "template: :1: bad character U+007D '}'");
    assert_eq!(apply("{{foo .Id}}"), "template: :1: function \"foo\" not defined");
    assert_eq!(
        apply("{{index .List 9}}"),
        "template: :1:2: executing \"\" at <index .List 9>: error calling index: index out of range: 9"
    );
    let typed = |source: &str| {
        let format = Format::parse_for(source, "version", &[("", "a.Top"), ("State", "*a.State")]);
        match format.and_then(|format| format.apply(&json!({"State": {"Pid": 5}}))) {
            Ok(text) => text,
            Err(err) => err.to_string(),
        }
    };
    assert_eq!(typed("{{.State.PID}}"), "5");
    for (template, told) in [
        ("{{.Foo}}", "version:1:2: executing \"version\" at <.Foo>: can't evaluate field Foo in type a.Top"),
        (
            "{{.State.Foo}}",
            "version:1:8: executing \"version\" at <.State.Foo>: can't evaluate field Foo in type *a.State",
        ),
        ("{{", "version:1: unclosed action"),
    ] {
        assert_eq!(typed(template), format!("template: {told}"));
    }
}
