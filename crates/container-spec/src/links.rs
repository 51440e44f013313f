//! `--link` on the default bridge: what a container is told of another one, as variables and in its /etc/hosts.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;

use engine_api::container::Config;

use crate::ports::{ContainerPort, Protocol};
use crate::validate::InvalidRequest;

/// Reads `CONTAINER[:ALIAS]`, and `/CONTAINER:/OTHER/ALIAS` as `inspect` shows it.
pub fn parse(raw: &str) -> Result<(&str, &str), InvalidRequest> {
    if raw.is_empty() {
        return Err(InvalidRequest::LinkEmpty);
    }
    match raw.split(':').collect::<Vec<_>>()[..] {
        [name] => Ok((name, name)),
        [name, alias] => match name.strip_prefix('/') {
            Some(name) => Ok((name, alias.rsplit('/').next().unwrap_or(alias))),
            None => Ok((name, alias)),
        },
        _ => Err(InvalidRequest::Link { raw: raw.to_owned() }),
    }
}

/// A linked container, as its address is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked<'a> {
    /// How the one that links calls it.
    pub alias: &'a str,
    /// `/OTHER/ALIAS`.
    pub full_name: String,
    /// Its name, without a slash.
    pub name: String,
    /// Where it is.
    pub address: Ipv4Addr,
    /// What it runs.
    pub config: &'a Config,
}

impl Linked<'_> {
    /// The line of /etc/hosts.
    pub fn line(&self) -> String {
        let mut line = format!("{}\t{} {}", self.address, self.alias, self.config.hostname);
        if self.alias != self.name {
            // Writing to a String cannot fail.
            let _ = write!(line, " {}", self.name);
        }
        line
    }

    /// The variables, in Docker's order: ports, then the name, then its own variables.
    pub fn environment(&self) -> Vec<String> {
        let prefix = self.alias.to_uppercase().replace('-', "_");
        let mut variables = self.ports(&prefix);
        variables.push(format!("{prefix}_NAME={}", self.full_name));
        let own = self.config.env.iter().flatten().filter_map(|entry| entry.split_once('='));
        // These are about its own files.
        let own = own.filter(|(name, _)| !matches!(*name, "HOME" | "PATH"));
        variables.extend(own.map(|(name, value)| format!("{prefix}_ENV_{name}={value}")));
        variables
    }

    fn ports(&self, prefix: &str) -> Vec<String> {
        let exposed = self.config.exposed_ports.iter().flatten().filter_map(|(port, _)| ContainerPort::parse(port));
        let ports: BTreeSet<(u8, u16)> = exposed.map(|port| (rank(port.protocol), port.number)).collect();
        let ports: Vec<(&str, u16)> =
            ports.into_iter().map(|(rank, number)| (WORDS[usize::from(rank)], number)).collect();
        let address = self.address;
        let mut variables = Vec::new();
        if let Some((word, number)) = ports.first() {
            variables.push(format!("{prefix}_PORT={word}://{address}:{number}"));
        }
        let name = |(word, number): (&str, u16)| format!("{prefix}_PORT_{number}_{}", word.to_uppercase());
        let (mut begin, mut end) = (ports.first().copied(), ports.first().copied());
        for (at, port) in ports.iter().copied().enumerate() {
            let ((word, number), name_of) = (port, name(port));
            variables.push(format!("{name_of}={word}://{address}:{number}"));
            variables.push(format!("{name_of}_ADDR={address}"));
            variables.push(format!("{name_of}_PORT={number}"));
            variables.push(format!("{name_of}_PROTO={word}"));
            if end.is_some_and(|end| end.0 == word && end.1.checked_add(1) == Some(number)) {
                end = Some(port);
                if at + 1 < ports.len() {
                    continue;
                }
            }
            // dockerd tells of a range when it sees what is behind it.
            if let (Some(first), Some(last)) = (begin, end)
                && first != last
            {
                let name_of = name(first);
                variables.push(format!("{name_of}_START={}://{address}:{}", first.0, first.1));
                variables.push(format!("{name_of}_PORT_START={}", first.1));
                variables.push(format!("{name_of}_END={}://{address}:{}", last.0, last.1));
                variables.push(format!("{name_of}_PORT_END={}", last.1));
            }
            (begin, end) = (Some(port), Some(port));
        }
        variables
    }
}

/// In Docker's order.
const WORDS: [&str; 3] = ["tcp", "sctp", "udp"];

fn rank(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Sctp => 1,
        Protocol::Udp => 2,
    }
}

/// A configuration whose variables stand over those of links.
pub fn with_environment(config: &Config, linked: Vec<String>) -> Config {
    let env = crate::plan::override_env(linked, config.env.as_deref().unwrap_or_default());
    // One that removes a variable has still to remove one of Docker's.
    let removed = config.env.iter().flatten().filter(|entry| !entry.contains('=')).cloned();
    Config { env: Some(env.into_iter().chain(removed).collect()), ..config.clone() }
}

/// /etc/hosts with another address of `alias`; nothing if it does not change.
pub fn move_alias(hosts: &str, alias: &str, address: Ipv4Addr) -> Option<String> {
    let moved: String = hosts
        .split_inclusive('\n')
        .map(|line| match is_of(line, alias) {
            true => format!("{address}{}", &line[line.find('\t').unwrap_or(0)..]),
            false => line.to_owned(),
        })
        .collect();
    (moved != hosts).then_some(moved)
}

/// /etc/hosts without the line of `alias`; nothing if there is none.
pub fn remove_alias(hosts: &str, alias: &str) -> Option<String> {
    let kept: String = hosts.split_inclusive('\n').filter(|line| !is_of(line, alias)).collect();
    (kept != hosts).then_some(kept)
}

/// Whether a line gives the address of `alias` before all other names.
fn is_of(line: &str, alias: &str) -> bool {
    let names = line.split_once('\t').map(|(_, names)| names.trim_end_matches('\n'));
    names.and_then(|names| names.split(' ').next()) == Some(alias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_api::json::decode;

    #[test]
    fn links_are_read_as_docker_reads_them() {
        for (raw, expected) in [
            ("a", Ok(("a", "a"))),
            ("a:b", Ok(("a", "b"))),
            ("/a:/c/b", Ok(("a", "b"))),
            ("", Err("empty string specified for links")),
            ("a:b:c", Err("bad format for links: a:b:c")),
        ] {
            let parsed = parse(raw).map_err(|err| err.to_string());
            assert_eq!(parsed.as_ref().map(|parsed| *parsed).map_err(String::as_str), expected, "{raw}");
        }
    }

    fn config() -> Config {
        let text = r#"{"Image":"i","Hostname":"host","Env":["FOO=bar","PATH=/x","BARE"],
            "ExposedPorts":{"80/tcp":{},"81/tcp":{},"53/udp":{}}}"#;
        decode::<engine_api::container::CreateRequest>(text.as_bytes()).unwrap().config
    }

    /// As seen with dockerd 28.5.2.
    #[test]
    fn variables_and_hosts_are_dockers() {
        let config = config();
        let full_name = "/web/my-db".to_owned();
        let address = Ipv4Addr::new(10, 201, 0, 2);
        let linked = Linked { alias: "my-db", full_name, name: "db".to_owned(), address, config: &config };
        assert_eq!(linked.line(), "10.201.0.2\tmy-db host db");
        expect_test::expect![[r#"
            MY_DB_PORT=tcp://10.201.0.2:80
            MY_DB_PORT_80_TCP=tcp://10.201.0.2:80
            MY_DB_PORT_80_TCP_ADDR=10.201.0.2
            MY_DB_PORT_80_TCP_PORT=80
            MY_DB_PORT_80_TCP_PROTO=tcp
            MY_DB_PORT_81_TCP=tcp://10.201.0.2:81
            MY_DB_PORT_81_TCP_ADDR=10.201.0.2
            MY_DB_PORT_81_TCP_PORT=81
            MY_DB_PORT_81_TCP_PROTO=tcp
            MY_DB_PORT_53_UDP=udp://10.201.0.2:53
            MY_DB_PORT_53_UDP_ADDR=10.201.0.2
            MY_DB_PORT_53_UDP_PORT=53
            MY_DB_PORT_53_UDP_PROTO=udp
            MY_DB_PORT_80_TCP_START=tcp://10.201.0.2:80
            MY_DB_PORT_80_TCP_PORT_START=80
            MY_DB_PORT_80_TCP_END=tcp://10.201.0.2:81
            MY_DB_PORT_80_TCP_PORT_END=81
            MY_DB_NAME=/web/my-db
            MY_DB_ENV_FOO=bar"#]]
        .assert_eq(&linked.environment().join("\n"));
    }

    #[test]
    fn an_alias_moves_and_goes_and_others_stay() {
        let hosts = "127.0.0.1\tlocalhost\n10.0.0.2\tal host db\n10.0.0.2\tdb host\n10.0.0.3\tweb\n";
        let address = Ipv4Addr::new(10, 0, 0, 9);
        let moved = "127.0.0.1\tlocalhost\n10.0.0.9\tal host db\n10.0.0.2\tdb host\n10.0.0.3\tweb\n";
        assert_eq!(move_alias(hosts, "al", address).as_deref(), Some(moved));
        assert_eq!(move_alias(moved, "al", address), None);
        let removed = "127.0.0.1\tlocalhost\n10.0.0.2\tdb host\n10.0.0.3\tweb\n";
        assert_eq!(remove_alias(hosts, "al").as_deref(), Some(removed));
        assert_eq!(remove_alias(hosts, "nosuch"), None);
    }

    #[test]
    fn own_variables_win() {
        let own = Config {
            env: Some(vec!["A_NAME=mine".to_owned(), "B=1".to_owned(), "PATH".to_owned()]),
            ..Config::default()
        };
        let merged = with_environment(&own, vec!["A_NAME=/x/a".to_owned(), "A_PORT=1".to_owned()]);
        let expected = ["A_NAME=mine", "A_PORT=1", "B=1", "PATH"].map(str::to_owned);
        assert_eq!(merged.env, Some(expected.to_vec()));
    }
}
