//! Names of streams: a checkpoint says by them which pipes are whose.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use logging::Stream;

use super::Streams;

/// What the kernel calls standard input, output and error, by our ends; `None` where there is no pipe of ours.
pub(crate) fn names(streams: &Streams) -> [Option<String>; 3] {
    let name = |fd: BorrowedFd<'_>| {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        Some(link.to_string_lossy().into_owned()).filter(|name| name.starts_with("pipe:"))
    };
    let output = |stream| streams.outputs.iter().find(|output| output.stream == stream);
    let of_output = |stream| output(stream).and_then(|output| name(output.fd.as_fd()));
    [streams.input.fd().and_then(name), of_output(Stream::Stdout), of_output(Stream::Stderr)]
}
