//! The flags of `run`: what the program in the container sees of each, and how Docker refuses what is wrong.

use std::fs;

use crate::support::{At, each, on_both};
use testkit::Daemon;

/// Runs `sh -c SCRIPT` with these flags; it must print `expected`.
fn check(at: &At<'_>, flags: &str, script: &str, expected: &str) {
    assert_eq!(at.run(&format!("{flags} busybox sh -c '{script}'")), expected, "{flags}");
}

fn table(rows: &[(&str, &str, &str)]) {
    on_both(|at| rows.iter().for_each(|(flags, script, expected)| check(at, flags, script, expected)));
}

#[test]
fn privileged_environment_directory_names_and_entrypoint() {
    table(&[
        ("-e A=1 -e B='two words'", "echo $A-$B", "1-two words"),
        ("-e HOME=/mine", "echo $HOME", "/mine"),
        ("-e PATH=/bin", "echo $PATH", "/bin"),
        ("", "echo $PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        (
            "-h myhost",
            "hostname; cat /etc/hostname; echo $HOSTNAME; grep myhost /etc/hosts; echo $?",
            "myhost\nmyhost\nmyhost\n1",
        ),
        ("-h a.b.c", "hostname", "a.b.c"),
        ("-w /new/dir", "pwd; stat -c %u:%a .", "/new/dir\n0:755"),
        ("-u nobody", "id", "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)"),
        ("-u 1000", "id; echo $HOME", "uid=1000 gid=0(root) groups=0(root)\n/"),
        ("-u 1000:1001", "id", "uid=1000 gid=1001 groups=1001"),
        ("-u nobody:root", "id", "uid=65534(nobody) gid=0(root) groups=0(root)"),
        ("--group-add 5 --group-add nogroup", "id -G", "0 5 65534"),
    ]);
    on_both(|at| {
        assert_eq!(at.run("--entrypoint echo busybox a b"), "a b");
        assert_eq!(at.run("--entrypoint '' busybox echo a"), "a");
        let id = at.ok("create --label a=b --label c busybox");
        assert_eq!(at.inspect(&id, "{{json .Config.Labels}}"), r#"{"a":"b","c":""}"#);
        assert_eq!(at.inspect(&id, "{{json .Config.Cmd}} {{.Config.Hostname}}"), format!("[\"sh\"] {}", &id[..12]));
        at.remove(&id);
    });
}

#[test]
fn privileged_env_files_are_read_by_the_command_line() {
    on_both(|at| {
        let file = at.daemon.scratch().write("env", "# comment\n\nA=1\n  B=two words \nFROM_OUTSIDE\n").unwrap();
        let line = format!("run --rm --network none --env-file {} -e A=2 busybox env", file.display());
        let output = testkit::process::run(at.command(&line).env("FROM_OUTSIDE", "outside"), b"").unwrap();
        let lines: Vec<_> = output.success().unwrap().lines().collect();
        for expected in ["A=2", "B=two words ", "FROM_OUTSIDE=outside"] {
            assert!(lines.contains(&expected), "{expected:?}: {lines:?}");
        }
    });
}

#[test]
fn privileged_binds_are_read_only_when_asked() {
    on_both(|at| {
        let Some(dir) = at.daemon.shared_dir().unwrap() else {
            return testkit::skip::report("the foreign daemon sees no directory of ours");
        };
        fs::write(dir.path().join("file"), "content\n").unwrap();
        let path = dir.path().display();
        check(at, &format!("-v {path}:/x"), "cat /x/file; echo new > /x/new", "content");
        assert_eq!(fs::read_to_string(dir.path().join("new")).unwrap(), "new\n");
        let refused = "touch /x/no 2>&1; cat /x/file";
        let expected = "touch: /x/no: Read-only file system\ncontent";
        check(at, &format!("-v {path}:/x:ro"), refused, expected);
        check(at, &format!("--mount type=bind,source={path},target=/x,readonly"), refused, expected);
        check(at, &format!("--mount type=bind,src={path}/file,dst=/f"), "cat /f", "content");
        // -v makes what is missing, --mount does not.
        check(at, &format!("-v {path}/made:/x"), "ls /x", "");
        assert!(dir.path().join("made").is_dir());
        at.fails(
            &format!("run --rm --mount type=bind,source={path}/absent,target=/x busybox true"),
            125,
            &format!("invalid mount config for type \"bind\": bind source path does not exist: {path}/absent"),
        );
    });
}

#[test]
fn privileged_tmpfs_has_its_size_and_mode() {
    // Kernels that can have inode numbers of 64 bits in a tmpfs say so.
    let mounted = "grep \" /t \" /proc/self/mountinfo | cut -d\" \" -f6,9- | sed s/,inode64//";
    let shm = "grep \" /dev/shm \" /proc/self/mountinfo | cut -d\" \" -f9- | sed s/,inode64//";
    table(&[
        ("--tmpfs /t", mounted, "rw,nosuid,nodev,noexec,relatime tmpfs rw"),
        ("--tmpfs /t:size=1m,mode=700", mounted, "rw,nosuid,nodev,noexec,relatime tmpfs rw,size=1024k,mode=700"),
        ("--tmpfs /t:exec,ro", mounted, "ro,nosuid,nodev,relatime tmpfs rw"),
        (
            "--mount type=tmpfs,destination=/t,tmpfs-size=2m,tmpfs-mode=1770",
            mounted,
            "rw,nosuid,nodev,noexec,relatime tmpfs rw,size=2048k,mode=1770",
        ),
        ("--shm-size 1m", shm, "shm rw,size=1024k"),
    ]);
    on_both(|at| {
        let output = at.line("run --rm --network none --read-only --tmpfs /t busybox sh -c 'touch /t/a && touch /a'");
        assert_eq!((output.code, output.stderr.as_str()), (1, "touch: /a: Read-only file system\n"));
    });
}

#[test]
fn privileged_limits_are_in_the_cgroup_and_in_the_process() {
    table(&[
        ("--memory 32m", "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes 2>&- || cat memory.max", "33554432"),
        ("--cpus 0.5", "cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us 2>&- || cut -d\" \" -f1 cpu.max", "50000"),
        ("--pids-limit 77", "cd /sys/fs/cgroup; cat pids/pids.max 2>&- || cat pids.max", "77"),
        ("--pids-limit -1", "cd /sys/fs/cgroup; cat pids/pids.max 2>&- || cat pids.max", "max"),
        ("--ulimit nofile=100:200 --ulimit core=0", "ulimit -n; ulimit -Hn; ulimit -Sc", "100\n200\n0"),
        ("--ulimit nproc=64", "ulimit -Su; ulimit -Hu", "64\n64"),
    ]);
    on_both(|at| {
        let name = at.name("limits");
        at.start(&name, "--memory 33m --pids-limit 55 busybox sleep 1000");
        assert_eq!(outside(at, &name, "memory", &["memory.limit_in_bytes", "memory.max"]), "34603008");
        assert_eq!(outside(at, &name, "pids", &["pids.max"]), "55");
        assert_eq!(at.inspect(&name, "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"), "34603008 55");
        at.remove(&name);
    });
}

/// The first of these files in the container's cgroup, as the host sees it.
fn outside(at: &At<'_>, name: &str, controller: &str, files: &[&str]) -> String {
    let dir = crate::support::cgroup(at, name, controller);
    let found = files.iter().find_map(|file| fs::read_to_string(dir.join(file)).ok());
    found.unwrap_or_else(|| panic!("none of {files:?} in {}", dir.display())).trim().to_owned()
}

#[test]
fn privileged_the_memory_limit_kills_and_says_so() {
    on_both(|at| {
        let name = at.name("oom");
        let line = format!("run --network none --name {name} --memory 16m busybox sh -c 'tail -c 100m /dev/zero'");
        assert_eq!(at.line(&line).code, 137);
        assert_eq!(at.inspect(&name, "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
        at.remove(&name);
    });
}

#[test]
fn privileged_capabilities_and_security_options() {
    let effective = "grep CapEff /proc/self/status | cut -f2";
    let seccomp = "grep Seccomp: /proc/self/status | cut -f2";
    table(&[
        ("", effective, "00000000a80425fb"),
        ("--cap-drop ALL", effective, "0000000000000000"),
        ("--cap-drop ALL --cap-add NET_ADMIN", effective, "0000000000001000"),
        ("--cap-add cap_sys_admin", effective, "00000000a82425fb"),
        ("--cap-drop CHOWN --cap-drop KILL", effective, "00000000a80425da"),
        ("--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status | cut -f2", "1"),
        ("--security-opt no-new-privileges=true", "grep NoNewPrivs /proc/self/status | cut -f2", "1"),
        ("", seccomp, "2"),
        ("--privileged", seccomp, "0"),
        ("--security-opt seccomp=unconfined", seccomp, "0"),
    ]);
    on_both(|at| {
        let bounding = fs::read_to_string("/proc/self/status").unwrap();
        let bounding = bounding.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
        if !at.daemon.is_foreign() {
            check(at, "--privileged", effective, bounding);
            check(at, "--cap-add ALL", effective, bounding);
        }
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#;
        let file = at.daemon.scratch().write("seccomp.json", profile).unwrap();
        let flag = format!("--security-opt seccomp={}", file.display());
        check(
            at,
            &flag,
            "mkdir /x 2>&1 || touch /y && echo touched",
            "mkdir: can't create directory '/x': Function not implemented\ntouched",
        );
    });
}

#[test]
fn privileged_the_init_is_process_1_and_reaps() {
    on_both(|at| {
        check(
            at,
            "--init",
            "cat /proc/1/comm /proc/1/cmdline | tr \"\\0\" \" \" | cut -c 1-32",
            "docker-init\n/sbin/docker-init -- sh -c cat /",
        );
        // The orphan's parent ends first; a zombie would keep its directory in /proc.
        let orphan = "sh -c \"sh -c \\\"echo \\\\\\$\\\\\\$ >/pid\\\" &\"; until [ -s /pid ]; do :; done; \
                      while [ -d /proc/$(cat /pid) ]; do :; done; echo reaped";
        check(at, "--init", orphan, "reaped");
        let output = at.line("run --rm --network none --init busybox sh -c 'exit 33'");
        assert_eq!(output.code, 33);
    });
}

#[test]
fn privileged_networks_none_and_host() {
    on_both(|at| {
        check(at, "", "ls /sys/class/net", "lo");
        check(at, "", "ip -o addr | grep -c 127.0.0.1", "1");
        let host = |script: &str| at.ok(&format!("run --rm --network host busybox {script}"));
        let netns = host("readlink /proc/self/ns/net");
        assert_eq!(netns, host("readlink /proc/self/ns/net"));
        assert_ne!(netns, at.run("busybox readlink /proc/self/ns/net"));
        if !at.daemon.is_foreign() {
            assert_eq!(netns, fs::read_link("/proc/self/ns/net").unwrap().display().to_string());
            let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
            assert_eq!(host("hostname"), hostname.trim(), "the host's name, too");
        }
    });
}

#[test]
fn privileged_what_is_wrong_is_refused_with_dockers_sentence() {
    on_both(|at| {
        for (flags, sentence) in WRONG {
            let output = at.line(&format!("run --rm {flags} busybox true"));
            assert_eq!(output.code, 125, "{flags}: {output:?}");
            assert!(output.stderr.contains(sentence), "{flags}: {:?} has no {sentence:?}", output.stderr);
        }
        let mark = at.daemon.name("refused");
        at.line(&format!("run --name {mark} --memory 1m busybox true"));
        assert_eq!(at.ok(&format!("ps -aq --filter name={mark}")), "", "nothing is left of what was refused");
    });
}

const WRONG: [(&str, &str); 32] = [
    ("--restart always", "conflicting options: cannot specify both --restart and --rm"),
    ("--memory 1m", "Error response from daemon: Minimum memory limit allowed is 6MB"),
    ("--cpus 9999", "Error response from daemon: range of CPUs is from 0.01 to "),
    ("--cap-add NOPE", "Error response from daemon: invalid CapAdd: unknown capability: \"CAP_NOPE\""),
    ("--cap-drop NOPE", "Error response from daemon: invalid CapDrop: unknown capability: \"CAP_NOPE\""),
    ("--security-opt nope=1", "Error response from daemon: invalid --security-opt 2: \"nope=1\""),
    ("--security-opt seccomp=/nope", "opening seccomp profile (/nope) failed: open /nope: no such file or directory"),
    ("-u nosuchuser", "Error response from daemon: unable to find user nosuchuser: no matching entries in passwd file"),
    (
        "-u 0:nosuchgroup",
        "Error response from daemon: unable to find group nosuchgroup: no matching entries in group file",
    ),
    ("-w rel", "Error response from daemon: the working directory 'rel' is invalid, it needs to be an absolute path"),
    ("--log-opt nope=1", "Error response from daemon: unknown log opt 'nope' for json-file log driver"),
    (
        "--log-opt max-size=x",
        "Error response from daemon: failed to create task for container: failed to initialize logging driver: invalid size: 'x'",
    ),
    (
        "--log-driver nope",
        "Error response from daemon: error looking up logging plugin nope: plugin \"nope\" not found\n",
    ),
    ("--ulimit nope=1", "invalid argument \"nope=1\" for \"--ulimit\" flag: invalid ulimit type: nope\n"),
    (
        "--pids-limit x",
        "invalid argument \"x\" for \"--pids-limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax\n",
    ),
    ("--memory x", "invalid argument \"x\" for \"-m, --memory\" flag: invalid size: 'x'\n"),
    ("--shm-size x", "invalid argument \"x\" for \"--shm-size\" flag: invalid size: 'x'\n"),
    ("--cpus x", "invalid argument \"x\" for \"--cpus\" flag: failed to parse x as a rational number\n"),
    ("-e =", "invalid argument \"=\" for \"-e, --env\" flag: invalid environment variable: =\n"),
    ("--env-file /nope", "open /nope: no such file or directory\n"),
    (
        "-v /a:b",
        "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute",
    ),
    ("-v /a:/b:zz", "Error response from daemon: invalid mode: zz"),
    ("-v /tmp:/", "invalid specification: destination can't be '/'"),
    (
        "--mount type=nope,target=/x",
        "Error response from daemon: invalid mount config for type \"nope\": mount type unknown",
    ),
    ("--mount type=bind,target=/x", "invalid mount config for type \"bind\": field Source must not be empty"),
    ("--tmpfs rel", "Error response from daemon: invalid mount path: 'rel' mount path must be absolute"),
    ("--tmpfs /a:nope", "Error response from daemon: invalid tmpfs option \"nope\""),
    ("--tmpfs /a --tmpfs /a -v /tmp:/a", "Duplicate mount point: /a"),
    ("--stop-signal NOPE", "Error response from daemon: invalid signal: NOPE"),
    ("--bogus", "unknown flag: --bogus\n"),
    (
        "--read-only=maybe",
        "invalid argument \"maybe\" for \"--read-only\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
    ),
    ("--name !", "Invalid container name (!), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
];

#[test]
fn privileged_what_is_not_there_yet_is_refused_by_its_name() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    if daemon.is_foreign() {
        return testkit::skip::report("Docker has these flags");
    }
    each(&daemon, |at| {
        let output = at.line("run --rm --runtime other busybox true");
        assert_eq!(output.code, 125, "{output:?}");
        assert!(["runtime", "other"].iter().any(|name| output.stderr.contains(name)), "{}", output.stderr);
        assert_eq!(at.ok("ps -aq"), "", "nothing is left of what was refused");
    });
}

#[test]
fn privileged_proxies_of_the_users_configuration_are_told_to_new_containers() {
    on_both(|at| {
        let config = at.daemon.scratch().home().join(".docker");
        fs::create_dir_all(&config).unwrap();
        let proxies = r#"{"proxies": {"default": {"httpProxy": "http://a:1", "noProxy": "b", "allProxy": "c"}}}"#;
        fs::write(config.join("config.json"), proxies).unwrap();
        let told = at.run("-e all_proxy=mine busybox sh -c 'env | grep -i proxy | sort'");
        assert_eq!(
            told,
            "ALL_PROXY=c\nHTTP_PROXY=http://a:1\nNO_PROXY=b\nall_proxy=mine\nhttp_proxy=http://a:1\nno_proxy=b"
        );
        fs::remove_file(config.join("config.json")).unwrap();
    });
}
