//! `--use-api-socket`: a container that speaks with the daemon, with the logins of whoever started it.

use std::fs;

use crate::support::on_both;

#[test]
fn privileged_a_container_gets_the_socket_and_the_logins() {
    on_both(|at| {
        let name = at.name("speaks");
        let directory = at.daemon.scratch().home().join(".docker");
        fs::create_dir_all(&directory).unwrap();
        let text = r#"{"auths":{"a.test":{"auth":"dXNlcjpwYTpzcw=="}},"detachKeys":"ctrl-x"}"#;
        fs::write(directory.join("config.json"), text).unwrap();
        let program =
            "sh -c 'test -S /var/run/docker.sock && echo socket; echo $DOCKER_CONFIG; cat $DOCKER_CONFIG/config.json'";
        at.ok(&format!("create --name {name} --network none --use-api-socket busybox {program}"));
        let mounts = at.inspect(&name, "{{json .HostConfig.Mounts}}");
        let socket = at.daemon.socket().display();
        let bind =
            format!(r#"[{{"Type":"bind","Source":"{socket}","Target":"/var/run/docker.sock","BindOptions":{{}}}}]"#);
        assert_eq!(mounts, bind);
        let printed = at.ok(&format!("start -a {name}"));
        let logins = "{\n\t\"auths\": {\n\t\t\"a.test\": {\n\t\t\t\"auth\": \"dXNlcjpwYTpzcw==\"\n\t\t}\n\t}\n}";
        assert_eq!(printed, format!("socket\n/run/secrets/docker\n{logins}"));
        at.remove(&name);
        // Whoever says where they are has brought them.
        let printed = at.run(
            "--use-api-socket -e DOCKER_CONFIG=/mine busybox sh -c 'echo $DOCKER_CONFIG; ls /run/secrets 2>&1; true'",
        );
        assert!(printed.starts_with("/mine\nls: "), "{printed}");
        fs::remove_file(directory.join("config.json")).unwrap();
        assert_eq!(at.run("--use-api-socket busybox sh -c 'echo $DOCKER_CONFIG.'"), ".");
        let sentence =
            "flag --use-api-socket can only be used with unix sockets: docker endpoint tcp://127.0.0.1:1 incompatible";
        at.fails("-H tcp://127.0.0.1:1 run --rm --use-api-socket busybox true", 125, sentence);
    });
}
