use std::path::Path;

use super::*;

fn config(text: &str) -> ConfigFile {
    serde_json::from_str(text).unwrap()
}

/// Username, password, identity token and address of what is shown to the registry of `domain`.
fn shown(config: &ConfigFile, domain: &str) -> [String; 4] {
    let auth = look_up(config, domain).unwrap();
    [auth.username, auth.password, auth.identity_token, auth.server_address]
}

#[test]
fn logins_of_the_file_are_found_by_registry() {
    let config = config(
        r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "127.0.0.1:5000": {"auth": "dXNlcjpwYTpzcw==", "email": "x@y"},
            "https://old.test/v1/": {"username": "u", "password": "p"},
            "http://[::1]:5000/v2/": {"identitytoken": "t"},
            "bad.test": {"auth": "!"}
        }}"#,
    );
    for (domain, wanted) in [
        ("docker.io", ["hub", "pw", "", "https://index.docker.io/v1/"]),
        ("127.0.0.1:5000", ["user", "pa:ss", "", "127.0.0.1:5000"]),
        ("old.test", ["u", "p", "", "https://old.test/v1/"]),
        ("[::1]:5000", ["", "", "t", "http://[::1]:5000/v2/"]),
        ("other.test", ["", "", "", ""]),
    ] {
        assert_eq!(shown(&config, domain), wanted, "{domain}");
    }
    let sentence = look_up(&config, "bad.test").unwrap_err().to_string();
    assert_eq!(sentence, "Invalid auth configuration file: login of bad.test");
}

#[test]
fn addresses_have_hosts() {
    for (address, wanted) in [
        ("a.test", "a.test"),
        ("a.test:1/v1/", "a.test:1"),
        ("https://a.test/v1/", "a.test"),
        ("http://u:p@a.test:1?x", "a.test:1"),
        ("https://[::1]/v1/", "::1"),
        ("https://[::1]:1/v1/", "[::1]:1"),
    ] {
        assert_eq!(hosted(address), wanted);
    }
}

#[test]
fn the_helper_of_a_registry_goes_before_the_store_of_all() {
    let config = config(r#"{"credsStore": "all", "credHelpers": {"a.test": "one", "b.test": ""}, "auths": {}}"#);
    for (key, program) in
        [("a.test", Some("docker-credential-one")), ("b.test", None), (HUB_KEY, Some("docker-credential-all"))]
    {
        assert_eq!(helper(&config, key).as_deref(), program, "{key}");
    }
    let plain = serde_json::from_str(r#"{"auths": {"a.test": {}}}"#).unwrap();
    assert_eq!(helper(&plain, "a.test"), None);
}

/// Writes a script by another process: a thread that forks while this one has the file open for writing would keep it
/// from being executed (ETXTBSY).
fn script(dir: &Path, body: &str) -> String {
    let path = dir.join("helper");
    let text = format!("#!/bin/sh\n{body}\n");
    let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
    assert!(Command::new("sh").arg("-c").arg(write).arg(&path).arg(text).status().unwrap().success());
    path.display().to_string()
}

#[test]
fn helpers_are_asked_for_an_address_and_print_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), r#"echo "{\"ServerURL\":\"x\",\"Username\":\"$1\",\"Secret\":\"of $(cat)\"}""#);
    let secret = ask(&program, "a.test:1").unwrap().unwrap();
    assert_eq!((&*secret.username, &*secret.secret), ("get", "of a.test:1"));
    let program = script(dir.path(), "exec <&-; echo 'credentials not found in native keychain'; exit 1");
    assert!(ask(&program, "a.test").unwrap().is_none());
}

#[test]
fn helpers_that_fail_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let sentence = |program: &str| ask(program, "a.test").unwrap_err().to_string();
    let program = script(dir.path(), "cat > /dev/null; echo ' locked '; exit 3");
    assert_eq!(sentence(&program), "error getting credentials - err: exit status 3, out: `locked`");
    let program = script(dir.path(), "echo hello");
    assert_eq!(sentence(&program), format!("read what {program} prints"));
    let missing = "error getting credentials - err: exec: \"docker-credential-none-of-that-name\": \
                   executable file not found in $PATH, out: ``";
    assert_eq!(sentence("docker-credential-none-of-that-name"), missing);
}

#[test]
fn identity_tokens_come_under_a_name_of_their_own() {
    let secret = |username: &str| Secret { username: username.to_owned(), secret: "s".to_owned() };
    assert_eq!(auth_of(secret("<token>"), "k").identity_token, "s");
    let auth = auth_of(secret("u"), "k");
    assert_eq!((&*auth.username, &*auth.password, &*auth.server_address), ("u", "s", "k"));
}

#[test]
fn a_helper_lists_what_it_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(
        dir.path(),
        r#"cat > /dev/null; test "$1" = list && echo '{"https://a.test/v1/":"user","b.test":"other"}'"#,
    );
    assert_eq!(listed(&program).unwrap(), ["b.test", "https://a.test/v1/"]);
    let file = config(r#"{"auths": {"a.test": {"auth": "dXNlcjpwYTpzcw=="}, "b.test": {}}, "credHelpers": {"x": ""}}"#);
    let keys: Vec<String> = all(&file).unwrap().into_keys().collect();
    assert_eq!(keys, ["a.test", "b.test"]);
}

#[test]
fn a_store_that_is_there_is_chosen_only_while_nobody_has_chosen() {
    for text in
        [r#"{"auths": {"a.test": {"auth": "dTpw"}}}"#, r#"{"credsStore": "x"}"#, r#"{"credHelpers": {"b.test": "y"}}"#]
    {
        let config = ConfigFile { is_the_users: true, ..config(text) };
        assert_eq!(default_store(&config, "a.test"), None, "{text}");
    }
}
