//! `images`, `tag`, `rmi`: names of images, and what holds an image.

use testkit::images::Archive;

use crate::support::{At, on_both, ours};

/// Runs `test` with each command line and an image of its own, `layers:latest`, which it may remove.
fn with_own_image(test: impl Fn(&At<'_>, &str)) {
    ours(|daemon| {
        for cli in daemon.clis() {
            println!("with {cli:?}");
            daemon.load(Archive::Layers).unwrap();
            let at = At { daemon, cli };
            let id = at.inspect("layers", "{{.Id}}");
            test(&at, &id);
        }
    });
}

/// The first 12 digits, as sentences have them.
fn short(id: &str) -> &str {
    &id.trim_start_matches("sha256:")[..12]
}

#[test]
fn privileged_tags_are_names_of_one_image() {
    on_both(|at| {
        let (plain, versioned) = (at.image("plain"), at.image("versioned"));
        let far = format!("registry.example:5000/deep/{plain}:x");
        at.ok(&format!("tag busybox {plain}"));
        at.ok(&format!("tag busybox:latest {versioned}:v1"));
        at.ok(&format!("tag {plain} {far}"));
        let listed = |line: &str| at.ok(&format!("images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' {line}"));
        assert_eq!(listed(&plain), format!("{plain}:latest"));
        assert_eq!(listed(&format!("{versioned}:v1")), format!("{versioned}:v1"));
        assert_eq!(listed(&format!("{versioned}:v2")), "");
        assert_eq!(listed("registry.example:5000/deep/*"), far);
        // Docker's client keeps the repositories of an image in a map of Go's: their order is chance.
        let sorted = |line: &str| listed(line).lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        let wanted = [format!("{plain}:latest"), format!("{versioned}:v1")];
        for line in [format!("--filter reference=*{}", at.image("")), format!("*{}", at.image(""))] {
            assert_eq!(sorted(&line), wanted.clone().into(), "{line}");
        }
        let id = at.inspect("busybox", "{{.Id}}");
        assert_eq!(at.ok(&format!("images -q {plain}")), short(&id));
        assert_eq!(at.ok(&format!("images -q --no-trunc {versioned}")), id);
        assert_eq!(at.inspect(&plain, "{{.Id}}"), id);
        assert_eq!(at.run(&format!("{versioned}:v1 echo in")), "in");
        for name in [&plain, &far, &format!("{versioned}:v1")] {
            let removed = at.ok(&format!("rmi {name}"));
            let tagged = if name.contains(':') { name.clone() } else { format!("{name}:latest") };
            assert_eq!(removed, format!("Untagged: {tagged}"));
        }
        assert_eq!(at.inspect("busybox", "{{.Id}}"), id, "the last name keeps it");
    });
}

#[test]
fn privileged_what_is_no_name_or_no_image_is_refused() {
    on_both(|at| {
        let missing = at.image("missing");
        let no_image = format!("No such image: {missing}:latest");
        at.fails("tag busybox Upper", 1, "invalid reference format: repository name (library/Upper) must be lowercase");
        at.fails("tag busybox 'a:b c'", 1, "\"a:b c\" is not a valid repository/tag: invalid reference format");
        at.fails(&format!("tag {missing} {missing}-new"), 1, &no_image);
        at.fails(&format!("rmi {missing}"), 1, &no_image);
        // With --force, what is missing is only said.
        at.fails(&format!("rmi -f {missing}"), 0, &no_image);
        // One that is missing keeps no other from going.
        let there = at.image("there");
        at.ok(&format!("tag busybox {there}"));
        let output = at.line(&format!("rmi {missing} {there}"));
        assert_eq!((output.code, output.stdout), (1, format!("Untagged: {there}:latest\n")));
        assert!(output.stderr.contains(&no_image), "{}", output.stderr);
    });
}

#[test]
fn privileged_an_image_goes_with_its_last_name() {
    with_own_image(|at, id| {
        at.ok("tag layers second");
        assert_eq!(at.ok("rmi layers"), "Untagged: layers:latest");
        let removed = at.ok("rmi second");
        let lines: Vec<&str> = removed.lines().collect();
        assert_eq!(lines[..2], ["Untagged: second:latest", &format!("Deleted: {id}")]);
        // Both of its layers.
        assert!(lines.len() == 4 && lines[2..].iter().all(|line| line.starts_with("Deleted: sha256:")), "{removed}");
        at.fails(&format!("inspect {id}"), 1, "No such object");
        assert_eq!(at.ok("images -aq --filter dangling=true"), "");
    });
}

#[test]
fn privileged_an_id_stands_for_all_its_names_when_forced() {
    with_own_image(|at, id| {
        at.ok("tag layers second");
        let conflict = format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            short(id)
        );
        at.fails(&format!("rmi {id}"), 1, &conflict);
        let removed = at.ok(&format!("rmi -f {}", short(id)));
        let names = format!("Untagged: layers:latest\nUntagged: second:latest\nDeleted: {id}\n");
        assert!(removed.starts_with(&names), "{removed}");
        at.fails(&format!("inspect {id}"), 1, "No such object");
        // With one name only, its short id will do.
        at.daemon.load(Archive::Layers).unwrap();
        assert!(at.ok(&format!("rmi {}", short(id))).starts_with("Untagged: layers:latest\nDeleted: "));
    });
}

#[test]
fn privileged_a_stopped_container_holds_its_image_until_forced() {
    with_own_image(|at, id| {
        let container = at.ok("create --name holder --network none layers /x");
        let by_name = format!(
            "conflict: unable to remove repository reference \"layers\" (must force) - container {} is using its \
             referenced image {}",
            short(&container),
            short(id)
        );
        at.fails("rmi layers", 1, &by_name);
        let by_id = format!(
            "conflict: unable to delete {} (must be forced) - image is being used by stopped container {}",
            short(id),
            short(&container)
        );
        at.fails(&format!("rmi {id}"), 1, &by_id);
        // Another name may go.
        at.ok("tag layers second");
        assert_eq!(at.ok("rmi second"), "Untagged: second:latest");
        let removed = at.ok("rmi -f layers");
        assert_eq!(removed, format!("Untagged: layers:latest\nDeleted: {id}"), "the layers are the container's");
        assert_eq!(at.inspect("holder", "{{.Image}} {{.Config.Image}}"), format!("{id} layers"));
        at.ok("rm holder");
    });
}

#[test]
fn privileged_a_running_container_holds_its_image_even_when_forced() {
    ours(|daemon| {
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            let id = at.inspect("busybox", "{{.Id}}");
            at.start("holder", "busybox sleep 1000");
            let container = at.inspect("holder", "{{.Id}}");
            let by_id = format!(
                "conflict: unable to delete {} (cannot be forced) - image is being used by running container {}",
                short(&id),
                short(&container)
            );
            at.fails(&format!("rmi -f {id}"), 1, &by_id);
            assert_eq!(at.ok("exec holder echo in"), "in");
            at.remove("holder");
            // A refusal has taken no name.
            assert_eq!(at.inspect("busybox", "{{json .RepoTags}}"), "[\"busybox:latest\"]");
        }
    });
}

#[test]
fn privileged_an_image_for_another_machine_is_told() {
    on_both(|at| {
        let (image, name) = (at.image("foreign"), at.name("foreign"));
        let tar = tempfile::NamedTempFile::new().unwrap();
        // An archive of nothing.
        std::fs::write(tar.path(), [0; 1024]).unwrap();
        at.ok(&format!("import --platform linux/s390x {} {image}:1", tar.path().display()));
        let output = at.line(&format!("create --name {name} {image}:1 true"));
        assert_eq!(output.code, 0, "{output:?}");
        let host = output.stderr.strip_prefix(
            "WARNING: The requested image's platform (linux/s390x) does not match the detected host platform (linux/",
        );
        assert!(host.unwrap().ends_with(") and no specific platform was requested\n"), "{output:?}");
        at.remove(&name);
        let output = at.line(&format!("create --platform linux/s390x --name {name} {image}:1 true"));
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        at.remove(&name);
        at.ok(&format!("rmi {image}:1"));
    });
}
