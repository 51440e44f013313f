//! Processes that outlive the one whose streams they hold.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use oci::runtime::NamespaceKind;
use shim_api::{Answer, Attach, Call, ExecTask, Fact};

use crate::fixture::{Client, Shim, output, process};

/// Writers that are all at work when the first of them ends, and go on.
const FLOOD: &str = "for n in 1 2 3 4; do dd if=/dev/zero bs=60k & done; head -c 3000000 /dev/zero; exit 4";

#[test]
fn privileged_an_exec_ends_though_its_child_writes_on_and_on() {
    let mut shim = Shim::new("sleep 1000");
    shim.create();
    shim.start();
    for wants in [Attach { stdin: true, ..Attach::default() }, output()] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let process = process(FLOOD);
        let task = ExecTask {
            exec_id: "x".into(),
            process,
            user: None,
            groups: vec![],
            attach: Some(wants),
            note: String::new(),
        };
        let seq = shim.daemon.send(Call::Exec(Box::new(task)), &[theirs.as_fd()]);
        drop(theirs);
        shim.daemon.reply(seq).unwrap();
        // Its end is the client's, however much is still written.
        Client::new(ours).rest();
        assert!(matches!(shim.daemon.fact(), Fact::ExecExited { exit_code: 4, .. }));
    }
    assert_eq!(shim.daemon.call(Call::Signal { signal: 9 }), Ok(Answer::Done));
    assert_eq!(shim.finish().exit_code, 137);
}

#[test]
fn privileged_a_container_among_the_hosts_processes_leaves_none() {
    let mut shim = Shim::new(FLOOD);
    shim.task.spec.linux.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Pid);
    shim.create();
    shim.start();
    assert_eq!(shim.finish().exit_code, 4);
}
