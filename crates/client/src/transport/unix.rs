//! Unix sockets: the only place of the portable crates that knows them.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use tokio::net::UnixStream;

use super::Stream;

/// Whether a file is a socket.
pub fn is_socket(found: &Metadata) -> bool {
    found.file_type().is_socket()
}

/// Connects to a socket file.
pub async fn connect(path: &Path) -> io::Result<Box<dyn Stream>> {
    // Said here and not by the kernel, whose "invalid argument" nobody understands (unix(7): 107 bytes and a NUL).
    SocketAddr::from_pathname(path)?;
    Ok(Box::new(UnixStream::connect(path).await?))
}
