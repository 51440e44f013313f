//! Calls about containers.

use bytes::Bytes;
use engine_api::IdResponse;
use engine_api::changes::{Change, ContainersPruned};
use engine_api::container::{CreateRequest, CreateResponse, Inspect, WaitResponse};
use engine_api::path_stat::{self, PathStat};
use http::Method;
use serde::Deserialize;

use crate::call::{Answer, Client, Payload, Upload, decode};
use crate::error::ClientError;
use crate::hijack::Hijacked;
use crate::query::{Query, segment};

/// What a list is about.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Stopped ones, too.
    pub all: bool,
    /// At most this many of the newest, in any state; 0 for no bound.
    pub limit: i64,
    /// With sizes.
    pub size: bool,
    /// Docker's JSON of filters; empty for none.
    pub filters: String,
}

/// What to attach to.
#[derive(Clone, Debug, Default)]
pub struct AttachOptions {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// The keys that detach; empty for the daemon's.
    pub detach_keys: String,
}

/// Which part of the log.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Go on with what comes.
    pub follow: bool,
    /// Seconds since 1970 with an optional fraction; empty for the beginning.
    pub since: String,
    /// Seconds since 1970 with an optional fraction; empty for the end.
    pub until: String,
    /// Lines from the end, or `all`.
    pub tail: String,
    /// With the time of each line.
    pub timestamps: bool,
    /// With the labels and variables that the log driver was told to keep.
    pub details: bool,
}

/// The path of an action. A name that is empty would make another path of it.
pub(crate) fn path(id: &str, action: &str) -> Result<String, ClientError> {
    match id.trim() {
        "" => Err(ClientError::EmptyName),
        id => Ok(format!("/containers/{}{action}", segment(id))),
    }
}

/// Makes a container.
pub async fn create(
    client: &Client,
    name: &str,
    platform: &str,
    request: &CreateRequest,
) -> Result<CreateResponse, ClientError> {
    let path = Query::new("/containers/create").with_text("name", name).with_text("platform", platform).build();
    client.post(&path, request).await
}

/// Starts a container.
pub async fn start(client: &Client, id: &str) -> Result<(), ClientError> {
    act(client, path(id, "/start")?).await
}

/// Starts a container from a checkpoint of it, or one in `dir`.
pub async fn start_from(client: &Client, id: &str, checkpoint: &str, dir: &str) -> Result<(), ClientError> {
    let query = Query::new(path(id, "/start")?).with_text("checkpoint", checkpoint).with_text("checkpoint-dir", dir);
    act(client, query.build()).await
}

/// Stops a container; `timeout` in seconds, -1 to wait for ever.
pub async fn stop(client: &Client, id: &str, signal: &str, timeout: Option<i64>) -> Result<(), ClientError> {
    act(client, with_stop(path(id, "/stop")?, signal, timeout)).await
}

/// Stops and starts a container.
pub async fn restart(client: &Client, id: &str, signal: &str, timeout: Option<i64>) -> Result<(), ClientError> {
    act(client, with_stop(path(id, "/restart")?, signal, timeout)).await
}

fn with_stop(path: String, signal: &str, timeout: Option<i64>) -> String {
    let query = Query::new(path).with_text("signal", signal);
    match timeout {
        Some(timeout) => query.with("t", &timeout.to_string()).build(),
        None => query.build(),
    }
}

/// Sends a signal, by name or number; empty for KILL.
pub async fn kill(client: &Client, id: &str, signal: &str) -> Result<(), ClientError> {
    act(client, Query::new(path(id, "/kill")?).with_text("signal", signal).build()).await
}

/// Gives a container another name.
pub async fn rename(client: &Client, id: &str, name: &str) -> Result<(), ClientError> {
    act(client, Query::new(path(id, "/rename")?).with("name", name).build()).await
}

/// Makes a container stand still.
pub async fn pause(client: &Client, id: &str) -> Result<(), ClientError> {
    act(client, path(id, "/pause")?).await
}

/// Lets it go on.
pub async fn unpause(client: &Client, id: &str) -> Result<(), ClientError> {
    act(client, path(id, "/unpause")?).await
}

/// Tells the size of the terminal.
pub async fn resize(client: &Client, id: &str, height: u16, width: u16) -> Result<(), ClientError> {
    let query = Query::new(path(id, "/resize")?).with("h", &height.to_string()).with("w", &width.to_string());
    act(client, query.build()).await
}

async fn act(client: &Client, path: String) -> Result<(), ClientError> {
    client.call(Method::POST, &path, Payload::Empty).await.map(drop)
}

/// How a container is removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Kill it first.
    pub force: bool,
    /// Its anonymous volumes go, too.
    pub volumes: bool,
    /// Only the link of this name goes.
    pub link: bool,
}

/// Removes a container, or a link.
pub async fn remove(client: &Client, id: &str, options: RemoveOptions) -> Result<(), ClientError> {
    let RemoveOptions { force, volumes, link } = options;
    let query = Query::new(path(id, "")?).with_flag("force", force).with_flag("link", link).with_flag("v", volumes);
    client.call(Method::DELETE, &query.build(), Payload::Empty).await.map(drop)
}

/// A list of containers as the daemon wrote it.
pub struct List {
    path: String,
    bytes: Bytes,
}

impl List {
    /// The containers: each as a [`Summary`](engine_api::container::Summary), or as a part of it, which is read faster, the
    /// more so if it borrows its texts.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<Vec<T>, ClientError> {
        decode(&self.path, &self.bytes)
    }
}

/// Lists containers.
pub async fn list(client: &Client, options: &ListOptions) -> Result<List, ClientError> {
    let limit = if options.limit > 0 { options.limit.to_string() } else { String::new() };
    let query = Query::new("/containers/json").with_flag("all", options.all).with_text("limit", &limit);
    let path = query.with_flag("size", options.size).with_text("filters", &options.filters).build();
    let bytes = client.call(Method::GET, &path, Payload::Empty).await?;
    Ok(List { path, bytes })
}

/// Shows a container.
pub async fn inspect(client: &Client, id: &str) -> Result<Inspect, ClientError> {
    client.get(&path(id, "/json")?).await
}

/// Shows a container as the daemon's own bytes.
pub async fn inspect_raw(client: &Client, id: &str, size: bool) -> Result<Bytes, ClientError> {
    let query = Query::new(path(id, "/json")?).with_flag("size", size);
    client.call(Method::GET, &query.build(), Payload::Empty).await
}

/// A wait that the daemon has taken up: nothing that happens from now on is missed.
pub struct Waiting {
    answer: Answer,
}

impl Waiting {
    /// The exit status.
    pub async fn status(mut self) -> Result<WaitResponse, ClientError> {
        self.answer.json().await
    }
}

/// Waits for a container; `condition` is empty (`not-running`), `next-exit` or `removed`. Returns as soon as the daemon
/// has taken it up.
pub async fn wait(client: &Client, id: &str, condition: &str) -> Result<Waiting, ClientError> {
    let query = Query::new(path(id, "/wait")?).with_text("condition", condition);
    let answer = client.stream(Method::POST, &query.build(), Payload::Empty).await?;
    Ok(Waiting { answer })
}

/// Attaches to a container's streams.
pub async fn attach(client: &Client, id: &str, options: &AttachOptions) -> Result<Hijacked, ClientError> {
    let query = Query::new(path(id, "/attach")?)
        .with_text("detachKeys", &options.detach_keys)
        .with_flag("stderr", options.stderr)
        .with_flag("stdin", options.stdin)
        .with_flag("stdout", options.stdout)
        .with_flag("stream", true);
    client.hijack(&query.build(), &[]).await
}

/// Reads a container's log.
pub async fn logs(client: &Client, id: &str, options: &LogOptions) -> Result<Answer, ClientError> {
    let query = Query::new(path(id, "/logs")?)
        .with_flag("details", options.details)
        .with_flag("follow", options.follow)
        .with_text("since", &options.since)
        .with_flag("stderr", true)
        .with_flag("stdout", true)
        .with_text("tail", &options.tail)
        .with_flag("timestamps", options.timestamps)
        .with_text("until", &options.until);
    client.stream(Method::GET, &query.build(), Payload::Empty).await
}

/// What is made of a container.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// The new image's repository; empty for none.
    pub repository: String,
    /// Its tag.
    pub tag: String,
    /// Why it was made.
    pub comment: String,
    /// By whom.
    pub author: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// Whether the container stands still meanwhile.
    pub pause: bool,
}

/// Makes an image of a container; answers its id.
pub async fn commit(client: &Client, id: &str, options: &CommitOptions) -> Result<String, ClientError> {
    path(id, "")?;
    let mut query = Query::new("/commit")
        .with("container", id)
        .with_text("repo", &options.repository)
        .with_text("tag", &options.tag)
        .with_text("comment", &options.comment)
        .with_text("author", &options.author)
        .with("pause", if options.pause { "1" } else { "0" });
    for change in &options.changes {
        query = query.with("changes", change);
    }
    let made: IdResponse = client.post(&query.build(), &()).await?;
    Ok(made.id)
}

/// What a container changed in its files.
pub async fn changes(client: &Client, id: &str) -> Result<Vec<Change>, ClientError> {
    let changes: Option<Vec<Change>> = client.get(&path(id, "/changes")?).await?;
    Ok(changes.unwrap_or_default())
}

/// The archive of a container's root.
pub async fn export(client: &Client, id: &str) -> Result<Answer, ClientError> {
    client.stream(Method::GET, &path(id, "/export")?, Payload::Empty).await
}

/// Removes the containers that do not run.
pub async fn prune(client: &Client, filters: &str) -> Result<ContainersPruned, ClientError> {
    let path = Query::new("/containers/prune").with_text("filters", filters).build();
    let bytes = client.call(Method::POST, &path, Payload::Empty).await?;
    crate::call::decode(&path, &bytes)
}

/// What is at a path in a container.
pub async fn path_stat(client: &Client, id: &str, at: &str) -> Result<PathStat, ClientError> {
    let query = Query::new(path(id, "/archive")?).with("path", at).build();
    stat_of(&client.stream(Method::HEAD, &query, Payload::Empty).await?, &query)
}

/// The archive of what is at a path in a container.
pub async fn get_archive(client: &Client, id: &str, at: &str) -> Result<(Answer, PathStat), ClientError> {
    let query = Query::new(path(id, "/archive")?).with("path", at).build();
    let answer = client.stream(Method::GET, &query, Payload::Empty).await?;
    let stat = stat_of(&answer, &query)?;
    Ok((answer, stat))
}

fn stat_of(answer: &Answer, path: &str) -> Result<PathStat, ClientError> {
    let stat = answer.header(path_stat::HEADER).and_then(PathStat::from_header);
    stat.ok_or_else(|| ClientError::Header { path: path.to_owned(), name: path_stat::HEADER })
}

/// Unpacks an archive in a directory of a container; `to_user` gives everything to the container's user.
pub async fn put_archive(
    client: &Client,
    id: &str,
    at: &str,
    to_user: bool,
    archive: Upload,
) -> Result<(), ClientError> {
    let query = Query::new(path(id, "/archive")?).with("path", at).with("noOverwriteDirNonDir", "true");
    let query = if to_user { query.with("copyUIDGID", "true") } else { query };
    let mut answer = client.stream(Method::PUT, &query.build(), Payload::Archive(archive)).await?;
    answer.rest().await.map(drop)
}
