//! What mounts can be told.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;

use serde_json::{Value, json};

use super::fixture::Bundle;

fn mount(destination: &str, kind: &str, source: &str, options: &str) -> Value {
    let options: Vec<_> = options.split(',').collect();
    json!({"destination": destination, "type": kind, "source": source, "options": options})
}

fn bundle(script: &str, mounts: &[Value]) -> Bundle {
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    bundle.config["mounts"].as_array_mut().unwrap().extend(mounts.iter().cloned());
    bundle
}

/// Runs the container to its end: what it has said, which must be nothing on standard error.
fn said(bundle: &Bundle, flags: &[&str]) -> String {
    let words: Vec<_> = ["run"].iter().chain(flags).copied().chain([bundle.id.as_str()]).collect();
    let done = bundle.run(&words);
    assert_eq!(done.stderr, "");
    bundle.assert_gone();
    done.stdout
}

#[test]
fn privileged_places_and_sources_may_be_relative_and_links_stay_inside() {
    let script = "cat /one/file /etc/link; readlink /etc/link; cat /run/target; [ -d /one/sub ] && echo directory";
    let bundle =
        bundle(script, &[mount("one", "bind", "data", "rbind,ro"), mount("/etc/link", "bind", "data/file", "bind")]);
    fs::create_dir_all(bundle.path("data/sub")).unwrap();
    fs::write(bundle.path("data/file"), "seen\n").unwrap();
    symlink("/../../run/target", bundle.path("rootfs/etc/link")).unwrap();
    assert_eq!(said(&bundle, &[]), "seen\nseen\n/../../run/target\nseen\ndirectory\n");
}

#[test]
fn privileged_recursive_flags_reach_what_is_mounted_below() {
    let script = "for d in plain below; do echo x > /$d/file; echo x > /$d/sub/file && echo $d; done 2>&1; \
                  cat /unfollowed/link /unfollowed/sub/link 2>&1 | grep -c symbolic";
    let bundle = bundle(
        script,
        &[
            mount("/plain", "bind", "data", "rbind,ro"),
            mount("/below", "bind", "data", "rbind,rro,rnosuid,rnodev,rnoexec,rnoatime"),
            mount("/unfollowed", "bind", "data", "rbind,rnosymfollow"),
        ],
    );
    fs::create_dir_all(bundle.path("data/sub")).unwrap();
    symlink("file", bundle.path("data/link")).unwrap();
    bundle.command(&["state", "x"]).output().unwrap();
    let runtime = env!("CARGO_BIN_EXE_longshore-runtime");
    let script = format!(
        "busybox mount -t tmpfs none data/sub && busybox ln -s file data/sub/link && exec {runtime} --root root run {}",
        bundle.id
    );
    let output =
        Command::new("unshare").args(["-m", "sh", "-c", &script]).current_dir(bundle.dir.path()).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let read_only = |path: &str| format!("sh: can't create {path}: Read-only file system\n");
    let expected = [read_only("/plain/file"), "plain\n".into(), read_only("/below/file"), read_only("/below/sub/file")];
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected.concat() + "2\n");
    bundle.assert_gone();
}

/// Whether the file system can: tmpfs since Linux 6.3, overlayfs not at all as an upper one.
fn can_map_ids(path: &std::path::Path) -> bool {
    let kind = rustix::fs::statfs(path).unwrap().f_type;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    match kind as u64 {
        // linux/magic.h: TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC.
        0x0102_1994 => (numbers.next(), numbers.next()) >= (Some(6), Some(3)),
        0x794c_7630 => false,
        _ => true,
    }
}

#[test]
fn privileged_owners_are_mapped_by_own_ids_or_the_containers() {
    let ids = |host: u32| json!([{"containerID": 7, "hostID": host, "size": 2}]);
    let with_ids = |destination: &str, options: &str| {
        let mut mount = mount(destination, "bind", "data", options);
        mount["uidMappings"] = ids(1007);
        mount["gidMappings"] = ids(2007);
        mount
    };
    let script = "stat -c '%u %g' /own/file /recursive/file /plain/file; echo x > /own/new; stat -c '%u %g' /own/new";
    let mut bundle = bundle(
        script,
        &[
            with_ids("/own", "rbind,idmap"),
            with_ids("/recursive", "rbind,ridmap"),
            mount("/plain", "bind", "data", "rbind"),
        ],
    );
    fs::create_dir(bundle.path("data")).unwrap();
    fs::set_permissions(bundle.path("data"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(bundle.path("data/file"), "").unwrap();
    // Nothing is made in a directory whose own owner is mapped to nobody.
    chown(bundle.path("data"), Some(7), Some(7)).unwrap();
    chown(bundle.path("data/file"), Some(7), Some(8)).unwrap();
    bundle.config["process"]["user"] = json!({"uid": 1008, "gid": 2007});
    if !can_map_ids(bundle.dir.path()) {
        let text = bundle.err(&["create"]);
        assert!(text.contains("invalid argument"), "{text}");
        return;
    }
    assert_eq!(said(&bundle, &[]), "1007 2008\n1007 2008\n7 8\n1008 2007\n");
    use std::os::unix::fs::MetadataExt;
    let new = fs::metadata(bundle.path("data/new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (8, 7));
    // With the mappings of the container's user namespace its ids are those of the files.
    fs::set_permissions(bundle.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    for directory in ["one", "two"] {
        fs::create_dir(bundle.path("rootfs").join(directory)).unwrap();
    }
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.truncate(3);
    mounts.extend([mount("/one", "bind", "data", "rbind,idmap"), mount("/two", "bind", "data", "rbind")]);
    bundle.config["process"] =
        json!({"args": ["stat", "-c", "%u %g", "/one/file", "/two/file"], "env": ["PATH=/bin"], "cwd": "/"});
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for field in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][field] = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    }
    assert_eq!(said(&bundle, &[]), "7 8\n65534 65534\n");
    bundle.config["mounts"][3]["options"] = json!(["rbind"]);
    bundle.config["mounts"][3]["uidMappings"] = ids(1);
    let text = bundle.err(&["create"]);
    assert!(text.contains("mounts[3].gidMappings: is empty, and an id-mapped mount needs both"), "{text}");
}

#[test]
fn privileged_a_tmpfs_begins_with_what_it_covers() {
    let script = "cd /etc/covered; ls -ln | grep -v total | while read m l u g s r; do echo $m $u $g; done; cat file link inner/deep; \
                  echo changed > inner/deep; stat -c %a /etc/covered /etc/mode /etc/own /etc/new; echo x 2>/dev/null > /etc/mode/x || echo ro";
    let mounts = [
        mount("/etc/covered", "tmpfs", "tmpfs", "tmpcopyup,nosuid"),
        mount("/etc/mode", "tmpfs", "tmpfs", "ro"),
        mount("/etc/own", "tmpfs", "tmpfs", "mode=711"),
        mount("/etc/new", "tmpfs", "tmpfs", "noexec"),
    ];
    let bundle = bundle(script, &mounts);
    let covered = bundle.path("rootfs/etc/covered");
    fs::create_dir_all(covered.join("inner")).unwrap();
    fs::write(covered.join("file"), "kept\n").unwrap();
    fs::write(covered.join("inner/deep"), "deep\n").unwrap();
    symlink("file", covered.join("link")).unwrap();
    chown(covered.join("file"), Some(5), Some(6)).unwrap();
    let modes = [("", 0o1750), ("file", 0o4644), ("inner", 0o700), ("inner/deep", 0o600)];
    for (name, mode) in modes {
        fs::set_permissions(covered.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for name in ["mode", "own"] {
        fs::create_dir(bundle.path("rootfs/etc").join(name)).unwrap();
        fs::set_permissions(bundle.path("rootfs/etc").join(name), fs::Permissions::from_mode(0o2705)).unwrap();
    }
    let expected = "-rwSr--r-- 5 6\ndrwx------ 0 0\nlrwxrwxrwx 0 0\nkept\nkept\ndeep\n1750\n2705\n711\n1777\nro\n";
    assert_eq!(said(&bundle, &[]), expected);
    assert_eq!(fs::read_to_string(covered.join("inner/deep")).unwrap(), "deep\n");
}

#[test]
fn privileged_a_read_only_tmpfs_still_gets_what_belongs_into_it() {
    let script = "for f in /dev/x /dev/inner/x /outer/x /outer/inner/x; do echo x 2>/dev/null >$f && echo $f; done; ls /outer /dev/null";
    let mounts = [
        mount("/outer", "tmpfs", "tmpfs", "ro"),
        mount("/outer/inner", "tmpfs", "tmpfs", "nosuid"),
        mount("/dev/inner", "tmpfs", "tmpfs", "nosuid"),
    ];
    let mut bundle = bundle(script, &mounts);
    // As podman's for a read-only container.
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            mount["options"] = json!(["nosuid", "strictatime", "mode=755", "size=65536k", "ro"]);
        }
    }
    let expected = "/dev/inner/x\n/outer/inner/x\n/dev/null\n\n/outer:\ninner\n";
    assert_eq!(said(&bundle, &[]), expected);
    bundle.config["root"]["readonly"] = json!(true);
    fs::create_dir_all(bundle.path("rootfs/outer")).unwrap();
    assert_eq!(said(&bundle, &[]), expected);
}

#[test]
fn privileged_a_file_does_not_go_over_a_directory_nor_a_directory_over_a_file() {
    for (source, place) in [("data", "/etc/file"), ("data/file", "/etc")] {
        let bundle = bundle("true", &[mount(place, "bind", source, "rbind")]);
        fs::create_dir(bundle.path("data")).unwrap();
        for file in ["data/file", "rootfs/etc/file"] {
            fs::write(bundle.path(file), "").unwrap();
        }
        let text = bundle.err(&["create"]);
        assert!(text.contains(place) && text.contains("not a directory"), "{text}");
        bundle.assert_gone();
    }
}

#[test]
fn privileged_what_is_mounted_can_be_changed_but_not_the_hosts_file_system() {
    let script = "for d in made bound; do echo x 2>/dev/null > /$d/file || echo $d; done; grep -E ' /(made|bound) ' /proc/self/mountinfo | \
                  while read a b c d e f g; do echo $e $f $g; done";
    let mounts = [
        mount("/made", "tmpfs", "tmpfs", "mode=755,size=64k"),
        mount("/made", "", "", "remount,ro,nosuid,size=128k"),
        mount("/bound", "bind", "data", "rbind"),
        mount("/bound", "", "", "remount,ro,nodev"),
    ];
    let bundle = bundle(script, &mounts);
    fs::create_dir(bundle.path("data")).unwrap();
    let text = said(&bundle, &[]);
    assert!(text.starts_with("made\nbound\n"), "{text}");
    assert!(text.contains("\n/made ro,nosuid,relatime - tmpfs tmpfs ro,size=128k"), "{text}");
    let bound = text.lines().find(|line| line.starts_with("/bound")).unwrap();
    assert!(bound.starts_with("/bound ro,nodev") && bound.contains(" rw"), "{text}");
    fs::write(bundle.path("data/file"), "the host may").unwrap();
}

#[test]
fn privileged_proc_and_cgroups_are_made_read_only_as_other_mounts() {
    let mounts =
        [mount("/proc", "proc", "proc", "remount,ro"), mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,rro")];
    let script = "while read a b c d e f g; do case $e in /proc|/sys/fs/cgroup*) echo ${f%%,*};; esac; done \
                  < /proc/self/mountinfo";
    let text = said(&bundle(script, &mounts), &[]);
    assert!(text.lines().count() > 1 && text.lines().all(|line| line == "ro"), "{text}");
}

#[test]
fn privileged_propagation_is_for_every_mount_and_the_root() {
    let script = "grep -E ' (/|/made|/bound|/slave) [^ ]* ' /proc/self/mountinfo | while read a b c d e f g; do echo $e ${g%% - *}; done";
    let mounts = [
        mount("/made", "tmpfs", "tmpfs", "mode=755,rshared"),
        mount("/bound", "bind", "data", "rbind,unbindable"),
        mount("/slave", "bind", "data", "rbind,slave"),
    ];
    let mut bundle = bundle(script, &mounts);
    fs::create_dir(bundle.path("data")).unwrap();
    let kind = |text: &str, place: &str| {
        let line = text.lines().find(|line| line.split(' ').next() == Some(place)).unwrap();
        line.split([' ', ':']).nth(1).unwrap_or_default().to_owned()
    };
    let text = said(&bundle, &[]);
    assert_eq!((kind(&text, "/made").as_str(), kind(&text, "/bound").as_str()), ("shared", "unbindable"), "{text}");
    for (word, shown) in [("shared", "shared"), ("unbindable", "unbindable"), ("rprivate", "-"), ("rslave", "-")] {
        bundle.config["linux"]["rootfsPropagation"] = json!(word);
        let text = said(&bundle, &[]);
        assert_eq!(kind(&text, "/"), shown, "{text}");
    }
}

/// With runc's propagation of `/`: what the host mounts below a slave's root is there inside, too.
#[test]
fn privileged_a_slave_root_hears_of_the_hosts_mounts() {
    let mut bundle = bundle(
        "while ! grep -q ' /tmp ' /proc/self/mountinfo; do :; done; grep -E '^([^ ]+ ){4}/ ' /proc/self/mountinfo",
        &[],
    );
    bundle.config["linux"]["rootfsPropagation"] = json!("rslave");
    let runtime = bundle.command(&["run", &bundle.id]);
    let words: Vec<_> = runtime.get_args().map(|word| word.to_str().unwrap()).collect();
    let program = runtime.get_program().to_str().unwrap();
    let script = format!(
        "mount --bind rootfs rootfs && mount --make-shared rootfs && {{ {program} {} & }} && \
         until {program} --root root state {} 2>/dev/null | grep -q running; do :; done; \
         mount -t tmpfs tmpfs rootfs/tmp && wait",
        words.join(" "),
        bundle.id
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).current_dir(bundle.dir.path());
    let done = command.output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains(" master:"), "{text} {}", String::from_utf8_lossy(&done.stderr));
    bundle.assert_gone();
}

#[test]
fn privileged_a_root_that_is_moved_is_as_closed_as_one_that_is_exchanged() {
    let script = "ls /; readlink /proc/1/root; wc -c < /proc/cpuinfo; ls /proc/1/cwd; echo x 2>/dev/null > /proc/sys/kernel/hostname || echo ro";
    let mut bundle = bundle(script, &[]);
    bundle.config["linux"]["maskedPaths"] = json!(["/proc/cpuinfo"]);
    let exchanged = said(&bundle, &[]);
    assert_eq!(said(&bundle, &["--no-pivot"]), exchanged);
    assert!(exchanged.starts_with("bin\ndev\n") && exchanged.ends_with("ro\n"), "{exchanged}");
    bundle.config["hooks"] = json!({"createContainer": [{"path": "/bin/true"}]});
    assert_eq!(said(&bundle, &["--no-pivot"]), exchanged);
}
