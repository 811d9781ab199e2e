//! The kernel's layout, resolved for the object: each offset that it needs, from BTF.

use pidns_ebpf::abi::symbols::{ABSENT, OFFSETS, Offset, SNAPSHOT_OFFSETS, SNAPSHOT_SHARED, Source};

use super::{
    btf::{Btf, BtfError},
    kfuncs::Kfuncs,
};

/// Values of the object's offsets, and of the switches that depend on the kernel alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Symbol and value.
    pub offsets: Vec<(&'static str, u32)>,
    /// bpf_task_pt_regs is there (5.15 and later).
    pub have_task_pt_regs: bool,
    /// The kfuncs that keep a task on its CPU while a program runs.
    pub kfuncs: Kfuncs,
    /// Tracepoints do not keep other tasks off their CPU (7.0 and later).
    pub preemptible_tracepoints: bool,
    /// `pid.numbers` has a stated length (5.10), so that the verifier takes no load past it.
    pub probe_numbers: bool,
    /// sched_process_exit passes `group_dead` (6.16 and later).
    pub exit_has_group_dead: bool,
}

/// What the object needs and this kernel's BTF lacks.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Missing(pub Vec<BtfError>);

/// What guards a tracepoint's programs where preemption is left on (`__DECLARE_TRACE`, include/linux/tracepoint.h); it
/// came with that use.
pub const TRACEPOINT_GUARD: &str = "srcu_fast_notrace";

impl Layout {
    /// Looks everything up; reports all that is missing at once.
    pub fn resolve(btf: &Btf<'_>) -> Result<Self, Missing> {
        let (layout, missing) = Self::look_up(btf);
        if missing.is_empty() { Ok(layout) } else { Err(Missing(missing)) }
    }

    /// Looks everything up: what there is, and all that is missing. Switches whose answer is missing are off.
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

    /// Whether the busy programs are each followed by a second one: where they can be left out, and only where they keep
    /// other tasks away meanwhile, as both use the same memory.
    pub fn second_chances(&self) -> bool {
        self.preemptible_tracepoints && self.kfuncs.preempt.is_some()
    }

    /// Whether this kernel has what the symbol stands for.
    pub fn has(&self, symbol: &str) -> bool {
        has(&self.offsets, symbol)
    }
}

/// Whether the symbol is among these and stands for something.
pub(super) fn has(offsets: &[(&'static str, u32)], symbol: &str) -> bool {
    offsets.iter().any(|(name, value)| *name == symbol && *value != ABSENT)
}

/// Values of the offsets of the snapshot's object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotLayout {
    /// Symbol and value.
    pub offsets: Vec<(&'static str, u32)>,
    /// As in [`Layout`].
    pub probe_numbers: bool,
}

impl SnapshotLayout {
    /// What is looked up: the offsets that the object shares with the live stream's, and its own.
    pub fn wanted() -> impl Iterator<Item = &'static Offset> {
        let shared = OFFSETS.iter().filter(|offset| SNAPSHOT_SHARED.contains(&offset.symbol));
        shared.chain(SNAPSHOT_OFFSETS)
    }

    /// The names of the types that [`SnapshotLayout::resolve`] asks BTF for ([`Btf::parse_for`]).
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

    /// Looks everything up; reports all that is missing at once.
    pub fn resolve(btf: &Btf<'_>) -> Result<Self, Missing> {
        let (layout, missing) = Self::look_up(btf);
        if missing.is_empty() { Ok(layout) } else { Err(Missing(missing)) }
    }

    /// Looks everything up: what there is, and all that is missing.
    pub fn look_up(btf: &Btf<'_>) -> (Self, Vec<BtfError>) {
        let (offsets, mut missing) = look_up(btf, Self::wanted());
        let probe_numbers = needs_probing(btf).unwrap_or_else(|error| {
            missing.push(error);
            false
        });
        (Self { offsets, probe_numbers }, missing)
    }

    /// Whether this kernel has what the symbol stands for.
    pub fn has(&self, symbol: &str) -> bool {
        has(&self.offsets, symbol)
    }

    /// Whether it has all that the programs need which find what holds namespaces.
    pub fn has_ties(&self) -> bool {
        TIES.iter().all(|symbol| self.has(symbol)) && KINDS.iter().any(|symbol| self.has(symbol))
    }
}

/// What the programs need, of what is optional, to find roots of processes.
pub(super) const TIES: &[&str] =
    &["TASK_FS", "FS_ROOT_MOUNT", "FS_ROOT_ENTRY", "NSPROXY_MOUNT_NS", "MOUNT_NS_NS"];
/// Of what they need one, to distinguish a PID namespace from others.
pub(super) const KINDS: &[&str] = &["NS_COMMON_TYPE", "PROC_NS_TYPE"];

/// Whether `pid.numbers` has a stated length.
fn needs_probing(btf: &Btf<'_>) -> Result<bool, BtfError> {
    btf.array_len("pid", "numbers").map(|len| len != 0)
}

/// The values of what this kernel has, and what it lacks although it is needed.
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
    fn shared_offsets_are_in_both_lists() {
        for symbol in SNAPSHOT_SHARED {
            assert!(OFFSETS.iter().any(|offset| offset.symbol == *symbol), "{symbol}");
        }
        assert_eq!(SnapshotLayout::wanted().count(), SNAPSHOT_SHARED.len() + SNAPSHOT_OFFSETS.len());
    }

    #[test]
    fn an_index_of_its_types_is_all_that_a_snapshot_needs() {
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
