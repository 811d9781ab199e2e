//! The privileges that loading needs, by name.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

/// A capability by name and bit (include/uapi/linux/capability.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name, as capabilities(7) spells it.
    pub name: &'static str,
    bit: u32,
    /// What the program needs it for.
    pub purpose: &'static str,
}

const SYS_ADMIN: u32 = 21;

/// What loading and attaching the programs takes (5.8 and later).
pub const NEEDED: [Capability; 2] = [
    Capability { name: "CAP_BPF", bit: 39, purpose: "load BPF programs and maps" },
    Capability { name: "CAP_PERFMON", bit: 38, purpose: "attach them to tracepoints and read kernel memory" },
];

/// Those that are kept after the start, by bit.
const KEPT: [(u32, &str); 5] = [
    (2, "CAP_DAC_READ_SEARCH"),
    (19, "CAP_SYS_PTRACE"),
    (SYS_ADMIN, "CAP_SYS_ADMIN"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// The effective capabilities of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Those of the calling process.
    pub fn own() -> io::Result<Self> {
        Ok(Self(capabilities(None)?.effective.bits()))
    }

    fn has(self, bit: u32) -> bool {
        self.0 & (1 << bit) != 0
    }

    /// Whether it may read the namespaces of any process (CAP_SYS_PTRACE).
    pub fn may_trace_all(self) -> bool {
        const SYS_PTRACE: u32 = 19;
        self.has(SYS_PTRACE)
    }

    /// Whether it has this one, or CAP_SYS_ADMIN, which stands in for both.
    pub fn suffice_for(self, capability: &Capability) -> bool {
        self.has(capability.bit) || self.has(SYS_ADMIN)
    }

    /// Their names; of those that this program never keeps, the numbers.
    pub fn names(self) -> Vec<String> {
        let name = |bit| match KEPT.iter().find(|(kept, _)| *kept == bit) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("capability {bit}"),
        };
        (0..u64::BITS).filter(|bit| self.has(*bit)).map(name).collect()
    }

    /// Those of [`NEEDED`] that it lacks.
    pub fn missing(self) -> Vec<Capability> {
        NEEDED.into_iter().filter(|needed| !self.suffice_for(needed)).collect()
    }
}

/// The command that gives them to this binary.
pub fn setcap() -> String {
    let binary =
        std::env::current_exe().map_or_else(|_| "pidns-trace".to_owned(), |path| path.display().to_string());
    format!("sudo setcap cap_bpf,cap_perfmon+ep {binary}")
}

/// What the program goes on to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uses {
    /// BPF, as on some kernels maps may not be read, and an iterator not be attached, without; and /proc.
    BpfAndProc,
    /// Processes of other users in /proc, and the files of their containers.
    Proc,
}

/// Gives up all capabilities but those that are used from then on, and the way to get others by running a program. For the
/// calling thread, and those it starts from then on.
///
/// Kept are, where they are there, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, and those of BPF where it is used.
pub fn drop_all_but(uses: Uses) -> io::Result<()> {
    let optional = CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
    let bpf = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let now = capabilities(None)?;
    let needed = match uses {
        Uses::Proc => CapabilitySet::empty(),
        Uses::BpfAndProc if now.effective.contains(bpf) => bpf,
        // With CAP_SYS_ADMIN in their place the two may be missing.
        Uses::BpfAndProc => bpf | CapabilitySet::SYS_ADMIN,
    };
    let kept = now.effective & (needed | optional);
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?;
    set_no_new_privs(true)?;
    Ok(())
}

/// Gives up all capabilities, and the way to get others by running a program. For the calling thread, and those it starts from
/// then on.
pub fn drop_all() -> io::Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_no_new_privs(true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_ones_are_named() {
        let none = Capabilities(0);
        assert_eq!(none.missing().iter().map(|c| c.name).collect::<Vec<_>>(), ["CAP_BPF", "CAP_PERFMON"]);
        let bpf = Capabilities(1 << 39);
        assert_eq!(bpf.missing().iter().map(|c| c.name).collect::<Vec<_>>(), ["CAP_PERFMON"]);
        assert_eq!(bpf.names(), ["CAP_BPF"]);
        assert!(Capabilities(1 << SYS_ADMIN).missing().is_empty());
    }

    #[test]
    fn own_capabilities_are_those_of_proc() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        assert_eq!(Capabilities::own().unwrap(), Capabilities(u64::from_str_radix(hex.trim(), 16).unwrap()));
    }
}
