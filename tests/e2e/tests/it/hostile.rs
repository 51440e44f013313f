//! Bad requests: Docker's status and sentence, and nothing left behind.

use testkit::{Daemon, http};

/// A daemon whose list of containers must be the same at the end.
fn unchanged(test: impl Fn(&Daemon)) {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    test(&daemon);
    assert_eq!(daemon.get("/_ping").unwrap().status, 200);
    if !daemon.is_foreign() {
        assert_eq!(daemon.get("/containers/json?all=1").unwrap().text().trim(), "[]");
    }
}

#[test]
fn privileged_malformed_json_is_400_with_dockers_sentence() {
    unchanged(|daemon| {
        let wrong = |found: &str, place: &str| format!("invalid JSON: json: cannot unmarshal {found} into {place}");
        let character = |found: &str, place: &str| format!("invalid JSON: invalid character '{found}' {place}");
        for (body, sentence) in [
            ("{", "invalid JSON: unexpected EOF".to_owned()),
            ("", "invalid JSON: got EOF while reading request body".to_owned()),
            ("{\"Image\":\"busybox\"} trailing", "unexpected content after JSON".to_owned()),
            ("{}", "config cannot be empty in order to create a container".to_owned()),
            ("{\"Image\":\"no such image\"}", "invalid reference format".to_owned()),
            ("{\"Image\":null}", "no command specified".to_owned()),
            ("nope", character("o", "in literal null (expecting 'u')")),
            ("{\"Image\":\"a\nb\"}", character("\\n", "in string")),
            ("{\"Image\" 1}", character("1", "after object key")),
            ("[]", wrong("array", "Go value of type container.CreateRequest")),
            ("{\"image\":5}", wrong("number", "Go struct field .image of type string")),
            ("{\"Image\":\"busybox\",\"Env\":[1]}", wrong("number", ".Env.0 of type string")),
            ("{\"Cmd\":[1]}", wrong("array", "Go value of type string")),
            (
                "{\"Image\":\"busybox\",\"HostConfig\":{\"Memory\":\"x\"}}",
                wrong("string", "Go struct field .HostConfig.Memory of type int64"),
            ),
            (
                "{\"HostConfig\":{\"Memory\":1.5}}",
                wrong("number 1.5", "Go struct field .HostConfig.Memory of type int64"),
            ),
        ] {
            let answer = daemon.post("/v1.50/containers/create", body).unwrap();
            assert_eq!((answer.status, answer.message()), (400, sentence), "{body}");
        }
        let head =
            "POST /v1.50/containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: text/plain\r\n";
        let answer = http::raw(daemon.socket(), format!("{head}Content-Length: 2\r\n\r\n{{}}").as_bytes()).unwrap();
        let sentence = "unsupported Content-Type header (text/plain): must be 'application/json'";
        assert_eq!((answer.status, answer.message().as_str()), (400, sentence));
    });
}

#[test]
fn privileged_deep_and_huge_documents_are_refused() {
    unchanged(|daemon| {
        // Go's decoder allows 10,000 levels; whatever the limit is, the daemon must not run out of stack.
        let deep = format!("{{\"Image\":\"busybox\",\"Labels\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        let answer = daemon.post("/v1.50/containers/create", &deep).unwrap();
        assert_eq!(answer.status, 400, "{}", answer.text());
        let wide = format!("{{\"Image\":\"busybox\",\"Cmd\":[\"{}\"]}}", "x".repeat(64 << 20));
        match daemon.post("/v1.50/containers/create", &wide) {
            // Docker takes it; a limit of ours may refuse it. Either way the daemon goes on and nothing is kept.
            Ok(answer) if answer.status == 201 => {
                let id = answer.json().unwrap()["Id"].as_str().unwrap().to_owned();
                let removed = http::request(daemon.socket(), "DELETE", &format!("/containers/{id}"), None).unwrap();
                assert_eq!(removed.status, 204);
            }
            Ok(answer) => assert!(matches!(answer.status, 400 | 413), "{}", answer.status),
            Err(err) => println!("the connection was closed: {err:#}"),
        }
    });
}

#[test]
fn privileged_unknown_fields_are_ignored_as_docker_does() {
    unchanged(|daemon| {
        let answer = daemon.post("/v1.50/containers/create", "{\"Image\":\"busybox\",\"Nope\":{\"x\":[1]}}").unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
        let id = answer.json().unwrap()["Id"].as_str().unwrap().to_owned();
        let removed = http::request(daemon.socket(), "DELETE", &format!("/containers/{id}"), None).unwrap();
        assert_eq!(removed.status, 204);
    });
}

#[test]
fn privileged_a_container_may_be_made_of_no_image() {
    unchanged(|daemon| {
        let body = "{\"Image\":\"\",\"Cmd\":[\"x\"],\"HostConfig\":{\"NetworkMode\":\"none\"}}";
        let answer = daemon.post("/v1.50/containers/create", body).unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
        let id = answer.json().unwrap()["Id"].as_str().unwrap().to_owned();
        let inspected = daemon.get(&format!("/containers/{id}/json")).unwrap().json().unwrap();
        let image = (inspected["Image"].as_str(), inspected["Config"]["Image"].as_str(), inspected["Path"].as_str());
        assert_eq!(image, (Some(""), Some(""), Some("x")));
        let started = daemon.post(&format!("/containers/{id}/start"), "").unwrap();
        let sentence = "exec: \"x\": executable file not found in $PATH";
        assert_eq!(started.status, 400, "{}", started.text());
        assert!(started.message().contains(sentence), "{}", started.message());
        let removed = http::request(daemon.socket(), "DELETE", &format!("/containers/{id}"), None).unwrap();
        assert_eq!(removed.status, 204);
    });
}

/// Method, path, status, sentence.
const REQUESTS: [(&str, &str, u16, &str); 29] = [
    ("GET", "/containers/json?limit=x", 500, "strconv.Atoi: parsing \"x\": invalid syntax"),
    ("GET", "/containers/json?filters=x", 400, "invalid filter"),
    ("GET", "/containers/json?filters=%7B%22nope%22:%5B%22x%22%5D%7D", 400, "invalid filter 'nope'"),
    ("POST", "/containers/absent/stop?t=x", 500, "strconv.Atoi: parsing \"x\": invalid syntax"),
    ("POST", "/containers/absent/stop", 404, "No such container: absent"),
    ("POST", "/containers/absent/start", 404, "No such container: absent"),
    ("POST", "/containers/absent/restart", 404, "No such container: absent"),
    ("POST", "/containers/absent/rename?name=x", 404, "No such container: absent"),
    ("POST", "/containers/absent/resize?h=x&w=2", 400, "invalid resize height \"x\": invalid syntax"),
    ("POST", "/containers/absent/kill", 404, "cannot kill container: absent: No such container: absent"),
    ("POST", "/containers/absent/kill?signal=NOPE", 400, "cannot kill container: absent: invalid signal: NOPE"),
    ("POST", "/containers/absent/wait?condition=nope", 400, "invalid condition: \"nope\""),
    ("POST", "/containers/absent/wait", 404, "No such container: absent"),
    ("POST", "/containers/absent/attach", 404, "No such container: absent"),
    ("GET", "/containers/absent/json", 404, "No such container: absent"),
    ("GET", "/containers/absent/logs", 400, "Bad parameters: you must choose at least one stream"),
    ("GET", "/containers/absent/logs?stdout=1", 404, "No such container: absent"),
    ("DELETE", "/containers/absent", 404, "No such container: absent"),
    ("GET", "/exec/absent/json", 404, "No such exec instance: absent"),
    ("GET", "/images/absent/json", 404, "No such image: absent:latest"),
    ("GET", "/images/Absent/json", 400, "invalid reference format: repository name (library/Absent) must be lowercase"),
    ("POST", "/images/absent/tag?repo=x", 404, "No such image: absent:latest"),
    (
        "POST",
        "/images/busybox/tag?repo=UPPER",
        400,
        "invalid reference format: repository name (library/UPPER) must be lowercase",
    ),
    ("GET", "/images/json?filters=%7B%22dangling%22:%5B%22x%22%5D%7D", 400, "invalid filter 'dangling=[x]'"),
    ("POST", "/images/busybox/tag?repo=a&tag=-x", 400, "invalid tag format"),
    (
        "POST",
        "/images/Absent/tag?repo=x",
        404,
        "invalid reference format: repository name (library/Absent) must be lowercase",
    ),
    ("DELETE", "/images/absent", 404, "No such image: absent:latest"),
    ("GET", "/events?since=x", 500, "strconv.ParseInt: parsing \"x\": invalid syntax"),
    ("GET", "/events?filters=x", 400, "invalid filter"),
];

#[test]
fn privileged_bad_queries_and_unknown_names_have_dockers_status_and_sentence() {
    unchanged(|daemon| {
        let mut wrong = Vec::new();
        for (method, path, status, sentence) in REQUESTS {
            let answer = http::request(daemon.socket(), method, &format!("/v1.50{path}"), None).unwrap();
            // An attach that fails is told as plain text, after the point where JSON could be sent.
            let said = if path.ends_with("/attach") { answer.text().trim().to_owned() } else { answer.message() };
            if (answer.status, said.as_str()) != (status, sentence) {
                wrong.push(format!("{method} {path}: {} {}", answer.status, answer.text()));
            }
        }
        for (path, body, status, sentence) in [
            ("/containers/absent/exec", "{}", 400, "No exec command specified"),
            ("/containers/absent/exec", "{\"Cmd\":[\"x\"]}", 404, "No such container: absent"),
            (
                "/containers/absent/exec",
                "{\"Cmd\":\"x\"}",
                400,
                "invalid JSON: json: cannot unmarshal string into Go struct field ExecOptions.Cmd of type []string",
            ),
            ("/exec/absent/start", "{}", 404, "No such exec instance: absent"),
            (
                "/exec/absent/start",
                "{\"Tty\":1}",
                400,
                "invalid JSON: json: cannot unmarshal number into Go struct field ExecStartOptions.Tty of type bool",
            ),
            (
                "/containers/create?name=a/b",
                "{\"Image\":\"busybox\"}",
                400,
                "Invalid container name (a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            ),
        ] {
            let answer = daemon.post(&format!("/v1.50{path}"), body).unwrap();
            if (answer.status, answer.message().as_str()) != (status, sentence) {
                wrong.push(format!("POST {path} {body}: {} {}", answer.status, answer.text()));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn privileged_what_is_not_http_is_refused_and_the_daemon_goes_on() {
    unchanged(|daemon| {
        let big = "a".repeat(2 << 20);
        for (request, status) in [
            ("GARBAGE\r\n\r\n".to_owned(), &[400][..]),
            ("GET /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: x\r\n\r\n".to_owned(), &[400]),
            ("GET /_ping HTTP/1.1\r\nHost: d\r\nbad header\r\n\r\n".to_owned(), &[400]),
            (format!("GET /_ping HTTP/1.1\r\nHost: d\r\nX-Big: {big}\r\n\r\n"), &[431]),
            (format!("GET /{big} HTTP/1.1\r\nHost: d\r\n\r\n"), &[414, 431]),
        ] {
            let what = &request[..request.len().min(40)];
            let answer = http::raw(daemon.socket(), request.as_bytes()).unwrap_or_else(|err| panic!("{what}: {err:#}"));
            assert!(status.contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
            assert_eq!(daemon.get("/_ping").unwrap().status, 200, "{what}");
        }
        let header =
            format!("GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\nX-Big: {}\r\n\r\n", &big[..1_000_000]);
        assert_eq!(
            http::raw(daemon.socket(), header.as_bytes()).unwrap().status,
            200,
            "a header of a megabyte is taken"
        );
    });
}

#[test]
fn privileged_a_body_that_stops_in_the_middle_changes_nothing() {
    use std::io::{BufReader, Write};
    unchanged(|daemon| {
        let mut stream = http::connect(daemon.socket()).unwrap();
        let head = "POST /v1.50/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 500";
        write!(stream, "{head}\r\n\r\n{{\"Image\":\"busybox\"").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // An answer or none: what counts is that no container was made.
        if let Ok(answer) = http::read_response(&mut BufReader::new(stream)) {
            assert_eq!(answer.status, 400, "{}", answer.text());
        }
    });
}
