//! The table that says of a process that has ended what is still to be told of it: a word, found by its PID.
//!
//! The hooks on the ends of tasks run for every thread of the machine, and for nearly all of them there is nothing to tell.
//! One load says so. A process whose slot is another's is in the hash maps alone; while there may be such a process, every
//! end is looked up there.

use super::ProcessKey;

/// Slots. Where `pid_max` is not larger than this (32,768 by default, 4,194,304 with systemd), no two processes share one.
pub const SLOTS: u32 = 1 << 16;

/// What hash maps keep of processes that have ended, which is looked for only while there may be any.
///
/// The kernel side counts in one word what it puts there, after it has done so; user space writes to another how far that count
/// was when it has found the map empty. While the two differ there may be something. Two CPUs may count as one: what both have
/// put there is there before either counts, and stays there until their programs have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Zombies and inits without a slot.
    WithoutSlot,
    /// Namespaces in teardown.
    Teardowns,
}

impl Kept {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::WithoutSlot, Self::Teardowns];

    /// How many words there are, in a table of their own: a small one, which every signal looks at, is in memory that the kernel
    /// has mapped in large pages.
    pub const WORDS: u32 = 2 * Self::ALL.len() as u32;

    /// Where the kernel side counts.
    pub const fn put(self) -> u32 {
        2 * self as u32
    }

    /// Where user space says up to which count nothing is left.
    pub const fn settled(self) -> u32 {
        self.put() + 1
    }
}

/// Its reaping is to be told, and user space knows the rest from its exit.
pub const REAP: u64 = 1 << 0;
/// It was the init of a namespace, the end of whose teardown is to be told if nothing else has told it.
pub const TEARDOWN: u64 = 1 << 1;

const FLAGS: u64 = REAP | TEARDOWN;

/// Where the word of a process with this PID is.
pub const fn slot(pid: u32) -> u32 {
    pid & (SLOTS - 1)
}

/// What stands for the process: its start, and the bits of its PID (of 22 at most) that do not say which slot it is.
const fn identity(key: ProcessKey) -> u64 {
    key.start_boot_ns << 8 | (key.pid as u64 >> 16 & 0x3f) << 2
}

/// The word for a process and what is to be told of it; 0 is none's.
pub const fn word(key: ProcessKey, flags: u64) -> u64 {
    identity(key) | flags & FLAGS
}

/// What is to be told of this process; 0 where the word is another's, or none's.
pub const fn flags(word: u64, key: ProcessKey) -> u64 {
    if word & !FLAGS == identity(key) { word & FLAGS } else { 0 }
}
