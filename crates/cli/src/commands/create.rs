//! `create`, and the part of `run` that makes the container.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use client::{ClientError, container};
use engine_api::container::CreateRequest;
use oci::{Digest, Reference, ReferenceError};

use super::progress::{self, Target};
use super::{Context, api_socket, pull};
use crate::args::Parsed;
use crate::plan::{self, Surroundings};
use crate::report::{self, Exit, chain, client_error, go_error};
use crate::term;
use crate::{config, say_line, warn_line};

/// `create`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let request = request(context, parsed, "create")?;
    let id = create(context, parsed, &request).await.map_err(|err| err.into_exit(context, "create"))?;
    say_line!("{id}");
    Ok(())
}

/// Turns the command line into a request, with the files and variables of this process.
pub fn request(context: &Context, parsed: &Parsed, verb: &str) -> Result<CreateRequest, Exit> {
    let refuse = |message: &str| Exit::new(125, context.with_help(verb, message));
    let pull = when_to_pull(parsed);
    if !matches!(pull, "" | "missing" | "always" | "never") {
        let message = format!("invalid pull option: '{pull}': must be one of \"always\", \"missing\" or \"never\"");
        return Err(refuse(&message));
    }
    let directory = std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default();
    let surroundings = Surroundings {
        read: &|path| fs::read(path),
        variable: &|name| std::env::var(name).ok(),
        directory: &directory,
    };
    let mut request = plan::create::request(parsed, &surroundings).map_err(|err| refuse(&err.to_string()))?;
    for _ in 0..parsed.list("mount").iter().map(|text| plan::mount::outdated(text)).sum() {
        report::warn("bind-nonrecursive is deprecated, use bind-recursive=disabled instead");
    }
    let host = context.client.endpoint().to_string();
    let proxies = plan::proxies::variables(&context.config.proxies, &host, parsed.list("env"));
    if !proxies.is_empty() {
        request.config.env.get_or_insert_default().extend(proxies);
    }
    if let (Some(host), Some((height, width))) = (&mut request.host_config, term::size()) {
        // A program may ask for the size before the resize that follows the start has arrived.
        host.console_size = [height.into(), width.into()];
    }
    Ok(request)
}

fn when_to_pull(parsed: &Parsed) -> &str {
    if parsed.given("pull") { parsed.text("pull") } else { "missing" }
}

/// Why no container was made.
#[derive(Debug)]
pub enum Failure {
    /// The daemon refused, or is not there.
    Client(ClientError),
    /// The image could not be pulled, or the id not be written: the sentence.
    Local(String),
}

impl From<Exit> for Failure {
    fn from(exit: Exit) -> Failure {
        Failure::Local(exit.message.unwrap_or_default())
    }
}

impl Failure {
    /// The exit: Docker's status for `run`, 1 for `create`.
    pub fn into_exit(self, context: &Context, verb: &str) -> Exit {
        let message = match &self {
            Failure::Client(err) => client_error(err),
            Failure::Local(message) => message.clone(),
        };
        match verb {
            "run" => Exit::new(status_of(&message), context.with_help(verb, &message)),
            _ => Exit::new(1, message),
        }
    }
}

/// What a shell would say: 127 for a program that does not exist, 126 for one that cannot be run. Docker's client tells
/// them by these words of the daemon, and so must we: the API has no field for it.
pub fn status_of(message: &str) -> u8 {
    if message.contains("executable file not found") || message.contains("no such file or directory") {
        127
    } else if message.contains("permission denied") || message.contains("is a directory") {
        126
    } else {
        125
    }
}

/// Makes the container, pulling the image if that is wanted; returns its id.
pub async fn create(context: &Context, parsed: &Parsed, request: &CreateRequest) -> Result<String, Failure> {
    let id_file = parsed.text("cidfile");
    if !id_file.is_empty() && Path::new(id_file).exists() {
        let message =
            format!("container ID file found, make sure the other container isn't running or delete {id_file}");
        return Err(Failure::Local(message));
    }
    let image = &request.config.image;
    let reference = reference(image)?;
    if reference.as_ref().is_some_and(|reference| reference.digest().is_none()) {
        config::check_content_trust(parsed)?;
    }
    let name = parsed.text("name");
    let platform = config::platform(parsed);
    if !platform.is_empty()
        && let Err(err) = engine_api::platform::parse(&platform)
    {
        return Err(Failure::Local(format!("error parsing specified platform: {err}")));
    }
    let when = when_to_pull(parsed);
    if when == "always" {
        let name: Reference = image.parse().map_err(|err: ReferenceError| Failure::Local(err.to_string()))?;
        pull(context, parsed, &name.with_default_tag()).await?;
    }
    let mut request = std::borrow::Cow::Borrowed(request);
    let logins = if parsed.flag("use-api-socket") { api_socket::add(context, request.to_mut())? } else { None };
    let request = &*request;
    let outcome = match (container::create(&context.client, name, &platform, request).await, reference) {
        (Err(err), Some(reference))
            if when == "missing" && err.is_not_found() && misses_image(context, &reference, &platform).await? =>
        {
            if !parsed.flag("quiet") {
                warn_line!("Unable to find image '{}' locally", reference.familiar());
            }
            pull(context, parsed, &reference).await?;
            container::create(&context.client, name, &platform, request).await
        }
        (outcome, _) => outcome,
    };
    let created = outcome.map_err(Failure::Client)?;
    for warning in &created.warnings {
        warn_line!("WARNING: {warning}");
    }
    if let Some(address) = local_name_server(parsed.list("dns")) {
        warn_line!("WARNING: Localhost DNS ({address}) may fail in containers.");
    }
    if !id_file.is_empty() {
        write_id(id_file, &created.id)?;
    }
    if let Some(logins) = logins {
        api_socket::put(context, &created.id, logins).await?;
    }
    Ok(created.id)
}

/// The first name server that means the container itself.
fn local_name_server(servers: &[String]) -> Option<IpAddr> {
    servers.iter().filter_map(|server| server.parse().ok()).find(IpAddr::is_loopback)
}

/// The image's name; none if it is an id, which no registry knows. Docker's client refuses what is neither before it asks.
fn reference(image: &str) -> Result<Option<Reference>, Failure> {
    match image.parse::<Reference>() {
        // It could be a tag of a repository `sha256`, too.
        Ok(_) if image.parse::<Digest>().is_ok() => Ok(None),
        Ok(reference) => Ok(Some(reference.with_default_tag())),
        Err(ReferenceError::LooksLikeId(_)) => Ok(None),
        Err(err) => Err(Failure::Local(err.to_string())),
    }
}

/// Whether what was not found is the image, or the one for the platform, and not a container or a network.
async fn misses_image(context: &Context, reference: &Reference, platform: &str) -> Result<bool, Failure> {
    match client::image::inspect_raw(&context.client, &reference.to_string(), "").await {
        Ok(_) => Ok(!platform.is_empty()),
        Err(err) if err.is_not_found() => Ok(true),
        Err(err) => Err(Failure::Client(err)),
    }
}

async fn pull(context: &Context, parsed: &Parsed, reference: &Reference) -> Result<(), Failure> {
    let auth = pull::login(context, reference).map_err(|err| Failure::Local(chain(&err)))?;
    let options = pull::options(parsed, reference, auth);
    let answer = client::image::pull(&context.client, &options).await.map_err(Failure::Client)?;
    progress::show(answer, Target::Stderr, parsed.flag("quiet")).await?;
    Ok(())
}

fn write_id(path: &str, id: &str) -> Result<(), Failure> {
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, id.as_bytes()));
    written.map_err(|err| {
        Failure::Local(format!("failed to create the container ID file: open {path}: {}", go_error(&err)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_not_looked_for_in_registries() {
        let hex = "0123456789abcdef".repeat(4);
        let name = |image: &str| reference(image).map(|name| name.map(|name| name.familiar()));
        for (image, wanted) in [
            ("busybox", Some("busybox:latest")),
            ("a:5000/b:1", Some("a:5000/b:1")),
            // As far as anybody can tell, these are names.
            ("0123456789ab", Some("0123456789ab:latest")),
            ("sha256:0123", Some("sha256:0123")),
            (&hex, None),
            (&format!("sha256:{hex}"), None),
        ] {
            assert_eq!(name(image).unwrap().as_deref(), wanted, "{image}");
        }
        let Err(Failure::Local(sentence)) = name("A") else { panic!("A is a name") };
        assert_eq!(sentence, "invalid reference format: repository name (library/A) must be lowercase");
    }
}
