//! `ps`.

use std::process::Command;

use super::{Context, cgroup, hierarchies};
use crate::arguments::Parsed;
use crate::error::CommandError;
use crate::one;

/// Prints the numbers of a container's processes, or what the host's `ps` says of them.
pub(crate) fn ps(context: &Context<'_>, flags: &Parsed) -> Result<u8, CommandError> {
    let format = flags.value("format").unwrap_or("table");
    let (id, options) = match flags.words.split_first() {
        Some((id, options)) if format == "table" => (id.as_str(), options),
        _ => (one(flags, "ps")?, &[][..]),
    };
    let record = context.store.open(id)?.load()?;
    let processes = cgroup(&record, hierarchies()?)?.procs_with_below();
    match format {
        "json" => println!("{}", serde_json::to_string(&processes).expect("numbers")),
        "table" | "" => {
            let options = if options.is_empty() { &["-ef".to_owned()][..] } else { options };
            let output = Command::new("ps").args(options).output().map_err(CommandError::system("run ps"))?;
            print!("{}", only(&String::from_utf8_lossy(&output.stdout), |pid| processes.contains(&pid)));
        }
        _ => return Err(CommandError::Format),
    }
    Ok(0)
}

/// The head of a table with a column PID, and its lines of wanted processes.
fn only(table: &str, wanted: impl Fn(i32) -> bool) -> String {
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|name| name == "PID");
    let is_wanted = |line: &&str| {
        let pid = column.and_then(|column| line.split_whitespace().nth(column)?.parse().ok());
        pid.is_some_and(&wanted)
    };
    std::iter::once(head).chain(lines.filter(is_wanted)).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_processes_are_left_out() {
        let table = "UID  PID PPID CMD\nroot 7 1 7 8\nroot 8 7 sleep\nroot 9 7 x\n";
        assert_eq!(only(table, |pid| pid == 8 || pid == 9), "UID  PID PPID CMD\nroot 8 7 sleep\nroot 9 7 x\n");
        assert_eq!(only("", |_| true), "\n");
    }
}
