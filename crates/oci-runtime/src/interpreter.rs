//! What a program names that has to run it: execve(2) answers that the program is missing where that is.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

/// How much of a script's first line the kernel reads (linux/binfmts.h, BINPRM_BUF_SIZE).
const LINE_BYTES: usize = 256;

/// The interpreter of a script, or the loader of a program. Absent if there is none, or it cannot be read.
pub(crate) fn named_by(program: &CStr) -> Option<String> {
    let file = File::open(OsStr::from_bytes(program.to_bytes())).ok()?;
    let mut head = [0; LINE_BYTES];
    let length = file.read_at(&mut head, 0).ok()?;
    let head = &head[..length];
    script(head).or_else(|| loader(head, |bytes, offset| file.read_exact_at(bytes, offset).ok()))
}

/// `#! /bin/sh -e`.
fn script(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).find(|word| !word.is_empty())?;
    Some(String::from_utf8_lossy(word).into_owned())
}

/// What PT_INTERP of an ELF file of this machine's byte order with 64 bits says (elf(5)).
fn loader(head: &[u8], read: impl Fn(&mut [u8], u64) -> Option<()>) -> Option<String> {
    const CLASS_64: u8 = 2;
    const INTERPRETER: u32 = 3;
    let word = |at: usize| Some(u64::from_ne_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(head.get(at..at + 2)?.try_into().ok()?));
    if !head.starts_with(b"\x7fELF") || head.get(4) != Some(&CLASS_64) {
        return None;
    }
    let (start, size, count) = (word(32)?, half(54)?, half(56)?);
    for index in 0..count {
        let mut entry = [0; 56];
        read(&mut entry, start.checked_add(u64::from(index) * u64::from(size))?)?;
        let number = |at: usize| entry[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
        if entry[..4] == INTERPRETER.to_ne_bytes() {
            // No path is longer (PATH_MAX).
            let mut path = vec![0; number(32).min(4096) as usize];
            read(&mut path, number(8))?;
            let path = path.split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(path).into_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_names_its_interpreter_and_a_program_its_loader() {
        for (head, name) in [
            ("#!/bin/sh\nx", Some("/bin/sh")),
            ("#! \t/usr/bin/env sh -e\n", Some("/usr/bin/env")),
            ("#!/bin/sh\r\n", Some("/bin/sh\r")),
            ("#!\n/bin/sh", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(script(head.as_bytes()).as_deref(), name, "{head:?}");
        }
        let mut file = vec![0; 200];
        file[..5].copy_from_slice(b"\x7fELF\x02");
        file[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        file[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        file[56..58].copy_from_slice(&2_u16.to_ne_bytes());
        file[120..124].copy_from_slice(&3_u32.to_ne_bytes());
        file[128..136].copy_from_slice(&180_u64.to_ne_bytes());
        file[152..160].copy_from_slice(&9_u64.to_ne_bytes());
        file[180..189].copy_from_slice(b"/lib/ld.1");
        let read = |bytes: &mut [u8], offset: u64| {
            let from = file.get(offset as usize..)?.get(..bytes.len())?;
            bytes.copy_from_slice(from);
            Some(())
        };
        assert_eq!(loader(&file, read).as_deref(), Some("/lib/ld.1"));
        assert_eq!(loader(&file, |_, _| None), None);
        assert_eq!((loader(&file[..50], read), loader(b"MZ", read)), (None, None));
    }
}
