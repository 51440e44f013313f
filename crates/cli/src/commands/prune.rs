//! `system prune`, `image prune`, `network prune` and `builder prune`.

use client::{container, image, network, system, volume};
use engine_api::image::Deleted;
use engine_api::size;

use super::Context;
use crate::args::Parsed;
use crate::format::units;
use crate::plan::filters;
use crate::report::Exit;
use crate::signals::Caught;
use crate::{say_line, term};

/// What was freed, and what is said of it; nothing where nothing is gone.
#[derive(Debug, Default, PartialEq, Eq)]
struct Freed {
    bytes: u64,
    report: String,
}

/// `image prune`
pub async fn images(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let which =
        if parsed.flag("all") { "images without at least one container associated to them" } else { "dangling images" };
    let question = format!("WARNING! This will remove all {which}.\nAre you sure you want to continue?");
    if !parsed.flag("force") && !confirm(&question).await? {
        return Ok(());
    }
    let freed = prune_images(context, parsed.flag("all"), &context.prune_filters(parsed)).await?;
    if !freed.report.is_empty() {
        say_line!("{}", freed.report);
    }
    say_total(freed.bytes);
    Ok(())
}

/// `network prune`
pub async fn networks(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let question = "WARNING! This will remove all custom networks not used by at least one container.\n\
                    Are you sure you want to continue?";
    if !parsed.flag("force") && !confirm(question).await? {
        return Ok(());
    }
    let report = prune_networks(context, &context.prune_filters(parsed)).await?.report;
    if !report.is_empty() {
        say_line!("{report}");
    }
    Ok(())
}

/// `builder prune`
pub async fn caches(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let which = if parsed.flag("all") { "all build cache" } else { "all dangling build cache" };
    let question = format!("WARNING! This will remove {which}. Are you sure you want to continue?");
    if !parsed.flag("force") && !confirm(&question).await? {
        return Ok(());
    }
    let limit = |name: &'static str| {
        // The flag was checked when it was read.
        let bytes = size::parse(parsed.text(name), size::Units::Binary).ok().filter(|bytes| *bytes > 0)?;
        Some((name, bytes.to_string()))
    };
    let limits = ["keep-storage", "reserved-space", "max-used-space", "min-free-space"].into_iter().filter_map(limit);
    let limits: Vec<(&str, String)> = limits.collect();
    let freed = prune_caches(context, parsed.flag("all"), &limits, &context.prune_filters(parsed)).await?;
    if !freed.report.is_empty() {
        say_line!("{}", freed.report);
    }
    say_total(freed.bytes);
    Ok(())
}

/// `system prune`
pub async fn everything(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let (all, volumes, given) = (parsed.flag("all"), parsed.flag("volumes"), &context.prune_filters(parsed)[..]);
    if volumes && given.iter().any(|filter| filter.starts_with("until=")) {
        return Err(Exit::new(1, "ERROR: The \"until\" filter is not supported with \"--volumes\""));
    }
    if !parsed.flag("force") && !confirm(&question(all, volumes, given)).await? {
        return Ok(());
    }
    let mut freed = vec![prune_containers(context, given).await?, prune_networks(context, given).await?];
    if volumes {
        freed.push(prune_volumes(context, given).await?);
    }
    freed.push(prune_images(context, all, given).await?);
    freed.push(prune_caches(context, all, &[], given).await?);
    for part in freed.iter().filter(|part| !part.report.is_empty()) {
        say_line!("{}", part.report);
    }
    say_total(freed.iter().map(|part| part.bytes).sum());
    Ok(())
}

/// What is asked before everything is removed. Pure.
fn question(all: bool, volumes: bool, given: &[String]) -> String {
    let mut warnings = vec!["all stopped containers", "all networks not used by at least one container"];
    warnings.extend(volumes.then_some("all anonymous volumes not used by at least one container"));
    warnings.extend(match all {
        true => ["all images without at least one container associated to them", "all build cache"],
        false => ["all dangling images", "unused build cache"],
    });
    let mut text = "WARNING! This will remove:\n".to_owned();
    let mut lines = |indent: &str, items: &[&str]| items.iter().for_each(|item| text += &format!("{indent}- {item}\n"));
    lines("  ", &warnings);
    let mut filters: Vec<&str> = given.iter().map(String::as_str).collect();
    filters.sort_unstable();
    if !filters.is_empty() {
        lines("", &[]);
        text += "\n  Items to be pruned will be filtered with:\n";
        filters.iter().for_each(|filter| text += &format!("  - {filter}\n"));
    }
    text + "\nAre you sure you want to continue?"
}

async fn prune_containers(context: &Context, given: &[String]) -> Result<Freed, Exit> {
    let pruned = container::prune(&context.client, &encode(given, None)).await?;
    Ok(freed("Deleted Containers:", &pruned.containers_deleted.unwrap_or_default(), pruned.space_reclaimed))
}

async fn prune_networks(context: &Context, given: &[String]) -> Result<Freed, Exit> {
    let pruned = network::prune(&context.client, &encode(given, None)).await?;
    Ok(freed("Deleted Networks:", &pruned.networks_deleted.unwrap_or_default(), 0))
}

async fn prune_volumes(context: &Context, given: &[String]) -> Result<Freed, Exit> {
    let pruned = volume::prune(&context.client, &encode(given, None)).await?;
    Ok(freed("Deleted Volumes:", &pruned.volumes_deleted, pruned.space_reclaimed))
}

async fn prune_images(context: &Context, all: bool, given: &[String]) -> Result<Freed, Exit> {
    let dangling = if all { "dangling=false" } else { "dangling=true" };
    let pruned = image::prune(&context.client, &encode(given, Some(dangling))).await?;
    let line = |deleted: &Deleted| match deleted {
        Deleted::Untagged(name) => format!("untagged: {name}"),
        Deleted::Deleted(id) => format!("deleted: {id}"),
    };
    let lines: Vec<String> = pruned.images_deleted.unwrap_or_default().iter().map(line).collect();
    Ok(freed("Deleted Images:", &lines, pruned.space_reclaimed))
}

async fn prune_caches(
    context: &Context,
    all: bool,
    limits: &[(&str, String)],
    given: &[String],
) -> Result<Freed, Exit> {
    let mut options = Vec::new();
    options.extend(all.then_some(("all", "1")));
    options.extend(limits.iter().map(|(name, bytes)| (*name, bytes.as_str())));
    let pruned = system::prune_caches(&context.client, &encode(given, None), &options).await?;
    Ok(freed("Deleted build cache objects:", &pruned.caches_deleted.unwrap_or_default(), pruned.space_reclaimed))
}

fn encode(given: &[String], further: Option<&str>) -> String {
    filters::encode(given.iter().map(String::as_str).chain(further))
}

fn freed(title: &str, lines: &[String], bytes: u64) -> Freed {
    match lines {
        [] => Freed::default(),
        lines => Freed { bytes, report: format!("{title}\n{}\n", lines.join("\n")) },
    }
}

fn say_total(bytes: u64) {
    say_line!("Total reclaimed space: {}", units::human_size(bytes as f64, 4));
}

/// Asks on standard output; anything but `y` is a no, and so is a signal that ends us.
pub(super) async fn confirm(question: &str) -> Result<bool, Exit> {
    let caught = &mut Caught::ending();
    let question = format!("{question} [y/N] ");
    tokio::select! {
        // A signal counts before the end of the input that it may bring.
        biased;
        _ = caught.next() => {
            say_line!("");
            Ok(false)
        }
        typed = term::ask(question) => {
            let typed = typed.map_err(|err| Exit::error(&err))?;
            Ok(typed.trim().eq_ignore_ascii_case("y"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_what_goes() {
        expect_test::expect![[r#"
            WARNING! This will remove:
              - all stopped containers
              - all networks not used by at least one container
              - all anonymous volumes not used by at least one container
              - all images without at least one container associated to them
              - all build cache

              Items to be pruned will be filtered with:
              - label!=b
              - label=a

            Are you sure you want to continue?"#]]
        .assert_eq(&question(true, true, &["label=a".to_owned(), "label!=b".to_owned()]));
        assert!(question(false, false, &[]).ends_with("  - unused build cache\n\nAre you sure you want to continue?"));
    }

    #[test]
    fn nothing_gone_is_nothing_said() {
        assert_eq!(freed("Deleted Networks:", &[], 5), Freed::default());
        assert_eq!(freed("Deleted Volumes:", &["a".into(), "b".into()], 5).report, "Deleted Volumes:\na\nb\n");
    }
}
