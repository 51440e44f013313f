//! A thousand containers on one bridge: all run, all answer, all go.

use testkit::Cli;

use crate::support::{At, ours};

/// A bridge takes 1,023 ports.
const CONTAINERS: usize = 1000;

/// How many lines are typed at a time.
const AT_ONCE: usize = 8;

/// Types the line of every number, some at a time.
fn all(at: &At<'_>, line: impl Fn(usize) -> String + Sync) {
    std::thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            let line = &line;
            scope.spawn(move || {
                for number in (worker..CONTAINERS).step_by(AT_ONCE) {
                    let typed = line(number);
                    let output = testkit::process::run(&mut at.command(&typed), b"").unwrap();
                    assert_eq!(output.code, 0, "{typed}: {output:?}");
                }
            });
        }
    });
}

#[test]
fn privileged_slow_a_thousand_containers_come_and_go() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        all(&at, |number| format!("run -d --name c{number} busybox sh -c 'echo {number}; exec sleep 100000'"));
        assert_eq!(at.ok("ps -q").lines().count(), CONTAINERS);
        let addresses = at.ok("inspect -f '{{.NetworkSettings.IPAddress}}' c0 c1 c998 c999");
        assert_eq!(addresses.lines().collect::<std::collections::BTreeSet<_>>().len(), 4, "{addresses}");
        assert_eq!(at.ok("stats --no-stream --format '{{.PIDs}}'").lines().count(), CONTAINERS);
        let own = at.inspect("c7", "{{.NetworkSettings.IPAddress}}");
        let answer = at.ok(&format!("exec c999 ping -c 1 -W 20 {own}"));
        assert!(answer.contains("1 packets received"), "{answer}");
        for number in [0, 499, 999] {
            assert_eq!(at.ok(&format!("logs c{number}")), number.to_string());
        }
        let names = || (0..CONTAINERS).map(|number| format!("c{number}")).collect::<Vec<_>>().join(" ");
        at.ok(&format!("stop -t 0 {}", names()));
        assert_eq!(at.ok("ps -q"), "");
        assert_eq!(at.ok("ps -aq").lines().count(), CONTAINERS);
        at.ok(&format!("rm {}", names()));
        assert_eq!(at.ok("ps -aq"), "");
    });
}
