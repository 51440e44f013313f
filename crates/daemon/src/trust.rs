//! Where the policy about images is.

use std::path::Path;

use engine::{TrustConfig, TrustConfigError};
use tracing::warn;

use crate::config::Config;

/// Taken where daemon.json names none, and there is one.
const DEFAULT: &str = "/etc/longshore/policy.json";

/// Reads the policy into the configuration: the one that is named, else the default one if it is there.
pub(crate) fn load(config: &mut Config) -> Result<(), TrustConfigError> {
    load_from(config, Path::new(DEFAULT))
}

/// The same while the daemon runs, with the policy that counts. It stays where there is none any more: a file that vanishes by
/// mistake must not open the door to everything.
pub(crate) fn load_again(config: &mut Config, current: Option<&TrustConfig>) -> Result<(), TrustConfigError> {
    load_again_from(config, current, Path::new(DEFAULT))
}

/// What of the policy is never asked, in sentences.
pub(crate) fn idle(config: &Config) -> &[String] {
    config.changeable.trust.as_ref().map_or(&[], |trust| trust.policy.idle())
}

fn load_from(config: &mut Config, default: &Path) -> Result<(), TrustConfigError> {
    let path = match &config.trust_policy {
        Some(path) => path.as_path(),
        // One that cannot be looked at is not absent: reading it says why.
        None if matches!(default.try_exists(), Ok(false)) => return Ok(()),
        None => default,
    };
    config.changeable.trust = Some(TrustConfig::load(path)?);
    Ok(())
}

fn load_again_from(config: &mut Config, current: Option<&TrustConfig>, default: &Path) -> Result<(), TrustConfigError> {
    load_from(config, default)?;
    if let (None, Some(current)) = (&config.changeable.trust, current) {
        warn!("there is no trust policy any more: that of {} counts until the next start", current.path.display());
        config.changeable.trust = Some(current.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config;
    use crate::settings::Given;

    #[test]
    fn a_policy_that_vanishes_still_counts() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("policy.json");
        let read = |current: Option<&TrustConfig>| {
            let mut config = config::plan(&Given::new()).unwrap();
            load_again_from(&mut config, current, &place).map(|()| config.changeable.trust)
        };
        assert_eq!(read(None).unwrap(), None);
        fs::write(&place, r#"{"default": [{"type": "reject"}]}"#).unwrap();
        let strict = read(None).unwrap().unwrap();
        fs::remove_file(&place).unwrap();
        assert_eq!(read(Some(&strict)).unwrap().as_ref(), Some(&strict));
        // Another one takes its place.
        fs::write(&place, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
        let open = read(Some(&strict)).unwrap().unwrap();
        assert_ne!(open, strict);
        // One that is named and is not there changes nothing at all.
        let mut config = config::plan(&Given::new()).unwrap();
        config.trust_policy = Some(directory.path().join("absent"));
        assert!(load_again_from(&mut config, Some(&strict), &place).is_err());
    }
}
