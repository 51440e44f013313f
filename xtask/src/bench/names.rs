//! Names of containers, asked at a steady rate by several of them at once.
//!
//! A sample is the time within which 99 of 100 questions were answered. Questions leave at the moments that the rate gives,
//! whether those before were answered or not: who is slow once makes all that wait behind it slow.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::engine::Sample;

/// Questions of one sample: their numbers are their ids, which have 16 bits.
const QUESTIONS: usize = 10_000;
const PER_SECOND: u32 = 5_000;
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// One that is not answered by then is lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// `runs` samples of `names`, asked from within the networks of the processes `askers`.
pub(super) fn samples(askers: &[i32], names: &[String], runs: usize) -> Result<Vec<Sample>> {
    let sockets = askers.iter().map(|pid| open(*pid)).collect::<Result<Vec<_>>>()?;
    let queries: Vec<Vec<u8>> = names.iter().map(|name| query(name)).collect();
    (0..runs).map(|_| sample(&sockets, &queries)).collect()
}

/// A socket in the network of a process.
fn open(pid: i32) -> Result<UdpSocket> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let inside = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(SERVER)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        anyhow::Ok(socket)
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).expect("nothing there panics")
}

fn query(name: &str) -> Vec<u8> {
    let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("names of containers are short"));
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn sample(sockets: &[UdpSocket], queries: &[Vec<u8>]) -> Result<Sample> {
    let begin = Instant::now();
    let sent: Vec<AtomicU64> = (0..QUESTIONS).map(|_| AtomicU64::new(0)).collect();
    let sent = &sent;
    let mut waits = std::thread::scope(|scope| {
        let share = |at: usize| (at..QUESTIONS).step_by(sockets.len()).count();
        let receivers: Vec<_> = sockets
            .iter()
            .enumerate()
            .map(|(at, socket)| scope.spawn(move || receive(socket, share(at), begin, sent)))
            .collect();
        for (number, moment) in sent.iter().enumerate() {
            let due = Duration::from_secs(1) / PER_SECOND * u32::try_from(number)?;
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
            let mut query = queries[number % queries.len()].clone();
            query[..2].copy_from_slice(&u16::try_from(number)?.to_be_bytes());
            moment.store(nanos(begin.elapsed()), Ordering::Relaxed);
            sockets[number % sockets.len()].send(&query)?;
        }
        let mut waits = Vec::with_capacity(QUESTIONS);
        for receiver in receivers {
            waits.extend(receiver.join().expect("nothing there panics")?);
        }
        anyhow::Ok(waits)
    })?;
    waits.sort_unstable();
    Ok(Sample { wall: Duration::from_nanos(waits[QUESTIONS * 99 / 100]), cpu: Duration::ZERO })
}

/// How long each of `count` answers took, in nanoseconds.
fn receive(socket: &UdpSocket, count: usize, begin: Instant, sent: &[AtomicU64]) -> Result<Vec<u64>> {
    let mut buffer = [0; 512];
    let mut waits = Vec::with_capacity(count);
    while waits.len() < count {
        let length = socket.recv(&mut buffer).context("a question was not answered")?;
        let answer = &buffer[..length];
        ensure!(length > 12 && answer[3] & 15 == 0 && answer[7] == 1, "a name was not found");
        let number = usize::from(u16::from_be_bytes([answer[0], answer[1]]));
        let asked = sent.get(number).context("an answer to nobody")?.load(Ordering::Relaxed);
        waits.push(nanos(begin.elapsed()).saturating_sub(asked));
    }
    Ok(waits)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
