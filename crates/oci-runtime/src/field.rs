//! What is wrong with one field of a specification; its full name is told with it ([`crate::PlanError::Field`]).

use crate::error::PlanError;

/// What is wrong with a field's value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// There is no value.
    #[error("is empty")]
    Empty,
    /// The word means nothing here.
    #[error("unknown word {word:?}, {}", choice(known))]
    Unknown {
        /// The word.
        word: String,
        /// All that mean something.
        known: &'static [&'static str],
    },
    /// Something of which there can be one is there twice.
    #[error("{word:?} is there twice")]
    Duplicate {
        /// What is there.
        word: String,
    },
    /// A number too small or too great.
    #[error("{number} is not between {least} and {most}")]
    Range {
        /// The number.
        number: i128,
        /// The least.
        least: i128,
        /// The greatest.
        most: i128,
    },
    /// A number too small, where the greatest is nothing to tell.
    #[error("{number} {unit} are not {least} or more")]
    TooFew {
        /// The number.
        number: i64,
        /// Of what.
        unit: &'static str,
        /// The least.
        least: i64,
    },
    /// A text that the kernel does not take.
    #[error("is {length} bytes long, and {most} are the most")]
    TooLong {
        /// Of the text.
        length: usize,
        /// Of any.
        most: usize,
    },
    /// Two ranges of ids have some in common.
    #[error("{} to {} overlap {other}", first, first.saturating_add(size - 1))]
    Overlap {
        /// The first of the later one.
        first: u32,
        /// How many it has; more than none.
        size: u32,
        /// The full name of the earlier one.
        other: String,
    },
    /// A range of ids that has no end.
    #[error("{size} ids from {first} on go beyond the last one, {}", u32::MAX - 1)]
    PastEnd {
        /// The first.
        first: u32,
        /// How many.
        size: u32,
    },
    /// A path below something that is no directory.
    #[error("{path} is below {above}, which is no directory in a container")]
    Below {
        /// The path.
        path: String,
        /// What is there.
        above: String,
    },
    /// A device of every container's, with the numbers of another one.
    #[error("{path} is the null device, of type c with major 1 and minor 3, in every container")]
    NullDevice {
        /// Its path.
        path: String,
    },
    /// No list of numbers and ranges.
    #[error("{text:?} is not a list of numbers from 0 to {most} and of ranges of them, as 0-3,5")]
    List {
        /// As given.
        text: String,
        /// The greatest number.
        most: u32,
    },
    /// A relative path.
    #[error("{path:?} is not an absolute path")]
    Relative {
        /// The path.
        path: String,
    },
    /// A name that the kernel does not take.
    #[error("{name:?} cannot be a name")]
    Name {
        /// The name.
        name: String,
    },
    /// It means something only beside something else.
    #[error("needs {with}")]
    Needs {
        /// What is missing.
        with: &'static str,
    },
    /// It contradicts something else.
    #[error("contradicts {with}")]
    Contradicts {
        /// What is there.
        with: &'static str,
    },
    /// A mount's option that no mount of its kind has.
    #[error("{option:?} is no option of {of}")]
    Option {
        /// The option.
        option: String,
        /// What is mounted.
        of: &'static str,
    },
    /// A kernel parameter outside the container's namespaces, or with a path in its name. The first words are runc's.
    #[error("sysctl {name:?} is not in a separate kernel namespace{}", needed(*.needs))]
    NotSeparate {
        /// The name.
        name: String,
        /// The namespace that would make it the container's, if any would.
        needs: Option<&'static str>,
    },
    /// A mount would cover something that security rests on. The words are runc's.
    #[error("{path} cannot be mounted because it is inside /proc")]
    InsideProc {
        /// The mount point.
        path: String,
    },
    /// Something else is mounted over /proc, where programs believe what they read. The first words are runc's.
    #[error("{path} cannot be mounted because it is not of type proc: only proc, or a bind mount of one, may be there")]
    NotProc {
        /// The mount point.
        path: String,
    },
    /// Another kind of namespace than was asked for, or none at all.
    #[error("{path} is {found}")]
    NamespaceKind {
        /// The file.
        path: String,
        /// What it is, and what it should be.
        found: String,
    },
    /// Ids that cannot be mapped.
    #[error("{fault}")]
    Mapping {
        /// What is wrong.
        fault: &'static str,
    },
    /// A mount over the root: it would hide the root from those who join the container, and from nobody inside.
    #[error("is the container's root, which no mount covers")]
    Root,
    /// A device or a mask where the root directory is.
    #[error("{path} is the container's root directory")]
    RootDirectory {
        /// As given.
        path: String,
    },
    /// Who is not root makes containers in user namespaces alone. The first words are runc's.
    #[error(
        "rootless container requires user namespaces: user {uid} of the host needs one of type \"user\", and \
         linux.uidMappings and linux.gidMappings (`spec --rootless` writes them)"
    )]
    Rootless {
        /// The user.
        uid: u32,
    },
    /// The host has nothing of the kind.
    #[error("{what} is disabled on this host or not supported by its kernel")]
    HostLacks {
        /// What the host lacks.
        what: &'static str,
    },
}

fn choice(known: &[&str]) -> String {
    if known.is_empty() { "none is known".to_owned() } else { format!("must be one of {}", known.join(", ")) }
}

fn needed(namespace: Option<&str>) -> String {
    namespace.map_or_else(String::new, |kind| format!(": it needs the {kind} namespace in linux.namespaces"))
}

impl FieldError {
    /// Where it is: the field's full name, `process.rlimits[0].type`.
    pub(crate) fn at(self, field: impl Into<String>) -> PlanError {
        PlanError::Field { field: field.into(), source: self }
    }

    /// Whether a number can be a user or a group.
    pub(crate) fn is_id(number: u32) -> Result<(), FieldError> {
        FieldError::in_range(number, 0, i128::from(u32::MAX) - 1)
    }

    /// Whether a number is in its range.
    pub(crate) fn in_range(number: impl Into<i128>, least: i128, most: i128) -> Result<(), FieldError> {
        let number = number.into();
        if (least..=most).contains(&number) { Ok(()) } else { Err(FieldError::Range { number, least, most }) }
    }
}
