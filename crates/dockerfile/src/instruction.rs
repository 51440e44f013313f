//! What an instruction says, understood.

use crate::budget::Budget;
use crate::expand::{Escape, Lookup, expand_within};
use crate::fault::{Fault, ParseError};
use crate::flags::{Flags, Takes};
use crate::lines::{self, Heredoc, Node};
use crate::mounts::{self, Mount};
use crate::suggest::meant;
use crate::times;

/// All instructions.
const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// One instruction of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its whole logical line, as written.
    pub original: String,
    /// Its first line in the text, from 1.
    pub line: usize,
    /// The last one, with its heredocs.
    pub end: usize,
    /// Its name, as written.
    pub name: String,
    /// The comments above it, without their `#`; of an `ARG` alone.
    pub comments: Vec<String>,
    /// What it says.
    pub kind: Kind,
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ADD`.
    Add(Files),
    /// `ARG`.
    Arg(Vec<Arg>),
    /// `CMD`.
    Cmd(CommandLine),
    /// `COPY`.
    Copy(Files),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `ENV`.
    Env(Vec<Pair>),
    /// `EXPOSE`: words that are ports once they are expanded.
    Expose(Vec<String>),
    /// `HEALTHCHECK`.
    HealthCheck(HealthCheck),
    /// `LABEL`.
    Label(Vec<Pair>),
    /// `MAINTAINER`.
    Maintainer(String),
    /// `ONBUILD`: an instruction for those who build on the image.
    OnBuild(String),
    /// `RUN`.
    Run(Run),
    /// `SHELL`.
    Shell(Vec<String>),
    /// `STOPSIGNAL`.
    StopSignal(String),
    /// `USER`.
    User(String),
    /// `VOLUME`.
    Volume(Vec<String>),
    /// `WORKDIR`.
    Workdir(String),
}

/// A name and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
    /// Whether a blank stands between them, as it did long ago.
    pub is_legacy: bool,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// The name.
    pub name: String,
    /// What it is if nobody says otherwise.
    pub default: Option<String>,
}

/// A command: words, or a text for a shell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The words; of a shell's text one.
    pub words: Vec<String>,
    /// Whether a shell reads it.
    pub shell: bool,
    /// Its heredocs.
    pub files: Vec<InlineFile>,
}

/// A heredoc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// Its name.
    pub name: String,
    /// What is in it: without leading tabs where those do not count.
    pub text: String,
    /// Whether variables in it are replaced.
    pub expand: bool,
    /// As it is written, tabs included.
    pub raw: String,
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Paths and patterns in the context, or in what `from` names; URLs.
    pub sources: Vec<String>,
    /// Files that stand in the text.
    pub inline: Vec<InlineFile>,
    /// Where they go.
    pub destination: String,
    /// A stage or an image.
    pub from: String,
    /// `USER[:GROUP]`.
    pub chown: String,
    /// Octal digits.
    pub chmod: String,
    /// Whether the layer does not depend on those below it.
    pub link: bool,
    /// Whether the sources' directories are made, too.
    pub parents: bool,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// The digest that a download must have.
    pub checksum: String,
    /// Whether `.git` stays, if said.
    pub keep_git_dir: Option<bool>,
    /// Whether archives are unpacked, if said.
    pub unpack: Option<bool>,
}

/// `RUN`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// What is run.
    pub command: CommandLine,
    /// What is mounted meanwhile.
    pub mounts: Vec<Mount>,
    /// With which network.
    pub network: RunNetwork,
    /// Whether with all privileges.
    pub insecure: bool,
    /// The names of the flags that were given.
    pub flags: Vec<String>,
    raw_mounts: Vec<String>,
}

/// The network of a `RUN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunNetwork {
    /// The build's.
    #[default]
    Default,
    /// None.
    None,
    /// The host's.
    Host,
}

/// `HEALTHCHECK`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthCheck {
    /// `NONE`, or `CMD` and words, or `CMD-SHELL` and a text.
    pub test: Vec<String>,
    /// Nanoseconds.
    pub interval: i64,
    /// Nanoseconds.
    pub timeout: i64,
    /// Nanoseconds.
    pub start_period: i64,
    /// Nanoseconds.
    pub start_interval: i64,
    /// How often it may fail.
    pub retries: i64,
}

/// The instruction that a base image asks for (`ONBUILD`).
pub fn parse_trigger(text: &str) -> Result<Instruction, ParseError> {
    let tree = lines::parse(text)?;
    let [node] = &tree.nodes[..] else {
        return Err(ParseError::Syntax { line: 1, end: 1, fault: Fault::TriggerLines });
    };
    parse(node).map_err(|fault| ParseError::Instruction { line: node.line, end: node.end, fault })
}

/// What a line that is not `FROM` says.
pub(crate) fn parse(node: &Node) -> Result<Instruction, Fault> {
    let kind = match node.name.to_lowercase().as_str() {
        "add" => Kind::Add(add(node)?),
        "arg" => Kind::Arg(args(node)?),
        "cmd" => Kind::Cmd(command(node)?),
        "copy" => Kind::Copy(copy(node)?),
        "entrypoint" => Kind::Entrypoint(command(node)?),
        "env" => Kind::Env(pairs(node, "ENV")?),
        "expose" => Kind::Expose(expose(node)?),
        "healthcheck" => Kind::HealthCheck(health_check(node)?),
        "label" => Kind::Label(pairs(node, "LABEL")?),
        "maintainer" => Kind::Maintainer(single(node, "MAINTAINER")?),
        "onbuild" => Kind::OnBuild(on_build(node)?),
        "run" => Kind::Run(run(node)?),
        "shell" => Kind::Shell(shell(node)?),
        "stopsignal" => Kind::StopSignal(single(node, "STOPSIGNAL")?),
        "user" => Kind::User(single(node, "USER")?),
        "volume" => Kind::Volume(volumes(node)?),
        "workdir" => Kind::Workdir(single(node, "WORKDIR")?),
        "from" => return Err(Fault::NotACommand),
        _ => {
            let meant = meant(&node.name, &NAMES, false);
            return Err(Fault::UnknownInstruction { name: node.name.clone(), meant });
        }
    };
    let comments = if matches!(kind, Kind::Arg(_)) { node.comments.clone() } else { Vec::new() };
    let (original, name) = (node.original.trim().to_owned(), node.name.clone());
    Ok(Instruction { original, line: node.line, end: node.end, name, comments, kind })
}

fn single(node: &Node, what: &'static str) -> Result<String, Fault> {
    let [word] = &node.args[..] else { return Err(Fault::ExactlyOne(what)) };
    if what != "STOPSIGNAL" {
        Flags::none(&node.flags)?;
    }
    Ok(word.clone())
}

fn pairs(node: &Node, what: &'static str) -> Result<Vec<Pair>, Fault> {
    Flags::none(&node.flags)?;
    if node.pairs.is_empty() {
        return Err(Fault::AtLeastOne(what));
    }
    let pair = |(name, value): &(String, String)| match name.is_empty() {
        true => Err(Fault::BlankName(what)),
        false => Ok(Pair { name: name.clone(), value: value.clone(), is_legacy: node.is_legacy }),
    };
    node.pairs.iter().map(pair).collect()
}

fn args(node: &Node) -> Result<Vec<Arg>, Fault> {
    if node.args.is_empty() {
        return Err(Fault::AtLeastOne("ARG"));
    }
    let arg = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err(Fault::BlankName("ARG")),
        Some((name, value)) => Ok(Arg { name: name.to_owned(), default: Some(value.to_owned()) }),
        None => Ok(Arg { name: word.clone(), default: None }),
    };
    node.args.iter().map(arg).collect()
}

fn command(node: &Node) -> Result<CommandLine, Fault> {
    Flags::none(&node.flags)?;
    Ok(command_line(node))
}

fn command_line(node: &Node) -> CommandLine {
    CommandLine {
        words: node.args.clone(),
        shell: !node.json,
        files: node.heredocs.iter().map(|heredoc| inline(heredoc, heredoc.expand)).collect(),
    }
}

fn inline(heredoc: &Heredoc, expand: bool) -> InlineFile {
    let text = match heredoc.chomp {
        true => heredoc.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect(),
        false => heredoc.content.clone(),
    };
    InlineFile { name: heredoc.name.clone(), text, expand, raw: heredoc.content.clone() }
}

fn run(node: &Node) -> Result<Run, Fault> {
    let known = [("mount", Takes::Many), ("network", Takes::One), ("security", Takes::One), ("device", Takes::Many)];
    let flags = Flags::parse(&node.flags, &known)?;
    let raw_mounts = flags.all("mount");
    let mounts = raw_mounts.iter().map(|text| mounts::parse(text, None)).collect::<Result<_, _>>()?;
    let network = match flags.given("network") {
        None | Some("default") => RunNetwork::Default,
        Some("none") => RunNetwork::None,
        Some("host") => RunNetwork::Host,
        Some(other) => return Err(Fault::Network(other.to_owned())),
    };
    let insecure = match flags.given("security") {
        None | Some("sandbox") => false,
        Some("insecure") => true,
        Some(other) => return Err(Fault::Security(other.to_owned())),
    };
    Ok(Run { command: command_line(node), mounts, network, insecure, flags: flags.names(), raw_mounts })
}

fn add(node: &Node) -> Result<Files, Fault> {
    let known = [
        ("chown", Takes::One),
        ("chmod", Takes::One),
        ("link", Takes::Bool),
        ("keep-git-dir", Takes::Bool),
        ("checksum", Takes::One),
        ("unpack", Takes::Bool),
        ("exclude", Takes::Many),
    ];
    let files = sources(node, "ADD", &known)?;
    Ok(files)
}

fn copy(node: &Node) -> Result<Files, Fault> {
    let known = [
        ("parents", Takes::Bool),
        ("chown", Takes::One),
        ("from", Takes::One),
        ("chmod", Takes::One),
        ("link", Takes::Bool),
        ("exclude", Takes::Many),
    ];
    sources(node, "COPY", &known)
}

fn sources(node: &Node, what: &'static str, known: &[(&'static str, Takes)]) -> Result<Files, Fault> {
    let Some((destination, places)) = node.args.split_last().filter(|(_, places)| !places.is_empty()) else {
        return Err(Fault::NoDestination(what));
    };
    let flags = Flags::parse(&node.flags, known)?;
    let is_heredoc = |word: &str| !node.json && matches!(lines::heredoc(word), Ok(Some(_)));
    if is_heredoc(destination) {
        return Err(Fault::HeredocDestination(what));
    }
    let (mut paths, mut files) = (Vec::new(), Vec::new());
    for place in places {
        match lines::heredoc(place) {
            Ok(Some(named)) if !node.json => {
                let found = node.heredocs.iter().find(|heredoc| heredoc.name == named.name);
                files.extend(found.map(|heredoc| inline(heredoc, named.expand)));
            }
            _ => paths.push(place.clone()),
        }
    }
    Ok(Files {
        sources: paths,
        inline: files,
        destination: destination.clone(),
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        exclude: flags.all("exclude"),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
    })
}

fn expose(node: &Node) -> Result<Vec<String>, Fault> {
    if node.args.is_empty() {
        return Err(Fault::AtLeastOne("EXPOSE"));
    }
    Flags::none(&node.flags)?;
    let mut ports = node.args.clone();
    ports.sort();
    Ok(ports)
}

fn volumes(node: &Node) -> Result<Vec<String>, Fault> {
    if node.args.is_empty() {
        return Err(Fault::AtLeastOne("VOLUME"));
    }
    Flags::none(&node.flags)?;
    let place = |word: &String| match word.trim() {
        "" => Err(Fault::BlankVolume),
        place => Ok(place.to_owned()),
    };
    node.args.iter().map(place).collect()
}

fn shell(node: &Node) -> Result<Vec<String>, Fault> {
    Flags::none(&node.flags)?;
    match (node.args.is_empty(), node.json) {
        (true, _) => Err(Fault::AtLeastOne("SHELL")),
        (false, true) => Ok(node.args.clone()),
        (false, false) => Err(Fault::ShellForm),
    }
}

fn on_build(node: &Node) -> Result<String, Fault> {
    let Some(trigger) = node.args.first() else { return Err(Fault::AtLeastOne("ONBUILD")) };
    Flags::none(&node.flags)?;
    match trigger.trim().to_uppercase().as_str() {
        "ONBUILD" => return Err(Fault::OnBuildChain),
        name @ ("MAINTAINER" | "FROM") => return Err(Fault::OnBuild(name.to_owned())),
        _ => {}
    }
    let original = node.original.trim_start();
    let mut expression = original.get("ONBUILD".len()..).unwrap_or_default().trim_start().to_owned();
    for heredoc in &node.heredocs {
        expression.push('\n');
        expression.push_str(&heredoc.content);
        expression.push_str(&heredoc.name);
    }
    Ok(expression)
}

fn health_check(node: &Node) -> Result<HealthCheck, Fault> {
    let Some((kind, command)) = node.args.split_first() else { return Err(Fault::AtLeastOne("HEALTHCHECK")) };
    let kind = kind.to_uppercase();
    if kind == "NONE" {
        return match command {
            [] => Ok(HealthCheck { test: vec![kind], ..HealthCheck::default() }),
            _ => Err(Fault::NoneArguments),
        };
    }
    let known = ["interval", "timeout", "start-period", "start-interval", "retries"].map(|name| (name, Takes::One));
    let flags = Flags::parse(&node.flags, &known)?;
    let test = match kind.as_str() {
        "CMD" if command.is_empty() => return Err(Fault::NoCheck),
        "CMD" if node.json => [vec![kind], command.to_vec()].concat(),
        "CMD" => vec!["CMD-SHELL".to_owned(), command.join(" ")],
        _ => return Err(Fault::CheckKind(kind)),
    };
    let interval = |name: &str| times::interval(name, &flags.text(name));
    let retries = match flags.given("retries").filter(|text| !text.is_empty()) {
        None => 0,
        Some(text) => i64::from(text.parse::<i32>().map_err(|_| Fault::Number(text.to_owned()))?),
    };
    let check = HealthCheck {
        test,
        interval: interval("interval")?,
        timeout: interval("timeout")?,
        start_period: interval("start-period")?,
        start_interval: interval("start-interval")?,
        retries,
    };
    if retries < 0 { Err(Fault::Retries(retries)) } else { Ok(check) }
}

impl Instruction {
    /// The same with its variables replaced. `EXPOSE` is left to [`crate::expand_words`].
    pub fn expand(&self, escape: Escape, lookup: &Lookup<'_>) -> Result<Instruction, Fault> {
        self.expand_watched(escape, lookup, &|| ())
    }

    /// The same for one who wants to know where a word ends: `behind` is called after each one.
    pub fn expand_watched(&self, escape: Escape, lookup: &Lookup<'_>, behind: &dyn Fn()) -> Result<Instruction, Fault> {
        let (mut own, budget) = (self.clone(), Budget::new());
        let expand = |text: &str| {
            let expanded = expand_within(text, escape, lookup, &budget);
            behind();
            expanded
        };
        let word = |text: &mut String| -> Result<(), Fault> {
            *text = expand(text)?;
            Ok(())
        };
        match &mut own.kind {
            Kind::Env(pairs) | Kind::Label(pairs) => {
                for pair in pairs {
                    word(&mut pair.name)?;
                    word(&mut pair.value)?;
                }
            }
            Kind::Arg(args) => {
                for arg in args {
                    word(&mut arg.name)?;
                    arg.default.as_mut().map(word).transpose()?;
                }
            }
            Kind::Add(files) | Kind::Copy(files) => {
                files.sources.iter_mut().try_for_each(word)?;
                [&mut files.destination, &mut files.chown, &mut files.chmod, &mut files.checksum]
                    .into_iter()
                    .try_for_each(word)?;
                let inline = files.inline.iter_mut().filter(|file| file.expand);
                inline.map(|file| &mut file.text).try_for_each(word)?;
            }
            Kind::Run(run) => {
                let mount = |text: &String| mounts::parse(text, Some(&expand));
                run.mounts = run.raw_mounts.iter().map(mount).collect::<Result<_, _>>()?;
            }
            Kind::Workdir(text) | Kind::User(text) | Kind::StopSignal(text) => word(text)?,
            Kind::Volume(places) => places.iter_mut().try_for_each(word)?,
            _ => {}
        }
        Ok(own)
    }
}
