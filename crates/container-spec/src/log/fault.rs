//! What is wrong with a log driver or its options. The texts are dockerd's.

use engine_api::size::SizeError;

/// Why a driver or an option is refused when the container is made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    /// There is no such driver.
    #[error("error looking up logging plugin {name}: plugin {name:?} not found")]
    Driver {
        /// As given.
        name: String,
    },
    /// A driver of Docker's that we do not have.
    #[error("log driver {driver} is not supported yet: json-file, local, journald, syslog and none are")]
    NotOffered {
        /// As given.
        driver: String,
    },
    /// The driver has no such option.
    #[error("unknown log opt '{name}' for {driver} log driver")]
    Option {
        /// As given.
        name: String,
        /// As given.
        driver: String,
    },
    /// The driver `local` has no such option.
    #[error("unknown log opt '{name}' for log driver local")]
    LocalOption {
        /// As given.
        name: String,
    },
    /// An unknown delivery mode.
    #[error("logger: logging mode not supported: {mode}")]
    Mode {
        /// As given.
        mode: String,
    },
    /// A buffer where the container waits.
    #[error("logger: max-buffer-size option is only supported with 'mode=non-blocking'")]
    BlockingBuffer,
    /// A buffer's size that is none.
    #[error("error parsing option max-buffer-size: {0}")]
    BufferSize(SizeError),
    /// Neither true nor false.
    #[error("invalid value for option cache-disabled: {value}")]
    CacheDisabled {
        /// As given.
        value: String,
    },
    /// Not an address.
    #[error("parse {address:?}: {reason}")]
    SyslogAddress {
        /// As given.
        address: String,
        /// In Go's words.
        reason: String,
    },
    /// An address of a kind that nobody speaks.
    #[error("unsupported scheme: '{scheme}'")]
    SyslogScheme {
        /// As given.
        scheme: String,
    },
    /// What we cannot do yet.
    #[error("syslog-address with tcp+tls is not supported yet")]
    SyslogTls,
    /// There is no such facility.
    #[error("invalid syslog facility")]
    SyslogFacility,
    /// There is no such format.
    #[error("Invalid syslog format")]
    SyslogFormat,
}

impl LogFault {
    /// Whether Docker would not refuse it.
    pub fn is_not_offered(&self) -> bool {
        matches!(self, LogFault::NotOffered { .. } | LogFault::SyslogTls)
    }
}

/// Why a start finds a value of an option unfit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogStartFault {
    /// A size that is none.
    #[error("{0}")]
    Size(SizeError),
    /// A size that holds nothing.
    #[error("max-size must be a positive number")]
    SizeNotPositive,
    /// A number that is none.
    #[error("strconv.Atoi: parsing {value:?}: invalid syntax")]
    Number {
        /// As given.
        value: String,
    },
    /// A number beyond all bounds.
    #[error("strconv.Atoi: parsing {value:?}: value out of range")]
    NumberRange {
        /// As given.
        value: String,
    },
    /// Neither true nor false.
    #[error("strconv.ParseBool: parsing {value:?}: invalid syntax")]
    Flag {
        /// As given.
        value: String,
    },
    /// No file at all.
    #[error("max-file cannot be less than 1")]
    TooFewFiles,
    /// Compression where nothing is rotated.
    #[error("compress cannot be true when max-file is less than 2 or max-size is not set")]
    NothingToCompress,
    /// A size of `local` that is none.
    #[error("invalid value for max-size: {value}")]
    LocalSize {
        /// As given.
        value: String,
        /// Why.
        source: SizeError,
    },
    /// A number of files of `local` that is none.
    #[error("invalid value for max-file: {value}")]
    LocalFiles {
        /// As given.
        value: String,
        /// Why.
        source: Box<LogStartFault>,
    },
    /// `compress` of `local`.
    #[error("error reading compress log option: {0}")]
    LocalCompress(Box<LogStartFault>),
    /// Fewer than no files.
    #[error("max file count cannot be less than 0")]
    NegativeFiles,
    /// Compression of files that are not kept.
    #[error("compression cannot be enabled when max file count is 1")]
    CompressesOneFile,
    /// A pattern that is none.
    #[error("error parsing regexp: {reason}: `{pattern}`")]
    Pattern {
        /// As given.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// A template that does not parse.
    #[error("template: log-tag:1: {reason}")]
    Tag {
        /// Why.
        reason: String,
    },
    /// A template that does not fit.
    #[error("template: log-tag:{line}:{column}: executing \"log-tag\" at <{text}>: {reason}")]
    TagField {
        /// The line, from 1.
        line: usize,
        /// The byte in it, from 0, as Go's templates count.
        column: usize,
        /// What does not fit, as the user wrote it.
        text: String,
        /// Why; never with a value of the container's.
        reason: String,
    },
    /// A template that asks for more than is given to one.
    #[error("template: log-tag: it writes too much or does not end")]
    TagLimit,
    /// What a create would have refused: the record is older.
    #[error(transparent)]
    Option(#[from] LogFault),
}

impl From<SizeError> for LogStartFault {
    fn from(err: SizeError) -> LogStartFault {
        LogStartFault::Size(err)
    }
}
