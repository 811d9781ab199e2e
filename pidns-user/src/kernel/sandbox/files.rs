//! Limits the thread that serves HTTP to the files that it needs (Landlock, landlock(7)).
//!
//! Only that thread is limited, because it reads data from the network. A thread in a Landlock domain cannot read any
//! process outside the domain (security/landlock/task.c, `hook_ptrace_access_check`), whatever its capabilities. It
//! gets EACCES for /proc/PID/ns/pid and /proc/PID/fd of other processes, and snapshots need these.

use std::{
    io,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, LandlockStatus, PathBeneath, PathFd, PathFdError,
    RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
    Scope,
};

use super::Protection;

/// Requests every Landlock feature that we know. An older kernel enforces those that it has.
const WANTED: ABI = ABI::V10;

/// The first Landlock ABI that can deny TCP (Linux 6.7).
const WITH_TCP: i32 = 4;

/// Why a thread could not be limited.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A path that must stay readable does not exist, or may not be opened.
    #[error("open {}, which must stay readable: {error}", path.display())]
    Path {
        /// The directory or file.
        path: PathBuf,
        /// Its error.
        error: io::Error,
    },
    /// The kernel refused to limit the thread.
    #[error("limit the files of the thread that serves HTTP (Landlock): {0}")]
    Refused(#[from] Box<RulesetError>),
}

/// Limits the calling thread, and threads that it starts later, to reading these paths and everything below them, and
/// to files and sockets that are already open. It cannot write, create or execute files, cannot read other processes
/// and, since Linux 6.7, cannot bind or connect over TCP. It can still accept connections of a listening socket.
///
/// Sets no_new_privs. If the kernel has no Landlock, nothing changes and the report says so.
///
/// # Errors
/// A path does not exist, or the kernel refuses a rule.
pub fn restrict_network_thread(readable: &[&Path]) -> Result<Protection, FilesError> {
    let refused = |error: RulesetError| FilesError::from(Box::new(error));
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(WANTED))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(WANTED)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(WANTED)))
        .and_then(Ruleset::create);
    let mut ruleset = ruleset.map_err(refused)?;
    for path in readable {
        let fd = PathFd::new(path)
            .map_err(|error| FilesError::Path { path: path.to_path_buf(), error: cause(error) })?;
        let rule = PathBeneath::new(fd, AccessFs::ReadFile | AccessFs::ReadDir);
        ruleset = ruleset.add_rule(rule).map_err(refused)?;
    }
    Ok(protection(&ruleset.restrict_self().map_err(refused)?))
}

/// Returns the kernel's error without the path, which our message already has.
fn cause(error: PathFdError) -> io::Error {
    match error {
        PathFdError::OpenCall { source, .. } => source,
        other => io::Error::other(other),
    }
}

fn protection(RestrictionStatus { ruleset, landlock, .. }: &RestrictionStatus) -> Protection {
    let abi = match landlock {
        LandlockStatus::NotImplemented => {
            return Protection::Off(
                "this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, Linux 5.13)".to_owned(),
            );
        }
        LandlockStatus::NotEnabled => {
            return Protection::Off(
                "Landlock is not in the kernel's list of security modules (lsm=)".to_owned(),
            );
        }
        LandlockStatus::Available { effective_abi, .. } => *effective_abi as i32,
    };
    if *ruleset == RulesetStatus::NotEnforced {
        return Protection::Off(format!("Landlock (ABI {abi}) enforces none of the requested limits"));
    }
    let tcp = if abi >= WITH_TCP { "files and TCP" } else { "files; this kernel cannot deny TCP" };
    Protection::On(format!("Landlock ABI {abi}: {tcp}"))
}
