//! From what went wrong to the answer: the one table of statuses.

use std::error::Error;

use engine::ops;
use errdefs::ErrorKind;
use http::StatusCode;

/// Why a request was not done: a status and Docker's sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

/// The HTTP status of a kind of failure.
pub(crate) fn of_kind(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict | ErrorKind::AlreadyExists => StatusCode::CONFLICT,
        ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
        ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Failure {
    /// A failure of a kind, in words.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Failure {
        Failure { status: of_kind(kind), message: message.into() }
    }

    /// The caller's mistake.
    pub(crate) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(ErrorKind::InvalidArgument, message)
    }

    /// An error of an operation, told with its sources.
    pub(crate) fn from_error(kind: ErrorKind, err: &dyn Error) -> Failure {
        Failure::new(kind, errdefs::chain(err))
    }
}

/// Lets `?` turn errors that answer `kind()` into failures.
macro_rules! failures {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(err: $error) -> Failure {
                Failure::from_error(err.kind(), &err)
            }
        })*
    };
}

failures! {
    engine_api::json::DecodeError,
    engine_api::platform::PlatformError,
    engine_api::versions::UpgradeError,
    ops::archive::ArchiveError,
    ops::attach::AttachError,
    ops::build::BuildError,
    ops::build::outputs::OutputError,
    ops::build_cache::CachePruneError,
    ops::changes::ChangesError,
    ops::checkpoint::CheckpointError,
    ops::commit::CommitError,
    ops::create::CreateError,
    ops::disk_usage::UsageError,
    ops::image_budget::BudgetError,
    ops::registry_manifest::ManifestError,
    ops::distribution::DistributionError,
    ops::events::EventsError,
    ops::exec::ExecError,
    ops::exec::ExecStartError,
    ops::export::ExportError,
    ops::exposure::ExposureError,
    ops::image_prune::ImagePruneError,
    ops::images::ImageError,
    ops::import::ImportError,
    ops::inspect::InspectError,
    ops::kill::KillError,
    ops::list::ListError,
    ops::login::LoginError,
    ops::logs::LogsError,
    ops::network_connect::NetworkConnectError,
    ops::network_create::NetworkCreateError,
    ops::networks::NetworksError,
    ops::pause::PauseError,
    ops::prune::PruneError,
    ops::pull::PullError,
    ops::push::PushError,
    ops::remove::RemoveError,
    ops::rename::RenameError,
    ops::resize::ResizeError,
    ops::restart::RestartError,
    ops::save::SaveError,
    ops::search::SearchError,
    ops::start::StartError,
    ops::stats::StatsError,
    ops::stop::StopError,
    ops::top::TopError,
    ops::published_ports::PortsError,
    ops::update::UpdateError,
    ops::volume_copies::VolumeCopyError,
    ops::volumes::VolumeError,
    ops::wait::WaitError,
    ops::why::WhyError,
}

impl From<engine_api::versions::VersionError> for Failure {
    fn from(err: engine_api::versions::VersionError) -> Failure {
        Failure::invalid(err.to_string())
    }
}
