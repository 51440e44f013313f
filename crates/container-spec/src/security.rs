//! `--security-opt`.

use engine_api::host_config::HostConfig;

use crate::facts::HostFacts;
use crate::validate::InvalidRequest;

/// Which system-call filter a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeccompChoice<'a> {
    /// Docker's default profile.
    Default,
    /// None.
    Unconfined,
    /// The user's: its JSON text.
    Profile(&'a str),
}

/// What the security options of a request say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecurityOptions<'a> {
    /// Programs gain no privileges.
    pub no_new_privileges: bool,
    /// The cgroup file system can be written.
    pub writable_cgroups: bool,
    /// The system-call filter.
    pub seccomp: SeccompChoice<'a>,
    /// The profile of AppArmor as it is asked for; empty for none.
    pub apparmor: &'a str,
}

impl SecurityOptions<'_> {
    /// The profile that processes get: none where the host has no AppArmor, which dockerd says nothing of, either.
    pub fn apparmor_profile(&self, facts: &HostFacts) -> &str {
        if facts.apparmor { self.apparmor } else { "" }
    }
}

/// Which system-call filter a container gets; the engine resolves and compiles it.
pub fn seccomp_choice<'a>(host: &'a HostConfig, facts: &HostFacts) -> Result<SeccompChoice<'a>, InvalidRequest> {
    Ok(parse(host, facts)?.seccomp)
}

/// Reads all security options.
pub fn parse<'a>(host: &'a HostConfig, facts: &HostFacts) -> Result<SecurityOptions<'a>, InvalidRequest> {
    let mut options = SecurityOptions {
        no_new_privileges: facts.no_new_privileges,
        writable_cgroups: host.privileged,
        seccomp: SeccompChoice::Default,
        apparmor: "",
    };
    let mut profile = None;
    for option in host.security_opt.iter().flatten() {
        let invalid = || InvalidRequest::SecurityOption { option: option.clone() };
        match option.as_str() {
            "no-new-privileges" => options.no_new_privileges = true,
            "writable-cgroups" => options.writable_cgroups = true,
            // Of SELinux, which is not there.
            "disable" => {}
            _ => match split(option)? {
                ("no-new-privileges", value) => options.no_new_privileges = parse_bool(value).ok_or_else(invalid)?,
                ("writable-cgroups", value) => options.writable_cgroups = parse_bool(value).ok_or_else(invalid)?,
                ("seccomp", value) => profile = Some(value),
                ("apparmor", profile) => options.apparmor = profile,
                // Without SELinux nothing has a label.
                ("label", value) if value == "disable" || !facts.selinux => {}
                ("label", _) => return Err(InvalidRequest::NotOffered { option: "--security-opt label" }),
                _ => return Err(invalid()),
            },
        }
    }
    options.seccomp = choose(profile.unwrap_or_default(), host.privileged, facts)?;
    Ok(options)
}

/// `NAME=VALUE`, or `NAME:VALUE` as it was once written.
fn split(option: &str) -> Result<(&str, &str), InvalidRequest> {
    let parts = option.split_once('=').or_else(|| option.split_once(':'));
    parts.ok_or_else(|| InvalidRequest::SecurityOptionFormat { option: option.to_owned() })
}

fn choose<'a>(profile: &'a str, privileged: bool, facts: &HostFacts) -> Result<SeccompChoice<'a>, InvalidRequest> {
    match profile {
        "unconfined" => Ok(SeccompChoice::Unconfined),
        "" if privileged || !facts.seccomp => Ok(SeccompChoice::Unconfined),
        "builtin" if !facts.seccomp => Ok(SeccompChoice::Unconfined),
        "" | "builtin" => Ok(SeccompChoice::Default),
        _ if !facts.seccomp => Err(InvalidRequest::NoSeccomp),
        json => Ok(SeccompChoice::Profile(json)),
    }
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::facts;

    fn check(options: &[&str], privileged: bool, expected: Result<(bool, SeccompChoice<'_>), &str>) {
        let security_opt = Some(options.iter().map(|option| option.to_string()).collect());
        let host = HostConfig { security_opt, privileged, ..HostConfig::default() };
        let facts = facts();
        let parsed = parse(&host, &facts).map(|options| (options.no_new_privileges, options.seccomp));
        let parsed = parsed.map_err(|err| err.to_string());
        assert_eq!(parsed.as_ref().map_err(|err| err.as_str()), expected.as_ref().map_err(|err| *err), "{options:?}");
    }

    #[test]
    fn options_are_read_as_docker_reads_them() {
        check(&[], false, Ok((false, SeccompChoice::Default)));
        check(&[], true, Ok((false, SeccompChoice::Unconfined)));
        check(&["no-new-privileges"], false, Ok((true, SeccompChoice::Default)));
        check(&["no-new-privileges:true"], false, Ok((true, SeccompChoice::Default)));
        check(&["no-new-privileges=false"], false, Ok((false, SeccompChoice::Default)));
        check(&["seccomp=unconfined"], false, Ok((false, SeccompChoice::Unconfined)));
        check(&["seccomp={}", "apparmor=unconfined"], true, Ok((false, SeccompChoice::Profile("{}"))));
        check(&["foo"], false, Err(r#"invalid --security-opt 1: "foo""#));
        check(&["foo=1"], false, Err(r#"invalid --security-opt 2: "foo=1""#));
        check(&["no-new-privileges=x"], false, Err(r#"invalid --security-opt 2: "no-new-privileges=x""#));
        check(&["label=type:x", "apparmor=x"], false, Ok((false, SeccompChoice::Default)));
    }

    #[test]
    fn what_the_host_has_is_used_or_refused() {
        let host = |option: &str| HostConfig { security_opt: Some(vec![option.to_owned()]), ..HostConfig::default() };
        let with = HostFacts { apparmor: true, selinux: true, ..facts() };
        let profile =
            |option, facts: &HostFacts| parse(&host(option), facts).unwrap().apparmor_profile(facts).to_owned();
        assert_eq!((profile("apparmor=x", &with), profile("apparmor=x", &facts())), ("x".to_owned(), String::new()));
        let refused = parse(&host("label=type:x"), &with).unwrap_err();
        assert_eq!(refused, InvalidRequest::NotOffered { option: "--security-opt label" });
        assert!(parse(&host("label=disable"), &with).is_ok());
    }
}
