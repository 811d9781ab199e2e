//! The numbers that user space fills in before load: kernel offsets, switches, filters.
//!
//! The verifier sees constants. It removes the code that a switch turns off, and refuses an offset that user space did
//! not fill in.

use core::{arch::asm, hint::assert_unchecked};

use aya_ebpf::Global;
use pidns_ebpf::abi::symbols::{self, ABSENT, placeholder};

/// A number in the object's instructions. User space replaces its [`placeholder`] before load (`kernel/fill_in.rs`).
#[derive(Clone, Copy)]
pub(crate) struct FilledIn<const PLACEHOLDER: u32>;

/// A number that the verifier knows.
pub(crate) trait Constant: Copy {
    fn load(self) -> u32;

    /// The number as an offset in a structure.
    fn offset(self) -> usize;

    /// Whether this switch is on.
    #[inline(always)]
    fn is_on(self) -> bool {
        self.load() != 0
    }
}

impl<const PLACEHOLDER: u32> FilledIn<PLACEHOLDER> {
    #[inline(always)]
    fn register(self) -> u64 {
        let number: u64;
        // SAFETY: this only sets a register.
        unsafe {
            asm!(
                "{number} = {placeholder}",
                number = lateout(reg) number,
                placeholder = const PLACEHOLDER,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        number
    }
}

impl<const PLACEHOLDER: u32> Constant for FilledIn<PLACEHOLDER> {
    #[inline(always)]
    fn load(self) -> u32 {
        self.register() as u32
    }

    #[inline(always)]
    fn offset(self) -> usize {
        let number = self.register();
        // Without this bound the compiler truncates the number to 32 bits: two more instructions for each field.
        // SAFETY: no structure of the kernel is larger, and absent fields are not read.
        unsafe { assert_unchecked(number <= u64::from(u16::MAX)) };
        number as usize
    }
}

macro_rules! offsets {
    ($(($symbol:ident, $need:ident, $what:ident, $structure:literal, $field:literal),)*) => { $(
        pub(crate) const $symbol: FilledIn<{ placeholder(stringify!($symbol)) }> = FilledIn;
    )* };
}
pidns_ebpf::for_each_offset!(offsets);

/// Whether this kernel has the field of an optional offset.
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
    SECOND_PROGRAM,
    PROBE_NUMBERS,
);

/// A global variable, because 64 bits do not fit into an instruction that sets a register.
#[unsafe(no_mangle)]
pub(crate) static LEVEL_MASK: Global<u64> = Global::new(0);
