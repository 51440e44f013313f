//! Columns, as Go's `tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)` aligns them.
//!
//! A cell is text that ends with a tab; what follows the last tab of a line is no cell and takes no part in a column. A
//! column is a run of consecutive lines that have a cell there; its width is that of its widest cell and the padding,
//! but at least the minimum.

use std::ops::Range;

/// Narrowest column.
const MIN_WIDTH: usize = 10;
/// Blanks behind the widest cell.
const PADDING: usize = 3;

/// Aligns `text`, whose cells end with tabs.
pub fn align(text: &str) -> String {
    align_with(text, MIN_WIDTH, PADDING)
}

/// A cell, or what follows the last tab of a line.
struct Cell<'a> {
    text: &'a str,
    /// Its own.
    width: usize,
    /// Its column's; 0 for what is no cell.
    column_width: usize,
}

/// Aligns with another minimum and padding.
pub fn align_with(text: &str, min_width: usize, padding: usize) -> String {
    // Flat: a `Vec` for each of a thousand lines takes longer than all the rest.
    let (mut cells, mut lines) = (Vec::new(), Vec::<Range<usize>>::new());
    for line in text.lines() {
        let start = cells.len();
        cells.extend(line.split('\t').map(|text| Cell { text, width: display_width(text), column_width: 0 }));
        lines.push(start..cells.len());
    }
    let columns = lines.iter().map(|line| line.len() - 1).max().unwrap_or(0);
    for column in 0..columns {
        let mut start = 0;
        while start < lines.len() {
            let run = lines[start..].iter().take_while(|line| line.len() - 1 > column).count();
            let run_lines = &lines[start..start + run];
            let widest = run_lines.iter().map(|line| cells[line.start + column].width).max().unwrap_or(0);
            for line in run_lines {
                cells[line.start + column].column_width = (widest + padding).max(min_width);
            }
            start += run.max(1);
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for line in lines {
        for cell in &cells[line] {
            out.push_str(cell.text);
            pad(&mut out, cell.column_width.saturating_sub(cell.width));
        }
        out.push('\n');
    }
    out
}

fn pad(out: &mut String, mut blanks: usize) {
    const BLANKS: &str = "                                ";
    while blanks > 0 {
        let some = blanks.min(BLANKS.len());
        out.push_str(&BLANKS[..some]);
        blanks -= some;
    }
}

/// Go's tabwriter counts characters, not columns of the terminal.
fn display_width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn columns_are_aligned_as_go_does() {
        expect![[r#"
            REPOSITORY   TAG       ID
            busybox      latest    4f
            ü            1         5
        "#]]
        .assert_eq(&align("REPOSITORY\tTAG\tID\nbusybox\tlatest\t4f\nü\t1\t5\n"));
        expect![[r#"
            a         b
            long line without cells
            c         d
        "#]]
        .assert_eq(&align("a\tb\nlong line without cells\nc\td\n"));
    }
}
