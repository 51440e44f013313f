//! All commands.

use super::later::Wait;
use super::run_flags::{CREATE, DISABLE_CONTENT_TRUST, RUN_ONLY, UPDATE};
use super::{CheckpointVerb, ContextVerb, Flag, Kind, ManifestVerb, NetworkVerb, network_flags, volume_flags};

mod archives;
mod bootstrap;
mod build;
mod contexts;
mod image_upkeep;
mod manifests;
mod ports;
mod registries;

/// What a command does; one variant, one file of `commands`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `run`
    Run,
    /// `create`
    Create,
    /// `build`, `image build`
    Build,
    /// `start`
    Start,
    /// `stop`
    Stop,
    /// `kill`
    Kill,
    /// `pause`
    Pause,
    /// `unpause`
    Unpause,
    /// `update`
    Update,
    /// `stats`
    Stats,
    /// `top`
    Top,
    /// `restart`
    Restart,
    /// `wait`
    Wait,
    /// `port`
    Port,
    /// `rm`
    Remove,
    /// `rename`
    Rename,
    /// `ps`, `container ls`
    List,
    /// `logs`
    Logs,
    /// `exec`
    Exec,
    /// `attach`
    Attach,
    /// `inspect` of anything
    Inspect,
    /// `container inspect`
    InspectContainer,
    /// `images`, `image ls`
    Images,
    /// `image inspect`
    InspectImage,
    /// `cp`
    Copy,
    /// `diff`
    Diff,
    /// `export`
    Export,
    /// `commit`
    Commit,
    /// `import`
    Import,
    /// `container prune`
    PruneContainers,
    /// `history`
    History,
    /// `search`
    Search,
    /// `pull`
    Pull,
    /// `push`
    Push,
    /// `login`
    Login,
    /// `logout`
    Logout,
    /// `load`
    Load,
    /// `save`
    Save,
    /// `tag`
    Tag,
    /// `rmi`, `image rm`
    RemoveImage,
    /// `volume create`
    CreateVolume,
    /// `volume inspect`
    InspectVolume,
    /// `volume ls`
    ListVolumes,
    /// `volume prune`
    PruneVolumes,
    /// `volume rm`
    RemoveVolume,
    /// `volume clone`
    CloneVolume,
    /// `volume export`
    ExportVolume,
    /// `volume import`
    ImportVolume,
    /// `volume snapshot`
    SnapshotVolume,
    /// `volume update`
    UpdateVolume,
    /// A verb of lists of images.
    Manifest(ManifestVerb),
    /// `image bootstrap`
    Bootstrap,
    /// `image budget`
    ExplainBudget,
    /// `image prune`
    PruneImages,
    /// `network inspect`
    InspectNetwork,
    /// `network prune`
    PruneNetworks,
    /// `builder prune`
    PruneCaches,
    /// `buildx du`
    BuildDiskUsage,
    /// `buildx ls`
    ListBuilders,
    /// `system df`
    DiskUsage,
    /// `system prune`
    PruneAll,
    /// `version`
    Version,
    /// `info`
    Info,
    /// `events`
    Events,
    /// `why`
    Why,
    /// `network` and what follows, but for what other groups have, too
    Network(NetworkVerb),
    /// `checkpoint` and what follows
    Checkpoint(CheckpointVerb),
    /// `context` and what follows
    Context(ContextVerb),
    /// `system dial-stdio`
    DialStdio,
    /// `completion`
    Completion,
    /// `man`
    Man,
}

/// How many positionals a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// None.
    None,
    /// At most this many.
    Max(usize),
    /// At least this many.
    Min(usize),
    /// This many.
    Exactly(usize),
    /// At least the first, at most the second.
    Between(usize, usize),
}

/// Where help lists a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What is on this machine.
    Management,
    /// What is in a cluster.
    Swarm,
}

/// A group of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Where help lists it.
    pub section: Section,
}

const fn group_of(section: Section, name: &'static str, about: &'static str) -> Group {
    Group { name, about, section }
}

/// Groups in the order of help.
pub static GROUPS: &[Group] = &[
    group_of(Section::Management, "builder", "Manage builds"),
    group_of(Section::Management, "buildx", "Manage builds"),
    group_of(Section::Management, "checkpoint", "Manage checkpoints of containers"),
    group_of(Section::Management, "container", "Manage containers"),
    group_of(Section::Management, "context", "Manage contexts: named daemons"),
    group_of(Section::Management, "image", "Manage images"),
    group_of(Section::Management, "manifest", "Manage images of several platforms"),
    group_of(Section::Management, "network", "Manage networks"),
    group_of(Section::Management, "plugin", "Manage plugins"),
    group_of(Section::Management, "system", "Manage the engine"),
    group_of(Section::Management, "trust", "Manage who signs images"),
    group_of(Section::Management, "volume", "Manage volumes"),
    group_of(Section::Swarm, "config", "Manage configs of services"),
    group_of(Section::Swarm, "node", "Manage the nodes of a cluster"),
    group_of(Section::Swarm, "secret", "Manage secrets of services"),
    group_of(Section::Swarm, "service", "Manage services"),
    group_of(Section::Swarm, "stack", "Manage stacks of services"),
    group_of(Section::Swarm, "swarm", "Manage the cluster"),
];

/// The commands that help shows first, in its order.
pub static COMMON: &[&str] =
    &["run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version", "info"];

/// A command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Where it stands: `run`, `container run`, `container ls`; the first is the one that help shows.
    pub paths: &'static [&'static str],
    /// What follows its name, as help shows it.
    pub usage: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Its flags.
    pub flags: &'static [&'static [Flag]],
    /// Its positionals.
    pub arity: Arity,
    /// A flag with which they are others.
    pub arity_with: Option<(&'static str, Arity)>,
    /// Whether flags may follow positionals.
    pub interspersed: bool,
    /// What runs.
    pub verb: Verb,
    /// Whether help leaves it out.
    pub hidden: bool,
}

impl Command {
    /// All flags.
    pub fn all_flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.flags.iter().flat_map(|part| part.iter())
    }
}

/// Old names lead to the same value.
pub(super) fn canonical(long: &'static str) -> &'static str {
    match long {
        "net" => "network",
        "dns-opt" => "dns-option",
        "time" => "timeout",
        other => other,
    }
}

const fn command(paths: &'static [&'static str], usage: &'static str, about: &'static str, verb: Verb) -> Command {
    let (arity, arity_with) = (Arity::None, None);
    Command { paths, usage, about, flags: &[], arity, arity_with, interspersed: true, verb, hidden: false }
}

impl Command {
    const fn flags(mut self, flags: &'static [&'static [Flag]]) -> Command {
        self.flags = flags;
        self
    }

    const fn arity(mut self, arity: Arity) -> Command {
        self.arity = arity;
        self
    }

    const fn arity_with(mut self, flag: &'static str, arity: Arity) -> Command {
        self.arity_with = Some((flag, arity));
        self
    }

    /// Options end at the first positional: what follows belongs to the container.
    const fn options_first(mut self) -> Command {
        self.interspersed = false;
        self
    }

    const fn hidden(mut self) -> Command {
        self.hidden = true;
        self
    }
}

const CHECKPOINT_DIR: Flag = Flag::value("checkpoint-dir", Kind::Text, "string", "Where checkpoints are kept");
const FORMAT: Flag = Flag::value("format", Kind::Text, "string", "Shape the output: 'table', 'json' or a Go template");
const FILTER: Flag =
    Flag::value("filter", Kind::Filter, "filter", "Only what meets a condition (name=value)").short('f');
const QUIET_IDS: Flag = Flag::bool("quiet", "Only show IDs").short('q');
const PRUNE_FILTER: Flag = Flag::value("filter", Kind::Filter, "filter", "Only what meets a condition (name=value)");
const FORCE: Flag = Flag::bool("force", "Do not ask").short('f');
const NO_TRUNC: Flag = Flag::bool("no-trunc", "Show everything in full length");
const DETACH_KEYS: Flag =
    Flag::value("detach-keys", Kind::Text, "string", "Keys that detach, instead of ctrl-p,ctrl-q");
const SIG_PROXY: Flag = Flag::bool("sig-proxy", "Pass signals on to the process").default("true");
const STOP: &[Flag] = &[
    Flag::value("signal", Kind::Text, "string", "Signal that asks it to end").short('s'),
    Flag::value("time", Kind::Int, "int", "Seconds to wait before killing it").default("0").hidden(),
    Flag::value("timeout", Kind::Int, "int", "Seconds to wait before killing it").short('t').default("0"),
];
const CHANGE: Flag =
    Flag::value("change", Kind::List, "list", "Apply an instruction of a Dockerfile to the image").short('c');
const PLATFORM: Flag = Flag::value("platform", Kind::Text, "string", "Platform of the image");

const CONTEXT_DESCRIPTION: Flag = Flag::value("description", Kind::Text, "string", "What it is for");
const CONTEXT_DOCKER: Flag = Flag::value(
    "docker",
    Kind::PairList,
    "stringToString",
    "Where its daemon is: host=tcp://server:2376,ca=...,cert=...,key=...,skip-tls-verify=..., or from=CONTEXT",
);
const CONTEXT_FROM: Flag = Flag::value("from", Kind::Text, "string", "Make it like this context");

/// Commands in the order of help.
pub static COMMANDS: &[Command] = &[
    command(
        &["run", "container run"],
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a container from an image and run it",
        Verb::Run,
    )
    .flags(&[RUN_ONLY, CREATE])
    .arity(Arity::Min(1))
    .options_first(),
    command(
        &["exec", "container exec"],
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Run a command in a running container",
        Verb::Exec,
    )
    .flags(&[&[
        Flag::bool("detach", "Leave it running in the background").short('d'),
        DETACH_KEYS,
        Flag::value("env", Kind::Env, "list", "Set an environment variable").short('e'),
        Flag::value("env-file", Kind::List, "list", "Read environment variables from a file"),
        Flag::bool("interactive", "Keep its standard input open").short('i'),
        Flag::bool("privileged", "Give it all capabilities"),
        Flag::bool("tty", "Give it a terminal").short('t'),
        Flag::value("user", Kind::Text, "string", "User, and group, that it runs as (name or ID)").short('u'),
        Flag::value("workdir", Kind::Text, "string", "Directory it starts in").short('w'),
    ]])
    .arity(Arity::Min(2))
    .options_first(),
    command(&["ps", "container ls", "container list", "container ps"], "[OPTIONS]", "List containers", Verb::List)
        .flags(&[&[
            Flag::bool("all", "Also those that do not run").short('a'),
            FILTER,
            FORMAT,
            Flag::value("last", Kind::Int, "int", "The N newest, in any state").short('n').default("-1"),
            Flag::bool("latest", "The newest, in any state").short('l'),
            NO_TRUNC,
            QUIET_IDS,
            Flag::bool("size", "Also show sizes").short('s'),
        ]]),
    registries::PULL,
    registries::PUSH,
    registries::LOGIN,
    registries::LOGOUT,
    command(&["images", "image ls", "image list"], "[OPTIONS] [REPOSITORY[:TAG]]", "List images", Verb::Images)
        .flags(&[&[
            Flag::bool("all", "Also intermediate images").short('a'),
            Flag::bool("digests", "Also show digests"),
            FILTER,
            FORMAT,
            NO_TRUNC,
            QUIET_IDS,
            Flag::bool("tree", "Show platforms as a tree"),
        ]])
        .arity(Arity::Max(1)),
    command(
        &["attach", "container attach"],
        "[OPTIONS] CONTAINER",
        "Attach to the streams of a running container",
        Verb::Attach,
    )
    .flags(&[&[DETACH_KEYS, Flag::bool("no-stdin", "Leave its standard input alone"), SIG_PROXY]])
    .arity(Arity::Exactly(1)),
    command(
        &["commit", "container commit"],
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "Make an image of what a container changed",
        Verb::Commit,
    )
    .flags(&[&[
        Flag::value("author", Kind::Text, "string", "Who made it").short('a'),
        CHANGE,
        Flag::value("message", Kind::Text, "string", "Why it was made").short('m'),
        Flag::bool("pause", "Hold the container still meanwhile").short('p').default("true"),
    ]])
    .arity(Arity::Between(1, 2))
    .options_first(),
    command(
        &["cp", "container cp"],
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- or SRC_PATH|- CONTAINER:DEST_PATH",
        "Copy files out of a container or into one ('-' is a tar archive)",
        Verb::Copy,
    )
    .flags(&[&[
        Flag::bool("archive", "Give what goes into a container to its user").short('a'),
        Flag::bool("follow-link", "Follow a link at SRC_PATH").short('L'),
        Flag::bool("quiet", "Do not show progress").short('q'),
    ]])
    .arity(Arity::Exactly(2)),
    command(
        &["create", "container create"],
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a container without starting it",
        Verb::Create,
    )
    .flags(&[CREATE])
    .arity(Arity::Min(1))
    .options_first(),
    command(&["diff", "container diff"], "CONTAINER", "Show which files a container changed", Verb::Diff)
        .arity(Arity::Exactly(1)),
    command(&["events", "system events"], "[OPTIONS]", "Show what happens, as it happens", Verb::Events).flags(&[&[
        FILTER,
        FORMAT,
        Flag::value("since", Kind::Text, "string", "From this time on"),
        Flag::value("until", Kind::Text, "string", "Up to this time"),
    ]]),
    command(
        &["export", "container export"],
        "[OPTIONS] CONTAINER",
        "Write the files of a container as a tar archive",
        Verb::Export,
    )
    .flags(&[&[Flag::value("output", Kind::Text, "string", "Write to this file").short('o')]])
    .arity(Arity::Exactly(1)),
    command(&["search"], "[OPTIONS] TERM", "Look for images in a registry", Verb::Search)
        .flags(&[&[FILTER, FORMAT, Flag::value("limit", Kind::Int, "int", "Show so many at most"), NO_TRUNC]])
        .arity(Arity::Exactly(1)),
    command(&["history", "image history"], "[OPTIONS] IMAGE", "Show how an image was made", Verb::History)
        .flags(&[&[
            FORMAT,
            Flag::bool("human", "Show sizes and times for people").short('H').default("true"),
            NO_TRUNC,
            PLATFORM,
            QUIET_IDS,
        ]])
        .arity(Arity::Exactly(1)),
    command(
        &["import", "image import"],
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Make an image of a tar archive of files",
        Verb::Import,
    )
    .flags(&[&[
        CHANGE,
        Flag::value("message", Kind::Text, "string", "Why it was made").short('m'),
        Flag::value("platform", Kind::Text, "string", "Platform of the image"),
    ]])
    .arity(Arity::Min(1)),
    command(
        &["checkpoint create"],
        "[OPTIONS] CONTAINER CHECKPOINT",
        "Write a running container to disk",
        Verb::Checkpoint(CheckpointVerb::Create),
    )
    .flags(&[&[CHECKPOINT_DIR, Flag::bool("leave-running", "Let the container go on afterwards")]])
    .arity(Arity::Exactly(2)),
    command(
        &["checkpoint ls", "checkpoint list"],
        "[OPTIONS] CONTAINER",
        "List the checkpoints of a container",
        Verb::Checkpoint(CheckpointVerb::List),
    )
    .flags(&[&[CHECKPOINT_DIR]])
    .arity(Arity::Exactly(1)),
    command(
        &["checkpoint rm", "checkpoint remove"],
        "[OPTIONS] CONTAINER CHECKPOINT",
        "Remove a checkpoint",
        Verb::Checkpoint(CheckpointVerb::Remove),
    )
    .flags(&[&[CHECKPOINT_DIR]])
    .arity(Arity::Exactly(2)),
    command(&["context create"], "[OPTIONS] CONTEXT", "Create a context", Verb::Context(ContextVerb::Create))
        .flags(&[&[CONTEXT_DESCRIPTION, CONTEXT_DOCKER, CONTEXT_FROM]])
        .arity(Arity::Exactly(1)),
    contexts::EXPORT,
    contexts::IMPORT,
    contexts::INSPECT,
    command(&["context ls", "context list"], "[OPTIONS]", "List contexts", Verb::Context(ContextVerb::List))
        .flags(&[&[FORMAT, Flag::bool("quiet", "Only show names").short('q')]]),
    command(
        &["context rm", "context remove"],
        "CONTEXT [CONTEXT...]",
        "Remove contexts",
        Verb::Context(ContextVerb::Remove),
    )
    .flags(&[&[Flag::bool("force", "Also the one in use").short('f')]])
    .arity(Arity::Min(1)),
    command(&["context show"], "", "Print the name of the current context", Verb::Context(ContextVerb::Show)),
    command(&["context update"], "[OPTIONS] CONTEXT", "Update a context", Verb::Context(ContextVerb::Update))
        .flags(&[&[CONTEXT_DESCRIPTION, CONTEXT_DOCKER]])
        .arity(Arity::Exactly(1)),
    command(&["context use"], "CONTEXT", "Set the current context", Verb::Context(ContextVerb::Use))
        .arity(Arity::Exactly(1)),
    command(
        &["system dial-stdio"],
        "",
        "Connect the standard streams with the daemon; what ssh:// hosts run",
        Verb::DialStdio,
    )
    .hidden(),
    command(&["info", "system info"], "[OPTIONS]", "Show the state of the engine", Verb::Info)
        .flags(&[&[FORMAT.short('f')]]),
    command(&["inspect"], "[OPTIONS] NAME|ID [NAME|ID...]", "Show all about containers and images", Verb::Inspect)
        .flags(&[&[
            FORMAT.short('f'),
            Flag::bool("size", "Also show sizes, of containers").short('s'),
            Flag::value("type", Kind::Text, "string", "Only look for objects of this type"),
        ]])
        .arity(Arity::Min(1)),
    command(
        &["container inspect"],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Show all about containers",
        Verb::InspectContainer,
    )
    .flags(&[&[FORMAT.short('f'), Flag::bool("size", "Also show sizes").short('s')]])
    .arity(Arity::Min(1)),
    command(&["image inspect"], "[OPTIONS] IMAGE [IMAGE...]", "Show all about images", Verb::InspectImage)
        .flags(&[&[FORMAT.short('f'), PLATFORM]])
        .arity(Arity::Min(1)),
    command(
        &["kill", "container kill"],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Send a signal to containers",
        Verb::Kill,
    )
    .flags(&[&[Flag::value("signal", Kind::Text, "string", "The signal, instead of KILL").short('s')]])
    .arity(Arity::Min(1)),
    archives::LOAD,
    archives::SAVE,
    command(&["logs", "container logs"], "[OPTIONS] CONTAINER", "Show what a container has printed", Verb::Logs)
        .flags(&[&[
            Flag::bool("details", "Also show what the log driver was told to keep"),
            Flag::bool("follow", "Go on with what comes").short('f'),
            Flag::value("since", Kind::Text, "string", "From this time on (RFC 3339, or 42m for 42 minutes ago)"),
            Flag::value("tail", Kind::Text, "string", "Number of lines from the end").short('n').default("all"),
            Flag::bool("timestamps", "Show times").short('t'),
            Flag::value("until", Kind::Text, "string", "Up to this time (RFC 3339, or 42m for 42 minutes ago)"),
        ]])
        .arity(Arity::Exactly(1)),
    command(&["container prune"], "[OPTIONS]", "Remove containers that do not run", Verb::PruneContainers).flags(&[&[
        Flag::value("filter", Kind::Filter, "filter", "Only what meets a condition (name=value)"),
        Flag::bool("force", "Do not ask").short('f'),
    ]]),
    command(
        &["pause", "container pause"],
        "CONTAINER [CONTAINER...]",
        "Hold all processes of containers still",
        Verb::Pause,
    )
    .arity(Arity::Min(1)),
    ports::PORT,
    command(&["rename", "container rename"], "CONTAINER NEW_NAME", "Give a container another name", Verb::Rename)
        .arity(Arity::Exactly(2)),
    command(
        &["restart", "container restart"],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Stop containers and start them again",
        Verb::Restart,
    )
    .flags(&[STOP])
    .arity(Arity::Min(1)),
    command(
        &["rm", "container rm", "container remove"],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Remove containers",
        Verb::Remove,
    )
    .flags(&[&[
        Flag::bool("force", "Kill it first, if it runs").short('f'),
        Flag::bool("link", "Remove a link instead").short('l'),
        Flag::bool("volumes", "Also remove its anonymous volumes").short('v'),
    ]])
    .arity(Arity::Min(1)),
    command(&["rmi", "image rm", "image remove"], "[OPTIONS] IMAGE [IMAGE...]", "Remove images", Verb::RemoveImage)
        .flags(&[&[
            Flag::bool("force", "Also if stopped containers use it").short('f'),
            Flag::bool("no-prune", "Keep untagged parents"),
            Flag::value("platform", Kind::Strings, "strings", "Remove only these platforms"),
        ]])
        .arity(Arity::Min(1)),
    command(
        &["start", "container start"],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Start containers that do not run",
        Verb::Start,
    )
    .flags(&[&[
        Flag::bool("attach", "Attach to its output and pass signals on").short('a'),
        Flag::value("checkpoint", Kind::Text, "string", "Go on from this checkpoint"),
        CHECKPOINT_DIR,
        DETACH_KEYS,
        Flag::bool("interactive", "Attach to its standard input").short('i'),
    ]])
    .arity(Arity::Min(1)),
    command(
        &["stats", "container stats"],
        "[OPTIONS] [CONTAINER...]",
        "Show what containers use, again and again",
        Verb::Stats,
    )
    .flags(&[&[
        Flag::bool("all", "Also those that do not run").short('a'),
        FORMAT,
        Flag::bool("no-stream", "Show it once"),
        NO_TRUNC,
    ]])
    .arity(Arity::Min(0)),
    command(&["stop", "container stop"], "[OPTIONS] CONTAINER [CONTAINER...]", "Stop containers", Verb::Stop)
        .flags(&[STOP])
        .arity(Arity::Min(1)),
    command(&["tag", "image tag"], "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Give an image one more name", Verb::Tag)
        .arity(Arity::Exactly(2)),
    command(&["top", "container top"], "CONTAINER [ps OPTIONS]", "Show the processes of a container", Verb::Top)
        .arity(Arity::Min(1))
        .options_first(),
    command(
        &["unpause", "container unpause"],
        "CONTAINER [CONTAINER...]",
        "Let the processes of paused containers go on",
        Verb::Unpause,
    )
    .arity(Arity::Min(1)),
    command(
        &["update", "container update"],
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Change the limits and the restart policy of containers",
        Verb::Update,
    )
    .flags(&[UPDATE])
    .arity(Arity::Min(1)),
    command(&["version"], "[OPTIONS]", "Show the versions of client and engine", Verb::Version)
        .flags(&[&[FORMAT.short('f')]]),
    command(
        &["wait", "container wait"],
        "CONTAINER [CONTAINER...]",
        "Wait for containers to end and print their exit codes",
        Verb::Wait,
    )
    .arity(Arity::Min(1)),
    command(&["volume create"], "[OPTIONS] [VOLUME]", "Create a volume", Verb::CreateVolume)
        .flags(&[volume_flags::CREATE, volume_flags::CLUSTER])
        .arity(Arity::Max(1)),
    command(&["volume inspect"], "[OPTIONS] VOLUME [VOLUME...]", "Show all about volumes", Verb::InspectVolume)
        .flags(&[&[FORMAT.short('f')]])
        .arity(Arity::Min(1)),
    command(&["volume ls", "volume list"], "[OPTIONS]", "List volumes", Verb::ListVolumes).flags(&[&[
        Flag::bool("cluster", "Only those of the cluster").later(Wait::Clusters),
        FILTER,
        FORMAT,
        Flag::bool("quiet", "Only show names").short('q'),
    ]]),
    command(&["volume prune"], "[OPTIONS]", "Remove volumes that no container has", Verb::PruneVolumes).flags(&[&[
        Flag::bool("all", "Also those that somebody named").short('a'),
        Flag::value("filter", Kind::Filter, "filter", "Only what meets a condition (name=value)"),
        Flag::bool("force", "Do not ask").short('f'),
    ]]),
    command(&["volume rm", "volume remove"], "[OPTIONS] VOLUME [VOLUME...]", "Remove volumes", Verb::RemoveVolume)
        .flags(&[&[Flag::bool("force", "Also if there is none of that name").short('f')]])
        .arity(Arity::Min(1)),
    command(&["volume clone"], "VOLUME NEW_VOLUME", "Make a new volume of what one holds", Verb::CloneVolume)
        .arity(Arity::Exactly(2)),
    command(&["volume export"], "[OPTIONS] VOLUME", "Write the files of a volume as a tar archive", Verb::ExportVolume)
        .flags(&[&[Flag::value("output", Kind::Text, "string", "Write to this file").short('o')]])
        .arity(Arity::Exactly(1)),
    command(&["volume import"], "VOLUME [FILE|-]", "Make a volume of a tar archive", Verb::ImportVolume)
        .arity(Arity::Between(1, 2)),
    command(
        &["volume snapshot"],
        "[OPTIONS] create|ls|restore|rm VOLUME [SNAPSHOT...]",
        "Keep what a volume holds, and go back to it",
        Verb::SnapshotVolume,
    )
    .flags(&[&[FORMAT, Flag::bool("quiet", "Only show names").short('q')]])
    .arity(Arity::Min(2)),
    command(&["volume update"], "[OPTIONS] [VOLUME]", "Update a volume of a cluster", Verb::UpdateVolume)
        .flags(&[&[Flag::value("availability", Kind::Text, "string", "active, pause or drain").default("active")]])
        .arity(Arity::Between(1, 1)),
    bootstrap::BOOTSTRAP,
    manifests::ANNOTATE,
    manifests::CREATE,
    manifests::INSPECT,
    manifests::PUSH,
    manifests::REMOVE,
    image_upkeep::BUDGET,
    image_upkeep::PRUNE,
    command(&["network ls", "network list"], "[OPTIONS]", "List networks", Verb::Network(NetworkVerb::List))
        .flags(&[&[FILTER, FORMAT, NO_TRUNC, QUIET_IDS]]),
    command(&["network inspect"], "[OPTIONS] NETWORK [NETWORK...]", "Show all about networks", Verb::InspectNetwork)
        .flags(&[&[FORMAT.short('f'), Flag::bool("verbose", "Also show what helps to find mistakes").short('v')]])
        .arity(Arity::Min(1)),
    command(&["network create"], "[OPTIONS] NETWORK", "Create a network", Verb::Network(NetworkVerb::Create))
        .flags(&[network_flags::CREATE])
        .arity(Arity::Exactly(1)),
    command(
        &["network connect"],
        "[OPTIONS] NETWORK CONTAINER",
        "Connect a container",
        Verb::Network(NetworkVerb::Connect),
    )
    .flags(&[network_flags::CONNECT])
    .arity(Arity::Exactly(2)),
    command(
        &["network disconnect"],
        "[OPTIONS] NETWORK CONTAINER",
        "Disconnect a container from a network",
        Verb::Network(NetworkVerb::Disconnect),
    )
    .flags(&[&[Flag::bool("force", "Also where the container or the network is gone").short('f')]])
    .arity(Arity::Exactly(2)),
    command(
        &["network rm", "network remove"],
        "NETWORK [NETWORK...]",
        "Remove networks",
        Verb::Network(NetworkVerb::Remove),
    )
    .flags(&[&[Flag::bool("force", "Also if there is none of that name").short('f')]])
    .arity(Arity::Min(1)),
    command(&["network prune"], "[OPTIONS]", "Remove networks that no container has", Verb::PruneNetworks)
        .flags(&[&[PRUNE_FILTER, FORCE]]),
    build::BUILD,
    build::PRUNE,
    build::DISK_USAGE,
    build::LIST,
    command(&["system df"], "[OPTIONS]", "Show what everything takes on disk", Verb::DiskUsage)
        .flags(&[&[FORMAT, Flag::bool("verbose", "Thing by thing").short('v')]]),
    command(&["system prune"], "[OPTIONS]", "Remove everything that nothing needs", Verb::PruneAll).flags(&[&[
        Flag::bool("all", "All images that no container has, not only those without a tag").short('a'),
        PRUNE_FILTER,
        FORCE,
        Flag::bool("volumes", "Also volumes that nobody named"),
    ]]),
    command(
        &["why", "container why"],
        "[OPTIONS] CONTAINER",
        "Show why a container ended, restarts, is unhealthy or did not start",
        Verb::Why,
    )
    .flags(&[&[FORMAT.short('f')]])
    .arity(Arity::Exactly(1)),
    command(&["completion"], "SHELL", "Print the completion script of a shell", Verb::Completion)
        .arity(Arity::Exactly(1)),
    command(&["man"], "DIRECTORY", "Write the manual pages into a directory", Verb::Man)
        .arity(Arity::Exactly(1))
        .hidden(),
];

/// Flags before the command.
pub static GLOBAL: &[Flag] = &[
    Flag::value("config", Kind::Text, "string", "Directory of the client's configuration"),
    Flag::value("context", Kind::Text, "string", "Name of the context to use").short('c'),
    Flag::bool("debug", "Say more").short('D'),
    Flag::bool("help", "Print this text"),
    Flag::value("host", Kind::List, "list", "Daemon socket to connect to").short('H'),
    Flag::value("log-level", Kind::Text, "string", "How much to say").short('l').default("info"),
    Flag::bool("tls", "Use TLS; implied by --tlsverify"),
    Flag::value("tlscacert", Kind::Text, "string", "Trust certificates signed by this authority"),
    Flag::value("tlscert", Kind::Text, "string", "The client's certificate"),
    Flag::value("tlskey", Kind::Text, "string", "The client's key"),
    Flag::bool("tlsverify", "Use TLS and verify the daemon"),
    Flag::bool("version", "Print the version and quit").short('v'),
];

/// The command at `path`, such as `container ls`.
pub fn find(path: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.paths.contains(&path))
}

/// The group of that name.
pub fn group(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.name == name)
}
