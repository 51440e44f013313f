//! What containers, images and volumes go through; every line is one that a user types.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use testkit::Cli;
use testkit::process::{self, DEADLINE};

use super::client::{Client, Step};

/// What one of them does.
type Life = fn(&Client<'_, '_>) -> Step;

/// Each with its name.
pub(super) const LIVES: &[(&str, Life)] = &[
    ("process", process_life),
    ("foreground", foreground),
    ("files", files),
    ("volumes", volumes),
    ("limits", limits),
    ("health", health),
    ("ports", ports),
    ("logs", logs),
    ("restarts", restarts),
    ("prunes", prunes),
];

/// Without a network and with a program that ends when it is told to.
const SLEEPER: &str = "busybox sh -c 'trap \"exit 3\" TERM; echo up; sleep 1000 & wait'";

fn start(client: &Client<'_, '_>, flags: &str) -> Step {
    client.ok(&format!("run -d --network none --name @ {flags} {SLEEPER}"))?;
    // Before that a signal would be lost: it is process 1.
    client.becomes("logs @", "up")
}

fn process_life(client: &Client<'_, '_>) -> Step {
    start(client, "-m 64m --tmpfs /t --init=false")?;
    client.says("exec @ sh -c 'echo in'", "in")?;
    client.ok("exec -d -e A=b -w /t @ sh -c 'echo $A > made'")?;
    client.becomes("exec @ sh -c 'cat /t/made 2>/dev/null || true'", "b")?;
    client.ok("stop -t 20 @")?;
    client.says("inspect -f '{{.State.ExitCode}} {{.State.Running}}' @", "3 false")?;
    client.says("logs @", "up")?;
    client.ok("start @")?;
    client.says("ps --filter name=^/@$ --format '{{.Names}}'", &client.name)?;
    client.ok("kill @")?;
    client.says("wait @", "137")?;
    client.ok("rm @").map(drop)
}

fn foreground(client: &Client<'_, '_>) -> Step {
    client.says("run --rm --network none --name @ busybox echo @", &client.name)?;
    let printed = client.ends("run --rm --network none --name @-2 -i busybox sh -c 'cat; exit 5'", b"typed", 5)?;
    if printed != "typed" {
        return Err(client.wrong(&format!("printed {printed:?}")));
    }
    client.ends("run --rm --network none --name @-3 busybox /no/such", b"", 127).map(drop)
}

fn files(client: &Client<'_, '_>) -> Step {
    let file = client.file();
    fs::write(&file, "brought").unwrap();
    start(client, "")?;
    client.ok("exec @ sh -c 'echo in > /made'")?;
    client.ok(&format!("cp {} @:/brought", file.display()))?;
    client.says("exec @ cat /brought", "brought")?;
    client.ok(&format!("cp @:/made {}", file.display()))?;
    let copied = fs::read_to_string(&file).unwrap();
    if copied != "in\n" {
        return Err(client.wrong(&format!("copied {copied:?}")));
    }
    client.says("diff @", "A /brought\nA /made")?;
    client.ok("commit -m said @ @:made")?;
    client.says("run --rm --network none --name @-2 @:made cat /made", "in")?;
    client.ok(&format!("export -o {} @", file.display()))?;
    client.ok("rm -f @")?;
    client.ok("rmi @:made")?;
    let _ = fs::remove_file(&file);
    Ok(())
}

fn volumes(client: &Client<'_, '_>) -> Step {
    client.ok("volume create @")?;
    client.ok(
        "run --rm --network none --name @ -v @:/v -v /unnamed busybox sh -c 'echo kept > /v/f; echo x > /unnamed/f'",
    )?;
    client.says("run --rm --network none --name @ -v @:/v:ro busybox cat /v/f", "kept")?;
    if client.cli == Cli::Longshore {
        client.ok("volume clone @ @-2")?;
        client.says("run --rm --network none --name @ --mount src=@-2,dst=/v busybox cat /v/f", "kept")?;
        client.ok("volume rm @-2")?;
    }
    client.says("volume inspect -f '{{.Name}}' @", &client.name)?;
    client.ok("volume rm @").map(drop)
}

fn limits(client: &Client<'_, '_>) -> Step {
    start(client, "-m 64m --restart on-failure:1")?;
    client.ok("pause @")?;
    client.says("inspect -f '{{.State.Status}}' @", "paused")?;
    client.ok("unpause @")?;
    client.ok("update -m 128m --memory-swap 128m --restart no @")?;
    client.says("inspect -f '{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}' @", "134217728 no")?;
    client.ok("top @ -o pid,comm")?;
    client.says("stats --no-stream --format '{{.Name}}' @", &client.name)?;
    client.ok("rename @ @-2")?;
    client.ok("restart -t 20 @-2")?;
    client.says("inspect -f '{{.State.Status}}' @-2", "running")?;
    client.ok("rm -f @-2").map(drop)
}

fn health(client: &Client<'_, '_>) -> Step {
    start(client, "--health-cmd 'test -e /well' --health-interval 200ms --health-retries 1 --health-timeout 30s")?;
    client.becomes("inspect -f '{{.State.Health.Status}}' @", "unhealthy")?;
    client.ok("exec @ touch /well")?;
    client.becomes("inspect -f '{{.State.Health.Status}}' @", "healthy")?;
    client.ok("rm -f @").map(drop)
}

fn ports(client: &Client<'_, '_>) -> Step {
    client.ok("run -d --name @ -p 127.0.0.1::80 busybox httpd -f -p 80")?;
    let address: SocketAddr = match client.ok("port @ 80")?.parse() {
        Ok(address) => address,
        Err(err) => return Err(client.wrong(&format!("port: {err}"))),
    };
    // It has to begin to listen first.
    let heard = process::until("an answer", DEADLINE, || {
        let mut said = String::new();
        let mut stream = TcpStream::connect_timeout(&address, DEADLINE).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        stream.read_to_string(&mut said).ok().filter(|_| said.starts_with("HTTP/1.1 404"))
    });
    if let Err(err) = heard {
        return Err(client.wrong(&format!("{address}: {err:#}")));
    }
    client.says("ps -a --filter name=^/@$ --format '{{.State}}'", "running")?;
    client.ok("rm -f @").map(drop)
}

fn logs(client: &Client<'_, '_>) -> Step {
    let driver = if client.name.len().is_multiple_of(2) {
        "local"
    } else {
        "json-file --log-opt max-size=4k --log-opt max-file=3"
    };
    let program = "busybox sh -c 'i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done'";
    client.ok(&format!("run -d --network none --name @ --log-driver {driver} {program}"))?;
    client.says("wait @", "0")?;
    client.says("logs -n 1 @", "line 299")?;
    let followed = client.ok("logs -f -n 100 @")?;
    if followed.lines().count() != 100 {
        return Err(client.wrong(&format!("logs -n 100: {followed}")));
    }
    client.ok("rm @").map(drop)
}

fn restarts(client: &Client<'_, '_>) -> Step {
    client.ok("run -d --network none --name @ --restart on-failure:2 busybox sh -c 'exit 4'")?;
    let state = "inspect -f '{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}' @";
    client.becomes(state, "2 exited 4")?;
    client.ok("rm @").map(drop)
}

fn prunes(client: &Client<'_, '_>) -> Step {
    client.ok("create --network none --name @ --label of=@ busybox true")?;
    client.ok("volume create --label of=@ @")?;
    client.in_turn("container prune -f --filter label=of=@")?;
    client.says("ps -aq --filter label=of=@", "")?;
    client.in_turn("volume prune -af --filter label=of=@")?;
    client.says("volume ls -q --filter label=of=@", "")
}
