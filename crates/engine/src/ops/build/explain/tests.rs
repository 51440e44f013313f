use super::*;

fn step(place: &str, parent: &str, text: &str, arguments: &[&str], paths: &[(&str, &str)]) -> Ingredients {
    let arguments: Vec<String> = arguments.iter().map(|entry| (*entry).to_owned()).collect();
    let files_sum = sum_of(&format!("{paths:?}"));
    let files = files(paths.iter().map(|(path, sum)| ((*path).to_owned(), (*sum).to_owned())));
    Ingredients {
        place: place.to_owned(),
        step: text.to_owned(),
        step_sum: sum_of(text),
        parent: parent.to_owned(),
        variables: variables(&arguments),
        files,
        files_sum,
        options: Vec::new(),
        of: Origin::new(&["app:1".to_owned()], ["RUN x"].into_iter()),
    }
}

/// The line of a step, with these remembered.
fn told(step: &Ingredients, remembered: &[Ingredients]) -> String {
    let remembered: Vec<(i64, Ingredients)> = (0..).zip(remembered.iter().cloned()).collect();
    let reasons = why(step, &remembered);
    let explanation = Explanation { place: String::new(), step: String::new(), known: false, reasons };
    let line = explanation.line().unwrap();
    line.trim_end().trim_start_matches(" ---> Not known: ").to_owned()
}

#[test]
fn the_nearest_step_is_compared() {
    let own = step("a 2", "sha256:1", "RUN x", &["A=1"], &[]);
    for (other, wanted) in [
        (step("a 2", "sha256:2", "RUN x", &["A=1"], &[]), "the image below changed from 2 to 1"),
        (step("a 2", "sha256:1", "RUN y", &["A=1"], &[]), "its words changed from \"RUN y\" to \"RUN x\""),
        (step("a 2", "sha256:1", "RUN x", &["A=2"], &[]), "arguments changed: A: \"2\" -> \"1\""),
        (step("a 2", "sha256:1", "RUN x", &[], &[]), "arguments changed: A: nothing -> \"1\""),
        (
            step("a 2", "", "RUN x", &["A=2"], &[]),
            "the image below changed from nothing to 1; arguments changed: A: \"2\" -> \"1\"",
        ),
        // Somebody else's.
        (step("a 2", "sha256:2", "RUN y", &["A=1"], &[]), "nothing like it was built here"),
        (step("a 2", "sha256:1", "COPY a b", &[], &[]), "nothing like it was built here"),
        (step("b 3", "sha256:1", "RUN y", &[], &[]), "nothing like it was built here"),
    ] {
        assert_eq!(told(&own, std::slice::from_ref(&other)), wanted);
    }
    // Of several the one that has most in common; of equal ones the last one.
    let all = [
        step("a 2", "sha256:1", "RUN z", &[], &[]),
        step("b 7", "sha256:1", "RUN x", &["A=3"], &[]),
        step("b 8", "sha256:1", "RUN x", &["A=4"], &[]),
    ];
    assert_eq!(told(&own, &all), "arguments changed: A: \"4\" -> \"1\"");
    assert_eq!(told(&own, &[]), "nothing like it was built here");
}

#[test]
fn only_steps_of_the_same_dockerfile_are_compared() {
    let of = |names: &[&str], instructions: &[&'static str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let of = Origin::new(&names, instructions.iter().copied());
        Ingredients { of, ..step("0 1", "sha256:1", instructions[0], &[], &[]) }
    };
    let own = of(&["app:2"], &["ARG A=1", "RUN a", "RUN b"]);
    let changed = "its words changed from \"ARG N=60\" to \"ARG A=1\"";
    let never = "nothing like it was built here";
    for (other, wanted) in [
        (of(&["app:1", "x"], &["ARG N=60"]), changed),
        (of(&["other"], &["ARG N=60", "RUN a", "RUN b"]), never),
        (of(&[], &["ARG N=60", "RUN a", "RUN b"]), changed),
        (of(&[], &["ARG N=60", "RUN a", "RUN c"]), never),
        (of(&[], &["ARG N=60"]), never),
        (Ingredients { of: Origin::default(), ..of(&[], &["ARG N=60"]) }, never),
    ] {
        assert_eq!(told(&own, std::slice::from_ref(&other)), wanted, "{other:?}");
    }
}

#[test]
fn files_are_named_within_bounds() {
    let of = |paths: &[(&str, &str)]| step("a 1", "", "COPY . .", &[], paths);
    let own = of(&[("a", "1"), ("b", "2"), ("c", "3")]);
    assert_eq!(told(&own, &[of(&[("a", "1"), ("b", "9"), ("d", "3")])]), "files changed: b; new: c; gone: d");
    let many: Vec<(String, String)> = (0..13).map(|number| (format!("f{number:02}"), "1".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(path, sum)| (path.as_str(), sum.as_str())).collect();
    let named: Vec<String> = (0..10).map(|number| format!("f{number:02}")).collect();
    assert_eq!(told(&of(&many), &[of(&[])]), format!("files new: {}; and 3 more", named.join(", ")));
    assert_eq!(files((0..2000).map(|number| (format!("{number:05}"), String::new()))).len(), 1000);
    // What there is no place for counts all the same.
    let same = Ingredients { files_sum: String::new(), ..own.clone() };
    assert_eq!(told(&own, &[same]), "files changed");
}

#[test]
fn texts_are_cut() {
    let long = "ä".repeat(300);
    assert_eq!(cut(&long), format!("{}...", "ä".repeat(200)));
    assert_eq!(variables(&["A=b=c".to_owned(), "none".to_owned()]), BTreeMap::from([("A".into(), "b=c".into())]));
}
