//! What people read: lines of the Dockerfile with what is said of them (solver/errdefs, source.go; subrequests/lint), and
//! tables.

use crate::report::{Failure, Findings, Lines};

/// Lines around those that are meant.
const AROUND: usize = 4;

/// Lines of a text, with some around them, the meant ones marked. Nothing where there are none of that number.
pub fn source(name: &str, text: &str, lines: Lines) -> String {
    let all: Vec<&str> = text.split('\n').collect();
    let (first, last) = (lines.0, lines.1.max(lines.0).min(all.len()));
    if first < 1 || first > all.len() {
        return String::new();
    }
    // One line has four more around it, several have two; where the text ends on one side, more of the other.
    let around = if first == last { AROUND } else { AROUND / 2 };
    let (mut start, mut end, mut added) = (first, last, 0);
    while added < around {
        if start > 1 {
            start -= 1;
            added += 1;
        }
        if end != all.len() {
            end += 1;
            added += 1;
        }
        added += 1;
    }
    let mut printed = format!("{name}:{first}\n--------------------\n");
    for number in start..=end {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        printed.push_str(&format!(" {number:3} | {mark} {}\n", all[number - 1]));
    }
    printed.push_str("--------------------\n");
    printed
}

/// All warnings, from the top of the Dockerfile down.
pub fn print_warnings(name: &str, text: &str, findings: &Findings) -> String {
    let mut warnings: Vec<_> = findings.warnings.iter().collect();
    warnings.sort_by_key(|warning| warning.lines.0);
    let mut printed = String::new();
    for warning in warnings {
        let url = if warning.rule.url.is_empty() { String::new() } else { format!(" - {}", warning.rule.url) };
        printed.push_str(&format!("\nWARNING: {}{url}\n{}\n", warning.rule.name, warning.detail));
        printed.push_str(&source(name, text, warning.lines));
    }
    printed
}

/// Why it cannot be built, with the lines.
pub fn print_errors(name: &str, text: &str, failure: &Failure) -> String {
    let lines = failure.lines.map(|lines| source(name, text, lines)).unwrap_or_default();
    format!("{}\n{lines}", failure.message)
}

/// Columns with so many blanks between them; the last one ends with its words (Go's text/tabwriter).
pub(crate) fn table(rows: &[Vec<&str>], padding: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + padding;
    let widths: Vec<usize> = (0..columns.saturating_sub(1)).map(width).collect();
    let mut printed = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            printed.push_str(&format!("{cell:width$}"));
        }
        printed.push_str(row.last().copied().unwrap_or_default());
        printed.push('\n');
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_with_some_around_them() {
        let text = "a\nb\nc\nd\ne\nf\ng\n";
        let wanted = "D:4\n--------------------\n   2 |     b\n   3 |     c\n   4 | >>> d\n   5 |     e\n   6 |     f\n--------------------\n";
        assert_eq!(source("D", text, (4, 4)), wanted);
        let wanted = "D:1\n--------------------\n   1 | >>> a\n   2 | >>> b\n   3 |     c\n--------------------\n";
        assert_eq!(source("D", text, (1, 2)), wanted);
        assert_eq!(source("D", text, (9, 9)), "");
        assert_eq!(source("D", "a", (1, 1)), "D:1\n--------------------\n   1 | >>> a\n--------------------\n");
    }

    #[test]
    fn tables_have_columns() {
        assert_eq!(table(&[vec!["A", "B"], vec!["long", ""], vec!["", "x"]], 3), "A      B\nlong   \n       x\n");
    }
}
