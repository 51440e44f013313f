//! Terminals and standard streams.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use oci::runtime::{ConsoleSize, Process};
use oci_runtime::{ExecOptions, Kept, Stdio};
use sys::wait::wait;

use super::fixture::{Fixture, isolated, output_pipe};

/// Everything that a terminal shows until its last process is gone (EIO).
fn screen(console: &mut File) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 256]);
    while let Ok(length @ 1..) = console.read(&mut buffer) {
        text.extend(&buffer[..length]);
    }
    String::from_utf8(text).unwrap()
}

fn read_until(console: &mut File, text: &mut String, end: &str) {
    while !text.contains(end) {
        let mut buffer = [0; 256];
        let length = console.read(&mut buffer).unwrap();
        text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
}

#[test]
fn privileged_a_terminal_controls_its_process() {
    isolated(|| {
        let mut fixture =
            Fixture::new(&["sh", "-c", "trap 'exit 9' INT; tty; stty size; read line; echo got $line; read more"]);
        std::os::unix::fs::symlink("busybox", fixture.lower().join("bin/stty")).unwrap();
        fixture.spec.process.terminal = true;
        fixture.spec.process.console_size = Some(ConsoleSize { height: 33, width: 77 });
        let mut container = fixture.create(None, Stdio::Terminal).unwrap();
        let mut console = File::from(container.console.take().unwrap());
        container.start().unwrap();
        let mut text = String::new();
        // What is typed earlier is echoed in between.
        read_until(&mut console, &mut text, "33 77\r\n");
        assert!(text.contains("/dev/pts/0\r\n33 77\r\n"), "{text:?}");
        console.write_all(b"words\n").unwrap();
        read_until(&mut console, &mut text, "got words");
        // Ctrl-C: only a controlling terminal makes a signal of it.
        console.write_all(b"\x03").unwrap();
        let rest = screen(&mut console);
        assert_eq!(wait(container.pidfd.as_fd()).unwrap().code(), 9, "{rest:?}");
        container.destroy().unwrap();
    });
}

#[test]
fn privileged_dev_console_is_the_terminal() {
    isolated(|| {
        let mut fixture = Fixture::new(&["sh", "-c", "echo through > /dev/console; ls -l /dev/console"]);
        fixture.spec.process.terminal = true;
        let mut container = fixture.create(None, Stdio::Terminal).unwrap();
        container.start().unwrap();
        let text = screen(&mut File::from(container.console.take().unwrap()));
        assert!(text.starts_with("through\r\ncrw"), "{text:?}");
        wait(container.pidfd.as_fd()).unwrap();
        container.destroy().unwrap();
    });
}

#[test]
fn privileged_exec_can_have_a_terminal() {
    isolated(|| {
        let fixture = Fixture::new(&["sleep", "1000"]);
        let mut container = fixture.create(None, output_pipe().1).unwrap();
        container.start().unwrap();
        let process = Process {
            terminal: true,
            args: ["sh", "-c", "tty; exit 4"].map(str::to_owned).to_vec(),
            ..fixture.spec.process.clone()
        };
        let executed = container
            .exec(ExecOptions { process: &process, user: None, stdio: Stdio::Terminal, kept: Kept::default() })
            .unwrap();
        assert_eq!(screen(&mut File::from(executed.console.unwrap())), "/dev/pts/0\r\n");
        assert_eq!(wait(executed.pidfd.as_fd()).unwrap().code(), 4);
        container.kill(9).unwrap();
        wait(container.pidfd.as_fd()).unwrap();
        container.destroy().unwrap();
    });
}

#[test]
fn privileged_a_pipe_may_be_opened_again_by_an_unprivileged_user() {
    isolated(|| {
        let mut fixture = Fixture::new(&["sh", "-c", "echo again > /dev/stdout"]);
        fixture.spec.process.user.uid = 1000;
        fixture.spec.process.capabilities = None;
        assert_eq!(fixture.run().text, "again\n");
    });
}

#[test]
fn privileged_input_output_and_error_are_kept_apart() {
    isolated(|| {
        let fixture = Fixture::new(&["sh", "-c", "cat; echo wrong >&2"]);
        let (input, mut typed) = std::io::pipe().unwrap();
        let (mut output, shown) = std::io::pipe().unwrap();
        let (mut error, told) = std::io::pipe().unwrap();
        let stdio = Stdio::Fds([input.into(), shown.into(), told.into()]);
        let mut container = fixture.create(None, stdio).unwrap();
        container.start().unwrap();
        typed.write_all(b"typed").unwrap();
        drop(typed);
        let mut texts = [String::new(), String::new()];
        output.read_to_string(&mut texts[0]).unwrap();
        error.read_to_string(&mut texts[1]).unwrap();
        assert_eq!(texts, ["typed", "wrong\n"]);
        wait(container.pidfd.as_fd()).unwrap();
        container.destroy().unwrap();
    });
}

#[test]
fn privileged_the_hosts_null_device_stays_outside() {
    isolated(|| {
        // Through a descriptor of it the container's root could change mode and owner of the host's node.
        let words = ["stat", "-Lc", "%d:%i", "/proc/self/fd/0", "/dev/null"];
        let same = |text: &str| {
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.len() == 2 && lines[0] == lines[1], "{text:?}");
        };
        same(&Fixture::new(&words).run().text);
        let fixture = Fixture::new(&["sleep", "1000"]);
        let mut container = fixture.create(None, output_pipe().1).unwrap();
        container.start().unwrap();
        let args = words.map(str::to_owned).to_vec();
        let process = Process { args, ..fixture.spec.process.clone() };
        same(&super::fixture::exec(&container, &process).unwrap().text);
        container.kill(9).unwrap();
        wait(container.pidfd.as_fd()).unwrap();
        container.destroy().unwrap();
    });
}

#[test]
fn privileged_an_exec_that_is_stopped_on_its_way_holds_nobody_up() {
    isolated(|| {
        let fixture = Fixture::new(&["sleep", "1000"]);
        let mut container = fixture.create(None, output_pipe().1).unwrap();
        container.start().unwrap();
        container.exec_within = std::time::Duration::from_millis(100);
        container.pause().unwrap();
        let err = super::fixture::exec(&container, &fixture.spec.process).unwrap_err();
        assert!(errdefs::chain(&err).contains("timed out"), "{}", errdefs::chain(&err));
        container.kill(9).unwrap();
        container.resume().unwrap();
        // Whoever calls exec reaps: the namespace's first process ends only after every other one was reaped.
        while rustix::process::wait(rustix::process::WaitOptions::empty()).is_ok() {}
        container.destroy().unwrap();
    });
}
