//! What users read when a container cannot be made. The sentences are those of dockerd 28.5.2 with runc.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use oci::runtime::{Mount, Process, Rlimit};
use oci_runtime::{Stdio, UserRequest};
use sys::wait::wait;

use super::fixture::{Fixture, exec, isolated, output_pipe};

fn refused(fixture: &Fixture) -> (String, u8) {
    match fixture.create(None, output_pipe().1) {
        Ok(_) => panic!("created"),
        Err(err) => (errdefs::chain(&err), err.exit_code()),
    }
}

#[test]
fn privileged_commands_that_cannot_run_are_named_as_docker_does() {
    isolated(|| {
        let fixture = Fixture::new(&["sleep", "1000"]);
        let mut container = fixture.create(None, output_pipe().1).unwrap();
        container.start().unwrap();
        for (command, text, code) in [
            ("nosuch", "exec: \"nosuch\": executable file not found in $PATH", 127),
            ("", "exec: \"\": executable file not found in $PATH", 127),
            ("bin", "exec: \"bin\": executable file not found in $PATH", 127),
            ("/etc/passwd", "exec: \"/etc/passwd\": permission denied", 126),
            ("/etc", "exec: \"/etc\": is a directory", 126),
        ] {
            assert_eq!(refused(&Fixture::new(&[command])), (text.to_owned(), code));
            let process = Process { args: vec![command.to_owned()], ..fixture.spec.process.clone() };
            let err = exec(&container, &process).unwrap_err();
            assert_eq!((errdefs::chain(&err), err.exit_code()), (text.to_owned(), code));
        }
        let (text, code) = refused(&Fixture::new(&["/nosuch"]));
        assert_eq!(text, "exec: \"/nosuch\": stat /nosuch: no such file or directory");
        assert_eq!(code, 127);
        let process = Process { cwd: "/nope".into(), ..fixture.spec.process.clone() };
        let err = exec(&container, &process).unwrap_err();
        let text = "chdir to cwd (\"/nope\") set in config.json failed: no such file or directory";
        assert_eq!(errdefs::chain(&err), text);
        assert_eq!(err.exit_code(), 127);
        container.kill(9).unwrap();
        wait(container.pidfd.as_fd()).unwrap();
        container.destroy().unwrap();
    });
}

#[test]
fn privileged_a_program_without_interpreter_says_so_in_the_containers_own_stream() {
    isolated(|| {
        let output = Fixture::new(&["/bin/script"]).run();
        assert_eq!((output.text.as_str(), output.code), ("exec /bin/script: no such file or directory\n", 255));
    });
}

#[test]
fn privileged_a_failed_create_leaves_no_cgroup_and_no_process() {
    isolated(|| {
        let fixture = Fixture::new(&["nosuch"]);
        refused(&fixture);
        let path = std::path::Path::new(&fixture.spec.linux.cgroups_path);
        let left = cgroup::Cgroup::open(&fixture.hierarchies, path).unwrap();
        assert!(left.directories.is_empty(), "{left:?}");
        assert!(sys::wait::try_wait_any().is_err());
    });
}

#[test]
fn privileged_a_limit_beyond_ours_is_named() {
    isolated(|| {
        let mut fixture = Fixture::new(&["true"]);
        let none = Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 1 << 20, soft: 1024 };
        fixture.spec.process.rlimits.push(none);
        let held = sys::capability::bounding().numbers().any(|number| number == 24);
        let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        if held || own.is_none_or(|own| own >= 1 << 20) {
            // With CAP_SYS_RESOURCE the limit is simply set.
            assert_eq!(fixture.run().code, 0);
            return;
        }
        let err = fixture.create(None, output_pipe().1).unwrap_err();
        let text = "error setting rlimits for ready process: error setting rlimit type 7: operation not permitted";
        assert_eq!(errdefs::chain(&err), text);
    });
}

#[test]
fn privileged_users_come_from_the_containers_files() {
    isolated(|| {
        let fixture = Fixture::new(&["sh", "-c", "id; echo $HOME"]);
        let run = |user, groups: &[String]| match fixture.run_as(Some(UserRequest { user, groups })) {
            Ok(output) => output.text,
            Err(err) => err.to_string(),
        };
        assert_eq!(run("web", &[]), "uid=1000(web) gid=1001(web) groups=10(wheel),1001(web)\n/srv/web\n");
        assert_eq!(run("4000:50", &["wheel".into()]), "uid=4000 gid=50 groups=10(wheel),50\n/\n");
        assert_eq!(run("nope", &[]), "unable to find user nope: no matching entries in passwd file");
        assert_eq!(run("web:nope", &[]), "unable to find group nope: no matching entries in group file");
    });
}

#[test]
fn privileged_a_mount_point_that_is_a_link_out_of_the_root_stays_inside() {
    isolated(|| {
        let mut fixture = Fixture::new(&["cat", "/run/secret/file"]);
        let outside = fixture.dir.path().join("outside");
        let source = fixture.dir.path().join("source");
        fs::create_dir(&outside).unwrap();
        fs::write(&source, "shown\n").unwrap();
        // The image: /run is a link to a directory of the host, /linked climbs out.
        symlink(&outside, fixture.lower().join("run")).unwrap();
        symlink("../../../../../../../../../../../..", fixture.lower().join("linked")).unwrap();
        let bind = |destination: &str| Mount {
            destination: destination.into(),
            kind: "bind".into(),
            source: source.clone(),
            options: vec!["rbind".into(), "ro".into()],
            ..Mount::default()
        };
        fixture.spec.mounts.push(bind("/run/secret/file"));
        fixture.spec.mounts.push(bind("/linked/etc/climbed"));
        fixture.spec.process.args = ["cat", "/run/secret/file", "/etc/climbed"].map(str::to_owned).to_vec();
        assert_eq!(fixture.run().text, "shown\nshown\n");
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
        assert!(!std::path::Path::new("/etc/climbed").exists());
    });
}

#[test]
fn privileged_a_missing_bind_source_is_named() {
    isolated(|| {
        let mut fixture = Fixture::new(&["true"]);
        fixture.spec.mounts.push(Mount {
            destination: "/mnt".into(),
            kind: "bind".into(),
            source: "/nosuch/source".into(),
            options: vec!["rbind".into()],
            ..Mount::default()
        });
        let err = fixture.create(None, output_pipe().1).unwrap_err();
        let field = format!("mounts[{}].source", fixture.spec.mounts.len() - 1);
        assert_eq!(errdefs::chain(&err), format!("{field}: /nosuch/source: no such file or directory"));
    });
}

#[test]
fn privileged_descriptors_of_the_caller_do_not_reach_the_container() {
    isolated(|| {
        let leaked = fs::File::open("/").unwrap();
        sys::fd::inherit(leaked.as_fd()).unwrap();
        let (mut reader, Stdio::Fds(fds)) = output_pipe() else { unreachable!() };
        let fixture = Fixture::new(&["ls", "/proc/self/fd"]);
        let mut container = fixture.create(None, Stdio::Fds(fds)).unwrap();
        container.start().unwrap();
        let text = std::io::read_to_string(&mut reader).unwrap();
        // 3 is the directory that ls reads.
        assert_eq!(text, "0\n1\n2\n3\n");
        wait(container.pidfd.as_fd()).unwrap();
        container.destroy().unwrap();
    });
}
