//! Contexts that the daemon has whole: fetched from an address, or uploaded by the client.

use std::io::Read;
use std::sync::Arc;

use buildkit_api::messages::AgentBytes;
use buildkit_api::session::Session;
use buildkit_api::status::{Code, Status};
use engine::Engine;
use engine::ops::build::{self, ALONE, BuildError, Client, FetchedContext, RemoteFiles};
use http::header::{HeaderName, HeaderValue};

use super::asks::SessionAsks;
use super::build::Build;
use super::failure::{of_build, said};
use super::local::{Definition, Ignore, lower};
use super::{attributes, failure};
use crate::upload::{self, Upload};

/// What addresses begin with that are no server's: the client's session has what lies there (session/upload).
const UPLOADED: &str = "http://buildkit-session/";

/// The call for what is uploaded.
const PULL: &str = "/moby.upload.v1.Upload/Pull";

/// Of which address a call is.
const PATH: HeaderName = HeaderName::from_static("urlpath");
const HOST: HeaderName = HeaderName::from_static("urlhost");

/// Has a context of an address come; answers its files, and which part of the build has loaded them.
pub(super) async fn fetch(
    engine: &Engine,
    build: &Build,
    session: &Arc<Session>,
    remote: &attributes::Remote,
) -> Result<(RemoteFiles, String), Status> {
    let name = match build::shown_repository(&remote.url) {
        Some(address) => format!("[internal] load git source {address}"),
        None => "[internal] load remote build context".to_owned(),
    };
    let part = build.progress.begin(&name, None).await;
    let files = come(engine, session, remote).await;
    let files = files.map_err(|err| of_build(&err, &failure::Place::default(), Some(part.digest())));
    build.progress.end(&part, files.as_ref().err().map(|err| err.message.as_str())).await;
    Ok((files?, part.digest().to_owned()))
}

async fn come(engine: &Engine, session: &Arc<Session>, remote: &attributes::Remote) -> Result<RemoteFiles, BuildError> {
    let fetched: FetchedContext = match remote.url.strip_prefix(UPLOADED) {
        Some(path) => build::keep_context(engine, uploaded(session.clone(), path)).await?,
        None => {
            let client: Client = Some(Arc::new(SessionAsks(session.clone())));
            build::fetch_context(engine, &remote.url, remote.keep_git_dir, &client).await?
        }
    };
    Ok(fetched.files().await?)
}

/// What the client uploads by a name, once.
pub(crate) fn uploaded(session: Arc<Session>, path: &str) -> impl Read + Send + use<> {
    let (upload, reader) = upload::channel();
    let path = format!("/{path}");
    tokio::spawn(async move {
        match pull(&session, &path, &upload).await {
            Ok(()) => upload.end().await,
            Err(status) => upload.fail(status.message).await,
        }
    });
    reader
}

async fn pull(session: &Session, path: &str, upload: &Upload) -> Result<(), Status> {
    if !session.answers(PULL) {
        return Err(said("the client uploads nothing"));
    }
    let header =
        |text: &str| HeaderValue::from_str(text).map_err(|err| Status::new(Code::InvalidArgument, err.to_string()));
    let headers = [(PATH, header(path)?), (HOST, header("buildkit-session")?)];
    let (mut outgoing, mut incoming) = session.channel.stream(PULL, &headers).await?;
    outgoing.end()?;
    while let Some(AgentBytes { data }) = incoming.next().await? {
        // What is behind the end of an archive does not matter.
        if !upload.send(data.into()).await {
            return Ok(());
        }
    }
    Ok(())
}

/// The Dockerfile in a context that has come for the sake of nothing else.
pub(crate) async fn dockerfile(fetched: FetchedContext, name: &str) -> Result<Vec<u8>, String> {
    let files = fetched.files().await.map_err(|err| errdefs::chain(&err))?;
    let found = definition(&files, name, String::new()).await.map_err(|err| err.message)?;
    Ok(found.text)
}

/// The Dockerfile in such a context.
pub(super) async fn definition(files: &RemoteFiles, name: &str, part: String) -> Result<Definition, Status> {
    let wanted = if files.is_dockerfile { ALONE } else { name };
    for name in [Some(wanted.to_owned()), lower(wanted)].into_iter().flatten() {
        let text = files.read(&name).await.map_err(|err| said(errdefs::chain(&err)))?;
        if let Some(text) = text {
            return Ok(Definition { name, text, ignore: Ignore::default(), part });
        }
    }
    Err(said(format!("failed to read dockerfile: open {name}: no such file or directory")))
}
