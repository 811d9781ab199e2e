//! The read-only globals that user space fills in before load: kernel offsets, switches, filters.
//!
//! The verifier sees them as constants, so that what a switch turns off is removed, and an offset that nobody
//! filled in is refused at load.

use aya_ebpf::Global;
use pidns_ebpf::abi::symbols::{ABSENT, UNRESOLVED};

macro_rules! statics {
    ($(($symbol:ident, $need:ident, $what:ident, $structure:literal, $field:literal),)*) => { $(
        #[unsafe(no_mangle)]
        pub(crate) static $symbol: Global<u32> = Global::new(UNRESOLVED);
    )* };
}
pidns_ebpf::for_each_offset!(statics);

/// Whether an optional offset is there in this kernel.
#[inline(always)]
pub(crate) fn present(offset: &Global<u32>) -> bool {
    offset.load() != ABSENT
}

#[unsafe(no_mangle)]
pub(crate) static EVENT_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static LEVEL_MASK: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static FILTER_NS: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static FILTER_PIDS: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static COUNTING: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static WITH_ARGS: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static HAVE_TASK_PT_REGS: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static CALLS_MAY_BE_UNSEEN: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static HAVE_PREEMPT_KFUNCS: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static HAVE_IRQ_KFUNCS: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static SECOND_CHANCE: Global<u8> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static PROBE_NUMBERS: Global<u8> = Global::new(0);
