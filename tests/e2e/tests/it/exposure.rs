//! Who reaches which port, which Docker does not tell.

use testkit::Cli;

use crate::support::{At, ours};

#[test]
fn privileged_who_reaches_which_port_is_told() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let mode = "com.docker.network.bridge.gateway_mode_ipv4";
        at.ok(&format!("network create -o {mode}=routed routed"));
        at.ok(&format!("network create -o {mode}=nat-unprotected open"));
        at.ok("run -d --name aa -p 127.0.0.1::80 -p 81 busybox sleep 1000");
        at.ok("run -d --name bb --network routed -p 80 busybox sleep 1000");
        at.ok("run -d --name cc --network open busybox sleep 1000");
        at.ok("run -d --name dd --network host busybox sleep 1000");
        at.ok("run -d --name ee busybox sleep 1000");
        at.ok("create --name ff -p 80 busybox");
        let port = |name: &str, port: &str| at.ok(&format!("port {name} {port}")).lines().next().unwrap().to_owned();
        let told = at.ok("port --exposure --format '{{.Name}} {{.Port}} {{.Address}} {{.By}} {{.Reach}}'");
        let address = |name: &str, network: &str| {
            at.inspect(name, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"))
        };
        let [a80, a81] = [port("aa", "80"), port("aa", "81")];
        let number = |address: &str| address.rsplit(':').next().unwrap().to_owned();
        let relayed = at.ok("port bb 80").lines().nth(1).unwrap().to_owned();
        let expected = [
            format!("aa 80/tcp {a80} rule host"),
            format!("aa 81/tcp {a81} rule everybody"),
            format!("aa 81/tcp [::]:{} relay everybody", number(&a81)),
            format!("bb 80/tcp {}:80 direct everybody", address("bb", "routed")),
            format!("bb 80/tcp {relayed} relay everybody"),
            format!("cc * {} direct everybody", address("cc", "open")),
            "dd * * direct everybody".to_owned(),
        ];
        let mut lines: Vec<&str> = told.lines().collect();
        lines.sort_by_key(|line| expected.iter().position(|one| one == line));
        assert_eq!(lines, expected, "not ee, which publishes nothing, nor ff, which does not run");
        let one = at.ok("port --exposure aa");
        assert!(
            one.starts_with("CONTAINER ") && one.lines().count() == 4 && one.contains("this machine alone"),
            "{one}"
        );
        let json: serde_json::Value =
            serde_json::from_str(at.ok("port --exposure --format json cc").lines().next().unwrap()).unwrap();
        assert_eq!((&json["Network"], &json["Family"]), (&"open".into(), &"ipv4".into()));
        at.fails("port --exposure nosuch", 1, "No such container: nosuch");
        at.fails("port --exposure aa bb", 1, "requires at most 1 argument");
        at.fails("port", 1, "requires at least 1 and at most 2 arguments");
        at.ok("rm -f aa bb cc dd ee ff");
        at.ok("network rm routed open");
    });
}
