//! `context`: named daemons. None of these commands connects.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Write};
#[cfg(unix)]
use std::os::unix::fs::OpenOptionsExt;

use client::Endpoint;
use serde_json::{Map, Value, json};

use super::Context;
use super::inspect::Found;
use super::volume::natural;
use crate::args::{ContextVerb, Parsed};
use crate::contexts::{self, DEFAULT, Metadata, Store, TlsFiles};
use crate::format::json as printed;
use crate::format::listing::{Listing, Row, Shape};
use crate::format::template::Format;
use crate::plan::values;
use crate::report::{Exit, chain, go_error};
use crate::{connection, say, say_line, warn_line};

const TITLES: &[(&str, &str)] =
    &[("Description", "DESCRIPTION"), ("DockerEndpoint", "DOCKER ENDPOINT"), ("Error", "ERROR"), ("Name", "NAME")];

/// Docker's default table: the one in use has an asterisk.
const TABLE: &str = "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";

/// What Docker shows of an error in a table.
const ERROR_MAX: usize = 45;

/// Runs a verb of contexts.
pub fn run(context: &Context, verb: ContextVerb, parsed: &Parsed) -> Result<(), Exit> {
    match verb {
        ContextVerb::Create => create(context, parsed),
        ContextVerb::Export => export(context, parsed),
        ContextVerb::Import => import(context, parsed),
        ContextVerb::Inspect => inspect(context, parsed),
        ContextVerb::List => list(context, parsed),
        ContextVerb::Remove => remove(context, parsed),
        ContextVerb::Show => {
            say_line!("{}", context.name());
            Ok(())
        }
        ContextVerb::Update => update(context, parsed),
        ContextVerb::Use => select(context, parsed),
    }
}

/// A context by its name, the one that the environment makes included.
fn find(store: &Store, name: &str) -> Result<Metadata, Exit> {
    if name == DEFAULT { Ok(connection::default_context(store)) } else { store.get(name) }
}

fn first(parsed: &Parsed) -> &str {
    parsed.positionals.first().map_or("", String::as_str)
}

fn create(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let (store, name) = (context.store(), first(parsed));
    check_new(store, name)?;
    let (from, options) = (parsed.text("from"), parsed.list("docker"));
    let description = parsed.text("description");
    let (metadata, tls) = if from.is_empty() && !options.is_empty() {
        let (host, skip_verify, tls) = endpoint(store, options)?;
        (Metadata::new(name, description, &host, skip_verify), tls)
    } else if !options.is_empty() {
        return Err(Exit::new(1, "cannot use --docker flag when --from is set"));
    } else {
        let from = if from.is_empty() { context.name() } else { from };
        let mut metadata = find(store, from)?;
        metadata.name = name.to_owned();
        metadata.describe(description);
        (metadata, store.tls_files(from)?)
    };
    store.put(&metadata, &tls)?;
    say_line!("{name}");
    warn_line!("Successfully created context {name:?}");
    Ok(())
}

fn check_new(store: &Store, name: &str) -> Result<(), Exit> {
    contexts::check_name(name)?;
    if store.exists(name) { Err(Exit::new(1, format!("context {name:?} already exists"))) } else { Ok(()) }
}

/// `--docker host=...,ca=...`: where the daemon is, whether it may be anyone, and the files of TLS.
fn endpoint(store: &Store, options: &[String]) -> Result<(String, bool, TlsFiles), Exit> {
    let refused = |reason: String| Exit::new(1, format!("unable to create docker endpoint config: {reason}"));
    let pairs = options.iter().flat_map(|text| text.split(','));
    let pairs: BTreeMap<&str, &str> = pairs.filter_map(|pair| pair.split_once('=')).collect();
    const KNOWN: [&str; 6] = ["from", "host", "ca", "cert", "key", "skip-tls-verify"];
    let unknown = pairs.keys().filter(|key| !KNOWN.contains(key));
    let unknown: Vec<String> = unknown.map(|key| format!("unrecognized config key: {key}")).collect();
    if !unknown.is_empty() {
        return Err(refused(unknown.join("\n")));
    }
    if let Some(from) = pairs.get("from") {
        let from = find(store, from).map_err(|exit| refused(exit.message.unwrap_or_default()))?;
        let (host, skip_verify) = from.endpoint()?;
        return Ok((host, skip_verify, TlsFiles::new()));
    }
    let read = |key: &str| match pairs.get(key).filter(|path| !path.is_empty()) {
        None => Ok(None),
        Some(path) => fs::read(path).map(Some).map_err(|err| refused(format!("open {path}: {}", go_error(&err)))),
    };
    let tls = contexts::tls_files_of(read("ca")?, read("cert")?, read("key")?);
    let skip_verify = match pairs.get("skip-tls-verify") {
        None => false,
        Some(text) => {
            values::boolean(text).map_err(|_| refused(format!("skip-tls-verify: parsing {text:?}: invalid syntax")))?
        }
    };
    let host = pairs.get("host").copied().unwrap_or_default();
    if let Some(place) = host.strip_prefix("ssh://") {
        place
            .parse::<client::ssh::SshHost>()
            .map_err(|err| refused(format!("invalid docker endpoint options: {err}")))?;
    }
    if matches!(host.parse(), Ok(Endpoint::Tcp(_))) && !tls.is_empty() {
        let tls = contexts::tls_of(&tls, skip_verify);
        tls.config().map_err(|err| refused(format!("invalid docker endpoint options: {}", chain(&err))))?;
    }
    Ok((host.to_owned(), skip_verify, tls))
}

fn update(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let (store, name) = (context.store(), first(parsed));
    contexts::check_name(name)?;
    let mut metadata = store.get(name)?;
    metadata.describe(parsed.text("description"));
    let options = parsed.list("docker");
    if options.is_empty() {
        store.put_metadata(&metadata)?;
    } else {
        let (host, skip_verify, tls) = endpoint(store, options)?;
        metadata.aim(&host, skip_verify);
        store.put(&metadata, &tls)?;
    }
    say_line!("{name}");
    warn_line!("Successfully updated context {name:?}");
    Ok(())
}

fn list(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let mut found = context.store().list()?;
    found.push(connection::default_context(context.store()));
    let current = context.name();
    let mut rows: Vec<(String, Row)> =
        found.iter().map(|metadata| (metadata.name.clone(), row(metadata, current))).collect();
    if !rows.iter().any(|(name, _)| name == current) {
        let error = context.store().get(current).err().and_then(|exit| exit.message).unwrap_or_default();
        rows.push((current.to_owned(), fields(current, true, "", "", &error)));
    }
    rows.sort_by(|(one, _), (other, _)| natural(one, other));
    let format = match parsed.text("format") {
        _ if parsed.flag("quiet") => "{{.Name}}",
        "" | "table" => TABLE,
        given => given,
    };
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    let listing = Listing { titles: TITLES, rows, type_name: "*formatter.clientContextContext" };
    say!("{}", listing.render(&Shape::parse(format, false, Vec::new()))?);
    if overridden() {
        warn_line!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable."
        );
    }
    Ok(())
}

fn overridden() -> bool {
    std::env::var_os("DOCKER_HOST").is_some_and(|host| !host.is_empty())
}

fn row(metadata: &Metadata, current: &str) -> Row {
    let description = match metadata.name.as_str() {
        DEFAULT => "Current DOCKER_HOST based configuration",
        _ => metadata.description(),
    };
    let (host, error) = match metadata.endpoint() {
        Ok((host, _)) => (host, String::new()),
        Err(exit) => (String::new(), exit.message.unwrap_or_default()),
    };
    fields(&metadata.name, metadata.name == current, description, &host, &error)
}

fn fields(name: &str, current: bool, description: &str, host: &str, error: &str) -> Row {
    let shown: String = match error.chars().count() {
        0..=ERROR_MAX => error.to_owned(),
        _ => error.chars().take(ERROR_MAX - 1).chain(['…']).collect(),
    };
    let fields = vec![
        ("Current", Value::Bool(current)),
        ("Description", description.into()),
        ("DockerEndpoint", host.into()),
        ("Error", shown.into()),
        ("Name", name.into()),
    ];
    Row { fields, labels: BTreeMap::new() }
}

fn select(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let name = first(parsed);
    if name != DEFAULT {
        contexts::check_name(name)?;
        context.store().get(name)?;
    }
    let kept = if name == DEFAULT { "" } else { name };
    if context.config.current_context != kept {
        crate::config::set_current_context(context.directory(), kept)?;
    }
    say_line!("{name}");
    warn_line!("Current context is now {name:?}");
    if name != DEFAULT && overridden() {
        warn_line!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use {name:?}, either set the global --context flag, or unset DOCKER_HOST environment variable."
        );
    }
    Ok(())
}

fn inspect(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let format = match parsed.text("format") {
        "" | "json" => None,
        text => Some(Format::parse(text).map_err(|err| Exit::new(64, format!("template parsing error: {err}")))?),
    };
    let current = [context.name().to_owned()];
    let names = if parsed.positionals.is_empty() { &current[..] } else { &parsed.positionals };
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        match inspected(context.store(), name) {
            Ok(value) => found.push(value),
            Err(exit) => failures.extend(exit.message),
        }
    }
    match &format {
        Some(format) => {
            let found = found.into_iter().map(|value| Found {
                value,
                type_name: "context.contextWithTLSListing",
                or_raw: false,
            });
            return super::inspect::print_formatted(format, found.map(Ok).chain(failures.into_iter().map(Err)));
        }
        None if parsed.text("format") == "json" => {
            say_line!("{}", printed::escaped(&Value::Array(found).to_string()));
        }
        None => say_line!("{}", printed::escaped(&printed::indented(&Value::Array(found)))),
    }
    if failures.is_empty() { Ok(()) } else { Err(Exit::new(1, failures.join("\n"))) }
}

fn inspected(store: &Store, name: &str) -> Result<Value, Exit> {
    let metadata = find(store, name)?;
    let tls = store.tls_files(name)?;
    let material: Map<String, Value> = tls
        .iter()
        .map(|(endpoint, files)| (endpoint.clone(), files.keys().map(String::as_str).collect::<Vec<_>>().into()))
        .collect();
    let (meta_path, tls_path) = match name {
        DEFAULT => ("<IN MEMORY>".to_owned(), "<IN MEMORY>".to_owned()),
        _ => (store.meta_dir(name).display().to_string(), store.tls_dir(name).display().to_string()),
    };
    Ok(json!({
        "Name": metadata.name,
        "Metadata": metadata.metadata,
        "Endpoints": metadata.endpoints,
        "TLSMaterial": material,
        "Storage": {"MetadataPath": meta_path, "TLSPath": tls_path},
    }))
}

fn remove(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let mut failures = Vec::new();
    for name in &parsed.positionals {
        match remove_one(context, name, parsed.flag("force")) {
            Ok(()) => say_line!("{name}"),
            Err(exit) => failures.extend(exit.message),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Exit::new(1, failures.join("\n"))) }
}

fn remove_one(context: &Context, name: &str, force: bool) -> Result<(), Exit> {
    if name == DEFAULT {
        return Err(Exit::new(1, "context \"default\" cannot be removed"));
    }
    if name == context.name() {
        if !force {
            return Err(Exit::new(1, format!("context {name:?} is in use, set -f flag to force remove")));
        }
        crate::config::set_current_context(context.directory(), "")?;
    }
    if !force && !context.store().exists(name) {
        return Err(Exit::new(1, format!("context {name:?} does not exist")));
    }
    context.store().remove(name)
}

fn export(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let (store, name) = (context.store(), first(parsed));
    if name != DEFAULT {
        contexts::check_name(name)?;
    }
    let bytes = contexts::export(&find(store, name)?, &store.tls_files(name)?).map_err(|err| Exit::error(&err))?;
    let named = format!("{name}.dockercontext");
    let target = parsed.positionals.get(1).unwrap_or(&named);
    if target == "-" {
        let mut stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(Exit::new(1, "cowardly refusing to export to a terminal, specify a file path"));
        }
        return stdout.write_all(&bytes).map_err(|err| Exit::error(&err));
    }
    let complain = |err| Exit::new(1, format!("open {target}: {}", go_error(&err)));
    // It may hold a key: for its owner alone, and over nobody's file.
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(target).map_err(complain)?;
    file.write_all(&bytes).map_err(complain)?;
    warn_line!("Written file {target:?}");
    Ok(())
}

fn import(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let (store, name) = (context.store(), first(parsed));
    check_new(store, name)?;
    let source = parsed.positionals.get(1).map_or("", String::as_str);
    let (metadata, tls) = match source {
        "-" => contexts::import(name, std::io::stdin().lock())?,
        path => {
            let file = fs::File::open(path).map_err(|err| Exit::new(1, format!("open {path}: {}", go_error(&err))))?;
            contexts::import(name, file)?
        }
    };
    store.put(&metadata, &tls)?;
    say_line!("{name}");
    warn_line!("Successfully imported context {name:?}");
    Ok(())
}
