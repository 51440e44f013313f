//! Wrong lines: the same words, on the same stream, with the same exit status as docker's.

use testkit::Cli;

use crate::support::on_both;

/// Line, exit status, standard output, standard error. `@` stands for the program.
const LINES: &[(&str, i32, &str, &str)] = &[
    ("stop ''", 1, "", "invalid container name or ID: value is empty\n"),
    ("start ''", 1, "", "invalid container name or ID: value is empty\nError: failed to start containers: \n"),
    ("kill ''", 1, "", "invalid container name or ID: value is empty\n"),
    ("wait ''", 1, "", "invalid container name or ID: value is empty\n"),
    ("logs ''", 1, "", "invalid container name or ID: value is empty\n"),
    ("exec '' ls", 1, "", "invalid container name or ID: value is empty\n"),
    ("attach ''", 1, "", "invalid container name or ID: value is empty\n"),
    ("tag '' x", 1, "", "Error parsing reference: \"\" is not a valid repository/tag: invalid reference format\n"),
    (
        "stop",
        1,
        "",
        "@: '@ stop' requires at least 1 argument\n\nUsage:  @ stop [OPTIONS] CONTAINER [CONTAINER...]\n\n\
         See '@ stop --help' for more information\n",
    ),
    (
        "stop --nope x",
        125,
        "",
        "unknown flag: --nope\n\nUsage:  @ stop [OPTIONS] CONTAINER [CONTAINER...]\n\n\
         Run '@ stop --help' for more information\n",
    ),
    ("version -f '{{'", 64, "", "template parsing error: template: version:1: unclosed action\n"),
    (
        "version -f '{{.Server.Nope}}'",
        1,
        "\n",
        "template: version:1:9: executing \"version\" at <.Server.Nope>: can't evaluate field Nope in type *types.Version\n",
    ),
    (
        "info -f '{{.Nope}}'",
        1,
        "\n",
        "template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type system.dockerInfo\n",
    ),
    (
        "inspect -f '{{foo .Id}}' busybox",
        64,
        "",
        "template parsing error: template: :1: function \"foo\" not defined\n",
    ),
    (
        "events --since 0 --until 1 --format '{{.Nope}}'",
        64,
        "",
        "Error parsing format: template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type *events.Message\n",
    ),
    (
        "run --label =x busybox",
        125,
        "",
        "invalid argument \"=x\" for \"-l, --label\" flag: invalid label '=x': empty name\n\n\
         Usage:  @ run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun '@ run --help' for more information\n",
    ),
    (
        "run --platform foo busybox",
        125,
        "",
        "@: error parsing specified platform: \"foo\": unknown operating system or architecture: invalid argument\n\n\
         Run '@ run --help' for more information\n",
    ),
    ("run --network '' busybox", 125, "", "@: no name set for network\n\nRun '@ run --help' for more information\n"),
    ("run --rm --no-healthcheck --network none busybox true", 0, "", ""),
];

#[test]
fn privileged_wrong_lines_are_told_in_dockers_words() {
    on_both(|at| {
        let mut wrong = Vec::new();
        for &(line, code, stdout, stderr) in LINES {
            let answer = at.line(line);
            let program = if at.cli == Cli::Docker { "docker" } else { "longshore" };
            let expected = (code, stdout.to_owned(), stderr.replace('@', program));
            let told = (answer.code, answer.stdout, answer.stderr);
            if told != expected {
                wrong.push(format!("{line}\n  {told:?}\n  {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn privileged_a_state_prints_as_a_struct() {
    on_both(|at| {
        let name = at.name("struct");
        at.ok(&format!("create --name {name} --network none busybox true"));
        let never = "0001-01-01T00:00:00Z";
        let state = format!("{{created false false false false false 0 0  {never} {never} <nil>}}");
        assert_eq!(at.inspect(&name, "{{.State}}"), state);
        at.ok(&format!("rm {name}"));
    });
}
