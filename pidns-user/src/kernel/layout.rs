//! The kernel's layout, resolved for the object: what BTF says of each offset that it needs.

use pidns_ebpf::abi::symbols::{ABSENT, OFFSETS, Offset, SNAPSHOT_OFFSETS, Source};

use super::{
    btf::{Btf, BtfError},
    kfuncs::PreemptKfuncs,
};

/// Values of the object's layout globals, and of the switches that depend on the kernel alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Symbol and value.
    pub offsets: Vec<(&'static str, u32)>,
    /// bpf_task_pt_regs is there (5.15 and later).
    pub have_task_pt_regs: bool,
    /// bpf_preempt_disable and bpf_preempt_enable (6.10 and later).
    pub preempt_kfuncs: Option<PreemptKfuncs>,
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
    /// Looks everything up; tells all that is missing at once.
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
        let probe_numbers = or_missing(btf.array_len("pid", "numbers").map(|len| len != 0));
        let exit_has_group_dead =
            or_missing(btf.tracepoint("sched_process_exit").map(|(_, found)| found.arguments.len() >= 2));
        let preempt_kfuncs = PreemptKfuncs::find(btf).unwrap_or_else(|error| {
            missing.push(error);
            None
        });
        let layout = Self {
            offsets,
            have_task_pt_regs,
            preempt_kfuncs,
            preemptible_tracepoints: btf.has_guard(TRACEPOINT_GUARD),
            probe_numbers,
            exit_has_group_dead,
        };
        (layout, missing)
    }

    /// Whether the busy programs are each followed by a second one: where they can be left out, and only where they keep
    /// other tasks away meanwhile, as both use the same memory.
    pub fn second_chances(&self) -> bool {
        self.preemptible_tracepoints && self.preempt_kfuncs.is_some()
    }

    /// Looks up what the snapshot's object has besides.
    pub fn of_snapshot(btf: &Btf<'_>) -> Result<Vec<(&'static str, u32)>, Missing> {
        let (offsets, missing) = look_up(btf, SNAPSHOT_OFFSETS);
        if missing.is_empty() { Ok(offsets) } else { Err(Missing(missing)) }
    }

    /// Whether this kernel has what the symbol stands for.
    pub fn has(&self, symbol: &str) -> bool {
        self.offsets.iter().any(|(name, value)| *name == symbol && *value != ABSENT)
    }
}

/// The values of what this kernel has, and what it lacks although it is needed.
fn look_up(btf: &Btf<'_>, wanted: &[Offset]) -> (Vec<(&'static str, u32)>, Vec<BtfError>) {
    let mut offsets = Vec::with_capacity(wanted.len());
    let mut missing = Vec::new();
    for Offset { symbol, source, optional } in wanted {
        let value = match source {
            Source::Field(structure, field) => btf.field(structure, field),
            Source::Size(structure) => btf.size(structure),
            Source::Enumerator(enumeration, name) => btf.enumerator(enumeration, name),
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
