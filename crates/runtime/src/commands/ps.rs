//! `ps`.

use std::process::Command;

use super::{Context, hierarchies, print, some_cgroup};
use crate::arguments::{Parsed, UsageError};
use crate::error::CommandError;

/// Prints the numbers of a container's processes, or what the host's `ps` says of them.
pub(crate) fn ps(context: &Context<'_>, flags: &Parsed) -> Result<u8, CommandError> {
    let format = flags.value("format").unwrap_or("table");
    let wanted = "a minimum of 1 argument(s)";
    let (id, options) = flags.words.split_first().ok_or(UsageError::Words { command: "ps", wanted })?;
    let record = context.store.open(id)?.load()?;
    if !matches!(format, "json" | "table" | "") {
        return Err(CommandError::Format { format: format.to_owned() });
    }
    let processes = some_cgroup(&record, hierarchies()?, "its processes are known")?.procs_with_below();
    match format {
        "json" => print(&format!("{}\n", serde_json::to_string(&processes).expect("numbers")))?,
        _ => {
            let options = if options.is_empty() { &["-ef".to_owned()][..] } else { options };
            let output = Command::new("ps").args(options).output().map_err(CommandError::system("run ps"))?;
            if !output.status.success() {
                let output_text = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
                return Err(CommandError::Ps { status: output.status, output: output_text });
            }
            let table = String::from_utf8_lossy(&output.stdout);
            print(&only(&table, |pid| processes.contains(&pid)).ok_or(CommandError::PsColumn)?)?;
        }
    }
    Ok(0)
}

/// The head of a table with a column PID, and its lines of wanted processes.
fn only(table: &str, wanted: impl Fn(i32) -> bool) -> Option<String> {
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID")?;
    let is_wanted =
        |line: &&str| line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok()).is_some_and(&wanted);
    Some(std::iter::once(head).chain(lines.filter(is_wanted)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_processes_are_left_out() {
        let table = "UID  PID PPID CMD\nroot 7 1 7 8\nroot 8 7 sleep\nroot 9 7 x\n";
        let text = "UID  PID PPID CMD\nroot 8 7 sleep\nroot 9 7 x\n".to_owned();
        assert_eq!(only(table, |pid| pid == 8 || pid == 9), Some(text));
        assert_eq!((only("", |_| true), only("UID CMD\n", |_| true)), (None, None));
    }
}
