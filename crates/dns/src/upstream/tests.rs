use proptest::prelude::*;
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, TYPE};

use super::*;
use crate::wire::Transport;

fn query(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(0x1234);
    let question =
        Question::new(Name::new_unchecked(name).into_owned(), QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    packet.build_bytes_vec().unwrap()
}

fn exchange(bytes: &[u8]) -> Exchange {
    Exchange::new(&Query::parse(bytes, Transport::Udp).unwrap(), 0xabcd)
}

/// The answer of an honest server, changed by `change`.
fn reply(exchange: &Exchange, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut reply = exchange.bytes().to_vec();
    reply[2] |= 0x80;
    change(&mut reply);
    reply
}

#[test]
fn only_the_answer_to_the_question_is_believed() {
    let exchange = exchange(&query("Example.com", TYPE::A));
    let check = |what, expected, change: &dyn Fn(&mut Vec<u8>)| {
        assert_eq!(exchange.judge(&reply(&exchange, change)), expected, "{what}");
    };
    check("an honest one", Judgement::Final, &|_| {});
    check("no such name", Judgement::Final, &|reply| reply[3] |= 3);
    check("small letters", Judgement::Final, &|reply| reply[13].make_ascii_lowercase());
    check("more behind it", Judgement::Final, &|reply| reply.extend([0; 99]));
    check("cut", Judgement::Cut, &|reply| reply[2] |= 2);
    check("a failure", Judgement::Failed, &|reply| reply[3] |= 2);
    check("a refusal that is cut", Judgement::Failed, &|reply| (reply[2], reply[3]) = (reply[2] | 2, 5));
    check("a failure without the question", Judgement::Failed, &|reply| {
        reply[3] |= 2;
        reply[5] = 0;
        reply.truncate(12);
    });
    check("a query", Judgement::Unrelated, &|reply| reply[2] &= 0x7f);
    check("another id", Judgement::Unrelated, &|reply| reply[1] ^= 1);
    check("another name", Judgement::Unrelated, &|reply| reply[14] = b'z');
    check("another type", Judgement::Unrelated, &|reply| *reply.iter_mut().rev().nth(2).unwrap() = 28);
    check("another class", Judgement::Unrelated, &|reply| *reply.last_mut().unwrap() = 3);
    check("no question", Judgement::Unrelated, &|reply| reply[5] = 0);
    check("two questions", Judgement::Unrelated, &|reply| reply[5] = 2);
    check("half a question", Judgement::Unrelated, &|reply| reply.truncate(20));
    check("half a header", Judgement::Unrelated, &|reply| reply.truncate(11));
}

#[test]
fn the_client_gets_its_own_id_and_the_upstreams_bytes() {
    let exchange = exchange(&query("example.com", TYPE::Unknown(65280)));
    assert_eq!(exchange.bytes()[..2], [0xab, 0xcd]);
    let answered = reply(&exchange, |reply| reply.extend(b"what nobody here knows"));
    let finished = exchange.finish(answered.clone());
    assert_eq!((&finished[..2], &finished[2..]), (&[0x12, 0x34][..], &answered[2..]));
    let refused = exchange.refuse(Refusal::ServerFailure);
    assert_eq!((&refused[..2], refused[3] & 15), (&[0x12, 0x34][..], 2));
    assert_eq!((counts(&refused), refused.len()), (Some([1, 0, 0, 0]), exchange.bytes().len()));
    assert!(exchange.has_room_for(&[0; 512]) && !exchange.has_room_for(&[0; 513]));
}

proptest! {
    #[test]
    fn no_bytes_of_an_upstream_do_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), ours in any::<bool>()) {
        let exchange = exchange(&query("example.com", TYPE::A));
        if ours && bytes.len() > 2 {
            bytes[..2].copy_from_slice(&exchange.bytes()[..2]);
        }
        // Random bytes do not repeat 17 bytes of a question.
        prop_assert!(matches!(exchange.judge(&bytes), Judgement::Unrelated | Judgement::Failed));
    }
}
