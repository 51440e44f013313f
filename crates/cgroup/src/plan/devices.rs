//! Device rules as files of version 1. With version 2 they are a program ([`crate::devices`]), of the same checked rules.

use oci::runtime::DeviceRule;

use super::{PlanError, Write};
use crate::facts::{Controller, Version};

pub(super) fn plan(rules: &[DeviceRule], version: Version) -> Result<Vec<Write>, PlanError> {
    let mut writes: Vec<Write> = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let write = file(index, rule)?;
        // What is said already, and not unsaid since, costs a system call for nothing.
        let said = writes.iter().rev().take_while(|last| last.file == write.file).any(|last| *last == write);
        if version == Version::V1 && !said {
            writes.push(write);
        }
    }
    Ok(writes)
}

fn file(index: usize, rule: &DeviceRule) -> Result<Write, PlanError> {
    let file = if rule.allow { "devices.allow" } else { "devices.deny" };
    let known = |access: &str| access.bytes().all(|letter| b"rwm".contains(&letter));
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok("*".to_owned()),
        // Beyond 32 bits it would be another device's in the program of version 2.
        Some(number) if u32::try_from(number).is_ok() => Ok(number.to_string()),
        Some(number) => Err(PlanError::DeviceNumber { index, number }),
    };
    let value = match rule.kind.as_str() {
        // Version 1's controller reads nothing behind the letter.
        "" | "a" => "a".into(),
        kind @ ("b" | "c") if known(&rule.access) && !rule.access.is_empty() => {
            format!("{kind} {}:{} {}", number(rule.major)?, number(rule.minor)?, rule.access)
        }
        _ => return Err(PlanError::DeviceRule { index, kind: rule.kind.clone(), access: rule.access.clone() }),
    };
    Ok(Write::new(Controller::Devices, "linux.resources.devices", file, value))
}
