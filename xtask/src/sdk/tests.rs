use super::expected;
use super::report::{Outcome, Report, of_libtest, of_mocha, of_pytest};
use super::{Docker, Options, parse};

fn report(tests: &[(&str, Outcome)]) -> Report {
    Report(tests.iter().map(|(test, outcome)| ((*test).to_owned(), *outcome)).collect())
}

#[test]
fn the_command_line_names_suites_and_a_daemon() {
    let docker =
        |socket: &str, network: Option<&str>| Some(Docker { socket: socket.into(), network: network.map(Into::into) });
    for (arguments, options) in [
        (vec![], Options::default()),
        (vec!["bollard"], Options { suites: vec!["bollard".to_owned()], docker: None }),
        (vec!["--docker", "unix:///a"], Options { docker: docker("/a", None), ..Options::default() }),
        (
            vec!["--docker", "unix:///a@/proc/1/ns/net"],
            Options { docker: docker("/a", Some("/proc/1/ns/net")), ..Options::default() },
        ),
    ] {
        assert_eq!(parse(&arguments).unwrap(), options);
    }
    for (arguments, err) in [
        (vec!["shiplift"], "no suite is called shiplift: there are docker-py, dockerode, bollard"),
        (vec!["--docker", "tcp://a"], "tcp://a is not unix:///SOCKET"),
        (vec!["--docker"], "--docker needs unix:///SOCKET[@NETNS]"),
    ] {
        assert_eq!(parse(&arguments).unwrap_err().to_string(), err);
    }
}

#[test]
fn every_runner_s_words_are_understood() {
    let pytest = "collected 4 items\n\
        tests/integration/a_test.py::A::test_one PASSED      [ 25%]\n\
        tests/integration/a_test.py::A::test_two pulling\nthings\n\
        tests/integration/a_test.py::A::test_three SKIPPED (why not)   [ 50%]\n\
        tests/integration/a_test.py::A::test_four PASSED     [ 75%]\n\
        tests/integration/a_test.py::A::test_four ERROR      [ 75%]\n\
        tests/integration/a_test.py:12: in test_one\n\
        FAILED tests/integration/a_test.py::A::test_five - why\n";
    let expected = [
        ("a_test.py::A::test_one", Outcome::Passed),
        ("a_test.py::A::test_three", Outcome::Skipped),
        ("a_test.py::A::test_four", Outcome::Failed),
    ];
    assert_eq!(of_pytest(pytest), report(&expected));
    let mocha = r##"{"stats":{},"passes":[{"fullTitle":"#a b"}],"pending":[{"fullTitle":"#a c"}],
        "failures":[{"fullTitle":"#a d","err":{}}]}"##;
    let expected = [("#a b", Outcome::Passed), ("#a c", Outcome::Skipped), ("#a d", Outcome::Failed)];
    assert_eq!(of_mocha(mocha).unwrap(), report(&expected));
    let libtest =
        "running 4 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ignored, why\ntest d ... said\nok\nok\n";
    let expected = [("a", Outcome::Passed), ("b", Outcome::Failed), ("c", Outcome::Skipped), ("d", Outcome::Passed)];
    assert_eq!(of_libtest(libtest), report(&expected));
    assert_eq!(of_libtest(libtest).summary(), "2 of 4 passed, 1 failed, 1 skipped");
}

#[test]
fn every_exception_has_a_reason_and_a_place_of_its_own() {
    expected::load().unwrap();
    let table =
        |tests: &str| expected::parse(&format!("[[exception]]\nsuite = 'bollard'\nreason = 'why'\ntests = [{tests}]"));
    let expected = table("'a', 'b_*'").unwrap();
    for (suite, test, reason) in [
        ("bollard", "a", Some("why")),
        ("bollard", "ab", None),
        ("bollard", "b_c", Some("why")),
        ("dockerode", "a", None),
    ] {
        assert_eq!(expected.reason(suite, test), reason, "{suite} {test}");
    }
    for tests in ["'a', 'a'", "'b*', 'bc'", ""] {
        assert!(table(tests).is_err(), "{tests}");
    }
}
