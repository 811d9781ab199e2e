//! How full the kernel side's maps are, and what its programs cost: for those that watch the watcher.

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

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Its name, in lower case.
    pub name: String,
    /// Entries.
    pub entries: u64,
    /// Most entries that it can have.
    pub capacity: u64,
}

/// What the kernel has counted of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// Its name.
    pub name: String,
    /// How often it ran.
    pub runs: u64,
    /// For how long, nanoseconds.
    pub ns: u64,
}

/// How full the ring buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFill {
    /// Bytes of it.
    pub capacity: u64,
    /// Bytes that wait to be read.
    pub used: u64,
}

/// What can be read of the kernel side beside its events. It keeps the maps and programs alive. The default has none.
#[derive(Default)]
pub struct Gauges {
    tables: Vec<Table>,
    ring: Option<Ring>,
    programs: Vec<(String, ProgramFd)>,
    /// While it is open the kernel counts the runs of programs.
    _stats: Option<OwnedFd>,
}

/// A hash map, whose entries come and go.
struct Table {
    name: String,
    map: OwnedFd,
    key_bytes: usize,
    capacity: u64,
}

impl Gauges {
    /// Of an object whose maps are all still there: programs are added when they are loaded.
    pub(super) fn of_maps(ebpf: &Ebpf, ring: &str) -> io::Result<Self> {
        /// Nothing is put in these where processes are only counted.
        const UNUSED: [&str; 4] =
            [names::MAP_FILTER_NS, names::MAP_FILTER_PIDS, names::MAP_ZOMBIES, names::MAP_PEAK_THREADS];
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
            // One that this kernel does not need, or refused, has none.
            if let Ok(fd) = program.fd() {
                self.programs.push((name.to_owned(), fd.try_clone()?));
            }
        }
        self.programs.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(())
    }

    /// Has the kernel count the runs of all BPF programs of the machine, for as long as this is there: 20 to 30 ns a run. Needs
    /// CAP_SYS_ADMIN.
    pub fn count_runs(&mut self) -> io::Result<()> {
        let stats = sys::enable_stats(Stats::RunTime).map_err(|error| error.io_error)?;
        self._stats = Some(stats);
        Ok(())
    }

    /// How full the hash maps are.
    pub fn maps(&self) -> Vec<MapFill> {
        let fill = |table: &Table| MapFill {
            name: table.name.to_lowercase(),
            entries: table.entries(),
            capacity: table.capacity,
        };
        self.tables.iter().map(fill).collect()
    }

    /// How full the ring buffer is.
    pub fn ring(&self) -> Option<RingFill> {
        self.ring.as_ref().map(Ring::fill)
    }

    /// How often each program ran, where [`Self::count_runs`] has the kernel count that.
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

    /// Entries. Of a map that is changed meanwhile the walk can begin anew, which is seen by its first key.
    fn entries(&self) -> u64 {
        const MOST_WALKS: u32 = 4;
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
                if walks > MOST_WALKS {
                    return entries - 1;
                }
                entries = 1;
            }
            std::mem::swap(&mut key, &mut next);
        }
        entries
    }
}

/// `BPF_MAP_GET_NEXT_KEY` (bpf(2)), for keys of which nothing but their size is known. Whether there is one.
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
    // SAFETY: both buffers have the map's key size, and live across the call, which writes to `next` alone.
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

/// The positions of the ring buffer's two ends (kernel/bpf/ringbuf.c): two pages that may be mapped.
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
        // In this order, so that the reader is never ahead.
        let consumed = self.consumer.first_word();
        let produced = self.producer.first_word();
        RingFill { capacity: self.capacity, used: produced.saturating_sub(consumed).min(self.capacity) }
    }
}

/// A page of a map, to be read.
struct Page(NonNull<AtomicU64>);

// SAFETY: memory that is only read, as an atomic.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn map(data: &MapData, offset: u64) -> io::Result<Self> {
        // SAFETY: a new mapping, which the kernel keeps for as long as it is mapped.
        let address = unsafe {
            mmap(ptr::null_mut(), page_size(), ProtFlags::READ, MapFlags::SHARED, data.fd(), offset)?
        };
        let address = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self(address))
    }

    fn first_word(&self) -> u64 {
        // SAFETY: a page is mapped, for as long as `self` is there.
        unsafe { self.0.as_ref() }.load(Ordering::Acquire)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: what was mapped; nothing of it is borrowed any more.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), page_size()) };
    }
}
