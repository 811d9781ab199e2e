//! What is still to be told of a process that has ended: its reaping, the end of its namespace's teardown. The table is that of
//! [`pidns_ebpf::abi::pending`].

use aya_ebpf::{macros::map, maps::Array};
pub(crate) use pidns_ebpf::abi::pending::{Kept, REAP, TEARDOWN};
use pidns_ebpf::abi::{
    BriefReapRecord, FLAG_BRIEF, Header, Kind, ProcessKey, Writer,
    pending::{SLOTS, flags, slot, word},
};

use crate::emit::{now, output};

#[map]
static PENDING: Array<u64> = Array::with_max_entries(SLOTS, 0);

/// The words of [`Kept`].
#[map]
static KEPT: Array<u64> = Array::with_max_entries(Kept::WORDS, 0);

/// A process's slot.
///
/// No two programs write it at once: while it is empty only the exit of a process whose slot it is does, while it is taken only
/// the end of the one that has it. Two processes whose PIDs differ by a multiple of the slots may exit at the same instant on two
/// CPUs; one of them is then found by the look that user space takes (kernel/sweep.rs).
#[derive(Clone, Copy)]
pub(crate) struct Slot(*mut u64);

impl Slot {
    /// That of a process with this PID.
    #[inline(always)]
    pub(crate) fn of(pid: u32) -> Option<Self> {
        PENDING.get_ptr_mut(slot(pid)).map(Self)
    }

    #[inline(always)]
    fn load(self) -> u64 {
        // SAFETY: a map value.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn store(self, word: u64) {
        // SAFETY: a map value.
        unsafe { self.0.write_volatile(word) }
    }

    /// Whether it is nobody's.
    #[inline(always)]
    pub(crate) fn is_empty(self) -> bool {
        self.load() == 0
    }

    /// What is to be told of this process, as far as the slot is its own.
    #[inline(always)]
    pub(crate) fn flags(self, key: &ProcessKey) -> u64 {
        flags(self.load(), *key)
    }

    /// Has the hooks of the process's end know what is to be told. Whether the slot was free for that.
    #[inline(always)]
    pub(crate) fn take(self, key: &ProcessKey, flags: u64) -> bool {
        let is_free = self.is_empty();
        if is_free {
            self.store(word(*key, flags));
        }
        is_free
    }

    /// Tells of the reaping of the process that has this slot, and gives the slot back. One whose record is lost keeps it:
    /// user space finds the process gone, and gives the slot back then.
    #[inline(always)]
    pub(crate) fn reaped(self, writer: Writer, flags: u8, key: &ProcessKey) {
        let size = size_of::<BriefReapRecord>() as u32;
        let header = Header {
            boot_ns: now(),
            size,
            kind: Kind::ProcessReap as u8,
            flags: flags | FLAG_BRIEF,
            pids: 0,
            other_pids: 0,
        };
        let record = BriefReapRecord { header, key: *key };
        // SAFETY: a record on the stack, of that size.
        let sent = unsafe { output(writer, Kind::ProcessReap, (&raw const record).cast(), size) };
        self.store(if sent { 0 } else { word(*key, REAP) });
    }

    /// The end of the teardown that this process's exit began, if it was an init's, is told: no other hook need look for it.
    #[inline(always)]
    pub(crate) fn torn_down(self, key: &ProcessKey) {
        match self.flags(key) {
            0 | REAP => {}
            TEARDOWN => self.store(0),
            _ => self.store(word(*key, REAP)),
        }
    }
}

/// Whether a hash map may have something of this kind.
#[inline(always)]
pub(crate) fn may_be_kept(what: Kept) -> bool {
    let word = |place| KEPT.get(place).copied().unwrap_or(0);
    word(what.put()) != word(what.settled())
}

/// Something of this kind has been put in a hash map.
#[inline(always)]
pub(crate) fn is_kept(what: Kept) {
    if let Some(count) = KEPT.get_ptr_mut(what.put()) {
        // SAFETY: a map value. See [`Kept`] for two CPUs at once.
        unsafe { count.write_volatile(count.read_volatile() + 1) };
    }
}
