//! layers.toml against the manifests: who may depend on whom.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::Finding;
use super::tree::Manifest;

/// What layers.toml says of a crate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) level: i64,
    /// `pure`, `sync` or `async`.
    pub(super) flavour: String,
    pub(super) deps: Vec<String>,
    /// May hold `unsafe`.
    pub(super) may_be_unsafe: bool,
    pub(super) portable: bool,
}

/// Libraries that need an async runtime: the beginnings of their names.
const ASYNC_LIBRARIES: [&str; 7] = ["tokio", "hyper", "tonic", "reqwest", "futures", "tower", "async-"];
/// Portable although layers.toml does not say so at their line: its head does.
const ALSO_PORTABLE: [&str; 3] = ["stdx", "client", "compose"];

pub(super) fn parse_layers(text: &str) -> Result<BTreeMap<String, Layer>> {
    let table: Table = text.parse().context("parse layers.toml")?;
    let crates = table.get("crates").and_then(Value::as_table).context("layers.toml has no [crates]")?;
    crates.iter().map(|(name, value)| Ok((name.clone(), parse_layer(name, value)?))).collect()
}

fn parse_layer(name: &str, value: &Value) -> Result<Layer> {
    let deps = value.get("deps").and_then(Value::as_array).with_context(|| format!("{name}: no deps"))?;
    let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or(false);
    Ok(Layer {
        level: value.get("level").and_then(Value::as_integer).with_context(|| format!("{name}: no level"))?,
        flavour: value.get("flavour").and_then(Value::as_str).with_context(|| format!("{name}: no flavour"))?.into(),
        deps: deps.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        may_be_unsafe: flag("unsafe"),
        portable: flag("portable"),
    })
}

/// The crates that must build for other systems, with everything they use.
pub(super) fn portable(layers: &BTreeMap<String, Layer>) -> BTreeSet<String> {
    let marked = layers.iter().filter(|(_, layer)| layer.portable).map(|(name, _)| name.as_str());
    let mut open: Vec<&str> = marked.chain(ALSO_PORTABLE).collect();
    let mut found = BTreeSet::new();
    while let Some(name) = open.pop() {
        if found.insert(name.to_owned()) {
            open.extend(layers.get(name).into_iter().flat_map(|layer| layer.deps.iter().map(String::as_str)));
        }
    }
    found
}

pub(super) fn check(layers: &BTreeMap<String, Layer>, manifests: &[Manifest]) -> Vec<Finding> {
    let mut findings = check_graph(layers);
    for manifest in manifests {
        let Ok(table) = manifest.text.parse::<Table>() else {
            findings.push(Finding::new(&manifest.path, 1, "not TOML"));
            continue;
        };
        if table.get("lints").and_then(|lints| lints.get("workspace")) != Some(&Value::Boolean(true)) {
            let message = "no `[lints] workspace = true`: the workspace's lints forbid unsafe code";
            findings.push(Finding::new(&manifest.path, 1, message));
        }
        if manifest.path.starts_with("crates") {
            match layers.get(&manifest.name) {
                Some(layer) => findings.extend(check_crate(layers, layer, manifest, &table)),
                None => {
                    let message = format!("crate {} is not in layers.toml: give it a level there", manifest.name);
                    findings.push(Finding::new(&manifest.path, 1, message));
                }
            }
        }
    }
    findings
}

/// layers.toml must obey itself: strictly downwards, and nothing async below a sync crate.
fn check_graph(layers: &BTreeMap<String, Layer>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, layer) in layers {
        for dep in &layer.deps {
            let problem = match layers.get(dep) {
                None => format!("{name} lists {dep}, which has no line"),
                Some(below) if below.level >= layer.level => {
                    format!("{name} (level {}) lists {dep} (level {}): not strictly lower", layer.level, below.level)
                }
                Some(below) if below.flavour == "async" && layer.flavour != "async" => {
                    format!("{name} is {} and lists {dep}, which is async", layer.flavour)
                }
                Some(_) => continue,
            };
            findings.push(Finding::new("layers.toml", 1, problem));
        }
    }
    findings
}

fn check_crate(layers: &BTreeMap<String, Layer>, layer: &Layer, manifest: &Manifest, table: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    for dep in dependencies(table) {
        let line = line_of(&manifest.text, &dep);
        if layers.contains_key(&dep) && !layer.deps.contains(&dep) {
            let message = format!("layers.toml does not let {} depend on {dep}: move the code down", manifest.name);
            findings.push(Finding::new(&manifest.path, line, message));
        }
        if layer.flavour != "async" && ASYNC_LIBRARIES.iter().any(|library| dep.starts_with(library)) {
            let message = format!("{} is {} in layers.toml: {dep} needs an async crate", manifest.name, layer.flavour);
            findings.push(Finding::new(&manifest.path, line, message));
        }
    }
    findings
}

/// What the crate links: its dependencies for every target; not what only its tests or build script use.
fn dependencies(table: &Table) -> BTreeSet<String> {
    let own = table.get("dependencies").and_then(Value::as_table);
    let targets = table.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let targeted = targets.filter_map(|target| target.get("dependencies").and_then(Value::as_table));
    let entries = own.into_iter().chain(targeted).flat_map(Table::iter);
    entries.map(|(key, value)| value.get("package").and_then(Value::as_str).unwrap_or(key).to_owned()).collect()
}

fn line_of(text: &str, dep: &str) -> usize {
    let names = |line: &str| line.trim_start().strip_prefix(dep).is_some_and(|rest| rest.starts_with([' ', '=', '.']));
    text.lines().position(names).map_or(1, |index| index + 1)
}
