//! What Docker has and we do not have yet: the one table of it, refused by name, so that nobody takes it for a mistake of
//! theirs. [`report`] writes it down for `docs/not-yet.md`.

use std::fmt::{self, Write};

use super::Support;
use super::tables::COMMANDS;

/// What a command or a flag waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Dockerfiles.
    Builds,
    /// Docker's own buildx, which works with our daemon.
    Buildx,
    /// Swarm mode.
    Clusters,
    /// Compose files.
    Compose,
    /// Drivers in containers.
    Plugins,
    /// Signatures.
    Trust,
}

impl fmt::Display for Wait {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Wait::Builds => "building images",
            Wait::Buildx => "nothing: docker's buildx does it with this daemon",
            Wait::Clusters => "clusters",
            Wait::Compose => "Compose files",
            Wait::Plugins => "plugins",
            Wait::Trust => "signed images",
        })
    }
}

/// A command that is not there yet, and whatever follows its name.
#[derive(Clone, Copy, Debug)]
pub struct Later {
    /// Where it stands, as in [`super::Command`].
    pub paths: &'static [&'static str],
    /// What follows its name.
    pub usage: &'static str,
    /// What it will do.
    pub about: &'static str,
    /// What it waits for.
    pub wait: Wait,
}

const fn later(paths: &'static [&'static str], usage: &'static str, about: &'static str, wait: Wait) -> Later {
    Later { paths, usage, about, wait }
}

/// The commands.
#[rustfmt::skip]
pub static LATER: &[Later] = &[
    later(&["buildx bake", "builder bake"], "[OPTIONS] [TARGET...]", "Build what a file lists", Wait::Buildx),
    later(&["buildx history"], "COMMAND", "Look at builds that have ended", Wait::Buildx),
    later(&["buildx imagetools"], "COMMAND", "Look at images in registries", Wait::Buildx),
    later(&["buildx inspect"], "[NAME]", "Show all about a builder", Wait::Buildx),
    later(&["plugin create"], "[OPTIONS] PLUGIN PLUGIN-DATA-DIR", "Make a plugin of files", Wait::Plugins),
    later(&["plugin disable"], "[OPTIONS] PLUGIN", "Switch a plugin off", Wait::Plugins),
    later(&["plugin enable"], "[OPTIONS] PLUGIN", "Switch a plugin on", Wait::Plugins),
    later(&["plugin inspect"], "[OPTIONS] PLUGIN [PLUGIN...]", "Show all about plugins", Wait::Plugins),
    later(&["plugin install"], "[OPTIONS] PLUGIN [KEY=VALUE...]", "Install a plugin", Wait::Plugins),
    later(&["plugin ls", "plugin list"], "[OPTIONS]", "List plugins", Wait::Plugins),
    later(&["plugin push"], "[OPTIONS] PLUGIN[:TAG]", "Push a plugin to a registry", Wait::Plugins),
    later(&["plugin rm", "plugin remove"], "[OPTIONS] PLUGIN [PLUGIN...]", "Remove plugins", Wait::Plugins),
    later(&["plugin set"], "PLUGIN KEY=VALUE [KEY=VALUE...]", "Change the settings of a plugin", Wait::Plugins),
    later(&["plugin upgrade"], "[OPTIONS] PLUGIN [REMOTE]", "Bring a plugin up to date", Wait::Plugins),
    later(&["trust key"], "COMMAND", "Manage the keys of those who sign", Wait::Trust),
    later(&["trust signer"], "COMMAND", "Manage who may sign", Wait::Trust),
    later(&["trust inspect"], "IMAGE[:TAG] [IMAGE[:TAG]...]", "Show who signed images", Wait::Trust),
    later(&["trust revoke"], "[OPTIONS] IMAGE[:TAG]", "Take a signature back", Wait::Trust),
    later(&["trust sign"], "IMAGE:TAG", "Sign an image", Wait::Trust),
    later(&["config create"], "[OPTIONS] CONFIG file|-", "Make a config of a file", Wait::Clusters),
    later(&["config inspect"], "[OPTIONS] CONFIG [CONFIG...]", "Show all about configs", Wait::Clusters),
    later(&["config ls", "config list"], "[OPTIONS]", "List configs", Wait::Clusters),
    later(&["config rm", "config remove"], "CONFIG [CONFIG...]", "Remove configs", Wait::Clusters),
    later(&["node demote"], "NODE [NODE...]", "Make workers of managers", Wait::Clusters),
    later(&["node inspect"], "[OPTIONS] self|NODE [NODE...]", "Show all about nodes", Wait::Clusters),
    later(&["node ls", "node list"], "[OPTIONS]", "List the nodes of the cluster", Wait::Clusters),
    later(&["node promote"], "NODE [NODE...]", "Make managers of workers", Wait::Clusters),
    later(&["node ps"], "[OPTIONS] [NODE...]", "List what nodes run", Wait::Clusters),
    later(&["node rm", "node remove"], "[OPTIONS] NODE [NODE...]", "Remove nodes from the cluster", Wait::Clusters),
    later(&["node update"], "[OPTIONS] NODE", "Change a node", Wait::Clusters),
    later(&["secret create"], "[OPTIONS] SECRET [file|-]", "Make a secret of a file", Wait::Clusters),
    later(&["secret inspect"], "[OPTIONS] SECRET [SECRET...]", "Show all about secrets but what they are", Wait::Clusters),
    later(&["secret ls", "secret list"], "[OPTIONS]", "List secrets", Wait::Clusters),
    later(&["secret rm", "secret remove"], "SECRET [SECRET...]", "Remove secrets", Wait::Clusters),
    later(&["service create"], "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a service", Wait::Clusters),
    later(&["service inspect"], "[OPTIONS] SERVICE [SERVICE...]", "Show all about services", Wait::Clusters),
    later(&["service logs"], "[OPTIONS] SERVICE|TASK", "Show what a service has printed", Wait::Clusters),
    later(&["service ls", "service list"], "[OPTIONS]", "List services", Wait::Clusters),
    later(&["service ps"], "[OPTIONS] SERVICE [SERVICE...]", "List the tasks of services", Wait::Clusters),
    later(&["service rm", "service remove"], "SERVICE [SERVICE...]", "Remove services", Wait::Clusters),
    later(&["service rollback"], "[OPTIONS] SERVICE", "Undo the last change of a service", Wait::Clusters),
    later(&["service scale"], "SERVICE=REPLICAS [SERVICE=REPLICAS...]", "Change how many there are of a service", Wait::Clusters),
    later(&["service update"], "[OPTIONS] SERVICE", "Change a service", Wait::Clusters),
    later(&["stack config"], "[OPTIONS]", "Show a Compose file as it will be deployed", Wait::Clusters),
    later(&["stack deploy", "stack up"], "[OPTIONS] STACK", "Deploy a Compose file", Wait::Clusters),
    later(&["stack ls", "stack list"], "[OPTIONS]", "List stacks", Wait::Clusters),
    later(&["stack ps"], "[OPTIONS] STACK", "List the tasks of a stack", Wait::Clusters),
    later(&["stack rm", "stack remove", "stack down"], "[OPTIONS] STACK [STACK...]", "Remove stacks", Wait::Clusters),
    later(&["stack services"], "[OPTIONS] STACK", "List the services of a stack", Wait::Clusters),
    later(&["swarm ca"], "[OPTIONS]", "Show or change the cluster's authority", Wait::Clusters),
    later(&["swarm init"], "[OPTIONS]", "Begin a cluster", Wait::Clusters),
    later(&["swarm join"], "[OPTIONS] HOST:PORT", "Join a cluster", Wait::Clusters),
    later(&["swarm join-token"], "[OPTIONS] (worker|manager)", "Show or change what lets nodes join", Wait::Clusters),
    later(&["swarm leave"], "[OPTIONS]", "Leave the cluster", Wait::Clusters),
    later(&["swarm unlock"], "", "Unlock a manager", Wait::Clusters),
    later(&["swarm unlock-key"], "[OPTIONS]", "Show or change the key that unlocks managers", Wait::Clusters),
    later(&["swarm update"], "[OPTIONS]", "Change the cluster", Wait::Clusters),
    later(&["compose"], "[OPTIONS] COMMAND", "Run what a Compose file describes", Wait::Compose),
];

/// What flags of commands that are there may not be yet, and who can do it: refused where the value is read.
static VALUES: &[(&str, &str)] = &[
    ("build --allow device", "no build gets devices"),
    ("build --allow security.insecure", "no build gets all privileges"),
    ("build --builder", "other builders than the daemon"),
];

/// The command that the words begin with, and its path.
pub fn find(words: &[String]) -> Option<(&'static Later, &'static str)> {
    let begins = |path: &&str| path.split(' ').enumerate().all(|(at, part)| words.get(at).is_some_and(|it| it == part));
    LATER.iter().find_map(|later| later.paths.iter().find(|path| begins(path)).map(|path| (later, *path)))
}

/// The page of it for users, in Markdown.
pub fn report() -> String {
    let mut text =
        "# Not yet\n\nWhat Docker's command line has and `longshore` answers with \"not supported yet\". Written by \
                    the tests (`UPDATE_EXPECT=1 cargo nextest run -p cli`).\n\n\
                    | command, option | waits for |\n|---|---|\n"
            .to_owned();
    for later in LATER {
        let _ = writeln!(text, "| `{}` | {} |", later.paths.join("`, `"), later.wait);
    }
    for command in COMMANDS {
        for flag in command.all_flags() {
            if let Support::Later(wait) = flag.support {
                let _ = writeln!(text, "| `{} --{}` | {wait} |", command.paths[0], flag.long);
            }
        }
    }
    for (what, wait) in VALUES {
        let _ = writeln!(text, "| `{what}` | {wait} |");
    }
    text
}
