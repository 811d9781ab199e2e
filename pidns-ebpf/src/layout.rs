//! The numbers that user space fills in before load: kernel offsets, switches, filters.
//!
//! The verifier sees them as constants, so that what a switch turns off is removed, and an offset that no program
//! filled in is refused at load.

use core::arch::asm;

use aya_ebpf::Global;
use pidns_ebpf::abi::symbols::{self, ABSENT, placeholder};

/// A number in the object's instructions. Until user space fills it in (`kernel/fill_in.rs`) its [`placeholder`] is there.
#[derive(Clone, Copy)]
pub(crate) struct FilledIn<const PLACEHOLDER: u32>;

/// A number that the verifier knows.
pub(crate) trait Constant: Copy {
    fn load(self) -> u32;

    /// Whether it is a switch that is on.
    #[inline(always)]
    fn is_on(self) -> bool {
        self.load() != 0
    }
}

impl<const PLACEHOLDER: u32> Constant for FilledIn<PLACEHOLDER> {
    #[inline(always)]
    fn load(self) -> u32 {
        let number: u64;
        // SAFETY: it sets a register.
        unsafe {
            asm!(
                "{number} = {placeholder}",
                number = lateout(reg) number,
                placeholder = const PLACEHOLDER,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        number as u32
    }
}

macro_rules! offsets {
    ($(($symbol:ident, $need:ident, $what:ident, $structure:literal, $field:literal),)*) => { $(
        pub(crate) const $symbol: FilledIn<{ placeholder(stringify!($symbol)) }> = FilledIn;
    )* };
}
pidns_ebpf::for_each_offset!(offsets);

/// Whether an optional offset is there in this kernel.
#[inline(always)]
pub(crate) fn present(offset: impl Constant) -> bool {
    offset.load() != ABSENT
}

macro_rules! switches {
    ($($name:ident),* $(,)?) => { $(
        pub(crate) const $name: FilledIn<{ placeholder(symbols::$name) }> = FilledIn;
    )* };
}
switches!(
    EVENT_MASK,
    FILTER_NS,
    FILTER_PIDS,
    COUNTING,
    WITH_ARGS,
    HAVE_TASK_PT_REGS,
    CALLS_MAY_BE_UNSEEN,
    HAVE_PREEMPT_KFUNCS,
    HAVE_IRQ_KFUNCS,
    SECOND_CHANCE,
    PROBE_NUMBERS,
);

/// Too long for an instruction that sets a register.
#[unsafe(no_mangle)]
pub(crate) static LEVEL_MASK: Global<u64> = Global::new(0);
