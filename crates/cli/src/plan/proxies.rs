//! `proxies` of config.json: variables for the programs in new containers.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The proxies of one daemon's containers; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Proxies {
    /// `HTTP_PROXY`
    pub http_proxy: String,
    /// `HTTPS_PROXY`
    pub https_proxy: String,
    /// `NO_PROXY`
    pub no_proxy: String,
    /// `FTP_PROXY`
    pub ftp_proxy: String,
    /// `ALL_PROXY`
    pub all_proxy: String,
}

/// The variables for containers of the daemon at `host`: its own proxies, else those of `default`. Each in capitals and in
/// small letters (programs read one or the other), but for those that the command line has, in `given`.
pub fn variables(proxies: &BTreeMap<String, Proxies>, host: &str, given: &[String]) -> Vec<String> {
    let Some(wanted) = proxies.get(host).or_else(|| proxies.get("default")) else { return Vec::new() };
    let names = [
        ("HTTP_PROXY", &wanted.http_proxy),
        ("HTTPS_PROXY", &wanted.https_proxy),
        ("NO_PROXY", &wanted.no_proxy),
        ("FTP_PROXY", &wanted.ftp_proxy),
        ("ALL_PROXY", &wanted.all_proxy),
    ];
    let is_given = |name: &str| given.iter().any(|text| text.split('=').next() == Some(name));
    let both = names.into_iter().flat_map(|(name, value)| [(name.to_owned(), value), (name.to_lowercase(), value)]);
    let wanted = both.filter(|(name, value)| !value.is_empty() && !is_given(name));
    wanted.map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemons_own_proxies_stand_for_the_default_ones_and_the_command_line_for_both() {
        let text = r#"{"default":{"httpProxy":"http://a","noProxy":"b"},"tcp://h:1":{"ftpProxy":"c","allProxy":""}}"#;
        let proxies: BTreeMap<String, Proxies> = serde_json::from_str(text).unwrap();
        let of = |host: &str, given: &[&str]| {
            let given: Vec<_> = given.iter().map(|&text| text.to_owned()).collect();
            variables(&proxies, host, &given)
        };
        assert_eq!(of("unix:///x", &[]), ["HTTP_PROXY=http://a", "http_proxy=http://a", "NO_PROXY=b", "no_proxy=b"]);
        assert_eq!(of("unix:///x", &["http_proxy=", "NO_PROXY"]), ["HTTP_PROXY=http://a", "no_proxy=b"]);
        assert_eq!(of("tcp://h:1", &["HTTP_PROXYS=x"]), ["FTP_PROXY=c", "ftp_proxy=c"]);
        assert_eq!(variables(&BTreeMap::new(), "unix:///x", &[]), [""; 0]);
    }
}
