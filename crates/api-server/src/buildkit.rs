//! BuildKit's API, as `docker buildx` and `docker compose build` speak it to dockerd.
//!
//! ```text
//! POST /session  sessions: the client's files and logins, by the session's id
//! POST /grpc     service: Control, and LLBBridge by which the client reads a Dockerfile "itself"
//!     Control.Solve(ref, session, exporters) ----- waits ----------------------+--> export: the image gets its names
//!     Control.Status(ref) <-- progress of the build, to its end                |
//!     LLBBridge.Solve(ref, dockerfile.v0, options) --> frontend, local, engine |
//!     LLBBridge.Return(ref, outcome or failure) -------------------------------+
//! ```
//! - [`service`] knows the calls, [`build`] what builds there are and what becomes of one.
//! - [`attributes`] reads what a client wants of a Dockerfile: pure. [`inputs`] has it come with what it is built from:
//!   [`local`] has the client send its files, [`layout`] its images, [`remote`] has a context whole.
//! - [`beside`] has a classic build's image attested, annotated and brought to outputs, for our own client.
//! - [`attest`] says where an image comes from, and what is in it.
//! - [`outputs`] brings what was built to where the client wants it.
//! - [`progress`] is what a client sees of a build, [`follow`] what makes it so; [`failure`] what it reads where one fails.
//! - [`blobs`] are what directories of the client's have, or get: caches. [`asks`] is all that the engine asks for.
//! - [`tunnel`] is a session that is opened by a call, not by a request of its own.
//! - [`questions`] are what a client asks of a Dockerfile instead of building it.
//!
//! - [`history`] is what is known of builds that have ended, [`filter`] which of them somebody wants.
//!
//! A call that its client gives up is dropped where it stands, and with it the build that it waits for. Of a build nothing
//! is in memory when its client has heard how it ended. Locks are held for a look into a map.

mod asks;
mod attest;
mod attributes;
pub(crate) mod beside;
mod blobs;
mod build;
mod clip;
mod failure;
mod filter;
mod follow;
mod history;
mod inputs;
mod layout;
mod local;
mod modes;
mod outputs;
mod progress;
mod questions;
pub(crate) mod remote;
mod service;
mod tunnel;

use std::collections::BTreeMap;
use std::sync::Arc;

use buildkit_api::session::{Announced, Sessions};
use buildkit_api::status::Status;
use engine::ops::build::{Client, NamedContext, NamedSource, SentFiles};
use errdefs::ErrorKind;
use http::header::UPGRADE;

use self::attributes::NamedPlace;
use self::build::Builds;
use self::history::Histories;
use self::service::BuildService;
use crate::hijack::{Outcome, Upgrade};
use crate::request::Call;
use crate::status::Failure;

/// The protocol that connections are upgraded to: HTTP/2 without TLS of its own.
const PROTOCOL: &str = "h2c";

/// What clients of BuildKit's have open.
#[derive(Debug, Default)]
pub(crate) struct BuildKit {
    sessions: Sessions,
    builds: Builds,
    histories: Arc<Histories>,
}

impl BuildKit {
    /// Who opened a session; `None` where nobody does.
    pub(crate) async fn client(&self, session: &str) -> Client {
        // Nobody calls one so: it is not waited for.
        let session = if session.is_empty() { return None } else { self.sessions.find(session).await? };
        Some(Arc::new(asks::SessionAsks(session)))
    }
}

/// The named contexts of a classic build; directories are what its session uploads.
pub(crate) async fn contexts(
    buildkit: &BuildKit,
    session: &str,
    given: &BTreeMap<String, String>,
) -> Result<Vec<NamedContext>, Failure> {
    let failed = |status: Status| Failure::invalid(status.message);
    let mut named = Vec::new();
    for (name, place) in attributes::contexts(given, &|_| None).map_err(failed)? {
        let source = match place {
            NamedPlace::Image(image) => NamedSource::Image(image),
            NamedPlace::Url(url) => NamedSource::Url(url),
            NamedPlace::Directory(directory, _) => {
                let found = if session.is_empty() { None } else { buildkit.sessions.find(session).await };
                let session = found.ok_or_else(|| Failure::invalid(format!("no active session for {name}")))?;
                NamedSource::Files(SentFiles {
                    name: None,
                    source: Box::new(move |_, _| Box::new(remote::uploaded(session, &directory))),
                })
            }
            NamedPlace::Layout(..) => {
                return Err(Failure::invalid(format!("the context {name} of an OCI layout needs BuildKit's API")));
            }
            NamedPlace::Input(input) => return Err(Failure::invalid(format!("invalid input {input} for {name}"))),
        };
        named.push(NamedContext { name, source });
    }
    Ok(named)
}

/// The directory that a session tells; nothing where it tells none.
pub(crate) async fn directory(buildkit: &BuildKit, session: &str) -> Option<SentFiles> {
    buildkit.sessions.find(session).await.map(local::whole_directory)
}

/// `POST /grpc`.
pub(crate) async fn grpc(call: Call) -> Result<Outcome, Failure> {
    check_protocol(&call, ErrorKind::Internal)?;
    let service = BuildService::new(call.engine, call.buildkit);
    Ok(Outcome::Upgrade(Upgrade::new(PROTOCOL, async move |io| {
        buildkit_api::server::serve(io, service).await.map_err(|err| errdefs::chain(&err))
    })))
}

/// `POST /session`.
pub(crate) async fn session(call: Call) -> Result<Outcome, Failure> {
    check_protocol(&call, ErrorKind::InvalidArgument)?;
    let failed = |err| Failure::from_error(ErrorKind::InvalidArgument, &err);
    let announced = Announced::of_headers(&call.headers).map_err(failed)?;
    call.buildkit.sessions.check(&announced).map_err(failed)?;
    let buildkit: Arc<BuildKit> = call.buildkit;
    Ok(Outcome::Upgrade(Upgrade::new(PROTOCOL, async move |io| {
        buildkit.sessions.serve(announced, io).await.map_err(|err| errdefs::chain(&err))
    })))
}

fn check_protocol(call: &Call, kind: ErrorKind) -> Result<(), Failure> {
    match call.headers.get(UPGRADE).map(|value| value.to_str().unwrap_or_default()) {
        None => Err(Failure::new(kind, "no upgrade proto in request")),
        Some(PROTOCOL) => Ok(()),
        Some(other) => Err(Failure::new(kind, format!("protocol {other} not supported"))),
    }
}
