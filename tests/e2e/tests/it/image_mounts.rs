//! `--mount type=image`: the files of an image in another one's container.

use testkit::Daemon;
use testkit::images::Archive;

use crate::support::{At, each};

/// Runs `test` with busybox and an image of two layers, by a name of the test's own.
fn with_layers(test: impl Fn(&At<'_>, &str)) {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    if !daemon.is_foreign() || daemon.get("/images/layers:latest/json").unwrap().status != 200 {
        daemon.load(Archive::Layers).unwrap();
    }
    each(&daemon, |at| {
        let image = at.image("layers");
        at.ok(&format!("tag layers {image}"));
        test(at, &image);
    });
}

#[test]
fn privileged_an_image_is_seen_whole_or_in_part_and_never_written() {
    with_layers(|at, image| {
        let mount = |rest: &str| format!("--mount type=image,source={image},target=/a{rest}");
        let output = at.line(&format!("run --rm --network none {} busybox cat /a/opaque/visible", mount("")));
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(output.stderr, "WARNING: Image mount is an experimental feature\n");
        // What the upper layer hides is not there.
        assert_eq!(at.run(&format!("{} busybox ls /a/opaque", mount(""))), "visible");
        assert_eq!(at.run(&format!("{} busybox ls /a", mount(",image-subpath=opaque"))), "visible");
        let part = mount(",image-subpath=data/../opaque/visible");
        assert_eq!(at.run(&format!("{part} busybox stat -c %F /a")), "regular file");
        for rest in ["", ",readonly", ",image-subpath=data"] {
            let line = format!("run --rm --network none {} busybox touch /a/new", mount(rest));
            at.fails(&line, 1, "touch: /a/new: Read-only file system");
        }
        let name = at.name("missing");
        let line = format!("run --name {name} --network none {} busybox true", mount(",image-subpath=nosuch"));
        at.fails(&line, 127, "/nosuch: no such file or directory");
        assert_eq!(at.inspect(&name, "{{.State.ExitCode}}"), "128");
        at.remove(&name);
        at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_a_mounted_image_may_be_removed_and_stays_readable() {
    with_layers(|at, image| {
        let (one, two) = (at.name("one"), at.name("two"));
        at.ok(&format!("create --name {one} --network none --mount type=image,source={image},target=/a busybox cat /a/opaque/visible"));
        let shown =
            at.inspect(&one, "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}} {{.Propagation}}{{end}}");
        assert_eq!(shown, format!("image {image} /a false rprivate"));
        at.ok(&format!("rmi {image}"));
        if !at.daemon.is_foreign() {
            // The last name: nothing but the container has the layers now.
            at.ok("rmi layers");
        }
        at.ok(&format!("start -a {one}"));
        if at.daemon.is_foreign() {
            // There the layers go with the first container, and the second one never starts again.
            at.remove(&one);
            return;
        }
        at.start(&two, &format!("--volumes-from {one} busybox sleep 1000"));
        at.remove(&one);
        assert_eq!(at.ok(&format!("exec {two} ls /a/opaque")), "visible");
        at.ok(&format!("cp {two}:/a/opaque/visible {}", at.daemon.scratch().path().join("copied").display()));
        at.ok(&format!("stop -t 0 {two}"));
        at.ok(&format!("cp {two}:/a/opaque/visible {}", at.daemon.scratch().path().join("copied").display()));
        at.ok(&format!("start {two}"));
        at.remove(&two);
        at.daemon.load(Archive::Layers).unwrap();
    });
}

#[test]
fn privileged_an_image_that_is_not_there_is_not_mounted() {
    with_layers(|at, image| {
        at.ok(&format!("rmi {image}"));
        let body = format!(
            "{{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"HostConfig\":{{\"Mounts\":[{{\"Type\":\"image\",\"Source\":\"{image}\",\"Target\":\"/a\"}}]}}}}"
        );
        let answer = at.daemon.post("/v1.48/containers/create", &body).unwrap();
        assert_eq!((answer.status, answer.message()), (404, format!("No such image: {image}:latest")));
        let answer = at.daemon.post("/v1.47/containers/create", &body).unwrap();
        assert_eq!(answer.status, 400);
    });
}
