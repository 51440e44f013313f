use std::convert::Infallible;

use serde_json::json;

use super::*;

fn file(value: serde_json::Value) -> SpecFile {
    serde_json::from_value(value).unwrap()
}

fn vendor() -> SpecFile {
    file(json!({
        "cdiVersion": "0.6.0", "kind": "vendor.com/class",
        "devices": [
            {"name": "one", "containerEdits": {"env": ["A=one"], "deviceNodes": [{"path": "/dev/one", "permissions": "rw"}]}},
            {"name": "two", "containerEdits": {"env": ["A=two", "B=2"], "deviceNodes": [{"path": "/dev/one"}]}},
        ],
        "containerEdits": {
            "env": ["ALL=1"], "additionalGids": [0, 7],
            "mounts": [{"hostPath": "/opt/lib", "containerPath": "/lib/x", "options": ["ro", "bind"]}],
            "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "x"]}],
            "netDevices": [{"hostInterfaceName": "eth9", "name": "in"}],
        },
    }))
}

fn number_one(node: &Node) -> Result<Device, Infallible> {
    Ok(Device { kind: "c".into(), path: node.path.clone(), major: 1, minor: 9, ..Device::default() })
}

#[test]
fn devices_edit_the_specification_and_what_is_common_does_it_once() {
    let files = [(0, vendor())];
    let names = ["vendor.com/class=one".to_owned(), "vendor.com/class=two".to_owned()];
    let mut spec = Spec::default();
    spec.process.env = vec!["A=image".into(), "PATH=/bin".into()];
    spec.mounts = vec![Mount { destination: "/lib/x".into(), ..Mount::default() }];
    apply(&resolve(&names, &files).unwrap(), &mut spec, number_one).unwrap();
    assert_eq!(spec.process.env, ["A=two", "PATH=/bin", "ALL=1", "B=2"]);
    assert_eq!(spec.process.user.additional_gids, [7]);
    assert_eq!((spec.mounts.len(), spec.mounts[0].source.to_str()), (1, Some("/opt/lib")));
    assert_eq!(spec.hooks.unwrap().create_container.len(), 1);
    assert_eq!(spec.linux.net_devices["eth9"].name, "in");
    assert_eq!(spec.linux.devices.len(), 1, "the later one of two at one place");
    let rules: Vec<String> = spec.linux.resources.unwrap().devices.into_iter().map(|rule| rule.access).collect();
    assert_eq!(rules, ["rw", "rwm"]);
}

#[test]
fn a_later_directory_counts_and_two_in_one_exclude_each_other() {
    let mut late = vendor();
    late.devices[0].container_edits.env = vec!["A=late".into()];
    let one = ["vendor.com/class=one".to_owned()];
    let files = [(0, vendor()), (1, late.clone())];
    assert_eq!(resolve(&one, &files).unwrap()[1].env, ["A=late"]);
    let files = [(0, vendor()), (1, late.clone()), (1, late)];
    assert_eq!(resolve(&one, &files).unwrap_err(), RequestError::Unresolvable { names: one.to_vec() });
}

#[test]
fn requests_are_refused_in_dockerds_words() {
    let asked = |value: serde_json::Value, kinds: &[&str]| {
        let requests: Vec<DeviceRequest> = serde_json::from_value(json!([value])).unwrap();
        names(&requests, kinds).map_err(|err| err.to_string())
    };
    let no_gpu = "could not select device driver \"\" with capabilities: [[gpu]]";
    let all = json!({"Count": -1, "Capabilities": [["gpu"]]});
    let gpu = &["nvidia.com/gpu"];
    for (request, kinds, expected) in [
        (json!({"Driver": "cdi", "DeviceIDs": ["a/b=c", "x"]}), &[] as &[&str], Ok(vec!["a/b=c", "x"])),
        (json!({"Driver": "cdi", "Count": 1}), &[], Err("unexpected count in CDI device request")),
        (json!({"Driver": "cdi", "Options": {"a": "b"}}), &[], Err("unexpected options in CDI device request")),
        (
            json!({"Driver": "foo", "Count": 1}),
            gpu,
            Err("could not select device driver \"foo\" with capabilities: []"),
        ),
        (all.clone(), &[], Err(no_gpu)),
        (all.clone(), gpu, Ok(vec!["nvidia.com/gpu=all"])),
        (all, &["amd.com/gpu"], Ok(vec!["amd.com/gpu=all"])),
        (
            json!({"Count": 2, "Capabilities": [["x"], ["gpu", "utility"]]}),
            gpu,
            Ok(vec!["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
        ),
        (json!({"Driver": "nvidia", "DeviceIDs": ["7"]}), gpu, Ok(vec!["nvidia.com/gpu=7"])),
        (
            json!({"Driver": "nvidia", "Count": 1, "DeviceIDs": ["7"]}),
            gpu,
            Err("cannot set both Count and DeviceIDs on device request"),
        ),
    ] {
        let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect()).map_err(str::to_owned);
        assert_eq!(asked(request.clone(), kinds), expected, "{request}");
    }
    let missing = resolve(&["a.b/c=d".into(), "x".into()], &[]).unwrap_err();
    assert_eq!(missing.to_string(), "CDI device injection failed: unresolvable CDI devices a.b/c=d, x");
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let edits = |edits: serde_json::Value| json!({"cdiVersion": "0.6.0", "kind": "v/c", "devices": [{"name": "d", "containerEdits": edits}]});
    let place = "devices[0].containerEdits";
    for (value, expected) in [
        (json!({"cdiVersion": "0.6.0", "kind": "v", "devices": []}), "kind: \"v\" is not VENDOR/CLASS".to_owned()),
        (json!({"cdiVersion": "0.6.0", "kind": "v/-c", "devices": []}), "kind: \"v/-c\" is not".to_owned()),
        (json!({"cdiVersion": "0.6.0", "kind": "v/c", "devices": []}), "devices: there is none".to_owned()),
        (
            json!({"cdiVersion": "0.6.0", "kind": "v/c", "devices": [{"name": "a=b"}]}),
            "devices[0].name: \"a=b\"".to_owned(),
        ),
        (edits(json!({"env": ["A=b", "=x"]})), format!("{place}.env[1]: it is not NAME=VALUE")),
        (edits(json!({"deviceNodes": [{"path": "dev"}]})), format!("{place}.deviceNodes[0]: path: it is not absolute")),
        (edits(json!({"deviceNodes": [{"path": "/d", "type": "x"}]})), format!("{place}.deviceNodes[0]: type")),
        (
            edits(json!({"deviceNodes": [{"path": "/d", "permissions": "rx"}]})),
            format!("{place}.deviceNodes[0]: permissions"),
        ),
        (edits(json!({"mounts": [{"hostPath": "", "containerPath": "/x"}]})), format!("{place}.mounts[0]")),
        (edits(json!({"hooks": [{"hookName": "before", "path": "/x"}]})), format!("{place}.hooks[0]: hookName")),
        (edits(json!({"intelRdt": {}})), format!("{place}.intelRdt")),
    ] {
        let problem = file(value).check().unwrap_err().to_string();
        assert!(problem.starts_with(&expected), "{problem:?}, not {expected:?}");
    }
    vendor().check().unwrap();
    assert!(serde_json::from_value::<SpecFile>(json!({"kind": "v/c", "unknown": 1})).is_err());
}
