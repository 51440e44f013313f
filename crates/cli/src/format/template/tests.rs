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
}
