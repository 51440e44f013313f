//! `version`.

use std::fmt::Write;

use client::system;
use serde_json::{Value, json};

use super::Context;
use crate::args::Parsed;
use crate::format::template::Format;
use crate::report::Exit;
use crate::{say, say_line};

/// The commit that this was built from, or `unknown`.
pub const COMMIT: &str = match option_env!("LONGSHORE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// `version`: the client's part is shown even without a daemon.
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let format = match parsed.text("format") {
        "" => None,
        "json" => Some("{{json .}}"),
        text => Some(text),
    };
    let format = format.map(|text| Format::parse_as(text, "version")).transpose();
    let format = format.map_err(|err| Exit::new(64, format!("template parsing error: {err}")))?;
    let (server, failure) = match system::version(&context.client).await {
        Ok(version) => (with_days(serde_json::to_value(version).unwrap_or_default()), None),
        Err(err) => (Value::Null, Some(err)),
    };
    let client = client_part(context);
    let mut filled = Ok(());
    match format {
        Some(format) => {
            let (text, done) = format.apply_in_part("system.versionInfo", &json!({"Client": client, "Server": server}));
            // Docker ends the line that it could not fill.
            say_line!("{text}");
            filled = done;
        }
        None => say!("{}", pretty(&client, &server)),
    }
    // Why there is no server is why a template that asks for it cannot be filled.
    match failure {
        Some(err) => Err(err.into()),
        None => filled.map_err(|err| Exit::error(&err)),
    }
}

/// The days of builds as Docker's client writes them.
fn with_days(mut server: Value) -> Value {
    let reword = |place: &mut Value| {
        if let Some(time) = place.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()) {
            *place = time.strftime("%a %b %e %H:%M:%S %Y").to_string().into();
        }
    };
    for component in server["Components"].as_array_mut().into_iter().flatten() {
        if let Some(time) = component.pointer_mut("/Details/BuildTime") {
            reword(time);
        }
    }
    server
}

fn client_part(context: &Context) -> Value {
    let (os, arch) = (std::env::consts::OS, go_arch());
    json!({
        "Platform": {"Name": "Longshore"},
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": context.client.version().to_string(),
        "DefaultAPIVersion": engine_api::versions::MAX.to_string(),
        "GitCommit": COMMIT,
        "GoVersion": "",
        "Os": os,
        "Arch": arch,
        "BuildTime": "",
        "Context": context.name(),
    })
}

/// Go's name of this processor.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn pretty(client: &Value, server: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let mut out = format!("Client: {}\n", text(&client["Platform"]["Name"]));
    let mut line = |indent: usize, name: &str, value: &str| {
        let _ = writeln!(out, "{:indent$}{:width$}{value}", "", format!("{name}:"), width = 20 - indent);
    };
    line(1, "Version", &text(&client["Version"]));
    line(1, "API version", &text(&client["ApiVersion"]));
    line(1, "Git commit", &text(&client["GitCommit"]));
    line(1, "OS/Arch", &format!("{}/{}", text(&client["Os"]), text(&client["Arch"])));
    line(1, "Context", &text(&client["Context"]));
    if server.is_null() {
        return out;
    }
    let platform = text(&server["Platform"]["Name"]);
    let _ = writeln!(out, "\nServer:{}{platform}", if platform.is_empty() { "" } else { " " });
    for component in server["Components"].as_array().into_iter().flatten() {
        out.push_str(&pretty_component(component));
    }
    out
}

fn pretty_component(component: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let details = &component["Details"];
    let mut out = format!(" {}:\n", text(&component["Name"]));
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "  {:18}{value}", format!("{name}:"));
    };
    line("Version", &text(&component["Version"]));
    if component["Name"] != "Engine" {
        let known = details.as_object().into_iter().flatten();
        known.for_each(|(name, value)| line(name, &text(value)));
        return out;
    }
    let (api, minimum) = (text(&details["ApiVersion"]), text(&details["MinAPIVersion"]));
    line("API version", &format!("{api} (minimum version {minimum})"));
    line("Go version", &text(&details["GoVersion"]));
    line("Git commit", &text(&details["GitCommit"]));
    line("Built", &text(&details["BuildTime"]));
    line("OS/Arch", &format!("{}/{}", text(&details["Os"]), text(&details["Arch"])));
    line("Experimental", &text(&details["Experimental"]));
    out
}
