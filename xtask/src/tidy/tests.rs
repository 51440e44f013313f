use std::collections::BTreeSet;
use std::path::PathBuf;

use super::tree::{Manifest, Source};
use super::{Finding, acceptance, layers, source, text};

const LAYERS: &str = r#"
[crates]
low = { level = 0, flavour = "sync", deps = [] }
sys = { level = 0, flavour = "sync", deps = [], unsafe = true }
runtime = { level = 0, flavour = "async", deps = [] }
types = { level = 0, flavour = "pure", deps = [] }
high = { level = 1, flavour = "sync", deps = ["low"] }
face = { level = 2, flavour = "async", deps = ["high", "runtime"], portable = true }
"#;

fn file(krate: &str, within: &str, text: &str) -> Source {
    let path = PathBuf::from("crates").join(krate).join(within);
    Source { krate: krate.into(), path, within: within.into(), text: text.into() }
}

/// The messages of all findings for one file of crate `krate`, with their lines.
fn source_findings(krate: &str, text: &str) -> Vec<String> {
    let text = format!("//! Page.\n{text}");
    let facts = source::check(&file(krate, "src/lib.rs", &text), &BTreeSet::new());
    facts.findings.iter().map(|finding| format!("{}: {}", finding.line, finding.message)).collect()
}

fn check_source(krate: &str, text: &str, expected: &[&str]) {
    let found = source_findings(krate, text);
    let all_there = found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.contains(e));
    assert!(all_there, "{text}\nfound {found:#?}\nexpected {expected:#?}");
}

fn manifest_findings(name: &str, body: &str) -> Vec<Finding> {
    let text = format!("[lints]\nworkspace = true\n{body}");
    let path = PathBuf::from("crates").join(name).join("Cargo.toml");
    layers::check(&layers::parse_layers(LAYERS).unwrap(), &[Manifest { name: name.into(), path, text }])
}

#[test]
fn the_work_tree_is_tidy() {
    let findings = super::check(&super::tree::read(&testkit::paths::workspace()).unwrap());
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn dependencies_go_down_the_listed_ways_only() {
    assert_eq!(manifest_findings("high", "[dependencies]\nlow = { workspace = true }\nserde = \"1\"\n"), []);
    for (name, body, part) in [
        ("high", "[dependencies]\nruntime = { workspace = true }\n", "does not let high depend on runtime"),
        ("high", "[target.'cfg(unix)'.dependencies]\nsys.workspace = true\n", "does not let high depend on sys"),
        ("low", "[dependencies]\nother = { package = \"high\", version = \"1\" }\n", "does not let low depend on high"),
        ("high", "[dependencies]\ntokio = \"1\"\n", "tokio needs an async crate"),
        ("types", "[dependencies]\nhyper-util = \"1\"\n", "hyper-util needs an async crate"),
        ("unknown", "", "not in layers.toml"),
    ] {
        let found = manifest_findings(name, body);
        assert_eq!(found.len(), 1, "{name} {body}: {found:?}");
        assert!(found[0].message.contains(part), "{found:?}");
    }
    assert_eq!(manifest_findings("high", "[dev-dependencies]\ntokio = \"1\"\n"), []);
    assert_eq!(manifest_findings("high", "\n[dependencies]\ntokio = \"1\"\n")[0].line, 5);
}

#[test]
fn layers_obey_themselves() {
    for (lines, part) in [
        (
            "a = { level = 0, flavour = \"sync\", deps = [\"b\"] }\nb = { level = 0, flavour = \"sync\", deps = [] }",
            "lower",
        ),
        (
            "a = { level = 1, flavour = \"sync\", deps = [\"b\"] }\nb = { level = 0, flavour = \"async\", deps = [] }",
            "async",
        ),
        ("a = { level = 1, flavour = \"sync\", deps = [\"b\"] }", "no line"),
    ] {
        let found = layers::check(&layers::parse_layers(&format!("[crates]\n{lines}")).unwrap(), &[]);
        assert!(found.len() == 1 && found[0].message.contains(part), "{found:?}");
    }
}

#[test]
fn what_portable_crates_use_is_portable() {
    let portable = layers::portable(&layers::parse_layers(LAYERS).unwrap());
    for (name, expected) in [("face", true), ("high", true), ("low", true), ("runtime", true), ("sys", false)] {
        assert_eq!(portable.contains(name), expected, "{name}");
    }
}

#[test]
fn a_crate_without_the_workspace_lints_is_found() {
    let manifest = Manifest { name: "low".into(), path: "crates/low/Cargo.toml".into(), text: "[package]\n".into() };
    let found = layers::check(&layers::parse_layers(LAYERS).unwrap(), &[manifest]);
    assert!(found.len() == 1 && found[0].message.contains("lints"), "{found:?}");
}

#[test]
fn every_pub_item_has_a_doc_line() {
    for (text, expected) in [
        ("pub fn f() {}", &["2: function f"] as &[_]),
        ("/// Doc.\npub fn f() {}", &[]),
        ("fn f() {}\npub(crate) fn g() {}\npub use std::fs;", &[]),
        ("pub struct S { pub a: u8, b: u8 }", &["struct S", "field a"]),
        ("/// S.\npub struct S(pub u8);", &[]),
        ("/// E.\npub enum E { /// A.\nA, B { x: u8 } }", &["variant B"]),
        ("enum E { A }", &[]),
        ("/// T.\npub trait T { fn m(); }", &["method m"]),
        ("trait T { fn m(); }", &[]),
        ("struct S;\nimpl S { pub fn m() {} fn n() {} }", &["method m"]),
        ("impl Clone for S { fn clone(&self) -> S { S } }", &[]),
        ("pub const A: u8 = 1;\npub static B: u8 = 1;\npub type C = u8;", &["constant A", "static B", "type C"]),
        ("pub mod inner { }", &["module inner"]),
        ("pub mod inner { //! Page.\n }", &[]),
        ("pub mod other;", &["module other"]),
        ("#[cfg(test)]\nmod tests { pub fn f() {} }", &[]),
    ] {
        check_source("low", text, expected);
    }
}

#[test]
fn a_module_with_a_page_needs_no_line() {
    let pages = BTreeSet::from([PathBuf::from("crates/low/src/a/b.rs")]);
    assert!(source::check(&file("low", "src/a.rs", "pub mod b;"), &pages).findings.is_empty());
    assert_eq!(source::check(&file("low", "src/a.rs", "pub mod c;"), &pages).findings.len(), 1);
}

#[test]
fn long_functions_files_and_types_are_found() {
    let body = |lines: usize| format!("fn f() {{\n{}}}", "    ();\n".repeat(lines - 2));
    check_source("low", &body(70), &[]);
    check_source("low", &body(71), &["2: function f has 71 lines"]);
    check_source("low", &format!("#[test]\n{}", body(71)), &[]);
    check_source("low", &format!("#[cfg(test)]\nmod tests {{ {} }}", body(71)), &[]);
    check_source("low", &format!("struct S;\nimpl S {{ {} }}", body(71)), &["3: function f has 71 lines"]);
    check_source("low", &"\n".repeat(800), &["801 lines"]);
    check_source("low", &format!("{}#[cfg(test)]\nmod tests {{{}}}", "\n".repeat(700), "\n".repeat(200)), &[]);
    let methods: String = (0..26).map(|n| format!("fn m{n}() {{}}\n")).collect();
    check_source("low", &format!("trait T {{ {methods} }}"), &["trait T has 26 methods"]);
    let facts = source::check(
        &file("low", "src/a.rs", &format!("impl S {{ {methods} }}\nimpl S {{ fn n() {{}} }}")),
        &BTreeSet::new(),
    );
    assert_eq!(facts.methods["S"], 27);
}

#[test]
fn unsafe_is_in_sys_and_has_reasons() {
    for (krate, text, expected) in [
        ("low", "fn f() { unsafe { g() } }", &["2: unsafe outside"] as &[_]),
        ("low", "unsafe fn f() {}", &["unsafe outside"]),
        ("low", "unsafe impl Send for S {}", &["unsafe outside"]),
        ("low", "#![allow(unsafe_code)]", &["unsafe outside"]),
        ("low", "unsafe extern \"C\" { fn f(); }", &["unsafe outside"]),
        ("sys", "#![allow(unsafe_code)]\nunsafe fn f() {}", &[]),
        ("sys", "fn f() {\n    unsafe { g() }\n}", &["3: unsafe without `// SAFETY:`"]),
        ("sys", "fn f() {\n    // SAFETY: g needs nothing.\n    unsafe { g() }\n}", &[]),
        ("sys", "fn f() {\n    // SAFETY: long,\n    // really.\n    let x =\n        unsafe { g() };\n}", &[]),
        ("sys", "fn f() {\n    // SAFETY: of another one.\n    h();\n    unsafe { g() }\n}", &["unsafe without"]),
    ] {
        check_source(krate, text, expected);
    }
}

#[test]
fn unfinished_work_is_found() {
    for (text, expected) in [
        ("fn f() { todo!() }", "todo!"),
        ("fn f() { dbg!(1); }", "dbg!"),
        ("fn f() { g(unimplemented!()) }", "unimplemented!"),
        ("#[test]\n#[ignore]\nfn f() {}", "ignored test"),
        ("fn f( {}", "not Rust"),
    ] {
        check_source("low", text, &[expected]);
    }
    let mark = ["TO", "DO"].concat();
    for (line, expected) in [
        (format!("// {mark}: later"), 1),
        (format!("// {mark}(someone): later"), 1),
        (format!("// {mark}(#12): later"), 0),
        (format!("// {mark} #12: later"), 0),
        (format!("// MASTO{mark}NIC"), 0),
    ] {
        assert_eq!(text::check(&file("low", "src/a.rs", &line), None, false).len(), expected, "{line}");
    }
}

#[test]
fn pure_and_portable_crates_name_nothing_of_the_system() {
    let layers = layers::parse_layers(LAYERS).unwrap();
    for (krate, portable, within, line, expected) in [
        ("types", false, "src/a.rs", "use std::fs::File;", 1),
        ("types", false, "src/a.rs", "let t = Instant::now();", 1),
        ("types", false, "src/a.rs", "// std::fs::File is for others", 0),
        ("types", false, "src/a.rs", "#[cfg(test)]\nuse std::fs::File;", 0),
        ("low", false, "src/a.rs", "use std::fs::File;", 0),
        ("low", true, "src/a.rs", "use std::os::unix::net::UnixStream;", 1),
        ("low", true, "src/a.rs", "#[cfg(unix)]\nuse std::os::unix::net::UnixStream;", 0),
        ("low", true, "src/transport/unix.rs", "use std::os::unix::net::UnixStream;", 0),
    ] {
        let found = text::check(&file(krate, within, line), layers.get(krate), portable);
        assert_eq!(found.len(), expected, "{line}: {found:?}");
    }
}

#[test]
fn tests_are_known_by_crate_module_and_name() {
    for (within, text, name) in [
        ("src/a/b.rs", "mod tests { #[test] fn works() {} }", "low::a::b::works"),
        ("src/a/tests.rs", "#[test] fn works() {}", "low::a::works"),
        ("tests/it/area.rs", "#[tokio::test] async fn works() {}", "low::area::works"),
        ("src/a/tests.rs", "proptest! { #[test] fn works(value in any()) { let f = |x| x; } }", "low::a::works"),
    ] {
        let facts = source::check(&file("low", within, text), &BTreeSet::new());
        assert!(facts.tests.contains(name), "{name}: {:?}", facts.tests);
    }
}

#[test]
fn acceptance_names_what_exists() {
    let tests = BTreeSet::from(["low::works".to_owned()]);
    let head = "| clause | test or command | figure |\n|---|---|---|\n";
    for (row, expected) in [
        ("| a | `low::works` | |", 0),
        ("| a | `low::works`, `low::fails` | |", 1),
        ("| a | by hand | |", 1),
        ("| a | `cargo xtask ci` | |", 0),
        ("| a | `cargo xtask bench --only run-none` | 5 ms |", 0),
        ("| a | `cargo xtask bench --only nothing` | |", 1),
        ("## Open\n| a | | |", 0),
        ("## Open\n\n## Closed\n| a | | |", 1),
    ] {
        let found = acceptance::check(&format!("{head}{row}"), &tests);
        assert_eq!(found.len(), expected, "{row}: {found:?}");
    }
}
