//! Baselines for `cargo xtask bench`: what a hook costs without our code.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

/// The same licence as the real object's, so only the programs differ.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::BPF_RB_NO_WAKEUP,
        macros::{btf_tracepoint, map},
        maps::RingBuf,
        programs::BtfTracePointContext,
    };

    /// As large as the default ring buffer of the tracer.
    #[map]
    static RECORDS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

    /// A program that returns at once, on each of the six busy tracepoints. (mark_victim and the function hooks have no
    /// empty counterpart.)
    macro_rules! empty {
        ($($tracepoint:literal $name:ident),* $(,)?) => { $(
            #[btf_tracepoint(function = $tracepoint)]
            fn $name(_: BtfTracePointContext) -> i32 {
                0
            }
        )* };
    }

    empty! {
        "sched_process_fork" empty_fork,
        "sched_process_exec" empty_exec,
        "sched_process_exit" empty_exit,
        "sched_process_free" empty_free,
        "signal_generate" empty_signal,
        "sys_exit" empty_sys_exit,
    }

    /// Reserves and submits 128 bytes, about the size of a fork's record, and wakes the reader if it waits.
    #[btf_tracepoint(function = "sched_process_fork")]
    fn reserve_submit(_: BtfTracePointContext) -> i32 {
        send(0);
        0
    }

    /// The same, but never wakes the reader.
    #[btf_tracepoint(function = "sched_process_fork")]
    fn reserve_quiet(_: BtfTracePointContext) -> i32 {
        send(BPF_RB_NO_WAKEUP.into());
        0
    }

    /// Writes only one word: the cost of filling in a record is not part of the baseline.
    #[inline(always)]
    fn send(flags: u64) {
        if let Some(mut record) = RECORDS.reserve::<[u64; 16]>(0) {
            // SAFETY: the record has 16 words.
            unsafe { record.as_mut_ptr().cast::<u64>().write_volatile(1) };
            record.submit(flags);
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
