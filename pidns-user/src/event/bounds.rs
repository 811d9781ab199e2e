//! Bounds of what is read: a recording may come from anywhere, and no kernel makes what is beyond them.

use serde::{Deserialize, Deserializer, de::Error};

use crate::text::Name;

/// The deepest level of a PID namespace (`MAX_PID_NS_LEVEL`, include/linux/pid_namespace.h).
pub const MAX_LEVEL: u32 = 32;
/// Longest name of a task, bytes: the kernel keeps 15, and /proc shows up to 63 of a kernel thread that works for a queue
/// (`proc_task_name`, fs/proc/array.c).
const LONGEST_COMM: usize = 64;
/// Most facts of a finding, and most commands.
const MOST_FACTS: usize = 64;

/// A level, which is [`MAX_LEVEL`] at most.
pub(super) fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let level = u32::deserialize(deserializer)?;
    if level > MAX_LEVEL {
        return Err(D::Error::custom(format!("level {level}: the deepest that there is is {MAX_LEVEL}")));
    }
    Ok(level)
}

/// A PID for each level.
pub(super) fn pids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    let pids = Vec::<u32>::deserialize(deserializer)?;
    if pids.len() > MAX_LEVEL as usize + 1 {
        let count = pids.len();
        return Err(D::Error::custom(format!(
            "{count} PIDs of one process: it has one a level, of which the deepest is {MAX_LEVEL}"
        )));
    }
    Ok(pids)
}

/// PIDs that a fork chose: one a level, and none in the initial namespace alone.
pub(super) fn chosen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i32>, D::Error> {
    let chosen = Vec::<i32>::deserialize(deserializer)?;
    if chosen.len() > MAX_LEVEL as usize {
        let count = chosen.len();
        return Err(D::Error::custom(format!("{count} chosen PIDs: the kernel takes {MAX_LEVEL} at most")));
    }
    Ok(chosen)
}

/// The name of a task.
pub(super) fn comm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    let comm = Name::deserialize(deserializer)?;
    let length = comm.as_bytes().len();
    if length > LONGEST_COMM {
        return Err(D::Error::custom(format!(
            "a comm of {length} bytes: the longest that there is has {LONGEST_COMM}"
        )));
    }
    Ok(comm)
}

/// The name of a task, where it is known.
pub(super) fn known_comm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Name>, D::Error> {
    comm(deserializer).map(Some)
}

/// A list in a finding, of facts or of commands: we write far fewer.
pub(super) fn facts<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let list = Vec::<T>::deserialize(deserializer)?;
    if list.len() > MOST_FACTS {
        let count = list.len();
        return Err(D::Error::custom(format!(
            "{count} facts or commands of one finding: {MOST_FACTS} is the most that is written"
        )));
    }
    Ok(list)
}
