//! What a shim is, seen from outside.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::Uid;

use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon};

use crate::support::{At, ours};

/// `/proc/PID` of the shim of a container: the parent of its first process.
fn shim(at: &At<'_>, name: &str) -> PathBuf {
    let pid = at.inspect(name, "{{.State.Pid}}");
    PathBuf::from("/proc").join(field(Path::new(&format!("/proc/{pid}")), "PPid"))
}

/// A line of `status`.
fn field(proc: &Path, name: &str) -> String {
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}: {status}")).trim().to_owned()
}

fn children(proc: &Path) -> Vec<String> {
    let threads = fs::read_dir(proc.join("task")).unwrap();
    let text: String =
        threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).unwrap()).collect();
    text.split_whitespace().map(str::to_owned).collect()
}

fn with_container(test: impl Fn(&At<'_>, &Path)) {
    ours(|daemon: &mut Daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        // With a log that is written, so that the second thread is there.
        at.start("one", "busybox sh -c 'while :; do echo line; usleep 1000; done'");
        let proc = shim(&at, "one");
        assert_eq!(fs::read_to_string(proc.join("comm")).unwrap().trim(), "longshore-shim");
        test(&at, &proc);
    });
}

#[test]
fn privileged_a_shim_has_two_threads_at_most() {
    with_container(|at, proc| {
        let most = |when: &str| {
            let threads = fs::read_dir(proc.join("task")).unwrap().count();
            assert!((1..=2).contains(&threads), "{when}: {threads}");
        };
        most("alone");
        let mut clients = [at.spawn("attach --no-stdin one"), at.spawn("exec one sh -c 'echo in; sleep 1000'")];
        clients[0].read_until("line").unwrap();
        clients[1].read_until("in").unwrap();
        most("with an attached client and an exec");
        at.remove("one");
        for client in clients {
            client.wait().unwrap();
        }
    });
}

#[test]
fn privileged_a_shim_is_static() {
    with_container(|_, proc| {
        // Its own memory holds no loader and no library: nothing is mapped that is executable but itself and the vdso.
        let maps = fs::read_to_string(proc.join("maps")).unwrap();
        let programs = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|flags| flags.contains('x')));
        let files: Vec<&str> =
            programs.filter_map(|line| line.split_whitespace().nth(5)).filter(|file| !file.starts_with('[')).collect();
        assert!(!files.is_empty() && files.iter().all(|file| file == &files[0]), "{maps}");
        assert!(!maps.contains(".so"), "{maps}");
    });
}

#[test]
fn privileged_a_shim_keeps_no_dead_child() {
    with_container(|at, proc| {
        let pid = at.inspect("one", "{{.State.Pid}}");
        assert_eq!(children(proc), [pid.as_str()]);
        at.ok("exec one true");
        at.ok("exec -d one true");
        // Its parent is gone before it is.
        at.ok("exec one sh -c 'sh -c \"usleep 1000\" & exit'");
        let reaped = || (children(proc) == [pid.as_str()]).then_some(());
        until("the shim has the container as its only child", DEADLINE, reaped).unwrap();
    });
}

#[test]
fn privileged_a_shim_answers_root_alone() {
    with_container(|at, _| {
        let id = at.inspect("one", "{{.Id}}");
        let socket = at.daemon.scratch().exec_root().join("containers").join(&id).join("shim.sock");
        assert_eq!(mode(&socket), 0o600);
        // Were the modes lost, the peer's credentials would still decide.
        open_the_way(&socket);
        // The whole path is too long for an address.
        let way = at.daemon.scratch().path().join("way");
        std::os::unix::fs::symlink(socket.parent().unwrap(), &way).unwrap();
        let socket = way.join("shim.sock");
        assert!(answers(&socket, &id, Uid::ROOT), "root is served");
        assert!(!answers(&socket, &id, Uid::from_raw(65534)), "nobody is not");
        at.ok("exec one true");
    });
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Lets everybody reach the socket, up to the directory of the instance.
fn open_the_way(socket: &Path) {
    for path in socket.ancestors().take_while(|path| *path != Path::new("/tmp")) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
}

/// Whether the shim answers a daemon's first call from this user.
fn answers(socket: &Path, container: &str, uid: Uid) -> bool {
    let call = format!(
        "{{\"seq\":1,\"container\":\"{container}\",\"call\":{{\"Hello\":{{\"version\":1}}}},\"descriptors\":0}}"
    );
    let frame = [&(call.len() as u32).to_le_bytes(), call.as_bytes()].concat();
    let ask = || {
        // This thread's alone; it ends with the answer.
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // Whoever is refused may be so before this is written: what can be read then decides.
        let _ = stream.write_all(&frame);
        // The end or a reset is a refusal; a deadline is neither.
        match stream.read(&mut [0; 4]) {
            Ok(length) => length > 0,
            Err(err) => {
                assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset);
                false
            }
        }
    };
    std::thread::scope(|scope| scope.spawn(ask).join().unwrap())
}
