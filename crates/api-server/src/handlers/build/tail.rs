//! What a quiet build tells if it fails. A command tells as much as it likes: only the end is kept.

use std::collections::VecDeque;

use engine::ops::build::BuildLine;

use super::told;
use crate::handlers::progress::Line;

/// How much is kept.
const KEPT_BYTES: usize = 1024 * 1024;

/// What a line takes beside its text, or without one.
const LINE_BYTES: usize = 256;

/// The last lines.
#[derive(Default)]
pub(super) struct Tail {
    lines: VecDeque<BuildLine>,
    bytes: usize,
    left_out_bytes: usize,
}

impl Tail {
    pub(super) fn push(&mut self, line: BuildLine) {
        self.bytes += bytes(&line);
        self.lines.push_back(line);
        while self.bytes > KEPT_BYTES
            && let Some(line) = self.lines.pop_front()
        {
            self.bytes -= bytes(&line);
            self.left_out_bytes += text(&line).len();
        }
    }

    /// What is kept, behind a word of what is not.
    pub(super) fn lines(self) -> impl Iterator<Item = Line> {
        let count = self.left_out_bytes;
        let note = (count > 0).then(|| Line::Text { stream: format!("[{count} bytes of output left out]\n") });
        note.into_iter().chain(self.lines.into_iter().map(told))
    }
}

fn text(line: &BuildLine) -> &str {
    match line {
        BuildLine::Text(text) => text,
        _ => "",
    }
}

fn bytes(line: &BuildLine) -> usize {
    text(line).len() + LINE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_of(count: usize, length: usize) -> Vec<String> {
        let mut tail = Tail::default();
        for index in 0..count {
            tail.push(BuildLine::Text(format!("{index:length$}")));
            assert!(tail.bytes <= KEPT_BYTES && tail.lines.len() <= KEPT_BYTES / LINE_BYTES);
        }
        tail.lines().map(|line| serde_json::to_string(&line).unwrap()).collect()
    }

    #[test]
    fn little_is_told_whole() {
        assert_eq!(told_of(2, 1), [r#"{"stream":"0"}"#, r#"{"stream":"1"}"#]);
    }

    #[test]
    fn of_much_the_end_is_told() {
        for (count, length) in [(300, 10_000), (100_000, 6)] {
            let told = told_of(count, length);
            let kept = told.len() - 1;
            assert!(kept < count);
            let left_out = (count - kept) * length;
            assert_eq!(told[0], format!("{{\"stream\":\"[{left_out} bytes of output left out]\\n\"}}"));
            assert!(told[kept].ends_with(&format!("{}\"}}", count - 1)));
        }
    }
}
