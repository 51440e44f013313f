//! `build`.

use super::{Arity, Command, DISABLE_CONTENT_TRUST, FORCE, Flag, Kind, PRUNE_FILTER, Verb, Wait, command};

/// The command.
pub(super) const BUILD: Command = command(
    &["build", "builder build", "image build", "buildx build"],
    "[OPTIONS] PATH | URL | -",
    "Make an image from a Dockerfile",
    Verb::Build,
)
.flags(&[FLAGS])
.arity(Arity::Exactly(1));

const fn text(long: &'static str, help: &'static str) -> Flag {
    Flag::value(long, Kind::Text, "string", help)
}

const fn int(long: &'static str, help: &'static str) -> Flag {
    Flag::value(long, Kind::Int, "int", help).default("0")
}

/// `builder prune`.
pub(super) const PRUNE: Command =
    command(&["builder prune", "buildx prune"], "[OPTIONS]", "Remove what builds have cached", Verb::PruneCaches)
        .flags(&[&[
            Flag::bool("all", "All of it, not only what nothing refers to").short('a'),
            PRUNE_FILTER,
            FORCE,
            Flag::value("keep-storage", Kind::Bytes, "bytes", "Leave so much of it").default("0"),
            Flag::value("reserved-space", Kind::Bytes, "bytes", "The same").default("0"),
            Flag::value("max-used-space", Kind::Bytes, "bytes", "Remove what is more than that").default("0"),
            Flag::value("min-free-space", Kind::Bytes, "bytes", "Remove until so much is free on the disk")
                .default("0"),
        ]]);

/// `buildx du`.
pub(super) const DISK_USAGE: Command =
    command(&["buildx du", "builder du"], "[OPTIONS]", "Show what builds have cached", Verb::BuildDiskUsage);

/// `buildx ls`.
pub(super) const LIST: Command = command(&["buildx ls"], "", "List builders", Verb::ListBuilders);

/// In the order of their names.
const FLAGS: &[Flag] = &[
    Flag::value("add-host", Kind::List, "list", "Add a host to /etc/hosts of its commands (host:ip)"),
    Flag::value("allow", Kind::Strings, "strings", "What commands may have that ask for it (network.host)"),
    Flag::value(
        "annotation",
        Kind::List,
        "stringArray",
        "Annotate what is pushed or laid out ([TYPE[PLATFORM]:]name=value)",
    ),
    Flag::value("attest", Kind::List, "stringArray", "Attestations (type=provenance|sbom[,...])"),
    Flag::value("build-arg", Kind::List, "list", "Value of an ARG of the Dockerfile (name=value)"),
    Flag::value(
        "build-context",
        Kind::List,
        "list",
        "Another context by a name (NAME=DIRECTORY|ADDRESS|docker-image://IMAGE)",
    ),
    text("builder", "The builder; there is that of the daemon alone, default"),
    Flag::value(
        "cache-from",
        Kind::List,
        "strings",
        "Images or caches that may hold steps already (NAME, type=registry,ref=NAME, type=local,src=DIRECTORY)",
    ),
    Flag::value(
        "cache-to",
        Kind::List,
        "list",
        "Leave what steps came to elsewhere (NAME, type=registry,ref=NAME[,mode=max], type=local,dest=DIRECTORY)",
    ),
    Flag::value("call", Kind::Text, "string", "Ask the Dockerfile (check, outline, targets) instead of building it")
        .default("build"),
    text("cgroup-parent", "Cgroup above those of its commands"),
    Flag::bool("check", "Short for --call=check"),
    Flag::bool("compress", "Send the context compressed").later(Wait::Builds),
    int("cpu-period", "Length of a scheduler period, in microseconds"),
    int("cpu-quota", "Processor time in a scheduler period, in microseconds"),
    int("cpu-shares", "Relative weight of the processor time of its commands").short('c'),
    text("cpuset-cpus", "Processors that its commands may use (0-3, 0,1)"),
    text("cpuset-mems", "Memory nodes that its commands may use (0-3, 0,1)"),
    Flag::bool("debug", "Say more").short('D'),
    DISABLE_CONTENT_TRUST,
    Flag::bool("explain", "Tell of each step why it was done again"),
    text("file", "The Dockerfile, if it is not PATH/Dockerfile").short('f'),
    Flag::bool("force-rm", "Remove containers of commands that fail, too"),
    text("iidfile", "Write the image's ID into this file"),
    text("isolation", "Isolation of its commands (Windows)"),
    Flag::value("label", Kind::List, "list", "Give the image a label (name=value)"),
    Flag::bool("load", "Load the image into the daemon, where it always is"),
    Flag::value("memory", Kind::Bytes, "bytes", "Memory that its commands may use").short('m').default("0"),
    Flag::value("memory-swap", Kind::SwapBytes, "bytes", "Memory and swap they may use; -1 for any amount")
        .default("0"),
    text("metadata-file", "Write what was built into this file, in JSON"),
    Flag::value("network", Kind::Text, "string", "Network of its commands").default("default"),
    Flag::bool("no-cache", "Do everything again"),
    Flag::value("no-cache-filter", Kind::Strings, "strings", "Do these stages again"),
    text("on-error", "What to do when a command fails: a shell in what it left (shell)"),
    Flag::value("output", Kind::List, "stringArray", "Where what was built goes, too (DIRECTORY, type=...,dest=...)")
        .short('o'),
    text("platform", "Platform to build for"),
    Flag::value("progress", Kind::Text, "string", "How it is shown what is done (auto, plain, tty, rawjson, quiet)")
        .default("auto"),
    text("provenance", "Attest where the image comes from (true, false, mode=min|max)"),
    Flag::bool("pull", "Look for newer base images"),
    Flag::bool("push", "Push the image's names, too"),
    Flag::bool("quiet", "Only print the image's ID").short('q'),
    Flag::bool("reproducible", "Clamp times in the image to SOURCE_DATE_EPOCH, or to 1970"),
    Flag::bool("rm", "Remove containers of commands that end well").default("true"),
    text("sbom", "Attest what is in the image (true, false, generator=IMAGE)"),
    Flag::value("secret", Kind::List, "list", "Secret for RUN --mount=type=secret (id=NAME[,src=FILE|,env=VARIABLE])"),
    Flag::value("security-opt", Kind::Strings, "strings", "Security options"),
    Flag::value("shm-size", Kind::Bytes, "bytes", "Size of /dev/shm of its commands").default("0"),
    Flag::bool("squash", "Make one layer of all new ones").later(Wait::Builds),
    Flag::value("ssh", Kind::List, "list", "Agent for RUN --mount=type=ssh (default|NAME[=SOCKET|KEY[,KEY]])"),
    Flag::value("tag", Kind::List, "list", "Name the image (name[:tag])").short('t'),
    text("target", "Build this stage"),
    Flag::value("ulimit", Kind::Ulimit, "ulimit", "Limit of a resource of its commands (name=soft[:hard])"),
];
