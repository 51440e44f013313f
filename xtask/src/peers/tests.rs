use super::compare::{self, Said, Verdict, normalized};
use super::steps::{self, Step};
use super::{PEERS, Totals};

#[test]
fn steps_are_names_and_what_is_below() {
    let step = |name: &str, script: &str| Step { name: name.into(), script: script.into() };
    let text = "# A comment.\n\n[one]\necho 1\n[ -e /x ] && [ -d /y ]\n\n[two-2]\necho 2\n";
    let parsed = steps::parse(text).unwrap();
    assert_eq!(parsed, [step("one", "echo 1\n[ -e /x ] && [ -d /y ]\n\n"), step("two-2", "echo 2\n")]);
    assert_eq!(steps::file_name(1, &parsed[1]), "002-two-2");
    for (file, name) in [("002-two-2", "two-2"), ("left", "left"), ("two-2", "two-2")] {
        assert_eq!(steps::bare(file), name);
    }
    for (text, err) in [
        ("echo\n", "line 1: a name in brackets comes first"),
        ("[a]\nx\n[a]\nx\n", "line 3: a is there twice"),
        ("[a]\n\n[b]\nx\n", "a does nothing"),
    ] {
        assert_eq!(steps::parse(text).unwrap_err().to_string(), err);
    }
}

#[test]
fn every_peer_has_steps_and_every_known_difference_is_about_one() {
    for peer in PEERS {
        assert!(steps::load(peer).unwrap().len() > 10, "{peer}");
    }
    compare::known(&PEERS).unwrap();
}

#[test]
fn ids_and_times_are_no_difference() {
    let id = "0123456789abcdef".repeat(4);
    for (text, expected) in [
        (format!("{id}\n"), "ID\n"),
        ("0123456789ab 000001fffeffffff".into(), "SHORT-ID 000001fffeffffff"),
        ("time=\"2026-11-21T10:31:05Z\" 2026-11-21 10:31:05.123456 +0000 UTC".into(), "time=\"TIME\" TIME"),
        ("\0/dev/pts/0\r\n".into(), "/dev/pts/0\n"),
        ("runc create failed; io.containerd.runc.v2".into(), "RUNTIME create failed; io.containerd.runc.v2"),
        ("longshore-runtime create failed".into(), "RUNTIME create failed"),
    ] {
        assert_eq!(normalized(&text), expected);
    }
}

#[test]
fn a_difference_is_told_unless_it_is_known() {
    let said = |out: &str, err: &str, code: &str| Said { out: out.into(), err: err.into(), code: code.into() };
    let known = toml::from_str::<toml::Table>("peer = 'p'\nstep = 's'\nreason = 'why'").unwrap().try_into().unwrap();
    let verdict =
        |step: &str, right: &Said, ours: &Said| compare::verdict("p", step, right, ours, std::slice::from_ref(&known));
    let (right, ours) = (said("a\nb\n", "", "0"), said("a\nc\n", "", "1"));
    assert_eq!(verdict("s", &right, &right), Verdict::Same);
    assert_eq!(verdict("s", &right, &ours), Verdict::Known { reason: "why".into() });
    let lines = ["exit code:", "- 0", "+ 1", "standard output:", "- a", "- b", "+ a", "+ c"].map(str::to_owned);
    assert_eq!(verdict("t", &right, &ours), Verdict::Different { lines: lines.to_vec() });
    // Two that fail alike are right only where no step must succeed.
    let failed = compare::of_success(Verdict::Same, &said("a\n", "b\n", "1"));
    assert_eq!(failed, Verdict::Different { lines: ["exit code 1:", "+ a", "+ b"].map(str::to_owned).to_vec() });
    assert_eq!(compare::of_success(Verdict::Same, &right), Verdict::Same);
    // Of what is left, less is no fault.
    assert_eq!(verdict("left", &right, &said("a\n", "", "0")), Verdict::Same);
    assert_eq!(verdict("left", &right, &ours), Verdict::Different { lines: vec!["+ c".into()] });
    let mut totals = Totals::default();
    totals.take("p", "s", verdict("s", &right, &ours));
    totals.take("p", "t", verdict("t", &right, &ours));
    assert_eq!(totals.summary(), "0 steps the same, 1 differ as known, 1 differ");
    assert_eq!((totals.known, totals.different), (vec!["p s: why".to_owned()], vec!["p t".to_owned()]));
}
