//! What a container cannot do.

use std::fs;

use oci::runtime::{Capabilities, Mount, PidsLimit};

use super::fixture::{Fixture, isolated};

#[test]
fn privileged_capabilities_are_the_ones_asked_for() {
    isolated(|| {
        let mut fixture = Fixture::new(&["grep", "-E", "Cap|NoNewPrivs|Seccomp:", "/proc/self/status"]);
        let chown = vec!["CAP_CHOWN".to_owned()];
        let more = vec!["CAP_CHOWN".to_owned(), "CAP_KILL".to_owned(), "CAP_SYS_RESOURCE".to_owned()];
        fixture.spec.process.capabilities = Some(Capabilities {
            bounding: more.clone(),
            permitted: more,
            effective: chown.clone(),
            inheritable: chown.clone(),
            ambient: chown,
        });
        fixture.spec.process.user.uid = 1000;
        fixture.spec.process.no_new_privileges = true;
        let text = fixture.run().text;
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let held = sys::capability::bounding().intersection(sys::capability::Set(1 << 24)).0;
        // After execve an unprivileged user keeps the ambient ones alone.
        assert_eq!(value("CapBnd:"), format!("{:016x}", 0x21 | held));
        assert_eq!((value("CapEff:"), value("CapPrm:"), value("CapInh:")), (one(), one(), one()));
        assert_eq!((value("CapAmb:"), value("NoNewPrivs:"), value("Seccomp:")), (one(), "1".into(), "0".into()));
    });
}

fn one() -> String {
    format!("{:016x}", 1)
}

/// `struct sock_filter`.
pub(crate) fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Vec<u8> {
    let mut bytes = code.to_ne_bytes().to_vec();
    bytes.extend([jt, jf]);
    bytes.extend(k.to_ne_bytes());
    bytes
}

/// `struct sock_filter` array: mkdir and mkdirat answer EPERM, everything else is allowed.
fn no_mkdir() -> Vec<u8> {
    let (mkdir, mkdirat) = if cfg!(target_arch = "x86_64") { (83, 258) } else { (34, 34) };
    [
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 1, 0, mkdir),
        instruction(0x15, 0, 1, mkdirat),
        instruction(0x06, 0, 0, 0x0005_0001),
        instruction(0x06, 0, 0, 0x7fff_0000),
    ]
    .concat()
}

#[test]
fn privileged_the_seccomp_filter_denies_with_and_without_no_new_privileges() {
    isolated(|| {
        for no_new_privileges in [false, true] {
            let script = "mkdir /tmp/made 2>&1; grep Seccomp: /proc/self/status";
            let mut fixture = Fixture::new(&["sh", "-c", script]);
            let program = fixture.dir.path().join("program");
            fs::write(&program, stdx::sealed::seal(&no_mkdir())).unwrap();
            fixture.spec.linux.seccomp_program = Some(program);
            fixture.spec.process.no_new_privileges = no_new_privileges;
            let text = fixture.run().text;
            assert_eq!(text, "mkdir: can't create directory '/tmp/made': Operation not permitted\nSeccomp:\t2\n");
        }
    });
}

#[test]
fn privileged_a_broken_seccomp_program_creates_nothing() {
    isolated(|| {
        let mut fixture = Fixture::new(&["true"]);
        let program = fixture.dir.path().join("program");
        fixture.spec.linux.seccomp_program = Some(program.clone());
        let good = no_mkdir();
        let sealed = stdx::sealed::seal(&good);
        // No program, one that is cut, and one that nobody has sealed.
        for bytes in [&stdx::sealed::seal(&[0; 7])[..], &sealed[..sealed.len() - 8], &good] {
            fs::write(&program, bytes).unwrap();
            let err = fixture.create(None, super::fixture::output_pipe().1).unwrap_err();
            let text = format!("{} is not a compiled seccomp filter, or a damaged one", program.display());
            assert_eq!(err.to_string(), text);
        }
    });
}

#[test]
fn privileged_masked_and_read_only_paths_are_so() {
    isolated(|| {
        let script = "cat /proc/interrupts /proc/keys; ls -A /proc/acpi /sys/firmware 2>/dev/null | grep -v :; \
                      touch /sys/firmware/x 2>&1; echo 1 2>&1 > /proc/sys/kernel/domainname; echo 1 2>&1 > /sys/x; \
                      ls -l /proc/interrupts; cat /tmp/hidden";
        let mut fixture = Fixture::new(&["sh", "-c", script]);
        fs::write(fixture.lower().join("tmp/hidden"), "secret").unwrap();
        fixture.spec.linux.masked_paths.push("/tmp/hidden".into());
        fixture.spec.linux.masked_paths.push("/tmp/absent".into());
        let output = fixture.run();
        let lines: Vec<_> = output.text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].contains("Read-only file system"), "{lines:?}");
        assert!(lines[1].contains("domainname: Read-only file system"), "{lines:?}");
        assert!(lines[2].contains("/sys/x: Read-only file system"), "{lines:?}");
        assert!(lines[3].starts_with("crw-rw-rw-") && lines[3].contains("1,   3"), "{lines:?}");
        assert_eq!(output.code, 0);
    });
}

#[test]
fn privileged_a_read_only_root_still_gets_its_mount_points() {
    isolated(|| {
        let mut fixture = Fixture::new(&["sh", "-c", "echo x > /new/file && cat /new/file; echo x 2>&1 > /file"]);
        fixture.spec.root.readonly = true;
        fixture.spec.mounts.push(Mount {
            destination: "/new".into(),
            kind: "tmpfs".into(),
            source: "tmpfs".into(),
            options: vec!["size=64k".into()],
            ..Mount::default()
        });
        assert_eq!(fixture.run().text, "x\nsh: can't create /file: Read-only file system\n");
    });
}

#[test]
fn privileged_a_recursively_read_only_bind_covers_what_is_below() {
    isolated(|| {
        for (option, code) in [("rro", 1), ("ro", 0)] {
            let mut fixture = Fixture::new(&["touch", "/bound/below/file"]);
            let source = fixture.dir.path().join("source");
            fs::create_dir_all(source.join("below")).unwrap();
            // A mount below the source, in a mount namespace of the test's own.
            sys::namespace::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
            let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("tmpfs", source.join("below"), "tmpfs", flags, None).unwrap();
            fixture.spec.mounts.push(Mount {
                destination: "/bound".into(),
                kind: "bind".into(),
                source: source.clone(),
                options: vec!["rbind".into(), option.into()],
                ..Mount::default()
            });
            assert_eq!(fixture.run().code, code, "{option}");
            rustix::mount::unmount(source.join("below"), rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    });
}

#[test]
fn privileged_a_part_of_a_bind_stays_in_it() {
    isolated(|| {
        let mut fixture = Fixture::new(&["cat", "/part/file"]);
        let source = fixture.dir.path().join("source");
        fs::create_dir_all(source.join("a/b")).unwrap();
        fs::write(source.join("a/b/file"), "inside").unwrap();
        fs::write(fixture.dir.path().join("file"), "outside").unwrap();
        for (link, target) in [("in", "a/../a/b"), ("up", ".."), ("abs", fixture.dir.path().to_str().unwrap())] {
            std::os::unix::fs::symlink(target, source.join(link)).unwrap();
        }
        let plain = fixture.spec.mounts.clone();
        let mut with = |subpath: &str| {
            fixture.spec.mounts = plain.clone();
            fixture.spec.mounts.push(Mount {
                destination: "/part".into(),
                kind: "bind".into(),
                source: source.clone(),
                options: vec!["rbind".into(), "ro".into()],
                subpath: Some(subpath.into()),
                ..Mount::default()
            });
            fixture.run_as(None)
        };
        for subpath in ["a/b", "in"] {
            assert_eq!(with(subpath).unwrap().text, "inside", "{subpath}");
        }
        for subpath in ["up", "abs", "..", "/"] {
            with(subpath).unwrap_err();
        }
    });
}

#[test]
fn privileged_a_root_of_a_hundred_layers_is_put_together() {
    isolated(|| {
        let script = "cat /layer0 /layer99 /top; echo x > /written && ls /written";
        let mut fixture = Fixture::new(&["sh", "-c", script]);
        let layers = fixture.dir.path().join("l");
        let names = (0..100).map(|number| layers.join(format!("{number:032x}")));
        let options = names.enumerate().map(|(number, layer)| {
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join(format!("layer{number}")), format!("{number}\n")).unwrap();
            fs::write(layer.join("top"), format!("top {number}\n")).unwrap();
            format!("lowerdir+={}", layer.display())
        });
        let options: Vec<String> = options.collect();
        let root = &mut fixture.spec.root.mounts[0];
        // The fixture's own layer, which has the programs, is the lowest.
        root.options.splice(0..0, options);
        assert_eq!(fixture.run().text, "0\n99\ntop 0\n/written\n");
    });
}

#[test]
fn privileged_devices_and_tasks_are_limited() {
    isolated(|| {
        let script = "echo x > /dev/null; head -c 2 /dev/zero | cat -v; echo; cat /dev/block 2>&1; \
                      (true; true) && echo forked";
        let mut fixture = Fixture::new(&["sh", "-c", script]);
        fixture.spec.linux.resources.as_mut().unwrap().pids = Some(PidsLimit { limit: Some(1) });
        let limited = fixture.run();
        assert!(limited.text.contains("can't fork"), "{limited:?}");
        fixture.spec.linux.resources.as_mut().unwrap().pids = None;
        fixture.spec.linux.devices.push(oci::runtime::Device {
            kind: "c".into(),
            path: "/dev/block".into(),
            major: 1,
            minor: 1,
            ..oci::runtime::Device::default()
        });
        let text = fixture.run().text;
        assert_eq!(text, "^@^@\ncat: can't open '/dev/block': Operation not permitted\nforked\n");
    });
}

#[test]
fn privileged_names_parameters_and_scores_are_set() {
    isolated(|| {
        let script = "hostname; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/self/oom_score_adj; \
                      touch /tmp/f; stat -c %a /tmp/f; pwd; cat /sys/fs/cgroup/*/tasks /sys/fs/cgroup/cgroup.threads 2>&- | head -n 1";
        let mut fixture = Fixture::new(&["sh", "-c", script]);
        fixture.spec.linux.sysctl.insert("net.ipv4.ip_forward".into(), "1".into());
        fixture.spec.linux.sysctl.insert("kernel.shmmax".into(), "12345".into());
        fixture.spec.process.oom_score_adj = Some(321);
        fixture.spec.process.user.umask = Some(0o077);
        fixture.spec.process.cwd = "/made/deep".into();
        assert_eq!(fixture.run().text, "longshore\n1\n12345\n321\n600\n/made/deep\n1\n");
    });
}
