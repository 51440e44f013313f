use std::time::Duration;

use super::engine::{Engine, Peer, Sample};
use super::report::{Verdict, left_out, table, verdict};
use super::rows::{Bound, ROWS};
use super::runner::{Measured, Series, Values};
use super::{chosen, cpu, parse};

fn times(engine: &str, wall: &[u64], cpu: u64) -> Series {
    let sample = |wall: &u64| Sample { wall: Duration::from_millis(*wall), cpu: Duration::from_millis(cpu) };
    Series { engine: engine.into(), values: Values::Time(wall.iter().map(sample).collect()) }
}

fn measured(bound: Bound, series: Vec<Series>) -> Measured {
    Measured { row: "row", bound, series }
}

/// A part of wall and of CPU.
fn both(part: f64) -> Bound {
    Bound::OfDocker { wall: part, cpu: Some(part) }
}

#[test]
fn options_are_parsed_and_wrong_ones_refused() {
    let options = parse(&["--peer", "docker=docker -H unix:///d@x/y", "--runs", "5", "--only", "exec"]).unwrap();
    let peer = Peer {
        name: "docker".into(),
        prefix: ["docker", "-H", "unix:///d"].map(str::to_owned).to_vec(),
        cgroup: Some("x/y".into()),
    };
    assert_eq!((options.peers, options.runs, options.only), (vec![peer], 5, vec!["exec".to_owned()]));
    assert_eq!(Peer::parse("podman=podman").unwrap().cgroup, None);
    let pull = parse(&["--registry", "/r", "--peer-registry", "127.0.0.1:5000", "--only", "pull"]).unwrap();
    assert_eq!(
        (pull.registry.as_deref(), pull.peer_registry.as_deref()),
        (Some("/r".as_ref()), Some("127.0.0.1:5000"))
    );
    for wrong in [&["--only", "nothing"] as &[_], &["--peer", "docker"], &["--peer", "=x"], &["--runs", "0"], &["--x"]]
    {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_promise_is_kept_only_in_wall_and_cpu() {
    let docker = || times("docker", &[100, 120, 110], 120);
    for (ours, bound, expected) in [
        (times("longshore", &[8, 9, 300], 10), both(1.0 / 12.0), Verdict::Kept),
        (times("longshore", &[8, 9, 300], 11), both(1.0 / 12.0), Verdict::Broken),
        (times("longshore", &[10, 10, 8], 1), both(1.0 / 12.0), Verdict::Broken),
        (times("longshore", &[9], 500), Bound::OfDocker { wall: 1.0 / 12.0, cpu: None }, Verdict::Kept),
        (times("longshore", &[38], 70), Bound::OfCrun { wall: 0.35, cpu: Some(0.6) }, Verdict::Unknown),
        (times("longshore", &[3], 0), Bound::WallMs(3.0), Verdict::Kept),
        (times("longshore", &[4], 0), Bound::WallMs(3.0), Verdict::Broken),
    ] {
        assert_eq!(verdict(&measured(bound, vec![ours, docker()])), expected);
    }
    let crun = || times("crun", &[10], 10);
    for (wall, cpu, expected) in [(3, 6, Verdict::Kept), (4, 6, Verdict::Broken), (3, 7, Verdict::Broken)] {
        let bound = Bound::OfCrun { wall: 0.35, cpu: Some(0.6) };
        assert_eq!(verdict(&measured(bound, vec![times("longshore", &[wall], cpu), crun()])), expected);
    }
    for (ours, buildah, expected) in [(50, 100, Verdict::Kept), (51, 100, Verdict::Broken), (61, 400, Verdict::Broken)]
    {
        let bound = Bound::OfBuilders { wall: 0.5, ms: Some(60.0) };
        let series = vec![times("longshore", &[ours], 1), times("docker", &[500], 1), times("buildah", &[buildah], 1)];
        assert_eq!(verdict(&measured(bound, series.clone())), expected);
        assert_eq!(verdict(&measured(bound, series[..1].to_vec())), Verdict::Unknown);
    }
    let kib = |engine: &str, kib| Series { engine: engine.into(), values: Values::Kib(vec![kib]) };
    for (ours, expected) in [(3700.0, Verdict::Kept), (3701.0, Verdict::Broken)] {
        assert_eq!(verdict(&measured(Bound::KibOfCrun, vec![kib("longshore", ours), kib("crun", 3700.0)])), expected);
    }
    for (ours, cpu, expected) in [(110, 21, Verdict::Kept), (110, 22, Verdict::Broken), (113, 20, Verdict::Broken)] {
        let bound = Bound::OfVeth { wall: 1.0 / 0.9, cpu: 1.05 };
        let plain = |engine, wall| times(engine, &[wall], 20);
        let rest = [plain("docker", 112), plain("veth", 100), plain("bare", 50)];
        let series = [&[times("longshore", &[ours], cpu)][..], &rest].concat();
        assert_eq!(verdict(&measured(bound, series.clone())), expected);
        // One peer that is faster is one too many.
        let faster = [&series[..1], &[plain("podman", 109)], &rest].concat();
        assert_eq!(verdict(&measured(bound, faster)), Verdict::Broken);
    }
    let alone = measured(both(0.5), vec![times("longshore", &[1], 1)]);
    assert_eq!(verdict(&alone), Verdict::Unknown);
    let memory = Series { engine: "longshore".into(), values: Values::Kib(vec![300.0]) };
    assert_eq!(verdict(&measured(Bound::Kib(256.0), vec![memory])), Verdict::Broken);
}

#[test]
fn a_row_that_needs_a_registry_is_left_out_without_one() {
    let names = |arguments: &[&str]| -> anyhow::Result<Vec<&str>> {
        Ok(chosen(&parse(arguments)?)?.iter().map(|row| row.name).collect())
    };
    let of_runtimes = names(&[]).map(|_| ROWS.iter().filter(|row| row.name.starts_with("oci-")).count()).unwrap();
    assert_eq!(names(&[]).unwrap().len(), ROWS.len() - of_runtimes - 5 - 6 - 6);
    let whole =
        ["--registry", "/r", "--archive", "/a", "--net-archive", "/n", "--contexts", "/c", "--runtime", "crun=crun"];
    assert_eq!(names(&whole).unwrap().len(), ROWS.len());
    assert_eq!(names(&["--only", "oci-run"]).unwrap(), ["oci-run"]);
    assert_eq!(names(&["--registry", "/r", "--only", "pull"]).unwrap(), ["pull"]);
    assert_eq!(names(&["--only", "pull"]).unwrap_err().to_string(), "pull needs --registry");
    for row in ["load", "save", "push", "daemon-peak"] {
        assert_eq!(names(&["--only", row]).unwrap_err().to_string(), format!("{row} needs --archive"));
    }
    assert_eq!(names(&["--only", "build-cached"]).unwrap_err().to_string(), "build-cached needs --contexts");
    assert_eq!(left_out(&[], &parse(&["--only", "exec"]).unwrap()), "");
}

#[test]
fn what_a_peer_cannot_do_is_said() {
    let both = |row, peer: Option<&str>| {
        let series = ["longshore"].into_iter().chain(peer).map(|engine| times(engine, &[1], 1)).collect();
        Measured { row, bound: Bound::WallMs(1.0), series }
    };
    let options = parse(&["--peer", "podman=podman", "--only", "exec"]).unwrap();
    let results = [both("exec", Some("podman")), both("cli-docker", None), both("ready-200", None)];
    assert_eq!(left_out(&results, &options), "podman is not measured in: cli-docker, ready-200\n");
}

#[test]
fn the_way_into_a_peers_namespaces_is_known() {
    let engine = |prefix: &str| Engine {
        name: "podman".into(),
        prefix: prefix.split(' ').map(str::to_owned).collect(),
        environment: Vec::new(),
        cgroups: Vec::new(),
        registry: None,
    };
    let way_in = |prefix: &str| engine(prefix).way_in().map(|way_in| way_in.prefix.join(" "));
    assert_eq!(way_in("/bin/nsenter -t 1 -m -- podman").as_deref(), Some("/bin/nsenter -t 1 -m --"));
    assert_eq!(way_in("docker -H unix:///x"), None);
    let part = Measured { row: "nsenter", bound: Bound::Part, series: vec![times("podman", &[1], 1)] };
    assert!(table(&[part]).contains("a part of each of its figures"));
}

#[test]
fn the_table_has_medians_spreads_and_ratios() {
    let series = vec![times("longshore", &[4, 2, 6, 8], 3), times("docker", &[50], 30)];
    let text = table(&[measured(both(0.5), series)]);
    for part in ["longshore       4 ", "5.0 [2.0 - 8.0]", "at most 1/2 of docker: kept", "wall x10.0, CPU x10.0"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn rows_have_names_of_their_own() {
    let mut names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ROWS.len());
}

#[test]
fn privileged_a_sample_counts_the_cpu_of_all_processes() {
    if testkit::skip::without_root() {
        return;
    }
    let accounts = cpu::Accounts::new().unwrap();
    let cgroup = accounts.enter("client").unwrap();
    let engine = Engine {
        name: "shell".into(),
        prefix: vec!["sh".into(), "-c".into()],
        environment: Vec::new(),
        cgroups: vec![cgroup],
        registry: None,
    };
    let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let idle = engine.sample(&["true".into()]).unwrap();
    // The work is in a grandchild.
    let busy = engine.sample(&[format!("sh -c '{spin}'")]).unwrap();
    assert!(busy.cpu > idle.cpu * 3, "{busy:?} {idle:?}");
    assert!(engine.sample(&["exit 3".into()]).is_err());
}
