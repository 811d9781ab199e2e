//! Looks up in BTF the offsets and switches that the object needs.

use pidns_ebpf::abi::symbols::{ABSENT, OFFSETS, Offset, SNAPSHOT_OFFSETS, SNAPSHOT_SHARED, Source};

use super::{
    btf::{Btf, BtfError},
    kfuncs::Kfuncs,
};

/// Values of the object's offsets, and of the switches that depend only on the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Symbol and value.
    pub offsets: Vec<(&'static str, u32)>,
    /// Whether the kernel has bpf_task_pt_regs (5.15 and later).
    pub have_task_pt_regs: bool,
    /// The kfuncs that keep a task on its CPU while a program runs.
    pub kfuncs: Kfuncs,
    /// Whether tracepoints leave preemption on (7.0 and later).
    pub preemptible_tracepoints: bool,
    /// Whether `pid.numbers` has a declared length (5.10). Then the verifier rejects loads beyond it.
    pub probe_numbers: bool,
    /// Whether sched_process_exit passes `group_dead` (6.16 and later).
    pub exit_has_group_dead: bool,
}

/// Types and fields that the object needs and this kernel's BTF lacks.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Missing(pub Vec<BtfError>);

/// The guard of a tracepoint's programs if preemption stays on (`__DECLARE_TRACE`, include/linux/tracepoint.h). It was
/// added together with that change.
pub const TRACEPOINT_GUARD: &str = "srcu_fast_notrace";

impl Layout {
    /// Looks everything up. The error lists everything that is missing.
    pub fn resolve(btf: &Btf<'_>) -> Result<Self, Missing> {
        let (layout, missing) = Self::look_up(btf);
        if missing.is_empty() { Ok(layout) } else { Err(Missing(missing)) }
    }

    /// Looks everything up. Returns what exists and what is missing. Switches without an answer are off.
    pub fn look_up(btf: &Btf<'_>) -> (Self, Vec<BtfError>) {
        let (offsets, mut missing) = look_up(btf, OFFSETS);
        let mut or_missing = |answer: Result<bool, BtfError>| {
            answer.unwrap_or_else(|error| {
                missing.push(error);
                false
            })
        };
        let have_task_pt_regs = or_missing(match btf.enumerator("bpf_func_id", "BPF_FUNC_task_pt_regs") {
            Err(BtfError::NoField { .. }) => Ok(false),
            found => found.map(|_| true),
        });
        let probe_numbers = or_missing(needs_probing(btf));
        let exit_has_group_dead =
            or_missing(btf.tracepoint("sched_process_exit").map(|(_, found)| found.arguments.len() >= 2));
        let kfuncs = Kfuncs::find(btf).unwrap_or_else(|error| {
            missing.push(error);
            Kfuncs::default()
        });
        let layout = Self {
            offsets,
            have_task_pt_regs,
            kfuncs,
            preemptible_tracepoints: btf.has_guard(TRACEPOINT_GUARD),
            probe_numbers,
            exit_has_group_dead,
        };
        (layout, missing)
    }

    /// Whether a second program follows each of the busy ones. It must if the kernel can skip the first. It may only if
    /// the programs can disable preemption, because both use the same memory.
    pub fn has_second_programs(&self) -> bool {
        self.preemptible_tracepoints && self.kfuncs.preempt.is_some()
    }

    /// Whether this kernel has the type or field of this symbol.
    pub fn has(&self, symbol: &str) -> bool {
        has(&self.offsets, symbol)
    }
}

/// Whether the symbol is in the list and not absent.
pub(super) fn has(offsets: &[(&'static str, u32)], symbol: &str) -> bool {
    offsets.iter().any(|(name, value)| *name == symbol && *value != ABSENT)
}

/// Values of the offsets of the snapshot object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotLayout {
    /// Symbol and value.
    pub offsets: Vec<(&'static str, u32)>,
    /// The same as in [`Layout`].
    pub probe_numbers: bool,
}

impl SnapshotLayout {
    /// The offsets to look up: those shared with the live stream's object, and those only for snapshots.
    pub fn wanted() -> impl Iterator<Item = &'static Offset> {
        let shared = OFFSETS.iter().filter(|offset| SNAPSHOT_SHARED.contains(&offset.symbol));
        shared.chain(SNAPSHOT_OFFSETS)
    }

    /// Names of the types that [`SnapshotLayout::resolve`] looks up, for [`Btf::parse_for`].
    pub fn types() -> Vec<&'static str> {
        let types = Self::wanted().map(|offset| match offset.source {
            Source::Field(name, _)
            | Source::Size(name)
            | Source::Enumerator(name, _)
            | Source::Element(name, _) => name,
        });
        let mut types: Vec<_> = types.collect();
        types.sort_unstable();
        types.dedup();
        types
    }

    /// Looks everything up. The error lists everything that is missing.
    pub fn resolve(btf: &Btf<'_>) -> Result<Self, Missing> {
        let (layout, missing) = Self::look_up(btf);
        if missing.is_empty() { Ok(layout) } else { Err(Missing(missing)) }
    }

    /// Looks everything up. Returns what exists, and everything that is missing.
    pub fn look_up(btf: &Btf<'_>) -> (Self, Vec<BtfError>) {
        let (offsets, mut missing) = look_up(btf, Self::wanted());
        let probe_numbers = needs_probing(btf).unwrap_or_else(|error| {
            missing.push(error);
            false
        });
        (Self { offsets, probe_numbers }, missing)
    }

    /// Whether this kernel has the type or field of this symbol.
    pub fn has(&self, symbol: &str) -> bool {
        has(&self.offsets, symbol)
    }

    /// Whether it has all offsets of the programs that find holders of namespaces.
    pub fn has_holders(&self) -> bool {
        HOLDERS.iter().all(|symbol| self.has(symbol)) && KINDS.iter().any(|symbol| self.has(symbol))
    }
}

/// Optional offsets that the programs need to find roots of processes.
pub(super) const HOLDERS: &[&str] =
    &["TASK_FS", "FS_ROOT_MOUNT", "FS_ROOT_ENTRY", "NSPROXY_MOUNT_NS", "MOUNT_NS_NS"];
/// They need one of these to distinguish PID namespaces from others.
pub(super) const KINDS: &[&str] = &["NS_COMMON_TYPE", "PROC_NS_TYPE"];

/// Whether `pid.numbers` has a declared length.
fn needs_probing(btf: &Btf<'_>) -> Result<bool, BtfError> {
    btf.array_len("pid", "numbers").map(|len| len != 0)
}

/// Returns the values that this kernel has, and the required ones that it lacks.
fn look_up<'o>(
    btf: &Btf<'_>,
    wanted: impl IntoIterator<Item = &'o Offset>,
) -> (Vec<(&'static str, u32)>, Vec<BtfError>) {
    let mut offsets = Vec::new();
    let mut missing = Vec::new();
    for Offset { symbol, source, optional } in wanted {
        let value = match source {
            Source::Field(structure, field) => btf.field(structure, field),
            Source::Size(structure) => btf.size(structure),
            Source::Enumerator(enumeration, name) => btf.enumerator(enumeration, name),
            Source::Element(structure, field) => btf.element_size(structure, field),
        };
        match value {
            Ok(value) => offsets.push((*symbol, value)),
            Err(BtfError::NoType(_) | BtfError::NoField { .. }) if *optional => {
                offsets.push((*symbol, ABSENT));
            }
            Err(error) => missing.push(error),
        }
    }
    (offsets, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_offsets_exist() {
        for symbol in SNAPSHOT_SHARED {
            assert!(OFFSETS.iter().any(|offset| offset.symbol == *symbol), "{symbol}");
        }
        assert_eq!(SnapshotLayout::wanted().count(), SNAPSHOT_SHARED.len() + SNAPSHOT_OFFSETS.len());
    }

    #[test]
    fn a_snapshot_needs_no_types_outside_its_index() {
        let bytes = std::fs::read(super::super::btf::PATH).expect("the running kernel has BTF");
        let all = Btf::parse(&bytes).expect("good BTF");
        let few = Btf::parse_for(&bytes, &SnapshotLayout::types()).expect("good BTF");
        let found = SnapshotLayout::resolve(&few).expect("all that is needed");
        assert_eq!(found, SnapshotLayout::resolve(&all).expect("all that is needed"));
        let stream = Layout::resolve(&all).expect("all that is needed");
        for shared in found.offsets.iter().filter(|(symbol, _)| SNAPSHOT_SHARED.contains(symbol)) {
            assert!(stream.offsets.contains(shared), "{shared:?}");
        }
    }
}
