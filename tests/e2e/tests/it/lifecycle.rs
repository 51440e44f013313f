//! From `create` to `rm`: what each verb does, prints and refuses.

use std::io::{BufReader, Write};

use testkit::http;

use crate::support::on_both;

/// Prints `up` and ends with 9 when it gets SIGUSR1.
const TRAPS: &str = "busybox sh -c 'trap \"exit 9\" USR1; echo up; sleep 1000 & wait'";

#[test]
fn privileged_a_container_goes_through_its_states() {
    on_both(|at| {
        let name = at.name("states");
        let state = || at.inspect(&name, "{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}");
        let id = at.ok(&format!("create --network none --name {name} busybox sh -c 'sleep 1000'"));
        assert_eq!((id.len(), state().as_str()), (64, "created false 0"));
        assert_eq!(at.ok(&format!("start {name}")), name);
        assert_eq!(state(), "running true 0");
        assert_eq!(at.ok(&format!("start {name}")), name, "running already: no error");
        let sentence = "container is running: stop the container before removing or force remove";
        at.fails(&format!("rm {name}"), 1, &format!("cannot remove container \"{name}\": {sentence}"));
        assert_eq!(at.ok(&format!("stop -t 0 {name}")), name);
        assert_eq!(state(), "exited false 137");
        assert_eq!(at.ok(&format!("stop {name}")), name, "stopped already: no error");
        let sentence = format!("cannot kill container: {name}: container {id} is not running");
        at.fails(&format!("kill {name}"), 1, &sentence);
        assert_eq!(at.ok(&format!("wait {name}")), "137");
        assert_eq!(at.ok(&format!("restart {name}")), name);
        assert_eq!(state(), "running true 0");
        assert_eq!(at.ok(&format!("rm -f {name}")), name);
        at.fails(&format!("inspect {name}"), 1, &format!("Error: No such object: {name}\n"));
    });
}

#[test]
fn privileged_what_removes_itself_and_does_not_start_is_gone_when_that_is_told() {
    on_both(|at| {
        let name = at.name("gone");
        for _ in 0..8 {
            at.ok(&format!("create --rm --network none --name {name} busybox /no/such"));
            assert_eq!(at.line(&format!("start {name}")).code, 1);
            // The name would be taken else.
            at.fails(&format!("inspect {name}"), 1, &format!("Error: No such object: {name}\n"));
        }
    });
}

#[test]
fn privileged_signals_end_a_container_with_128_and_their_number() {
    on_both(|at| {
        let name = at.name("signals");
        // Process 1 of a namespace ignores what it has no handler for: the init has one for everything.
        for (line, code) in
            [("kill", 137), ("kill -s TERM", 143), ("kill -s 2", 130), ("stop", 143), ("stop -s INT", 130)]
        {
            // A signal that comes before the init has its handlers is lost: wait for what it runs.
            let script = "echo up; exec sleep 1000";
            let mut run = at.spawn(&format!("run --network none --name {name} --init busybox sh -c '{script}'"));
            run.read_until("up\n").unwrap();
            at.ok(&format!("{line} {name}"));
            assert_eq!(run.wait().unwrap().code, code, "{line}");
            assert_eq!(at.ok(&format!("wait {name}")), code.to_string(), "{line}");
            at.remove(&name);
        }
        let output = at.line("run --rm --network none --init busybox sh -c 'kill -SEGV $$'");
        assert_eq!(output.code, 139);
    });
}

#[test]
fn privileged_stop_sends_the_stop_signal_first_and_kills_after_the_timeout() {
    on_both(|at| {
        let name = at.name("stop");
        let mut run = at.spawn(&format!("run --network none --stop-signal USR1 --name {name} {TRAPS}"));
        run.read_until("up\n").unwrap();
        let mut events = at.events(&name);
        at.ok(&format!("stop {name}"));
        assert_eq!(run.wait().unwrap().code, 9);
        let mut actions = events.actions_until("stop").unwrap();
        // The events of start and end are told by another thread, sooner or later.
        actions.retain(|action| action != "start" && action != "die");
        assert_eq!(actions, ["kill", "stop"]);
        at.remove(&name);
        for (create, stop) in [("--stop-timeout 1", "stop"), ("", "stop -t 1")] {
            at.start(&name, &format!("{create} busybox sleep 1000"));
            let mut events = at.events(&name);
            at.ok(&format!("{stop} {name}"));
            let signals: Vec<_> = (0..2).map(|_| events.until("kill").unwrap()).collect();
            let names: Vec<_> = signals.iter().map(|one| one["Actor"]["Attributes"]["signal"].clone()).collect();
            assert_eq!(names, ["15", "9"]);
            let nanos = |one: &serde_json::Value| one["timeNano"].as_u64().unwrap();
            let waited = nanos(&signals[1]) - nanos(&signals[0]);
            assert!((900_000_000..5_000_000_000).contains(&waited), "{stop}: {waited} ns");
            assert_eq!(at.inspect(&name, "{{.State.ExitCode}}"), "137");
            at.remove(&name);
        }
    });
}

#[test]
fn privileged_names_are_renamed_refused_and_free_again() {
    on_both(|at| {
        let (one, two, three) = (at.name("one"), at.name("two"), at.name("three"));
        let id = at.ok(&format!("create --name {one} busybox true"));
        at.ok(&format!("create --name {two} busybox true"));
        let sentence = format!(
            "Error response from daemon: Error when allocating new name: Conflict. The container name \"/{one}\" is \
             already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse \
             that name.\nError: failed to rename container named {two}\n"
        );
        at.fails(&format!("rename {two} {one}"), 1, &sentence);
        assert_eq!(at.ok(&format!("rename {one} {three}")), "");
        assert_eq!(at.inspect(&id, "{{.Name}}"), format!("/{three}"));
        assert_eq!(at.ok(&format!("container rename {two} {one}")), "");
        at.ok(&format!("rm {one} {three}"));
        for _ in 0..3 {
            at.run(&format!("--name {one} busybox true"));
        }
        let refused = "Invalid container name (!), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed";
        at.fails("create --name ! busybox true", 1, refused);
        at.fails("rename '' x", 1, "Error: Neither old nor new names may be empty\n");
    });
}

#[test]
fn privileged_what_is_not_there_is_named() {
    on_both(|at| {
        let absent = at.name("absent");
        let no_such = format!("Error response from daemon: No such container: {absent}\n");
        for verb in ["start", "stop", "restart", "wait", "rm", "logs", "attach", "container inspect"] {
            at.fails(&format!("{verb} {absent}"), 1, &no_such);
        }
        at.fails(&format!("start {absent}"), 1, &format!("Error: failed to start containers: {absent}\n"));
        let sentence = format!("cannot kill container: {absent}: No such container: {absent}");
        at.fails(&format!("kill {absent}"), 1, &sentence);
        assert_eq!(at.line(&format!("rm -f {absent}")).code, 0);
        at.fails(&format!("kill -s NOPE {absent}"), 1, &format!("{absent}: "));
    });
}

#[test]
fn privileged_ps_lists_filters_and_formats() {
    on_both(|at| {
        let (up, down) = (at.name("up"), at.name("down"));
        let id = at.ok(&format!("run -d --network none --name {up} --label colour=red busybox sleep 1000"));
        at.ok(&format!("create --name {down} --label colour=blue busybox sh -c 'echo long enough to be cut off'"));
        let mark = at.daemon.name("");
        let ps = |rest: &str| at.ok(&format!("ps --filter name={mark} {rest}"));
        assert_eq!(ps("--format {{.Names}}"), up);
        assert_eq!(ps("-a --format {{.Names}}"), format!("{down}\n{up}"), "the newest first");
        assert_eq!(ps("-q"), id[..12]);
        assert_eq!(ps("-q --no-trunc"), id);
        for (filter, expected) in [
            ("label=colour", format!("{down}\n{up}")),
            ("label=colour=red", up.clone()),
            ("status=created", down.clone()),
            ("status=running", up.clone()),
            ("ancestor=busybox", format!("{down}\n{up}")),
            ("ancestor=no-such-image", String::new()),
        ] {
            assert_eq!(ps(&format!("-a --format {{{{.Names}}}} --filter {filter}")), expected, "{filter}");
        }
        assert_eq!(ps(&format!("-a --format {{{{.Names}}}} --filter since={up}")), down);
        assert_eq!(ps(&format!("-a --format {{{{.Names}}}} --filter before={down}")), up);
        let shown = ps("-a --format '{{.Image}} {{.State}} {{.Command}} {{.Label \"colour\"}}'");
        assert_eq!(shown, "busybox created \"sh -c 'echo long en…\" blue\nbusybox running \"sleep 1000\" red");
        let table = ps("");
        let (head, row) = table.split_once('\n').unwrap();
        let words: Vec<_> = head.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
        assert_eq!(words, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
        assert!(row.starts_with(&format!("{}   busybox   \"sleep 1000\"   ", &id[..12])), "{row}");
        assert_eq!(row.find(&up), head.find("NAMES"), "columns stand below their heads");
        at.fails("ps --filter nope=1", 1, "invalid filter 'nope'");
        at.fails("ps --filter status=nope", 1, "invalid filter 'status=nope'");
        at.remove(&format!("{up} {down}"));
    });
}

#[test]
fn privileged_inspect_takes_templates() {
    on_both(|at| {
        let name = at.name("inspected");
        at.ok(&format!("create --network none --name {name} -e A=1 --label a=b -w /tmp busybox echo one '<two>'"));
        for (template, expected) in [
            ("{{json .Config.Cmd}}", r#"["echo","one","<two>"]"#),
            ("{{.Path}} {{range .Args}}[{{.}}]{{end}}", "echo [one][<two>]"),
            ("{{range $i, $a := .Args}}{{if $i}},{{end}}{{$i}}={{$a}}{{end}}", "0=one,1=<two>"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "down"),
            ("{{join .Config.Cmd \"+\"}}", "echo+one+<two>"),
            ("{{index .Config.Labels \"a\"}}", "b"),
            ("{{len .Config.Cmd}}", "3"),
            ("{{.Config.WorkingDir}} {{.HostConfig.NetworkMode}}", "/tmp none"),
            ("{{.HostConfig.ShmSize}} {{.HostConfig.Privileged}}", "67108864 false"),
            ("{{upper .State.Status}} {{eq .Driver \"overlay2\"}}", "CREATED true"),
        ] {
            assert_eq!(at.inspect(&name, template), expected, "{template}");
        }
        let sentence =
            "template parsing error: template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\"";
        at.fails(&format!("inspect -f '{{{{.Nope}}}}' {name}"), 1, sentence);
        let document: serde_json::Value = serde_json::from_str(&at.ok(&format!("inspect {name}"))).unwrap();
        assert_eq!(document[0]["Name"], format!("/{name}"));
        at.remove(&name);
    });
}

#[test]
fn privileged_a_run_shows_in_the_events_in_dockers_order() {
    on_both(|at| {
        let name = at.name("events");
        let mut events = at.events("");
        let line = format!("run --rm --network none --name {name} --label a=b busybox sh -c 'exit 4'");
        assert_eq!(at.line(&line).code, 4);
        let mut actions = Vec::new();
        while actions.last().map(String::as_str) != Some("destroy") {
            let event = events.next_event().unwrap();
            let attributes = &event["Actor"]["Attributes"];
            if event["Type"] != "container" || attributes["name"] != name.as_str() {
                continue;
            }
            actions.push(event["Action"].as_str().unwrap().to_owned());
            assert_eq!((&attributes["a"], &attributes["image"]), (&"b".into(), &"busybox".into()), "{event}");
            if event["Action"] == "die" {
                assert_eq!(attributes["exitCode"], "4", "{event}");
            }
        }
        assert_eq!(actions, ["create", "attach", "start", "die", "destroy"]);
    });
}

#[test]
fn privileged_events_of_the_past_are_shown_until_a_time() {
    on_both(|at| {
        let name = at.name("past");
        let since = seconds_now();
        at.ok(&format!("create --network none --name {name} busybox true"));
        at.ok(&format!("start -a {name}"));
        at.remove(&name);
        let filter = format!("--since {since} --until {}", seconds_now() + 1);
        let line = format!(
            "events {filter} --filter type=container --format '{{{{.Action}}}} {{{{.Actor.Attributes.name}}}}'"
        );
        let shown = at.ok(&line);
        let own: Vec<_> = shown.lines().filter(|line| line.contains(&name)).collect();
        let actions = ["create", "attach", "start", "die", "destroy"];
        assert_eq!(own, actions.map(|action| format!("{action} {name}")));
    });
}

fn seconds_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn privileged_wait_answers_before_and_after_the_end_and_at_the_removal() {
    on_both(|at| {
        let name = at.name("wait");
        for (condition, options) in [("not-running", "-i"), ("next-exit", "-i"), ("removed", "-i --rm")] {
            let mut run = at
                .spawn(&format!("run {options} --network none --name {name} busybox sh -c 'echo up; read x; exit 6'"));
            run.read_until("up\n").unwrap();
            // The head of the answer says that the wait stands.
            let mut stream = http::connect(at.daemon.socket()).unwrap();
            write!(stream, "POST /v1.50/containers/{name}/wait?condition={condition} HTTP/1.1\r\nHost: docker\r\n\r\n")
                .unwrap();
            let mut answer = BufReader::new(stream);
            let head = http::read_head(&mut answer).unwrap();
            assert_eq!(head.status, 200, "{condition}");
            assert_eq!(run.wait().unwrap().code, 6);
            let body = http::read_body(&mut answer, &head).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["StatusCode"], 6, "{condition}: {body}");
            if condition == "removed" {
                at.fails(&format!("container inspect {name}"), 1, "No such container");
            } else {
                assert_eq!(at.ok(&format!("wait {name}")), "6", "{condition}: after the end");
                at.remove(&name);
            }
        }
    });
}

#[test]
fn privileged_what_has_ended_can_be_started_at_once() {
    on_both(|at| {
        let id = at.ok(&format!("create --network none --name {} busybox sleep 1000", at.name("again")));
        // Again and again: what is still to be done after an end must not reach the next run.
        for round in 0..75 {
            for (verb, status) in [("start", 204), ("kill", 204), ("wait", 200)] {
                let answer = at.daemon.post(&format!("/containers/{id}/{verb}"), "").unwrap();
                assert_eq!(answer.status, status, "{round}: {verb}: {}", answer.text());
            }
        }
        at.ok(&format!("start {id}"));
        assert_eq!(at.ok(&format!("exec {id} echo in")), "in");
        at.remove(&id);
    });
}

#[test]
fn privileged_start_attached_shows_the_output_and_ends_as_the_container() {
    on_both(|at| {
        let name = at.name("attached");
        at.ok(&format!("create --network none --name {name} busybox sh -c 'echo out; echo err >&2; exit 5'"));
        for _ in 0..2 {
            let output = at.line(&format!("start -a {name}"));
            assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code), ("out\n", "err\n", 5));
        }
        at.remove(&name);
        at.ok(&format!("create -i --network none --name {name} busybox cat"));
        assert_eq!(at.with_input(&format!("start -ai {name}"), b"through").stdout, "through");
        at.remove(&name);
        let sentence = "You cannot attach to a stopped container, start it first";
        at.ok(&format!("create --name {name} busybox true"));
        at.fails(&format!("attach {name}"), 1, sentence);
        at.remove(&name);
    });
}
