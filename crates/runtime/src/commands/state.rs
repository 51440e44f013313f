//! `state` and `list`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use cgroup::Hierarchies;
use serde::Serialize;

use super::{Context, OCI_VERSION, hierarchies, print};
use crate::arguments::{Parsed, UsageError};
use crate::error::CommandError;
use crate::state::{Place, Record, StateError, Status};

/// A container as runc prints it: the specification's state, and more.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    oci_version: &'static str,
    id: String,
    /// 0 without a process.
    pid: i32,
    status: &'static str,
    bundle: PathBuf,
    rootfs: PathBuf,
    created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    owner: String,
}

/// Prints one container.
pub(crate) fn state(context: &Context<'_>, id: &str) -> Result<u8, CommandError> {
    let place = context.store.open(id)?;
    let shown = shown(&place, place.load()?, hierarchies()?, String::new())?;
    print(&serde_json::to_string_pretty(&shown).expect("a state has only texts and numbers"))?;
    Ok(0)
}

/// Prints all containers.
pub(crate) fn list(context: &Context<'_>, flags: &Parsed) -> Result<u8, CommandError> {
    if !flags.words.is_empty() {
        return Err(UsageError::Words { command: "list", wanted: "exactly 0 argument(s)" }.into());
    }
    let json = match flags.value("format").unwrap_or("table") {
        "json" => true,
        "table" | "" => false,
        other => return Err(CommandError::Format { format: other.to_owned() }),
    };
    let ids = context.store.ids()?;
    if flags.is_on("quiet") {
        print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        return Ok(0);
    }
    let hierarchies = hierarchies()?;
    let mut all = Vec::new();
    for id in ids {
        let opened = context.store.open(&id).and_then(|place| {
            let owner = user_name(place.owner()?);
            shown(&place, place.load()?, hierarchies, owner)
        });
        match opened {
            Ok(shown) => all.push(shown),
            // It may have gone meanwhile; another one's error does not hide the rest.
            Err(err) => context.log.warning(&format!("load container {id}: {}", errdefs::chain(&err))),
        }
    }
    match json {
        true => print(&format!("{}\n", serde_json::to_string(&all).expect("states have only texts and numbers")))?,
        false => print(&table(&all))?,
    }
    Ok(0)
}

fn shown(place: &Place, record: Record, hierarchies: &Hierarchies, owner: String) -> Result<Shown, StateError> {
    let status = place.status(&record, hierarchies)?;
    let pid = record.process.filter(|_| status != Status::Stopped).map_or(0, |process| process.pid);
    Ok(Shown {
        oci_version: OCI_VERSION,
        id: record.id,
        pid,
        status: status.word(),
        bundle: record.bundle,
        rootfs: record.spec.root.path,
        created: record.created,
        annotations: record.spec.annotations,
        owner,
    })
}

/// The name of a user of the host, or `#` and the number, as runc prints it.
fn user_name(uid: u32) -> String {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut entries = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entries.find(|fields| fields.get(2).is_some_and(|field| *field == uid.to_string()));
    entry.map_or_else(|| format!("#{uid}"), |fields| fields[0].to_owned())
}

/// Columns of at least twelve letters, three between them (Go's tabwriter, as runc sets it).
fn table(all: &[Shown]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |shown: &Shown| {
        let bundle = shown.bundle.to_string_lossy().into_owned();
        let (pid, status) = (shown.pid.to_string(), shown.status.to_owned());
        [shown.id.clone(), pid, status, bundle, shown.created.clone(), shown.owner.clone()]
    };
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(all.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<_> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_runcs() {
        let shown = Shown {
            oci_version: OCI_VERSION,
            id: "x".into(),
            pid: 17186,
            status: "running",
            bundle: "/opt/bundles/some/b".into(),
            rootfs: "/".into(),
            created: "2026-11-21T07:06:57.761289547Z".into(),
            annotations: BTreeMap::new(),
            owner: "root".into(),
        };
        let expected = "\
ID          PID         STATUS      BUNDLE                CREATED                          OWNER
x           17186       running     /opt/bundles/some/b   2026-11-21T07:06:57.761289547Z   root
";
        assert_eq!(table(&[shown]), expected);
    }
}
