//! `build`.

mod beside;
mod caches;
mod checks;
mod failed_at;
mod on_error;
mod outputs;
mod pushing;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use client::ClientError;
use client::build::{self, BuildOptions};
use client::call::Answer;
use client::session::agent::Agent;
use client::session::outputs::Outputs;
use client::session::{Context as Told, Offers, SecretSource};
use engine_api::paths::clean;

use self::beside::Taking;
use super::progress::{self, Target};
use super::{Context, load};
use crate::args::Parsed;
use crate::plan::buildx::{Progress, Wishes};
use crate::plan::outputs::Output;
use crate::report::{Exit, go_error};
use crate::{config, context_files, context_tar, credentials, plan, say, warn_line};
use context_files::Files;
use context_tar::{Sent, Source};

/// The variable that says what time it is, in seconds since 1970 (reproducible-builds.org).
const TIME: &str = "SOURCE_DATE_EPOCH";

/// The longest Dockerfile that need not be sent within an archive, in bytes: as much as daemons take.
const DOCKERFILE_MAX: u64 = 16 << 20;

/// The longest secret, in bytes: BuildKit's (session/secrets/secretsprovider).
const SECRET_MAX: u64 = 500 * 1024;

/// `build`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(place) = parsed.positionals.first() else { return Ok(()) };
    let id_file = parsed.text("iidfile");
    if !id_file.is_empty()
        && let Err(err) = fs::remove_file(id_file)
        && err.kind() != io::ErrorKind::NotFound
    {
        return Err(Exit::new(1, format!("Removing image ID file: remove {id_file}: {}", go_error(&err))));
    }
    config::check_content_trust(parsed)?;
    let mut options = plan::build::options(parsed, arguments(context, parsed)).map_err(|err| Exit::error(&err))?;
    options.keep_failed = on_error::is_wanted(parsed)?;
    options.platform = config::platform(parsed);
    options.logins = credentials::all(&context.config).map_err(|err| Exit::error(&err))?;
    options.contexts = plan::build::told_contexts(parsed).map_err(|err| Exit::error(&err))?;
    let mut offers = plan::build::offers(parsed, &|name| std::env::var(name).ok()).map_err(|err| Exit::error(&err))?;
    check(&offers)?;
    offers.agents = agents(parsed)?;
    let mut wanted = Wanted::of(parsed)?;
    options.reproducible = wanted.time;
    options.names = plan::buildx::names(&options.names, &wanted.outputs);
    options.quiet |= wanted.wishes.progress == Progress::Quiet;
    options.allows_host_network = wanted.wishes.allows_host_network;
    let (source, name) = source(place, parsed.text("file"))?;
    options.dockerfile = name;
    if let Source::Remote(url) = &source {
        options.remote.clone_from(url);
    }
    let shown = shown_name(place, parsed.text("file"));
    options.excerpt.clone_from(&shown);
    if let Source::Directory { directory, .. } = &source {
        wanted.directory = Some(directory.clone());
    }
    // It is none of the Dockerfile's.
    let check = options.arguments.remove("BUILDKIT_DOCKERFILE_CHECK").flatten();
    let subject = checks::Subject::of(&source, shown, check.clone())?;
    if let Some(call) = checks::Call::parse(parsed)? {
        return match subject {
            Some(subject) => checks::answer(context, &options, &subject, &call).await,
            None => {
                // As buildx shows it: joined like a path, whatever it is.
                let shown = match parsed.text("file") {
                    "" => clean(&format!("{place}/Dockerfile")),
                    file => file.to_owned(),
                };
                ask_fetched(context, &mut options, source, (offers, shown, check), &call).await
            }
        };
    }
    wanted.caches = caches::offer(&mut options, &mut offers)?;
    wanted.beside.tell(&mut options);
    offers.logins.clone_from(&options.logins);
    let shown = wanted.findings_shown(context.debug || parsed.flag("debug"));
    let Some(subject) = subject else { return offering(context, &mut options, source, &wanted, offers).await };
    let checking = subject.begin(context, &options, false).await?;
    if checking.may_fail_builds() {
        let findings = checks::finish(context, &options, checking, true).await;
        checks::warn(context, &subject, &findings, shown);
        return match findings.violation {
            Some(violation) => Err(Exit::new(1, violation.to_string())),
            None => offering(context, &mut options, source, &wanted, offers).await,
        };
    }
    let sent = offering(context, &mut options, source, &wanted, offers).await;
    // By now the images are here that it begins with.
    checks::warn(context, &subject, &checks::finish(context, &options, checking, false).await, shown);
    sent
}

/// Answers what is asked of a Dockerfile that only the daemon finds, with what it needs for that.
async fn ask_fetched(
    context: &Context,
    options: &mut BuildOptions,
    source: Source,
    (offers, shown, check): (Offers, String, Option<String>),
    call: &checks::Call,
) -> Result<(), Exit> {
    let subject = if offers.is_empty() {
        checks::Subject::fetched(context, source, options, (shown, check)).await?
    } else {
        options.session = stdx::id::random_hex::<12>();
        let id = &options.session;
        let session = client::session::open(&context.client, id, offers, packed, None, Outputs::default()).await?;
        tokio::select! {
            subject = checks::Subject::fetched(context, source, options, (shown, check)) => subject?,
            _ = session => return Err(Exit::new(1, SESSION_CLOSED)),
        }
    };
    checks::answer(context, options, &subject, call).await
}

/// Why a build has nobody to ask any more.
const SESSION_CLOSED: &str = "the daemon has closed the build's session";

/// What is wanted of a build that the daemon is not told of.
struct Wanted {
    /// Whether its id alone is told.
    quiet: bool,
    wishes: Wishes,
    /// Where it is written down what was built; empty for nowhere.
    metadata_file: String,
    /// Where the image's id goes; empty for nowhere.
    id_file: String,
    outputs: Vec<Output>,
    /// What the daemon brings of them.
    beside: beside::Wanted,
    /// What nothing in the image may be later than, in seconds since 1970.
    time: Option<i64>,
    /// What is noted of caches that the daemon leaves with us.
    caches: caches::Tags,
    /// The directory that is built from, if it is one.
    directory: Option<PathBuf>,
    /// Whether a shell is opened where a command fails.
    opens_shell: bool,
}

impl Wanted {
    fn of(parsed: &Parsed) -> Result<Wanted, Exit> {
        let outputs = plan::outputs::parse(parsed.list("output")).map_err(|err| Exit::error(&err))?;
        let wishes = plan::buildx::wishes(parsed, &outputs, &|name| std::env::var(name).ok());
        let wishes = wishes.map_err(|err| Exit::error(&err))?;
        if wishes.progress == Progress::Tty && !io::stdout().is_terminal() {
            return Err(Exit::new(1, "failed to get console: provided file is not a console"));
        }
        let time = match parsed.flag("reproducible") {
            true => Some(plan::build::time(&std::env::var(TIME).unwrap_or_default()).map_err(|err| Exit::error(&err))?),
            false => None,
        };
        Ok(Wanted {
            quiet: parsed.flag("quiet"),
            wishes,
            metadata_file: parsed.text("metadata-file").to_owned(),
            id_file: parsed.text("iidfile").to_owned(),
            beside: beside::Wanted::of(parsed, &outputs)?,
            outputs,
            time,
            caches: caches::Tags::new(),
            directory: None,
            opens_shell: !parsed.text("on-error").is_empty(),
        })
    }

    /// Whether what it comes to goes to standard output, which nothing else is on then.
    fn to_stdout(&self) -> bool {
        self.outputs.iter().any(|output| output.destination == "-")
    }

    /// Whether it is told how much of the context was sent.
    fn shows(&self) -> bool {
        !self.is_silent() && !self.to_stdout() && !self.is_raw()
    }

    /// Whether nothing is shown of what is done.
    fn is_silent(&self) -> bool {
        self.quiet || self.wishes.progress == Progress::Quiet
    }

    /// Whether it is told to programs.
    fn is_raw(&self) -> bool {
        self.wishes.progress == Progress::RawJson
    }

    /// How it is shown what checks find.
    fn findings_shown(&self, debug: bool) -> checks::Shown {
        match (self.is_silent(), self.is_raw()) {
            (true, _) => checks::Shown::Not,
            (false, true) => checks::Shown::Raw,
            (false, false) => checks::Shown::Lines { debug },
        }
    }

    /// Whether lines may be drawn again.
    fn redraws(&self) -> bool {
        self.wishes.progress != Progress::Plain && io::stdout().is_terminal()
    }

    /// Where what is done is shown, if it is.
    fn target(&self) -> Option<Target> {
        if self.is_silent() {
            return None;
        }
        if self.is_raw() {
            return Some(Target::StderrRaw);
        }
        Some(match (self.to_stdout(), self.wishes.progress == Progress::Plain) {
            (true, false) => Target::Stderr,
            (true, true) => Target::StderrLines,
            (false, false) => Target::Stdout,
            (false, true) => Target::StdoutLines,
        })
    }
}

/// Sends a build, and serves what it asks for of files, secrets and agents meanwhile.
async fn offering(
    context: &Context,
    options: &mut BuildOptions,
    source: Source,
    wanted: &Wanted,
    offers: Offers,
) -> Result<(), Exit> {
    let told = told(context, &source, wanted)?;
    let mut taking = Taking::default();
    if offers.is_empty() && told.is_none() && options.outputs.is_empty() {
        return send(context, options, source, wanted, &mut taking).await;
    }
    taking = wanted.beside.take();
    let id = stdx::id::random_hex::<12>();
    let (directory, text) = told.unzip();
    let needs_session = !offers.is_empty() || wanted.beside.is_asked();
    let outputs = taking.outputs.clone();
    let session = match client::session::open(&context.client, &id, offers, packed, directory, outputs).await {
        // There are daemons without any, which get an archive.
        Err(ClientError::Api { .. }) if !needs_session => {
            options.outputs.clear();
            return send(context, options, source, wanted, &mut taking).await;
        }
        session => session?,
    };
    options.session.clone_from(&id);
    let sending = async {
        let Some(text) = text else { return send(context, options, source, wanted, &mut taking).await };
        match build::build_directory(&context.client, text, options).await {
            Err(ClientError::NotOurs) if wanted.beside.is_asked() => Err(Exit::new(1, beside::NOT_OURS)),
            Err(ClientError::NotOurs) => {
                options.outputs.clear();
                send(context, options, source, wanted, &mut taking).await
            }
            answer => follow(context, options, answer?, wanted, &mut taking).await,
        }
    };
    tokio::select! {
        sent = sending => sent,
        ended = session => match ended {
            Ok(()) => Err(Exit::new(1, SESSION_CLOSED)),
            Err(status) => Err(Exit::error(&status)),
        },
    }
}

/// A directory that can be told file by file, and its Dockerfile; nothing of what has to be sent as an archive.
fn told(context: &Context, source: &Source, wanted: &Wanted) -> Result<Option<(Told, Vec<u8>)>, Exit> {
    let Source::Directory { directory, name, text } = source else { return Ok(None) };
    let text = match text {
        Some(text) => text.clone(),
        None => {
            let whole = fs::canonicalize(directory.join(name)).ok().filter(|whole| whole.starts_with(directory));
            // What leads out the daemon refuses by its own words.
            let text = whole.and_then(|whole| File::open(whole).ok()).map(|file| file.take(DOCKERFILE_MAX + 1));
            let mut bytes = Vec::new();
            match text.map(|mut text| text.read_to_end(&mut bytes)) {
                Some(Ok(count)) if count as u64 <= DOCKERFILE_MAX => bytes,
                _ => return Ok(None),
            }
        }
    };
    let patterns = context_tar::ignored(directory, name, matches!(source, Source::Directory { text: None, .. }));
    let patterns = patterns.map_err(|err| Exit::error(&err))?;
    let listed = context_files::list(directory, &patterns).map_err(|err| Exit::error(&err))?;
    let told = listed.map(|entries| {
        let files = Files::new(directory.clone(), entries, wanted.shows(), wanted.redraws());
        (Told { key: context_files::key(context.directory(), directory), directory: Box::new(files) }, text)
    });
    Ok(told)
}

/// The archive of a named context.
fn packed(directory: &Path) -> io::Result<Box<dyn Read + Send>> {
    context_tar::files_of(directory).map_err(|err| io::Error::other(errdefs::chain(&err)))
}

/// Refuses contexts that are no directories, and secrets that are not there, or longer than any.
fn check(offers: &Offers) -> Result<(), Exit> {
    for (name, directory) in &offers.directories {
        let shown = directory.display();
        match fs::metadata(directory) {
            Err(err) => {
                let why = go_error(&err);
                return Err(Exit::new(1, format!("failed to get build context {name}: stat {shown}: {why}")));
            }
            Ok(found) if !found.is_dir() => {
                return Err(Exit::new(1, format!("failed to get build context path {shown}: not a directory")));
            }
            Ok(_) => {}
        }
    }
    for (id, source) in &offers.secrets {
        let SecretSource::File(path) = source else { continue };
        let found = fs::metadata(path);
        let found = found.map_err(|err| {
            Exit::new(1, format!("failed to stat {0}: stat {0}: {1}", path.display(), go_error(&err)))
        })?;
        if found.len() > SECRET_MAX {
            return Err(Exit::new(1, format!("secret {id} too big. max size 500KB")));
        }
    }
    Ok(())
}

/// Who signs for the build, by name.
fn agents(parsed: &Parsed) -> Result<BTreeMap<String, Agent>, Exit> {
    let agents = plan::build::agents(parsed, &|name| std::env::var(name).ok()).map_err(|err| Exit::error(&err))?;
    let opened = agents.into_iter().map(|(name, paths)| match Agent::open(&paths) {
        Ok(agent) => Ok((name, agent)),
        Err(err) => {
            let shown: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
            let (shown, why) = (shown.join(" "), errdefs::chain(&err));
            // Its words are those of buildx, field by field.
            let sentence = format!(
                "failed to convert agent config {{{name} [{shown}] false}}: failed to convert agent config for ID: \
                 {name:?}: {why}"
            );
            Err(Exit::new(1, sentence))
        }
    });
    opened.collect()
}

/// What the Dockerfile is called where its lines are shown.
fn shown_name(place: &str, file: &str) -> String {
    match (place, file) {
        (_, "-") | ("-", "") => "Dockerfile".to_owned(),
        (".", "") => "Dockerfile".to_owned(),
        (place, "") => Path::new(place).join("Dockerfile").to_string_lossy().into_owned(),
        (_, file) => file.to_owned(),
    }
}

async fn send(
    context: &Context,
    options: &BuildOptions,
    source: Source,
    wanted: &Wanted,
    taking: &mut Taking,
) -> Result<(), Exit> {
    let archive = source.open().map_err(|err| Exit::error(&err))?;
    let sent = Sent::new(archive, wanted.shows() && options.remote.is_empty(), wanted.redraws());
    let answer = build::build(&context.client, load::upload(Box::new(sent)), options).await?;
    follow(context, options, answer, wanted, taking).await
}

/// Shows what is told of a build, and brings what it came to.
async fn follow(
    context: &Context,
    options: &BuildOptions,
    answer: Answer,
    wanted: &Wanted,
    taking: &mut Taking,
) -> Result<(), Exit> {
    let Wanted { caches, .. } = wanted;
    let mut exported = None;
    let silent = wanted.is_silent();
    let (mut image, mut failed, mut left, mut failed_at) = (String::new(), None, Vec::new(), None);
    let mut told = String::new();
    let shown = progress::follow(answer, wanted.target(), &mut told, &mut |aux| {
        if let Some(id) = aux.get("ID").and_then(|id| id.as_str()) {
            id.clone_into(&mut image);
        }
        if let Some(id) = aux.get("FailedContainer").and_then(|id| id.as_str()) {
            failed = Some(id.to_owned());
        }
        if let Some(told) = aux.get("Exported") {
            exported = Some(told.clone());
        }
        if let Some(at) = aux.get("FailedAt") {
            failed_at = Some(at.clone());
        }
        if let (Some(directory), Some(manifest)) =
            (aux.get("CacheLeft").and_then(|it| it.as_str()), aux.get("Manifest"))
        {
            left.push((directory.to_owned(), manifest.clone()));
        }
    })
    .await;
    if let Err(exit) = shown {
        if silent {
            warn_line!("{}", told.trim_end());
        }
        let exit = failed_at::explain(exit, failed_at, wanted);
        return Err(match failed {
            Some(id) => on_error::shell(context, &id, exit).await,
            None => exit,
        });
    }
    caches::note(caches, &left)?;
    if silent {
        told.trim().clone_into(&mut image);
        if wanted.quiet && !wanted.to_stdout() {
            say!("{told}");
        }
    }
    match exported {
        Some(exported) => {
            taking.end().await?;
            pushing::write(&wanted.metadata_file, &beside::metadata(&exported))?;
        }
        None if wanted.beside.is_asked() => return Err(Exit::new(1, beside::NOT_OURS)),
        None => bring(context, options, &image, wanted).await?,
    }
    let id_file = &wanted.id_file;
    if id_file.is_empty() {
        return Ok(());
    }
    if image.is_empty() {
        return Err(Exit::new(1, format!("Server did not provide an image ID. Cannot write {id_file}")));
    }
    fs::write(id_file, image).map_err(|err| Exit::new(1, format!("open {id_file}: {}", go_error(&err))))
}

/// Brings an image of which nothing is said to where it is wanted, and notes that.
async fn bring(context: &Context, options: &BuildOptions, image: &str, wanted: &Wanted) -> Result<(), Exit> {
    if image.is_empty() && !wanted.outputs.is_empty() {
        return Err(Exit::new(1, "the daemon has told no image ID: there is nothing to write"));
    }
    outputs::bring(context, image, &options.names, &wanted.outputs).await?;
    let pushed = if wanted.wishes.push { pushing::push(context, &options.names, wanted.target()).await? } else { None };
    pushing::write(&wanted.metadata_file, &plan::buildx::metadata(image, pushed.as_deref(), &options.names))
}

/// `--build-arg`, and the proxies of the configuration.
fn arguments(context: &Context, parsed: &Parsed) -> BTreeMap<String, Option<String>> {
    let given = parsed.list("build-arg");
    let host = context.client.endpoint().to_string();
    let proxies = plan::proxies::variables(&context.config.proxies, &host, given);
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.clone(), std::env::var(text).ok()),
    };
    given.iter().chain(&proxies).map(pair).collect()
}

/// Where the context is, and what its Dockerfile is called in it.
fn source(place: &str, file: &str) -> Result<(Source, String), Exit> {
    let refused = |sentence: String| Exit::new(1, format!("unable to prepare context: {sentence}"));
    if place == "-" {
        if file == "-" {
            let sentence = "invalid argument: can't use stdin for both build context and dockerfile";
            return Err(Exit::new(1, sentence));
        }
        let mut start = Vec::new();
        let read = io::stdin().take(context_tar::HEAD_BYTES).read_to_end(&mut start);
        read.map_err(|err| refused(format!("failed to peek context header from STDIN: {}", go_error(&err))))?;
        return context_tar::of_input(start, file).map_err(|err| refused(err.to_string()));
    }
    let directory = Path::new(place);
    if fs::metadata(directory).is_err() {
        let starts = ["http://", "https://", "git://", "ssh://", "git@", "github.com/"];
        return match (starts.iter().any(|start| place.starts_with(start)), file) {
            (true, "-") => Err(Exit::new(1, "a Dockerfile on standard input has no context of a URL")),
            (true, file) => Ok((Source::Remote(place.to_owned()), file.to_owned())),
            (false, _) => Err(Exit::new(1, format!("unable to prepare context: path {place:?} not found"))),
        };
    }
    let directory = fs::canonicalize(directory).map_err(|err| refused(go_error(&err)))?;
    if !directory.is_dir() {
        return Err(refused(format!("context must be a directory: {}", directory.display())));
    }
    if file == "-" {
        let mut text = Vec::new();
        io::stdin().read_to_end(&mut text).map_err(|err| refused(go_error(&err)))?;
        return Ok(Source::with_dockerfile(directory, text));
    }
    let whole = dockerfile(&directory, file).map_err(refused)?;
    match whole.strip_prefix(&directory) {
        Ok(inside) => {
            let name = inside.to_string_lossy().into_owned();
            Ok((Source::Directory { directory, name: name.clone(), text: None }, name))
        }
        // One beside the context is sent with it.
        Err(_) => {
            let text =
                fs::read(&whole).map_err(|err| refused(format!("unable to open Dockerfile: {}", go_error(&err))))?;
            Ok(Source::with_dockerfile(directory, text))
        }
    }
}

/// The Dockerfile's path.
fn dockerfile(directory: &Path, file: &str) -> Result<PathBuf, String> {
    let path = match file {
        "" => {
            let usual = directory.join("Dockerfile");
            let lower = directory.join("dockerfile");
            if !usual.exists() && lower.exists() { lower } else { usual }
        }
        file => PathBuf::from(file),
    };
    let wrong = |err: io::Error| {
        let whole = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        format!("unable to evaluate symlinks in Dockerfile path: lstat {}: {}", whole.display(), go_error(&err))
    };
    // A link within the context stays what it is; one that leads out is refused by the daemon.
    fs::metadata(&path).map_err(wrong)?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let above = fs::canonicalize(above).map_err(|err| go_error(&err))?;
    Ok(above.join(path.file_name().unwrap_or_default()))
}
