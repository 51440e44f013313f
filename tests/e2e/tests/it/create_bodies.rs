//! `POST /containers/create`: status, sentence, and all that `inspect` shows then, as dockerd 28.5.2 answers.
//!
//! `create_bodies/api.jsonl` has a body a line, with what was seen of dockerd: `status`; `says`, the message or the warnings;
//! `shows`, what `inspect` shows other than of a container with nothing but a command; `lacks`, what it does not show then.
//! `flags.jsonl` has the same of `create FLAGS busybox true`, with its exit status `code` and its standard error in `says`.
//! Where we mean to answer otherwise, `ours` says what and `why`. `@` in a body is a volume's name of the test's own.
//! A line that does not hold is printed as it would have to be.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use testkit::Daemon;

use crate::support::{At, each, unified};

const FLAGS: &str = include_str!("create_bodies/flags.jsonl");
const LINES: &str = include_str!("create_bodies/api.jsonl");

/// What nobody could compare: the container's own, or where a daemon keeps it.
const OWN: [&str; 14] = [
    "Created",
    "Driver",
    "GraphDriver",
    "HostnamePath",
    "HostsPath",
    "Id",
    "Image",
    "ImageManifestDescriptor",
    "LogPath",
    "Name",
    "NetworkSettings",
    "Platform",
    "ResolvConfPath",
    "State",
];

#[test]
fn privileged_bodies_are_answered_as_dockerd_answers_them() {
    if is_elsewhere() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    let (volume, info) = (daemon.name("bodies"), daemon.get("/info").unwrap().json().unwrap());
    let mask = Mask { id: "\0", volume: &volume, host: info["Name"].as_str().unwrap() };
    let base = answer(&daemon, r#"{"Image":"busybox","Cmd":["true"]}"#, &mask, None);
    let base = base["shows"].as_object().unwrap();
    let mut faults = Vec::new();
    for line in LINES.lines() {
        let recorded: Value = serde_json::from_str(line).unwrap();
        let wanted = match recorded.get("ours") {
            Some(ours) if !daemon.is_foreign() => ours.clone(),
            _ => answer_of(&recorded),
        };
        let body = recorded["body"].as_str().unwrap();
        let seen = answer(&daemon, body, &mask, Some(base));
        if seen != wanted {
            faults.push(format!("{body}\n  wanted {wanted}\n  seen   {seen}"));
        }
    }
    assert!(faults.is_empty(), "{} lines do not hold\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn privileged_flags_are_answered_as_dockerd_answers_them() {
    if is_elsewhere() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    let (volume, info) = (daemon.name("flags"), daemon.get("/info").unwrap().json().unwrap());
    let mask = Mask { id: "\0", volume: &volume, host: info["Name"].as_str().unwrap() };
    each(&daemon, |at| {
        let base = typed(at, "", &mask, None);
        let base = base["shows"].as_object().unwrap();
        let mut faults = Vec::new();
        for line in FLAGS.lines() {
            let recorded: Value = serde_json::from_str(line).unwrap();
            let flags = recorded["flags"].as_str().unwrap();
            let wanted = answer_of(recorded.get("ours").unwrap_or(&recorded));
            let seen = typed(at, flags, &mask, Some(base));
            if seen != wanted {
                faults.push(format!("{flags}\n  wanted {wanted}\n  seen   {seen}"));
            }
        }
        assert!(faults.is_empty(), "{} lines do not hold\n{}", faults.len(), faults.join("\n"));
    });
}

/// Creates the container by a command line, looks at it and removes it.
fn typed(at: &At<'_>, flags: &str, mask: &Mask<'_>, base: Option<&Map<String, Value>>) -> Value {
    let output = at.line(&format!("create {} busybox true", flags.replace('@', mask.volume)));
    let mut told = json!({"code": output.code});
    if !output.stderr.is_empty() {
        // The program's own name is in some sentences.
        told["says"] = mask.text(&output.stderr.replace("longshore", "docker"), "").into();
    }
    if output.code == 0 {
        let id = output.stdout.trim();
        let shown = described(at.daemon, &Mask { id, ..*mask }, base);
        let shown = shown.as_object().unwrap().iter().filter(|(name, _)| *name != "status");
        told.as_object_mut().unwrap().extend(shown.map(|(name, value)| (name.clone(), value.clone())));
        at.ok(&format!("rm -f -v {id}"));
    }
    if flags.contains('@') {
        testkit::http::request(at.daemon.socket(), "DELETE", &format!("/volumes/{}", mask.volume), None).unwrap();
    }
    told
}

/// Whether nothing can be compared here; reports the skip.
fn is_elsewhere() -> bool {
    if testkit::skip::without_root() {
        return true;
    }
    let elsewhere = unified();
    if elsewhere {
        testkit::skip::report("what is shown was recorded on version 1 of cgroups");
    }
    elsewhere
}

/// The line without what is about it.
fn answer_of(recorded: &Value) -> Value {
    let mut answer = recorded.as_object().unwrap().clone();
    answer.retain(|name, _| !matches!(name.as_str(), "body" | "flags" | "ours" | "why"));
    answer.into()
}

/// Creates the container, looks at it and removes it.
fn answer(daemon: &Daemon, body: &str, mask: &Mask<'_>, base: Option<&Map<String, Value>>) -> Value {
    let volume = mask.volume;
    let created = daemon.post("/v1.51/containers/create", &body.replace('@', volume)).unwrap();
    let answered = created.json().unwrap();
    let told = if created.status == 201 {
        let id = answered["Id"].as_str().unwrap();
        let mut told = described(daemon, &Mask { id, ..*mask }, base);
        if !answered["Warnings"].as_array().unwrap().is_empty() {
            told["says"] = answered["Warnings"].clone();
        }
        let path = format!("/containers/{id}?force=1&v=1");
        assert_eq!(testkit::http::request(daemon.socket(), "DELETE", &path, None).unwrap().status, 204);
        told
    } else {
        let message = json!(created.message());
        json!({"status": created.status, "says": mask.applied(&message, "")})
    };
    if body.contains('@') {
        testkit::http::request(daemon.socket(), "DELETE", &format!("/volumes/{volume}"), None).unwrap();
    }
    told
}

fn described(daemon: &Daemon, mask: &Mask<'_>, base: Option<&Map<String, Value>>) -> Value {
    let shown = daemon.get(&format!("/v1.51/containers/{}/json", mask.id)).unwrap().json().unwrap();
    let shown = flat(&shown, mask);
    let Some(base) = base else { return json!({"status": 201, "shows": shown}) };
    let lacks: Vec<&String> = base.keys().filter(|name| !shown.contains_key(*name)).collect();
    let other: BTreeMap<_, _> = shown.iter().filter(|(name, value)| base.get(*name) != Some(value)).collect();
    let mut told = json!({"status": 201});
    if !other.is_empty() {
        told["shows"] = json!(other);
    }
    if !lacks.is_empty() {
        told["lacks"] = json!(lacks);
    }
    told
}

/// All members by their path, two deep.
fn flat(shown: &Value, mask: &Mask<'_>) -> Map<String, Value> {
    let mut all = Map::new();
    let networks = json!({"Networks": shown["NetworkSettings"]["Networks"]});
    let members = shown.as_object().unwrap().iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    for (name, value) in members.chain([(&"NetworkSettings".to_owned(), &networks)]) {
        match value.as_object() {
            Some(inner) if !inner.is_empty() => {
                let kept =
                    inner.iter().filter(|(inner, _)| (name.as_str(), inner.as_str()) != ("HostConfig", "Runtime"));
                all.extend(kept.map(|(inner, value)| (format!("{name}.{inner}"), mask.applied(value, inner))));
            }
            _ => drop(all.insert(name.clone(), mask.applied(value, name))),
        }
    }
    all
}

/// What is another's each time.
struct Mask<'a> {
    id: &'a str,
    volume: &'a str,
    host: &'a str,
}

impl Mask<'_> {
    fn applied(&self, value: &Value, name: &str) -> Value {
        match value {
            Value::Object(members) => {
                let mut members: Map<String, Value> =
                    members.iter().map(|(name, value)| (name.clone(), self.applied(value, name))).collect();
                if members.contains_key("Destination") && matches!(members["Type"].as_str(), Some("volume" | "image")) {
                    members.remove("Source");
                    // dockerd does not show the name that it gave.
                    members.retain(|name, value| name != "Name" || value != "<hex>");
                }
                members.into()
            }
            Value::Array(elements) => elements.iter().map(|value| self.applied(value, name)).collect(),
            Value::String(text) => self.text(text, name).into(),
            other => other.clone(),
        }
    }

    fn text(&self, text: &str, name: &str) -> String {
        if name == "Hostname" && text == self.host {
            return "<host>".to_owned();
        }
        let text = text.replace(self.id, "<id>").replace(self.volume, "@");
        let short = self.id.get(..12).unwrap_or(self.id);
        without_hashes(&text.replace(short, "<short>"))
    }
}

/// Names of 64 hexadecimal digits.
fn without_hashes(text: &str) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some(first) = rest.chars().next() {
        let digits = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        if digits >= 64 {
            out.push_str("<hex>");
            rest = &rest[64..];
        } else {
            let end = digits.max(first.len_utf8());
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out
}
