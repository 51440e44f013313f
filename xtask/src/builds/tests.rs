use super::compare::{Aspect, compare};
use super::engine::Built;
use super::image::{self, Image};
use super::*;

#[test]
fn the_corpus_is_readable_and_says_what_it_knows() {
    let cases = cases::load().unwrap();
    assert!(cases.len() > 250, "{}", cases.len());
    let scratch = tempfile::tempdir().unwrap();
    for case in &cases {
        let context = scratch.path().join(&case.name);
        std::fs::create_dir(&context).unwrap();
        case.write(&context).unwrap_or_else(|err| panic!("{}: {err:?}", case.name));
        assert!(context.join("Dockerfile").is_file(), "{}", case.name);
        assert!(case.known.iter().all(|known| !known.reason.is_empty()), "{}", case.name);
    }
}

#[test]
fn what_is_no_case_is_refused_by_its_line() {
    for (text, said) in [
        ("| FROM x\n", "line 1"),
        ("case a\nwhat x\n", "line 2"),
        ("case a\nknown both files: x\n", "line 2"),
        ("case a\nknown any file: x\n", "line 2"),
        ("case a\nknown any files\n", "line 2"),
        ("case a\nknown any files `(`: x\n", "line 2"),
        ("case a\nlink x\n", "line 2"),
        ("case a\nfile x 9\n", "line 2"),
    ] {
        let err = cases::parse(text, Vec::new()).unwrap_err();
        assert!(format!("{err:#}").contains(said), "{text:?}: {err:#}");
    }
}

fn built(image: Option<Image>) -> Built {
    Built { code: 0, stdout: String::new(), stderr: String::new(), image }
}

/// Reads an archive that testkit makes.
fn read(archive: Archive) -> Image {
    image::read(&archive.path().unwrap()).unwrap()
}

#[test]
fn images_are_read_and_differences_named() {
    let whole = read(Archive::Layers);
    assert!(compare(&built(Some(whole.clone())), &built(Some(whole.clone())), Way::Classic, 0).is_empty());
    let mut other = whole.clone();
    other.tree.pop_last().unwrap();
    other.config["config"]["User"] = "somebody".into();
    let found = compare(&built(Some(whole)), &built(Some(other)), Way::Buildx, 0);
    let aspects: Vec<Aspect> = found.iter().map(|found| found.aspect).collect();
    assert_eq!(aspects, [Aspect::Config, Aspect::Files]);
    assert_eq!(found[0].lines, ["+ config.User \"somebody\""]);
    assert!(found[1].lines.len() == 1 && found[1].lines[0].starts_with("- /"), "{:?}", found[1].lines);
}
