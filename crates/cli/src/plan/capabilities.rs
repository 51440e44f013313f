//! `--cap-add` and `--cap-drop`, as Docker's client sends them: in capitals with their prefix, sorted, none in both lists.

use std::collections::BTreeSet;

/// All of them.
const ALL: &str = "ALL";

/// The capabilities to add and those to drop. What is added is not dropped; all of them makes the others needless.
pub fn effective(add: &[String], drop: &[String]) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let (add, mut drop) = (normal(add), normal(drop));
    drop.retain(|name| !add.contains(name));
    let list = |names: BTreeSet<String>| (!names.is_empty()).then(|| names.into_iter().collect());
    (list(add), list(drop))
}

fn normal(names: &[String]) -> BTreeSet<String> {
    let names: BTreeSet<String> = names.iter().map(|name| with_prefix(name)).collect();
    if names.contains(ALL) { BTreeSet::from([ALL.to_owned()]) } else { names }
}

fn with_prefix(name: &str) -> String {
    let name = name.trim().to_uppercase();
    if name == ALL || name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_sent_as_dockers_client_sends_them() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let list = |text: &str| Some(words(text)).filter(|words| !words.is_empty());
        for (add, drop, added, dropped) in [
            ("", "", "", ""),
            ("sys_time CAP_CHOWN chown", "net_raw", "CAP_CHOWN CAP_SYS_TIME", "CAP_NET_RAW"),
            ("all CHOWN", "chown", "ALL", "CAP_CHOWN"),
            ("chown", "CAP_CHOWN", "CAP_CHOWN", ""),
            ("chown", "kill ALL", "CAP_CHOWN", "ALL"),
            ("ALL", "ALL", "ALL", ""),
        ] {
            assert_eq!(effective(&words(add), &words(drop)), (list(added), list(dropped)), "{add} / {drop}");
        }
    }
}
