use std::fmt::Write as _;

use super::*;
use crate::validate::InvalidRequest;

/// A request's mounts, one a line: place, kind, source or name, mode, what else there is.
fn planned(request: &str, shared: &[Shared<'_>]) -> Result<Vec<(Point, Ready)>, InvalidRequest> {
    let request: engine_api::container::CreateRequest = engine_api::json::decode(request.as_bytes()).unwrap();
    let mut next = 0;
    let mut fresh = || {
        next += 1;
        format!("fresh{next}")
    };
    plan_points(&request.config, &request.host_config.unwrap_or_default(), shared, &mut fresh)
}

#[track_caller]
fn check(request: &str, shared: &[Shared<'_>], expected: &str) {
    let lines = match planned(request, shared) {
        Err(err) => err.to_string(),
        Ok(planned) => planned.iter().fold(String::new(), |mut lines, (point, ready)| {
            let shown = &point.shown;
            let what = if shown.name.is_empty() { &shown.source } else { &shown.name };
            write!(lines, "{} {} {what} {:?}", shown.destination, shown.kind, shown.mode).unwrap();
            for (word, holds) in [
                ("ro", !shown.rw),
                ("anonymous", point.anonymous),
                ("no-create", !point.create_source),
                ("shared", *ready == Ready::Shared),
                ("fill", matches!(ready, Ready::Volume(VolumeWish { fill: true, .. }))),
                ("no-file", matches!(ready, Ready::Volume(VolumeWish { refuse_file: true, .. }))),
            ] {
                if holds {
                    write!(lines, " {word}").unwrap();
                }
            }
            lines + "\n"
        }),
    };
    assert_eq!(lines, expected, "{request}");
}

#[test]
fn mounts_are_decided_as_dockerd_decides_them() {
    let check = |request, expected| check(request, &[], expected);
    check(r#"{"Volumes":{"/a/../b":{}}}"#, "/b volume fresh1 \"\" anonymous fill no-file\n");
    check(r#"{"HostConfig":{"Binds":["data:/x"]}}"#, "/x volume data \"z\" fill\n");
    check(r#"{"HostConfig":{"Binds":["/x/"]}}"#, "/x volume fresh1 \"z\" anonymous fill\n");
    check(r#"{"Volumes":{"/x":{}},"HostConfig":{"Binds":["/x"]}}"#, "/x volume fresh1 \"z\" anonymous fill\n");
    check(r#"{"HostConfig":{"Binds":["/x","/tmp:/x"]}}"#, "Duplicate mount point: /x");
    check(r#"{"HostConfig":{"Binds":["data:/x:ro,nocopy"]}}"#, "/x volume data \"ro,nocopy\" ro\n");
    check(r#"{"HostConfig":{"Binds":["/tmp:/x:ro"]}}"#, "/x bind /tmp \"ro\" ro\n");
    check(r#"{"Volumes":{"/x":{}},"HostConfig":{"Binds":["data:/x"]}}"#, "/x volume data \"z\" fill\n");
    check(r#"{"Volumes":{"/x":{}},"HostConfig":{"Tmpfs":{"/x/":""}}}"#, "");
    check(r#"{"HostConfig":{"Mounts":[{"Type":"volume","Target":"/x"}]}}"#, "/x volume fresh1 \"z\" anonymous fill\n");
    check(
        r#"{"HostConfig":{"Mounts":[{"Type":"volume","Source":"d","Target":"/x","VolumeOptions":{"Subpath":"a/../b"}}]}}"#,
        "/x volume d \"z\"\n",
    );
    check(
        r#"{"HostConfig":{"Mounts":[{"Type":"image","Source":"busybox","Target":"/x","ImageOptions":{"Subpath":"a/../b"}}]}}"#,
        "/x image busybox \"\" ro\n",
    );
    check(r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/x"}]}}"#, "/x bind /a \"\" no-create\n");
    // A tmpfs of the short form covers a mount of the long form, which is not refused.
    check(
        r#"{"HostConfig":{"Tmpfs":{"/x":""},"Mounts":[{"Type":"volume","Source":"d","Target":"/x"}]}}"#,
        "/x volume d \"z\" fill\n",
    );
    check(r#"{"HostConfig":{"Binds":["a1:/x"],"Tmpfs":{"/x":""}}}"#, "Duplicate mount point: /x");
    check(r#"{"HostConfig":{"Binds":["a1:/x","a2:/x/"]}}"#, "Duplicate mount point: /x");
    check(
        r#"{"HostConfig":{"Binds":["a1:/x"],"Mounts":[{"Type":"tmpfs","Target":"/x"}]}}"#,
        "Duplicate mount point: /x",
    );
    check(
        r#"{"HostConfig":{"Mounts":[{"Type":"volume","Target":"/x","ReadOnly":true}]}}"#,
        "invalid mount config for type \"volume\": must not set ReadOnly mode when using anonymous volumes",
    );
    check(
        r#"{"HostConfig":{"Mounts":[{"Type":"volume","Target":"/x","VolumeOptions":{"Subpath":"a"}}]}}"#,
        "invalid mount config for type \"volume\": must not set Subpath when using anonymous volumes",
    );
    check(
        r#"{"HostConfig":{"Mounts":[{"Type":"volume","Source":"d","Target":"/x","VolumeOptions":{"Subpath":"../a"}}]}}"#,
        "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
    );
    check(
        r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/a","Target":"/x","BindOptions":{"Propagation":"rslave"}}]}}"#,
        "/x bind /a \"\" no-create\n",
    );
}

#[test]
fn mounts_of_other_containers_give_way_to_ones_own() {
    let points = |request| planned(request, &[]).unwrap().into_iter().map(|(point, _)| point).collect::<Vec<_>>();
    let one = points(r#"{"Volumes":{"/v":{}},"HostConfig":{"Binds":["data:/d:rw","/tmp:/t"]}}"#);
    let two = points(r#"{"HostConfig":{"Binds":["other:/d"],"Mounts":[{"Type":"tmpfs","Target":"/m"}]}}"#);
    let (one, two) = (Shared { points: &one, writable: false }, Shared { points: &two, writable: true });
    check(
        r#"{"Volumes":{"/v":{},"/w":{}},"HostConfig":{"Binds":["own:/t"]}}"#,
        &[one, two],
        "/v volume fresh1 \"\" ro anonymous shared\n/d volume other \"\" shared\n/m tmpfs  \"\"\n/t volume own \"z\" fill\n\
         /w volume fresh1 \"\" anonymous fill no-file\n",
    );
    check(
        "{}",
        &[two, one],
        "/m tmpfs  \"\"\n/d volume data \"\" ro shared\n/t bind /tmp \"\" ro\n/v volume fresh1 \"\" ro anonymous shared\n",
    );
}

#[test]
fn a_point_is_kept_in_a_record() {
    let request = r#"{"Volumes":{"/v":{}},"HostConfig":{"Binds":["/tmp:/t"],"Mounts":[{"Type":"tmpfs","Target":"/m",
        "TmpfsOptions":{"SizeBytes":1024}},{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"NonRecursive":true}},
        {"Type":"volume","Source":"d","Target":"/p","VolumeOptions":{"Subpath":"a/b"}}]}}"#;
    for (point, _) in planned(request, &[]).unwrap() {
        let text = serde_json::to_string(&point).unwrap();
        assert_eq!(serde_json::from_str::<Point>(&text).unwrap(), point, "{text}");
    }
    // What the first version of the record held.
    let old = r#"{"Type":"bind","Source":"/tmp","Destination":"/t","Mode":"","RW":true,"Propagation":"rprivate"}"#;
    let point: Point = serde_json::from_str(old).unwrap();
    assert_eq!((point.shown.source.as_str(), point.create_source, point.anonymous), ("/tmp", true, false));
}
