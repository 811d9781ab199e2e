//! Identities of processes and namespaces, and times.

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
    /// From a field in which 0 means no process.
    pub const fn known(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }
}

impl NsInum {
    /// From a field in which 0 means no namespace.
    pub const fn known(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }
}

impl BootNs {
    /// From a field in which 0 means that the time is unknown.
    pub const fn known(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The start of this tick of /proc.
    pub const fn from_ticks(ticks: u64) -> Self {
        Self(ticks.saturating_mul(TICK_NS))
    }

    /// The tick of /proc that contains this time.
    pub const fn ticks(self) -> u64 {
        self.0 / TICK_NS
    }

    /// The time as /proc shows it, rounded down to a tick (`USER_HZ` is 100 everywhere).
    pub const fn rounded_to_tick(self) -> Self {
        Self(self.0 - self.0 % TICK_NS)
    }

    /// Whether the two are the same start, although one may be rounded. /proc rounds starts down to a tick, and a
    /// snapshot reads from /proc what the task iterator omits: the host's PID 1 on some kernels, and processes forked
    /// meanwhile.
    pub fn is_same(self, other: Self) -> bool {
        self == other || self.rounded_to_tick() == other || self == other.rounded_to_tick()
    }

    /// Nanoseconds since `earlier`; 0 if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time `ns` nanoseconds later.
    pub const fn saturating_add(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// The time `ns` nanoseconds earlier.
    pub const fn saturating_sub(self, ns: u64) -> Self {
        Self(self.0.saturating_sub(ns))
    }
}

/// A tick of /proc, in nanoseconds.
pub(crate) const TICK_NS: u64 = 10_000_000;

/// Identity of a process. The kernel reuses a PID, but not with the same start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// Its PID.
    pub pid: HostPid,
    /// When it was started.
    pub start: BootNs,
}

impl ProcessKey {
    /// The process with this PID and start.
    pub const fn new(pid: HostPid, start: BootNs) -> Self {
        Self { pid, start }
    }

    /// Whether the two are the same process, although one start may be rounded.
    pub fn is_same(self, other: Self) -> bool {
        self.pid == other.pid && self.start.is_same(other.start)
    }

    /// The same process with its start as /proc shows it.
    pub const fn rounded_to_tick(self) -> Self {
        Self { pid: self.pid, start: self.start.rounded_to_tick() }
    }
}

/// Identity of a namespace. The kernel reuses inode numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceKey {
    /// Its inode number.
    pub inum: NsInum,
    /// Its birth; `None` if unknown.
    pub born: Option<BootNs>,
}
