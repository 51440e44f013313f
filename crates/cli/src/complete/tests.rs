use super::*;

/// What is said without a daemon.
fn told(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let asks_nobody = ["-H", "unix:///nowhere/d.sock"].map(str::to_owned);
    words.splice(0..0, asks_nobody);
    run("longshore", &words, false).replace('\n', " ")
}

#[test]
fn words_are_completed_by_their_place() {
    for (line, answer) in [
        ("inf", "info :4 "),
        ("container resta", "restart :4 "),
        ("help inf", "info :4 "),
        ("run --entry", "--entrypoint :4 "),
        ("run --restart un", "unless-stopped :4 "),
        ("run --restart=un", "unless-stopped :4 "),
        ("run -it --cap-add CAP_SYS_T", "CAP_SYS_TIME CAP_SYS_TTY_CONFIG :4 "),
        ("run --rm --pull=", "always missing never :4 "),
        ("ps --filter st", "status= :6 "),
        ("ps -f status=ru", "status=running :4 "),
        ("events --filter type=v", "type=volume :4 "),
        ("kill -s US", "USR1 USR2 :4 "),
        ("kill --signal=TER", "TERM :4 "),
        ("run --env-file ", ":0 "),
        ("run --volume /e", ":0 "),
        ("cp /e", ":0 "),
        ("completion z", "zsh :4 "),
        ("--log-level d", "debug :4 "),
        ("volume snapshot r", "restore rm :4 "),
        // What is behind the image belongs to the container, and what is not there yet is not offered.
        ("run busybox --entry", ":4 "),
        ("images --tr", "--tree :4 "),
        ("build --squ", ":4 "),
        ("swa", "swarm :4 "),
        ("swarm in", ":4 "),
        ("buil", "build builder buildx :4 "),
        ("nope a", ":4 "),
        ("run --nope a", ":4 "),
        // Nobody answers.
        ("rm ", ":4 "),
        ("run --network ", ":4 "),
    ] {
        assert_eq!(told(line), answer, "{line}");
    }
}

#[test]
fn descriptions_stand_behind_a_tabulator() {
    let words = ["container".to_owned(), "stop".to_owned()];
    assert_eq!(run("longshore", &words, true), "stop\tStop containers\n:4\n");
}

#[test]
fn every_candidate_of_a_fixed_value_is_one_that_the_flag_takes() {
    for command in tables::COMMANDS {
        for flag in command.all_flags().filter(|flag| flag.kind != Kind::Filter) {
            let values::Known::Words(answer) = values::known(Some(command), flag, "") else { continue };
            let whole = answer.candidates.iter().filter(|_| answer.directive & directive::NO_SPACE == 0);
            for Candidate { word, .. } in whole.filter(|candidate| !candidate.word.ends_with('=')) {
                let checked = crate::plan::values::check(flag.kind, word);
                assert!(checked.is_ok(), "{} --{} {word}: {checked:?}", command.paths[0], flag.long);
            }
        }
    }
}
