//! Rows of `ps`, and our own where there is none.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use engine_api::container::Top;

use super::TopError;

/// What threads of a process have in place of its number.
const THREAD: &str = "-";

/// Takes the rows of these processes out of what `ps` printed.
pub(super) fn parse(text: &str, pids: &BTreeSet<i32>) -> Result<Top, TopError> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let column = titles.iter().position(|title| title == "PID").ok_or(TopError::NoPid)?;
    let mut processes = Vec::new();
    let mut threads_follow = false;
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let Some(field) = line.split_whitespace().nth(column) else { continue };
        // Threads come behind their process.
        if field != THREAD {
            let pid: i32 = field.parse().map_err(|_| TopError::Pid(field.to_owned()))?;
            threads_follow = pids.contains(&pid);
        }
        if threads_follow {
            processes.push(row(line, titles.len()));
        }
    }
    Ok(Top { processes, titles })
}

/// The fields of a line; the last one has all that is left, blanks within it as single ones.
fn row(line: &str, columns: usize) -> Vec<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (first, last) = fields.split_at(columns.saturating_sub(1).min(fields.len()));
    first.iter().map(|field| (*field).to_owned()).chain([last.join(" ")]).collect()
}

/// What `ps -ef` would print, without the programs' terminals and shares of a processor.
pub(super) fn full(pids: &BTreeSet<i32>) -> Top {
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(str::to_owned).into();
    Top { processes: pids.iter().filter_map(|pid| process(*pid)).collect(), titles }
}

/// `None` if it has ended.
fn process(pid: i32) -> Option<Vec<String>> {
    let dir = Path::new("/proc").join(pid.to_string());
    let uid = fs::metadata(&dir).ok()?.uid();
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    let line = fs::read(dir.join("cmdline")).ok()?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let booted = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    described(pid, uid, &stat, &String::from_utf8_lossy(&line), booted)
}

/// Ticks in a second, as /proc counts (USER_HZ).
const TICKS_PER_SECOND: u64 = 100;

/// A row of [`full`]; `stat` and `line` are the process's own, `booted` is in seconds since 1970.
fn described(pid: i32, uid: u32, stat: &str, line: &str, booted: u64) -> Option<Vec<String>> {
    let (name, rest) = stat.rsplit_once(')')?;
    // The third field of proc(5) is the first here.
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |place: usize| fields.get(place - 3)?.parse::<u64>().ok();
    let seconds = (number(14)? + number(15)?) / TICKS_PER_SECOND;
    let begin = (booted + number(22)? / TICKS_PER_SECOND) % 86_400;
    let words: Vec<&str> = line.split('\0').filter(|word| !word.is_empty()).collect();
    let command = match words.is_empty() {
        true => format!("[{}]", name.split_once('(').map_or("", |(_, name)| name)),
        false => words.join(" "),
    };
    Some(vec![
        uid.to_string(),
        pid.to_string(),
        fields.get(1)?.to_string(),
        "0".to_owned(),
        format!("{:02}:{:02}", begin / 3600, begin / 60 % 60),
        "?".to_owned(),
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        command,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_containers_processes_are_taken() {
        let text = "UID        PID  CMD\nroot         1  init  [2]\nroot        12  sleep   1000\nroot         -  -\n\
                    root       123  other\nroot         -  -\n";
        let top = parse(text, &[12, 7].into()).unwrap();
        assert_eq!(top.titles, ["UID", "PID", "CMD"]);
        assert_eq!(top.processes, [["root", "12", "sleep 1000"], ["root", "-", "-"]]);
        assert!(matches!(parse("UID CMD\n", &BTreeSet::new()), Err(TopError::NoPid)));
        assert!(matches!(parse("PID\nx\n", &BTreeSet::new()), Err(TopError::Pid(_))));
    }

    #[test]
    fn without_a_ps_the_kernel_is_asked() {
        let stat = "12 (a) b) S 7 12 12 0 -1 4194560 1 2 3 4 6100 50 7 8 20 0 1 0 360000 1 2";
        let row = |line| described(12, 5, stat, line, 0).unwrap().join("|");
        assert_eq!(row("sleep\x001000\0"), "5|12|7|0|01:00|?|00:01:01|sleep 1000");
        assert_eq!(row(""), "5|12|7|0|01:00|?|00:01:01|[a) b]");
        let own: BTreeSet<i32> = [std::process::id() as i32].into();
        assert_eq!(full(&own).processes.len(), 1);
    }
}
