//! The known ways out of a container, each tried for real.
//!
//! Every test says which naive runtime it catches: "seen" is a change of our own code that made the test fail.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::fixture::{Bundle, Done, wait_until};

/// The root of the bundle's container.
fn root(bundle: &Bundle) -> std::path::PathBuf {
    bundle.path("rootfs")
}

fn push_mount(bundle: &mut Bundle, mount: Value) {
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
}

fn bind(source: &Path, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": ["bind"]})
}

/// All capabilities, so that only what is to be tried is in the way.
fn unconfine(bundle: &mut Bundle) {
    let all = sys::capability::bounding();
    let all: Vec<_> = oci::names::CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(number, _)| all.0 & (1 << number) != 0)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect();
    bundle.config["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    bundle.config["linux"]["seccomp"] = json!(null);
}

fn sh(bundle: &Bundle, script: &str) -> Done {
    bundle.run(&["exec", &bundle.id, "sh", "-c", script])
}

/// CVE-2019-5736. Naive: runs from the file itself (seen: `seal::ensure` that does nothing).
#[test]
fn privileged_a_container_does_not_overwrite_the_runtime() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    unconfine(&mut bundle);
    // Not the file that the other tests run.
    let runtime = bundle.path("runtime");
    fs::copy(env!("CARGO_BIN_EXE_longshore-runtime"), &runtime).unwrap();
    let before = fs::read(&runtime).unwrap();
    // What the program may be linked with.
    for directory in ["/lib", "/lib64", "/usr/lib"].into_iter().filter(|path| Path::new(path).is_dir()) {
        push_mount(&mut bundle, bind(Path::new(directory), directory));
    }
    symlink("/proc/self/exe", root(&bundle).join("bin/entry")).unwrap();
    let with_own = |words: &[&str]| {
        let given = bundle.command(words);
        let mut command = Command::new(&runtime);
        command.args(given.get_args()).current_dir(bundle.dir.path());
        command.stdout(File::create(bundle.path("out")).unwrap()).stderr(File::create(bundle.path("err")).unwrap());
        assert!(command.status().unwrap().success(), "{:?}", fs::read_to_string(bundle.path("err")));
    };
    with_own(&["run", "-d", &bundle.id]);
    // The runtime itself, inside: it waits for a reader of its log.
    let fifo = root(&bundle).join("tmp/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    with_own(&["exec", "-d", "--pid-file", "victim", &bundle.id, "entry", "--log", "/tmp/fifo", "state", "x"]);
    let script = "
        for process in /proc/[0-9]*; do
            case $(cat $process/cmdline) in entry*) victim=$process/exe;; esac
        done
        [ -n \"$victim\" ] || exit 9
        echo directly; (echo overwritten > $victim) 2>&1
        exec 3< $victim
        cat < /tmp/fifo > /dev/null
        while [ -e ${victim%/exe}/root/bin ]; do sleep 0.01; done
        echo later; (echo overwritten > /proc/self/fd/3) 2>&1";
    let done = sh(&bundle, script);
    assert_ne!(done.code, Some(9), "{}", fs::read_to_string(bundle.path("err")).unwrap());
    assert_eq!(done.stdout.matches("Read-only file system").count(), 2, "{done:?}");
    assert!(done.stdout.contains("later"), "{done:?}");
    assert!(fs::read(&runtime).unwrap() == before);
    bundle.ok(&["delete", "-f"]);
}

/// Puts a link and a directory in the place of each other as fast as it can.
fn swap(directory: &Path, link: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let exchange = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, directory, rustix::fs::CWD, link, exchange).unwrap();
    }
}

/// Stops [`swap`] when it is dropped.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// CVE-2021-30465 and CVE-2024-45310. Naive: checks a path and then mounts or makes it by name (seen: `target::open`
/// without IN_ROOT follows the link to the host's directory).
#[test]
fn privileged_a_link_put_in_a_mounts_way_leads_nowhere_outside() {
    let mut bundle = Bundle::new(&["cat", "/proc/self/mountinfo"]);
    let (shared, outside) = (bundle.path("shared"), bundle.path("outside"));
    fs::create_dir_all(shared.join("place")).unwrap();
    // Whatever naive code looks for is there.
    fs::create_dir_all(outside.join("new/a")).unwrap();
    fs::write(outside.join("new/file"), "outside").unwrap();
    symlink(&outside, shared.join("link")).unwrap();
    fs::write(bundle.path("file"), "").unwrap();
    push_mount(&mut bundle, bind(&shared, "/shared"));
    push_mount(&mut bundle, json!({"destination": "/shared/place/new/a", "type": "tmpfs", "source": "marker"}));
    let file = bind(&bundle.path("file"), "/shared/place/new/file");
    push_mount(&mut bundle, file);
    let hook = json!([{"path": "/bin/true"}]);
    let stop = AtomicBool::new(false);
    let (directory, link) = (shared.join("place"), shared.join("link"));
    std::thread::scope(|scope| {
        // Stopped also by a failure.
        let _stopping = Stopping(&stop);
        scope.spawn(|| swap(&directory, &link, &stop));
        let (mut plain, mut linked) = (0, 0);
        for number in 0..60 {
            // With hooks the host's tree is still there while everything is mounted.
            bundle.config["hooks"] = if number % 2 == 0 { json!(null) } else { json!({"createRuntime": hook}) };
            let done = bundle.run(&["run", &bundle.id]);
            assert_eq!(["", "new", "new/a"].map(|path| fs::read_dir(outside.join(path)).unwrap().count()), [1, 2, 0]);
            if done.code != Some(0) {
                // A directory that vanished between two steps.
                assert!(done.stderr.contains("mount point /shared/place/new"), "{done:?}");
                bundle.assert_gone();
                continue;
            }
            // What was mounted is inside, wherever the link led.
            let marker = done.stdout.lines().find(|line| line.contains(" - tmpfs marker"));
            let place = marker.and_then(|line| line.split(' ').nth(4)).unwrap_or_default().to_owned();
            match place.starts_with("/shared/") {
                true => plain += 1,
                false => linked += 1,
            }
            assert!(place.ends_with("/new/a"), "{done:?}");
            assert!(place.starts_with("/shared/") || place.starts_with(outside.to_str().unwrap()), "{place}");
        }
        assert!(plain + linked > 0);
    });
}

/// CVE-2024-21626. Naive: enters the working directory with the host's descriptors open (seen: without `NO_MAGICLINKS` in
/// `target::open` and the look at `getcwd` in `enter_cwd`).
#[test]
fn privileged_no_working_directory_is_outside() {
    let mut bundle = Bundle::new(&["pwd"]);
    let runtime = env!("CARGO_BIN_EXE_longshore-runtime");
    symlink("/proc/self/fd/7", root(&bundle).join("seven")).unwrap();
    let cwds: Vec<_> = (3..24).map(|number| format!("/proc/self/fd/{number}")).chain(["/seven".into()]).collect();
    // Whoever starts the runtime has left two directories open.
    let run = |words: &str| {
        let script = format!("exec {runtime} --root root {words} 7< / 9< /");
        let output = Command::new("sh").args(["-c", &script]).current_dir(bundle.dir.path()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let path = bundle.path("config.json");
    for cwd in &cwds {
        let mut config = bundle.config.clone();
        config["process"]["cwd"] = json!(cwd);
        fs::write(&path, config.to_string()).unwrap();
        let (code, text) = run(&format!("run {}", bundle.id));
        assert!(code == Some(1) && (text.contains("chdir to cwd") || text.contains("mkdir")), "{cwd}: {code:?} {text}");
        bundle.assert_gone();
    }
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    for cwd in &cwds {
        let (code, text) = run(&format!("exec --cwd {cwd} {} pwd", bundle.id));
        assert!(code == Some(255) && text.contains(&format!("--cwd {cwd}: ")), "{cwd}: {code:?} {text}");
    }
    // Nor is a program.
    let (code, text) = run(&format!("exec {} /proc/self/fd/7/bin/true", bundle.id));
    assert_ne!(code, Some(0), "{text}");
    bundle.ok(&["delete", "-f"]);
}

/// CVE-2024-21626 again. Naive: trusts everybody to have set O_CLOEXEC (seen: without `keep_only` and `cloexec_from`).
#[test]
fn privileged_no_descriptor_of_the_callers_or_of_ours_gets_inside() {
    let mut bundle = Bundle::new(&["sh", "-c", "ls -l /proc/self/fd"]);
    let runtime = env!("CARGO_BIN_EXE_longshore-runtime");
    let run = |words: &str| {
        let script = format!("exec {runtime} --root root {words} 3< / 4> written 5< /dev 9< /proc/self");
        let output = Command::new("sh").args(["-c", &script]).current_dir(bundle.dir.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        // `... 0 -> pipe:[7]`; the directory that ls reads is its own.
        let numbers = String::from_utf8(output.stdout).unwrap();
        let number = |line: &str| line.split(" -> ").next()?.split(' ').next_back().map(str::to_owned);
        numbers
            .lines()
            .filter(|line| line.contains(" -> ") && !line.contains("/proc/"))
            .filter_map(number)
            .collect::<Vec<_>>()
    };
    fs::write(bundle.path("config.json"), bundle.config.to_string()).unwrap();
    assert_eq!(run(&format!("run {}", bundle.id)), ["0", "1", "2"]);
    // With hooks the runtime has more to hold.
    let hook = json!([{"path": "/bin/true"}]);
    let inside =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", "ls /proc/self/fd > /tmp/hook"], "env": ["PATH=/bin"]}]);
    bundle.config["hooks"] = json!({"createRuntime": hook, "startContainer": inside});
    fs::write(bundle.path("config.json"), bundle.config.to_string()).unwrap();
    assert_eq!(run(&format!("run {}", bundle.id)), ["0", "1", "2"]);
    assert_eq!(fs::read_to_string(root(&bundle).join("tmp/hook")).unwrap(), "0\n1\n2\n3\n");
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    assert_eq!(run(&format!("exec {} sh -c 'ls -l /proc/self/fd'", bundle.id)), ["0", "1", "2"]);
    bundle.ok(&["delete", "-f"]);
}

/// The host's file that a container must not get hold of.
const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// CVE-2025-31133, CVE-2025-62161. Naive: binds whatever /dev/null is over what is to be hidden (seen: without the check in
/// `Birth::null`).
#[test]
fn privileged_only_the_null_device_hides_files() {
    for kind in ["link", "file", "zero", "directory"] {
        let mut bundle = Bundle::new(&["sh", "-c", "cat /proc/keys"]);
        // The image's own /dev.
        let no_dev = |mount: &&Value| !mount["destination"].as_str().unwrap().starts_with("/dev");
        let mounts = bundle.config["mounts"].as_array().unwrap().iter().filter(no_dev).cloned().collect();
        bundle.config["mounts"] = Value::Array(mounts);
        bundle.config["linux"]["maskedPaths"] = json!(["/proc/keys"]);
        let null = root(&bundle).join("dev/null");
        match kind {
            "link" => symlink(CORE_PATTERN, &null).unwrap(),
            "file" => fs::write(&null, "not null").unwrap(),
            "directory" => fs::create_dir(&null).unwrap(),
            _ => {
                let zero = rustix::fs::makedev(1, 5);
                let mode = rustix::fs::Mode::from_raw_mode(0o666);
                let kind = rustix::fs::FileType::CharacterDevice;
                rustix::fs::mknodat(rustix::fs::CWD, &null, kind, mode, zero).unwrap();
            }
        }
        let input = File::open("/dev/zero").unwrap();
        let output = bundle.command(&["run", &bundle.id]).stdin(input).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains("mask /proc/keys"), "{kind}: {output:?}");
        bundle.assert_gone();
        // As a standard stream neither.
        let done = bundle.run(&["run", &bundle.id]);
        assert!(
            done.code == Some(1) && done.stderr.contains("/dev/null") || done.stderr.contains("mask"),
            "{kind}: {done:?}"
        );
        bundle.assert_gone();
    }
}

/// CVE-2025-52565. Naive: binds the terminal over whatever path /dev/console names (seen: `show_console` with a bind mount by
/// path).
#[test]
fn privileged_the_console_is_shown_on_no_other_file() {
    let mut bundle = Bundle::new(&["sh", "-c", "cat /proc/sys/kernel/core_pattern"]);
    bundle.config["process"]["terminal"] = json!(true);
    let no_dev = |mount: &&Value| mount["destination"] != "/dev";
    let mounts = bundle.config["mounts"].as_array().unwrap().iter().filter(no_dev).cloned().collect();
    bundle.config["mounts"] = Value::Array(mounts);
    let before = fs::read_to_string(CORE_PATTERN).unwrap();
    for target in [CORE_PATTERN, "/proc/self/attr/exec", "/bin/busybox", "pts/ptmx"] {
        let console = root(&bundle).join("dev/console");
        let _ = fs::remove_file(&console);
        symlink(target, &console).unwrap();
        let socket = bundle.path("socket");
        let _ = fs::remove_file(&socket);
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let done = bundle.run(&["run", "-d", "--console-socket", "socket", &bundle.id]);
        assert!(done.code == Some(1) && done.stderr.contains("/dev/console"), "{target}: {done:?}");
        bundle.assert_gone();
    }
    assert_eq!(fs::read_to_string(CORE_PATTERN).unwrap(), before);
}

/// A /proc of plain files, with what a runtime writes to.
fn fake_proc(proc: &Path) {
    for directory in ["sys/net/ipv4", "sys/kernel", "self/attr/apparmor", "self/task", "1"] {
        fs::create_dir_all(proc.join(directory)).unwrap();
    }
    for file in
        ["sys/net/ipv4/ip_forward", "sys/kernel/shmmax", "self/oom_score_adj", "self/attr/exec", "1/oom_score_adj"]
    {
        fs::write(proc.join(file), "fake").unwrap();
    }
}

/// CVE-2025-52881, CVE-2025-62596, CVE-2019-16884. Naive: writes through the container's /proc (seen: `Birth::proc` opened
/// below the root, without the check of the file system).
#[test]
fn privileged_parameters_are_written_to_proc_whatever_the_container_has_there() {
    let script = "cat /real/sys/net/ipv4/ip_forward /real/sys/kernel/shmmax /real/self/oom_score_adj; sleep 1000";
    for link in [false, true] {
        let mut bundle = Bundle::new(&["sh", "-c", script]);
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        // The real one elsewhere; over /proc nothing.
        mounts[0]["destination"] = json!("/real");
        let proc = root(&bundle).join("proc");
        fs::remove_dir(&proc).unwrap();
        fake_proc(&root(&bundle).join(if link { "faked" } else { "proc" }));
        if link {
            symlink("faked", &proc).unwrap();
        }
        bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345"});
        bundle.config["process"]["oomScoreAdj"] = json!(321);
        bundle.config["linux"]["maskedPaths"] = json!([]);
        bundle.config["linux"]["readonlyPaths"] = json!([]);
        let out = File::create(bundle.path("out")).unwrap();
        assert!(bundle.command(&["run", "-d", &bundle.id]).stdout(out).status().unwrap().success());
        wait_until("written", || fs::read_to_string(bundle.path("out")).is_ok_and(|text| text == "1\n12345\n321\n"));
        let process =
            json!({"args": ["cat", "/real/self/oom_score_adj"], "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 322});
        fs::write(bundle.path("process.json"), process.to_string()).unwrap();
        let done = bundle.run(&["exec", "-p", "process.json", &bundle.id]);
        assert_eq!(done.stdout, "322\n", "{done:?}");
        for file in
            ["sys/net/ipv4/ip_forward", "sys/kernel/shmmax", "self/oom_score_adj", "self/attr/exec", "1/oom_score_adj"]
        {
            assert_eq!(fs::read_to_string(proc.join(file)).unwrap(), "fake", "{file}");
        }
        bundle.ok(&["delete", "-f"]);
    }
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642. Naive: follows the image's link, and looks up what is to be hidden
/// through it again (seen: `place::open` that is `target::open`).
#[test]
fn privileged_kernel_file_systems_are_mounted_on_ordinary_directories() {
    for (name, kind) in [("proc", "proc"), ("sys", "sysfs")] {
        let mut bundle = Bundle::new(&["true"]);
        push_mount(&mut bundle, json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}));
        fs::remove_dir(root(&bundle).join(name)).unwrap();
        fs::create_dir(root(&bundle).join("elsewhere")).unwrap();
        for target in ["elsewhere", "/elsewhere", "tmp/../elsewhere", "/nowhere"] {
            let _ = fs::remove_file(root(&bundle).join(name));
            symlink(target, root(&bundle).join(name)).unwrap();
            let text = bundle.err(&["create"]);
            assert!(text.contains(&format!("destination: /{name}: must be an ordinary directory")), "{kind}: {text}");
            bundle.assert_gone();
        }
    }
}

/// CVE-2019-16884. Naive: allows what does not say /proc (seen: `place::open` that is `target::open`; the plain ones are
/// refused by the plan).
#[test]
fn privileged_nothing_is_put_over_proc_or_into_it() {
    let mut bundle = Bundle::new(&["true"]);
    let fake = bundle.path("fake");
    fake_proc(&fake);
    fs::write(bundle.path("file"), "fake").unwrap();
    symlink("proc", root(&bundle).join("innocent")).unwrap();
    symlink("/proc/self/attr", root(&bundle).join("attributes")).unwrap();
    let plain = bundle.config.clone();
    let file = bundle.path("file");
    for (source, destination) in [
        (&fake, "/proc"),
        (&fake, "/proc/"),
        (&fake, "//proc/."),
        (&fake, "/tmp/../proc"),
        (&fake, "/innocent"),
        (&fake, "/innocent/self"),
        (&fake, "/proc/self"),
        (&fake, "/proc/sys"),
        (&file, "/proc/1/oom_score_adj"),
        (&file, "/attributes/exec"),
        (&file, "/proc/self/exe"),
    ] {
        bundle.config = plain.clone();
        push_mount(&mut bundle, bind(source, destination));
        let text = bundle.err(&["create"]);
        assert!(text.contains("proc") && !text.contains("panic"), "{destination}: {text}");
        bundle.assert_gone();
    }
    // What lxcfs replaces may be; and so may proc itself.
    bundle.config = plain.clone();
    push_mount(&mut bundle, bind(&file, "/proc/uptime"));
    bundle.config["process"]["args"] = json!(["cat", "/proc/uptime"]);
    assert_eq!(bundle.run(&["run", &bundle.id]).stdout, "fake");
    bundle.config["mounts"][0] = bind(Path::new("/proc"), "/proc");
    bundle.config["mounts"].as_array_mut().unwrap().pop();
    bundle.config["process"]["args"] = json!(["cat", "/proc/self/comm"]);
    assert_eq!(bundle.run(&["run", &bundle.id]).code, Some(0));
    bundle.assert_gone();
}

/// Naive: mounts whatever the place is, and an exec finds another root than the container's processes (seen: without the
/// looks at the root in `plan` and `place::open`).
#[test]
fn privileged_nothing_is_put_over_the_root() {
    let mut bundle = Bundle::new(&["true"]);
    symlink("/", root(&bundle).join("all")).unwrap();
    let plain = bundle.config.clone();
    for destination in ["/", "", "/.", "/all", "/tmp/..", "/.."] {
        bundle.config = plain.clone();
        push_mount(&mut bundle, json!({"destination": destination, "type": "tmpfs", "source": "cover"}));
        let text = bundle.err(&["create"]);
        let expected = if destination.is_empty() { "destination: is empty" } else { "is the container's root" };
        assert!(text.contains(expected), "{destination}: {text}");
        bundle.assert_gone();
    }
}

/// CVE-2022-29162 and CVE-2022-24769. Naive: gives what it is asked for to the inheritable set, too (seen: `changed` with it).
#[test]
fn privileged_capabilities_of_an_exec_are_not_inherited() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let words = ["exec", "--cap", "CAP_NET_RAW", &bundle.id, "cat", "/proc/self/status"];
    let text = bundle.run(&words).stdout;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((value("CapInh:").as_str(), value("CapAmb:").as_str()), ("0000000000000000", "0000000000000000"));
    assert_eq!(value("CapEff:"), "0000000000002021");
    bundle.ok(&["delete", "-f"]);
    // Nor by the specification to begin with.
    fs::create_dir(bundle.path("new")).unwrap();
    bundle.run(&["spec", "-b", "new"]);
    let spec: Value = serde_json::from_slice(&fs::read(bundle.path("new/config.json")).unwrap()).unwrap();
    assert!(spec["process"]["capabilities"].get("inheritable").is_none_or(|set| set.as_array().unwrap().is_empty()));
}

/// CVE-2016-9962. Naive: stays dumpable, so that a container that shares the PID namespace looks into what is still the
/// runtime's (seen: without `set_dumpable_behavior`). For exec see `oci-runtime`'s intruder.
#[test]
fn privileged_a_waiting_process_is_not_looked_into() {
    let looking = Bundle::new(&["sleep", "1000"]);
    looking.ok(&["run", "-d"]);
    let mut waiting = Bundle::new(&["sleep", "1000"]);
    let namespace = format!("/proc/{}/ns/pid", looking.state()["pid"]);
    waiting.config["linux"]["namespaces"][0]["path"] = json!(namespace);
    waiting.ok(&["create"]);
    let script = "
        for process in /proc/[0-9]*; do
            case $(cat $process/cmdline) in *longshore-run[t]ime*) echo found; readlink $process/cwd && echo seen;; esac
        done";
    let done = sh(&looking, script);
    assert_eq!(done.stdout, "found\n", "{done:?}");
    waiting.ok(&["delete"]);
    looking.ok(&["delete", "-f"]);
}
