//! Progress of a load or a pull: lines, or on a terminal one line for each part, redrawn in place.

pub mod raw;

use std::io::{self, IsTerminal, Write};

use client::call::Answer;
use client::lines::Documents;
use engine_api::progress::{Progress, UNKNOWN_WIDTH};
use serde::Deserialize;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::console::BROKEN_PIPE_STATUS;
use crate::report::Exit;
use crate::term;

/// Where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The same two, on which no line is drawn again.
    StdoutLines,
    /// See there.
    StderrLines,
    /// Standard error, for programs.
    StderrRaw,
}

impl Target {
    /// The width of the terminal that it is; none if it is none.
    fn columns(self) -> Option<u16> {
        match self {
            Target::Stdout => io::stdout().is_terminal().then(|| term::columns(io::stdout())),
            Target::Stderr => io::stderr().is_terminal().then(|| term::columns(io::stderr())),
            Target::StdoutLines | Target::StderrLines | Target::StderrRaw => None,
        }
    }

    fn write(self, text: &str) -> Result<(), Exit> {
        let written = match self {
            Target::Stdout | Target::StdoutLines => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            Target::Stderr | Target::StderrLines | Target::StderrRaw => io::stderr().write_all(text.as_bytes()),
        };
        written.map_err(|err| match err.kind() {
            io::ErrorKind::BrokenPipe => Exit::silent(BROKEN_PIPE_STATUS),
            _ => Exit::error(&err),
        })
    }
}

/// One message of the stream (moby pkg/jsonmessage).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    stream: String,
    status: String,
    id: String,
    #[serde(rename = "progressDetail")]
    detail: Option<Progress>,
    /// The bar as text, from daemons that do not send the detail.
    progress: String,
    #[serde(rename = "errorDetail")]
    error: Option<Failure>,
    /// Facts for programs.
    aux: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Failure {
    /// What the command ends with; 0 for nothing in particular.
    code: i64,
    message: String,
}

/// Shows the whole stream; an error in it is the command's.
pub async fn show(answer: Answer, target: Target, quiet: bool) -> Result<(), Exit> {
    let target = if quiet { None } else { Some(target) };
    follow(answer, target, &mut String::new(), &mut |_| {}).await
}

/// The same; without a target what would be shown is added to `told`. `aux` gets what is told to programs.
pub async fn follow(
    mut answer: Answer,
    target: Option<Target>,
    told: &mut String,
    aux: &mut dyn FnMut(Value),
) -> Result<(), Exit> {
    let mut documents = Documents::default();
    let raw = (target == Some(Target::StderrRaw)).then(raw::Raw::default);
    let mut screen = Screen { raw, ..Screen::default() };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|err| Exit::error(&err))?;
    loop {
        let bytes = tokio::select! {
            bytes = answer.next() => bytes?,
            // Ended by the signal itself, we would take the shell's line with us, where Docker's client does not.
            _ = interrupt.recv() => return Err(Exit::silent(130)),
        };
        let Some(bytes) = bytes else { break };
        documents.feed(&bytes);
        let columns = target.and_then(Target::columns);
        let (text, outcome) = screen.draw_all(&mut documents, columns, aux);
        match target {
            Some(target) => target.write(&text)?,
            None => told.push_str(&text),
        }
        outcome?;
    }
    if let (Some(raw), Some(target)) = (&mut screen.raw, target) {
        target.write(&raw.end(""))?;
    }
    match documents.is_broken_off() {
        true => Err(Exit::new(1, "unexpected EOF")),
        false => Ok(()),
    }
}

/// The parts that have a line each, from the top.
#[derive(Debug, Default)]
struct Screen {
    parts: Vec<String>,
    /// Where it is told to programs instead.
    raw: Option<raw::Raw>,
}

impl Screen {
    /// Draws all messages that are there, up to an error.
    fn draw_all(
        &mut self,
        documents: &mut Documents,
        columns: Option<u16>,
        aux: &mut dyn FnMut(Value),
    ) -> (String, Result<(), Exit>) {
        let mut text = String::new();
        while let Some(message) = documents.take::<Message>() {
            match message {
                Err(err) => return (text, Err(Exit::error(&err))),
                Ok(Message { error: Some(error), .. }) => {
                    text.push_str(&self.raw.as_mut().map(|raw| raw.end(&error.message)).unwrap_or_default());
                    return (text, Err(Exit::new(u8::try_from(error.code).unwrap_or(1).max(1), error.message)));
                }
                Ok(Message { aux: Some(fact), .. }) => aux(fact),
                Ok(message) => match &mut self.raw {
                    Some(raw) => text.push_str(&raw.message(&message)),
                    None => text.push_str(&self.draw(&message, columns)),
                },
            }
        }
        (text, Ok(()))
    }

    /// Without `columns` there is no terminal.
    fn draw(&mut self, message: &Message, columns: Option<u16>) -> String {
        let line = message.line(columns);
        if message.id.is_empty() || (message.detail.is_none() && message.progress.is_empty()) {
            // A line that stays: what is above it cannot be counted any more.
            self.parts.clear();
            return line;
        }
        let (fresh, at) = match self.parts.iter().position(|part| *part == message.id) {
            Some(at) => ("", at),
            None => {
                self.parts.push(message.id.clone());
                ("\n", self.parts.len() - 1)
            }
        };
        let up = self.parts.len() - at;
        match columns {
            Some(_) => format!("{fresh}\x1b[{up}A{line}\x1b[{up}B"),
            None => line,
        }
    }
}

impl Message {
    fn line(&self, columns: Option<u16>) -> String {
        let Message { id, status, stream, progress, .. } = self;
        let prefix = if id.is_empty() { String::new() } else { format!("{id}: ") };
        let bar = self.detail.map(|detail| detail.text(columns.unwrap_or(UNKNOWN_WIDTH)));
        match bar {
            Some(bar) if let Some(columns) = columns => {
                // A line that wraps would be two to the terminal and one to us.
                let shown = format!("{prefix}{status} {bar}").chars().take(columns.into()).collect::<String>();
                format!("\x1b[2K\r{shown}\r")
            }
            // A bar that cannot be redrawn is noise in a log.
            Some(bar) if !bar.is_empty() => String::new(),
            _ if !progress.is_empty() => format!("{prefix}{status} {progress}"),
            _ if !stream.is_empty() => format!("{prefix}{stream}"),
            _ => format!("{prefix}{status}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pull of one layer, as dockerd tells it.
    const PULL: &str = concat!(
        r#"{"status":"Pulling from good","id":"1"}"#,
        r#"{"status":"Pulling fs layer","progressDetail":{},"id":"56b9"}"#,
        r#"{"status":"Pulling fs layer","progressDetail":{},"id":"6fcb"}"#,
        r#"{"status":"Downloading","progressDetail":{"current":1,"total":2},"progress":"[=>] 1B/2B","id":"56b9"}"#,
        r#"{"status":"Pull complete","progressDetail":{},"id":"6fcb"}"#,
        r#"{"status":"Status: Downloaded newer image for x/good:1"}"#,
    );

    #[test]
    fn lines_are_cut_where_the_terminal_ends() {
        let text = r#"{"status":"Downloading","progressDetail":{"current":3000000,"total":30000000},"id":"56b9"}"#;
        assert_eq!(draw(text, Some(20)).0, "\n\x1b[1A\x1b[2K\r56b9: Downloading   \r\x1b[1B");
    }

    fn draw(text: &str, columns: Option<u16>) -> (String, Result<(), Exit>) {
        let mut documents = Documents::default();
        documents.feed(text.as_bytes());
        Screen::default().draw_all(&mut documents, columns, &mut |_| {})
    }

    #[test]
    fn a_log_gets_lines_without_bars() {
        let lines = "1: Pulling from good\n56b9: Pulling fs layer\n6fcb: Pulling fs layer\n6fcb: Pull complete\n\
                     Status: Downloaded newer image for x/good:1\n";
        assert_eq!(draw(PULL, None), (lines.to_owned(), Ok(())));
        assert_eq!(draw(r#"{"stream":"Loaded image: a:b\n"}{"aux":{"ID":"x"}}"#, None).0, "Loaded image: a:b\n");
    }

    #[test]
    fn a_terminal_gets_a_line_for_each_part() {
        let screen = "1: Pulling from good\n\
            \n\x1b[1A\x1b[2K\r56b9: Pulling fs layer \r\x1b[1B\
            \n\x1b[1A\x1b[2K\r6fcb: Pulling fs layer \r\x1b[1B\
            \x1b[2A\x1b[2K\r56b9: Downloading       1B/2B\r\x1b[2B\
            \x1b[1A\x1b[2K\r6fcb: Pull complete \r\x1b[1B\
            Status: Downloaded newer image for x/good:1\n";
        assert_eq!(draw(PULL, Some(80)), (screen.to_owned(), Ok(())));
        let wide = draw(PULL, Some(120)).0;
        let bar = format!("Downloading [{}>{}]       1B/2B\r", "=".repeat(25), " ".repeat(25));
        assert!(wide.contains(&bar), "{wide:?}");
    }

    /// With `pull -a`, the parts of one tag must not be counted with those of the next.
    #[test]
    fn a_line_that_stays_begins_a_new_count() {
        let part = r#"{"status":"Already exists","progressDetail":{},"id":"56b9"}"#;
        let line = "\n\x1b[1A\x1b[2K\r56b9: Already exists \r\x1b[1B";
        let text = format!("{part}{}{part}", r#"{"status":"Digest: x"}"#);
        assert_eq!(draw(&text, Some(80)).0, format!("{line}Digest: x\n{line}"));
    }

    #[test]
    fn an_error_ends_it_behind_what_was_shown() {
        let text = r#"{"status":"a"}{"errorDetail":{"message":"no space"},"error":"no space"}{"status":"b"}"#;
        assert_eq!(draw(text, None), ("a\n".to_owned(), Err(Exit::new(1, "no space"))));
        let text = r#"{"errorDetail":{"code":3,"message":"no"},"error":"no"}"#;
        assert_eq!(draw(text, None).1, Err(Exit::new(3, "no")));
        assert!(draw("{x", None).1.is_err());
    }
}
