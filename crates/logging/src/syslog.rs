//! Messages to a syslog server, as dockerd sends them.

use stdx::time::Rfc3339;

use crate::record::{PIECE_MAX_BYTES, Record, Stream, now_nanos, system_time};

/// Severities (RFC 5424, 6.2.1).
const ERROR: u8 = 3;
/// As above.
const INFORMATIONAL: u8 = 6;

/// How messages look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyslogFormat {
    /// `<30>Jan  2 15:04:05 tag[1]: text`: Docker's default, for a server on this machine.
    #[default]
    Unix,
    /// RFC 3164: as before, with the sender's name.
    Rfc3164,
    /// RFC 5424.
    Rfc5424,
    /// RFC 5424 with microseconds.
    Rfc5424Micro,
}

/// A syslog server and what messages say of us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyslogOptions {
    /// `unix`, `unixgram`, `tcp` or `udp`; empty for the server of this machine, wherever its socket is.
    pub network: String,
    /// A path, or `host:port`.
    pub address: String,
    /// The facility's number.
    pub facility: u8,
    /// How messages look.
    pub format: SyslogFormat,
    /// Whose they are.
    pub tag: String,
}

/// Encodes messages.
pub(crate) struct Syslog {
    facility: u8,
    format: SyslogFormat,
    /// What stands between the time and the message.
    middle: String,
    /// The text of the second that was asked for last.
    time: (u64, String),
}

impl Syslog {
    /// `hostname` is the address that the server sees us at.
    pub(crate) fn new(options: &SyslogOptions, hostname: &str) -> Syslog {
        let (tag, pid) = (&options.tag, std::process::id());
        let middle = match options.format {
            SyslogFormat::Unix => format!(" {tag}[{pid}]: "),
            SyslogFormat::Rfc3164 => format!(" {hostname} {tag}[{pid}]: "),
            SyslogFormat::Rfc5424 | SyslogFormat::Rfc5424Micro => format!(" {hostname} {tag} {pid} {tag} - "),
        };
        Syslog { facility: options.facility, format: options.format, middle, time: (u64::MAX, String::new()) }
    }

    /// The length before it included.
    pub(crate) fn record_max_bytes(&self) -> usize {
        PIECE_MAX_BYTES + self.middle.len() + 64
    }

    /// Appends a message; none of an empty line.
    pub(crate) fn encode(&mut self, out: &mut Vec<u8>, record: Record<'_>) {
        self.encode_at(out, record, now_nanos());
    }

    fn encode_at(&mut self, out: &mut Vec<u8>, record: Record<'_>, now: u64) {
        if record.len() == 0 {
            return;
        }
        let severity = if record.stream == Stream::Stderr { ERROR } else { INFORMATIONAL };
        let version = match self.format {
            SyslogFormat::Unix | SyslogFormat::Rfc3164 => "",
            SyslogFormat::Rfc5424 | SyslogFormat::Rfc5424Micro => "1 ",
        };
        out.extend_from_slice(format!("<{}>{version}", self.facility * 8 + severity).as_bytes());
        self.refresh(now);
        out.extend_from_slice(self.time.1.as_bytes());
        out.extend_from_slice(self.middle.as_bytes());
        record.parts.iter().for_each(|part| out.extend_from_slice(part));
        if record.parts.iter().rev().find_map(|part| part.last()) != Some(&b'\n') {
            out.push(b'\n');
        }
    }

    /// The time of the message is that of its sending, as dockerd's; always in UTC.
    fn refresh(&mut self, nanos: u64) {
        let unit = if self.format == SyslogFormat::Rfc5424Micro { 1_000 } else { 1_000_000_000 };
        if self.time.0 == nanos / unit {
            return;
        }
        self.time.0 = nanos / unit;
        let whole = Rfc3339(system_time(nanos - nanos % 1_000_000_000)).to_string();
        self.time.1 = match self.format {
            SyslogFormat::Rfc5424 => whole,
            SyslogFormat::Rfc5424Micro => {
                format!("{}.{:06}Z", whole.trim_end_matches('Z'), nanos % 1_000_000_000 / 1_000)
            }
            SyslogFormat::Unix | SyslogFormat::Rfc3164 => stamp(&whole),
        };
    }
}

/// Go's `time.Stamp`: `Jan _2 15:04:05`, of `2006-01-02T15:04:05Z`.
fn stamp(rfc3339: &str) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let number = |range: std::ops::Range<usize>| rfc3339.get(range).and_then(|text| text.parse::<usize>().ok());
    let month = number(5..7).and_then(|month| MONTHS.get(month.wrapping_sub(1))).unwrap_or(&MONTHS[0]);
    format!("{month} {:>2} {}", number(8..10).unwrap_or(1), rfc3339.get(11..19).unwrap_or("00:00:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(format: SyslogFormat, stream: Stream) -> String {
        let options = SyslogOptions { facility: 3, format, tag: "tag".into(), ..SyslogOptions::default() };
        let mut out = Vec::new();
        let record = Record { stream, nanos: 0, parts: [b"te", b"xt"], ends_line: true, piece: None };
        Syslog::new(&options, "me").encode_at(&mut out, record, 1_767_323_045_000_456_789);
        String::from_utf8(out).unwrap().replace(&std::process::id().to_string(), "PID")
    }

    #[test]
    fn messages_are_dockers() {
        assert_eq!(message(SyslogFormat::Unix, Stream::Stdout), "<30>Jan  2 03:04:05 tag[PID]: text\n");
        assert_eq!(message(SyslogFormat::Rfc3164, Stream::Stderr), "<27>Jan  2 03:04:05 me tag[PID]: text\n");
        assert_eq!(
            message(SyslogFormat::Rfc5424, Stream::Stdout),
            "<30>1 2026-01-02T03:04:05Z me tag PID tag - text\n"
        );
    }

    #[test]
    fn micro_seconds_have_six_digits_and_empty_lines_are_none() {
        assert_eq!(
            message(SyslogFormat::Rfc5424Micro, Stream::Stdout),
            "<30>1 2026-01-02T03:04:05.000456Z me tag PID tag - text\n"
        );
        let mut out = Vec::new();
        let record = Record { stream: Stream::Stdout, nanos: 0, parts: [b"", b""], ends_line: true, piece: None };
        Syslog::new(&SyslogOptions::default(), "me").encode(&mut out, record);
        assert!(out.is_empty());
    }
}
