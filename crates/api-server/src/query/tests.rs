use super::*;

fn query(text: &str) -> Query {
    Query::parse(text).unwrap()
}

#[test]
fn parameters_are_unescaped_and_the_first_counts() {
    let q = query("name=a%20b+c&&name=second&empty=&bare");
    assert_eq!(q.get("name"), Some("a b c"));
    assert_eq!((q.get("empty"), q.given("empty"), q.get("bare")), (Some(""), None, Some("")));
    assert_eq!(q.get("absent"), None);
}

#[test]
fn bad_queries_get_gos_sentences() {
    let message = |text| Query::parse(text).unwrap_err().message;
    assert_eq!(message("name=%zz"), "invalid URL escape \"%zz\"");
    assert_eq!(message("name=a%2"), "invalid URL escape \"%2\"");
    assert_eq!(message("name=a%"), "invalid URL escape \"%\"");
    assert_eq!(message("a=1;b=2"), "invalid semicolon separator in query");
}

#[test]
fn flags_are_true_unless_they_say_no() {
    for no in ["", "0", "no", "No", "false", "FALSE", "none", "%20false%20"] {
        assert!(!query(&format!("f={no}")).flag("f"), "{no}");
    }
    for yes in ["1", "true", "True", "yes", "2", "anything"] {
        assert!(query(&format!("f={yes}")).flag("f"), "{yes}");
    }
    assert!(!query("").flag("f"));
    assert!(query("").flag_or("f", true));
    assert!(!query("f=0").flag_or("f", true));
    assert!(!query("f").flag_or("f", true));
}

#[test]
fn numbers_are_gos() {
    assert_eq!(query("t=-1").number("t"), Ok(Some(-1)));
    assert_eq!(query("t=").number("t"), Ok(None));
    let failure = query("t=abc").number("t").unwrap_err();
    assert_eq!(failure.status, 500);
    assert_eq!(failure.message, "strconv.Atoi: parsing \"abc\": invalid syntax");
    let message = query("t=99999999999999999999").number("t").unwrap_err().message;
    assert_eq!(message, "strconv.Atoi: parsing \"99999999999999999999\": value out of range");
}

#[test]
fn sizes_of_terminals() {
    let message = |text: &str| query(text).size("h", "height").unwrap_err().message;
    assert_eq!(query("h=24").size("h", "height"), Ok(24));
    assert_eq!(query("h=4294967295").size("h", "height"), Ok(u32::MAX));
    assert_eq!(message("h=a"), "invalid resize height \"a\": invalid syntax");
    assert_eq!(message(""), "invalid resize height \"\": invalid syntax");
    assert_eq!(message("h=%2B1"), "invalid resize height \"+1\": invalid syntax");
    assert_eq!(message("h=-1"), "invalid resize height \"-1\": value out of range");
    assert_eq!(message("h=4294967296"), "invalid resize height \"4294967296\": value out of range");
}

#[test]
fn filters_have_two_forms() {
    let filters = |json: &str| parse_filters(json).map_err(|failure| failure.message);
    let wanted = Filters::from([("label".to_owned(), BTreeSet::from(["a".to_owned(), "b=1".to_owned()]))]);
    assert_eq!(filters(r#"{"label":{"a":true,"b=1":true}}"#), Ok(wanted.clone()));
    assert_eq!(filters(r#"{"label":["b=1","a"]}"#), Ok(wanted));
    assert_eq!(filters(""), Ok(Filters::new()));
    assert_eq!(filters("{}"), Ok(Filters::new()));
    for bad in ["abc", "[]", r#"{"label":"a"}"#, r#"{"label":{"a":1}}"#, r#"{"label":[1]}"#] {
        assert_eq!(filters(bad), Err("invalid filter".to_owned()), "{bad}");
    }
}
