//! `buildx ls`, `buildx du`: what Docker's buildx tells of a daemon, in its columns.

use std::time::{SystemTime, UNIX_EPOCH};

use client::system;
use engine_api::disk_usage::CacheRecord;

use super::Context;
use super::disk_usage::since;
use crate::args::tables::Verb;
use crate::format::tabwriter::align_with;
use crate::format::units;
use crate::report::Exit;
use crate::say;

/// Between columns, in blanks.
const PADDING: usize = 3;

/// `buildx ls`, `buildx du`
pub(super) async fn run(context: &Context, verb: Verb) -> Result<(), Exit> {
    match verb {
        Verb::ListBuilders => list(context).await,
        _ => disk_usage(context).await,
    }
}

/// `buildx ls`: there is one builder, the daemon.
async fn list(context: &Context) -> Result<(), Exit> {
    let version = system::version(&context.client).await?;
    let rows = format!(
        "NAME/NODE\tDRIVER/ENDPOINT\tSTATUS\tVERSION\tPLATFORMS\ndefault*\tdocker\t\t\t\n \\_ default\t \\_ default\trunning\t{}\t{}/{}\n",
        version.version, version.os, version.arch
    );
    say!("{}", align_with(&rows, 0, PADDING));
    Ok(())
}

/// `buildx du`
async fn disk_usage(context: &Context) -> Result<(), Exit> {
    let usage = system::disk_usage(&context.client).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed();
    say!("{}", table(&usage.build_cache.unwrap_or_default(), now));
    Ok(())
}

fn table(records: &[CacheRecord], now: i64) -> String {
    let size = |bytes: i64| units::human_size(bytes as f64, 4);
    let mut rows = "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n".to_owned();
    for record in records {
        let last_used = since(record.last_used_at.as_deref().unwrap_or_default(), now);
        rows.push_str(&format!("{}\t{}\t{}\t{last_used}\n", record.id, !record.in_use, size(record.size)));
    }
    let sum = |counts: &dyn Fn(&CacheRecord) -> bool| {
        size(records.iter().filter(|record| counts(record)).map(|record| record.size).sum())
    };
    let mut text = align_with(&rows, 0, PADDING);
    let totals = format!("Reclaimable:\t{}\nTotal:\t{}\n", sum(&|record| !record.in_use), sum(&|_| true));
    text.push_str(&align_with(&totals, 0, PADDING));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_builds_keep_has_columns() {
        let record = |id: &str, size, in_use| CacheRecord { id: id.to_owned(), size, in_use, ..CacheRecord::default() };
        let records = [record("a", 1000, false), record("long", 500, true)];
        let wanted = "ID     RECLAIMABLE   SIZE   LAST ACCESSED\na      true          1kB    \nlong   false         500B   \n\
                      Reclaimable:   1kB\nTotal:         1.5kB\n";
        assert_eq!(table(&records, 0), wanted);
    }
}
