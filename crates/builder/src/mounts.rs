//! What is mounted while a command runs (`RUN --mount`), decided before anything of it is there.

use dockerfile::{Mount, MountKind, Sharing};
use engine_api::paths::clean;

/// Where secrets appear that say nothing of it.
const SECRETS: &str = "/run/secrets";

/// Where agents appear that say nothing of it, with their number behind.
const AGENTS: &str = "/run/buildkit/ssh_agent.";

/// The name of an agent that has none.
const AGENT_DEFAULT: &str = "default";

/// The image of nothing.
const NOTHING: &str = "scratch";

/// Modes of what the client has: of a secret's file, of an agent's socket.
const SECRET_MODE: u32 = 0o400;
const AGENT_MODE: u32 = 0o600;

/// The mode of a cache's directory of which only the owner is said.
const CACHE_MODE: u32 = 0o755;

/// Something that is mounted while a command runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMount {
    /// Where, from the root; empty for a secret that is a variable alone.
    pub target: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// What.
    pub what: Mounted,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// Part of a tree. What is written there goes with the command.
    Bind(Part),
    /// A directory that is there again the next time.
    Cache {
        /// Its name.
        id: String,
        /// What is in it when it is new.
        from: Part,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// Whose its directory is, if that was said.
        owner: Option<Owner>,
    },
    /// Memory of so many bytes at most; 0 for what the kernel gives.
    Tmpfs(i64),
    /// A secret of the client's.
    Secret {
        /// Its name.
        id: String,
        /// The variable that it is in.
        env: Option<String>,
        /// Whether the command needs it.
        required: bool,
        /// Whose its file is.
        owner: Owner,
    },
    /// An agent of the client's.
    Ssh {
        /// Its name.
        id: String,
        /// Whether the command needs it.
        required: bool,
        /// Whose its socket is.
        owner: Owner,
    },
}

/// Part of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Of which.
    pub from: From,
    /// Where it is there, from the root.
    pub source: String,
}

/// Whose files are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// Nobody's: there are none.
    Nothing,
    /// The context's.
    Context,
    /// A stage's, or an image's.
    Named(String),
}

/// User, group and mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Why there is nothing to mount. The sentences are BuildKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// It would cover everything.
    #[error("invalid mount target {0:?}")]
    Target(String),
    /// It is not known which secret.
    #[error("one of source, target required")]
    NoSecret,
    /// An agent is no part of anything.
    #[error("ssh does not support source")]
    AgentSource,
    /// A variable cannot be called so.
    #[error("invalid environment name {0:?} of a secret")]
    Variable(String),
}

/// The mounts of a command in a working directory, those above before those below; and the variables that tell of them.
pub(crate) fn plan(mounts: &[Mount], directory: &str) -> Result<(Vec<RunMount>, Vec<String>), MountError> {
    let (mut planned, mut variables, mut agents) = (Vec::new(), Vec::new(), 0);
    for mount in mounts {
        let planned_one = match mount.kind {
            MountKind::Secret => secret(mount, directory)?,
            MountKind::Ssh => {
                let one = agent(mount, directory, agents)?;
                // Programs know of one alone.
                if agents == 0 {
                    variables.push(format!("SSH_AUTH_SOCK={}", one.target));
                }
                agents += 1;
                one
            }
            MountKind::Bind | MountKind::Cache | MountKind::Tmpfs => files(mount, directory)?,
        };
        planned.push(planned_one);
    }
    // Of two at one place the last one is seen.
    planned.sort_by(|a, b| a.target.cmp(&b.target));
    Ok((planned, variables))
}

/// From the root.
fn place(path: &str, directory: &str) -> Result<String, MountError> {
    let whole = if path.starts_with('/') { clean(path) } else { clean(&format!("/{directory}/{path}")) };
    if whole == "/" { Err(MountError::Target(whole)) } else { Ok(whole) }
}

fn owner(mount: &Mount, mode: u32) -> Owner {
    let (uid, gid) = (mount.uid.unwrap_or_default(), mount.gid.unwrap_or_default());
    Owner { uid, gid, mode: mount.mode.unwrap_or(mode) & 0o7777 }
}

/// Of what is the client's: without set-user-ID and its like, as with BuildKit.
fn plain_owner(mount: &Mount, mode: u32) -> Owner {
    let owner = owner(mount, mode);
    Owner { mode: owner.mode & 0o777, ..owner }
}

fn files(mount: &Mount, directory: &str) -> Result<RunMount, MountError> {
    let from = match (mount.kind, mount.from.as_str()) {
        (MountKind::Cache, "") | (_, NOTHING) => From::Nothing,
        (_, "") => From::Context,
        (_, name) => From::Named(name.to_owned()),
    };
    let part = Part { from, source: clean(&format!("/{}", mount.source)) };
    let target = place(&mount.target, directory)?;
    let what = match mount.kind {
        MountKind::Tmpfs => Mounted::Tmpfs(mount.size_bytes),
        MountKind::Cache => {
            let has_owner = mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some();
            Mounted::Cache {
                id: if mount.id.is_empty() { clean(&mount.target) } else { mount.id.clone() },
                // What has a source is as it is there.
                owner: (has_owner && part.source == "/").then(|| owner(mount, CACHE_MODE)),
                from: part,
                sharing: mount.sharing.unwrap_or(Sharing::Shared),
            }
        }
        _ => Mounted::Bind(part),
    };
    Ok(RunMount { target, read_only: mount.read_only, what })
}

fn secret(mount: &Mount, directory: &str) -> Result<RunMount, MountError> {
    let id = match (mount.source.as_str(), mount.id.as_str(), mount.target.as_str()) {
        ("", "", "") => return Err(MountError::NoSecret),
        ("", "", target) => base(target),
        ("", id, _) => id,
        (source, ..) => source,
    };
    let target = match (mount.target.as_str(), &mount.env) {
        ("", Some(_)) => String::new(),
        ("", None) => place(&format!("{SECRETS}/{}", base(id)), directory)?,
        (target, _) => place(target, directory)?,
    };
    if let Some(name) = mount.env.as_ref().filter(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(MountError::Variable(name.clone()));
    }
    let (id, env, required) = (id.to_owned(), mount.env.clone(), mount.required);
    let what = Mounted::Secret { id, env, required, owner: plain_owner(mount, SECRET_MODE) };
    Ok(RunMount { target, read_only: true, what })
}

fn agent(mount: &Mount, directory: &str, number: usize) -> Result<RunMount, MountError> {
    if !mount.source.is_empty() {
        return Err(MountError::AgentSource);
    }
    let id = if mount.id.is_empty() { AGENT_DEFAULT.to_owned() } else { mount.id.clone() };
    let target = match mount.target.as_str() {
        "" => format!("{AGENTS}{number}"),
        target => place(target, directory)?,
    };
    let what = Mounted::Ssh { id, required: mount.required, owner: plain_owner(mount, AGENT_MODE) };
    Ok(RunMount { target, read_only: false, what })
}

fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use dockerfile::Kind;
    use expect_test::{Expect, expect};

    use super::*;

    fn check(flags: &str, wanted: &Expect) {
        let lookup = |name: &str| (name == "V").then(|| "v".to_owned());
        let parsed = dockerfile::parse(&format!("FROM a\nRUN {flags} x\n")).unwrap();
        let told = match parsed.stages[0].instructions[0].expand('\\', &lookup).map(|instruction| instruction.kind) {
            Ok(Kind::Run(run)) => match plan(&run.mounts, "/w") {
                Ok((mounts, variables)) => {
                    let lines = mounts.iter().map(|mount| {
                        let access = if mount.read_only { "ro" } else { "rw" };
                        format!("{} {access} {:?}\n", mount.target, mount.what)
                    });
                    lines.chain(variables.into_iter().map(|variable| variable + "\n")).collect()
                }
                Err(err) => format!("error: {err}\n"),
            },
            Ok(other) => panic!("{other:?}"),
            Err(fault) => format!("error: {fault}\n"),
        };
        wanted.assert_eq(&told);
    }

    #[test]
    fn files_are_mounted_where_they_are_asked_for() {
        check(
            "--mount=target=b,source=../$V/./c --mount=type=bind,from=One,dst=/a,rw --mount=type=tmpfs,target=/t,size=1m \
             --mount=type=bind,from=scratch,target=.",
            &expect![[r#"
                /a rw Bind(Part { from: Named("One"), source: "/" })
                /t rw Tmpfs(1048576)
                /w ro Bind(Part { from: Nothing, source: "/" })
                /w/b ro Bind(Part { from: Context, source: "/v/c" })
            "#]],
        );
        check(
            "--mount=target=/",
            &expect![[r#"
            error: invalid mount target "/"
        "#]],
        );
    }

    #[test]
    fn caches_have_names() {
        check(
            "--mount=type=cache,target=/c/ --mount=type=cache,target=/d,id=$V,sharing=locked,uid=5,mode=700,ro \
             --mount=type=cache,target=/e,from=one,source=/s,gid=4,sharing=private",
            &expect![[r#"
                /c rw Cache { id: "/c", from: Part { from: Nothing, source: "/" }, sharing: Shared, owner: None }
                /d ro Cache { id: "v", from: Part { from: Nothing, source: "/" }, sharing: Locked, owner: Some(Owner { uid: 5, gid: 0, mode: 448 }) }
                /e rw Cache { id: "/e", from: Part { from: Named("one"), source: "/s" }, sharing: Private, owner: None }
            "#]],
        );
    }

    #[test]
    fn secrets_and_agents_have_places() {
        check(
            "--mount=type=secret,id=a/b --mount=type=secret,target=x,required --mount=type=secret,id=$V,env=E,uid=3 \
             --mount=type=secret,id=both,env=F,target=/both,mode=0440",
            &expect![[r#"
                 ro Secret { id: "v", env: Some("E"), required: false, owner: Owner { uid: 3, gid: 0, mode: 256 } }
                /both ro Secret { id: "both", env: Some("F"), required: false, owner: Owner { uid: 0, gid: 0, mode: 288 } }
                /run/secrets/b ro Secret { id: "a/b", env: None, required: false, owner: Owner { uid: 0, gid: 0, mode: 256 } }
                /w/x ro Secret { id: "x", env: None, required: true, owner: Owner { uid: 0, gid: 0, mode: 256 } }
            "#]],
        );
        check(
            "--mount=type=ssh --mount=type=ssh,id=git,target=/s,uid=1,required=true",
            &expect![[r#"
                /run/buildkit/ssh_agent.0 rw Ssh { id: "default", required: false, owner: Owner { uid: 0, gid: 0, mode: 384 } }
                /s rw Ssh { id: "git", required: true, owner: Owner { uid: 1, gid: 0, mode: 384 } }
                SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0
            "#]],
        );
        check(
            "--mount=type=ssh,source=/x",
            &expect![[r#"
            error: ssh does not support source
        "#]],
        );
        check(
            "--mount=type=secret",
            &expect![[r#"
            error: invalid secret mount. one of source, target required
        "#]],
        );
        check(
            "--mount=type=secret,id=a,sharing=locked",
            &expect![[r#"
            error: secret mount should not define sharing
        "#]],
        );
        check(
            "--mount=type=secret,id=a,env=A=B",
            &expect![[r#"
            error: invalid environment name "A=B" of a secret
        "#]],
        );
    }
}
