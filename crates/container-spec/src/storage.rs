//! How much a container's own files may take: `--storage-opt size=10G`. The sentences are those of dockerd's storage driver.

use engine_api::host_config::HostConfig;
use engine_api::size::{self, Units};

use crate::facts::HostFacts;
use crate::validate::InvalidRequest;

/// The only option, in any case.
const SIZE: &str = "size";

pub(crate) fn validate(host: &HostConfig, facts: &HostFacts) -> Result<(), InvalidRequest> {
    // Before anything else, and only in lower case.
    if !facts.size_limits && host.storage_opt.iter().flatten().any(|(name, _)| name == SIZE) {
        return Err(InvalidRequest::NoProjectQuota);
    }
    match size_bytes(host)? {
        Some(1..) if !facts.size_limits => Err(InvalidRequest::NoProjectQuota),
        _ => Ok(()),
    }
}

/// The size that the request asks for, if it says one; 0 is no limit, whatever the daemon's default is.
pub fn size_bytes(host: &HostConfig) -> Result<Option<u64>, InvalidRequest> {
    let mut bytes = None;
    for (name, value) in host.storage_opt.iter().flatten() {
        let name = name.to_lowercase();
        if name != SIZE {
            return Err(InvalidRequest::StorageOption { name });
        }
        let parsed = size::parse(value, Units::Binary).map_err(InvalidRequest::StorageSize)?;
        bytes = Some(u64::try_from(parsed).unwrap_or(0));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::facts;

    /// What is said where no size can be kept, and what is wanted where it can.
    fn outcomes(options: &[(&str, &str)]) -> (String, String) {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let host = HostConfig { storage_opt: Some(options), ..HostConfig::default() };
        let with = HostFacts { size_limits: true, ..facts() };
        let said = |facts| validate(&host, facts).map_or_else(|err| err.to_string(), |()| String::new());
        let wanted = match size_bytes(&host) {
            Ok(bytes) => format!("{bytes:?}"),
            Err(err) => err.to_string(),
        };
        let (without, with) = (said(&facts()), said(&with));
        (without, if with.is_empty() { wanted } else { with })
    }

    #[test]
    fn sizes_are_kept_or_refused_in_dockerds_words() {
        let refused = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option, or over ext4 with 'prjquota'";
        let number = "strconv.ParseFloat: parsing \"1.2.3\": invalid syntax";
        for (options, without, with) in [
            (&[][..], "", "None"),
            (&[("size", "10m")], refused, "Some(10485760)"),
            (&[("size", "1.5 GiB")], refused, "Some(1610612736)"),
            (&[("size", "0")], refused, "Some(0)"),
            (&[("size", "abc")], refused, "invalid size: 'abc'"),
            (&[("size", "")], refused, "invalid size: ''"),
            (&[("Size", "0")], "", "Some(0)"),
            (&[("SIZE", "7k")], refused, "Some(7168)"),
            (&[("SIZE", "5zz")], "invalid suffix: 'zz'", "invalid suffix: 'zz'"),
            (&[("Size", "1.2.3")], number, number),
            (&[("FOO", "1")], "Unknown option foo", "Unknown option foo"),
            (&[("foo", "1"), ("size", "1m")], refused, "Unknown option foo"),
        ] {
            assert_eq!(outcomes(options), (without.to_owned(), with.to_owned()), "{options:?}");
        }
    }
}
