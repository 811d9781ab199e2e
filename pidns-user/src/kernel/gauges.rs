//! Measures how full the kernel side's maps are and what its programs cost, for users who monitor the tracer.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
    programs::ProgramFd,
    sys::{self, Stats},
};
use pidns_ebpf::abi::names;
use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

use super::stats::fdinfo;

/// Fill level of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Its name, in lower case.
    pub name: String,
    /// Number of entries.
    pub entries: u64,
    /// Largest possible number of entries.
    pub capacity: u64,
}

/// Run counts of a program, from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// Its name.
    pub name: String,
    /// Number of runs.
    pub runs: u64,
    /// Total run time in nanoseconds.
    pub ns: u64,
}

/// Fill level of the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFill {
    /// Size in bytes.
    pub capacity: u64,
    /// Bytes that are not read yet.
    pub used: u64,
}

/// Handles to read the kernel side's state besides its events. They keep maps and programs alive.
#[derive(Default)]
pub struct Gauges {
    tables: Vec<Table>,
    ring: Option<Ring>,
    programs: Vec<(String, ProgramFd)>,
    /// The kernel counts the runs of programs while this is open.
    _stats: Option<OwnedFd>,
}

/// A hash map.
struct Table {
    name: String,
    map: OwnedFd,
    key_bytes: usize,
    capacity: u64,
}

impl Gauges {
    /// For an object that still has all its maps. Programs are added after they are loaded.
    pub(super) fn of_maps(ebpf: &Ebpf, ring: &str) -> io::Result<Self> {
        /// Counting mode puts nothing into these maps.
        const UNUSED: [&str; 3] = [names::MAP_FILTER_NS, names::MAP_FILTER_PIDS, names::MAP_PEAK_THREADS];
        let mut gauges = Self::default();
        for (name, map) in ebpf.maps().filter(|(name, _)| !UNUSED.contains(name)) {
            match map {
                Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuHashMap(data) => {
                    gauges.tables.push(Table::of(name, data)?);
                }
                Map::RingBuf(data) if name == ring => gauges.ring = Some(Ring::of(data)?),
                _ => {}
            }
        }
        gauges.tables.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(gauges)
    }

    pub(super) fn add_programs(&mut self, ebpf: &Ebpf) -> io::Result<()> {
        for (name, program) in ebpf.programs() {
            // A program that this kernel refused or does not need has no descriptor.
            if let Ok(fd) = program.fd() {
                self.programs.push((name.to_owned(), fd.try_clone()?));
            }
        }
        self.programs.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(())
    }

    /// Makes the kernel count the runs of all BPF programs of the machine while this object exists. That costs 20 to 30
    /// ns a run. Needs CAP_SYS_ADMIN.
    pub fn count_runs(&mut self) -> io::Result<()> {
        let stats = sys::enable_stats(Stats::RunTime).map_err(|error| error.io_error)?;
        self._stats = Some(stats);
        Ok(())
    }

    /// Fill levels of the hash maps.
    pub fn maps(&self) -> Vec<MapFill> {
        let fill = |table: &Table| MapFill {
            name: table.name.to_lowercase(),
            entries: table.entries(),
            capacity: table.capacity,
        };
        self.tables.iter().map(fill).collect()
    }

    /// Fill level of the ring buffer.
    pub fn ring(&self) -> Option<RingFill> {
        self.ring.as_ref().map(Ring::fill)
    }

    /// Runs of each program. Empty unless [`Self::count_runs`] succeeded.
    pub fn programs(&self) -> Vec<ProgramRuns> {
        if self._stats.is_none() {
            return Vec::new();
        }
        let runs = |(name, program): &(String, ProgramFd)| {
            let text = fdinfo(program.as_fd()).ok()?;
            let field = |name| {
                text.lines()
                    .find_map(|line| line.strip_prefix(name))
                    .and_then(|value| value.trim().parse().ok())
            };
            Some(ProgramRuns { name: name.clone(), runs: field("run_cnt:")?, ns: field("run_time_ns:")? })
        };
        self.programs.iter().filter_map(runs).collect()
    }
}

impl Table {
    fn of(name: &str, data: &MapData) -> io::Result<Self> {
        let info = data.info().map_err(io::Error::other)?;
        Ok(Self {
            name: name.to_owned(),
            map: data.fd().as_fd().try_clone_to_owned()?,
            key_bytes: info.key_size() as usize,
            capacity: u64::from(info.max_entries()),
        })
    }

    /// Counts the entries. If the map changes meanwhile, the walk may start again. Then the first key comes again.
    fn entries(&self) -> u64 {
        const MAX_WALKS: u32 = 4;
        let mut first = vec![0; self.key_bytes];
        if !next_key(&self.map, None, &mut first) {
            return 0;
        }
        let (mut key, mut next) = (first.clone(), vec![0; self.key_bytes]);
        let (mut entries, mut walks) = (1, 1);
        while entries < self.capacity && next_key(&self.map, Some(&key), &mut next) {
            entries += 1;
            if next == first {
                walks += 1;
                if walks > MAX_WALKS {
                    return entries - 1;
                }
                entries = 1;
            }
            std::mem::swap(&mut key, &mut next);
        }
        entries
    }
}

/// `BPF_MAP_GET_NEXT_KEY` (bpf(2)), for keys of which only the size is known. Returns whether there is a next key.
fn next_key(map: &OwnedFd, key: Option<&Vec<u8>>, next: &mut [u8]) -> bool {
    const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
    /// The part of `union bpf_attr` (include/uapi/linux/bpf.h) that the command reads.
    #[repr(C)]
    struct Attributes {
        map_fd: u32,
        reserved: u32,
        key: u64,
        next_key: u64,
        flags: u64,
    }
    let attributes = Attributes {
        map_fd: map.as_raw_fd() as u32,
        reserved: 0,
        key: key.map_or(0, |key| key.as_ptr() as u64),
        next_key: next.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: both buffers have the map's key size and outlive the call. The call writes only to `next`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_GET_NEXT_KEY,
            &raw const attributes,
            size_of::<Attributes>() as libc::c_uint,
        )
    };
    result == 0
}

/// The positions of the ring buffer's two ends (kernel/bpf/ringbuf.c). Each is in a page that can be mapped.
struct Ring {
    consumer: Page,
    producer: Page,
    capacity: u64,
}

impl Ring {
    fn of(data: &MapData) -> io::Result<Self> {
        let info = data.info().map_err(io::Error::other)?;
        Ok(Self {
            consumer: Page::map(data, 0)?,
            producer: Page::map(data, page_size() as u64)?,
            capacity: u64::from(info.max_entries()),
        })
    }

    fn fill(&self) -> RingFill {
        // In this order, so that `consumed` is never larger than `produced`.
        let consumed = self.consumer.first_word();
        let produced = self.producer.first_word();
        RingFill { capacity: self.capacity, used: produced.saturating_sub(consumed).min(self.capacity) }
    }
}

/// A page of a map, mapped for reading.
struct Page(NonNull<AtomicU64>);

// SAFETY: the memory is only read, as an atomic.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn map(data: &MapData, offset: u64) -> io::Result<Self> {
        // SAFETY: this creates a new mapping, which stays valid until it is unmapped.
        let address = unsafe {
            mmap(ptr::null_mut(), page_size(), ProtFlags::READ, MapFlags::SHARED, data.fd(), offset)?
        };
        let address = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self(address))
    }

    fn first_word(&self) -> u64 {
        // SAFETY: the page stays mapped as long as `self` exists.
        unsafe { self.0.as_ref() }.load(Ordering::Acquire)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: this unmaps the page that `map` mapped; no borrow of it remains.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), page_size()) };
    }
}
