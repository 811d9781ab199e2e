//! Which process or namespace an event or a snapshot is about, and when something happened.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($number:ty))*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        #[repr(transparent)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

numbers! {
    /// A process's PID at level 0: its thread group id in the initial PID namespace.
    HostPid(u32)
    /// Inode number of a PID namespace, as in `pid:[4026532847]`.
    NsInum(u32)
    /// A point in time on CLOCK_BOOTTIME, in nanoseconds.
    BootNs(u64)
}

impl HostPid {
    /// Of a field in which 0 stands for no process.
    pub const fn known(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }
}

impl NsInum {
    /// Of a field in which 0 stands for no namespace.
    pub const fn known(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }
}

impl BootNs {
    /// Of a field in which 0 stands for an unknown time.
    pub const fn known(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The time at which /proc's tick of this number begins.
    pub const fn from_ticks(ticks: u64) -> Self {
        Self(ticks.saturating_mul(TICK_NS))
    }

    /// The number of /proc's tick that the time is in.
    pub const fn ticks(self) -> u64 {
        self.0 / TICK_NS
    }

    /// The time as /proc shows it: rounded down to a tick (`USER_HZ` is 100 everywhere).
    pub const fn rounded_to_tick(self) -> Self {
        Self(self.0 - self.0 % TICK_NS)
    }

    /// Whether the two are one start. A snapshot reads from /proc what the task iterator leaves out (the host's PID 1 on some
    /// kernels, and processes that were forked meanwhile), and /proc rounds a start down to a tick.
    pub fn is_same(self, other: Self) -> bool {
        self == other || self.rounded_to_tick() == other || self == other.rounded_to_tick()
    }

    /// Nanoseconds since an earlier time; 0 where that is later.
    pub const fn saturating_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time so many nanoseconds later.
    pub const fn saturating_add(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// The time so many nanoseconds earlier.
    pub const fn saturating_sub(self, ns: u64) -> Self {
        Self(self.0.saturating_sub(ns))
    }
}

/// A tick of /proc, in nanoseconds.
pub(crate) const TICK_NS: u64 = 10_000_000;

/// Identity of a process: the kernel gives a PID out again, but not with the same start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// Its PID.
    pub pid: HostPid,
    /// When it was started.
    pub start: BootNs,
}

impl ProcessKey {
    /// The process of this PID that was started then.
    pub const fn new(pid: HostPid, start: BootNs) -> Self {
        Self { pid, start }
    }

    /// Whether the two are one process, though the start of one may be rounded.
    pub fn is_same(self, other: Self) -> bool {
        self.pid == other.pid && self.start.is_same(other.start)
    }

    /// The process with its start as /proc shows it.
    pub const fn rounded_to_tick(self) -> Self {
        Self { pid: self.pid, start: self.start.rounded_to_tick() }
    }
}

/// Identity of a namespace: the kernel gives an inode number out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceKey {
    /// Its inode number.
    pub inum: NsInum,
    /// Its birth; `None` where that is not known.
    pub born: Option<BootNs>,
}
