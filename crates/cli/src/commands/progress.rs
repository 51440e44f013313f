//! Progress of a load or a pull: lines, or on a terminal one line for each part, redrawn in place.

use std::io::{self, IsTerminal, Write};

use client::call::Answer;
use client::lines::Documents;
use serde::Deserialize;

use crate::format::units;
use crate::report::Exit;

/// Where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One message of the stream (moby pkg/jsonmessage).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    stream: String,
    status: String,
    id: String,
    #[serde(rename = "progressDetail")]
    progress: Option<Progress>,
    #[serde(rename = "errorDetail")]
    error: Option<Failure>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Progress {
    current: i64,
    total: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Failure {
    message: String,
}

/// Shows the whole stream; an error in it is the command's.
pub async fn show(mut answer: Answer, target: Target, quiet: bool) -> Result<(), Exit> {
    let mut out: Box<dyn Write> = match target {
        Target::Stdout => Box::new(io::stdout()),
        Target::Stderr => Box::new(io::stderr()),
    };
    let terminal = match target {
        Target::Stdout => io::stdout().is_terminal(),
        Target::Stderr => io::stderr().is_terminal(),
    };
    let mut documents = Documents::default();
    let mut screen = Screen { parts: Vec::new(), terminal };
    while let Some(bytes) = answer.next().await? {
        documents.feed(&bytes);
        while let Some(message) = documents.take::<Message>() {
            let message = message.map_err(|err| Exit::error(&err))?;
            if let Some(error) = message.error {
                return Err(Exit::new(1, error.message));
            }
            if !quiet {
                let text = screen.draw(&message);
                out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|err| Exit::error(&err))?;
            }
        }
    }
    Ok(())
}

/// The parts that have a line each, from the top.
struct Screen {
    parts: Vec<String>,
    terminal: bool,
}

impl Screen {
    fn draw(&mut self, message: &Message) -> String {
        if !message.stream.is_empty() {
            return message.stream.clone();
        }
        let progress = message.progress.filter(|progress| progress.current > 0 || progress.total > 0);
        let prefix = if message.id.is_empty() { String::new() } else { format!("{}: ", message.id) };
        if !self.terminal {
            // A bar that cannot be redrawn is noise in a log.
            return if progress.is_some() { String::new() } else { format!("{prefix}{}\n", message.status) };
        }
        let bar = progress.map(|progress| format!(" {}", bar(progress))).unwrap_or_default();
        let line = format!("{prefix}{}{bar}", message.status);
        if message.id.is_empty() {
            return format!("{line}\n");
        }
        let (fresh, at) = match self.parts.iter().position(|part| *part == message.id) {
            Some(at) => ("", at),
            None => {
                self.parts.push(message.id.clone());
                ("\n", self.parts.len() - 1)
            }
        };
        let up = self.parts.len() - at;
        format!("{fresh}\x1b[{up}A\x1b[2K\r{line}\r\x1b[{up}B")
    }
}

/// `[=====>     ]  1.05MB/2.06MB`
fn bar(progress: Progress) -> String {
    let size = |bytes: i64| units::human_size(bytes as f64, 4);
    if progress.total <= 0 || progress.current > progress.total {
        return format!("{:>8}", size(progress.current));
    }
    let half = (progress.current * 50 / progress.total) as usize;
    let head = if half < 50 { ">" } else { "" };
    let rest = 50_usize.saturating_sub(half + head.len());
    format!("[{}{head}{}] {:>8}/{}", "=".repeat(half), " ".repeat(rest), size(progress.current), size(progress.total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_lines() {
        let progress = Progress { current: 1_000_000, total: 2_000_000 };
        assert_eq!(bar(progress), format!("[{}>{}]      1MB/2MB", "=".repeat(25), " ".repeat(24)));
        let message = |text: &str| serde_json::from_str::<Message>(text).unwrap();
        let mut screen = Screen { parts: Vec::new(), terminal: false };
        assert_eq!(screen.draw(&message(r#"{"stream":"Loaded image: a:b\n"}"#)), "Loaded image: a:b\n");
        assert_eq!(screen.draw(&message(r#"{"id":"x","status":"Pulling"}"#)), "x: Pulling\n");
        assert_eq!(screen.draw(&message(r#"{"id":"x","status":"L","progressDetail":{"current":1,"total":2}}"#)), "");
        screen.terminal = true;
        assert_eq!(screen.draw(&message(r#"{"id":"x","status":"Pulling"}"#)), "\n\x1b[1A\x1b[2K\rx: Pulling\r\x1b[1B");
    }
}
