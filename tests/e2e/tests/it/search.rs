//! Registries that are searched.

use testkit::registry::{Answer, Request, Server};

use crate::support::{At, on_both};

const RESULTS: &str = r#"{"num_results":3,"query":"x","results":[
    {"name":"library/one","description":"The first\nof all of them, whose description is longer than what fits","star_count":70,"is_official":true,"is_automated":true},
    {"name":"some/two","description":"","star_count":7,"is_official":false},
    {"name":"three","description":"<third>","star_count":0,"is_official":false}]}"#;

/// A registry of the first protocol.
fn searched() -> Server {
    Server::start(|request: &Request| match request.path.split('?').next() {
        Some("/v1/_ping") => Answer::new(200, "true"),
        Some("/v1/search") if request.path.contains("q=broken") => Answer::new(200, "<html>"),
        Some("/v1/search") if request.path.contains("q=secret") && request.header("authorization").is_none() => {
            Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\"")
        }
        Some("/v1/search") => Answer::new(200, RESULTS),
        _ => Answer::new(404, ""),
    })
}

#[test]
fn privileged_a_registry_is_searched() {
    on_both(|at| {
        let server = searched();
        let host = server.host();
        let lines = |line: &str| -> Vec<String> {
            let told = at.ok(&format!("search {line}"));
            told.lines().map(|line| line.trim_end().to_owned()).collect()
        };
        assert_eq!(
            lines(&format!("'{host}/some thing'")),
            [
                "NAME          DESCRIPTION                                     STARS     OFFICIAL",
                "library/one   The first of all of them, whose description …   70        [OK]",
                "some/two                                                      7",
                "three         <third>                                         0",
            ]
        );
        let asked = server.requests("/v1/search");
        assert!(asked.last().unwrap().path.starts_with("/v1/search?q=some"), "{asked:?}");
        assert!(asked.last().unwrap().path.ends_with("thing&n=25"), "{asked:?}");
        assert_eq!(
            lines(&format!("--limit 3 --format '{{{{.Name}}}}' -f stars=7 {host}/x")),
            ["library/one", "some/two"]
        );
        assert!(server.requests("/v1/search").last().unwrap().path.ends_with("?q=x&n=3"));
        assert_eq!(
            lines(&format!("-f is-official=true --format '{{{{.Name}}}} {{{{.IsOfficial}}}}' {host}/x")),
            ["library/one [OK]"]
        );
        assert_eq!(lines(&format!("-f is-official=false -f stars=1 --format '{{{{.StarCount}}}}' {host}/x")), ["7"]);
        assert_eq!(
            lines(&format!("--no-trunc -f stars=70 --format json {host}/x")),
            [
                r#"{"Description":"The first of all of them, whose description is longer than what fits","IsOfficial":"true","Name":"library/one","StarCount":"70"}"#
            ]
        );
        assert_eq!(lines(&format!("-f is-automated=true --format '{{{{.Name}}}}' {host}/x")), [""; 0]);
        logged_in(at, &server);
    });
}

/// Who has a login shows it.
fn logged_in(at: &At<'_>, server: &Server) {
    let host = server.host();
    at.fails(&format!("search {host}/secret"), 1, "Unexpected status code 401");
    let config = tempfile::tempdir().unwrap();
    std::fs::write(config.path().join("config.json"), format!(r#"{{"auths":{{"{host}":{{"auth":"dTpw"}}}}}}"#))
        .unwrap();
    let mut command = at.command(&format!("search --format '{{{{.Name}}}}' -f stars=70 {host}/secret"));
    command.env("DOCKER_CONFIG", config.path());
    assert_eq!(testkit::process::run(&mut command, b"").unwrap().success().unwrap(), "library/one");
    let asked = server.requests("q=secret");
    assert_eq!(asked.last().unwrap().header("authorization"), Some("Basic dTpw"));
}

#[test]
fn privileged_what_cannot_be_searched_is_told_in_dockerds_words() {
    on_both(|at| {
        let (server, silent) = (searched(), std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        let host = server.host();
        let nobody = format!(
            "invalid registry endpoint \"http://{silent}/v1/\". HTTPS attempt: Get \"https://{silent}/v1/_ping\": dial tcp \
             {silent}: connect: connection refused. HTTP attempt: Get \"http://{silent}/v1/_ping\": dial tcp {silent}: \
             connect: connection refused"
        );
        for (line, sentence) in [
            (format!("search {silent}/x"), nobody.as_str()),
            (format!("search --limit 101 {host}/x"), "limit 101 is outside the range of [1, 100]"),
            (format!("search -f foo=1 {host}/x"), "invalid filter 'foo'"),
            (
                format!("search -f stars=many {host}/x"),
                "invalid filter 'stars=many': strconv.Atoi: parsing \"many\": invalid syntax",
            ),
            (format!("search -f is-official=x {host}/x"), "invalid filter 'is-official=[x]'"),
            (format!("search http://{host}/x"), "should not have a scheme"),
            (format!("search {host}/broken"), "error decoding registry search results: "),
        ] {
            at.fails(&line, 1, sentence);
        }
        let get = |query: &str| at.daemon.get(&format!("/v1.47/images/search?{query}")).unwrap();
        let refused = get(&format!("term={host}/x&limit=x"));
        let sentence = r#"{"message":"invalid limit specified: strconv.Atoi: parsing \"x\": invalid syntax"}"#;
        assert_eq!((refused.status, refused.text().trim()), (400, sentence));
        let found = get(&format!("term={host}/x&limit=1&filters=%7B%22stars%22:%5B%2270%22%5D%7D")).text();
        assert!(
            found.starts_with(r#"[{"star_count":70,"is_official":true,"name":"library/one","is_automated":false,"#),
            "{found}"
        );
    });
}
