//! From create to destroy.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use oci::runtime::{Mount, NamespaceKind};
use oci_runtime::{StartError, Stdio};
use sys::fork::{NewNamespaces, fork};
use sys::wait::wait;

use super::fixture::{Fixture, exec, isolated, output_pipe};

#[test]
fn privileged_a_container_runs_in_its_namespaces_and_its_status_is_told() {
    isolated(|| {
        let output = Fixture::new(&["sh", "-c", "hostname; echo $$; id; ls /; cat /proc/net/dev; exit 3"]).run();
        let text: Vec<_> = output.text.lines().collect();
        assert_eq!(text[..3], ["longshore", "1", "uid=0(root) gid=0(root)"]);
        assert_eq!(text[3..9], ["bin", "dev", "etc", "proc", "sys", "tmp"]);
        // Two lines of headings, and the loopback interface alone.
        assert_eq!(text[9..].len(), 3, "{text:?}");
        assert_eq!(output.code, 3);
    });
}

#[test]
fn privileged_nothing_is_left_on_the_host() {
    isolated(|| {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let fixture = Fixture::new(&["true"]);
        let (_reader, stdio) = output_pipe();
        let mut container = fixture.create(None, stdio).unwrap();
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
        let directories = container.cgroup.directories.clone();
        assert!(directories.iter().all(|(_, directory)| directory.is_dir()));
        container.start().unwrap();
        assert!(matches!(container.start(), Err(StartError::Started)));
        assert_eq!(wait(container.pidfd.as_fd()).unwrap().code(), 0);
        container.destroy().unwrap();
        assert!(directories.iter().all(|(_, directory)| !directory.exists()));
    });
}

#[test]
fn privileged_the_process_ends_if_its_parent_dies_before_start() {
    isolated(|| {
        let fixture = Fixture::new(&["sleep", "1000"]);
        let (mut reader, writer) = std::io::pipe().unwrap();
        let parent = fork(NewNamespaces::default(), None, || {
            let (_output, stdio) = output_pipe();
            let container = fixture.create(None, stdio);
            let pid = container.as_ref().map_or(0, |container| container.pid.as_raw_nonzero().get());
            let _ = rustix::io::write(&writer, &pid.to_ne_bytes());
            // No destructor: as if killed.
            std::mem::forget(container);
            0
        });
        // The grandchild becomes ours, and can be waited for.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let mut pid = [0; 4];
        std::io::Read::read_exact(&mut reader, &mut pid).unwrap();
        assert_ne!(i32::from_ne_bytes(pid), 0);
        wait(parent.unwrap().pidfd.as_fd()).unwrap();
        let ended = rustix::process::wait(rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(ended.0.as_raw_nonzero().get(), i32::from_ne_bytes(pid));
        assert_eq!(ended.1.exit_status(), Some(1));
    });
}

#[test]
fn privileged_exec_joins_everything() {
    isolated(|| {
        let mut fixture = Fixture::new(&["sleep", "1000"]);
        fixture.spec.linux.namespaces.push(oci::runtime::Namespace { kind: NamespaceKind::Time, path: None });
        let (_reader, stdio) = output_pipe();
        let mut container = fixture.create(None, stdio).unwrap();
        container.start().unwrap();
        // Until it executes its program nobody may look into the first process.
        let script = "until grep -q sleep /proc/1/comm; do :; done; \
                      for n in pid net mnt ipc uts cgroup time; do stat -Lc %i /proc/1/ns/$n /proc/self/ns/$n; done; \
                      echo cgroups; cat /proc/1/cgroup; echo; cat /proc/self/cgroup";
        let process = oci::runtime::Process {
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            ..fixture.spec.process.clone()
        };
        let output = exec(&container, &process).unwrap();
        assert_eq!(output.code, 0, "{}", output.text);
        let (namespaces, cgroups) = output.text.split_once("cgroups\n").unwrap();
        let namespaces: Vec<_> = namespaces.lines().collect();
        assert_eq!(namespaces.len(), 14, "{namespaces:?}");
        assert!(namespaces.chunks(2).all(|pair| pair[0] == pair[1]), "{namespaces:?}");
        let (first, own) = cgroups.trim().split_once("\n\n").unwrap();
        assert_eq!(first, own);
        container.kill(9).unwrap();
        assert_eq!(wait(container.pidfd.as_fd()).unwrap().code(), 137);
        let err = exec(&container, &process).unwrap_err();
        assert_eq!(err.exit_code(), 125);
        container.destroy().unwrap();
    });
}

#[test]
fn privileged_an_existing_namespace_is_joined() {
    isolated(|| {
        let first = Fixture::new(&["sleep", "1000"]);
        let (_reader, stdio) = output_pipe();
        let mut container = first.create(None, stdio).unwrap();
        let path = |name: &str| Path::new("/proc").join(container.pid.to_string()).join("ns").join(name);
        let mut second = Fixture::new(&["sh", "-c", "stat -Lc %i /proc/self/ns/net /proc/self/ns/pid; echo $$"]);
        for namespace in &mut second.spec.linux.namespaces {
            match namespace.kind {
                NamespaceKind::Network => namespace.path = Some(path("net")),
                NamespaceKind::Pid => namespace.path = Some(path("pid")),
                _ => {}
            }
        }
        let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path(name)).unwrap());
        assert_eq!(second.run().text, format!("{}\n{}\n2\n", inode("net"), inode("pid")));
        container.kill(9).unwrap();
        wait(container.pidfd.as_fd()).unwrap();
        container.destroy().unwrap();
    });
}

/// A runtime that joins whatever the path names would make its mounts in there, and take the others away. The namespaces
/// are another container's: were it so again, the test would wreck that one and not the machine.
#[test]
fn privileged_a_namespace_of_another_kind_is_refused() {
    isolated(|| {
        let first = Fixture::new(&["sleep", "1000"]);
        let (_reader, stdio) = output_pipe();
        let mut container = first.create(None, stdio).unwrap();
        let inside = || fs::read_to_string(format!("/proc/{}/mountinfo", container.pid)).unwrap();
        let mounts = inside();
        for (kind, other) in [
            (NamespaceKind::Ipc, "mnt"),
            (NamespaceKind::Network, "mnt"),
            (NamespaceKind::Uts, "cgroup"),
            (NamespaceKind::Cgroup, "ipc"),
            (NamespaceKind::Pid, "net"),
        ] {
            let mut second = Fixture::new(&["true"]);
            let path = Path::new("/proc").join(container.pid.to_string()).join("ns").join(other);
            let namespaces = &mut second.spec.linux.namespaces;
            namespaces
                .iter_mut()
                .filter(|namespace| namespace.kind == kind)
                .for_each(|it| it.path = Some(path.clone()));
            let err = errdefs::chain(&second.create(None, output_pipe().1).unwrap_err());
            let text = format!("{} is a namespace of kind ", path.display());
            assert!(err.starts_with("plan container: linux.namespaces[") && err.contains(&text), "{err}");
            assert_eq!(inside(), mounts);
        }
        container.kill(9).unwrap();
        wait(container.pidfd.as_fd()).unwrap();
        container.destroy().unwrap();
    });
}

/// Asked for by nobody but runtime-tools' validation suite. A naive runtime makes the container's mounts in the host's
/// namespace, where they stay.
#[test]
fn privileged_a_container_in_the_hosts_mount_namespace_mounts_nothing_there() {
    isolated(|| {
        let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut fixture = Fixture::new(&["sleep", "1000"]);
        fixture.spec.linux.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Mount);
        fixture.spec.mounts.push(Mount {
            destination: "/ro".into(),
            kind: "tmpfs".into(),
            source: "tmpfs".into(),
            options: vec!["ro".into()],
            ..Mount::default()
        });
        let before = mounts();
        let mut container = match fixture.create(None, output_pipe().1) {
            Ok(container) => container,
            // Before Linux 6.15.
            Err(err) => {
                let text = errdefs::chain(&err);
                return assert!(text.ends_with("a mount namespace of its own is required"), "{text}");
            }
        };
        container.start().unwrap();
        let script = "stat -Lc %i /proc/self/ns/mnt; stat -c %t:%T /dev/null; touch /ro/x 2>/dev/null || echo ro; ls / /proc/1/root/";
        let process = oci::runtime::Process {
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            ..fixture.spec.process.clone()
        };
        let output = exec(&container, &process).unwrap();
        let host = std::os::unix::fs::MetadataExt::ino(&fs::metadata("/proc/self/ns/mnt").unwrap());
        assert_eq!(output.text.lines().take(3).collect::<Vec<_>>(), [host.to_string().as_str(), "1:3", "ro"]);
        assert_eq!(output.code, 0, "{}", output.text);
        // Tests beside this one mount nothing in this namespace either.
        assert_eq!(mounts(), before);
        container.kill(9).unwrap();
        wait(container.pidfd.as_fd()).unwrap();
        container.destroy().unwrap();
        assert_eq!(mounts(), before);
    });
}

#[test]
fn privileged_pausing_stops_every_process() {
    isolated(|| {
        let fixture = Fixture::new(&["sleep", "1000"]);
        let (_reader, stdio) = output_pipe();
        let mut container = fixture.create(None, stdio).unwrap();
        container.start().unwrap();
        container.pause().unwrap();
        container.kill(15).unwrap();
        assert_eq!(sys::wait::try_wait(container.pidfd.as_fd()).unwrap(), None);
        container.kill(9).unwrap();
        container.resume().unwrap();
        assert_eq!(wait(container.pidfd.as_fd()).unwrap().code(), 137);
        container.destroy().unwrap();
    });
}

#[test]
fn privileged_the_root_stays_usable_by_descriptor() {
    isolated(|| {
        let fixture = Fixture::new(&["sh", "-c", "echo inside > /tmp/file"]);
        let (mut reader, stdio) = output_pipe();
        let mut container = fixture.create(None, stdio).unwrap();
        container.start().unwrap();
        std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
        wait(container.pidfd.as_fd()).unwrap();
        let fd = rustix::fs::openat2(
            &container.root,
            "tmp/file",
            rustix::fs::OFlags::RDONLY,
            rustix::fs::Mode::empty(),
            rustix::fs::ResolveFlags::IN_ROOT,
        );
        assert_eq!(std::io::read_to_string(File::from(fd.unwrap())).unwrap(), "inside\n");
        container.destroy().unwrap();
    });
}

#[test]
fn privileged_a_second_thread_is_refused() {
    isolated(|| {
        let fixture = Fixture::new(&["true"]);
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receiver.recv());
        let (_reader, stdio) = output_pipe();
        let err = fixture.create(None, stdio).unwrap_err();
        assert!(matches!(err, oci_runtime::CreateError::Threads { threads: 2 }), "{err}");
        drop(sender);
        let _ = thread.join();
    });
}

#[test]
fn privileged_streams_and_terminal_must_fit() {
    isolated(|| {
        let fixture = Fixture::new(&["true"]);
        let err = fixture.create(None, Stdio::Terminal).unwrap_err();
        assert_eq!(err.kind(), errdefs::ErrorKind::InvalidArgument);
    });
}
