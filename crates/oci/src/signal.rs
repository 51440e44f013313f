//! Signals by name or number, as Docker reads them.

/// The first and the last real-time signal that programs may use: glibc keeps 32 and 33 for itself.
const REAL_TIME: (i32, i32) = (34, 64);

/// Linux's numbers on x86-64 and aarch64 (signal(7)), which agree.
const NAMES: [(&str, i32); 36] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("RTMIN", REAL_TIME.0),
    ("RTMAX", REAL_TIME.1),
];

/// `SIGKILL` for 9; `signal 40` for one without a name of its own.
pub fn signal_name(number: i32) -> String {
    match NAMES.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

/// Reads `15`, `TERM`, `SIGTERM`, `sigterm` or `RTMIN+3`. Any number but 0 is taken: the kernel judges it when it is sent.
pub fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (number != 0).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    // Docker knows RTMIN+1 to RTMIN+15 and RTMAX-14 to RTMAX-1, which together name each number once.
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        return offset.parse().ok().filter(|n| (1..=15).contains(n)).map(|n: i32| REAL_TIME.0 + n);
    }
    let offset = name.strip_prefix("RTMAX-")?;
    offset.parse().ok().filter(|n| (1..=14).contains(n)).map(|n: i32| REAL_TIME.1 - n)
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals_are_read_as_docker_reads_them() {
        for (text, number) in [
            ("15", Some(15)),
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("sigkill", Some(9)),
            ("RTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-14", Some(50)),
            ("RTMIN+16", None),
            ("0", None),
            ("FOO", None),
            ("", None),
            ("SIG", None),
            ("SIGSIGTERM", None),
        ] {
            assert_eq!(parse_signal(text), number, "{text}");
        }
    }
}
