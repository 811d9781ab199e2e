//! What the kernel side has counted of each namespace, read from memory that both share.

use std::{
    collections::HashMap,
    io,
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
        PROBES, SLOTS, TOGETHER_SLOT,
    },
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Numbers of a slot: the namespace's id, its inode number, the counters.
const SLOT_WORDS: usize = size_of::<CounterSlot>() / size_of::<u64>();
/// Numbers before the counters.
const KEY_WORDS: usize = size_of::<NamespaceId>() / size_of::<u64>();
/// Exit reasons.
pub const EXIT_REASONS: usize = ExitReason::ALL.len();

/// What happened in a namespace since it was first met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes forked into it.
    pub forks: u64,
    /// Programs executed.
    pub execs: u64,
    /// Processes that ended, by [`ExitReason`].
    pub exits: [u64; EXIT_REASONS],
    /// Threads created, first threads of processes left out.
    pub threads_created: u64,
    /// Threads ended that were not their process's last.
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

    /// Adds what another has.
    pub fn add(&mut self, other: &Self) {
        self.forks += other.forks;
        self.execs += other.execs;
        self.exits.iter_mut().zip(other.exits).for_each(|(sum, more)| *sum += more);
        self.threads_created += other.threads_created;
        self.threads_ended += other.threads_ended;
    }

    /// What it has more than an earlier reading.
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

    /// Processes that ended, for whatever reason.
    pub fn ended(&self) -> u64 {
        self.exits.iter().sum()
    }
}

/// A reading of all that was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The initial namespace.
    pub host: Counts,
    /// Namespaces that found no place of their own, all of them together.
    pub together: Counts,
    /// Each of the others.
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

// SAFETY: u64s alone: any bytes are a value, and there is no padding.
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

    /// Reads everything. What is counted meanwhile may be in it or not.
    ///
    /// # Errors
    /// The hash map cannot be read: a part of a reading would be less than the one before it.
    pub fn read(&self) -> Result<Reading, CounterError> {
        let mut reading = Reading::default();
        for cpu in 0..self.cpus {
            self.slots.slot(cpu, HOST_SLOT).add_to(&mut reading.host);
            self.slots.slot(cpu, TOGETHER_SLOT).add_to(&mut reading.together);
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

    /// Reads what was counted of a namespace that is gone, and frees its place.
    ///
    /// # Errors
    /// The hash map cannot be read or written: nothing has changed.
    pub fn take(&mut self, key: NamespaceId) -> Result<Counts, CounterError> {
        let mut counts = Counts::default();
        match self.more.get(&Key(key), 0) {
            Ok(values) => {
                self.more.remove(&Key(key))?;
                add_rows(&values, &mut counts);
            }
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error.into()),
        }
        let first = key.first_slot();
        for cpu in 0..self.cpus {
            for probe in 0..PROBES {
                let slot = self.slots.slot(cpu, FIRST_SLOT + ((first + probe) & (SLOTS - 1)));
                // It can have two: one from before another namespace gave its own back.
                if slot.key() == Some(key) {
                    slot.add_to(&mut counts);
                    slot.free();
                }
            }
        }
        Ok(counts)
    }

    /// Slots in use on the CPU that has most of them in use.
    pub fn slots_in_use(&self) -> u64 {
        let in_use = |cpu| {
            (FIRST_SLOT..CPU_SLOTS).filter(|&number| self.slots.slot(cpu, number).key().is_some()).count()
        };
        (0..self.cpus).map(in_use).max().unwrap_or(0) as u64
    }

    /// Namespaces that found no slot, and are in the hash map.
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
    /// A map is not what it should be.
    #[error(transparent)]
    Bpf(#[from] MapError),
    /// The array cannot be mapped into memory.
    #[error("map the counters into memory: {0}")]
    Map(io::Error),
}

/// The array, in this process's memory.
struct Mapping {
    address: NonNull<AtomicU64>,
    words: usize,
    /// Kept open: programs that are loaded later refer to the map by this descriptor.
    _array: MapData,
}

// SAFETY: memory that is shared with the kernel, of which every word is read and written as an atomic.
unsafe impl Send for Mapping {}

impl Mapping {
    fn of(array: MapData, words: usize) -> io::Result<Self> {
        // SAFETY: a new mapping, of an array that is mapped as a whole (BPF_F_MMAPABLE); the kernel keeps it for as long as it
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
        // SAFETY: so many words are mapped, aligned to a page, for as long as `self` is there.
        let words = unsafe { slice::from_raw_parts(self.address.as_ptr(), self.words) };
        let first = (cpu * CPU_SLOTS + number) as usize * SLOT_WORDS;
        Slot(&words[first..first + SLOT_WORDS])
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: what was mapped; nothing of it is borrowed any more.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}

/// The numbers of a [`CounterSlot`].
struct Slot<'a>(&'a [AtomicU64]);

impl Slot<'_> {
    /// Whose it is. The kernel side writes the id last.
    fn key(&self) -> Option<NamespaceId> {
        let id = self.0[0].load(Ordering::Acquire);
        let inum = self.0[1].load(Ordering::Relaxed).to_ne_bytes();
        let inum = u32::from_ne_bytes([inum[0], inum[1], inum[2], inum[3]]);
        (id != 0).then_some(NamespaceId { id, inum, reserved: 0 })
    }

    fn add_to(&self, counts: &mut Counts) {
        counts.add_words(|word| self.0[KEY_WORDS + word].load(Ordering::Relaxed));
    }

    /// Gives it back: the kernel side may take it for another namespace, and sets its counters to 0 then.
    fn free(&self) {
        self.0[0].store(0, Ordering::Release);
    }
}
