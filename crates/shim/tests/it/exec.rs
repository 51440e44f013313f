//! Processes added to a running container.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use shim_api::{Answer, Attach, Call, ExecState, ExecTask, Fact, Failure, VERSION};

use crate::fixture::{Client, Daemon, Shim, everything, output, process};

fn exec(daemon: &mut Daemon, id: &str, script: &str, attach: Option<Attach>) -> Result<Client, Failure> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fds = if attach.is_some() { vec![theirs.as_fd()] } else { vec![] };
    let task = ExecTask {
        exec_id: id.into(),
        process: process(script),
        user: None,
        groups: vec![],
        attach,
        note: format!("note {id}"),
    };
    let seq = daemon.send(Call::Exec(Box::new(task)), &fds);
    drop(theirs);
    let answer = daemon.reply(seq)?;
    assert!(matches!(answer, Answer::ExecStarted { pid } if pid > 0), "{answer:?}");
    Ok(Client::new(ours))
}

fn sleeper() -> Shim {
    let mut shim = Shim::new("sleep 1000");
    shim.create();
    shim.start();
    shim
}

fn kill(mut shim: Shim) {
    assert_eq!(shim.daemon.call(Call::Signal { signal: 9 }), Ok(Answer::Done));
    assert_eq!(shim.finish().exit_code, 137);
}

#[test]
fn privileged_an_exec_has_its_own_streams_and_exit() {
    let mut shim = sleeper();
    let mut client = exec(&mut shim.daemon, "one", "cat; echo err >&2; exit 9", Some(everything())).unwrap();
    client.0.write_all(b"in").unwrap();
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest_unframed(), ("in".into(), "err\n".into()));
    let expected = Fact::ExecExited { container: shim.id.clone(), exec_id: "one".into(), exit_code: 9 };
    assert_eq!(shim.daemon.fact(), expected);
    exec(&mut shim.daemon, "two", "echo nobody hears", None).unwrap();
    assert!(matches!(shim.daemon.fact(), Fact::ExecExited { exit_code: 0, .. }));
    kill(shim);
}

#[test]
fn privileged_an_exec_has_the_containers_groups() {
    let mut shim = sleeper();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (user, groups) = (Some("7:8".into()), vec!["21".into(), "9".into()]);
    let process = process("echo $(id -G)");
    let task = ExecTask { exec_id: "x".into(), process, user, groups, attach: Some(output()), note: String::new() };
    let seq = shim.daemon.send(Call::Exec(Box::new(task)), &[theirs.as_fd()]);
    drop(theirs);
    shim.daemon.reply(seq).unwrap();
    assert_eq!(Client::new(ours).rest_unframed(), ("8 9 21\n".into(), String::new()));
    kill(shim);
}

#[test]
fn privileged_an_exec_that_cannot_run_is_told() {
    let mut shim = sleeper();
    let mut task = ExecTask {
        exec_id: "x".into(),
        process: process(""),
        user: None,
        groups: vec![],
        attach: None,
        note: String::new(),
    };
    task.process.args = vec!["/etc".into()];
    let failure = shim.daemon.call(Call::Exec(Box::new(task))).unwrap_err();
    assert_eq!(failure.exit_code, 126, "{failure}");
    kill(shim);
}

#[test]
fn privileged_execs_end_with_the_container_and_are_told_before_it() {
    let mut shim = sleeper();
    let mut client = exec(&mut shim.daemon, "one", "echo up; sleep 1000", Some(output())).unwrap();
    client.await_text("up");
    assert_eq!(shim.daemon.call(Call::Signal { signal: 9 }), Ok(Answer::Done));
    assert!(matches!(shim.daemon.fact(), Fact::ExecExited { exit_code: 137, .. }));
    assert!(matches!(shim.daemon.fact(), Fact::Exited { .. }));
    shim.wait();
}

#[test]
fn privileged_an_exec_that_ended_unheard_is_told_later() {
    let mut shim = sleeper();
    let mut client = exec(&mut shim.daemon, "one", "read x; exit 8", Some(everything())).unwrap();
    shim.daemon.socket.shutdown(std::net::Shutdown::Both).unwrap();
    // The shim reads its daemons' connections in the order of their events: the answer proves that the end was seen.
    let mut second = shim.connect();
    second.call(Call::State).unwrap();
    client.0.write_all(b"\n").unwrap();
    client.rest();
    shim.daemon = second;
    // The client was closed in the turn that took note of the end, so this is answered later.
    let hello = shim.daemon.call(Call::Hello { version: VERSION }).unwrap();
    let Answer::Hello { execs: told, .. } = hello else { panic!("{hello:?}") };
    let plain = |execs: &[ExecState]| -> Vec<_> {
        execs.iter().map(|exec| (exec.exec_id.clone(), exec.exit_code, exec.note.clone())).collect()
    };
    let one = ("one".to_owned(), Some(8), "note one".to_owned());
    assert_eq!(plain(&told), std::slice::from_ref(&one));
    // That daemon may be dead before it has told anybody: the next one hears of all again, of what was posted, too.
    exec(&mut shim.daemon, "two", "exit 9", Some(output())).unwrap().rest();
    assert!(matches!(shim.daemon.fact(), Fact::ExecExited { exit_code: 9, .. }));
    let hello = shim.connect().call(Call::Hello { version: VERSION }).unwrap();
    let Answer::Hello { execs: told, .. } = hello else { panic!("{hello:?}") };
    assert_eq!(plain(&told), [one, ("two".to_owned(), Some(9), "note two".to_owned())]);
    kill(shim);
}

#[test]
fn privileged_a_terminal_of_an_exec_has_a_size_and_detaches() {
    let mut shim = sleeper();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut process = process("echo ready; read a; stty size; read b; exit 6");
    process.terminal = true;
    let attach = Some(Attach { detach_keys: vec![16, 17], ..everything() });
    let task = ExecTask { exec_id: "tty".into(), process, user: None, groups: vec![], attach, note: String::new() };
    let seq = shim.daemon.send(Call::Exec(Box::new(task)), &[theirs.as_fd()]);
    drop(theirs);
    shim.daemon.reply(seq).unwrap();
    let mut client = Client::new(ours);
    client.await_text("ready");
    let resize = |exec_id: &str| Call::Resize { exec_id: Some(exec_id.into()), height: 33, width: 77 };
    assert_eq!(shim.daemon.call(resize("tty")), Ok(Answer::Done));
    assert_eq!(shim.daemon.call(resize("other")).unwrap_err().kind, errdefs::ErrorKind::NotFound);
    client.0.write_all(b"go\n").unwrap();
    client.await_text("33 77");
    client.0.write_all(&[16, 17]).unwrap();
    client.rest();
    let detached = Fact::Detached { container: shim.id.clone(), exec_id: Some("tty".into()) };
    assert_eq!(shim.daemon.fact(), detached);
    // Detached, not ended.
    let mut later = shim.connect();
    let Ok(Answer::Hello { execs, .. }) = later.call(Call::Hello { version: VERSION }) else { panic!("no hello") };
    assert!(execs.iter().any(|exec| exec.exec_id == "tty" && exec.exit_code.is_none()), "{execs:?}");
    drop(later);
    kill(shim);
}

#[test]
fn privileged_an_exec_that_is_held_up_on_its_way_holds_nobody_else_up() {
    let mut shim = sleeper();
    let within = std::time::Duration::from_secs(10);
    let group = shim.cgroup();
    group.freeze(within).unwrap();
    let (exec_id, process) = ("x".into(), process("exit 4"));
    let task = ExecTask { exec_id, process, user: None, groups: vec![], attach: None, note: String::new() };
    let held_up = shim.daemon.send(Call::Exec(Box::new(task)), &[]);
    // The next answer is the one to the later question.
    assert!(matches!(shim.daemon.call(Call::State), Ok(Answer::State(Some(_)))));
    group.thaw(within).unwrap();
    assert!(matches!(shim.daemon.reply(held_up), Ok(Answer::ExecStarted { .. })));
    assert!(matches!(shim.daemon.fact(), Fact::ExecExited { exit_code: 4, .. }));
    kill(shim);
}

#[test]
fn privileged_execs_on_their_way_are_told_to_the_next_daemon() {
    let mut shim = sleeper();
    let within = std::time::Duration::from_secs(10);
    let group = shim.cgroup();
    group.freeze(within).unwrap();
    let mut no_program = process("");
    no_program.args = vec!["/etc".into()];
    for (id, process) in [("runs", process("exit 4")), ("fails", no_program)] {
        let (exec_id, note) = (id.to_owned(), format!("note {id}"));
        let task = ExecTask { exec_id, process, user: None, groups: vec![], attach: None, note };
        shim.daemon.send(Call::Exec(Box::new(task)), &[]);
    }
    shim.daemon.call(Call::State).unwrap();
    shim.daemon.socket.shutdown(std::net::Shutdown::Both).unwrap();
    shim.daemon = shim.connect();
    let hello = shim.daemon.call(Call::Hello { version: VERSION }).unwrap();
    let Answer::Hello { execs, .. } = hello else { panic!("{hello:?}") };
    let told: Vec<_> = execs.iter().map(|exec| (exec.pid, exec.exit_code, exec.note.as_str())).collect();
    assert_eq!(told, [(0, None, "note runs"), (0, None, "note fails")]);
    group.thaw(within).unwrap();
    let mut ends = [shim.daemon.fact(), shim.daemon.fact()].map(|fact| match fact {
        Fact::ExecExited { exec_id, exit_code, .. } => (exec_id, exit_code),
        other => panic!("{other:?}"),
    });
    ends.sort();
    // Nobody but the first daemon waited for the answer that this one cannot run.
    assert_eq!(ends, [("fails".to_owned(), 126), ("runs".to_owned(), 4)]);
    kill(shim);
}
