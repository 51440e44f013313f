//! The image's defaults, put where the request is silent.

use std::collections::BTreeMap;

use engine_api::container::Config;
use engine_api::paths::clean;
use oci::image::{ExecConfig, Healthcheck};

use crate::validate::InvalidRequest;

/// Completes `config` from the image: what the request says wins.
///
/// Environment and labels are merged by name. A request with an entry point loses the image's command, too, for that
/// holds arguments of another program. Fails if there is nothing to run.
pub fn merge_image(config: &mut Config, image: &ExecConfig) -> Result<(), InvalidRequest> {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    merge_set(&mut config.exposed_ports, &image.exposed_ports);
    merge_env(&mut config.env, &image.env);
    // Not where there is no image: dockerd shows null then.
    if config.labels.is_none() && !config.image.is_empty() {
        config.labels = Some(BTreeMap::new());
    }
    for (name, value) in image.labels.iter().flatten() {
        let labels = config.labels.get_or_insert_default();
        labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    merge_command(config, image);
    // `--entrypoint ""` is sent as one empty word: no entry point, and neither the image's nor its command.
    config.entrypoint.take_if(|words| words.iter().eq([""]));
    merge_healthcheck(config, image);
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    if !config.working_dir.is_empty() {
        // An image's may be relative, too: to the root.
        config.working_dir = clean(&format!("/{}", config.working_dir));
    }
    merge_set(&mut config.volumes, &image.volumes);
    if config.stop_signal.is_empty() {
        config.stop_signal.clone_from(&image.stop_signal);
    }
    if config.shell.is_none() {
        config.shell.clone_from(&image.shell);
    }
    if is_empty(&config.entrypoint) && is_empty(&config.cmd) {
        return Err(InvalidRequest::NoCommand);
    }
    Ok(())
}

fn is_empty(list: &Option<Vec<String>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

fn merge_set<V: Clone>(ours: &mut Option<BTreeMap<String, V>>, image: &Option<BTreeMap<String, V>>) {
    match (ours.as_mut(), image) {
        (Some(ours), Some(image)) if !ours.is_empty() => {
            for (name, value) in image {
                ours.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        (Some(ours), _) if !ours.is_empty() => {}
        _ => ours.clone_from(image),
    }
}

fn merge_env(ours: &mut Option<Vec<String>>, image: &Option<Vec<String>>) {
    if is_empty(ours) {
        ours.clone_from(image);
        return;
    }
    let ours = ours.get_or_insert_default();
    for entry in image.iter().flatten() {
        let name = variable_name(entry);
        if !ours.iter().any(|own| variable_name(own) == name) {
            ours.push(entry.clone());
        }
    }
}

fn variable_name(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

fn merge_command(config: &mut Config, image: &ExecConfig) {
    // An entry point that is present but empty resets the image's; one that is absent takes it over.
    if !is_empty(&config.entrypoint) {
        return;
    }
    if is_empty(&config.cmd) {
        config.cmd.clone_from(&image.cmd);
    }
    if config.entrypoint.is_none() {
        config.entrypoint.clone_from(&image.entrypoint);
    }
}

fn merge_healthcheck(config: &mut Config, image: &ExecConfig) {
    let Some(default) = &image.healthcheck else { return };
    if config.healthcheck.as_ref().is_some_and(is_disabled) {
        return;
    }
    let check = config.healthcheck.get_or_insert_default();
    if is_empty(&check.test) {
        check.test.clone_from(&default.test);
    }
    for (own, default) in [
        (&mut check.interval, default.interval),
        (&mut check.timeout, default.timeout),
        (&mut check.start_period, default.start_period),
        (&mut check.start_interval, default.start_interval),
        (&mut check.retries, default.retries),
    ] {
        if *own == 0 {
            *own = default;
        }
    }
}

/// Whether a health check is the one that switches health checks off.
fn is_disabled(check: &Healthcheck) -> bool {
    check.test.as_ref().and_then(|test| test.first()).is_some_and(|word| word == "NONE")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| word.to_string()).collect())
    }

    #[test]
    fn entry_point_and_command_follow_docker() {
        let image = ExecConfig { entrypoint: list(&["/init"]), cmd: list(&["serve"]), ..ExecConfig::default() };
        for (entrypoint, cmd, expected) in [
            (None, None, Some((list(&["/init"]), list(&["serve"])))),
            (None, list(&["x"]), Some((list(&["/init"]), list(&["x"])))),
            (list(&["sh"]), None, Some((list(&["sh"]), None))),
            (list(&["sh"]), list(&["-c"]), Some((list(&["sh"]), list(&["-c"])))),
            (list(&[]), None, Some((list(&[]), list(&["serve"])))),
            (list(&[]), list(&["x"]), Some((list(&[]), list(&["x"])))),
            (list(&[""]), list(&["x"]), Some((None, list(&["x"])))),
            (list(&[""]), None, None),
        ] {
            let mut config = Config { entrypoint, cmd, ..Config::default() };
            let merged = merge_image(&mut config, &image).ok().map(|_| (config.entrypoint, config.cmd));
            assert_eq!(merged, expected);
        }
        let nothing = merge_image(&mut Config::default(), &ExecConfig::default()).unwrap_err();
        assert_eq!(nothing.to_string(), "no command specified");
    }

    #[test]
    fn environment_and_labels_are_merged_by_name() {
        let labels = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<BTreeMap<_, _>>())
        };
        let image = ExecConfig {
            env: list(&["PATH=/bin", "A=image"]),
            cmd: list(&["sh"]),
            labels: labels(&[("a", "image"), ("b", "image")]),
            ..ExecConfig::default()
        };
        let mut config = Config { env: list(&["A=own", "PATH"]), labels: labels(&[("a", "own")]), ..Config::default() };
        merge_image(&mut config, &image).unwrap();
        assert_eq!(config.env, list(&["A=own", "PATH"]));
        assert_eq!(config.labels, labels(&[("a", "own"), ("b", "image")]));
    }
}
