//! What a container with CAP_SYS_PTRACE sees of the processes that are added to it.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use oci_runtime::{Container, ExecOptions, Kept, Stdio};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use sys::fork::{Child, NewNamespaces, fork};

use super::fixture::{Fixture, isolated, output_pipe};

/// Enough that each moment of the way in is looked at several times.
const EXECS: usize = 100;

/// Looks at process `number` through the container's /proc until it is gone; answers what nobody inside may see.
fn look_at(number: i32, own_root: (u64, u64), own_devices: &[u64]) -> Option<String> {
    let process = Path::new("/proc").join(number.to_string());
    // With every privilege: what it may not follow is not there yet, or not any more.
    while let Ok(root) = fs::metadata(process.join("root")) {
        if (root.dev(), root.ino()) != own_root {
            return Some(format!("root of {number}"));
        }
        for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let Ok(open) = fs::metadata(entry.path()) else { continue };
            let kind = open.file_type();
            if !kind.is_fifo() && !kind.is_socket() && !own_devices.contains(&open.dev()) {
                return Some(format!("{} of {number}: {:?}", entry.path().display(), fs::read_link(entry.path())));
            }
        }
    }
    None
}

/// A process inside that looks at all that come after it; it ends when it saw something, or with the container.
fn intrude(container: &Container, report: &std::io::PipeWriter) -> Child {
    let clone = || {
        fork(NewNamespaces::default(), None, || {
            move_into_thread_name_spaces(container.pidfd.as_fd(), ThreadNameSpaceType::MOUNT).unwrap();
            let root = fs::metadata("/").map(|root| (root.dev(), root.ino())).unwrap();
            let devices = ["/", "/dev", "/dev/pts"].map(|path| fs::metadata(path).unwrap().dev());
            let mut next = rustix::process::getpid().as_raw_nonzero().get() + 1;
            rustix::io::write(report, b"looking\n").unwrap();
            loop {
                // One that came and went between two looks is passed over.
                let here = (next..next + 3).find(|number| Path::new(&format!("/proc/{number}")).exists());
                if let Some(seen) = here.and_then(|number| look_at(number, root, &devices)) {
                    rustix::io::write(report, seen.as_bytes()).unwrap();
                    return 1;
                }
                next = here.map_or(next, |number| number + 1);
            }
        })
    };
    sys::namespace::in_pid_namespace(container.pidfd.as_fd(), clone).unwrap().unwrap()
}

#[test]
fn privileged_nothing_of_the_host_is_seen_of_a_process_on_its_way_in() {
    use std::io::{BufRead, BufReader, Read};
    isolated(|| {
        let mut fixture = Fixture::new(&["sleep", "1000"]);
        let (_reader, stdio) = output_pipe();
        let mut container = fixture.create(None, stdio).unwrap();
        container.start().unwrap();
        let _host_file = fs::File::open(fixture.dir.path()).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let intruder = intrude(&container, &writer);
        drop(writer);
        let mut reader = BufReader::new(reader);
        reader.read_line(&mut String::new()).unwrap();
        fixture.spec.process.args = vec!["/bin/true".into()];
        for count in 0..EXECS {
            let (output, mut stdio) = output_pipe();
            fixture.spec.process.terminal = count % 2 == 1;
            if fixture.spec.process.terminal {
                stdio = Stdio::Terminal;
            }
            let executed = container
                .exec(ExecOptions { process: &fixture.spec.process, user: None, stdio, kept: Kept::default() })
                .unwrap();
            sys::wait::wait(executed.pidfd.as_fd()).unwrap();
            drop(output);
        }
        container.kill(9).unwrap();
        let mut seen = String::new();
        reader.read_to_string(&mut seen).unwrap();
        let exit = sys::wait::wait(intruder.pidfd.as_fd()).unwrap();
        assert_eq!((seen.as_str(), exit.code()), ("", 137));
        sys::wait::wait(container.pidfd.as_fd()).unwrap();
        container.destroy().unwrap();
    });
}
