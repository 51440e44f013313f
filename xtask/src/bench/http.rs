//! Requests to a web server in a container, by every way that leads to it.
//!
//! A sample is what a thousand requests of 1 KiB took, and what CPU of the whole machine went into them. It is asked by wrk from
//! where a user would ask, on as many connections as the row says: many show the throughput, one shows how long an answer takes.
//!
//! Beside the engines stand two servers without one, so that a share can be told, and one that tells what of it is no network's:
//!
//! ```text
//! veth       [server] ---- bridge ---- [client]    namespaces of their own, a bridge that filters nothing
//! contained  the same bridge; server and client are the first engine's containers, without a network of its own
//! bare       server and client on one loopback
//! ```
//!
//! The image has nginx, wrk and both their libraries; the plain ones are run from its files by chroot(1).

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;
use testkit::process::until;

use super::engine::{Engine, Sample};

/// What the archive names its image.
const IMAGE: &str = "netlab:latest";
/// The server's program and the file that says port 80, and what it shows.
const SERVER: [&str; 3] = ["nginx", "-c", "/etc/ng.conf"];
const PAGE: &str = "k1";
/// The name of the plain bridge among those that are measured.
pub(super) const VETH: &str = "veth";
/// The name of containers on that bridge: what seccomp, cgroups and the layers' file system take is in both, filter and address
/// translation in neither.
const CONTAINED: &str = "contained";
/// How long each sample asks.
const ASKING: &str = "1s";
/// What the machine's own host may take away of its CPUs during a sample; one that lost more is taken again, and of those the
/// one that lost least counts. On a busy host a server seems to stand still for whole seconds, whoever's it is.
const STOLEN_MAX: Duration = Duration::from_millis(20);
const TRIES: usize = 15;
/// CPU time in /proc/stat: USER_HZ.
const TICK: Duration = Duration::from_millis(10);

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the host to the published port on the bridge's address.
    Bridge,
    /// From the host to the published port on 127.0.0.1.
    Loopback,
    /// From a container to another one at its own address.
    Link,
}

/// A server that answers, and all that is needed to ask it.
struct Place {
    /// What asks, before wrk's own words.
    asker: Vec<String>,
    /// The network namespace in which that is started; ours if there is none.
    netns: Option<File>,
    url: String,
}

impl Place {
    /// Asks for about a second on so many connections, while the machine has its CPUs for itself if that comes to pass.
    fn quiet_sample(&self, connections: usize) -> Result<Sample> {
        let mut best = self.sample(connections)?;
        for _ in 1..TRIES {
            if best.1 <= STOLEN_MAX {
                break;
            }
            let next = self.sample(connections)?;
            best = if next.1 < best.1 { next } else { best };
        }
        Ok(best.0)
    }

    /// A sample, and how much of the CPUs others had meanwhile.
    fn sample(&self, connections: usize) -> Result<(Sample, Duration)> {
        let threads = connections.min(2).to_string();
        let connections = connections.to_string();
        let mut words = self.asker.clone();
        words.extend(["wrk", "-t", &threads, "-c", &connections, "-d", ASKING, &self.url].map(str::to_owned));
        let before = busy()?;
        let told = spawn(&words, self.netns.as_ref(), Stdio::piped())?.wait_with_output()?;
        let after = busy()?;
        let (cpu, stolen) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        let text = String::from_utf8_lossy(&told.stdout);
        ensure!(told.status.success(), "{words:?}: {}: {text}", told.status);
        let (requests, wall) = told_of(&text).with_context(|| format!("{words:?} said: {text}"))?;
        Ok((Sample { wall: wall * 1000 / requests, cpu: cpu * 1000 / requests }, stolen))
    }
}

/// How many answers came, all of which were whole, and in what time by its own clock:
/// `57102 requests in 1.10s, 67.52MB read`.
fn told_of(text: &str) -> Option<(u32, Duration)> {
    if text.contains("Socket errors") || text.contains("Non-2xx") {
        return None;
    }
    let line = text.lines().find(|line| line.contains(" requests in "))?;
    let (requests, rest) = line.split_once(" requests in ")?;
    let seconds = rest.split_once("s,")?.0.parse().ok()?;
    let requests = requests.trim().parse().ok().filter(|count| *count > 0)?;
    Some((requests, Duration::try_from_secs_f64(seconds).ok()?))
}

/// What the machine's CPUs have done so far, for whomever, and for how long its host had them (proc_stat(5)).
fn busy() -> Result<(Duration, Duration)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("no CPU in /proc/stat")?;
    let ticks: Vec<u32> = line.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    // user, nice, system, -, -, irq, softirq, stolen
    ensure!(ticks.len() >= 8, "{line}");
    Ok(([0, 1, 2, 5, 6].iter().map(|field| TICK * ticks[*field]).sum(), TICK * ticks[7]))
}

/// Starts a program in a network namespace.
fn spawn(words: &[String], netns: Option<&File>, output: Stdio) -> Result<Child> {
    let start = || -> Result<Child> {
        if let Some(netns) = netns {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
        command.spawn().with_context(|| format!("start {words:?}"))
    };
    // The namespace of the thread is what its children are born in.
    std::thread::scope(|scope| scope.spawn(start).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// An engine with the beginning of its containers' names, and the network namespace of its host where that is not ours.
pub(super) type Server<'a> = (&'a Engine, String, Option<&'a Path>);

/// Samples of all that serve, the engines first, by turns. `connections` at a time.
pub(super) fn samples(
    archive: &Path,
    engines: &[Server<'_>],
    way: Way,
    connections: usize,
    runs: usize,
) -> Result<Vec<(String, Vec<Sample>)>> {
    let root = unpacked(archive)?;
    let root = root.path();
    let mut places = Vec::new();
    for (engine, scene, netns) in engines {
        places.push((engine.name.clone(), place(engine, scene, way, *netns, root)?));
    }
    let (veth, bare) = (Plain::veth(root)?, Plain::bare(root)?);
    places.push((VETH.to_owned(), veth.place(root, way)?));
    let (engine, scene, _) = engines.first().context("no engine")?;
    let contained = Contained::new(engine, scene, &veth.host)?;
    places.push((CONTAINED.to_owned(), contained.place(&veth.host, root, way)?));
    places.push(("bare".to_owned(), bare.place(root, way)?));
    let mut samples: Vec<_> = places.iter().map(|(name, _)| (name.clone(), Vec::with_capacity(runs))).collect();
    for _ in 0..runs {
        for ((_, place), (_, samples)) in places.iter().zip(&mut samples) {
            samples.push(place.quiet_sample(connections)?);
        }
    }
    Ok(samples)
}

/// Loads the image and starts the server, and who asks it from beside.
pub(super) fn set(engine: &Engine, archive: &Path, scene: &str) -> Result<()> {
    let words = |line: &[&str]| line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    engine.run(&words(&["load", "-q", "-i", &archive.display().to_string()]))?;
    let start = ["run", "-d", "--stop-signal", "KILL", "--name"];
    engine.run(&words(&[&start[..], &[&format!("{scene}server"), "-p", "80", IMAGE], &SERVER].concat()))?;
    engine.run(&words(&[&start[..], &[&format!("{scene}client"), IMAGE, "sleep", "100000"]].concat()))
}

/// Takes it all away, as far as it is there.
pub(super) fn clear(engine: &Engine, scene: &str) -> Result<()> {
    let containers = ["rm", "-f"].map(str::to_owned).into_iter();
    engine.run(&containers.chain(["server", "client"].map(|name| format!("{scene}{name}"))).collect::<Vec<_>>())?;
    engine.run(&["rmi", "-f", IMAGE].map(str::to_owned))
}

/// Where to ask an engine's server.
fn place(engine: &Engine, scene: &str, way: Way, netns: Option<&Path>, root: &Path) -> Result<Place> {
    let server = format!("{scene}server");
    let shown = |field: &str| -> Result<String> {
        let template = format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}");
        engine.told(&["inspect".to_owned(), "-f".to_owned(), template, server.clone()])
    };
    let published = || -> Result<String> {
        let told = engine.told(&["port".to_owned(), server.clone(), "80".to_owned()])?;
        let (_, port) = told.lines().next().and_then(|line| line.rsplit_once(':')).context("no port is published")?;
        Ok(port.trim().to_owned())
    };
    let address = match way {
        Way::Bridge => format!("{}:{}", shown("Gateway")?, published()?),
        Way::Loopback => format!("127.0.0.1:{}", published()?),
        Way::Link => format!("{}:80", shown("IPAddress")?),
    };
    let asker = match way {
        Way::Link => exec(engine, &format!("{scene}client")),
        Way::Bridge | Way::Loopback => inside(root),
    };
    let netns = match way {
        Way::Link => None,
        Way::Bridge | Way::Loopback => netns.map(File::open).transpose().context("--peer-netns")?,
    };
    ready(Place { asker, netns, url: format!("http://{address}/{PAGE}") })
}

/// What comes before the words of a program in a container.
fn exec(engine: &Engine, container: &str) -> Vec<String> {
    let environment = engine.environment.iter().map(|(name, value)| format!("{name}={}", value.display()));
    let words = engine.prefix.iter().cloned().chain(["exec".to_owned(), container.to_owned()]);
    ["env".to_owned()].into_iter().chain(environment).chain(words).collect()
}

fn ready(place: Place) -> Result<Place> {
    until("the server answers", testkit::process::DEADLINE, || place.sample(1).ok())?;
    Ok(place)
}

/// Servers without an engine.
struct Plain {
    /// Where a user of the host asks.
    host: Namespace,
    /// The server's and the other client's, where they have namespaces of their own.
    beside: Option<[Namespace; 2]>,
    running: Child,
}

/// A network namespace with the name that ip-netns(8) gave it.
struct Namespace(String);

impl Namespace {
    fn new(name: String) -> Result<Namespace> {
        ip(&format!("netns add {name}"))?;
        let namespace = Namespace(name);
        ip(&format!("-n {} link set lo up", namespace.0))?;
        Ok(namespace)
    }

    fn file(&self) -> Result<File> {
        Ok(File::open(format!("/run/netns/{}", self.0))?)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(err) = ip(&format!("netns delete {}", self.0)) {
            eprintln!("{} is left behind: {err}", self.0);
        }
    }
}

fn ip(line: &str) -> Result<()> {
    let output = Command::new("ip").args(line.split(' ')).output().context("ip")?;
    ensure!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

impl Plain {
    /// Two namespaces on a bridge in a third one.
    fn veth(root: &Path) -> Result<Plain> {
        let mark = format!("bench{}", std::process::id());
        let host = Namespace::new(format!("{mark}h"))?;
        ip(&format!("-n {} link add br0 type bridge", host.0))?;
        ip(&format!("-n {} addr add 10.99.0.1/24 dev br0", host.0))?;
        ip(&format!("-n {} link set br0 up", host.0))?;
        let beside = |name: &str, address: u8| -> Result<Namespace> {
            let inner = Namespace::new(format!("{mark}{name}"))?;
            plug(&host, name, &inner.0, &inner.file()?, address)?;
            Ok(inner)
        };
        let (server, client) = (beside("s", 2)?, beside("c", 3)?);
        let running = serve(root, &server)?;
        Ok(Plain { host, beside: Some([server, client]), running })
    }

    /// One loopback.
    fn bare(root: &Path) -> Result<Plain> {
        let host = Namespace::new(format!("bench{}b", std::process::id()))?;
        let running = serve(root, &host)?;
        Ok(Plain { host, beside: None, running })
    }

    fn place(&self, root: &Path, way: Way) -> Result<Place> {
        let (asker, address) = match (&self.beside, way) {
            (None, _) => (&self.host, "127.0.0.1:80"),
            (Some([_, client]), Way::Link) => (client, "10.99.0.2:80"),
            (Some(_), Way::Bridge | Way::Loopback) => (&self.host, "10.99.0.2:80"),
        };
        ready(Place { asker: inside(root), netns: Some(asker.file()?), url: format!("http://{address}/{PAGE}") })
    }
}

/// Joins a namespace, which ip(8) knows as `inner`, to the plain bridge of `host`.
fn plug(host: &Namespace, name: &str, inner: &str, netns: &File, address: u8) -> Result<()> {
    ip(&format!("-n {} link add {name} type veth peer name eth0 netns {inner}", host.0))?;
    ip(&format!("-n {} link set {name} master br0 up", host.0))?;
    for line in [format!("ip addr add 10.99.0.{address}/24 dev eth0"), "ip link set eth0 up".to_owned()] {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let status = spawn(&words, Some(netns), Stdio::null())?.wait()?;
        ensure!(status.success(), "{line} in {inner}: {status}");
    }
    Ok(())
}

/// A server and who asks it, in containers of an engine that know no network but the plain bridge.
struct Contained<'a> {
    engine: &'a Engine,
    server: String,
    client: String,
}

impl<'a> Contained<'a> {
    fn new(engine: &'a Engine, scene: &str, host: &Namespace) -> Result<Contained<'a>> {
        let contained = Contained { engine, server: format!("{scene}alone"), client: format!("{scene}asking") };
        contained.start(&contained.server, &SERVER, host, 4)?;
        contained.start(&contained.client, &["sleep", "100000"], host, 5)?;
        Ok(contained)
    }

    fn start(&self, name: &str, command: &[&str], host: &Namespace, address: u8) -> Result<()> {
        let start = ["run", "-d", "--stop-signal", "KILL", "--network", "none", "--name", name, IMAGE];
        self.engine.run(&[&start[..], command].concat().iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())?;
        let pid = self.engine.told(&["inspect", "-f", "{{.State.Pid}}", name].map(str::to_owned))?;
        let pid = pid.trim();
        plug(host, &format!("port{address}"), pid, &File::open(format!("/proc/{pid}/ns/net"))?, address)
    }

    fn place(&self, host: &Namespace, root: &Path, way: Way) -> Result<Place> {
        let (asker, netns) = match way {
            Way::Link => (exec(self.engine, &self.client), None),
            Way::Bridge | Way::Loopback => (inside(root), Some(host.file()?)),
        };
        ready(Place { asker, netns, url: format!("http://10.99.0.4:80/{PAGE}") })
    }
}

impl Drop for Contained<'_> {
    fn drop(&mut self) {
        let line = ["rm", "-f", &self.server, &self.client].map(str::to_owned);
        if let Err(err) = self.engine.run(&line) {
            eprintln!("{} and {} are left behind: {err}", self.server, self.client);
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // Its worker ends with it only when it is asked to.
        let pid = rustix::process::Pid::from_child(&self.running);
        let asked = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        if let Err(err) = asked.map_err(std::io::Error::from).and_then(|()| self.running.wait().map(drop)) {
            eprintln!("the server of the bench is left behind: {err}");
        }
    }
}

fn serve(root: &Path, namespace: &Namespace) -> Result<Child> {
    let words = inside(root).into_iter().chain(SERVER.map(str::to_owned)).collect::<Vec<_>>();
    spawn(&words, Some(&namespace.file()?), Stdio::null())
}

/// What comes before the words of a program of the image.
fn inside(root: &Path) -> Vec<String> {
    vec!["chroot".to_owned(), root.display().to_string()]
}

/// The files of the archive's layers.
fn unpacked(archive: &Path) -> Result<TempDir> {
    let (image, root) = (tempfile::tempdir()?, tempfile::tempdir()?);
    untar(archive, image.path())?;
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(image.path().join("manifest.json"))?)?;
    let Some(layers) = manifest[0]["Layers"].as_array() else { bail!("{}: no docker-archive", archive.display()) };
    for layer in layers {
        untar(&image.path().join(layer.as_str().context("a layer without a name")?), root.path())?;
    }
    Ok(root)
}

fn untar(archive: &Path, into: &Path) -> Result<()> {
    let status = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(into).status()?;
    ensure!(status.success(), "tar of {}: {status}", archive.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_counted_when_all_answers_were_whole() {
        let told = "Running 1s test\n  57102 requests in 1.10s, 67.52MB read\nRequests/sec:  51909.62\n";
        assert_eq!(told_of(told), Some((57102, Duration::from_millis(1100))));
        for fault in ["  Socket errors: connect 0, read 3, write 0, timeout 0\n", "  Non-2xx or 3xx responses: 5\n"] {
            assert_eq!(told_of(&format!("{told}{fault}")), None);
        }
        assert_eq!(told_of("unable to connect"), None);
    }
}
