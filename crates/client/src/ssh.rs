//! Daemons behind ssh: `ssh HOST docker system dial-stdio` is the connection, one process each, as Docker's client does it.
//!
//! The command at the other end is called `docker`, which both Docker and we have there: its standard streams are the
//! daemon's connection. What ssh says on standard error is told when it ends before the daemon has said anything.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::str::FromStr;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::transport::Stream;

/// How much of ssh's standard error is told.
const COMPLAINT_MAX_BYTES: u64 = 4096;

/// A host, as `ssh://[user@]host[:port][/socket]` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshHost {
    /// Who we are there; ssh decides if empty.
    pub user: String,
    /// Its name, which may be one of ssh's configuration.
    pub host: String,
    /// Its port; ssh decides if empty.
    pub port: String,
    /// The daemon's socket there; the default one if empty.
    pub path: String,
}

/// Why a text is no [`SshHost`]. The words are those of Docker's client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshError {
    /// It holds a password.
    #[error("ssh host connection is not valid: invalid SSH URL: plain-text password is not supported")]
    Password,
    /// It names no host.
    #[error("ssh host connection is not valid: invalid SSH URL: hostname is empty")]
    NoHost,
    /// Something follows a question mark.
    #[error("ssh host connection is not valid: invalid SSH URL: query parameters are not allowed: {0:?}")]
    Query(String),
    /// Something follows a hash sign.
    #[error("ssh host connection is not valid: invalid SSH URL: fragments are not allowed: {0:?}")]
    Fragment(String),
    /// The port is no number.
    #[error("ssh host connection is not valid: invalid port {0:?} after host")]
    Port(String),
}

impl FromStr for SshHost {
    type Err = SshError;

    /// Reads what follows `ssh://`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((_, fragment)) = text.split_once('#') {
            return Err(SshError::Fragment(fragment.to_owned()));
        }
        if let Some((_, query)) = text.split_once('?') {
            return Err(SshError::Query(query.to_owned()));
        }
        let (authority, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return Err(SshError::Password);
        }
        // The colons of an IPv6 address are in brackets.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (place, ""),
        };
        if !port.chars().all(|digit| digit.is_ascii_digit()) {
            return Err(SshError::Port(format!(":{port}")));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(SshError::NoHost);
        }
        let [user, host, port, path] = [user, host, port, path].map(str::to_owned);
        Ok(SshHost { user, host, port, path })
    }
}

impl std::fmt::Display for SshHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ssh://")?;
        if !self.user.is_empty() {
            write!(f, "{}@", self.user)?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?
        } else {
            f.write_str(&self.host)?
        }
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

impl SshHost {
    /// What ssh is called with; `ask` if it may ask the user for something by a program of his.
    fn arguments(&self, ask: bool) -> Vec<String> {
        let mut arguments = vec!["-o", "ConnectTimeout=30", "-T"];
        if !ask {
            // It is no part of the terminal's foreground: a question there would stop it for ever.
            arguments.extend(["-o", "BatchMode=yes"]);
        }
        for (flag, value) in [("-l", &self.user), ("-p", &self.port)] {
            if !value.is_empty() {
                arguments.extend([flag, value]);
            }
        }
        arguments.extend(["--", &self.host, "docker"]);
        let socket = format!("unix://{}", self.path);
        if !matches!(self.path.as_str(), "" | "/") {
            arguments.extend(["--host", &socket]);
        }
        arguments.extend(["system", "dial-stdio"]);
        arguments.into_iter().map(str::to_owned).collect()
    }

    /// Starts ssh.
    pub(crate) fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let ask = std::env::var_os("SSH_ASKPASS").is_some_and(|program| !program.is_empty());
        let arguments = self.arguments(ask);
        let mut command = Command::new("ssh");
        command.args(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("SSH_ASKPASS_REQUIRE", "force").kill_on_drop(true);
        // Ctrl-C is for the container, not for the connection to it.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(|err| match err.kind() {
            io::ErrorKind::NotFound => io::Error::other("exec: \"ssh\": executable file not found in $PATH"),
            _ => err,
        })?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("a child without pipes"));
        };
        let waiting = Waiting { child, stderr, line: format!("ssh {}", arguments.join(" ")) };
        Ok(Box::new(Dialed { stdin: Some(stdin), stdout, answered: false, waiting: Some(waiting), verdict: None }))
    }
}

/// A connection made of ssh's streams.
struct Dialed {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// Whether anything has come.
    answered: bool,
    waiting: Option<Waiting>,
    /// Finds out why ssh has ended.
    verdict: Option<Pin<Box<dyn Future<Output = io::Error> + Send>>>,
}

/// What is left of ssh when it has ended.
struct Waiting {
    child: Child,
    stderr: ChildStderr,
    line: String,
}

impl Waiting {
    /// The sentence of Docker's client.
    async fn verdict(mut self) -> io::Error {
        let mut complaint = Vec::new();
        // Whatever could be read is told.
        let _ = (&mut self.stderr).take(COMPLAINT_MAX_BYTES).read_to_end(&mut complaint).await;
        let status = match self.child.wait().await {
            Ok(status) => status.to_string().replace("exit status: ", "exit status "),
            Err(err) => err.to_string(),
        };
        io::Error::other(format!(
            "command [{}] has exited with {status}, make sure the URL is valid, and Docker 18.09 or later is installed on the remote host: stderr={}",
            self.line,
            String::from_utf8_lossy(&complaint)
        ))
    }
}

impl AsyncRead for Dialed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(verdict) = &mut this.verdict {
            return verdict.as_mut().poll(cx).map(Err);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stdout).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            this.answered = true;
        } else if !this.answered
            && let Some(waiting) = this.waiting.take()
        {
            this.stdin = None;
            let verdict = this.verdict.insert(Box::pin(waiting.verdict()));
            return verdict.as_mut().poll(cx).map(Err);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Dialed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            // That it has ended is told, with its reason, to whoever reads the answer.
            Some(stdin) => match ready!(Pin::new(stdin).poll_write(cx, bytes)) {
                Err(err) if err.kind() == io::ErrorKind::BrokenPipe && !self.answered => Poll::Ready(Ok(bytes.len())),
                written => Poll::Ready(written),
            },
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stdin) = &mut self.stdin else { return Poll::Ready(Ok(())) };
        let done = ready!(Pin::new(stdin).poll_shutdown(cx));
        // The pipe ends when it is closed.
        self.stdin = None;
        Poll::Ready(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_and_become_command_lines() {
        for (text, wanted) in [
            ("a", "-o ConnectTimeout=30 -T -o BatchMode=yes -- a docker system dial-stdio"),
            ("me@a:22", "-o ConnectTimeout=30 -T -o BatchMode=yes -l me -p 22 -- a docker system dial-stdio"),
            (
                "a/run/x.sock",
                "-o ConnectTimeout=30 -T -o BatchMode=yes -- a docker --host unix:///run/x.sock system dial-stdio",
            ),
            ("[::1]:7", "-o ConnectTimeout=30 -T -o BatchMode=yes -p 7 -- ::1 docker system dial-stdio"),
        ] {
            let host: SshHost = text.parse().unwrap();
            assert_eq!(host.arguments(false).join(" "), wanted);
            assert_eq!(host.to_string(), format!("ssh://{text}"));
        }
        let host: SshHost = "a".parse().unwrap();
        assert_eq!(host.arguments(true).join(" "), "-o ConnectTimeout=30 -T -- a docker system dial-stdio");
        for (text, wanted) in [
            ("me:secret@a", "plain-text password is not supported"),
            ("", "hostname is empty"),
            ("me@:22", "hostname is empty"),
            ("a?b", "query parameters are not allowed: \"b\""),
            ("a#b", "fragments are not allowed: \"b\""),
        ] {
            let refused = text.parse::<SshHost>().unwrap_err().to_string();
            assert_eq!(refused, format!("ssh host connection is not valid: invalid SSH URL: {wanted}"));
        }
        assert!("a:b".parse::<SshHost>().is_err());
    }
}
