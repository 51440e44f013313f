//! What is known of a relay that does not answer. The relay is a thread here, behind somebody who passes on what it is asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// Starts a relay, and passes on all but removals: whoever asks for one gets no sensible answer.
fn start(dir: &Path, daemon: OwnedFd) -> io::Result<()> {
    let ((ours, theirs), dir) = (pair(), dir.to_owned());
    std::thread::spawn(move || relay::run(&dir, Some(theirs), std::time::Duration::ZERO).unwrap());
    std::thread::spawn(move || {
        let (mut bytes, mut fds) = (vec![0; 1 << 18], Vec::new());
        while let Ok(length @ 1..) = sys::socket::receive(daemon.as_fd(), &mut bytes, &mut fds) {
            if bytes[..length].starts_with(b"{\"Remove\"") {
                sys::socket::send(daemon.as_fd(), b"what?", &[]).unwrap();
                continue;
            }
            let passed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            sys::socket::send(ours.as_fd(), &bytes[..length], &passed).unwrap();
            fds.clear();
            let length = sys::socket::receive(ours.as_fd(), &mut bytes, &mut Vec::new()).unwrap();
            sys::socket::send(daemon.as_fd(), &bytes[..length], &[]).unwrap();
        }
    });
    Ok(())
}

fn listen() -> (Published, OwnedFd) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (host_address, host_port) = (IpAddr::from(Ipv4Addr::LOCALHOST), socket.local_addr().unwrap().port());
    (Published { protocol: Protocol::Tcp, container_port: 80, host_address, host_port }, socket.into())
}

fn duty(published: &Published, target: SocketAddr) -> Duty {
    Duty { span: Span::of(published), target }
}

fn withdraw(relays: &mut Relays, published: &Published) -> Result<(), AskError> {
    relays.expect_no_longer(std::slice::from_ref(published))?;
    relays.remove(&[Span::of(published)])
}

#[test]
fn what_could_not_be_removed_goes_as_soon_as_the_relay_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut relays = Relays::new(dir.path().to_owned()).unwrap();
    relays.start_by(Box::new(start));
    let ports = [(); 3].map(|()| listen());
    let target = (Ipv4Addr::new(10, 0, 0, 2), 80).into();
    for (published, socket) in &ports[..2] {
        relays.put(&duty(published, target), Some(socket.as_fd())).unwrap();
    }
    let [first, second, third] = ports.each_ref().map(|(published, _)| published);
    assert!(!relays.is_unsettled() && withdraw(&mut relays, first).is_err());
    assert!(relays.is_unsettled() && withdraw(&mut relays, first).is_ok(), "nobody expects it any more");
    assert!(relays.expected().has(second) && !relays.expected().has(first));
    // What is put meanwhile stays, and so does what nobody has spoken of.
    relays.put(&duty(third, target), Some(ports[2].1.as_fd())).unwrap();
    let ids = |rules: Vec<Rule>| rules.into_iter().map(|rule| rule.id).collect::<BTreeSet<_>>();
    assert_eq!(
        ids(relays.begin_to_settle().unwrap()),
        [first, second, third].map(|published| Span::of(published).id()).into()
    );
    relays.end_unexpected().unwrap();
    assert!(!relays.is_unsettled());
    assert_eq!(ids(relays.list().unwrap()), [second, third].map(|published| Span::of(published).id()).into());
    for published in [second, third] {
        withdraw(&mut relays, published).unwrap();
    }
    assert!(!relays.is_unsettled() && Client::find(dir.path()).unwrap().is_none());
}

#[test]
fn at_the_start_everything_else_that_is_served_ends() {
    let dir = tempfile::tempdir().unwrap();
    let target = (Ipv4Addr::new(10, 0, 0, 2), 80).into();
    let ports = [(); 2].map(|()| listen());
    let mut relays = Relays::new(dir.path().to_owned()).unwrap();
    relays.start_by(Box::new(start));
    for (published, socket) in &ports {
        relays.put(&duty(published, target), Some(socket.as_fd())).unwrap();
    }
    // The next daemon, whose first questions are not answered.
    let mut relays = Relays::new(dir.path().to_owned()).unwrap();
    relays.expect([&ports[0].0]);
    assert!(relays.is_unsettled() && withdraw(&mut relays, &ports[1].0).is_ok());
    assert_eq!(relays.begin_to_settle().unwrap().len(), 2);
    relays.end_unexpected().unwrap();
    assert_eq!(relays.list().unwrap(), [duty(&ports[0].0, target).rule()]);
    withdraw(&mut relays, &ports[0].0).unwrap();
}

#[test]
fn what_nobody_serves_after_a_relays_end_is_due_until_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let target = (Ipv4Addr::new(10, 0, 0, 2), 80).into();
    let (published, socket) = listen();
    let mut relays = Relays::new(dir.path().to_owned()).unwrap();
    relays.start_by(Box::new(start));
    assert!(!relays.forget_ended().unwrap(), "there has been none");
    let (client, theirs) = Client::pair().unwrap();
    relays.client = Some(relays.watched(client).unwrap());
    relays.expected.ports().insert(port(&published));
    drop(theirs);
    assert!(relays.forget_ended().unwrap() && relays.is_unsettled());
    assert!(!relays.forget_ended().unwrap(), "once");
    // No process is to be had.
    relays.start_by(Box::new(|_, _| Err(io::ErrorKind::WouldBlock.into())));
    assert!(relays.begin_to_settle().unwrap().is_empty() && !relays.is_unsettled());
    relays.put(&duty(&published, target), Some(socket.as_fd())).unwrap_err();
    assert!(relays.is_unsettled());
    // A container that is between two states, so that nobody asks for its port.
    relays.begin_to_settle().unwrap();
    relays.end_unexpected().unwrap();
    assert!(relays.is_unsettled());
    relays.start_by(Box::new(|dir, daemon| {
        let dir = dir.to_owned();
        std::thread::spawn(move || relay::run(&dir, Some(daemon), std::time::Duration::ZERO).unwrap());
        Ok(())
    }));
    relays.begin_to_settle().unwrap();
    relays.put(&duty(&published, target), Some(socket.as_fd())).unwrap();
    relays.end_unexpected().unwrap();
    assert!(!relays.is_unsettled());
    relays.give_up(&Span::of(&published));
    relays.end_unexpected().unwrap();
}

#[test]
fn of_many_of_which_one_is_refused_nothing_stays_that_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let target = (Ipv4Addr::new(10, 0, 0, 2), 80).into();
    let mut relays = Relays::new(dir.path().to_owned()).unwrap();
    relays.start_by(Box::new(|dir, daemon| {
        let dir = dir.to_owned();
        std::thread::spawn(move || relay::run(&dir, Some(daemon), std::time::Duration::ZERO).unwrap());
        Ok(())
    }));
    let (kept, socket) = listen();
    relays.put(&duty(&kept, target), Some(socket.as_fd())).unwrap();
    // In three messages, of which the first has one that is refused: epoll(7) watches no regular file.
    let mut ports: Vec<_> = (0..2 * relay::RULES_AT_ONCE + 1).map(|_| listen()).collect();
    ports[3].1 = tempfile::tempfile().unwrap().into();
    let rules: Vec<_> = ports.iter().map(|(published, socket)| (duty(published, target), socket.as_fd())).collect();
    assert!(matches!(relays.put_all(&rules), Err(AskError::Refused(_))));
    ports.iter().for_each(|(published, _)| withdraw(&mut relays, published).unwrap());
    assert_eq!(relays.list().unwrap(), [duty(&kept, target).rule()]);
    withdraw(&mut relays, &kept).unwrap();
}
