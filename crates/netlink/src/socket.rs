//! The socket: batches out, one acknowledgement back.

use std::borrow::Cow;
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use crate::error::{NetlinkError, Refusal};
use crate::message::{self, Answer, DONE, DUMP, ERROR, Message};

/// The largest part of a dump that the kernel sends at once: it looks at the buffer of the last `recvmsg`.
const BUFFER: usize = 32 << 10;
/// How long a transaction of nf_tables may be, in bytes: it is one message, and thousands of elements may be in it. Nothing is
/// taken of the memory before it is needed.
const SEND_BUFFER: usize = 64 << 20;
/// The number in an error's flags that says that attributes follow (NLM_F_ACK_TLVS), and the one of the text among them.
const ERROR_HAS_ATTRIBUTES: u16 = 0x200;
const ERROR_TEXT: u16 = 1;

/// NLM_F_DUMP_INTR: somebody changed something while it was listed.
const INTERRUPTED: u16 = 0x10;
/// How often a list is asked for that others keep changing: most are one datagram, and cannot be interrupted.
const ATTEMPTS: usize = 32;

thread_local! {
    static REQUESTS_SENT: Cell<u64> = const { Cell::new(0) };
}

/// How many times the calling thread sent something over netlink: what tests bound the cost of an operation by.
pub fn requests_sent() -> u64 {
    REQUESTS_SENT.get()
}

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nf_tables and connection tracking.
    Netfilter,
    /// What sockets there are (sock_diag(7)).
    Diagnosis,
}

/// One thing asked of the kernel, with the words that an error about it begins with.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked, with the object's name: "create bridge ls0".
    pub what: Cow<'static, str>,
    /// The message.
    pub message: Message,
}

/// A netlink socket. It belongs to the network namespace that its opener was in, wherever it is used from.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Socket, NetlinkError> {
        let protocol = match protocol {
            // NETLINK_ROUTE is 0, which is what `None` becomes.
            Protocol::Route => None,
            Protocol::Netfilter => Some(NETFILTER),
            Protocol::Diagnosis => Some(SOCK_DIAG),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(NetlinkError::socket)?;
        sys::network::netlink_options(fd.as_fd()).map_err(|source| NetlinkError::Socket { source })?;
        if protocol == Some(NETFILTER) {
            // Root of a user namespace of its own may not, and has what the machine gives everybody.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&fd, SEND_BUFFER);
        }
        Ok(Socket { fd, sequence: 0 })
    }

    /// A socket that the kernel tells of changes which others make, and not those of the socket with the number `but`.
    pub(crate) fn subscribe(groups: u32, but: u32) -> Result<Socket, NetlinkError> {
        let socket = Socket::open(Protocol::Netfilter)?;
        // Before it hears anything.
        sys::network::ignore_sender(socket.fd.as_fd(), but).map_err(|source| NetlinkError::Socket { source })?;
        rustix::net::bind(&socket.fd, &SocketAddrNetlink::new(0, groups)).map_err(NetlinkError::socket)?;
        Ok(socket)
    }

    /// Reads one datagram of what the kernel tells by itself; EAGAIN where there is none.
    pub(crate) fn told(&mut self, each: impl FnMut(Answer<'_>)) -> Result<(), Errno> {
        let mut buffer = vec![0; BUFFER];
        let length = loop {
            match recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                received => break received?.1,
            }
        };
        // What is cut off is a change of somebody's all the same, and the part that is there says whose.
        let bytes = &buffer[..length.min(buffer.len())];
        message::answers(bytes).map_while(|answer| answer).for_each(each);
        Ok(())
    }

    /// The number by which the kernel knows this socket; what it changes is told to others with it.
    pub fn port(&mut self) -> Result<u32, NetlinkError> {
        let known = |fd: &OwnedFd| {
            let address = rustix::net::getsockname(fd).map_err(NetlinkError::socket)?;
            SocketAddrNetlink::try_from(address).map(|address| address.pid()).map_err(NetlinkError::socket)
        };
        match known(&self.fd)? {
            0 => rustix::net::bind(&self.fd, &SocketAddrNetlink::new(0, 0)).map_err(NetlinkError::socket)?,
            port => return Ok(port),
        }
        known(&self.fd)
    }

    /// Sends all requests at once and answers the first that the kernel refused.
    ///
    /// The kernel takes them in order and goes on after a refusal: the others have happened.
    pub fn apply(&mut self, requests: Vec<Request>) -> Result<(), NetlinkError> {
        if requests.is_empty() {
            return Ok(());
        }
        let first = self.sequence.wrapping_add(1);
        let (last, mut what) = self.send(requests, 0)?;
        let mut refused = None;
        self.receive(first, |answer| {
            if let Some(refusal) = refusal(answer) {
                refused.get_or_insert((answer.sequence.wrapping_sub(first), refusal));
            }
            answer.sequence == last
        })?;
        match refused {
            None => Ok(()),
            Some((number, source)) => {
                let index = (number as usize).min(what.len() - 1);
                Err(NetlinkError::Refused { request: what.swap_remove(index).into_owned(), source })
            }
        }
    }

    /// Asks for all objects of a kind, each of which `parse` makes something of: as they were at one moment. Asks again where others
    /// change them meanwhile, and is refused where they never stop.
    pub fn list<T, I: IntoIterator<Item = T>>(
        &mut self,
        request: Request,
        mut parse: impl FnMut(Answer<'_>) -> I,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..ATTEMPTS {
            let (mut found, mut interrupted) = (Vec::new(), false);
            self.ask(request.clone(), |answer| {
                interrupted |= answer.flags & INTERRUPTED != 0;
                found.extend(parse(answer));
            })?;
            if !interrupted {
                return Ok(found);
            }
        }
        Err(NetlinkError::Interrupted { request: request.what.into_owned() })
    }

    /// Asks for something and hands each answer to `each`. A request without the dump flag has one, and the end of a list has none
    /// but its flags.
    pub(crate) fn ask(&mut self, request: Request, mut each: impl FnMut(Answer<'_>)) -> Result<(), NetlinkError> {
        let what = request.what.clone();
        self.send(vec![request], 0)?;
        let mut refused = None;
        let number = self.sequence;
        self.receive(number, |answer| {
            match answer.kind {
                ERROR => refused = refusal(answer),
                // A list that ends early says why there.
                DONE => {
                    refused = refusal(answer);
                    each(Answer { body: &[], ..answer });
                }
                _ => each(answer),
            }
            matches!(answer.kind, ERROR | DONE)
        })?;
        match refused {
            None => Ok(()),
            Some(source) => Err(NetlinkError::Refused { request: what.into_owned(), source }),
        }
    }

    /// Sends an nf_tables transaction, already framed: whole or not at all. `what` names it in an error.
    pub(crate) fn transact(&mut self, requests: Vec<Request>) -> Result<(), NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        // The frame's end gets no acknowledgement on older kernels: the last message inside it does.
        let (acknowledged, mut what) = self.send(requests, 1)?;
        let mut refused = None;
        self.receive(first, |answer| {
            let reason = refusal(answer);
            // A refusal of the frame's begin is one of the whole transaction; nothing need follow it.
            let whole = answer.sequence == first && reason.is_some();
            if let Some(reason) = reason {
                refused.get_or_insert((answer.sequence.wrapping_sub(first), reason));
            }
            answer.sequence == acknowledged || whole
        })?;
        let Some((number, source)) = refused else { return Ok(()) };
        self.drain();
        let index = (number as usize).min(what.len() - 1);
        Err(NetlinkError::Refused { request: what.swap_remove(index).into_owned(), source })
    }

    /// Sends the requests in one piece, and wishes an acknowledgement of the last but `after`; answers that one's
    /// sequence number and what they are.
    fn send(&mut self, requests: Vec<Request>, after: usize) -> Result<(u32, Vec<Cow<'static, str>>), NetlinkError> {
        let mut bytes = Vec::with_capacity(requests.len() * 128);
        let mut what = Vec::with_capacity(requests.len());
        let acknowledged = requests.len() - 1 - after;
        for (number, mut request) in requests.into_iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            // A dump ends by itself.
            let acknowledge = number == acknowledged && request.message.flags() & DUMP != DUMP;
            bytes.extend_from_slice(request.message.finished(self.sequence, acknowledge));
            what.push(request.what);
        }
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::io::retry_on_intr(|| sendto(&self.fd, &bytes, SendFlags::empty(), &kernel))
            .map_err(NetlinkError::socket)?;
        REQUESTS_SENT.set(REQUESTS_SENT.get() + 1);
        Ok((self.sequence.wrapping_sub(after as u32), what))
    }

    /// Reads answers to the requests from the number `first` on until `last` says that it was the last. After an error the rest is
    /// thrown away: the kernel begins no list before the one that it has begun was read.
    fn receive(&mut self, first: u32, last: impl FnMut(Answer<'_>) -> bool) -> Result<(), NetlinkError> {
        self.receive_all(first, last).inspect_err(|_| self.drain())
    }

    fn receive_all(&self, first: u32, mut last: impl FnMut(Answer<'_>) -> bool) -> Result<(), NetlinkError> {
        let mut buffer = vec![0; BUFFER];
        let asked = self.sequence.wrapping_sub(first);
        loop {
            let (_, length) = rustix::io::retry_on_intr(|| recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC))
                .map_err(NetlinkError::socket)?;
            let cut = || NetlinkError::Malformed { request: "read an answer over netlink".to_owned() };
            let bytes = buffer.get(..length).ok_or_else(cut)?;
            for answer in message::answers(bytes) {
                let answer = answer.ok_or_else(cut)?;
                // What is left of something else that was asked answers nothing of this.
                let is_ours = answer.sequence.wrapping_sub(first) <= asked;
                if is_ours && last(answer) {
                    return Ok(());
                }
            }
        }
    }

    /// Throws away what is left of answers.
    fn drain(&self) {
        let mut buffer = vec![0; BUFFER];
        // EAGAIN is the end that we want; any other error shows again at the next use of the socket.
        while recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) != Err(Errno::AGAIN) {}
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The refusal in an answer; `None` for an acknowledgement, and for an answer of another type.
fn refusal(answer: Answer<'_>) -> Option<Refusal> {
    if !matches!(answer.kind, ERROR | DONE) {
        return None;
    }
    let number = message::word(answer.body, 0)?.cast_signed();
    if number >= 0 {
        return None;
    }
    // With NETLINK_CAP_ACK, which is set, only the header of the request is repeated before the attributes.
    let attributes = answer.body.get(4 + message::HEADER..).filter(|_| answer.flags & ERROR_HAS_ATTRIBUTES != 0);
    let text = attributes.and_then(|bytes| message::attribute(bytes, ERROR_TEXT)).map(message::text);
    Some(Refusal { errno: Errno::from_raw_os_error(-number), text: text.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address, link};

    #[test]
    fn what_is_left_of_an_earlier_question_answers_no_other_one() {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let links = link::list(&mut socket, None).unwrap();
        assert!(!links.is_empty());
        for _ in 0..3 {
            // An answer and an acknowledgement each, which nobody reads.
            socket.send(vec![link::look_up("lo")], 0).unwrap();
        }
        let names = |links: Vec<link::Link>| links.into_iter().map(|link| link.name).collect::<Vec<_>>();
        assert_eq!(names(link::list(&mut socket, None).unwrap()), names(links));
        socket.send(vec![link::look_up("lo")], 0).unwrap();
        let refused = socket.apply(vec![link::delete("nobody-has-it")]).unwrap_err();
        assert!(matches!(refused, NetlinkError::Refused { .. }), "{refused:?}");
        address::list(&mut socket).unwrap();
    }

    #[test]
    fn the_end_of_a_list_may_be_a_refusal() {
        let end = |number: i32| number.to_ne_bytes();
        let refused = |kind, body: &[u8]| refusal(Answer { kind, flags: 0, sequence: 1, body }).map(|one| one.errno);
        assert_eq!(refused(DONE, &end(0)), None);
        assert_eq!(refused(DONE, &end(-Errno::NOMEM.raw_os_error())), Some(Errno::NOMEM));
        assert_eq!(refused(ERROR, &end(0)), None);
    }
}
