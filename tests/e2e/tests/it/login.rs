//! `login` and `logout`, and what a registry says of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use testkit::process;
use testkit::registry::{Answer, Server};

use crate::support::{At, on_both};

/// `user:secret`
const NAME_AND_PASSWORD: &str = "Basic dXNlcjpzZWNyZXQ=";

/// A registry that wants name and password.
fn of_names() -> Server {
    Server::start(|request| match request.header("authorization") {
        Some(NAME_AND_PASSWORD) => Answer::new(200, "{}"),
        _ => Answer::new(401, "{}").with("WWW-Authenticate", "Basic realm=\"here\""),
    })
}

/// A registry that wants tokens, and the place that gives them, with one to be kept instead of the password.
fn of_tokens() -> Server {
    Server::start(|request| {
        let host = request.header("host").unwrap_or_default();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"us\"");
        match request.header("authorization") {
            Some(NAME_AND_PASSWORD) if request.path.starts_with("/token") => {
                let kept = if request.path.contains("offline_token=true") { "kept" } else { "" };
                Answer::new(200, format!("{{\"token\":\"a-token\",\"refresh_token\":\"{kept}\"}}"))
            }
            _ if request.path.starts_with("/token") => {
                Answer::new(401, r#"{"details":"incorrect username or password"}"#)
            }
            Some("Bearer a-token") => Answer::new(200, "{}"),
            _ => Answer::new(401, "{}").with("WWW-Authenticate", challenge),
        }
    })
}

fn config(at: &At<'_>) -> PathBuf {
    at.daemon.scratch().home().join(".docker/config.json")
}

/// The logins that are kept.
fn kept(at: &At<'_>) -> serde_json::Value {
    let text = fs::read(config(at)).unwrap();
    serde_json::from_slice::<serde_json::Value>(&text).unwrap()["auths"].clone()
}

const OPEN: &str = "\nWARNING! Your credentials are stored unencrypted in";

#[test]
fn privileged_a_login_is_kept_until_the_logout() {
    let server = of_names();
    on_both(|at| {
        let host = server.host();
        let output = at.line(&format!("login -u user -p secret {host}"));
        assert_eq!((output.stdout.as_str(), output.code), ("Login Succeeded\n", 0));
        let warned = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n";
        assert!(
            output.stderr.starts_with(&format!("{warned}{OPEN} '{}'.\n", config(at).display())),
            "{}",
            output.stderr
        );
        assert_eq!(kept(at), serde_json::json!({&host: {"auth": "dXNlcjpzZWNyZXQ="}}));
        // It is shown again, and nobody is asked.
        let output = at.line(&format!("login http://{host}/v2/"));
        assert_eq!((output.stdout.as_str(), output.code), ("Login Succeeded\n", 0), "{}", output.stderr);
        let told = "Authenticating with existing credentials... [Username: user]\n\n Info -> To login with a different account";
        assert!(output.stderr.starts_with(told), "{}", output.stderr);
        assert_eq!(at.ok(&format!("logout {host}")), format!("Removing login credentials for {host}"));
        assert_eq!(kept(at), serde_json::json!({}));
        assert_eq!(at.ok(&format!("logout {host}")), format!("Removing login credentials for {host}"));
    });
}

#[test]
fn privileged_a_token_is_kept_instead_of_the_password() {
    let server = of_tokens();
    on_both(|at| {
        let host = server.host();
        let output = at.with_input(&format!("login -u user --password-stdin {host}"), b"secret\n");
        assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code), ("Login Succeeded\n", "", 0));
        assert_eq!(kept(at), serde_json::json!({&host: {"auth": "dXNlcjo=", "identitytoken": "kept"}}));
        at.ok(&format!("logout {host}"));
    });
}

#[test]
fn privileged_refused_logins_are_told_in_dockers_words_and_not_kept() {
    let (names, tokens, none) = (of_names(), of_tokens(), Server::start(|_| Answer::new(404, "")));
    on_both(|at| {
        let (names, tokens, none) = (names.host(), tokens.host(), none.host());
        let daemon = "Error response from daemon:";
        let login = "login attempt to http://";
        for (words, sentence) in [
            (
                format!("-u user -p wrong {names}"),
                format!("{daemon} {login}{names}/v2/ failed with status: 401 Unauthorized"),
            ),
            (format!("-u user -p x {none}"), format!("{daemon} {login}{none}/v2/ failed with status: 404 Not Found")),
            (
                format!("-u user -p wrong {tokens}"),
                format!("{daemon} Get \"http://{tokens}/v2/\": unauthorized: incorrect username or password"),
            ),
            (
                "-u user -p x 127.0.0.1:1".to_owned(),
                format!("{daemon} Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused"),
            ),
            (names.clone(), "Error: Cannot perform an interactive login from a non TTY device".to_owned()),
            (format!("-p x {names}"), "Error: Cannot perform an interactive login from a non TTY device".to_owned()),
            (format!("-u '' -p x {names}"), "username is empty".to_owned()),
            (format!("-u a -p '' {names}"), "password is empty".to_owned()),
            (
                format!("--password-stdin {names}"),
                "the --password-stdin option requires --username to be set".to_owned(),
            ),
            (
                format!("-u a -p b --password-stdin {names}"),
                "conflicting options: cannot specify both --password and --password-stdin".to_owned(),
            ),
        ] {
            at.fails(&format!("login {words}"), 1, &sentence);
        }
        assert!(!config(at).exists(), "nothing is kept");
    });
}

#[test]
fn privileged_a_password_is_asked_for_out_of_sight() {
    let server = of_names();
    on_both(|at| {
        let mut pty = at.pty(&format!("login {}", server.host()));
        pty.read_until("Username: ").unwrap();
        pty.send(b"user\r").unwrap();
        pty.read_until("Password: ").unwrap();
        pty.send(b"secret\r").unwrap();
        let (shown, code) = pty.wait().unwrap();
        assert!(code == 0 && shown.contains("Login Succeeded") && !shown.contains("secret"), "{code}: {shown}");
        at.ok(&format!("logout {}", server.host()));
    });
}

#[test]
fn privileged_a_helper_keeps_the_login() {
    let server = of_names();
    on_both(|at| {
        let directory = at.daemon.scratch().home().join("helpers");
        fs::create_dir_all(&directory).unwrap();
        let told = directory.join("told");
        // What it is told, and with which word, in a file.
        let script = format!("#!/bin/sh\n(echo \"$1 $(cat)\") >> {}\n[ \"$1\" != get ]\n", told.display());
        let program = directory.join("docker-credential-mine");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(config(at).parent().unwrap()).unwrap();
        fs::write(config(at), r#"{"credsStore": "mine", "theirs": 1}"#).unwrap();
        let host = server.host();
        let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
        let run = |words: &str| {
            let mut command = at.command(words);
            let output = process::run(command.env("PATH", &path), b"").unwrap();
            assert_eq!(output.code, 0, "{words}: {}", output.stderr);
            output
        };
        let output = run(&format!("login -u user -p secret {host}"));
        assert!(!output.stderr.contains(OPEN), "{}", output.stderr);
        assert_eq!(kept(at), serde_json::json!({&host: {}}));
        run(&format!("logout {host}"));
        assert_eq!(kept(at), serde_json::json!({}));
        let text = fs::read_to_string(&told).unwrap();
        let stored = text.lines().find_map(|line| line.strip_prefix("store ")).unwrap();
        let expected = serde_json::json!({"ServerURL": &host, "Username": "user", "Secret": "secret"});
        assert_eq!(serde_json::from_str::<serde_json::Value>(stored).unwrap(), expected);
        assert!(text.lines().any(|line| line == format!("erase {host}")), "{text}");
        fs::remove_file(config(at)).unwrap();
        fs::remove_file(&told).unwrap();
    });
}

#[test]
fn privileged_where_our_helper_is_found_no_login_is_in_clear_text() {
    let server = of_names();
    on_both(|at| {
        if at.daemon.is_foreign() {
            return;
        }
        let home = at.daemon.scratch().home();
        let path = format!("{}:{}", at.daemon.dist().display(), std::env::var("PATH").unwrap());
        let run = |cli, words: &str| {
            let mut command = at.daemon.command(cli).unwrap();
            command.env("PATH", &path).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
            let output = process::run(command.args(words.split(' ')), b"").unwrap();
            assert_eq!(output.code, 0, "{words}: {}", output.stderr);
            output
        };
        let host = server.host();
        // What cannot be written down is not kept either.
        fs::create_dir_all(config(at).parent().unwrap()).unwrap();
        fs::write(config(at), "{bad").unwrap();
        let mut command = at.daemon.command(testkit::Cli::Longshore).unwrap();
        command.env("PATH", &path).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
        let failed = process::run(command.args(["login", "-u", "user", "-p", "secret", &host]), b"").unwrap();
        assert_eq!(failed.code, 1, "{}", failed.stderr);
        fs::remove_file(config(at)).unwrap();
        let mut helper = std::process::Command::new(at.daemon.dist().join("docker-credential-longshore"));
        helper.env("HOME", &home).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME").arg("list");
        assert_eq!(process::run(&mut helper, b"").unwrap().stdout.trim(), "{}");
        let output = run(testkit::Cli::Longshore, &format!("login -u user -p secret {host}"));
        assert!(!output.stderr.contains(OPEN), "{}", output.stderr);
        let text = fs::read(config(at)).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(written, serde_json::json!({"auths": {&host: {}}, "credsStore": "longshore"}));
        let logins = home.join(".local/share/longshore/logins");
        let sealed = fs::read(&logins).unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        for file in [&logins, &home.join(".config/longshore/logins.key")] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
        // Docker's client finds it, too, and so does whatever knows its configuration.
        let output = run(at.cli, &format!("login {host}"));
        assert_eq!(output.stdout, "Login Succeeded\n");
        assert!(output.stderr.contains("Authenticating with existing credentials"), "{}", output.stderr);
        run(at.cli, &format!("logout {host}"));
        assert_eq!(kept(at), serde_json::json!({}));
        assert_ne!(fs::read(&logins).unwrap(), sealed);
        fs::remove_file(config(at)).unwrap();
    });
}
