//! How far a long piece of work is (moby `pkg/jsonmessage`).

use serde::{Deserialize, Serialize};

use crate::size;

/// Digits of the sizes beside a bar.
const DIGITS: usize = 4;

/// The columns that a bar has in an answer, where nobody knows the client's terminal.
pub const UNKNOWN_WIDTH: u16 = 200;

/// Bytes that are done, and all bytes; zero where that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// What is done.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: i64,
    /// What there is to do.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: i64,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl Progress {
    /// `[=====>     ]  1.05MB/2.06MB`, without the bar on a terminal of few columns; empty where nothing is known.
    pub fn text(self, columns: u16) -> String {
        let Progress { current, total } = self;
        let size = |bytes: i64| size::human(bytes as f64, DIGITS);
        match () {
            () if current <= 0 && total <= 0 => return String::new(),
            () if total <= 0 => return format!("{:>8}", size(current)),
            () => {}
        }
        let done = (((current as f64 / total as f64 * 100.0) as i64) / 2).clamp(0, 50) as usize;
        let bar = match columns {
            111.. => format!("[{}>{}] ", "=".repeat(done), " ".repeat(50 - done)),
            _ => String::new(),
        };
        // More than all of it: whoever said how much there is was wrong.
        let all = if current > total { String::new() } else { format!("/{}", size(total)) };
        format!("{bar}{:>8}{all}", size(current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_shown_as_docker_shows_it() {
        let half = format!("[{}>{}]      1MB/2MB", "=".repeat(25), " ".repeat(25));
        let whole = format!("[{}>]     185B/185B", "=".repeat(50));
        for (current, total, columns, wanted) in [
            (0, 0, 200, ""),
            (1500, 0, 200, "   1.5kB"),
            (1_000_000, 2_000_000, 200, &half),
            (1_000_000, 2_000_000, 110, "     1MB/2MB"),
            (185, 185, 111, &whole),
            (3, 2, 80, "      3B"),
        ] {
            assert_eq!(Progress { current, total }.text(columns), wanted);
        }
    }

    #[test]
    fn zeros_are_not_sent() {
        let json = |current, total| serde_json::to_string(&Progress { current, total }).unwrap();
        assert_eq!((json(0, 0), json(1, 2)), ("{}".to_owned(), r#"{"current":1,"total":2}"#.to_owned()));
    }
}
