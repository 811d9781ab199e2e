//! Limits the thread that serves HTTP to the files that it needs (Landlock, landlock(7)).
//!
//! That thread alone, as it reads data from the network: a thread in a Landlock domain may read no process outside of it
//! (security/landlock/task.c, `hook_ptrace_access_check`), whatever its capabilities. It gets EACCES for /proc/PID/ns/pid and
//! /proc/PID/fd of others, of which snapshots are made.

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

/// What of Landlock is asked for: all that is known. Of an older kernel comes what it has.
const WANTED: ABI = ABI::V10;

/// From here on TCP can be denied (Linux 6.7).
const WITH_TCP: i32 = 4;

/// Why a thread could not be limited.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// What is to stay readable is not there, or may not be opened.
    #[error("open {}, which is to stay readable: {error}", path.display())]
    Path {
        /// The folder or file.
        path: PathBuf,
        /// What came back.
        error: io::Error,
    },
    /// The kernel refused it.
    #[error("limit the files of the thread that serves HTTP (Landlock): {0}")]
    Refused(#[from] Box<RulesetError>),
}

/// Limits the calling thread, and the threads that it starts from then on, to reading what is at and below these paths, and
/// to the files and sockets that are open already. It can write, make or run no file, cannot bind or connect over TCP from
/// Linux 6.7 on (it accepts connections of a socket that listens already), and cannot read other processes.
///
/// Sets no_new_privs. Where the kernel has no Landlock nothing changes, and the report shows it.
///
/// # Errors
/// A path is not there, or the kernel refuses a rule.
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

/// The kernel's error, without the path, which is named already.
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
        return Protection::Off(format!("Landlock (ABI {abi}) enforces nothing of what was asked for"));
    }
    let tcp = if abi >= WITH_TCP { "files and TCP" } else { "files; this kernel cannot deny TCP" };
    Protection::On(format!("Landlock ABI {abi}: {tcp}"))
}
