use std::io;

use super::*;
use crate::args::{self, tables};

/// The request for a `run` line, as JSON.
fn plan(line: &str) -> Result<String, String> {
    let command = tables::find("run").expect("a command of the tables");
    let flag = |long: &str| command.all_flags().find(|flag| flag.long == long);
    let letter = |letter: char| command.all_flags().find(|flag| flag.short == Some(letter));
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let parsed = args::parse(&flag, &letter, false, &words).map_err(|err| err.to_string())?;
    let surroundings = Surroundings {
        read: &|path| match path {
            "env" => Ok(b"\xef\xbb\xbf# comment\r\nA=b\n\nHOME\nABSENT\n".to_vec()),
            "profile" => Ok(b"{ \"defaultAction\": 1 }".to_vec()),
            "latin" => Ok(b"OK=1\nA=\xff\n".to_vec()),
            "long" => Ok(vec![b'A'; 64 << 10]),
            "blank" => Ok(b"a b=1".to_vec()),
            "dir" => Err(io::ErrorKind::IsADirectory.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        },
        variable: &|name| (name == "HOME").then(|| "/root".to_owned()),
        directory: "/cwd",
    };
    let request = request(&parsed, &surroundings).map_err(|err| err.to_string())?;
    Ok(serde_json::to_string(&request).expect("a request is JSON"))
}

/// Sent by docker 28.2.2 for the same lines.
#[test]
fn requests_are_those_of_dockers_client() {
    let captured = include_str!("captured.txt");
    let mut lines = captured.lines();
    let mut count = 0;
    while let (Some(line), Some(body)) = (lines.next(), lines.next()) {
        assert_eq!(plan(line).as_deref(), Ok(body), "{line}");
        count += 1;
    }
    assert!(count >= 6);
}

#[test]
fn files_variables_and_paths() {
    let json = |line: &str| -> serde_json::Value { serde_json::from_str(&plan(line).unwrap()).unwrap() };
    let request = json("--env-file env -e HOME -e ABSENT -v ./a:/b --security-opt seccomp=profile i");
    assert_eq!(json("--label-file env i")["Labels"], serde_json::json!({"A": "b"}));
    assert_eq!(request["Env"], serde_json::json!(["A=b", "HOME=/root", "HOME=/root", "ABSENT"]));
    assert_eq!(request["HostConfig"]["Binds"], serde_json::json!(["/cwd/a:/b"]));
    assert_eq!(request["HostConfig"]["SecurityOpt"], serde_json::json!(["seccomp={\"defaultAction\":1}"]));
}

#[test]
fn sentences_are_dockers() {
    for (line, sentence) in [
        ("--pid x i", "--pid: invalid PID mode"),
        ("--rm --restart always i", "conflicting options: cannot specify both --restart and --rm"),
        ("--restart on-failure:x i", "invalid restart policy format: maximum retry count must be an integer"),
        ("--device x i", "x is not an absolute path"),
        ("--device /a:/b:z i", "bad mode specified: z"),
        ("--security-opt foo i", "Invalid --security-opt: \"foo\""),
        ("--env-file latin i", "invalid env file (latin): invalid utf8 bytes at line 2: [65 61 255]"),
        ("--env-file long i", "invalid env file (long): bufio.Scanner: token too long"),
        ("--env-file dir i", "invalid env file (dir): read dir: is a directory"),
        ("--label-file blank i", "invalid env file (blank): variable 'a b' contains whitespaces"),
        (
            "--security-opt seccomp=blank i",
            "compacting json for seccomp profile (blank) failed: invalid character 'a' looking for beginning of value",
        ),
        ("--security-opt seccomp=dir i", "opening seccomp profile (dir) failed: read dir: is a directory"),
        ("-v /tmp::/x i", "invalid spec: /tmp::/x: empty section between colons"),
        ("--security-opt seccomp=no i", "opening seccomp profile (no) failed: open no: entity not found"),
        ("--log-driver none --log-opt a=b i", "invalid logging opts for driver none"),
    ] {
        assert_eq!(plan(line).unwrap_err(), sentence);
    }
}
