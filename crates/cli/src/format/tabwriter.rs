//! Columns, as Go's `tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)` aligns them.
//!
//! A cell is text that ends with a tab; what follows the last tab of a line is no cell and takes no part in a column. A
//! column is a run of consecutive lines that have a cell there; its width is that of its widest cell and the padding,
//! but at least the minimum.

/// Narrowest column.
const MIN_WIDTH: usize = 10;
/// Blanks behind the widest cell.
const PADDING: usize = 3;

/// Aligns `text`, whose cells end with tabs.
pub fn align(text: &str) -> String {
    align_with(text, MIN_WIDTH, PADDING)
}

/// Aligns with another minimum and padding.
pub fn align_with(text: &str, min_width: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut start = 0;
        while start < lines.len() {
            let end = start + lines[start..].iter().take_while(|cells| cells.len() - 1 > column).count();
            let widest = lines[start..end].iter().map(|cells| display_width(cells[column])).max().unwrap_or(0);
            for width in &mut widths[start..end] {
                width[column] = (widest + padding).max(min_width);
            }
            start = end.max(start + 1);
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (at, cell) in cells.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths.get(at) {
                pad(&mut out, width - display_width(cell));
            }
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
