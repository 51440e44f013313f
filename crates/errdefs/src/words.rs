//! The system's answers in words: those of glibc, which are Go's, too, whatever library this program has.

use std::io;

/// The system's answer as Go, and so Docker and runc, print it: `no such file or directory`, without the number that Rust
/// adds. What no system call answered is in its own words.
pub fn system_words(err: &io::Error) -> String {
    let Some(number) = err.raw_os_error() else { return err.to_string() };
    if let Some(sentence) = sentence(number) {
        return sentence.to_owned();
    }
    // The C library's sentence without its capital.
    let text = err.to_string();
    let mut letters = text.split(" (os error").next().unwrap_or_default().chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}", first.to_lowercase(), letters.as_str()))
}

/// The sentence, where C libraries differ in it.
fn sentence(number: i32) -> Option<&'static str> {
    // The numbers are Linux's.
    let known = SENTENCES.iter().find(|(known, _)| cfg!(target_os = "linux") && *known == number);
    known.map(|(_, sentence)| *sentence)
}

/// What musl says otherwise, of all that a system call of ours may answer (asm-generic/errno.h).
const SENTENCES: [(i32, &str); 32] = [
    (5, "input/output error"),
    (10, "no child processes"),
    (12, "cannot allocate memory"),
    (16, "device or resource busy"),
    (18, "invalid cross-device link"),
    (24, "too many open files"),
    (25, "inappropriate ioctl for device"),
    (29, "illegal seek"),
    (33, "numerical argument out of domain"),
    (34, "numerical result out of range"),
    (35, "resource deadlock avoided"),
    (36, "file name too long"),
    (40, "too many levels of symbolic links"),
    (65, "package not installed"),
    (75, "value too large for defined data type"),
    (79, "can not access a needed shared library"),
    (80, "accessing a corrupted shared library"),
    (87, "too many users"),
    (88, "socket operation on non-socket"),
    (90, "message too long"),
    (95, "operation not supported"),
    (98, "address already in use"),
    (99, "cannot assign requested address"),
    (101, "network is unreachable"),
    (103, "software caused connection abort"),
    (106, "transport endpoint is already connected"),
    (107, "transport endpoint is not connected"),
    (110, "connection timed out"),
    (113, "no route to host"),
    (115, "operation now in progress"),
    (117, "structure needs cleaning"),
    (122, "disk quota exceeded"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_the_same_with_every_c_library() {
        let said = |number| system_words(&io::Error::from_raw_os_error(number));
        assert_eq!((said(40).as_str(), said(2).as_str()), (SENTENCES[12].1, "no such file or directory"));
        assert_eq!(system_words(&io::ErrorKind::NotADirectory.into()), "not a directory");
        #[cfg(target_env = "gnu")]
        for (number, sentence) in SENTENCES {
            let library = io::Error::from_raw_os_error(number).to_string().to_lowercase();
            assert_eq!(library.split(" (os").next(), Some(sentence), "{number}");
        }
    }

    #[test]
    fn a_chain_ends_in_the_systems_words() {
        #[derive(Debug)]
        struct Outer(io::Error);
        impl std::fmt::Display for Outer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("open /x")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        assert_eq!(crate::chain(&Outer(io::Error::from_raw_os_error(13))), "open /x: permission denied");
        assert_eq!(crate::chain(&Outer(io::Error::other("why"))), "open /x: why");
    }
}
