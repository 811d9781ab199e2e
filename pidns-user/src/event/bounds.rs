//! Bounds of input: a recording may come from anywhere, and no kernel exceeds these.

use serde::{Deserialize, Deserializer, de::Error};

use crate::text::Name;

/// The deepest level of a PID namespace (`MAX_PID_NS_LEVEL`, include/linux/pid_namespace.h).
pub const MAX_LEVEL: u32 = 32;
/// Longest task name in bytes. The kernel keeps 15; for kworkers /proc shows up to 63 (`proc_task_name`,
/// fs/proc/array.c).
const LONGEST_COMM: usize = 64;
/// Maximum number of facts, and of commands, in one finding.
const MAX_FACTS: usize = 64;

/// A level, at most [`MAX_LEVEL`].
pub(super) fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let level = u32::deserialize(deserializer)?;
    if level > MAX_LEVEL {
        return Err(D::Error::custom(format!("level {level}: the deepest level is {MAX_LEVEL}")));
    }
    Ok(level)
}

/// The PIDs of a process: one for each level.
pub(super) fn pids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    let pids = Vec::<u32>::deserialize(deserializer)?;
    if pids.len() > MAX_LEVEL as usize + 1 {
        let count = pids.len();
        return Err(D::Error::custom(format!(
            "{count} PIDs of one process: it has one a level, and the deepest level is {MAX_LEVEL}"
        )));
    }
    Ok(pids)
}

/// PIDs that a fork has chosen: at most one for each level below the initial namespace.
pub(super) fn chosen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i32>, D::Error> {
    let chosen = Vec::<i32>::deserialize(deserializer)?;
    if chosen.len() > MAX_LEVEL as usize {
        let count = chosen.len();
        return Err(D::Error::custom(format!("{count} chosen PIDs: the kernel accepts at most {MAX_LEVEL}")));
    }
    Ok(chosen)
}

/// The name of a task.
pub(super) fn comm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    let comm = Name::deserialize(deserializer)?;
    let length = comm.as_bytes().len();
    if length > LONGEST_COMM {
        return Err(D::Error::custom(format!(
            "a comm of {length} bytes is too long: the limit is {LONGEST_COMM}"
        )));
    }
    Ok(comm)
}

/// The name of a task, if known.
pub(super) fn known_comm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Name>, D::Error> {
    comm(deserializer).map(Some)
}

/// A list of facts or commands in a finding. We write far fewer than the bound.
pub(super) fn facts<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let list = Vec::<T>::deserialize(deserializer)?;
    if list.len() > MAX_FACTS {
        let count = list.len();
        return Err(D::Error::custom(format!(
            "{count} facts or commands in one finding: at most {MAX_FACTS} are written"
        )));
    }
    Ok(list)
}
