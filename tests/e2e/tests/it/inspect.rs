//! `inspect`: of containers and images, whole and by templates.

use serde_json::Value;

use crate::support::on_both;

#[test]
fn privileged_templates_choose_from_an_image() {
    on_both(|at| {
        for (template, expected) in [
            ("{{json .Config.Cmd}}", "[\"sh\"]"),
            ("{{if .Config.Cmd}}{{join .Config.Cmd \" \"}}{{else}}none{{end}}", "sh"),
            ("{{if .Config.Volumes}}some{{else}}none{{end}}", "none"),
            ("{{.Os}} {{len .RootFS.Layers}} {{.RootFS.Type}}", "linux 1 layers"),
            (
                "{{range .Config.Env}}<{{.}}>{{end}}",
                "<PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin>",
            ),
            ("{{range $i, $e := .RootFS.Layers}}{{$i}}{{printf \" %.7s\" $e}}{{end}}", "0 sha256:"),
        ] {
            assert_eq!(at.inspect("busybox", template), expected, "{template}");
        }
        // A prefix of the id names it, too.
        let id = at.inspect("busybox", "{{.Id}}");
        assert_eq!(at.inspect(&id[7..19], "{{.ID}}"), id);
    });
}

#[test]
fn privileged_templates_choose_from_a_container() {
    on_both(|at| {
        let name = at.name("inspected");
        let flags = "--label a=b --label c='d e' --env X=y";
        let id = at.ok(&format!("create --name {name} --network none {flags} busybox sh -c 'echo x'"));
        let path = format!("/{name}");
        for (template, expected) in [
            ("{{json .Config.Cmd}}", "[\"sh\",\"-c\",\"echo x\"]"),
            ("{{json .Args}}", "[\"-c\",\"echo x\"]"),
            ("{{join .Args \",\"}}", "-c,echo x"),
            ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "a=b;c=d e;"),
            ("{{index .Config.Labels \"c\"}}", "d e"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "down"),
            ("{{if and (eq .State.Status \"created\") (not .State.Paused)}}new{{end}}", "new"),
            ("{{range .Config.Env}}{{if eq . \"X=y\"}}{{.}}{{end}}{{end}}", "X=y"),
            ("{{with .HostConfig}}{{.NetworkMode}}{{end}}", "none"),
            ("{{.Name}}", &path),
            ("{{.Id}}", &id),
            ("{{.ID}}", &id),
        ] {
            assert_eq!(at.inspect(&name, template), expected, "{template}");
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_a_whole_object_is_a_list_of_one() {
    on_both(|at| {
        let name = at.name("whole");
        let id = at.ok(&format!("create --name {name} --network none busybox true"));
        let list = |line: &str| serde_json::from_str::<Value>(&at.ok(line)).unwrap();
        let both = list(&format!("inspect {name} busybox"));
        assert_eq!(both[0]["Id"], id.as_str());
        let tags = both[1]["RepoTags"].as_array().unwrap();
        assert!(tags.contains(&"busybox:latest".into()), "{tags:?}");
        assert_eq!(both.as_array().unwrap().len(), 2);
        assert_eq!(list(&format!("container inspect {}", &id[..12])), list(&format!("inspect --format json {name}")));
        assert_eq!(list("image inspect busybox"), list("inspect --type image busybox"));
        at.remove(&name);
    });
}

#[test]
fn privileged_what_is_missing_is_said_and_the_rest_is_shown() {
    on_both(|at| {
        let missing = at.image("missing");
        for (line, sentence) in [
            ("inspect", format!("Error: No such object: {missing}")),
            ("image inspect", format!("Error response from daemon: No such image: {missing}:latest")),
            ("container inspect", format!("Error response from daemon: No such container: {missing}")),
        ] {
            let output = at.line(&format!("{line} {missing}"));
            assert_eq!((output.code, output.stdout.as_str(), output.stderr.trim()), (1, "[]\n", sentence.as_str()));
        }
        let output = at.line(&format!("inspect -f '{{{{.Os}}}}' {missing} busybox"));
        assert_eq!((output.code, output.stdout.as_str()), (1, "linux\n"));
        assert_eq!(at.line(&format!("inspect -f x {missing}")).stdout, "\n");
        for (template, code, sentence) in [
            ("{{.Nope}}", 1, "executing \"\" at <.Nope>: map has no entry for key \"Nope\""),
            ("{{.Id", 64, "template parsing error: template: :1: unclosed action"),
            ("{{nope .Id}}", 64, "template parsing error: template: "),
        ] {
            at.fails(&format!("inspect -f '{template}' busybox"), code, sentence);
        }
    });
}
