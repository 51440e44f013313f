//! Build arguments and where they are known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dockerfile::{Arg, Fault};

/// Arguments that need no `ARG`, and do not count as different.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The longest arguments and the longest environment of a build, each together: no kernel starts a program with more.
pub(crate) const VALUES_MAX: usize = 4 * 1024 * 1024;

/// What is built on, and for: `os`, `architecture`, `variant`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platforms {
    /// This machine.
    pub build: [String; 3],
    /// Where the image will run.
    pub target: [String; 3],
}

/// The arguments of a build, as one of its stages knows them.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// What the user said; of all stages together.
    given: Arc<BTreeMap<String, Option<String>>>,
    /// Those before the first stage; of all stages together.
    global: Arc<BTreeMap<String, Option<String>>>,
    /// Those of this stage.
    known: BTreeMap<String, Option<String>>,
    /// Every name that an `ARG` had.
    named: BTreeSet<String>,
}

impl Arguments {
    /// What the user gave, and what the platforms are.
    pub fn new(given: BTreeMap<String, Option<String>>, platforms: &Platforms) -> Arguments {
        let mut global = BTreeMap::new();
        for (prefix, [os, architecture, variant]) in [("BUILD", &platforms.build), ("TARGET", &platforms.target)] {
            let whole = [os, architecture, variant].map(String::as_str).join("/");
            for (name, value) in [
                ("PLATFORM", whole.trim_end_matches('/')),
                ("OS", os.as_str()),
                ("ARCH", architecture),
                ("VARIANT", variant),
            ] {
                global.insert(format!("{prefix}{name}"), Some(value.to_owned()));
            }
        }
        Arguments { given: Arc::new(given), global: Arc::new(global), ..Arguments::default() }
    }

    /// An `ARG` before the first stage.
    pub fn add_global(&mut self, arg: &Arg) {
        self.add(arg);
        // One without a value means what is known already.
        if arg.default.is_some() || !self.global.contains_key(&arg.name) {
            Arc::make_mut(&mut self.global).insert(arg.name.clone(), arg.default.clone());
        }
    }

    /// An `ARG` of the stage.
    pub fn add(&mut self, arg: &Arg) {
        self.known.insert(arg.name.clone(), arg.default.clone());
        self.named.insert(arg.name.clone());
    }

    /// The same as BuildKit does it: one that brings no value changes none. Answers whether it brings one.
    pub fn add_value(&mut self, arg: &Arg) -> bool {
        let has_value = |values: &BTreeMap<String, Option<String>>| values.get(&arg.name).is_some_and(Option::is_some);
        let brings = arg.default.is_some() || has_value(&self.given) || has_value(&self.global);
        match brings || !self.known.contains_key(&arg.name) {
            true => self.add(arg),
            false => drop(self.named.insert(arg.name.clone())),
        }
        brings
    }

    /// Refuses more than any command could be given.
    pub fn check(&self) -> Result<(), Fault> {
        let sizes = self.global.iter().chain(&self.known);
        let bytes: usize = sizes.map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len)).sum();
        if bytes > VALUES_MAX { Err(Fault::TooLong) } else { Ok(()) }
    }

    /// The same for another stage, in which none is known yet.
    pub fn for_stage(&self) -> Arguments {
        Arguments { given: self.given.clone(), global: self.global.clone(), ..Arguments::default() }
    }

    /// The same for a stage that begins with this one: as with BuildKit it knows what this one knows.
    pub fn for_child(&self) -> Arguments {
        Arguments { known: self.known.clone(), ..self.for_stage() }
    }

    /// What those of a stage take, in bytes.
    pub fn stage_bytes(&self) -> usize {
        self.known.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len)).sum()
    }

    /// What a stage has named.
    pub fn merge(&mut self, stage: &Arguments) {
        self.named.extend(stage.named.iter().cloned());
    }

    /// What the user gave that no `ARG` names.
    pub fn unused(&self) -> Vec<String> {
        let unused = self.given.keys().filter(|name| !PROXIES.contains(&name.as_str()) && !self.named.contains(*name));
        unused.cloned().collect()
    }

    /// The value that a `FROM` sees.
    pub fn global(&self, name: &str) -> Option<String> {
        self.value(name, &self.global)
    }

    /// The value that an instruction sees.
    pub fn get(&self, name: &str) -> Option<String> {
        self.value(name, &self.known)
    }

    fn value(&self, name: &str, scope: &BTreeMap<String, Option<String>>) -> Option<String> {
        let own = scope.get(name);
        if own.is_none() && !PROXIES.contains(&name) {
            return None;
        }
        if let Some(Some(value)) = self.given.get(name) {
            return Some(value.clone());
        }
        match own? {
            Some(value) => Some(value.clone()),
            None => self.global.get(name).cloned().flatten(),
        }
    }

    /// What commands see: `NAME=VALUE`, but for what `env` says.
    pub fn environment(&self, env: &[String]) -> Vec<String> {
        let names: BTreeSet<&str> = self.known.keys().map(String::as_str).chain(PROXIES).collect();
        let is_said = |name: &str| env.iter().any(|entry| entry.split_once('=').is_some_and(|(own, _)| own == name));
        let values = names.into_iter().filter(|name| !is_said(name));
        values.filter_map(|name| Some(format!("{name}={}", self.get(name)?))).collect()
    }

    /// Whether the outcome depends on it: a proxy that no `ARG` names is no part of it.
    pub fn counts(&self, entry: &str) -> bool {
        let name = entry.split_once('=').map_or(entry, |(name, _)| name);
        self.known.contains_key(name) || !PROXIES.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arg(name: &str, default: Option<&str>) -> Arg {
        Arg { name: name.into(), default: default.map(str::to_owned) }
    }

    #[test]
    fn arguments_are_known_where_they_were_named() {
        let given = [("A", Some("user")), ("HTTP_PROXY", Some("p")), ("LOST", Some("x")), ("NIL", None)];
        let given = given.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        let platform = ["linux", "amd64", ""].map(str::to_owned);
        let platforms = Platforms { build: platform.clone(), target: platform };
        let mut all = Arguments::new(given.into(), &platforms);
        all.add_global(&arg("A", Some("default")));
        all.add_global(&arg("G", Some("global")));
        assert_eq!(all.global("A").as_deref(), Some("user"));
        assert_eq!(all.global("TARGETPLATFORM").as_deref(), Some("linux/amd64"));
        let mut stage = all.for_stage();
        assert_eq!(stage.get("G"), None);
        stage.add(&arg("G", None));
        stage.add(&arg("B", Some("b")));
        stage.add(&arg("TARGETARCH", None));
        stage.add(&arg("NONE", None));
        assert_eq!(stage.environment(&["B=env".into()]), ["G=global", "HTTP_PROXY=p", "TARGETARCH=amd64"]);
        assert!(!stage.counts("HTTP_PROXY=p") && stage.counts("G=global"));
        assert_eq!(stage.for_child().get("B").as_deref(), Some("b"));
        assert_eq!(stage.stage_bytes(), "GBbTARGETARCHNONE".len());
        all.merge(&stage);
        assert_eq!(all.unused(), ["LOST", "NIL"]);
    }

    #[test]
    fn arguments_are_bounded_together() {
        let value = "x".repeat(1024 * 1024);
        let mut all = Arguments::default();
        for index in 0..3 {
            all.add_global(&Arg { name: format!("A{index}"), default: Some(value.clone()) });
        }
        // An argument before the first stage is known there, too.
        assert_eq!(all.for_stage().check(), Ok(()));
        let mut stage = all.for_stage();
        stage.add(&arg("B", Some(&value)));
        assert_eq!(stage.check(), Err(Fault::TooLong));
    }
}
