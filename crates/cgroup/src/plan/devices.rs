//! Device rules as files of version 1. With version 2 they are a program ([`crate::devices`]), of the same checked rules.

use oci::runtime::DeviceRule;

use super::{PlanError, Write};
use crate::facts::{Controller, Version};
use crate::field::Field;

const RULES: &str = "linux.resources.devices";

pub(super) fn plan(rules: &[DeviceRule], version: Version) -> Result<Vec<Write>, PlanError> {
    let mut writes: Vec<Write> = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let write = file(index, rule)?;
        // What is said already, and not unsaid since, costs a system call for nothing.
        let said = writes.iter().rev().take_while(|last| last.file == write.file).any(|last| last.value == write.value);
        if version == Version::V1 && !said {
            writes.push(write);
        }
    }
    Ok(writes)
}

const ACCESSES: &str = "an access: must be some of r, w, m";

fn file(index: usize, rule: &DeviceRule) -> Result<Write, PlanError> {
    let file = if rule.allow { "devices.allow" } else { "devices.deny" };
    let field = |part| Field::member(RULES, index, part);
    let word = |part, value: &str, wanted| PlanError::Word { field: field(part), value: value.to_owned(), wanted };
    let number = |number: Option<i64>, part| match number {
        None | Some(-1) => Ok("*".to_owned()),
        // Beyond 32 bits it would be another device's in the program of version 2.
        Some(number) if u32::try_from(number).is_ok() => Ok(number.to_string()),
        Some(number) => {
            let range = "-1, for all, or the number of a device";
            Err(PlanError::OutOfRange { field: field(part), value: number.into(), range })
        }
    };
    let is_access = rule.access.bytes().all(|letter| b"rwm".contains(&letter));
    let value = match rule.kind.as_str() {
        // Version 1's controller reads nothing behind the letter; what stands there has to mean something all the same.
        "" | "a" if is_access => "a".into(),
        "" | "a" => return Err(word("access", &rule.access, ACCESSES)),
        kind @ ("b" | "c") => {
            if rule.access.is_empty() || !is_access {
                return Err(word("access", &rule.access, ACCESSES));
            }
            format!("{kind} {}:{} {}", number(rule.major, "major")?, number(rule.minor, "minor")?, rule.access)
        }
        kind => return Err(word("type", kind, "a type of devices: must be one of a, b, c")),
    };
    Ok(Write::new(Controller::Devices, field(""), file, value))
}
