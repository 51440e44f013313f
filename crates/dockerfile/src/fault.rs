//! Why a Dockerfile is refused.

/// What is wrong with a text. The sentences are BuildKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is nothing.
    #[error("file with no instructions")]
    Empty,
    /// A line is longer than that.
    #[error("dockerfile line greater than max allowed size of {0}")]
    LineTooLong(usize),
    /// `# escape=` has neither of the two letters.
    #[error("invalid escape token '{0}' does not match ` or \\")]
    EscapeToken(String),
    /// A directive stands there twice.
    #[error("only one {0} parser directive can be used")]
    DirectiveTwice(String),
    /// A heredoc has no end.
    #[error("unterminated heredoc")]
    Unterminated,
    /// A list in JSON holds other things than texts.
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStrings,
    /// A name has no value.
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    /// A word among pairs is none.
    #[error("Syntax error - can't find = in {0:?}. Must be of the form: name=value")]
    NoPair(String),
    /// An instruction is none.
    #[error("unknown instruction: {name}{}", hint(.meant))]
    UnknownInstruction {
        /// The name.
        name: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// An instruction has no arguments.
    #[error("{0} requires at least one argument")]
    AtLeastOne(&'static str),
    /// An instruction has none or several.
    #[error("{0} requires exactly one argument")]
    ExactlyOne(&'static str),
    /// A copy has a source alone.
    #[error("{0} requires at least two arguments, but only one was provided. Destination could not be determined")]
    NoDestination(&'static str),
    /// A name is empty.
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    /// A heredoc is no place.
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDestination(&'static str),
    /// `FROM` has two words, or too many.
    #[error("FROM requires either one or three arguments")]
    From,
    /// A stage cannot be called so.
    #[error("invalid name for build stage: {0:?}, name can't start with a number or contain symbols")]
    StageName(String),
    /// An instruction stands before the first `FROM`.
    #[error("no build stage in current context")]
    NoStage,
    /// `FROM` is no trigger.
    #[error("FROM is not a command type")]
    NotACommand,
    /// A trigger has a trigger.
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnBuildChain,
    /// An instruction is no trigger.
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnBuild(String),
    /// A trigger is several instructions.
    #[error("onbuild trigger should be a single expression")]
    TriggerLines,
    /// `HEALTHCHECK NONE` has words behind it.
    #[error("HEALTHCHECK NONE takes no arguments")]
    NoneArguments,
    /// A check has no command.
    #[error("Missing command after HEALTHCHECK CMD")]
    NoCheck,
    /// A check is of an unknown kind.
    #[error("Unknown type {0:?} in HEALTHCHECK (try CMD)")]
    CheckKind(String),
    /// A duration is none.
    #[error("time: invalid duration {0:?}")]
    Duration(String),
    /// A duration has no unit.
    #[error("time: missing unit in duration {0:?}")]
    DurationUnit(String),
    /// An interval is too short.
    #[error("Interval {0:?} cannot be less than 1ms")]
    ShortInterval(String),
    /// A number is none.
    #[error("strconv.ParseInt: parsing {0:?}: invalid syntax")]
    Number(String),
    /// There are fewer retries than none.
    #[error("--retries cannot be negative ({0})")]
    Retries(i64),
    /// A volume has no place.
    #[error("VOLUME specified can not be an empty string")]
    BlankVolume,
    /// A shell is no list in JSON.
    #[error("SHELL requires the arguments to be in JSON form")]
    ShellForm,
    /// A flag is none.
    #[error("unknown flag: --{name}{}", hint(.meant))]
    UnknownFlag {
        /// The name.
        name: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// A flag stands there twice.
    #[error("duplicate flag specified: --{0}")]
    FlagTwice(String),
    /// A flag has no value.
    #[error("missing a value on flag: --{0}")]
    FlagValue(String),
    /// A switch is neither on nor off.
    #[error("expecting boolean value for flag --{flag}, not: {value}")]
    FlagBool {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
    },
    /// A network is none.
    #[error("invalid network mode {0:?}")]
    Network(String),
    /// A degree of security is none.
    #[error("security {0:?} is not valid")]
    Security(String),
    /// A mount is of an unknown kind.
    #[error("unsupported mount type {value:?}{}", hint(.meant))]
    MountType {
        /// Its value.
        value: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// A field of a mount has no value.
    #[error("invalid field '{0}' must be a key=value pair")]
    MountField(String),
    /// A field of a mount is unknown.
    #[error("unexpected key '{key}' in '{field}'{}", hint(.meant))]
    MountKey {
        /// The field.
        key: String,
        /// As it is written.
        field: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// A field belongs to other mounts.
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    MountKeyOf {
        /// The field.
        key: String,
        /// The kind of mount.
        kind: &'static str,
    },
    /// A value of a field is none.
    #[error("invalid value for {key}: {value}")]
    MountValue {
        /// The field.
        key: String,
        /// Its value.
        value: String,
    },
    /// A number of a field is none.
    #[error("invalid value {value} for {key}")]
    MountNumber {
        /// The field.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A stage cannot be named by a variable here.
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    MountFrom,
    /// A way to share is none.
    #[error("unsupported sharing value {value:?}{}", hint(.meant))]
    MountSharing {
        /// Its value.
        value: String,
        /// What may have been meant.
        meant: Option<String>,
    },
    /// Such a mount has its own owner and mode.
    #[error("{key} not allowed for {kind:?} type mounts")]
    MountOwner {
        /// The field.
        key: &'static str,
        /// The kind of mount.
        kind: &'static str,
    },
    /// Only caches are shared.
    #[error("invalid cache sharing set for {0} mount")]
    MountSharingOf(&'static str),
    /// A secret comes from nowhere else.
    #[error("secret mount should not have a from")]
    SecretFrom,
    /// Secrets are nobody's alone.
    #[error("secret mount should not define sharing")]
    SecretSharing,
    /// A secret has neither name nor place.
    #[error("invalid secret mount. one of source, target required")]
    SecretPlace,
    /// A secret has two names.
    #[error("both source and id can't be set")]
    SecretBoth,
    /// A variable, quote or escape is wrong.
    #[error("failed to process {word:?}: {why}")]
    Expand {
        /// The whole word.
        word: String,
        /// What about it.
        why: Box<Fault>,
    },
    /// Something does not end.
    #[error("unexpected end of statement while looking for matching {0}")]
    Unended(&'static str),
    /// A variable does not end.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// A replacement does not end.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// A variable has no name.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// A modifier is none.
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    /// A variable that must be there is not.
    #[error("{name}: {message}")]
    Required {
        /// The name.
        name: String,
        /// What is told of it.
        message: String,
    },
    /// A pattern escapes what needs no escape.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{letter}'")]
    PatternEscape {
        /// The pattern.
        pattern: String,
        /// What is behind the escape.
        letter: String,
    },
    /// Variables come to more than anybody needs, or their patterns take longer.
    #[error("variables are too long")]
    TooLong,
    /// Variables nest deeper than anybody writes.
    #[error("variables nest too deep")]
    TooDeep,
}

fn hint(meant: &Option<String>) -> String {
    meant.as_ref().map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default()
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text falls into no lines of instructions.
    #[error("{fault}")]
    Syntax {
        /// The first line concerned; the first one of the text is 1.
        line: usize,
        /// The last one.
        end: usize,
        /// What is wrong.
        fault: Fault,
    },
    /// An instruction is none, or has the wrong arguments.
    #[error("dockerfile parse error on line {line}: {fault}")]
    Instruction {
        /// Its first line.
        line: usize,
        /// The last one.
        end: usize,
        /// What is wrong.
        fault: Fault,
    },
    /// An instruction stands before the first `FROM`.
    #[error("{fault}")]
    Misplaced {
        /// Its first line.
        line: usize,
        /// The last one.
        end: usize,
        /// What is wrong.
        fault: Fault,
    },
}

impl ParseError {
    /// The first line concerned.
    pub fn line(&self) -> usize {
        match self {
            ParseError::Syntax { line, .. }
            | ParseError::Instruction { line, .. }
            | ParseError::Misplaced { line, .. } => *line,
        }
    }

    /// The last line concerned.
    pub fn end(&self) -> usize {
        match self {
            ParseError::Syntax { end, .. }
            | ParseError::Instruction { end, .. }
            | ParseError::Misplaced { end, .. } => *end,
        }
    }
}
