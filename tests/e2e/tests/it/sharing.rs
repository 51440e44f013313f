//! What containers share with each other: process ids, IPC, shared memory; and mounts with the host.

use std::fs;

use crate::support::on_both;

#[test]
fn privileged_process_ids_are_shared() {
    on_both(|at| {
        let name = at.name("pids");
        at.start(&name, "busybox sh -c 'sleep 1234 & wait'");
        let seen = at.run(&format!("--pid container:{name} busybox ps"));
        assert!(seen.contains("sleep 1234"), "{seen}");
        // Its own /proc shows that namespace and nothing of the host's.
        let first = at.run(&format!("--pid container:{name} busybox cat /proc/1/cmdline"));
        assert!(first.starts_with("sh\0-c"), "{first:?}");
        let write = "tty; (echo 0 > /proc/sys/kernel/panic) 2>&1 || true";
        let written = at.run(&format!("--pid container:{name} -t busybox sh -c '{write}'"));
        assert!(written.starts_with("/dev/pts/0\r\n") && written.ends_with("Read-only file system"), "{written:?}");
        // Without /proc of the host's, or a descriptor into it.
        let open = at.run(&format!("--pid container:{name} busybox ls /proc/self/fd"));
        assert_eq!(open.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
        let id = at.inspect(&name, "{{.Id}}");
        let other = at.name("pids-other");
        at.start(&other, &format!("--pid container:{name} busybox sleep 1000"));
        assert_eq!(at.inspect(&other, "{{.HostConfig.PidMode}}"), format!("container:{id}"));
        assert!(at.ok(&format!("exec {other} ps")).contains("sleep 1234"));
        // With the donor's first process its namespace ends.
        at.ok(&format!("kill {name}"));
        assert_eq!(at.ok(&format!("wait {other}")), "137");
        let sentence = format!("failed to join PID namespace: container {id} is not running");
        at.fails(&format!("start {other}"), 1, &sentence);
        at.remove(&other);
        at.remove(&name);
        at.fails("run --pid container:nosuch busybox true", 125, "No such container: nosuch");
    });
}

#[test]
fn privileged_ipc_is_shared_by_those_who_offer_it() {
    on_both(|at| {
        let (own, offered) = (at.name("private"), at.name("shareable"));
        at.start(&own, "busybox sleep 1000");
        at.start(&offered, "--ipc shareable --shm-size 1m busybox sh -c 'echo hello > /dev/shm/word; exec sleep 1000'");
        let read = format!(
            "--ipc container:{offered} busybox sh -c 'cat /dev/shm/word; echo bye > /dev/shm/answer; df -k /dev/shm | tail -1'"
        );
        let told = at.run(&read);
        let words: Vec<&str> = told.split_whitespace().collect();
        assert_eq!(words[..3], ["hello", "shm", "1024"], "{told}");
        assert_eq!(at.ok(&format!("exec {offered} cat /dev/shm/answer")), "bye");
        let namespace = |name: &str| at.ok(&format!("exec {name} readlink /proc/self/ns/ipc"));
        let joined = at.run(&format!("--ipc container:{offered} busybox readlink /proc/self/ns/ipc"));
        assert_eq!(joined, namespace(&offered));
        assert_ne!(joined, namespace(&own));
        let id = at.inspect(&own, "{{.Id}}");
        let sentence = format!(
            "failed to join IPC namespace: container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        );
        at.fails(&format!("run --rm --network none --ipc container:{own} busybox true"), 125, &sentence);
        assert_eq!(at.run("--ipc none busybox sh -c 'ls -d /dev/shm 2>/dev/null || echo none'"), "none");
        at.remove(&own);
        at.remove(&offered);
    });
}

#[test]
fn privileged_mounts_pass_between_host_and_container_as_asked() {
    on_both(|at| {
        let Some(dir) = at.daemon.shared_dir().unwrap() else {
            return testkit::skip::report("the foreign daemon sees no directory of ours");
        };
        if at.daemon.is_foreign() {
            return testkit::skip::report("the foreign daemon sees none of our mounts");
        }
        let path = dir.path().display().to_string();
        let sentence = "but it is not a shared mount";
        let private = format!("{path}/private");
        fs::create_dir(&private).unwrap();
        let mount = |arguments: &str| {
            let words: Vec<&str> = arguments.split(' ').collect();
            let ok = std::process::Command::new("mount").args(&words).status().unwrap().success();
            assert!(ok, "mount {arguments}");
        };
        mount(&format!("--bind {private} {private}"));
        mount(&format!("--make-private {private}"));
        at.fails(&format!("run --rm --network none -v {private}:/x:rshared busybox true"), 125, sentence);
        mount(&format!("--make-shared {private}"));
        let name = at.name("passing");
        at.start(&name, &format!("-v {private}:/x:rshared -v {private}:/y:rslave busybox sleep 1000"));
        assert_eq!(at.inspect(&name, "{{range .Mounts}}{{.Propagation}} {{end}}").len(), "rshared rslave".len());
        fs::create_dir(format!("{private}/later")).unwrap();
        mount(&format!("-t tmpfs tmpfs {private}/later"));
        fs::write(format!("{private}/later/file"), "new\n").unwrap();
        assert_eq!(at.ok(&format!("exec {name} cat /x/later/file /y/later/file")), "new\nnew");
        at.remove(&name);
        for place in [format!("{private}/later"), private.clone()] {
            assert!(std::process::Command::new("umount").arg(place).status().unwrap().success());
        }
    });
}
