//! Wrong lines: the same words, on the same stream, with the same exit status as docker's.

use testkit::Cli;

use crate::support::{each, on_both, ours};

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
    (
        "run --expose 65536 busybox",
        125,
        "",
        "@: invalid range format for --expose: 65536, error: strconv.ParseUint: parsing \"65536\": value out of range\n\n\
         Run '@ run --help' for more information\n",
    ),
    (
        "run --network container: busybox",
        125,
        "",
        "@: Error response from daemon: invalid network mode: invalid container format container:<name|id>\n\n\
         Run '@ run --help' for more information\n",
    ),
    ("run --rm --network none --dns ::1 busybox true", 0, "", "WARNING: Localhost DNS (::1) may fail in containers.\n"),
    (
        "volume nope",
        1,
        "",
        "@: unknown command: @ volume nope\n\nUsage:  @ volume COMMAND\n\nRun '@ volume --help' for more information\n",
    ),
    (
        "ps --filter publish=x",
        1,
        "",
        "Error response from daemon: error while looking up for publish x: strconv.ParseUint: parsing \"x\": invalid syntax\n",
    ),
    ("ps --filter expose=1:2", 1, "", "Error response from daemon: filter for 'expose' should not contain ':': 1:2\n"),
    ("run --network '' busybox", 125, "", "@: no name set for network\n\nRun '@ run --help' for more information\n"),
    ("run --rm --no-healthcheck --network none busybox true", 0, "", ""),
    (
        "run --ulimit nofile=a:b busybox",
        125,
        "",
        "invalid argument \"nofile=a:b\" for \"--ulimit\" flag: strconv.ParseInt: parsing \"b\": invalid syntax\n\n\
         Usage:  @ run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun '@ run --help' for more information\n",
    ),
    (
        "run -v /tmp::/x busybox",
        125,
        "",
        "@: invalid spec: /tmp::/x: empty section between colons\n\nRun '@ run --help' for more information\n",
    ),
    (
        "create --env-file / busybox",
        125,
        "",
        "@: invalid env file (/): read /: is a directory\n\nRun '@ create --help' for more information\n",
    ),
    (
        "create --security-opt seccomp=/etc/passwd busybox",
        125,
        "",
        "@: compacting json for seccomp profile (/etc/passwd) failed: invalid character 'r' looking for beginning of value\n\n\
         Run '@ create --help' for more information\n",
    ),
    (
        "create --network none --network nope busybox",
        125,
        "",
        "@: conflicting options: cannot attach both user-defined and non-user-defined network-modes\n\n\
         Run '@ create --help' for more information\n",
    ),
    (
        "run --rm --network name=none,ip=1.2.3.4 busybox true",
        125,
        "",
        "@: Error response from daemon: invalid config for network none: invalid endpoint settings:\n\
         * user specified IP address is supported on user defined networks only\n\
         * user specified IP address is supported only when connecting to networks with user configured subnets\n\n\
         Run '@ run --help' for more information\n",
    ),
    (
        "run --rm --network none --log-opt max-size=10q busybox true",
        125,
        "",
        "@: Error response from daemon: failed to create task for container: failed to initialize logging driver: \
         invalid suffix: 'q'\n\nRun '@ run --help' for more information\n",
    ),
    (
        "run --rm --network none -w /etc/passwd busybox true",
        125,
        "",
        "@: Error response from daemon: Cannot mkdir: /etc/passwd is not a directory\n\n\
         Run '@ run --help' for more information\n",
    ),
    ("run --rm --network none --runtime runc busybox true", 0, "", ""),
    (
        "run --rm --network none --runtime nope busybox true",
        125,
        "",
        "@: Error response from daemon: unknown or invalid runtime name: nope\n\nRun '@ run --help' for more information\n",
    ),
    (
        "version -f 'x{{.Client.Os}}{{.Nope}}'",
        1,
        "xlinux\n",
        "template: version:1:17: executing \"version\" at <.Nope>: can't evaluate field Nope in type system.versionInfo\n",
    ),
    ("update --kernel-memory 10m nobody", 1, "", "Error response from daemon: No such container: nobody\n"),
    (
        "run --rm --cpu-percent 20 --cpu-count 2 busybox true",
        1,
        "",
        "\"--cpu-count\" is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux\n\
         \"--cpu-percent\" is only supported on a Docker daemon running on windows, but the Docker daemon is running on \
         linux\n",
    ),
    (
        "ps --filter name=nobody --format '{{.Nope}}'",
        1,
        "",
        "failed to execute template: template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type \
         *formatter.ContainerContext\n",
    ),
    (
        "ps --format 'table {{.ID.X}}'",
        1,
        "",
        "failed to execute template: template: :1:11: executing \"\" at <.ID.X>: can't evaluate field X in type string\n",
    ),
    (
        "ps -q --filter name=nobody --format x",
        0,
        "",
        "WARNING: Ignoring custom format, because both --format and --quiet are set.\n",
    ),
    ("create --entrypoint '' busybox", 1, "", "Error response from daemon: no command specified\n"),
    ("images --format '{{' nope", 1, "", "template parsing error: template: :1: unclosed action\n"),
    ("images --format 'table {{.Nope}}' nope", 0, "<no value>\n", ""),
    ("rmi ''", 1, "", "Error response from daemon: page not found\n"),
    ("rmi -f ''", 0, "", "Error response from daemon: page not found\n"),
    ("history ''", 1, "", "Error response from daemon: page not found\n"),
    ("image inspect ''", 1, "[]\n", "Error: No such image: \n"),
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
fn privileged_quiet_counts_more_than_a_format() {
    on_both(|at| {
        let name = at.name("quiet");
        let id = at.ok(&format!("create --name {name} --network none busybox true"));
        assert_eq!(at.ok(&format!("ps -aq --no-trunc --filter name={name} --format {{{{.Names}}}}")), id);
        at.ok(&format!("rm {name}"));
    });
}

#[test]
fn privileged_a_directory_is_no_archive() {
    on_both(|at| {
        let answer = at.line("load -i /");
        let [before, behind] =
            ["error during connect: Post \"http://%2F", "/images/load?quiet=1\": read /: is a directory\n"];
        assert!(answer.code == 1 && answer.stderr.starts_with(before) && answer.stderr.ends_with(behind), "{answer:?}");
    });
}

/// Docker's engine finds it out when the container starts, and at times not at all: ours says it always, and first.
#[test]
fn privileged_networks_that_exclude_each_other_are_refused() {
    ours(|daemon| {
        each(daemon, |at| {
            let none =
                "container cannot be connected to multiple networks with one of the networks in private (none) mode";
            let host = "cannot connect container to host network - container must be created in host network mode";
            let shared =
                "container sharing network namespace with another container or host cannot be connected to any";
            for (first, second, sentence) in [
                ("none", "bridge", none),
                ("bridge", "none", none),
                ("none", "host", host),
                ("bridge", "host", host),
                ("host", "none", shared),
                ("host", "bridge", shared),
            ] {
                let sentence = format!("Error response from daemon: failed to set up container networking: {sentence}");
                at.fails(&format!("run --rm --network {first} --network {second} busybox true"), 125, &sentence);
            }
            assert_eq!(at.ok("ps -aq"), "");
        });
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
