//! Forward chains of others that drop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use network::{Config, ForeignChain, Healer, LegacyChain, Networks, Passage, foreign_chains, legacy_chains};

use crate::lab::*;

const OURS: &str = "comment \"longshore-0123abcd";

/// As iptables-nft makes it for an installed Docker or ufw, and a chain of nft's own kind.
fn drop_what_is_forwarded() {
    run(&[
        "nft",
        "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
         add chain ip filter THEIRS; add rule ip filter THEIRS counter; add rule ip filter FORWARD jump THEIRS",
    ]);
    run(&[
        "nft",
        "add table inet strict; add chain inet strict f { type filter hook forward priority -150; policy drop; }",
    ]);
}

fn ruleset() -> String {
    run(&["nft", "list", "ruleset"])
}

/// How many rules of ours are in tables of others.
fn guests() -> usize {
    ruleset().lines().filter(|line| line.contains(OURS)).count()
}

/// Answers the kernel's news until the networks are dropped.
pub(crate) fn with_a_healer(networks: &Networks, act: impl FnOnce()) {
    let mut healer = Healer::listen(networks).unwrap();
    let (done, told) = rustix::pipe::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            loop {
                use rustix::event::{PollFd, PollFlags};
                let mut both = [PollFd::new(&healer, PollFlags::IN), PollFd::new(&done, PollFlags::IN)];
                rustix::event::poll(&mut both, None).unwrap();
                if !both[1].revents().is_empty() {
                    return;
                }
                healer.heal(networks).unwrap();
            }
        });
        // Also where it panics.
        let told = told;
        act();
        drop(told);
    });
}

pub(crate) fn within_a_second(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    wait_until(what, is_so);
    assert!(begun.elapsed() < Duration::from_secs(1), "{what}: after {:?}", begun.elapsed());
}

fn reaches_and_is_reached(lab: &Lab, one: &network::Joined, server: &TcpListener, outside: &TcpListener) {
    inside(lab.second.as_fd(), || reach(server, MACHINE, 8080)).unwrap();
    inside(one.namespace.as_fd(), || reach(outside, NEIGHBOUR, 7)).unwrap();
}

#[test]
fn privileged_what_others_drop_passes_by_one_rule_each() {
    on_a_machine(|lab| {
        drop_what_is_forwarded();
        let before = ruleset();
        let outside = inside(lab.second.as_fd(), || TcpListener::bind((NEIGHBOUR, 7)).unwrap());
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let two = networks.join(&request("two", &[])).unwrap();
        let server = listen(&one, 80);
        reaches_and_is_reached(&lab, &one, &server, &outside);
        inside(two.namespace.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        assert_eq!(guests(), 2, "{}", ruleset());
        let place = |chain: &str| ForeignChain { chain: chain.to_owned(), passage: Passage::Placed };
        assert_eq!(foreign_chains(&networks), [place("ip filter FORWARD"), place("inet strict f")]);
        // What is not ours is dropped as before.
        let third = Ipv4Addr::new(10, 8, 0, 2);
        let behind = host_behind("other", Ipv4Addr::new(10, 8, 0, 1), third);
        let _far = inside(behind.as_fd(), || TcpListener::bind((third, 80)).unwrap());
        setting("ip_forward", "1");
        assert!(inside(lab.second.as_fd(), || is_unreachable(third, 80)));
        networks.leave("one").unwrap();
        networks.leave("two").unwrap();
        drop((one, two, server));
        networks.close().unwrap();
        assert_eq!(without_counts(&ruleset()), without_counts(&before));
    });
}

fn without_counts(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().filter(|word| word.parse::<u64>().is_err()).collect();
    words.join(" ")
}

#[test]
fn privileged_no_packet_leaves_with_our_mark() {
    on_a_machine(|lab| {
        drop_what_is_forwarded();
        run(&["nft", "add table ip look; add chain ip look c { type filter hook postrouting priority 0; }"]);
        run(&["nft", "add rule ip look c meta mark & 0x08000000 != 0 counter drop"]);
        let outside = inside(lab.second.as_fd(), || TcpListener::bind((NEIGHBOUR, 7)).unwrap());
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let server = listen(&one, 80);
        reaches_and_is_reached(&lab, &one, &server, &outside);
        let seen = ruleset();
        assert!(seen.contains("counter packets 0 bytes 0 drop"), "{seen}");
    });
}

#[test]
fn privileged_what_somebody_flushes_is_back_within_a_second() {
    on_a_machine(|lab| {
        drop_what_is_forwarded();
        let outside = inside(lab.second.as_fd(), || TcpListener::bind((NEIGHBOUR, 7)).unwrap());
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let server = listen(&one, 80);
        with_a_healer(&networks, || {
            run(&["nft", "flush chain ip filter FORWARD"]);
            within_a_second("the rule is back", || guests() == 2);
            run(&["nft", "delete table ip longshore-0123abcd"]);
            within_a_second("our table is back", || ruleset().contains("table ip longshore-0123abcd"));
            reaches_and_is_reached(&lab, &one, &server, &outside);
            run(&["nft", "flush ruleset"]);
            within_a_second("all that is ours is back", || ruleset().contains("8080"));
            drop_what_is_forwarded();
            within_a_second("new chains have the rule, too", || guests() == 2);
            reaches_and_is_reached(&lab, &one, &server, &outside);
            run(&["nft", "chain inet strict f { policy accept; }"]);
            within_a_second("a chain that drops no more has none", || guests() == 1);
            run(&["nft", "delete table ip filter; delete table inet strict"]);
            within_a_second("nobody is left", || foreign_chains(&networks).is_empty());
            reaches_and_is_reached(&lab, &one, &server, &outside);
        });
    });
}

#[test]
fn privileged_who_connects_while_our_rules_are_gone_is_served_when_they_are_back() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let server = listen(&one, 80);
        // Somebody else has the kernel track connections, which it would else give up with our rules.
        run(&["nft", "add", "table", "ip", "theirs"]);
        let place = "{ type filter hook prerouting priority 0; }";
        run(&["nft", "add", "chain", "ip", "theirs", "c", place]);
        run(&["nft", "add", "rule", "ip", "theirs", "c", "ct", "state", "new", "accept"]);
        let mut healer = Healer::listen(&networks).unwrap();
        run(&["nft", "delete", "table", "ip", "longshore-0123abcd"]);
        let connect = |to: IpAddr| TcpStream::connect_timeout(&SocketAddr::new(to, 8080), DEADLINE).map(drop);
        std::thread::scope(|scope| {
            let here = scope.spawn(move || connect(HOME.into()));
            let there = scope.spawn(|| inside(lab.second.as_fd(), || connect(MACHINE.into())));
            let tracked = || std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
            // The bridge's reports of its multicast groups may stand there, too.
            let waits = |line: &&str| line.contains("dport=8080 [UNREPLIED]");
            wait_until("both are tracked", || tracked().lines().filter(waits).count() == 2);
            healer.heal(&networks).unwrap();
            here.join().unwrap().unwrap();
            there.join().unwrap().unwrap();
        });
        drop(server);
    });
}

#[test]
fn privileged_our_own_changes_wake_nobody() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let healer = Healer::listen(&networks).unwrap();
        networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        networks.leave("one").unwrap();
        let is_told = || {
            let mut poll = [rustix::event::PollFd::new(&healer, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut poll, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
        };
        assert!(!is_told());
        run(&["nft", "add table ip theirs"]);
        assert!(is_told());
    });
}

#[test]
fn privileged_a_daemon_that_was_killed_leaves_exactly_one_rule_to_the_next() {
    on_a_machine(|lab| {
        drop_what_is_forwarded();
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let server = listen(&one, 80);
        // Gone without a word.
        std::mem::forget(networks);
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        // A rule that came twice goes once.
        let rule =
            ruleset().lines().find(|line| line.contains("0x08000000") && line.contains(OURS)).unwrap().to_owned();
        run(&["nft", &format!("add rule inet strict f {}", rule.replace("packets 0 bytes 0", ""))]);
        assert_eq!(guests(), 3);
        let networks = Networks::open(lab.config()).unwrap();
        networks.reconcile(&["one"]).unwrap();
        assert_eq!(guests(), 2);
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        // The next one finds nobody alive.
        std::mem::forget(networks);
        let networks = Networks::open(lab.config()).unwrap();
        networks.reconcile(&[]).unwrap();
        networks.close().unwrap();
        assert_eq!(guests(), 0);
    });
}

#[test]
fn privileged_in_the_mode_host_firewall_the_hosts_rules_decide() {
    on_a_machine(|lab| {
        drop_what_is_forwarded();
        let theirs = || ["ip filter", "inet strict"].map(|name| run(&["nft", &format!("list table {name}")]));
        let before = theirs();
        let networks = Networks::open(Config { host_firewall: true, ..lab.config() }).unwrap();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let server = listen(&one, 80);
        assert!(inside(lab.second.as_fd(), || is_unreachable(MACHINE, 8080)));
        assert_eq!(theirs().map(|text| without_counts(&text)), before.map(|text| without_counts(&text)));
        assert!(!ruleset().contains("mark"), "nothing is marked for nobody: {}", ruleset());
        assert!(foreign_chains(&networks).iter().all(|chain| chain.passage == Passage::Left));
        assert_eq!(foreign_chains(&networks).len(), 2);
        reach(&server, HOME, 8080).unwrap();
        // The host's own words count.
        run(&["nft", "add rule ip filter FORWARD accept; add rule inet strict f accept"]);
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
    });
}

#[test]
fn privileged_an_instance_that_lets_nothing_else_be_forwarded_lets_other_instances_be() {
    on_a_machine(|lab| {
        setting("ip_forward", "0");
        let first = lab.networks();
        let own = first.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        assert!(ruleset().contains("chain guard"));
        let config = Config::new("89abcdef", lab.directory.path().join("second"));
        let second = Networks::open(config).unwrap();
        let other = second.join(&request("two", &[publish(None, 8081, 80)])).unwrap();
        let (server, of_other) = (listen(&own, 80), listen(&other, 80));
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        inside(lab.second.as_fd(), || reach(&of_other, MACHINE, 8081)).unwrap();
        let outside = inside(lab.second.as_fd(), || TcpListener::bind((NEIGHBOUR, 7)).unwrap());
        inside(other.namespace.as_fd(), || reach(&outside, NEIGHBOUR, 7)).unwrap();
        // They are strangers to each other all the same, and nothing of the one is in the other's table.
        let address = own.place.endpoints[0].ipv4.unwrap().address;
        assert!(inside(other.namespace.as_fd(), || is_unreachable(address, 80)));
        assert!(!ruleset().contains("comment"), "{}", ruleset());
    });
}

#[test]
fn privileged_a_table_that_belongs_to_somebody_is_named_and_holds_up_nothing() {
    on_a_machine(|lab| {
        let _owner = OwnedTable::new(
            "inet theirs { flags owner; chain c { type filter hook forward priority 1; policy drop; }; }",
        );
        drop_what_is_forwarded();
        let networks = lab.networks();
        networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let states: Vec<_> = foreign_chains(&networks).into_iter().map(|one| (one.chain, one.passage)).collect();
        let state = |chain: &str, passage| (chain.to_owned(), passage);
        let placed = ["ip filter FORWARD", "inet strict f"].map(|chain| state(chain, Passage::Placed));
        assert!(placed.iter().all(|one| states.contains(one)), "{states:?}");
        assert!(states.contains(&state("inet theirs c", Passage::Refused)), "{states:?}");
        networks.leave("one").unwrap();
        networks.close().unwrap();
        assert_eq!(guests(), 0);
    });
}

#[test]
fn privileged_the_mark_of_somebody_else_opens_nothing() {
    for forwarding in ["0", "1"] {
        on_a_machine(move |lab| {
            setting("ip_forward", forwarding);
            drop_what_is_forwarded();
            run(&[
                "nft",
                "add table ip strange; add chain ip strange c { type filter hook prerouting priority -150; }",
            ]);
            run(&["nft", "add rule ip strange c meta mark set 0x08000000"]);
            let networks = lab.networks();
            let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
            let server = listen(&one, 80);
            let third = Ipv4Addr::new(10, 8, 0, 2);
            let behind = host_behind("other", Ipv4Addr::new(10, 8, 0, 1), third);
            let far = inside(behind.as_fd(), || TcpListener::bind((third, 80)).unwrap());
            setting("ip_forward", "1");
            assert!(inside(lab.second.as_fd(), || is_unreachable(third, 80)), "ip_forward was {forwarding}");
            inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
            // The way is there but for those who drop: all of them are in it.
            run(&["nft", "add rule ip filter FORWARD accept; add rule inet strict f accept"]);
            if forwarding == "1" {
                inside(lab.second.as_fd(), || reach(&far, third, 80)).unwrap();
            } else {
                assert!(inside(lab.second.as_fd(), || is_unreachable(third, 80)), "past the guard");
            }
        });
    }
}

#[test]
fn privileged_who_sets_the_whole_mark_does_not_shut_what_we_have_opened() {
    on_a_machine(|lab| {
        setting("ip_forward", "0");
        // As iptables -t mangle -A FORWARD -j MARK --set-mark 1.
        run(&["nft", "add table ip mangle; add chain ip mangle FORWARD { type filter hook forward priority -150; }"]);
        run(&["nft", "add rule ip mangle FORWARD meta mark set 0x1"]);
        let outside = inside(lab.second.as_fd(), || TcpListener::bind((NEIGHBOUR, 7)).unwrap());
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        assert!(ruleset().contains("chain guard"));
        let server = listen(&one, 80);
        reaches_and_is_reached(&lab, &one, &server, &outside);
    });
}

/// Where these texts stand in the chain of iptables, in its order.
fn places(texts: &[&str]) -> Vec<usize> {
    let chain = run(&["nft", "list chain ip filter FORWARD"]);
    let place = |text: &&str| chain.lines().position(|line| line.contains(*text)).unwrap_or_else(|| panic!("{chain}"));
    texts.iter().map(place).collect()
}

#[test]
fn privileged_what_users_have_dockers_chain_for_is_judged_before_our_rule() {
    on_a_machine(|lab| {
        // As an installed Docker leaves it, and what its users write there.
        run(&[
            "nft",
            "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
             add chain ip filter DOCKER-USER; add chain ip filter DOCKER-FORWARD; \
             add rule ip filter DOCKER-USER ip saddr 10.9.0.2 counter drop; \
             add rule ip filter FORWARD counter jump DOCKER-USER; add rule ip filter FORWARD counter jump DOCKER-FORWARD",
        ]);
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let server = listen(&one, 80);
        let in_order = ["jump DOCKER-USER", OURS, "jump DOCKER-FORWARD"];
        assert!(places(&in_order).is_sorted(), "{}", ruleset());
        assert!(inside(lab.second.as_fd(), || is_unreachable(MACHINE, 8080)));
        run(&["nft", "flush chain ip filter DOCKER-USER"]);
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        // A rule of ours that stands before it moves.
        std::mem::forget(networks);
        run(&["nft", "flush chain ip filter FORWARD"]);
        run(&["nft", &format!("add rule ip filter FORWARD counter {OURS}\"")]);
        run(&["nft", "add rule ip filter FORWARD counter jump DOCKER-USER"]);
        run(&["nft", "add rule ip filter FORWARD counter jump DOCKER-FORWARD"]);
        let networks = Networks::open(lab.config()).unwrap();
        networks.reconcile(&["one"]).unwrap();
        assert_eq!(guests(), 1);
        assert!(places(&in_order).is_sorted(), "{}", ruleset());
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
    });
}

#[test]
fn privileged_a_chain_of_iptables_legacy_that_drops_is_told() {
    on_a_machine(|lab| {
        let iptables = testkit::paths::program_of("iptables", "iptables-legacy").unwrap();
        let iptables = |line: &str| {
            let words: Vec<_> = [iptables.to_str().unwrap()].into_iter().chain(line.split(' ')).collect();
            run(&words)
        };
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let server = listen(&one, 80);
        assert_eq!(legacy_chains(&networks), []);
        assert_eq!(run(&["cat", "/proc/thread-self/net/ip_tables_names"]), "", "nobody makes a table by looking");
        iptables("-P FORWARD DROP");
        assert!(inside(lab.second.as_fd(), || is_unreachable(MACHINE, 8080)));
        let bridges = vec!["ls0123abcd".to_owned()];
        assert_eq!(legacy_chains(&networks), [LegacyChain { program: "iptables-legacy", bridges }]);
        // What the warning says to do.
        iptables("-I FORWARD -i ls0123abcd -j ACCEPT");
        assert_eq!(legacy_chains(&networks).len(), 1);
        iptables("-I FORWARD -o ls0123abcd -j ACCEPT");
        assert_eq!(legacy_chains(&networks), []);
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
    });
}
