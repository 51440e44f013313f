//! Network namespaces made ahead, each with a veth pair plugged into the default bridge; and veth pairs plugged into
//! namespaces that are there.
//!
//! Making one costs about a millisecond and changes the namespace of the thread that does it: a thread of its own does
//! it, and keeps a few ready. Nobody but this process holds them, so they go, with their veth pairs, when it goes.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlink::link::{self, VethPair};
use netlink::{NetlinkError, Protocol, Socket, address};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::bridge;
use crate::error::NetworkError;
use crate::parent::{Lent, ParentError, refused};
use crate::subnet::Subnet;
use crate::sysctl;

/// The name of a container's interface.
pub(crate) const INTERFACE: &str = "eth0";
/// How many are kept ready: enough for a burst of starts, few enough to cost nothing worth naming.
const READY: usize = 4;
/// How long a join waits for one: a machine under the heaviest load makes one in this time, or never.
const DEADLINE: Duration = Duration::from_secs(20);

/// A namespace that waits for its container.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) namespace: OwnedFd,
    /// A socket inside, so that nobody needs to go there.
    pub(crate) socket: Socket,
    /// The number of the interface inside.
    pub(crate) inner_index: u32,
    /// The other end, on the host.
    pub(crate) interface: String,
    pub(crate) interface_index: u32,
}

/// What sandboxes are made for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) bridge_index: u32,
    pub(crate) link_prefix: String,
    pub(crate) mtu: u32,
    /// Whether the bridge has addresses of IPv6. An interface is up then only with its Ethernet address, of which the link's
    /// own address is made.
    pub(crate) ipv6: bool,
    /// Whether the bridge passes a frame back through its port: a container that uses its own published port needs it
    /// where redirected packets stay on the bridge.
    pub(crate) hairpin: bool,
    /// Whether the bridge keeps its ports apart; else the packet filter does, if anything shall.
    pub(crate) isolated: bool,
}

/// The sandboxes that are ready, and the thread that makes them.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    maker: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Sandbox>,
    waiting: usize,
    failure: Option<NetworkError>,
    /// After a failure nothing is made ahead until somebody asks.
    paused: bool,
    closing: bool,
}

impl Pool {
    /// Starts the thread, in the network namespace of the caller.
    pub(crate) fn start(plan: Plan) -> Result<Pool, NetworkError> {
        let failed = |source| NetworkError::Namespace { source };
        let maker = Maker { plan, host: Socket::open(Protocol::Route)?, own: own_namespace().map_err(failed)? };
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("sandboxes".to_owned());
        let maker = thread.spawn(move || maker.run(&theirs)).map_err(failed)?;
        Ok(Pool { shared, maker: Some(maker) })
    }

    /// A sandbox that is ready, or the next one made.
    pub(crate) fn take(&self) -> Result<Sandbox, NetworkError> {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.shared.lock();
        state.paused = false;
        state.waiting += 1;
        loop {
            self.shared.changed.notify_all();
            let taken = match state.ready.pop_front() {
                Some(sandbox) => Some(Ok(sandbox)),
                None => state.failure.take().map(Err),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let gone = left.is_zero().then_some(Err(NetworkError::NoSandbox { seconds: DEADLINE.as_secs() }));
            if let Some(result) = taken.or(gone) {
                state.waiting -= 1;
                return result;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(maker) = self.maker.take() {
            // A panic there has been reported by the thread itself.
            let _ = maker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole at every moment, also when a holder of the lock panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wants_more(&self) -> bool {
        self.waiting > self.ready.len() && self.failure.is_none() || !self.paused && self.ready.len() < READY
    }
}

/// The thread's own things.
struct Maker {
    plan: Plan,
    host: Socket,
    own: File,
}

impl Maker {
    fn run(mut self, shared: &Shared) {
        let mut state = shared.lock();
        loop {
            if state.closing {
                return;
            }
            if !state.wants_more() {
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            let made = self.make();
            state = shared.lock();
            match made {
                Ok(sandbox) => state.ready.push_back(sandbox),
                Err(err) => {
                    state.paused = true;
                    // Somebody who waits says it; else the next one who asks meets it again.
                    state.failure = (state.waiting > 0).then_some(err);
                }
            }
            shared.changed.notify_all();
        }
    }

    fn make(&mut self) -> Result<Sandbox, NetworkError> {
        sys::namespace::unshare(UnshareFlags::NEWNET).map_err(|source| NetworkError::Namespace { source })?;
        let made = self.furnish();
        if move_into_link_name_space(self.own.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            // Going on would make the next namespaces' links in a container's namespace. One's own namespace is refused
            // only without memory.
            std::process::abort();
        }
        made
    }

    /// Furnishes the new namespace, in which this thread is.
    fn furnish(&mut self) -> Result<Sandbox, NetworkError> {
        let namespace = own_namespace()
            .and_then(|namespace| sys::network::loopback_up().map(|()| namespace))
            .map_err(|source| NetworkError::Namespace { source })?;
        let mut socket = Socket::open(Protocol::Route)?;
        let interface = self.create_pair(&namespace)?;
        prepare_interface(INTERFACE, self.plan.ipv6)?;
        if !self.plan.ipv6 {
            socket.apply(vec![link::set_up(INTERFACE)])?;
        }
        let inner = link::by_name(&mut socket, INTERFACE)?;
        let outer = link::by_name(&mut self.host, &interface)?;
        let (Some(inner), Some(outer)) = (inner, outer) else {
            return Err(NetworkError::Namespace { source: io::ErrorKind::NotFound.into() });
        };
        let isolate = self.plan.isolated.then(|| link::isolate_port(&interface, outer.index));
        let hairpin = self.plan.hairpin.then(|| link::hairpin_port(&interface, outer.index));
        self.host.apply(isolate.into_iter().chain(hairpin).collect())?;
        Ok(Sandbox {
            namespace: namespace.into(),
            socket,
            inner_index: inner.index,
            interface,
            interface_index: outer.index,
        })
    }

    fn create_pair(&mut self, namespace: &File) -> Result<String, NetlinkError> {
        loop {
            let name = format!("{}{}", self.plan.link_prefix, stdx::id::random_hex::<3>());
            let pair = VethPair {
                name: &name,
                master: self.plan.bridge_index,
                mtu: self.plan.mtu,
                peer_name: INTERFACE,
                peer_namespace: namespace.as_fd(),
            };
            let requests = vec![link::create_veth(&pair)];
            match self.host.apply(requests) {
                // The name of another pair: one in 16 million times their number.
                Err(err) if err.errno() == Some(rustix::io::Errno::EXIST) => continue,
                created => created?,
            }
            self.host.apply(vec![link::without_link_local(&name), link::set_up(&name)])?;
            return Ok(name);
        }
    }
}

/// A veth pair to make between a bridge and a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Plug {
    /// The end on the host.
    pub(crate) interface: String,
    /// The end in the namespace.
    pub(crate) inner: String,
    pub(crate) bridge_index: u32,
    pub(crate) mtu: u32,
    pub(crate) mac: link::Mac,
    /// With the lengths of their prefixes.
    pub(crate) addresses: Vec<Subnet>,
    /// Whether the network has IPv6: else no address of it gets on the interface, for no rule would know it.
    pub(crate) ipv6: bool,
    pub(crate) hairpin: bool,
    pub(crate) isolated: bool,
}

/// A link to make in a namespace, on top of one of the host's; or that one itself, which moves.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    /// Its name there.
    pub(crate) inner: String,
    /// The number of the link below, on the host.
    pub(crate) lower: u32,
    /// None where it is that link itself.
    pub(crate) upper: Option<link::Upper>,
    /// What that one gets back in the end.
    pub(crate) lent: Option<Lent>,
    /// None where nobody changes it.
    pub(crate) mac: Option<link::Mac>,
    /// With the lengths of their prefixes.
    pub(crate) addresses: Vec<Subnet>,
    /// Whether the network has IPv6.
    pub(crate) ipv6: bool,
}

/// A namespace of a container, and a socket inside.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) namespace: OwnedFd,
    pub(crate) socket: Socket,
}

impl Room {
    /// A new namespace, with nothing in it but the loopback interface.
    pub(crate) fn new() -> Result<Room, NetworkError> {
        let failed = |source| NetworkError::Namespace { source };
        let make = || {
            sys::namespace::unshare(UnshareFlags::NEWNET).map_err(failed)?;
            sys::network::loopback_up().map_err(failed)?;
            Ok(Room { namespace: own_namespace().map_err(failed)?.into(), socket: Socket::open(Protocol::Route)? })
        };
        // The namespace of a thread that ends is nobody's.
        on_a_thread(make)
    }

    /// That of a container that runs.
    pub(crate) fn of(namespace: BorrowedFd<'_>) -> Result<Room, NetworkError> {
        let failed = |source| NetworkError::Namespace { source };
        let kept = namespace.try_clone_to_owned().map_err(failed)?;
        let socket = inside(namespace, || Ok(Socket::open(Protocol::Route)?))?;
        Ok(Room { namespace: kept, socket })
    }

    /// Makes settings of an interface that is there.
    pub(crate) fn tune(&self, interface: &str, sysctls: &[String]) -> Result<(), NetworkError> {
        if sysctls.is_empty() {
            return Ok(());
        }
        inside(self.namespace.as_fd(), || Ok(sysctl::apply(interface, sysctls)?))
    }

    /// Makes the pair; answers the number of the end on the host. What fails half-way is the caller's to remove.
    pub(crate) fn plug(&mut self, host: &mut Socket, plug: &Plug) -> Result<u32, NetworkError> {
        let gone = || NetworkError::Namespace { source: io::ErrorKind::NotFound.into() };
        let pair = VethPair {
            name: &plug.interface,
            master: plug.bridge_index,
            mtu: plug.mtu,
            peer_name: &plug.inner,
            peer_namespace: self.namespace.as_fd(),
        };
        host.apply(vec![link::create_veth(&pair)])?;
        inside(self.namespace.as_fd(), || prepare_interface(&plug.inner, plug.ipv6))?;
        let inner = link::by_name(&mut self.socket, &plug.inner)?.ok_or_else(gone)?;
        let address = |one: &Subnet| address::Address { index: inner.index, address: one.address, prefix: one.prefix };
        // The address of the link, which IPv6 has besides, is made of the Ethernet address when the link comes up.
        let mut requests = vec![link::set_mac(inner.index, plug.mac), link::set_up(&plug.inner)];
        requests.extend(plug.addresses.iter().map(|one| address::add(address(one))));
        // Last: the kernel announces the addresses when it changes.
        requests.push(link::set_mac(inner.index, plug.mac));
        self.socket.apply(requests)?;
        host.apply(vec![link::without_link_local(&plug.interface), link::set_up(&plug.interface)])?;
        let outer = link::by_name(host, &plug.interface)?.ok_or_else(gone)?;
        let isolate = plug.isolated.then(|| link::isolate_port(&plug.interface, outer.index));
        let hairpin = plug.hairpin.then(|| link::hairpin_port(&plug.interface, outer.index));
        host.apply(isolate.into_iter().chain(hairpin).collect())?;
        Ok(outer.index)
    }

    /// Makes a link on top of one of the host's, or moves that one; answers its number in the namespace. On an error there is
    /// none, and the host's is as it was.
    pub(crate) fn stack(&mut self, host: &mut Socket, stack: &Stack) -> Result<u32, NetworkError> {
        let upper = match (stack.upper, &stack.lent) {
            (Some(upper), _) => upper,
            (None, Some(lent)) => return self.take_in(host, stack, lent),
            (None, None) => return Err(ParentError::NoParent.into()),
        };
        let create = link::create_upper(&stack.inner, stack.lower, self.namespace.as_fd(), upper);
        let port = |source| ParentError::Port { driver: upper.kind(), source };
        host.apply(vec![create]).map_err(|err| refused(err, port))?;
        let furnished = self.furnish_upper(stack);
        if furnished.is_err()
            && let Err(err) = self.socket.apply(vec![link::delete(&stack.inner)])
        {
            // It goes with the namespace.
            tracing::warn!(%err, "a link that could not be set up stays in its container");
        }
        furnished
    }

    fn take_in(&mut self, host: &mut Socket, stack: &Stack, lent: &Lent) -> Result<u32, NetworkError> {
        let home = own_namespace().map_err(|source| NetworkError::Namespace { source })?;
        let failed = |source| ParentError::Move { parent: lent.name.clone(), source };
        let send = link::send(stack.lower, self.namespace.as_fd(), &stack.inner);
        host.apply(vec![send]).map_err(|err| refused(err, failed))?;
        let furnished = self.furnish_upper(stack);
        if furnished.is_err()
            && let Some(found) = link::by_name(&mut self.socket, &stack.inner)?
        {
            self.socket.apply(vec![link::send(found.index, home.as_fd(), &lent.name)])?;
            lent.restore(host)?;
        }
        furnished
    }

    fn furnish_upper(&mut self, stack: &Stack) -> Result<u32, NetworkError> {
        let gone = || NetworkError::Namespace { source: io::ErrorKind::NotFound.into() };
        inside(self.namespace.as_fd(), || prepare_interface(&stack.inner, stack.ipv6))?;
        let index = link::by_name(&mut self.socket, &stack.inner)?.ok_or_else(gone)?.index;
        if let Some(mac) = stack.mac {
            let taken = |source| ParentError::Mac { interface: stack.inner.clone(), mac: link::text(mac), source };
            self.socket.apply(vec![link::set_mac(index, mac)]).map_err(|err| refused(err, taken))?;
        }
        let add = |one: &Subnet| address::add(address::Address { index, address: one.address, prefix: one.prefix });
        // Those of IPv6 get their routes only on a link that is up.
        let (ipv4, ipv6): (Vec<_>, Vec<_>) = stack.addresses.iter().partition(|one| one.address.is_ipv4());
        // The kernel announces an address when a link comes up, or when its Ethernet address is set.
        let requests = ipv4.into_iter().map(add).chain([link::set_up(&stack.inner)]);
        let requests = requests.chain(ipv6.into_iter().map(add));
        let announce = stack.mac.map(|mac| link::set_mac(index, mac));
        self.socket.apply(requests.chain(announce).collect())?;
        Ok(index)
    }
}

/// Settings of an interface of the namespace that the calling thread is in.
fn prepare_interface(name: &str, ipv6: bool) -> Result<(), NetworkError> {
    // Whoever knows the address's last owner is told of the new one.
    bridge::set(&format!("/proc/sys/net/ipv4/conf/{name}/arp_notify"))?;
    let disable = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    if ipv6 {
        bridge::set(&format!("/proc/sys/net/ipv6/conf/{name}/ndisc_notify"))?;
        return bridge::write(&disable, "0");
    }
    if let Err(err) = bridge::set(&disable) {
        // A kernel without IPv6 has no such setting.
        tracing::debug!(%err, "IPv6 cannot be switched off");
    }
    Ok(())
}

/// Runs `work` on a thread in this namespace.
fn inside<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    on_a_thread(|| {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
            .map_err(|errno| NetworkError::Namespace { source: errno.into() })?;
        work()
    })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T, NetworkError> + Send) -> Result<T, NetworkError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, work);
        let thread = thread.map_err(|source| NetworkError::Namespace { source })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(crate) fn own_namespace() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}
