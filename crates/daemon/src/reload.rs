//! Reading daemon.json again, on SIGHUP.
//!
//! What counts at once does so from here on; of the rest it is said that it waits for the next start. A file that is bad
//! changes nothing. Certificates and keys of TLS are read again, too, from the same files: new connections are shown the new
//! ones. If they do not do, the old ones stay.

use std::path::PathBuf;
use std::time::Duration;

use engine::Engine;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, info, warn};

use crate::config::{self, Config};
use crate::file;
use crate::log::Volume;
use crate::settings::{Given, SETTINGS};
use crate::tls::{self, Tls};
use crate::trust;

/// What is needed to read the configuration again.
pub(crate) struct Reload {
    flags: Given,
    file: PathBuf,
    asked_for: bool,
    volume: Volume,
    /// Where certificates are.
    tls: Option<Tls>,
    /// What counts now.
    given: Given,
    grace: Duration,
}

impl Reload {
    /// Begins with what was read at the start: `given` is `flags` and the file together, `config` what follows.
    pub(crate) fn new(flags: Given, file: (PathBuf, bool), given: Given, config: &Config, volume: Volume) -> Reload {
        let tls = config.tls.clone();
        Reload { flags, file: file.0, asked_for: file.1, volume, tls, given, grace: grace(config) }
    }

    /// How long requests get to end when the daemon ends.
    pub(crate) fn shutdown_timeout(&self) -> Duration {
        self.grace
    }

    /// Reads the certificates again; none where there is no TLS, or they are not good.
    pub(crate) fn certificates(&self) -> Option<TlsAcceptor> {
        match tls::load(self.tls.as_ref()?) {
            Ok(acceptor) => Some(acceptor),
            Err(err) => {
                error!("the certificates stay as they were: {}", errdefs::chain(&err));
                None
            }
        }
    }

    /// Reads the configuration again.
    pub(crate) fn run(&mut self, engine: &Engine) {
        info!("Got signal to reload configuration, reloading from: {}", self.file.display());
        let given = match file::merge(&self.file, self.asked_for, self.flags.clone()) {
            Ok(given) => given,
            Err(err) => return error!("the configuration stays as it was: {}", errdefs::chain(&err)),
        };
        let mut config = match config::plan(&given) {
            Ok(config) => config,
            Err(err) => return error!("the configuration stays as it was: {}", errdefs::chain(&err)),
        };
        config.add_environment(|name| std::env::var(name).ok());
        if let Err(err) = trust::load_again(&mut config, engine.current.settings().trust.as_ref()) {
            return error!("the configuration stays as it was: {}", errdefs::chain(&err));
        }
        trust::idle(&config).iter().for_each(|sentence| warn!("trust policy: {sentence}"));
        let waiting = waiting(&self.given, &given);
        if !waiting.is_empty() {
            warn!("what changed counts when the daemon starts again: {}", waiting.join(", "));
        }
        self.volume.set(config.level);
        debug!("everything is logged from here on");
        self.grace = grace(&config);
        self.given = given;
        info!(configuration = %shown(&self.given), "Reloaded configuration");
        engine.reload(config.changeable);
    }
}

fn grace(config: &Config) -> Duration {
    Duration::from_secs(config.changeable.shutdown_timeout_seconds)
}

/// What differs and does not count at once, by the names in the file.
fn waiting(before: &Given, after: &Given) -> Vec<&'static str> {
    let differs = |flag: &&str| before.get(*flag) != after.get(*flag);
    let fixed = SETTINGS.iter().filter(|setting| !setting.reloadable && differs(&setting.flag));
    fixed.map(|setting| setting.key).collect()
}

/// Everything that is set, for the log.
fn shown(given: &Given) -> String {
    let pairs: Vec<String> = given.iter().map(|(flag, value)| format!("{flag}={}", value.shown())).collect();
    pairs.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Value;

    #[test]
    fn what_does_not_count_at_once_is_named() {
        let given =
            |bip: &str, debug| Given::from([("bip", Value::Text(bip.to_owned())), ("debug", Value::Switch(debug))]);
        let before = given("10.1.0.1/16", false);
        assert_eq!(waiting(&before, &given("10.1.0.1/16", true)), [""; 0]);
        assert_eq!(waiting(&before, &given("10.2.0.1/16", true)), ["bip"]);
        assert_eq!(waiting(&before, &Given::new()), ["bip"]);
        assert_eq!(waiting(&Given::new(), &before), ["bip"]);
    }
}
