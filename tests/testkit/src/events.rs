//! The events of a daemon, as they come: what a test waits for instead of sleeping.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::http;

/// An open events stream.
#[derive(Debug)]
pub struct Events {
    lines: BufReader<Chunks>,
}

impl Events {
    /// Everything that happens from now on to the container `name`, or to everything when it is empty.
    pub fn subscribe(socket: &Path, name: &str) -> Result<Events> {
        Events::subscribe_to(socket, "container", name)
    }

    /// The same for another kind of object: `volume`, `network`.
    pub fn subscribe_to(socket: &Path, kind: &str, name: &str) -> Result<Events> {
        // The head is sent before the subscription stands: asking for what happened since now closes the gap.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let filters = match name {
            "" => String::new(),
            name => format!("&filters={{%22{kind}%22:[%22{name}%22]}}"),
        };
        let since = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
        let mut stream = http::connect(socket)?;
        write!(stream, "GET /v1.50/events?since={since}{filters} HTTP/1.1\r\nHost: docker\r\n\r\n")?;
        let mut reader = BufReader::new(stream);
        let head = http::read_head(&mut reader)?;
        ensure!(head.status == 200, "GET /events answers {}", head.status);
        Ok(Events { lines: BufReader::new(Chunks { reader, left: 0 }) })
    }

    /// The next event.
    pub fn next_event(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line).context("no further event")? == 0 {
            bail!("the events ended");
        }
        serde_json::from_str(&line).with_context(|| format!("not an event: {line:?}"))
    }

    /// The next event with this action, `start` or `die`; those before it are passed over.
    pub fn until(&mut self, action: &str) -> Result<Value> {
        loop {
            let event = self.next_event().with_context(|| format!("wait for the event {action}"))?;
            if event["Action"] == action {
                return Ok(event);
            }
        }
    }

    /// The actions of all events up to and with `action`.
    pub fn actions_until(&mut self, action: &str) -> Result<Vec<String>> {
        let mut actions = Vec::new();
        while actions.last().map(String::as_str) != Some(action) {
            let event = self.next_event().with_context(|| format!("wait for {action} after {actions:?}"))?;
            actions.push(event["Action"].as_str().unwrap_or_default().to_owned());
        }
        Ok(actions)
    }
}

/// A chunked body as one stream.
#[derive(Debug)]
struct Chunks {
    reader: BufReader<UnixStream>,
    left: u64,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.left == 0 {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Ok(0);
            }
            match line.trim() {
                // The line after a chunk.
                "" => {}
                "0" => return Ok(0),
                length => self.left = u64::from_str_radix(length, 16).map_err(std::io::Error::other)?,
            }
        }
        let count = Read::take(&mut self.reader, self.left).read(buffer)?;
        self.left -= count as u64;
        Ok(count)
    }
}
