//! The reason why a command failed, and its exit code.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    filter::FilterError,
    kernel::error::LoadError,
    pipeline::{ConsumerError, PipelineError},
    source::{SourceError, observer::SnapshotError, recording::Damage},
    target::TargetError,
    text::Count,
    web::WebError,
};

/// Exit codes of the program, except 0 and clap's own 2.
pub mod code {
    /// The requested object does not exist, or not at the requested place or time.
    pub const NO_MATCH: u8 = 1;
    /// Usage or I/O error.
    pub const USAGE: u8 = 2;
    /// A privilege is missing.
    pub const PRIVILEGE: u8 = 3;
    /// This kernel lacks an indispensable feature.
    pub const KERNEL: u8 = 4;
    /// Events were lost and `--strict` was given.
    pub const LOST: u8 = 5;
}

/// A command's failure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The value of a filter option is invalid.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// An argument is invalid, or invalid together with others.
    #[error("{0}")]
    Usage(String),
    /// The requested object does not exist, or not at the requested place or time.
    #[error("{0}")]
    NoMatch(String),
    /// The kernel side could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file given by the user cannot be read.
    #[error("cannot read {}: {error}", file.display())]
    File {
        /// Its path.
        file: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// A file given by the user cannot be written.
    #[error("cannot write {}: {error}{}", file.display(), hint(error))]
    Write {
        /// Its path.
        file: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// A recording is damaged. Everything before the damage was shown.
    #[error("{}: {damage}", file.display())]
    Recording {
        /// Its path.
        file: PathBuf,
        /// The damage.
        damage: Damage,
    },
    /// The output could not be written.
    #[error("write to {}: {error}{}", name_of(file.as_deref()), unwritten_events(*unwritten))]
    Output {
        /// The output file; `None`: standard output.
        file: Option<PathBuf>,
        /// The error of the system.
        error: io::Error,
        /// Number of events that are lost with this.
        unwritten: u64,
    },
    /// The web server cannot serve.
    #[error(transparent)]
    Web(#[from] WebError),
    /// Another error of the system.
    #[error("{what}: {error}")]
    Io {
        /// The failed action.
        what: &'static str,
        /// The error of the system.
        error: io::Error,
    },
}

fn name_of(file: Option<&Path>) -> String {
    file.map_or_else(|| "standard output".to_owned(), |file| file.display().to_string())
}

/// Empty if no events are lost, for example when only a table's heading could not be written.
fn unwritten_events(unwritten: u64) -> String {
    if unwritten == 0 {
        return String::new();
    }
    format!(": {} not written", Count(unwritten, "event was", "events were"))
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AlreadyExists => "; choose another name, or overwrite it with --force",
        _ => "",
    }
}

impl Failure {
    /// Its exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Load(LoadError::Privilege(_) | LoadError::UserNamespace) => code::PRIVILEGE,
            Self::Load(
                LoadError::NoBtf(_)
                | LoadError::BadBtf(_)
                | LoadError::Layout(_)
                | LoadError::Object(_)
                | LoadError::Map(_)
                | LoadError::Hook { .. }
                | LoadError::Iterator(_),
            ) => code::KERNEL,
            Self::NoMatch(_) => code::NO_MATCH,
            Self::Filter(_)
            | Self::Usage(_)
            | Self::File { .. }
            | Self::Write { .. }
            | Self::Recording { .. }
            | Self::Output { .. }
            | Self::Web(_)
            | Self::Io { .. }
            | Self::Load(LoadError::NoObject | LoadError::Exhausted { .. } | LoadError::Io { .. }) => {
                code::USAGE
            }
        }
    }
}

impl Failure {
    /// Adds the output file to an output error.
    pub(super) fn in_file(self, to: Option<&Path>) -> Self {
        match self {
            Self::Output { file: None, error, unwritten } => {
                Self::Output { file: to.map(Path::to_owned), error, unwritten }
            }
            other => other,
        }
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::NoMatch(message) => Self::NoMatch(message),
            TargetError::Usage(message) => Self::Usage(message),
        }
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Proc(error) => Self::Io { what: "read /proc", error },
            SnapshotError::Capabilities(error) => {
                Self::Io { what: "drop the capabilities that are no longer needed", error }
            }
            SnapshotError::ThreadEnded => {
                Self::Io { what: "take a snapshot", error: io::Error::other(error.to_string()) }
            }
        }
    }
}

impl From<ConsumerError> for Failure {
    fn from(error: ConsumerError) -> Self {
        match error {
            ConsumerError::Output { error, unwritten } => Self::Output { file: None, error, unwritten },
            error @ ConsumerError::Slow { .. } => {
                Self::Io { what: "pass events on", error: io::Error::other(error.to_string()) }
            }
        }
    }
}

impl Failure {
    /// Converts the error of a pipeline that reads this recording; `None`: the running kernel.
    pub(super) fn of_pipeline(error: PipelineError, file: Option<&Path>) -> Self {
        match error {
            PipelineError::Snapshot(error) => error.into(),
            PipelineError::Source(SourceError::Kernel(error)) => error.into(),
            PipelineError::Source(SourceError::Wait(error)) => {
                Self::Io { what: "wait for the ring buffer", error }
            }
            PipelineError::Source(SourceError::Recording(damage)) => {
                Self::Recording { file: file.unwrap_or(Path::new("-")).to_owned(), damage }
            }
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_documented_exit_code() {
        let io = || io::Error::from_raw_os_error(libc::ENOSPC);
        let output = Failure::Output { file: None, error: io(), unwritten: 1 };
        assert!(output.to_string().starts_with("write to standard output: "), "{output}");
        assert!(output.to_string().ends_with("1 event was not written"), "{output}");
        for (failure, code) in [
            (output, code::USAGE),
            (Failure::Filter(FilterError::BadLevel("x".to_owned())), code::USAGE),
            (Failure::Usage("x".to_owned()), code::USAGE),
            (Failure::NoMatch("x".to_owned()), code::NO_MATCH),
            (Failure::Load(LoadError::NoObject), code::USAGE),
            (Failure::Load(LoadError::Exhausted { what: "x".to_owned(), error: io() }), code::USAGE),
            (Failure::Load(LoadError::Privilege(Vec::new())), code::PRIVILEGE),
            (Failure::Load(LoadError::UserNamespace), code::PRIVILEGE),
            (Failure::Load(LoadError::NoBtf(io())), code::KERNEL),
        ] {
            assert_eq!(failure.code(), code, "{failure}");
        }
    }
}
