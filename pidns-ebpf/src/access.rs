//! Reads kernel memory (by plain loads or by a helper) and user memory.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::helpers::generated;

use crate::layout::{Constant as _, HAVE_TASK_PT_REGS, PROBE_NUMBERS};

/// How memory behind a pointer is read.
pub(crate) trait Access: Copy {
    /// How memory behind a pointer from `pid.numbers` is read.
    type BehindNumbers: Access;

    /// Reads a `T` at `from`; zeros if that cannot be read.
    ///
    /// # Safety
    /// Any bytes must be a valid `T`.
    unsafe fn read<T: Copy>(from: *const u8) -> T;
}

/// Plain loads, through a pointer whose type the verifier knows.
#[derive(Clone, Copy)]
pub(crate) struct Direct;

impl Access for Direct {
    type BehindNumbers = ThroughNumbers;

    #[inline(always)]
    unsafe fn read<T: Copy>(from: *const u8) -> T {
        // SAFETY: the verifier accepts only safe loads; a load that faults returns 0.
        unsafe { ptr::read_volatile(from.cast()) }
    }
}

/// Copies by bpf_probe_read_kernel.
#[derive(Clone, Copy)]
pub(crate) struct Probed;

impl Access for Probed {
    type BehindNumbers = Self;

    #[inline(always)]
    unsafe fn read<T: Copy>(from: *const u8) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the destination has size_of::<T>() bytes; a fault leaves zeros, and any bytes are a valid T.
        unsafe {
            generated::bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from.cast());
            value.assume_init()
        }
    }
}

/// [`Direct`] if the verifier lets a program load from `pid.numbers`, else [`Probed`].
#[derive(Clone, Copy)]
pub(crate) struct ThroughNumbers;

impl Access for ThroughNumbers {
    type BehindNumbers = Self;

    #[inline(always)]
    unsafe fn read<T: Copy>(from: *const u8) -> T {
        // SAFETY: the caller's promise.
        unsafe { if PROBE_NUMBERS.is_on() { Probed::read(from) } else { Direct::read(from) } }
    }
}

/// Reads the registers of a system call: [`Direct`] if a helper returns a typed pointer to them, [`Probed`] if they are
/// looked up on the stack.
#[derive(Clone, Copy)]
pub(crate) struct ThroughRegs;

impl Access for ThroughRegs {
    type BehindNumbers = Probed;

    #[inline(always)]
    unsafe fn read<T: Copy>(from: *const u8) -> T {
        // SAFETY: the caller's promise.
        unsafe { if HAVE_TASK_PT_REGS.is_on() { Direct::read(from) } else { Probed::read(from) } }
    }
}

/// Copies from user memory; `None` if that cannot be read.
#[inline(always)]
pub(crate) fn read_user<T: Copy + Default>(from: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the destination has size_of::<T>() bytes; the helper checks the source.
    let failed = unsafe {
        generated::bpf_probe_read_user(
            ptr::from_mut(&mut value).cast(),
            size_of::<T>() as u32,
            from as *const core::ffi::c_void,
        )
    };
    (failed == 0).then_some(value)
}
