//! A query passed on, and what is believed of what comes back.

use crate::wire::{HEADER_BYTES, OPCODE, Query, Refusal, TRUNCATED, answer_head, counts, question};

/// One query on its way to upstreams: the client's own bytes under an id that nobody can guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    bytes: Vec<u8>,
    id: [u8; 2],
    question_end: usize,
    limit: usize,
}

/// What a message of an upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The answer.
    Final,
    /// It was cut: over TCP there is more.
    Cut,
    /// The upstream has none: another one may.
    Failed,
    /// Not an answer to this question: somebody else's, or a forger's.
    Unrelated,
}

impl Exchange {
    /// For a query that is passed on. `id` is random.
    pub fn new(query: &Query<'_>, id: u16) -> Exchange {
        let mut bytes = query.bytes.to_vec();
        let own = [bytes[0], bytes[1]];
        bytes[..2].copy_from_slice(&id.to_be_bytes());
        Exchange { bytes, id: own, question_end: query.question_end, limit: query.limit }
    }

    /// What an upstream is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is to be thought of a message that came back.
    pub fn judge(&self, reply: &[u8]) -> Judgement {
        let Some([questions, ..]) = counts(reply) else { return Judgement::Unrelated };
        let code = reply[3] & 0x0f;
        let failed = code == Refusal::ServerFailure as u8 || code == Refusal::Refused as u8;
        if reply[..2] != self.bytes[..2] || reply[2] & 0x80 == 0 || reply[2] & OPCODE != 0 {
            return Judgement::Unrelated;
        }
        if !(self.is_asked(reply, questions) || failed && questions == 0) {
            return Judgement::Unrelated;
        }
        match () {
            () if failed => Judgement::Failed,
            () if reply[2] & TRUNCATED != 0 => Judgement::Cut,
            () => Judgement::Final,
        }
    }

    /// The answer for the client: the upstream's under the client's own id.
    pub fn finish(&self, mut reply: Vec<u8>) -> Vec<u8> {
        reply[..2].copy_from_slice(&self.id);
        reply
    }

    /// Whether an answer that came over TCP has room in what the client takes.
    pub fn has_room_for(&self, reply: &[u8]) -> bool {
        reply.len() <= self.limit
    }

    /// Without an answer.
    pub fn refuse(&self, refusal: Refusal) -> Vec<u8> {
        self.finish(answer_head(&self.bytes[..self.question_end], refusal as u8))
    }

    /// Whether it repeats our question. Some servers change the case of letters.
    fn is_asked(&self, reply: &[u8], questions: u16) -> bool {
        let asked = &self.bytes[HEADER_BYTES..self.question_end];
        let (name, fields) = asked.split_at(asked.len() - 4);
        let Some(answered) = question(reply).filter(|_| questions == 1) else { return false };
        let repeated = &reply[HEADER_BYTES..answered.end];
        repeated.len() == asked.len()
            && repeated[..name.len()].eq_ignore_ascii_case(name)
            && &repeated[name.len()..] == fields
    }
}

#[cfg(test)]
mod tests;
