//! The kernel functions that the object calls.

use pidns_ebpf::abi::symbols::{IRQ_RESTORE, IRQ_SAVE, PREEMPT_DISABLE, PREEMPT_ENABLE};

use super::btf::{Btf, BtfError, Prototype, Value};

/// BTF numbers of two kfuncs. The second undoes the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub(super) first: u32,
    pub(super) second: u32,
}

/// The kfuncs that the object calls, if this kernel has them. A pair is complete or missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kfuncs {
    /// bpf_preempt_disable and bpf_preempt_enable (6.10 and later).
    pub preempt: Option<Pair>,
    /// bpf_local_irq_save and bpf_local_irq_restore (6.14 and later).
    pub irq: Option<Pair>,
}

/// Names of the kfuncs.
pub const NAMES: [&str; 4] = [PREEMPT_DISABLE, PREEMPT_ENABLE, IRQ_SAVE, IRQ_RESTORE];

impl Kfuncs {
    /// Finds the kfuncs of this kernel that have the expected prototypes.
    pub fn find(btf: &Btf<'_>) -> Result<Self, BtfError> {
        let found = btf.functions(&NAMES)?;
        let pair = |names: [&str; 2], arguments| {
            let wanted = Prototype { arguments, returns: Value::Nothing };
            let number =
                |name| found.get(name).filter(|(_, prototype)| *prototype == wanted).map(|(id, _)| *id);
            let [first, second] = names.map(number);
            first.zip(second).map(|(first, second)| Pair { first, second })
        };
        Ok(Self {
            preempt: pair([PREEMPT_DISABLE, PREEMPT_ENABLE], Vec::new()),
            irq: pair([IRQ_SAVE, IRQ_RESTORE], vec![Value::Pointer("")]),
        })
    }

    /// Each kfunc that the object calls, with its BTF number if this kernel has it.
    pub(super) fn numbers(self) -> [(&'static str, Option<u32>); 4] {
        let Self { preempt, irq } = self;
        [
            (PREEMPT_DISABLE, preempt.map(|pair| pair.first)),
            (PREEMPT_ENABLE, preempt.map(|pair| pair.second)),
            (IRQ_SAVE, irq.map(|pair| pair.first)),
            (IRQ_RESTORE, irq.map(|pair| pair.second)),
        ]
    }
}
