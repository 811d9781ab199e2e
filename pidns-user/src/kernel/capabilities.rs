//! The capabilities that loading needs, and how to drop them afterwards.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

/// A capability by name and bit (include/uapi/linux/capability.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name, as capabilities(7) spells it.
    pub name: &'static str,
    bit: u32,
    /// Why the program needs it.
    pub purpose: &'static str,
}

const SYS_ADMIN: u32 = 21;

/// Capabilities needed to load and attach the programs (5.8 and later).
pub const NEEDED: [Capability; 2] = [
    Capability { name: "CAP_BPF", bit: 39, purpose: "load BPF programs and maps" },
    Capability { name: "CAP_PERFMON", bit: 38, purpose: "attach them to tracepoints and read kernel memory" },
];

/// Capabilities that may be kept after the start, by bit.
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
    /// Returns those of the calling thread.
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

    /// Whether it includes this capability, or CAP_SYS_ADMIN, which includes each of [`NEEDED`].
    pub fn suffice_for(self, capability: &Capability) -> bool {
        self.has(capability.bit) || self.has(SYS_ADMIN)
    }

    /// Their names, or numbers for capabilities that this program never keeps.
    pub fn names(self) -> Vec<String> {
        let name = |bit| match KEPT.iter().find(|(kept, _)| *kept == bit) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("capability {bit}"),
        };
        (0..u64::BITS).filter(|bit| self.has(*bit)).map(name).collect()
    }

    /// The missing capabilities of [`NEEDED`].
    pub fn missing(self) -> Vec<Capability> {
        NEEDED.into_iter().filter(|needed| !self.suffice_for(needed)).collect()
    }
}

/// The command that gives [`NEEDED`] to this binary.
pub fn setcap() -> String {
    let binary =
        std::env::current_exe().map_or_else(|_| "pidns-trace".to_owned(), |path| path.display().to_string());
    format!("sudo setcap cap_bpf,cap_perfmon+ep {binary}")
}

/// The privileges that the program still uses after its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uses {
    /// BPF and /proc. On some kernels, reading maps and attaching iterators needs BPF capabilities.
    BpfAndProc,
    /// Only /proc: processes of other users, and the files of their containers.
    Proc,
}

/// Drops all capabilities that the program no longer needs, and sets no_new_privs, so that executing a program cannot
/// regain any. Applies to the calling thread and to threads that it starts later.
///
/// Keeps CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH and, for `BpfAndProc`, those of BPF; each only if the thread has it.
pub fn drop_all_but(uses: Uses) -> io::Result<()> {
    let optional = CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
    let bpf = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let now = capabilities(None)?;
    let needed = match uses {
        Uses::Proc => CapabilitySet::empty(),
        Uses::BpfAndProc if now.effective.contains(bpf) => bpf,
        // CAP_SYS_ADMIN replaces the two if they are missing.
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

/// Drops all capabilities and sets no_new_privs. Applies to the calling thread and to threads that it starts later.
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
    fn missing_capabilities_are_named() {
        let none = Capabilities(0);
        assert_eq!(none.missing().iter().map(|c| c.name).collect::<Vec<_>>(), ["CAP_BPF", "CAP_PERFMON"]);
        let bpf = Capabilities(1 << 39);
        assert_eq!(bpf.missing().iter().map(|c| c.name).collect::<Vec<_>>(), ["CAP_PERFMON"]);
        assert_eq!(bpf.names(), ["CAP_BPF"]);
        assert!(Capabilities(1 << SYS_ADMIN).missing().is_empty());
    }

    #[test]
    fn own_capabilities_match_proc() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        assert_eq!(Capabilities::own().unwrap(), Capabilities(u64::from_str_radix(hex.trim(), 16).unwrap()));
    }
}
