//! Reads the PIDs of a process: its number at each level.

use pidns_ebpf::abi::MAX_LEVEL;

use crate::{
    access::{Access, Direct, Probed},
    kernel::{Pid, PidNamespace, bounded},
    layout::*,
};

/// The result of a walk along a process's PIDs.
#[derive(Clone, Copy)]
pub(crate) struct Chain<A: Access> {
    /// Number of PIDs that were written: the innermost level + 1.
    pub(crate) pids: u32,
    /// The innermost PID.
    pub(crate) innermost: u32,
    /// The innermost namespace.
    pub(crate) ns: PidNamespace<A::BehindNumbers>,
}

impl<A: Access> Chain<A> {
    /// Whether the process is PID 1 of a namespace below the initial one.
    #[inline(always)]
    pub(crate) fn is_init(&self) -> bool {
        self.pids > 1 && self.innermost == 1
    }
}

impl<A: Access> Pid<A> {
    #[inline(always)]
    pub(crate) fn level(self) -> u32 {
        self.field(PID_LEVEL)
    }

    #[inline(always)]
    pub(crate) fn number<T: Copy>(upid: *const u8, offset: impl Constant) -> T {
        // SAFETY: an integer or a pointer; any bytes are a valid value.
        unsafe { A::BehindNumbers::read(upid.add(offset.offset())) }
    }

    /// Writes the PIDs to `to`, from level 0 to the innermost.
    ///
    /// # Safety
    /// `to` must have room for `MAX_PIDS`.
    #[inline(always)]
    pub(crate) unsafe fn copy_pids(self, to: *mut u32) -> Chain<A> {
        let level = self.level();
        // The loop counts with constants, so that each step loads at a constant offset: the verifier allows no other
        // loads through a typed pointer. SAFETY: the pointer stays within `pid.numbers`, which has level + 1 elements.
        let mut upid = unsafe { self.0.add(PID_NUMBERS.offset()) };
        let mut index = 0;
        loop {
            let number: u32 = Self::number(upid, UPID_NR);
            // SAFETY: index <= MAX_LEVEL, and `to` has room for MAX_LEVEL + 1.
            unsafe { to.add(index as usize).write(number) };
            if index >= level || index >= MAX_LEVEL {
                let ns = PidNamespace::at(Self::number(upid, UPID_NS));
                // The level is read again. On each way out of the loop the verifier knows `index` and `level` exactly,
                // and would follow the rest of the program once for each level. Of this value it knows only a bound.
                let innermost_level = bounded(u64::from(self.level().min(MAX_LEVEL))) as u32;
                return Chain { pids: innermost_level + 1, innermost: number, ns };
            }
            index += 1;
            // SAFETY: as above.
            upid = unsafe { upid.add(UPID_SIZE.offset()) };
        }
    }

    /// The PID and the namespace at the innermost level.
    #[inline(always)]
    pub(crate) fn innermost(self) -> (u32, PidNamespace<Probed>) {
        // The mask gives the verifier a bound of the sum; levels are below 64. The product has 32 bits: older verifiers
        // (6.1) lose the bound of a 64-bit product if the compiler puts the constant first.
        let offset = PID_NUMBERS.load() + (self.level() & 63) * UPID_SIZE.load();
        // SAFETY: within `pid.numbers`, copied by a helper.
        unsafe {
            let upid = self.0.add(offset as usize);
            let number = Probed::read(upid.add(UPID_NR.offset()));
            (number, PidNamespace::at(Probed::read(upid.add(UPID_NS.offset()))))
        }
    }
}

impl Pid<Direct> {
    /// Reads the element of `pid.numbers` at a level that it has. The verifier allows only loads at constant offsets.
    #[inline(always)]
    fn upid_at<T: Copy>(self, level: usize, offset: impl Constant) -> T {
        // SAFETY: within `pid.numbers`.
        let upid = unsafe { self.0.add(PID_NUMBERS.offset() + level * UPID_SIZE.offset()) };
        Self::number(upid, offset)
    }

    /// The innermost PID. Nearly all namespaces are at level 1.
    #[inline(always)]
    pub(crate) fn innermost_number(self) -> u32 {
        match self.level() {
            0 => self.upid_at(0, UPID_NR),
            1 => self.upid_at(1, UPID_NR),
            2 => self.upid_at(2, UPID_NR),
            _ => self.innermost().0,
        }
    }
}
