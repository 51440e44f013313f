//! `exec`.

mod blame;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use oci::runtime::{Capabilities, Process, User};
use oci_runtime::{Container, ExecOptions, Living};
use rustix::process::Pid;

use super::{Context, hierarchies, streams, warn_of_capabilities};
use crate::arguments::{Parsed, UsageError};
use crate::bundle::{self, BundleError};
use crate::error::CommandError;
use crate::foreground::Foreground;
use crate::given::{Given, Role};
use crate::seal;
use crate::state::{Place, Record, Status};

/// Runs another process in a container; its status is ours, unless it is to be left alone.
pub(crate) fn exec(context: &Context<'_>, flags: &Parsed) -> Result<u8, CommandError> {
    let (id, command) = flags.words.split_first().ok_or(USAGE)?;
    match flags.value("process") {
        None if command.is_empty() => return Err(CommandError::NoArguments),
        None => {}
        Some(_) => refuse_beside_file(flags, command)?,
    }
    seal::ensure()?;
    let environment = |name: &str| std::env::var(name).ok();
    let given = Given::parse(flags, &context.directory, environment, std::process::id())?;
    let place = context.store.open(id)?;
    let record = place.load()?;
    let mut process = match flags.value("process") {
        Some(path) => {
            let process = bundle::load_process(&context.directory.join(path)).map_err(in_file)?;
            bundle::check_variables(&process.env, bundle::in_process)?;
            completed(process, &record.spec.process)
        }
        None => {
            bundle::check_variables(flags.values("env"), |_| "--env".to_owned())?;
            changed(&record.spec.process, flags, command)?
        }
    };
    warn_of_capabilities(context, &process, &record.spec.linux.namespaces);
    if flags.is_on("tty") {
        process.terminal = true;
    }
    let detach = flags.is_on("detach");
    given.check(process.terminal, detach)?;
    given.announce(&mut process);
    let hierarchies = hierarchies()?;
    match place.status(&record, hierarchies)? {
        Status::Stopped | Status::Creating => return Err(CommandError::ExecStopped),
        Status::Paused if !flags.is_on("ignore-paused") => return Err(CommandError::ExecPaused),
        Status::Paused => wait_for_resume(&place, &record, hierarchies)?,
        _ => {}
    }
    let mut foreground = if detach { None } else { Some(Foreground::begin(&mut process)?) };
    let mut container = open(context, &record, hierarchies)?;
    let below = subgroups(flags.values("cgroup"))?;
    if !below.is_empty() {
        container.cgroup = cgroup::below(&container.cgroup, &below)?;
    }
    container.state = super::hook_state(&record, "running");
    container.names_interpreter = true;
    let stdio = streams(foreground.as_mut(), &given, process.terminal)?;
    let executed = container.exec(ExecOptions { process: &process, user: None, stdio, kept: given.kept });
    let mut executed = executed.map_err(|err| if_living(&record, blame::blame(err, flags)))?;
    if let Err(err) = given.hand_out(Role::Added, executed.pid, executed.pidfd.as_fd(), executed.console.as_ref()) {
        // Nobody would know of it; if it has ended, so much the better.
        let _ = sys::signal::send(executed.pidfd.as_fd(), rustix::process::Signal::KILL.as_raw());
        return Err(err.into());
    }
    let Some(foreground) = foreground else { return Ok(0) };
    Ok(foreground.wait(executed.pidfd.as_fd(), executed.console.take())?.code())
}

/// Flags that change what a file says, too, and would not.
const OF_PROCESS: [&str; 8] =
    ["cwd", "env", "user", "additional-gids", "process-label", "apparmor", "no-new-privs", "cap"];

/// Refuses what a process from a file would not have; runc passes over it.
fn refuse_beside_file(flags: &Parsed, command: &[String]) -> Result<(), CommandError> {
    let given = OF_PROCESS.into_iter().find(|flag| !flags.values(flag).is_empty());
    let what = match (given, command) {
        (Some(flag), _) => format!("--{flag}"),
        (None, []) => return Ok(()),
        (None, words) => format!("the command {:?}", words.join(" ")),
    };
    Err(CommandError::BesideFile { what })
}

/// What the file itself has against it is told by its flag.
fn in_file(source: BundleError) -> CommandError {
    match source.is_of_file() {
        true => CommandError::FlagFile { flag: "process", source: source.into() },
        false => source.into(),
    }
}

/// Waits until the container goes on, as runc does, which does it inside: a process that comes into a frozen cgroup stands
/// still from its first moment, cannot do what is left to do, and on version 1 of cgroups cannot even be killed.
fn wait_for_resume(place: &Place, record: &Record, hierarchies: &cgroup::Hierarchies) -> Result<(), CommandError> {
    loop {
        match place.status(record, hierarchies)? {
            // No version 1 announces it.
            Status::Paused => std::thread::sleep(RESUME_INTERVAL),
            Status::Stopped => return Err(CommandError::ExecStopped),
            _ => return Ok(()),
        }
    }
}

/// How often it is looked at. Whoever resumes a container and waits for a process of it waits so much longer.
const RESUME_INTERVAL: Duration = Duration::from_millis(10);

const USAGE: UsageError = UsageError::Words { command: "exec", wanted: "a minimum of 1 argument(s)" };

fn open(context: &Context<'_>, record: &Record, hierarchies: &cgroup::Hierarchies) -> Result<Container, CommandError> {
    let first = record.process.ok_or(CommandError::ExecStopped)?;
    let pidfd = first.open().ok_or(CommandError::ExecStopped)?;
    let pid = Pid::from_raw(first.pid).ok_or(CommandError::ExecStopped)?;
    let opened = Container::open(Living {
        id: &record.id,
        spec: &record.spec,
        pid,
        pidfd,
        hierarchies,
        cgroup: context.rootless.cgroup(false),
    });
    opened.map_err(|err| if_living(record, err.into()))
}

/// What failed only because the container has ended meanwhile is told as that.
fn if_living(record: &Record, err: CommandError) -> CommandError {
    let lives = record.process.is_some_and(|process| process.open().is_some());
    if lives { err } else { CommandError::ExecStopped }
}

/// `PATH`, or with version 1 `CONTROLLER[,CONTROLLER]:PATH` each time. Pure.
fn subgroups(words: &[String]) -> Result<Vec<(String, PathBuf)>, CommandError> {
    let mut paths: Vec<(String, PathBuf)> = Vec::new();
    for word in words {
        let wrong = |why| CommandError::Subgroup { text: word.clone(), why };
        match word.split_once(':') {
            None if words.len() > 1 => return Err(wrong("missing <controller>: prefix")),
            None => paths.push((String::new(), word.into())),
            Some((controllers, path)) => {
                for controller in controllers.split(',') {
                    if controller.is_empty() {
                        return Err(wrong("empty <controller> prefix"));
                    }
                    if paths.iter().any(|(known, _)| known == controller) {
                        return Err(wrong("controller specified multiple times"));
                    }
                    paths.push((controller.to_owned(), path.into()));
                }
            }
        }
    }
    Ok(paths)
}

/// What a process of its own does not say is as for the container's (runc's list).
fn completed(process: Process, own: &Process) -> Process {
    let own = own.clone();
    let or_own = |text: String, own: String| if text.is_empty() { own } else { text };
    Process {
        capabilities: process.capabilities.or(own.capabilities),
        rlimits: if process.rlimits.is_empty() { own.rlimits } else { process.rlimits },
        oom_score_adj: process.oom_score_adj.or(own.oom_score_adj),
        apparmor_profile: or_own(process.apparmor_profile, own.apparmor_profile),
        selinux_label: or_own(process.selinux_label, own.selinux_label),
        scheduler: process.scheduler.or(own.scheduler),
        io_priority: process.io_priority.or(own.io_priority),
        exec_cpu_affinity: process.exec_cpu_affinity.or(own.exec_cpu_affinity),
        user: User { umask: process.user.umask.or(own.user.umask), ..process.user },
        ..process
    }
}

/// The container's own process, with another command and what the flags change. Pure.
fn changed(process: &Process, flags: &Parsed, command: &[String]) -> Result<Process, CommandError> {
    let mut process = Process { args: command.to_vec(), terminal: false, ..process.clone() };
    if let Some(cwd) = flags.value("cwd").filter(|cwd| !cwd.is_empty()) {
        if !cwd.starts_with('/') {
            return Err(UsageError::Relative { name: "cwd", value: cwd.to_owned() }.into());
        }
        process.cwd = cwd.to_owned();
    }
    process.env.extend(flags.values("env").iter().cloned());
    let label = |name| flags.value(name).filter(|label| !label.is_empty()).map(str::to_owned);
    process.apparmor_profile = label("apparmor").unwrap_or(process.apparmor_profile);
    process.selinux_label = label("process-label").unwrap_or(process.selinux_label);
    let added = flags.values("cap");
    if !added.is_empty() {
        let sets = process.capabilities.get_or_insert_with(Capabilities::default);
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(added.iter().cloned());
        }
        // Without an inheritable one there is no ambient one, and the flag gives none of those.
        if !sets.inheritable.is_empty() {
            sets.ambient.extend(added.iter().cloned());
        }
    }
    process.no_new_privileges = flags.value("no-new-privs").map_or(process.no_new_privileges, |word| word == "true");
    if let Some(user) = flags.value("user").filter(|user| !user.is_empty()) {
        // What is not said stays, as under runc.
        let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
        process.user.uid = id("uid", uid)?;
        process.user.gid = gid.map_or(Ok(process.user.gid), |gid| id("gid", gid))?;
    }
    for gid in flags.values("additional-gids") {
        let bad = || UsageError::BadValue { name: "additional-gids", value: gid.clone() };
        process.user.additional_gids.push(parse_id(gid).ok_or_else(bad)?);
    }
    Ok(process)
}

fn id(what: &'static str, text: &str) -> Result<u32, UsageError> {
    parse_id(text).ok_or_else(|| UsageError::BadId { what, value: text.to_owned() })
}

/// To the kernel the last number is no id.
fn parse_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{EXEC, parse};

    fn exec(line: &str) -> Result<Process, String> {
        let flags = parse(&EXEC, line.split(' ').map(str::to_owned), false).unwrap();
        let process = Process {
            terminal: true,
            cwd: "/srv".into(),
            env: vec!["A=1".into()],
            user: User { uid: 5, gid: 6, additional_gids: vec![4], umask: Some(0o77) },
            no_new_privileges: true,
            ..Process::default()
        };
        changed(&process, &flags, &flags.words[1..]).map_err(|err| err.to_string())
    }

    #[test]
    fn cgroups_below_are_named_by_controller_or_by_one_path() {
        let check = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            let named = |paths: Vec<(String, PathBuf)>| {
                paths.iter().map(|(name, path)| format!("{name}={}", path.display())).collect::<Vec<_>>().join(" ")
            };
            subgroups(&words).map_or_else(|err| err.to_string(), named)
        };
        assert_eq!(check(&["a/b"]), "=a/b");
        assert_eq!(check(&["cpu,memory:/x", "pids:y"]), "cpu=/x memory=/x pids=y");
        for (words, why) in [
            (&["x", "cpu:y"][..], "x (missing <controller>: prefix)"),
            (&[":y"], ":y (empty <controller> prefix)"),
            (&["cpu:y", "cpu:z"], "cpu:z (controller specified multiple times)"),
        ] {
            assert_eq!(check(words), format!("invalid --cgroup argument: {why}"));
        }
    }

    #[test]
    fn flags_change_the_containers_own_process() {
        let plain = exec("c ls -l").unwrap();
        assert_eq!((plain.args.as_slice(), plain.cwd.as_str()), (&["ls".to_owned(), "-l".to_owned()][..], "/srv"));
        assert!(!plain.terminal && plain.user.uid == 5 && plain.capabilities.is_none());
        let changed =
            exec("-e B=2 --cwd /tmp -u 7:8 -g 9 -g 10 -c CAP_KILL --no-new-privs --apparmor p --process-label l c ls")
                .unwrap();
        assert_eq!((changed.cwd.as_str(), changed.env.join(" ").as_str()), ("/tmp", "A=1 B=2"));
        assert_eq!((changed.user.uid, changed.user.gid, changed.user.umask), (7, 8, Some(0o77)));
        assert_eq!((changed.apparmor_profile.as_str(), changed.selinux_label.as_str()), ("p", "l"));
        assert_eq!((changed.user.additional_gids, changed.no_new_privileges), (vec![4, 9, 10], true));
        assert_eq!(changed.capabilities.unwrap().bounding, ["CAP_KILL"]);
        let changed = exec("-u 0 --no-new-privs=false c ls").unwrap();
        assert_eq!((changed.user.uid, changed.user.gid, changed.user.additional_gids), (0, 6, vec![4]));
        assert!(!changed.no_new_privileges);
        for (flags, text) in [
            ("-u web", "bad uid: \"web\" of --user is no number from 0 to 4294967294"),
            ("-u 1:web", "bad gid: \"web\" of --user is no number from 0 to 4294967294"),
            ("-u 4294967295", "bad uid: \"4294967295\" of --user is no number from 0 to 4294967294"),
            ("-g web", "invalid value \"web\" for flag -additional-gids, which takes a number from 0 to 4294967294"),
        ] {
            assert_eq!(exec(&format!("{flags} c ls")), Err(text.into()));
        }
    }
}
