//! Graphs of operations (solver/pb, ops.proto), of which we write and read those of one: the outcome of a build, which a
//! client hands from one build to another.

use std::collections::BTreeMap;

use prost::Message;
use sha2::{Digest as _, Sha256};

use super::common::Empty;

/// What the identifier of an outcome begins with.
const OUTCOME: &str = "longshore-outcome://";

/// The most operations that are looked at.
const OPERATIONS_MAX: usize = 1024;

/// A graph.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Definition {
    /// Its operations; the last one only has what the graph comes to.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub operations: Vec<Vec<u8>>,
    /// What is said of operations, by the digests of their bytes: of us nothing, but clients take a graph without any for none.
    #[prost(btree_map = "string, message", tag = "2")]
    pub notes: BTreeMap<String, Empty>,
}

/// An operation.
#[derive(Clone, PartialEq, prost::Message)]
struct Operation {
    /// What it needs.
    #[prost(message, repeated, tag = "1")]
    inputs: Vec<Input>,
    /// Something that comes from elsewhere.
    #[prost(message, optional, tag = "3")]
    source: Option<Source>,
}

/// What an operation needs.
#[derive(Clone, PartialEq, prost::Message)]
struct Input {
    /// Of another operation's bytes.
    #[prost(string, tag = "1")]
    digest: String,
}

/// Something that comes from elsewhere.
#[derive(Clone, PartialEq, prost::Message)]
struct Source {
    /// What, with a scheme.
    #[prost(string, tag = "1")]
    identifier: String,
}

impl Definition {
    /// One that comes to an outcome of ours.
    pub fn of_outcome(outcome: &str) -> Definition {
        let source = Some(Source { identifier: format!("{OUTCOME}{outcome}") });
        let first = Operation { inputs: Vec::new(), source }.encode_to_vec();
        let hex: String = Sha256::digest(&first).iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        let notes = BTreeMap::from([(digest.clone(), Empty {})]);
        let inputs = vec![Input { digest }];
        let last = Operation { inputs, source: None }.encode_to_vec();
        Definition { operations: vec![first, last], notes }
    }

    /// The outcome of ours that it comes to; `None` for every other graph.
    pub fn outcome(&self) -> Option<String> {
        let operations = self.operations.iter().take(OPERATIONS_MAX);
        let all: Option<Vec<Operation>> = operations.map(|bytes| Operation::decode(&bytes[..]).ok()).collect();
        // Whatever else is in a graph does something that we do not.
        let [first, last] = &all?[..] else { return None };
        let source = first.source.as_ref().or(last.source.as_ref())?;
        source.identifier.strip_prefix(OUTCOME).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_known_again() {
        let definition = Definition::of_outcome("sha256:00");
        assert_eq!(definition.outcome().as_deref(), Some("sha256:00"));
        assert_eq!(Definition::default().outcome(), None);
        let mut other = definition.clone();
        other.operations.push(definition.operations[0].clone());
        assert_eq!(other.outcome(), None);
        assert_eq!(Definition { operations: vec![vec![0xff], vec![]], ..Definition::default() }.outcome(), None);
    }
}
