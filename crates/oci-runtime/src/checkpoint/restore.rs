//! From files to a running container.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroup::{Cgroup, Hierarchies};
use oci::runtime::{Hooks, IdMapping, NamespaceKind, Spec, State};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sys::fork::{NewNamespaces, fork};

use super::criu::{Criu, Start, null, require_installed};
use super::error::CriuError;
use super::mounts::{Outside, outside, real_place};
use super::request::{self, Feature, Kind, Settings};
use super::{CriuOptions, Directories, OUTSIDE, bytes, images, read_descriptors};
use crate::Stdio;
use crate::birth::run_hooks;
use crate::channel::{At, Failure, Reason};
use crate::container::{DESTROY_TIMEOUT, cgroup_path, default_device_rules, require_one_thread};
use crate::delegation;
use crate::error::{PlanError, Step};
use crate::hooks::Ran;
use crate::mounts::{MountKind, MountPlan, bind, build_root, move_to};
use crate::plan::Plan;
use crate::process::is_null;
use crate::target::{self, Missing};

/// What [`Restoring::begin`] needs.
#[derive(Debug)]
pub struct Restore<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The whole contract. Its process is not looked at: that is what the images hold.
    pub spec: &'a Spec,
    /// What [`Hierarchies::detect`] found.
    pub hierarchies: &'a Hierarchies,
    /// Standard streams for those that were pipes or files of the host's; a terminal comes as [`Restored::console`].
    pub stdio: Stdio,
    /// What hooks are told; status and number are filled in.
    pub state: &'a State,
    /// From where, and what may be there.
    pub options: &'a CriuOptions,
    /// An empty directory that the root is shown at, to CRIU alone.
    pub place: &'a Path,
    /// `TYPE:NAME` of another security profile than the old one.
    pub lsm_profile: Option<String>,
    /// Another SELinux context for mounts than the old one.
    pub lsm_mount_context: Option<String>,
}

/// A container that is all there and stands still. Dropped, it is taken away again.
#[derive(Debug)]
pub struct Restoring {
    /// Its first process, a child of ours.
    pub restored: Restored,
    hooks: RanHooks,
    // Before CRIU: its processes end with the cgroup, and so does it.
    cgroup: Guard,
    criu: Criu,
}

/// A container that was made from files.
#[derive(Debug)]
pub struct Restored {
    /// The first process, as its parent sees it.
    pub pid: Pid,
    /// The first process, for ever.
    pub pidfd: OwnedFd,
    /// The terminal's master, if there is a terminal.
    pub console: Option<OwnedFd>,
    /// Whether it has a time namespace of its own now, in which its clocks go on: CRIU makes one.
    pub own_time: bool,
}

const LOG_FILE: &str = "restore.log";

/// A cgroup that is emptied and removed, unless it is kept.
#[derive(Debug)]
struct Guard {
    cgroup: Cgroup,
    kept: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.kept {
            // A directory that stays is taken over by the next try.
            let _ = self.cgroup.destroy(DESTROY_TIMEOUT);
        }
    }
}

/// Hooks that have run for a container: what they left running ends with one that fails, as in a create.
#[derive(Debug, Default)]
struct RanHooks {
    ran: Ran,
    kept: bool,
}

impl Drop for RanHooks {
    fn drop(&mut self) {
        if !self.kept {
            self.ran.kill();
        }
    }
}

impl Restoring {
    /// Makes everything, up to the moment at which the processes would go on. On failure nothing is left.
    ///
    /// Blocks for as long as it takes to read the memory. The calling process has one thread.
    pub fn begin(restore: Restore<'_>) -> Result<Restoring, CriuError> {
        require_one_thread()?;
        let options = restore.options;
        let plan = Plan::new(restore.spec)?;
        require_installed(&options.search_path())?;
        let streams = read_descriptors(&options.images)?;
        let directories = Directories::open(options, false)?;
        let mut settings = options.settings(restore.spec, &directories, LOG_FILE);
        plan_settings(&mut settings, &restore, &streams)?;
        open_to_root(&restore, &directories)?;
        let mut resources = restore.spec.linux.resources.clone().unwrap_or_default();
        resources.devices.extend(default_device_rules());
        let path = cgroup_path(restore.id, restore.spec);
        let cgroup = Guard { cgroup: Cgroup::create(restore.hierarchies, &path, &resources)?, kept: false };
        delegation::delegate(&plan, restore.spec.process.user.uid, &cgroup.cgroup)?;
        let scene = Scene::build(&restore, &plan.mounts)?;
        let resolve = |path: &Path| real_place(scene.root.as_fd(), path);
        let mounts = outside(&plan, &cgroup.cgroup, restore.hierarchies, resolve);
        settings.mounts = mounts.iter().map(Outside::sourced).collect();
        let outer = open_outside(restore.spec)?;
        settings.inherited.extend(outer.iter().map(|(name, fd)| ((*name).to_owned(), fd.as_raw_fd())));
        let criu = scene.start(&restore, directories, &cgroup.cgroup, outer.into_iter().map(|(_, fd)| fd).collect())?;
        if options.lazy_pages {
            criu.require(Feature::LazyPages, "lazy-pages", "LazyPages")?;
        }
        let path = PathBuf::from(format!("/proc/{}/cgroup", criu.pid()));
        settings.cgroup_roots = cgroup_roots(&fs::read_to_string(&path).map_err(images("read", &path))?);
        criu.send(&request::work(Kind::Restore, &settings))?;
        let mut hooks = RanHooks::default();
        let restored = hear_restored(&criu, &restore, plan.namespaces.new_network, &mut hooks.ran)?;
        Ok(Restoring { restored, hooks, cgroup, criu })
    }

    /// Lets the processes go on.
    pub fn release(self) -> Result<Restored, CriuError> {
        let Restoring { restored, mut hooks, mut cgroup, criu } = self;
        loop {
            criu.send(&request::notified(true))?;
            if criu.hear_of(Kind::Restore)?.0.kind == Kind::Restore {
                break;
            }
        }
        // From here on it is the container's.
        (cgroup.kept, hooks.kept) = (true, true);
        criu.finish()?;
        Ok(restored)
    }
}

/// Hears of CRIU's steps until everything is there.
fn hear_restored(criu: &Criu, restore: &Restore<'_>, new_network: bool, ran: &mut Ran) -> Result<Restored, CriuError> {
    let mut console = None;
    loop {
        let (answer, mut fds) = criu.hear_of(Kind::Restore)?;
        let pid = answer.pid.and_then(Pid::from_raw);
        match (answer.script.as_str(), pid) {
            ("setup-namespaces", Some(pid)) => {
                let hooks = restore.spec.hooks.as_ref().filter(|hooks| **hooks != Hooks::default());
                run_hooks(hooks.map(|hooks| (hooks, restore.state)), pid, ran)?;
                if new_network {
                    loopback(pid).map_err(CriuError::talk("bring up the loopback interface"))?;
                }
            }
            ("orphan-pts-master", _) => console = fds.pop(),
            ("post-restore", Some(pid)) => {
                let pidfd = pidfd_open(pid, PidfdFlags::empty());
                let pidfd = pidfd.map_err(|err| CriuError::talk("open the restored process")(err.into()))?;
                return Ok(Restored { pid, pidfd, console, own_time: has_own_time(pid) });
            }
            _ if answer.kind != Kind::Notify => return Err(CriuError::Answer),
            _ => {}
        }
        criu.send(&request::notified(true))?;
    }
}

/// CRIU leaves a new network namespace as the kernel makes it, because whoever makes networks fills it.
fn loopback(pid: Pid) -> io::Result<()> {
    let namespace = fs::File::open(format!("/proc/{}/ns/net", pid.as_raw_nonzero()))?;
    let child = fork(NewNamespaces::default(), None, || {
        let up = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(io::Error::from)
            .and_then(|()| sys::network::loopback_up());
        up.map_or_else(|err| err.raw_os_error().unwrap_or(1) as u8, |()| 0)
    })?;
    match sys::wait::wait(child.pidfd.as_fd())? {
        sys::wait::Exit::Code(0) => Ok(()),
        exit => Err(io::Error::from_raw_os_error(exit.code().into())),
    }
}

fn has_own_time(pid: Pid) -> bool {
    let link = |process: &str| fs::read_link(format!("/proc/{process}/ns/time")).ok();
    link("self") != link(&pid.as_raw_nonzero().to_string())
}

/// Opens images and streams to the container's root where that is not the host's: CRIU reads them with its rights, after
/// it has read some with the rights of their owner and nothing more.
fn open_to_root(restore: &Restore<'_>, directories: &Directories) -> Result<(), CriuError> {
    let linux = &restore.spec.linux;
    let root = |ids: &[IdMapping]| ids.iter().find(|ids| ids.container_id == 0).map(|ids| ids.host_id);
    let (Some(uid), Some(gid)) = (root(&linux.uid_mappings), root(&linux.gid_mappings)) else { return Ok(()) };
    let path = &restore.options.images;
    let own = directories.images.try_clone().map_err(images("open", path))?;
    let mut next = Some((own, path.clone()));
    for _ in 0..PARENTS_MAX {
        let Some((directory, path)) = next else { break };
        next = share_images(&directory, &path, gid)?;
    }
    if let Stdio::Fds(fds) = &restore.stdio {
        for fd in fds.iter().filter(|fd| fstat(fd).is_ok_and(|stat| !is_null(&stat))) {
            // One that cannot be given away, a socket for instance, may do as it is.
            let _ = fchown(fd, Some(Uid::from_raw(uid)), None);
        }
    }
    Ok(())
}

/// Dumps that build on each other, one on the next: nobody has that many, but a link can lead in a circle.
const PARENTS_MAX: usize = 1000;

/// Shares the images of one dump; the answer is the directory of the dump on which it builds.
fn share_images(directory: &OwnedFd, path: &Path, gid: u32) -> Result<Option<(OwnedFd, PathBuf)>, CriuError> {
    const OPEN: &str = "open to the container's root";
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    for entry in fs::read_dir(path).map_err(images("read", path))? {
        let entry = entry.map_err(images("read", path))?;
        // Followed below, and no file of ours otherwise.
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            continue;
        }
        let file = openat(directory, entry.file_name(), flags | OFlags::NOFOLLOW, Mode::empty());
        let shared = file.and_then(|file| share(&file, gid, Mode::RGRP));
        shared.map_err(|err| images(OPEN, &entry.path())(err.into()))?;
    }
    share(directory, gid, Mode::RGRP | Mode::XGRP).map_err(|err| images(OPEN, path)(err.into()))?;
    // CRIU's link to the images that `--parent-path` named.
    let path = path.join("parent");
    match openat(directory, "parent", flags | OFlags::DIRECTORY, Mode::empty()) {
        Ok(parent) => Ok(Some((parent, path))),
        Err(Errno::NOENT) => Ok(None),
        Err(err) => Err(images(OPEN, &path)(err.into())),
    }
}

fn share(file: &OwnedFd, gid: u32, mode: Mode) -> rustix::io::Result<()> {
    let had = Mode::from_raw_mode(fstat(file)?.st_mode);
    fchown(file, None, Some(Gid::from_raw(gid)))?;
    fchmod(file, had | mode)
}

/// What needs nothing but the specification and the images.
fn plan_settings(settings: &mut Settings, restore: &Restore<'_>, streams: &[String]) -> Result<(), PlanError> {
    settings.root = bytes(restore.place);
    settings.sibling = true;
    settings.lsm_profile = restore.lsm_profile.clone();
    settings.lsm_mount_context = restore.lsm_mount_context.clone();
    let given = |stream: &String| stream.starts_with("pipe:") || stream.starts_with("file[");
    let streams = streams.iter().zip(0..).filter(|(stream, _)| given(stream));
    settings.inherited = streams.map(|(stream, number)| (stream.clone(), number)).collect();
    for namespace in &restore.spec.linux.namespaces {
        let Some(path) = &namespace.path else { continue };
        let word = match namespace.kind {
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Uts => "uts",
            NamespaceKind::User => "user",
            NamespaceKind::Network | NamespaceKind::Pid => continue,
            // CRIU has no word for them.
            NamespaceKind::Cgroup | NamespaceKind::Mount | NamespaceKind::Time => {
                let what = format!("restoring into an existing {:?} namespace", namespace.kind).to_lowercase();
                return Err(PlanError::Unsupported { what });
            }
        };
        settings.joined.push((word, bytes(path)));
    }
    Ok(())
}

/// Every controller with the cgroup of the process whose /proc/PID/cgroup this is (cgroups(7)).
fn cgroup_roots(text: &str) -> Vec<(String, String)> {
    let mut roots = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        if let (Some(controllers), Some(path)) = (fields.next(), fields.next()) {
            roots.extend(controllers.split(',').map(|controller| (controller.to_owned(), path.to_owned())));
        }
    }
    roots
}

/// Namespaces of the host's, with the names that CRIU knows them by.
fn open_outside(spec: &Spec) -> Result<Vec<(&'static str, OwnedFd)>, CriuError> {
    let open = |(kind, _, name)| {
        let path = super::outside(spec, kind)?;
        Some(fs::File::open(path).map(|file| (name, file.into())).map_err(images("open", path)))
    };
    OUTSIDE.into_iter().filter_map(open).collect()
}

/// What CRIU finds where it runs.
#[derive(Debug)]
struct Scene<'a> {
    /// The root, detached, in which mount points are made.
    root: OwnedFd,
    /// The same, as CRIU gets it: without anything mounted in it by us.
    clean: OwnedFd,
    /// Places that must be there, with what covers them while the later ones are made.
    places: Vec<(&'a MountPlan, Option<OwnedFd>)>,
}

impl<'a> Scene<'a> {
    fn build(restore: &Restore<'_>, mounts: &'a [MountPlan]) -> Result<Scene<'a>, CriuError> {
        let root = &restore.spec.root;
        if !root.mounts.is_empty() {
            return Err(PlanError::Unsupported { what: "restoring with a root of our own".into() }.into());
        }
        let mut places = Vec::new();
        for plan in to_prepare(mounts) {
            places.push((plan, if plan.kind == MountKind::Bind { Some(bind(plan, None)?) } else { None }));
        }
        Ok(Scene { root: build_root(root, None)?, clean: build_root(root, None)?, places })
    }

    fn start(
        &self,
        restore: &Restore<'_>,
        directories: Directories,
        cgroup: &Cgroup,
        inherited: Vec<OwnedFd>,
    ) -> Result<Criu, CriuError> {
        let entrance = cgroup.entrance()?;
        let null = null()?;
        let stdio = match &restore.stdio {
            Stdio::Fds(fds) => fds.each_ref().map(|fd| fd.as_fd()),
            Stdio::Terminal => [null.as_fd(); 3],
        };
        let prepare = || {
            entrance.enter().at(Step::EnterCgroup, "")?;
            self.prepare(restore.place)
        };
        let log = restore.options.log(LOG_FILE);
        Criu::start(Start {
            directories,
            stdio,
            inherited: &inherited,
            directory: entrance.directory(),
            prepare: &prepare,
            log,
            search_path: restore.options.search_path(),
        })
    }

    /// In CRIU's process, before it is CRIU: makes mount points that the root does not have, as a first start makes them, and
    /// shows the root at its place.
    fn prepare(&self, place: &Path) -> Result<(), Failure> {
        let named = place.to_string_lossy();
        let show = |root: &OwnedFd| {
            move_mount(root, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(Step::AttachMount, &named)
        };
        rustix::process::umask(Mode::empty());
        show(&self.root)?;
        for (plan, covering) in &self.places {
            self.make_place(plan, covering.as_ref())?;
        }
        unmount(place, UnmountFlags::DETACH).at(Step::AttachMount, &named)?;
        show(&self.clean)?;
        // Where we were may lie below what is gone.
        let here = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        here.and_then(|root| rustix::process::fchdir(&root)).at(Step::Clean, "")
    }

    fn make_place(&self, plan: &MountPlan, covering: Option<&OwnedFd>) -> Result<(), Failure> {
        let named = plan.destination.to_string_lossy();
        let missing = match covering.map(fstat).transpose().at(Step::MountPoint, &named)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => Missing::File,
            _ => Missing::Directory,
        };
        let target = target::open(self.root.as_fd(), &plan.destination, missing)
            .because(Reason::Mount(Step::MountPoint), &named)?;
        match covering {
            Some(mount) => move_to(mount.as_fd(), target.as_fd()).because(Reason::Mount(Step::AttachMount), &named),
            None => Ok(()),
        }
    }
}

/// The mounts whose places we make. CRIU makes those of cgroups, and what is below a file system of the container's.
fn to_prepare(mounts: &[MountPlan]) -> impl Iterator<Item = &MountPlan> {
    let inside = |above: &MountPlan, path: &Path| above.destination != path && path.starts_with(&above.destination);
    mounts.iter().enumerate().filter_map(move |(index, plan)| {
        let covered =
            mounts[..index].iter().any(|above| above.kind != MountKind::Bind && inside(above, &plan.destination));
        (plan.kind != MountKind::Cgroup && !covered).then_some(plan)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_has_a_root() {
        let text = "12:cpu,cpuacct:/a/b\n3:name=systemd:/\n0::/x:y\n";
        let roots = cgroup_roots(text);
        let roots: Vec<_> = roots.iter().map(|(controller, path)| (controller.as_str(), path.as_str())).collect();
        assert_eq!(roots, [("cpu", "/a/b"), ("cpuacct", "/a/b"), ("name=systemd", "/"), ("", "/x:y")]);
    }

    /// Naive: the link to the dump on which the images build is opened as a file of theirs, which no link may be.
    #[test]
    fn privileged_images_are_shared_with_those_on_which_they_build() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let images = |name: &str| dir.path().join(name);
        for name in ["first", "second"] {
            fs::create_dir(images(name)).unwrap();
            fs::set_permissions(images(name), fs::Permissions::from_mode(0o700)).unwrap();
            fs::write(images(name).join("pages.img"), "").unwrap();
            fs::set_permissions(images(name).join("pages.img"), fs::Permissions::from_mode(0o600)).unwrap();
        }
        symlink("../first", images("second/parent")).unwrap();
        symlink("/etc/passwd", images("second/other")).unwrap();
        let before = fs::metadata("/etc/passwd").unwrap();
        let open = OwnedFd::from(fs::File::open(images("second")).unwrap());
        let (parent, path) = share_images(&open, &images("second"), 7).unwrap().unwrap();
        assert_eq!(path, images("second/parent"));
        assert!(share_images(&parent, &path, 7).unwrap().is_none());
        for name in ["first", "second"] {
            let modes = ["", "pages.img"].map(|file| fs::metadata(images(name).join(file)).unwrap());
            let found = modes.map(|meta| (meta.gid(), meta.mode() & 0o777));
            assert_eq!(found, [(7, 0o750), (7, 0o640)], "{name}");
        }
        let after = fs::metadata("/etc/passwd").unwrap();
        assert_eq!((after.gid(), after.mode()), (before.gid(), before.mode()));
    }

    #[test]
    fn places_are_made_where_criu_makes_none() {
        let mount = |destination: &str, kind: &str| {
            let source = "/source".into();
            oci::runtime::Mount { destination: destination.into(), kind: kind.into(), source, ..Default::default() }
        };
        let mounts = [
            mount("/proc", "proc"),
            mount("/dev", "tmpfs"),
            mount("/dev/pts", "devpts"),
            mount("/device", "bind"),
            mount("/device/inside", "bind"),
            mount("/dev/bound", "bind"),
            mount("/sys/fs/cgroup", "cgroup"),
        ];
        let mounts: Vec<_> =
            mounts.iter().map(|mount| MountPlan::below_root("mounts[0]".into(), mount).unwrap()).collect();
        let made: Vec<_> = to_prepare(&mounts).map(|plan| plan.destination.to_str().unwrap()).collect();
        assert_eq!(made, ["/proc", "/dev", "/device", "/device/inside"]);
    }
}
