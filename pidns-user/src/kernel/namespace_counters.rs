//! Reads the kernel side's counters of each namespace, from memory that it shares with this process.

use std::{
    collections::{HashMap, HashSet},
    io,
    mem::offset_of,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{
    Pod,
    maps::{Map, MapData, MapError, PerCpuHashMap, PerCpuValues},
};
use pidns_ebpf::abi::{
    names,
    namespace_counters::{
        CPU_SLOTS, Counted, CounterSlot, ExitReason, FIRST_SLOT, HOST_SLOT, NamespaceCounters, NamespaceId,
        SHARED_SLOT,
    },
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Size of a slot in words (u64).
const SLOT_WORDS: usize = size_of::<CounterSlot>() / size_of::<u64>();
/// Index of the namespace's address in a slot.
const ADDRESS: usize = offset_of!(CounterSlot, address) / size_of::<u64>();
/// Index of the counters in a slot.
const COUNTERS: usize = offset_of!(CounterSlot, counters) / size_of::<u64>();
/// Index of the namespace's id in a slot. Its inode number follows.
const KEY: usize = offset_of!(CounterSlot, key) / size_of::<u64>();
/// Number of exit reasons.
pub const EXIT_REASONS: usize = ExitReason::ALL.len();

/// Counts of a namespace since the kernel side first saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes forked into it.
    pub forks: u64,
    /// Programs executed.
    pub execs: u64,
    /// Processes that ended, by [`ExitReason`].
    pub exits: [u64; EXIT_REASONS],
    /// Threads created, without the first thread of each process.
    pub threads_created: u64,
    /// Threads ended, without the last thread of each process.
    pub threads_ended: u64,
}

impl Counts {
    fn add_words(&mut self, word: impl Fn(usize) -> u64) {
        self.forks += word(Counted::Forks as usize);
        self.execs += word(Counted::Execs as usize);
        for (reason, exits) in self.exits.iter_mut().enumerate() {
            *exits += word(Counted::Exits as usize + reason);
        }
        self.threads_created += word(Counted::ThreadsCreated as usize);
        self.threads_ended += word(Counted::ThreadsEnded as usize);
    }

    /// Adds other counts.
    pub fn add(&mut self, other: &Self) {
        self.forks += other.forks;
        self.execs += other.execs;
        self.exits.iter_mut().zip(other.exits).for_each(|(sum, more)| *sum += more);
        self.threads_created += other.threads_created;
        self.threads_ended += other.threads_ended;
    }

    /// The increase since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut exits = self.exits;
        exits.iter_mut().zip(earlier.exits).for_each(|(now, before)| *now = now.saturating_sub(before));
        Self {
            forks: self.forks.saturating_sub(earlier.forks),
            execs: self.execs.saturating_sub(earlier.execs),
            exits,
            threads_created: self.threads_created.saturating_sub(earlier.threads_created),
            threads_ended: self.threads_ended.saturating_sub(earlier.threads_ended),
        }
    }

    /// Processes that ended, for any reason.
    pub fn ended(&self) -> u64 {
        self.exits.iter().sum()
    }
}

/// A reading of all counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The initial namespace.
    pub host: Counts,
    /// All namespaces for which there was no room, in one sum.
    pub shared_slot: Counts,
    /// Each other namespace.
    pub namespaces: HashMap<NamespaceId, Counts>,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(NamespaceId);

// SAFETY: repr(C), integers, 16 bytes without padding (pidns-ebpf asserts it).
unsafe impl Pod for Key {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Row(NamespaceCounters);

// SAFETY: it consists of u64s: any bytes are valid, and there is no padding.
unsafe impl Pod for Row {}

/// The kernel side's counters by namespace.
pub struct NamespaceCounterTable {
    slots: Mapping,
    cpus: u32,
    more: PerCpuHashMap<MapData, Key, Row>,
}

impl NamespaceCounterTable {
    /// `slots` has [`CPU_SLOTS`] elements for each of the machine's possible CPUs.
    pub(super) fn new(slots: Map, more: Map, cpus: u32) -> Result<Self, CounterError> {
        let Map::Array(array) = slots else {
            return Err(MapError::InvalidName { name: names::MAP_NAMESPACE_COUNTERS.to_owned() }.into());
        };
        let words = cpus as usize * CPU_SLOTS as usize * SLOT_WORDS;
        let slots = Mapping::of(array, words).map_err(CounterError::Map)?;
        Ok(Self { slots, cpus, more: PerCpuHashMap::try_from(more)? })
    }

    /// Reads all counters. Events that happen meanwhile may be included or not.
    ///
    /// # Errors
    /// The hash map cannot be read. An incomplete reading could have lower counts than the previous one.
    pub fn read(&self) -> Result<Reading, CounterError> {
        let mut reading = Reading::default();
        for cpu in 0..self.cpus {
            self.slots.slot(cpu, HOST_SLOT).add_to(&mut reading.host);
            self.slots.slot(cpu, SHARED_SLOT).add_to(&mut reading.shared_slot);
            for slot in (FIRST_SLOT..CPU_SLOTS).map(|number| self.slots.slot(cpu, number)) {
                if let Some(key) = slot.key() {
                    slot.add_to(reading.namespaces.entry(key).or_default());
                }
            }
        }
        for entry in self.more.iter() {
            let (Key(key), values) = entry?;
            add_rows(&values, reading.namespaces.entry(key).or_default());
        }
        Ok(reading)
    }

    /// Reads the counts of namespaces that are gone, and frees their slots. Reads all slots, even for one namespace.
    ///
    /// # Errors
    /// The hash map cannot be read or written. Then no slot was freed, but entries of the hash map may be removed.
    pub fn take(
        &mut self,
        gone: &HashSet<NamespaceId>,
    ) -> Result<HashMap<NamespaceId, Counts>, CounterError> {
        let mut taken: HashMap<NamespaceId, Counts> = HashMap::new();
        for key in gone {
            match self.more.get(&Key(*key), 0) {
                Ok(values) => {
                    self.more.remove(&Key(*key))?;
                    add_rows(&values, taken.entry(*key).or_default());
                }
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for cpu in 0..self.cpus {
            for slot in (FIRST_SLOT..CPU_SLOTS).map(|number| self.slots.slot(cpu, number)) {
                // A namespace can have two slots on a CPU, if one that it finds earlier was freed meanwhile.
                if let Some(key) = slot.key().filter(|key| gone.contains(key)) {
                    slot.add_to(taken.entry(key).or_default());
                    slot.free();
                }
            }
        }
        Ok(taken)
    }

    /// Number of slots in use on the CPU with the most in use.
    pub fn slots_in_use(&self) -> u64 {
        let in_use = |cpu| {
            (FIRST_SLOT..CPU_SLOTS).filter(|&number| self.slots.slot(cpu, number).key().is_some()).count()
        };
        (0..self.cpus).map(in_use).max().unwrap_or(0) as u64
    }

    /// Number of namespaces in the hash map, because no slot was free.
    pub fn in_hash_map(&self) -> usize {
        self.more.keys().filter_map(Result::ok).count()
    }
}

fn add_rows(values: &PerCpuValues<Row>, counts: &mut Counts) {
    for Row(NamespaceCounters(words)) in values.iter() {
        counts.add_words(|word| words[word]);
    }
}

/// Why the counters cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CounterError {
    /// A map cannot be used or read.
    #[error(transparent)]
    Bpf(#[from] MapError),
    /// The array cannot be mapped into memory.
    #[error("map the counters into memory: {0}")]
    Map(io::Error),
}

/// The array of slots, mapped into this process's memory.
struct Mapping {
    address: NonNull<AtomicU64>,
    words: usize,
    /// Kept open: programs that are loaded later refer to the map by this descriptor.
    _array: MapData,
}

// SAFETY: the memory is shared with the kernel, and every word is read and written as an atomic.
unsafe impl Send for Mapping {}

impl Mapping {
    fn of(array: MapData, words: usize) -> io::Result<Self> {
        // SAFETY: this creates a new mapping of the whole array (BPF_F_MMAPABLE). The kernel keeps the array while it
        // is mapped.
        let address = unsafe {
            mmap(
                std::ptr::null_mut(),
                words * size_of::<u64>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                array.fd(),
                0,
            )?
        };
        let address = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { address, words, _array: array })
    }

    fn slot(&self, cpu: u32, number: u32) -> Slot<'_> {
        // SAFETY: this number of words is mapped, aligned to a page, while `self` exists.
        let words = unsafe { slice::from_raw_parts(self.address.as_ptr(), self.words) };
        let first = (cpu * CPU_SLOTS + number) as usize * SLOT_WORDS;
        Slot(&words[first..first + SLOT_WORDS])
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `of` made this mapping with this length; no reference to it outlives self.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}

/// A [`CounterSlot`] in the shared memory, as 64-bit numbers.
struct Slot<'a>(&'a [AtomicU64]);

impl Slot<'_> {
    /// The namespace of the slot; `None` if the slot is free. The kernel side writes the address last.
    fn key(&self) -> Option<NamespaceId> {
        let address = self.0[ADDRESS].load(Ordering::Acquire);
        let inum = self.0[KEY + 1].load(Ordering::Relaxed).to_ne_bytes();
        let inum = u32::from_ne_bytes([inum[0], inum[1], inum[2], inum[3]]);
        let id = self.0[KEY].load(Ordering::Relaxed);
        (address != 0).then_some(NamespaceId { id, inum, reserved: 0 })
    }

    fn add_to(&self, counts: &mut Counts) {
        counts.add_words(|word| self.0[COUNTERS + word].load(Ordering::Relaxed));
    }

    /// Frees the slot. The kernel side may then use it for another namespace, and sets its counters to 0.
    fn free(&self) {
        self.0[ADDRESS].store(0, Ordering::Release);
    }
}
