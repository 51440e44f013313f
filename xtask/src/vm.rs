//! A virtual machine for what this one's kernel and its first process decide, and in it the tests that see the difference.
//!
//! How cgroups are mounted is the machine's business: a test cannot choose, and no more is there a systemd to talk to on a
//! machine that was started without one. This one has a kernel of Debian's, below qemu without KVM, started for the run, and
//! comes up in four ways ([`boot::Boot`]): with version 2 of cgroups alone, with systemd and version 2, with systemd and its
//! hybrid of both, and with version 1 alone.
//!
//! ```text
//! host                                                     guest
//!   kernel      Debian's, unpacked below target/vm -------> boots
//!   initramfs   busybox, modules, a script ---------------> the host's root over 9p, read-only, below an overlay; perhaps
//!                                                           systemd as the first process, with one unit: the guest
//!   list        which tests, why -> plan.json ------------> guest   cgroup2, other mounts, then `--jobs` tests at once
//!   account     what ran, what failed <-- lines of JSON ---   ...   each in a process of its own; then it powers off
//! ```
//!
//! The same programs and test binaries run in both, from the same paths. Everything that is kept is below `target/vm`:
//! `kernel`, and for each boot `initramfs.BOOT`, `plan.BOOT.json` and `console.BOOT`, the kernel's messages of the last run;
//! where there are more tests than one machine has time for, for each part (`bare-1`, `bare-2`).
//! The machine has a deadline, from outside as from inside, and no network.

mod account;
mod binaries;
mod boot;
mod event;
mod guest;
mod initramfs;
mod kernel;
mod list;
mod machine;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testkit::paths;

use crate::step::step;
use crate::{debian, dist, images, tools};
use account::Account;
use boot::Boot;
use event::{Event, Plan};
use initramfs::Entry;
use list::Group;
use machine::Machine;

pub(crate) use guest::run as guest;

/// How long the machine may run. Beyond that it is killed, and the run has failed.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

/// How many tests one machine runs, of those that take four seconds each on two processors without KVM: half of its time.
/// What is more gets another machine, after it.
const CASES_MAX: usize = 160;

/// What reaches the host's files; the rest is loaded when something asks for it.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// The OCI runtime, from the files of a cgroup to its command line, without an engine: on version 2 of cgroups and under
/// systemd, and on a kernel that is older than most.
const RUNTIME_GROUPS: [Group; 3] = [
    Group { package: "cgroup", tests: &["group::", "devices::", "systemd::tests::privileged"], except: &[] },
    // It enters the cgroup by clone3, mounts it, and hides it in a namespace.
    Group { package: "oci-runtime", tests: &["confinement::", "errors::", "lifecycle::", "streams::"], except: &[] },
    Group {
        package: "runtime",
        // Among the labels is AppArmor, which Debian's kernel has.
        tests: &[
            "counting::",
            "criu::",
            "criu_killed::",
            "delegation::",
            "every_limit::privileged_vm_every_limit_of_version_2",
            "exec::",
            "fields::",
            "labels::",
            "leaks::",
            "lifecycle::",
            "limits::",
            "mounts::",
            "namespaces::",
            "rootless::",
            "scope::",
            "seccomp::",
            "user_namespace::",
        ],
        // Frozen processes of version 2 die: nothing keeps a container there. It has no real time of its own.
        except: &[
            "limits::privileged_a_failed_create_that_cannot_end",
            "labels::privileged_vm",
            "fields::privileged_real_time_is_kept_and_changed",
        ],
    },
];

/// What else runs in the machine: all that reads, writes or mounts cgroups, and what depends on how processes are stopped,
/// killed and counted. The rest is the same on either version, but for what an older kernel lacks.
const ENGINE_GROUPS: [Group; 13] = [
    Group { package: "shim", tests: &["exec::", "orphans::"], except: &[] },
    Group { package: "engine", tests: &["open::tests::privileged_cgroups"], except: &[] },
    // What only version 2 has.
    Group { package: "e2e", tests: &["cgroup2::"], except: &[] },
    // A first container; limits; what it sees of its cgroup; devices, which an eBPF program keeps.
    Group {
        package: "e2e",
        tests: &["load_and_run::privileged_run_prints", "load_and_run::privileged_rm_leaves", "flags::", "isolation::"],
        // Words and refusals, which no kernel has a part in.
        except: &["flags::privileged_what_is"],
    },
    // Stopping, freezing, counting, killing.
    Group {
        package: "e2e",
        tests: &["stuck::", "shims::", "idle::", "lifecycle::", "exec::", "system::", "restart_policy::"],
        except: &[],
    },
    // Standing still, counting and limiting while they run; checks that hang; copies of volumes with their users frozen.
    Group {
        package: "e2e",
        tests: &["devices::", "health::", "live::", "pause::", "volume_copies::"],
        // What only version 1 refuses or names so; extended attributes, which the machine's root has not.
        except: &[
            "devices::privileged_limits_reach",
            "live::privileged_what_cannot_be_changed",
            "volume_copies::privileged_copies_keep",
        ],
    },
    // A later daemon finds what the earlier one made. Not where twenty containers write all the time: they need minutes.
    Group { package: "e2e", tests: &["death::"], except: &["death::privileged_heavy", "death::privileged_quick"] },
    Group { package: "testkit", tests: &["leaks::"], except: &[] },
    // Links that this kernel was built without.
    Group { package: "network", tests: &["parents::"], except: &[] },
    // File systems with quotas for projects.
    Group { package: "quota", tests: &["limits::"], except: &[] },
    Group { package: "e2e", tests: &["sizes::"], except: &["sizes::privileged_sizes", "sizes::privileged_a_daemon"] },
    // Overlays of a kernel before 6.5, which takes all layers in one option.
    Group { package: "sys", tests: &["overlay::"], except: &[] },
    Group {
        package: "e2e",
        tests: &["volumes::privileged_a_new_volume", "volumes::privileged_volumes_of_an_image"],
        except: &[],
    },
];

/// What runs below systemd, with either version of cgroups: scopes, from the driver to the command line.
const SYSTEMD_GROUPS: [Group; 1] = [Group { package: "runtime", tests: &["systemd::"], except: &[] }];

/// What a hybrid has besides: marks on packets, and labels of SELinux.
const HYBRID_GROUPS: [Group; 1] = [Group {
    package: "runtime",
    tests: &["every_limit::privileged_vm_every_limit_of_version_1", "labels::", "limits::"],
    except: &["labels::privileged_a_profile_of_apparmor"],
}];

/// Where there is nothing of version 2: a container's life, its limits and what is left of it.
const LEGACY_GROUPS: [Group; 3] = [
    // Processes of version 1 are where they like.
    Group { package: "cgroup", tests: &["group::", "devices::"], except: &["group::tests::privileged_vm"] },
    Group { package: "oci-runtime", tests: &["confinement::", "lifecycle::"], except: &[] },
    Group {
        package: "runtime",
        tests: &[
            "counting::",
            "every_limit::privileged_vm_every_limit_of_version_1",
            "exec::",
            "leaks::",
            "lifecycle::",
            "limits::",
        ],
        except: &[],
    },
];

/// The engine there: a first container, and one that stands still.
const LEGACY_ENGINE_GROUPS: [Group; 1] = [Group {
    package: "e2e",
    tests: &["load_and_run::privileged_run_prints", "load_and_run::privileged_rm_leaves", "pause::"],
    except: &[],
}];

/// What of the OCI runtime runs in a machine that has come up so.
fn runtime_groups(boot: Boot) -> Vec<Group> {
    match boot {
        Boot::Bare => RUNTIME_GROUPS.to_vec(),
        Boot::Systemd => SYSTEMD_GROUPS.to_vec(),
        Boot::Hybrid => SYSTEMD_GROUPS.into_iter().chain(HYBRID_GROUPS).collect(),
        Boot::Legacy => LEGACY_GROUPS.to_vec(),
    }
}

/// What else runs there.
fn engine_groups(boot: Boot) -> Vec<Group> {
    match boot {
        Boot::Bare => ENGINE_GROUPS.to_vec(),
        Boot::Systemd | Boot::Hybrid => Vec::new(),
        Boot::Legacy => LEGACY_ENGINE_GROUPS.to_vec(),
    }
}

/// `vm-test [--boot BOOT] [WORD]...`: what the OCI runtime is on version 2 of cgroups, and under systemd. Builds these
/// packages alone.
pub(crate) fn runtime_test(words: &[&str]) -> Result<()> {
    let wish = Wish::parse(words)?;
    check_machine()?;
    tools::install_for_vm()?;
    debian::for_tests()?;
    let packages = RUNTIME_GROUPS.map(|group| group.package);
    wish.fulfil(&step("build the tests", || binaries::build(&packages))?, runtime_groups)
}

/// The tests of the list.
pub(crate) fn test() -> Result<()> {
    command(&[])
}

/// `vm [--boot BOOT] [WORD]...`: the tests of the list, or those of the whole workspace that have a word in their name.
pub(crate) fn command(words: &[&str]) -> Result<()> {
    let wish = Wish::parse(words)?;
    wish.fulfil(&prepare()?, |boot| {
        let mut groups = runtime_groups(boot);
        groups.extend(engine_groups(boot));
        groups
    })
}

/// What is to run.
#[derive(Debug, PartialEq, Eq)]
struct Wish<'a> {
    /// One after the other.
    boots: Vec<Boot>,
    /// Tests with one of them in their name; those of the list if there are none.
    words: &'a [&'a str],
}

impl<'a> Wish<'a> {
    fn parse(words: &'a [&'a str]) -> Result<Wish<'a>> {
        Ok(match words {
            [] => Wish { boots: Boot::ALL.into(), words },
            ["--boot", name, words @ ..] => {
                let known = Boot::ALL.map(|boot| boot.to_string()).join(", ");
                let boot = Boot::parse(name).with_context(|| format!("no boot {name:?}: there are {known}"))?;
                Wish { boots: vec![boot], words }
            }
            words => Wish { boots: vec![Boot::Bare], words },
        })
    }

    /// Every boot, one after the other; the first error, after all.
    fn fulfil(&self, binaries: &[list::Binary], groups: impl Fn(Boot) -> Vec<Group>) -> Result<()> {
        let select = |boot| match self.words {
            [] => list::select(&groups(boot), binaries),
            words => list::matching(words, binaries),
        };
        // A name that no test has is found before the first machine starts.
        let lists = self.boots.iter().map(|boot| Ok((*boot, select(*boot)?))).collect::<Result<Vec<_>>>()?;
        let parts = lists.iter().flat_map(|(boot, cases)| parts(*boot, cases));
        parts.map(|(boot, name, cases)| run(boot, &name, cases)).fold(Ok(()), Result::and)
    }
}

/// The machines that these tests need, with the names of their files: no more tests in one than it has time for, and about
/// as many in each.
fn parts(boot: Boot, cases: &[event::Case]) -> Vec<(Boot, String, Vec<event::Case>)> {
    let machines = cases.len().div_ceil(CASES_MAX).max(1);
    let parts = cases.chunks(cases.len().div_ceil(machines).max(1)).map(<[event::Case]>::to_vec);
    let name = |number: usize| if machines == 1 { boot.to_string() } else { format!("{boot}-{number}") };
    parts.enumerate().map(|(index, part)| (boot, name(index + 1), part)).collect()
}

fn check_machine() -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the virtual machine is one of x86_64: on other machines its tests do not run"
    );
    Ok(())
}

fn prepare() -> Result<Vec<list::Binary>> {
    check_machine()?;
    tools::install_for_vm()?;
    debian::for_tests()?;
    dist::build(dist::Kind::Dev)?;
    images::run()?;
    step("build the tests", || binaries::build(&[]))
}

fn run(boot: Boot, name: &str, cases: Vec<event::Case>) -> Result<()> {
    let dir = paths::target().join("vm");
    fs::create_dir_all(&dir)?;
    let busybox = paths::busybox()?;
    let kernel = kernel::get(&busybox)?;
    let processors = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
    let plan = Plan {
        boot,
        modules: kernel.modules.clone(),
        busybox: busybox.clone(),
        jobs: processors,
        environment: environment(),
        cases,
    };
    let plan_file = dir.join(format!("plan.{name}.json"));
    fs::write(&plan_file, serde_json::to_vec(&plan)?)?;
    let (initramfs, console) = (dir.join(format!("initramfs.{name}")), dir.join(format!("console.{name}")));
    let machine = Machine { boot, kernel: kernel.image, initramfs, console, processors };
    let entries = entries(boot, &kernel.modules, &busybox, &plan_file)?;
    fs::write(&machine.initramfs, initramfs::archive(&entries))?;
    let (count, console) = (plan.cases.len(), machine.console.display());
    println!("{count} tests in a virtual machine, {name}; the kernel's messages: {console}");
    let begin = Instant::now();
    let mut account = Account::new(boot, &plan.cases);
    let ran = machine.run(DEADLINE, |line| account.take(&line));
    println!("{}; {:.0} s", account.summary(), begin.elapsed().as_secs_f64());
    // What the machine said is nearer to the cause than how it ended.
    account.verdict().and(ran)
}

/// What tests need to know; the machine has none of the caller's environment.
fn environment() -> Vec<(String, String)> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    vec![
        ("PATH".to_owned(), path),
        ("HOME".to_owned(), "/root".to_owned()),
        ("CARGO_TARGET_DIR".to_owned(), paths::target().display().to_string()),
        (testkit::process::SLOWNESS_VARIABLE.to_owned(), "4".to_owned()),
        // Docker's says nothing more about the kernel, and takes half of the time.
        (testkit::daemon::CLI_VARIABLE.to_owned(), "longshore".to_owned()),
    ]
}

/// The first file system.
fn entries(boot: Boot, modules: &Path, busybox: &Path, plan: &Path) -> Result<Vec<Entry>> {
    let dependencies = fs::read_to_string(modules.join("modules.dep"))?;
    let order = initramfs::load_order(&dependencies, &MODULES);
    let mut entries: Vec<Entry> =
        ["bin", "dev", "host", "memory", "modules", "root"].into_iter().map(Entry::directory).collect();
    entries.push(Entry::program("bin/busybox", fs::read(busybox)?));
    let mut names = Vec::new();
    for file in order {
        let name = file.rsplit('/').next().unwrap_or(&file).to_owned();
        let content = fs::read(modules.join(&file)).with_context(|| format!("read the module {file}"))?;
        entries.push(Entry::program(&format!("modules/{name}"), content));
        names.push(name);
    }
    let ours = std::env::current_exe()?;
    let command = format!("{} vm-guest {}", ours.display(), plan.display());
    let limit = DEADLINE.as_secs();
    let last = if boot.has_systemd() { initramfs::systemd() } else { initramfs::shell(&command, limit) };
    entries.push(Entry::program("init", initramfs::init(&names, &last).into_bytes()));
    if boot.has_systemd() {
        entries.push(Entry::program(initramfs::UNIT, initramfs::unit(&command, limit).into_bytes()));
    }
    Ok(entries)
}

/// A line of the guest, as a value.
fn parse(line: &str) -> Option<Event> {
    serde_json::from_str(line).ok()
}

#[cfg(test)]
mod tests;
