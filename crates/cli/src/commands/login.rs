//! `login` and `logout`.

use std::io::{self, IsTerminal};

use client::{ClientError, system};
use engine_api::auth::{AuthConfig, AuthResponse};
use errdefs::ErrorKind;

use super::Context;
use crate::args::Parsed;
use crate::credentials::{self, HUB_KEY, hosted};
use crate::report::{Exit, chain, client_error, go_error};
use crate::{say_line, term, warn_line};

/// `login`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let (username, password) = given(parsed).await?;
    let server = match parsed.positionals.first().map_or("", String::as_str) {
        "" | "docker.io" => HUB_KEY.to_owned(),
        address => hosted(address).to_owned(),
    };
    let known = match username.is_empty() && password.is_empty() {
        true => credentials::of_server(&context.config, &server).unwrap_or_default(),
        false => AuthConfig::default(),
    };
    let known = AuthConfig { server_address: server.clone(), ..known };
    if !known.username.is_empty()
        && !known.password.is_empty()
        && let Some(sentence) = again(context, &known).await?
    {
        say_line!("{sentence}");
        return Ok(());
    }
    if (username.is_empty() || password.is_empty()) && !io::stdin().is_terminal() {
        return Err(Exit::new(1, "Error: Cannot perform an interactive login from a non TTY device"));
    }
    let username = if username.is_empty() { ask_name(&known.username).await? } else { username };
    let password = if password.is_empty() { ask_password().await? } else { password };
    let auth = AuthConfig { username, password, server_address: server, ..AuthConfig::default() };
    let answer = system::login(&context.client, &auth).await?;
    keep(context, auth, &answer)?;
    say_line!("{}", answer.status);
    Ok(())
}

/// `logout`
pub fn out(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let given = parsed.positionals.first().map_or("", String::as_str);
    let (shown, keys) = match given {
        "" => (HUB_KEY, vec![HUB_KEY.to_owned()]),
        address => {
            let host = hosted(address);
            // As users wrote it in their time.
            (host, vec![address.to_owned(), host.to_owned(), format!("http://{host}"), format!("https://{host}")])
        }
    };
    say_line!("Removing login credentials for {shown}");
    let failed: Vec<String> = keys
        .iter()
        .filter_map(|key| {
            let outcome = credentials::forget(&context.config, context.directory(), key);
            outcome.err().map(|err| format!("{key}: {}", chain(&err)))
        })
        .collect();
    if failed.len() == keys.len() {
        warn_line!("WARNING: could not erase credentials:\n{}", failed.join("\n"));
    }
    Ok(())
}

/// Name and password of the command line; empty where they are to be asked for.
async fn given(parsed: &Parsed) -> Result<(String, String), Exit> {
    let refuse = |sentence: &str| Err(Exit::new(1, sentence));
    let (username, password) = (parsed.text("username").to_owned(), parsed.text("password").to_owned());
    let from_stdin = parsed.flag("password-stdin");
    if from_stdin && parsed.given("password") {
        return refuse("conflicting options: cannot specify both --password and --password-stdin");
    }
    if from_stdin && !parsed.given("username") {
        return refuse("the --password-stdin option requires --username to be set");
    }
    if parsed.given("username") && username.is_empty() {
        return refuse("username is empty");
    }
    if parsed.given("password") && password.is_empty() {
        return refuse("password is empty");
    }
    if !from_stdin {
        if !password.is_empty() {
            warn_line!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        }
        return Ok((username, password));
    }
    let text = term::read_all().await.map_err(|err| Exit::new(1, go_error(&err)))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok((username, line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

/// Logs in with what is kept from the last time; the sentence of success.
async fn again(context: &Context, known: &AuthConfig) -> Result<Option<String>, Exit> {
    warn_line!("Authenticating with existing credentials... [Username: {}]\n", known.username);
    let program = context.program;
    warn_line!(" Info -> To login with a different account, run '{program} logout' followed by '{program} login'\n\n");
    match system::login(&context.client, known).await {
        Ok(answer) => {
            keep(context, known.clone(), &answer)?;
            Ok(Some(answer.status))
        }
        Err(err @ ClientError::Connect { .. }) => Err(err.into()),
        Err(err) if err.kind() == ErrorKind::Unauthorized => {
            warn_line!("Stored credentials invalid or expired");
            Ok(None)
        }
        Err(err) => {
            warn_line!("Login did not succeed, error: {}", client_error(&err));
            Ok(None)
        }
    }
}

/// Keeps a login that a registry has accepted; a token stands for the password where it gave one.
fn keep(context: &Context, auth: AuthConfig, answer: &AuthResponse) -> Result<(), Exit> {
    let auth = match &answer.identity_token[..] {
        "" => auth,
        token => AuthConfig { password: String::new(), identity_token: token.to_owned(), ..auth },
    };
    let kept = credentials::keep(&context.config, context.directory(), &auth);
    if let Some(file) = kept.map_err(|err| Exit::new(1, format!("error saving credentials: {}", chain(&err))))? {
        warn_line!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. \
             See\nhttps://docs.docker.com/go/credential-store/\n",
            file.display()
        );
    }
    Ok(())
}

async fn ask_name(known: &str) -> Result<String, Exit> {
    let question = if known.is_empty() { "Username: ".to_owned() } else { format!("Username ({known}): ") };
    let typed = term::ask(question).await.map_err(|err| Exit::new(1, go_error(&err)))?;
    match (typed.trim(), known) {
        ("", "") => Err(Exit::new(1, "Error: Non-null Username Required")),
        ("", known) => Ok(known.to_owned()),
        (name, _) => Ok(name.to_owned()),
    }
}

async fn ask_password() -> Result<String, Exit> {
    match term::ask_secret("Password: ").await {
        Ok(Some(password)) if password.is_empty() => Err(Exit::new(1, "Error: Password Required")),
        Ok(Some(password)) => Ok(password),
        Ok(None) => Err(Exit::silent(130)),
        Err(err) => Err(Exit::new(1, go_error(&err))),
    }
}
