//! A container's mounts as they are decided at `create`: its own and those of other containers, one at each place.
//!
//! ```text
//!   --volumes-from, in order   <   -v and --mount   <   VOLUME of the image and -v PATH, where nothing else is
//! ```
//! A container keeps them in its record ([`Point`]); how they are made ready ([`Ready`]) matters at `create` only.

use std::collections::BTreeMap;
use std::path::PathBuf;

use engine_api::container::{Config, MountPoint};
use engine_api::host_config::{BindOptions, HostConfig, Mount, VolumeOptions};
use engine_api::paths::clean;
use serde::{Deserialize, Serialize};

use crate::bind::{self, Bind, PROPAGATION_DEFAULT};
use crate::mounts;
use crate::validate::InvalidRequest;

/// The only driver of volumes.
pub const VOLUME_DRIVER: &str = "local";

/// One mount beside the root and what every container has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// As `inspect` shows it.
    #[serde(flatten)]
    pub shown: MountPoint,
    /// How a bind is made.
    #[serde(rename = "BindOptions", default, skip_serializing_if = "is_default")]
    pub bind: BindOptions,
    /// Whether the source of a bind is made when it is missing: always for the short form.
    #[serde(rename = "CreateSource", default = "yes", skip_serializing_if = "Clone::clone")]
    pub create_source: bool,
    /// The options of a tmpfs in the short form's language.
    #[serde(rename = "TmpfsData", default, skip_serializing_if = "is_default")]
    pub tmpfs: String,
    /// The request did not name the volume: it goes with its container.
    #[serde(rename = "Anonymous", default, skip_serializing_if = "is_default")]
    pub anonymous: bool,
    /// Which part of the volume or image is mounted; empty for all of it.
    #[serde(rename = "Subpath", default, skip_serializing_if = "is_default")]
    pub subpath: String,
    /// The layers of an image, lowest first, as `snapshot` calls them. They are kept when the image is removed.
    #[serde(rename = "Layers", default, skip_serializing_if = "is_default")]
    pub layers: Vec<oci::Digest>,
    /// How these are mounted, when the container starts.
    #[serde(skip)]
    pub stack: Option<oci::runtime::Mount>,
}

/// What has to be done for a point before its container exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Nothing.
    AsItIs,
    /// Its volume is there, and used by one container more.
    Shared,
    /// Its volume is there or made.
    Volume(VolumeWish),
    /// Its image is there.
    Image,
}

/// A volume that is made if there is none of that name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeWish {
    /// Empty for the default driver.
    pub driver: String,
    /// Its labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Options of its driver.
    pub options: Option<BTreeMap<String, String>>,
    /// Whether it is filled with what the image holds at its place.
    pub fill: bool,
    /// The image must not have a file at its place.
    pub refuse_file: bool,
}

/// A place on the host that a start needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindSource {
    /// Where.
    pub path: PathBuf,
    /// Whether a directory is made there if it is missing; otherwise that is an error
    /// ([`crate::validate::missing_bind_source`]).
    pub create: bool,
}

/// Another container's mounts.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// What it mounts.
    pub points: &'a [Point],
    /// Whether that stays writable.
    pub writable: bool,
}

impl Point {
    /// One that is nothing but what `inspect` shows.
    pub fn new(shown: MountPoint) -> Point {
        Point {
            shown,
            bind: BindOptions::default(),
            create_source: true,
            tmpfs: String::new(),
            anonymous: false,
            subpath: String::new(),
            layers: Vec::new(),
            stack: None,
        }
    }

    /// The volume's name, if it is one.
    pub fn volume(&self) -> Option<&str> {
        (self.shown.kind == "volume").then_some(self.shown.name.as_str())
    }
}

/// The places on the host that bind mounts need.
pub fn bind_sources(points: &[Point]) -> Vec<BindSource> {
    let binds = points.iter().filter(|point| point.shown.kind == "bind");
    binds.map(|bind| BindSource { path: bind.shown.source.clone().into(), create: bind.create_source }).collect()
}

/// Decides the mounts of a container. `fresh` names volumes that nobody named; their sources are for the engine to fill in.
pub fn plan_points(
    config: &Config,
    host: &HostConfig,
    shared: &[Shared<'_>],
    fresh: &mut dyn FnMut() -> String,
) -> Result<Vec<(Point, Ready)>, InvalidRequest> {
    let mut planned = Vec::new();
    for (point, writable) in shared.iter().flat_map(|shared| shared.points.iter().map(|point| (point, shared.writable)))
    {
        put(&mut planned, inherit(point, writable));
    }
    for (mut point, ready) in own_points(host)? {
        if point.anonymous {
            point.shown.name = fresh();
        }
        put(&mut planned, (point, ready));
    }
    for path in config.volumes.iter().flatten().map(|(path, _)| clean(path)) {
        let is_tmpfs = host.tmpfs.iter().flatten().any(|(place, _)| clean(place) == path);
        if !is_tmpfs && !planned.iter().any(|(point, _)| point.shown.destination == path) {
            planned.push(of_config(path, fresh(), &host.volume_driver));
        }
    }
    Ok(planned)
}

/// Puts a mount at its place, where an earlier one goes.
fn put(planned: &mut Vec<(Point, Ready)>, (point, ready): (Point, Ready)) {
    planned.retain(|(earlier, _)| earlier.shown.destination != point.shown.destination);
    planned.push((point, ready));
}

/// Another container's mount. What its user wrote for it is not told again, as with dockerd.
fn inherit(point: &Point, writable: bool) -> (Point, Ready) {
    let shown = MountPoint { mode: String::new(), rw: point.shown.rw && writable, ..point.shown.clone() };
    let ready = if point.volume().is_some() { Ready::Shared } else { Ready::AsItIs };
    (Point { shown, ..point.clone() }, ready)
}

/// A path that the image or the request declares to be a volume.
fn of_config(path: String, name: String, driver: &str) -> (Point, Ready) {
    let wish = VolumeWish { driver: driver.to_owned(), fill: true, refuse_file: true, ..VolumeWish::default() };
    let mut point = Point::new(volume(name, path, true));
    point.anonymous = true;
    (point, Ready::Volume(wish))
}

fn volume(name: String, destination: String, rw: bool) -> MountPoint {
    let (kind, driver) = ("volume".to_owned(), VOLUME_DRIVER.to_owned());
    MountPoint { kind, name, destination, driver, rw, ..MountPoint::default() }
}

/// What the request itself mounts; two mounts at one place are refused.
pub(crate) fn own_points(host: &HostConfig) -> Result<Vec<(Point, Ready)>, InvalidRequest> {
    let mut points: Vec<(Point, Ready)> = Vec::new();
    let duplicate = |path: String| Err(InvalidRequest::DuplicateMount { path });
    for raw in host.binds.iter().flatten() {
        let bind = bind::parse_bind(raw)?;
        let is_tmpfs = host.tmpfs.iter().flatten().any(|(place, _)| clean(place) == bind.target);
        if is_tmpfs || is_taken(&points, &bind.target) {
            return duplicate(bind.target);
        }
        points.push(short_form(bind, &host.volume_driver));
    }
    for mount in host.mounts.iter().flatten() {
        bind::check_mount(mount)?;
        if is_taken(&points, &clean(&mount.target)) {
            return duplicate(mount.target.clone());
        }
        points.push(long_form(mount)?);
    }
    Ok(points)
}

fn is_taken(points: &[(Point, Ready)], place: &str) -> bool {
    points.iter().any(|(point, _)| point.shown.destination == place)
}

fn short_form(bind: Bind, driver: &str) -> (Point, Ready) {
    let (rw, fill) = (!bind.has("ro"), !bind.has("nocopy"));
    if bind.is_volume {
        // dockerd gives volumes of its own driver the label that containers share.
        let mode = if bind.mode.is_empty() { "z".to_owned() } else { bind.mode };
        let shown = MountPoint { mode, ..volume(bind.source, bind.target, rw) };
        let wish = VolumeWish { driver: driver.to_owned(), fill, ..VolumeWish::default() };
        let anonymous = shown.name.is_empty();
        return (Point { anonymous, ..Point::new(shown) }, Ready::Volume(wish));
    }
    let options = BindOptions { propagation: bind.propagation, ..BindOptions::default() };
    let shown = MountPoint { mode: bind.mode, ..bound(bind.source, bind.target, rw, &options) };
    (Point { bind: options, ..Point::new(shown) }, Ready::AsItIs)
}

fn bound(source: String, destination: String, rw: bool, options: &BindOptions) -> MountPoint {
    let propagation = match options.propagation.as_str() {
        "" => PROPAGATION_DEFAULT,
        propagation => propagation,
    };
    let (kind, propagation) = ("bind".to_owned(), propagation.to_owned());
    MountPoint { kind, source, destination, rw, propagation, ..MountPoint::default() }
}

fn long_form(mount: &Mount) -> Result<(Point, Ready), InvalidRequest> {
    let (destination, rw) = (clean(&mount.target), !mount.read_only);
    Ok(match mount.kind.as_str() {
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            let VolumeOptions { no_copy, labels, subpath, driver_config } = options;
            let driver = driver_config.unwrap_or_default();
            // What lies in a part of a volume is that part's own.
            let fill = !no_copy && subpath.is_empty();
            let wish = VolumeWish { driver: driver.name, labels, options: driver.options, fill, refuse_file: false };
            let shown = MountPoint { mode: "z".to_owned(), ..volume(mount.source.clone(), destination, rw) };
            let anonymous = mount.source.is_empty();
            let subpath = if subpath.is_empty() { subpath } else { clean(&subpath) };
            (Point { anonymous, subpath, ..Point::new(shown) }, Ready::Volume(wish))
        }
        "image" => {
            let (kind, name, propagation) = ("image".to_owned(), mount.source.clone(), PROPAGATION_DEFAULT.to_owned());
            let shown = MountPoint { kind, name, destination, propagation, ..MountPoint::default() };
            let subpath = mount.image_options.as_ref().map_or("", |options| &options.subpath);
            let subpath = if subpath.is_empty() { String::new() } else { clean(subpath) };
            (Point { subpath, ..Point::new(shown) }, Ready::Image)
        }
        "tmpfs" => {
            let fault = |fault| InvalidRequest::Mount { kind: mount.kind.clone(), fault };
            let tmpfs = mounts::long_tmpfs_data(mount).map_err(fault)?;
            let shown = MountPoint { kind: mount.kind.clone(), destination, rw, ..MountPoint::default() };
            (Point { tmpfs, ..Point::new(shown) }, Ready::AsItIs)
        }
        _ => {
            let options = mount.bind_options.clone().unwrap_or_default();
            let shown = bound(clean(&mount.source), destination, rw, &options);
            let create_source = options.create_mountpoint;
            (Point { bind: options, create_source, ..Point::new(shown) }, Ready::AsItIs)
        }
    })
}

fn yes() -> bool {
    true
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
