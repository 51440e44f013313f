//! `docker-credential-longshore`: this program under the name by which Docker's client, buildx, podman and skopeo find it.
//!
//! The protocol, its sentences and that they go to standard output are those of docker-credential-helpers.

use serde::{Deserialize, Serialize};

use super::UNKNOWN;
use super::vault::{Entry, Vault, VaultError};

/// What Docker's configuration calls it.
pub const NAME: &str = "longshore";

/// The name of the program.
pub const PROGRAM: &str = "docker-credential-longshore";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Login {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Does what `verb` says with the input; what to print, as success or as failure.
pub fn answer(verb: &str, input: &str) -> Result<String, String> {
    match verb {
        "store" => store(input),
        "get" => get(&address(input)?),
        "erase" => erase(&address(input)?),
        "list" => list(),
        "version" => Ok(format!("{PROGRAM} (longshore) v{}\n", env!("CARGO_PKG_VERSION"))),
        _ => Err(format!("{PROGRAM}: unknown action: {verb}\n")),
    }
}

/// What is printed where no verb is given.
pub fn usage() -> String {
    format!("Usage: {PROGRAM} <store|get|erase|list|version>\n")
}

fn store(input: &str) -> Result<String, String> {
    let login: Login = serde_json::from_str(input).map_err(|err| err.to_string())?;
    if login.server_url.is_empty() {
        return Err("no credentials server URL".to_owned());
    }
    if login.username.is_empty() {
        return Err("no credentials username".to_owned());
    }
    let Login { server_url, username, secret } = login;
    change(|vault| vault.change(|logins| drop(logins.insert(server_url, Entry { username, secret }))))
}

fn get(address: &str) -> Result<String, String> {
    let found = opened()?.remove(address).ok_or(UNKNOWN)?;
    let login = Login { server_url: address.to_owned(), username: found.username, secret: found.secret };
    Ok(serde_json::to_string(&login).expect("texts can be written as JSON") + "\n")
}

fn erase(address: &str) -> Result<String, String> {
    change(|vault| vault.change(|logins| drop(logins.remove(address))))
}

fn list() -> Result<String, String> {
    let logins = opened()?;
    let users: serde_json::Map<_, _> = logins.into_iter().map(|(key, login)| (key, login.username.into())).collect();
    Ok(serde_json::Value::from(users).to_string() + "\n")
}

fn address(input: &str) -> Result<String, String> {
    match input.trim() {
        "" => Err("no credentials server URL".to_owned()),
        address => Ok(address.to_owned()),
    }
}

fn opened() -> Result<super::vault::Logins, String> {
    Vault::of_user().and_then(|vault| vault.read()).map_err(|err| err.to_string())
}

fn change(change: impl FnOnce(&Vault) -> Result<(), VaultError>) -> Result<String, String> {
    Vault::of_user().and_then(|vault| change(&vault)).map(|()| String::new()).map_err(|err| err.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_question_is_refused_in_the_helpers_words() {
        for (verb, input, sentence) in [
            ("get", " \n", "no credentials server URL"),
            ("erase", "", "no credentials server URL"),
            ("store", r#"{"Username":"u","Secret":"s"}"#, "no credentials server URL"),
            ("store", r#"{"ServerURL":"a.test","Secret":"s"}"#, "no credentials username"),
            ("sing", "", "docker-credential-longshore: unknown action: sing\n"),
        ] {
            assert_eq!(answer(verb, input), Err(sentence.to_owned()), "{verb} {input}");
        }
    }
}
