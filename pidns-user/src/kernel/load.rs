//! Loads the object and attaches its programs.

use std::{collections::HashMap, fs};

use aya::{
    Ebpf, EbpfLoader, Endianness, VerifierLogLevel,
    maps::{Array, HashMap as BpfHashMap, MapError, RingBuf},
    util::nr_cpus,
};
use pidns_ebpf::abi::{Kind, names, namespace_counters::CPU_SLOTS, symbols};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    attach::{Plan, unload_one},
    btf::{self, Btf, BtfError},
    capabilities::Capabilities,
    clock,
    error::LoadError,
    fill_in::Object,
    gauges::Gauges,
    hooks::{self, AttachPoints, Drift, Hook, HookForm, HookSet},
    layout::Layout,
    memory, namespace,
    namespace_counters::{CounterError, NamespaceCounterTable},
    object,
    ring::{RingReader, Waker},
    stats::{self, MissedRuns, Stats},
    sweep::Sweeper,
};
use crate::event::identity::{BootNs, HostPid, NsInum};

/// Settings of the kernel side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Size of the ring buffer in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Wanted records: a bit mask by record kind.
    pub event_mask: u32,
    /// Wanted levels: a bit mask by level.
    pub level_mask: u64,
    /// Namespaces to select, with all nested ones. Empty: all.
    pub namespaces: Vec<NsInum>,
    /// Thread group ids to select. Empty: all.
    pub pids: Vec<HostPid>,
    /// Whether exec records carry the arguments.
    pub args: bool,
    /// The requested hooks.
    pub hooks: HookSet,
    /// Why the hook on all system calls must not replace missing function hooks. `None` if it may.
    pub without_syscall_hooks: Option<&'static str>,
    /// If set, forks, execs and exits are counted by namespace and no records of them are sent. The number is the
    /// capacity, in namespaces, of the hash map that is used when the slots are full.
    pub counting: Option<u32>,
    /// Level of aya-log; 0 is off.
    pub log_level: u8,
}

impl Settings {
    /// All events, to try out what the kernel allows.
    pub fn everything() -> Self {
        Self {
            ring_bytes: DEFAULT_RING_BYTES,
            event_mask: u32::MAX,
            level_mask: u64::MAX,
            namespaces: Vec::new(),
            pids: Vec::new(),
            args: true,
            hooks: HookSet::Auto,
            without_syscall_hooks: None,
            counting: None,
            log_level: 0,
        }
    }
}

/// Default size of the ring buffer in bytes: 4 MiB hold about 35,000 forks of containers.
pub const DEFAULT_RING_BYTES: u32 = 4 << 20;

/// The running kernel side. Dropping it ends it.
pub struct Loaded {
    ebpf: Ebpf,
    /// Each hook, and the form in which it runs.
    pub hooks: Vec<(Hook, HookForm)>,
    /// Its counters.
    pub stats: Stats,
    /// Counts by namespace, if requested.
    pub namespace_counters: Option<NamespaceCounterTable>,
    /// Fill levels and costs, in counting mode.
    pub gauges: Option<Gauges>,
    /// Finds the ends that no hook reported.
    pub sweeper: Sweeper,
    /// CLOCK_BOOTTIME before the first hook was attached, nanoseconds.
    pub began_boot_ns: BootNs,
    /// CLOCK_BOOTTIME after the last hook was attached, nanoseconds.
    pub observed_since_ns: BootNs,
}

impl Loaded {
    /// Runs that the kernel has skipped so far. Hooks that are backed up by something else do not count.
    pub fn missed_runs(&self) -> MissedRuns {
        let mut missed = MissedRuns::default();
        let is_on = |form: &HookForm| matches!(form, HookForm::On(_));
        for (hook, _) in self.hooks.iter().filter(|(hook, form)| is_on(form) && !hook.is_backed_up()) {
            for (program, double_hook) in hook.programs_to_count() {
                let program = self.ebpf.program(program);
                let runs =
                    program.and_then(|program| stats::missed_runs(program).ok().flatten()).unwrap_or(0);
                if hook.is_only_source_of_refusals() {
                    missed.refusals += runs;
                } else {
                    missed.add(double_hook, runs);
                }
            }
        }
        missed
    }

    /// Creates aya-log's reader for this object.
    pub fn logger<T: log::Log>(&mut self, logger: T) -> Result<aya_log::EbpfLogger<T>, aya_log::Error> {
        aya_log::EbpfLogger::init_with_logger(&mut self.ebpf, logger)
    }

    /// Detaches the hooks in reverse order, so that each works until the end with the hooks that it depends on. The
    /// counters stay readable.
    pub fn detach(&mut self) {
        for (_, program) in self.hooks.iter().rev().flat_map(|(hook, _)| hook.programs.iter().rev()) {
            if let Some(program) = self.ebpf.program_mut(program) {
                unload_one(program);
            }
        }
    }
}

/// Opens the running kernel's BTF.
pub fn read_btf() -> Result<btf::File, LoadError> {
    btf::File::open(btf::PATH).map_err(LoadError::NoBtf)
}

/// Loads and attaches everything.
pub fn load(settings: &Settings) -> Result<(Loaded, RingReader, Waker), LoadError> {
    load_with(settings, |_| {})
}

/// Like [`load`], but `change` may modify the layout first. Tests use it to reach code that only other kernels need.
pub fn load_with(
    settings: &Settings,
    change: impl FnOnce(&mut Layout),
) -> Result<(Loaded, RingReader, Waker), LoadError> {
    load_all(settings, change).map_err(|error| error.or_exhausted("load the kernel side"))
}

fn load_all(
    settings: &Settings,
    change: impl FnOnce(&mut Layout),
) -> Result<(Loaded, RingReader, Waker), LoadError> {
    let io = |what| move |error| LoadError::Io { what, error };
    check_privileges()?;
    if object::TRACE.is_empty() {
        return Err(LoadError::NoObject);
    }
    raise_memlock();
    // BTF takes megabytes for a short time.
    memory::limit_cached_memory();
    let bytes = read_btf()?;
    let btf = Btf::parse(&bytes)?;
    let mut layout = Layout::resolve(&btf)?;
    change(&mut layout);
    let (hooks, drifted, projected) = find_hooks(&btf, &layout, settings.counting.is_some())?;
    // BTF takes megabytes, and so does aya's. Free one before the other is parsed.
    drop(btf);
    drop(bytes);
    let attach_points = aya::Btf::parse(&projected, Endianness::default())
        .map_err(|_| BtfError::Unexpected("its attach points".to_owned()))?;
    drop(projected);

    let began_boot_ns = clock::boottime_ns();
    let mut ebpf = create(settings, &layout)?;
    fill_filter(&mut ebpf, names::MAP_FILTER_NS, settings.namespaces.iter().map(|inum| inum.0), 0u64)?;
    fill_filter(&mut ebpf, names::MAP_FILTER_PIDS, settings.pids.iter().map(|pid| pid.0), 1u8)?;
    let mut gauges = match settings.counting.is_some() {
        true => Some(Gauges::of_maps(&ebpf, names::MAP_EVENTS).map_err(io("read the maps"))?),
        false => None,
    };
    let take = |ebpf: &mut Ebpf, name: &str| {
        ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })
    };
    let stats = Stats::new(take(&mut ebpf, names::MAP_COUNTERS)?)?;
    let sweeper = Sweeper::new(take(&mut ebpf, names::MAP_DYING)?)?;
    let namespace_counters = if settings.counting.is_some() {
        let slots = take(&mut ebpf, names::MAP_NAMESPACE_COUNTERS)?;
        let more = take(&mut ebpf, names::MAP_MORE_NAMESPACE_COUNTERS)?;
        let table = NamespaceCounterTable::new(slots, more, possible_cpus()?);
        Some(table.map_err(|error| match error {
            CounterError::Bpf(error) => LoadError::from(error),
            CounterError::Map(error) => LoadError::Io { what: "map the counters into memory", error },
        })?)
    } else {
        None
    };
    let mut attached = Array::<_, u32>::try_from(take(&mut ebpf, names::MAP_ATTACHED)?)?;
    let plan = Plan {
        hooks,
        drifted,
        attach_points,
        set: settings.hooks,
        can_sweep: sweeper.is_possible(),
        without_syscall_hooks: settings.without_syscall_hooks,
        attached: &mut attached,
    };
    let hooks = plan.carry_out(ebpf.programs_mut())?;
    let observed_since_ns = clock::boottime_ns();
    if let Some(gauges) = &mut gauges {
        gauges.add_programs(&ebpf).map_err(io("read the programs"))?;
    }
    // Map the ring buffer only now: it and BTF are the largest things in memory, and BTF is freed.
    let ring = RingBuf::try_from(take(&mut ebpf, names::MAP_EVENTS)?)?;
    let (reader, waker) = RingReader::new(ring).map_err(io("create an event file"))?;
    let mut since = Array::<_, u64>::try_from(take(&mut ebpf, names::MAP_OBSERVED_SINCE)?)?;
    since.set(0, observed_since_ns.0, 0)?;
    // BTF took megabytes in small pieces, which the allocator would otherwise keep.
    memory::trim();
    Ok((
        Loaded { ebpf, hooks, stats, namespace_counters, gauges, sweeper, began_boot_ns, observed_since_ns },
        reader,
        waker,
    ))
}

/// Checks whether loading is allowed, as far as that can be known in advance.
pub fn check_privileges() -> Result<(), LoadError> {
    if namespace::is_initial_user() == Some(false) {
        return Err(LoadError::UserNamespace);
    }
    let own = Capabilities::own().map_err(|error| LoadError::Io { what: "read own capabilities", error })?;
    let missing = own.missing();
    if missing.is_empty() { Ok(()) } else { Err(LoadError::Privilege(missing)) }
}

/// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK. If it cannot be raised, creating a map reports why.
pub(super) fn raise_memlock() {
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

/// Returns the hooks, those that this kernel lacks, and BTF that contains only the attach points of the others.
#[expect(clippy::type_complexity, reason = "the caller destructures the three values at once")]
fn find_hooks(
    btf: &Btf<'_>,
    layout: &Layout,
    counting: bool,
) -> Result<(Vec<Hook>, HashMap<&'static str, Drift>, Vec<u8>), LoadError> {
    let mut hooks = hooks::all(layout);
    // Counting mode derives the number of reaps from exits and the existing zombies.
    hooks.retain(|hook| !(counting && hook.is_about_reapings()));
    let points = AttachPoints::of(btf, &hooks)?;
    let mut drifted = HashMap::new();
    let mut found = Vec::new();
    for hook in &hooks {
        match hook.find(&points) {
            Ok(id) if hook.is_function() => found.push((id, hook.name.to_owned())),
            Ok(id) => found.push((id, format!("btf_trace_{}", hook.name))),
            Err(drift) => drop(drifted.insert(hook.name, drift)),
        }
    }
    Ok((hooks, drifted, btf.project(&found)?))
}

fn create(settings: &Settings, layout: &Layout) -> Result<Ebpf, LoadError> {
    let Settings {
        ring_bytes,
        event_mask,
        level_mask,
        namespaces,
        pids,
        args,
        without_syscall_hooks,
        counting,
        log_level,
        hooks: _,
    } = settings;
    // While counting, the exit hook sends the records of members that were killed because memory ran out, and no others.
    let oom_kills = if counting.is_some() { 1 << Kind::ProcessExit as u32 } else { 0 };
    let event_mask = event_mask | oom_kills;
    let switches = [
        (symbols::FILTER_NS, !namespaces.is_empty()),
        (symbols::FILTER_PIDS, !pids.is_empty()),
        (symbols::WITH_ARGS, *args),
        (symbols::CALLS_MAY_BE_UNSEEN, without_syscall_hooks.is_some()),
        (symbols::COUNTING, counting.is_some()),
        (symbols::HAVE_TASK_PT_REGS, layout.have_task_pt_regs),
        (symbols::HAVE_PREEMPT_KFUNCS, layout.kfuncs.preempt.is_some()),
        (symbols::HAVE_IRQ_KFUNCS, layout.kfuncs.irq.is_some()),
        (symbols::SECOND_PROGRAM, layout.has_second_programs()),
        (symbols::PROBE_NUMBERS, layout.probe_numbers),
    ];
    let switches = switches.map(|(name, is_on)| (name, u32::from(is_on)));
    let numbers = layout.offsets.iter().copied().chain(switches).chain([(symbols::EVENT_MASK, event_mask)]);
    let bytes = object::TRACE
        .read()
        .map_err(|error| LoadError::Io { what: "read the embedded eBPF programs", error })?;
    let object = Object::with(&bytes, layout.kfuncs, numbers);
    let mut loader = loader_without_btf();
    loader.verifier_log_level(VerifierLogLevel::DEBUG);
    loader.map_max_entries(names::MAP_EVENTS, *ring_bytes);
    if !layout.has_second_programs() {
        loader.map_max_entries(names::MAP_DONE, 1);
    }
    // Without counting, each map has one entry, because it cannot have none.
    let (slots, more) = match counting {
        Some(more) => (possible_cpus()? * CPU_SLOTS, *more),
        None => (1, 1),
    };
    loader.map_max_entries(names::MAP_NAMESPACE_COUNTERS, slots);
    if counting.is_none() {
        loader.map_max_entries(names::MAP_PROCESS_NOTES, pid_max().div_ceil(names::NOTES_PER_PAGE));
    }
    loader.map_max_entries(names::MAP_MORE_NAMESPACE_COUNTERS, more);
    if *log_level == 0 {
        loader.map_max_entries(names::MAP_LOG, page_size());
    }
    loader.override_global(symbols::LOG_LEVEL, log_level, true);
    loader.override_global(symbols::LEVEL_MASK, level_mask, true);
    Ok(loader.load(object.bytes())?)
}

/// `kernel.pid_max`: one more than the largest thread group id. In another PID namespace than the initial one, pid_max can be that of
/// this namespace, so the kernel's own bound is used (`PID_MAX_LIMIT`, include/linux/threads.h).
fn pid_max() -> u32 {
    const PID_MAX_LIMIT: u32 = 4 << 20;
    let read = || fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok();
    if namespace::is_initial() == Some(true) { read().unwrap_or(PID_MAX_LIMIT) } else { PID_MAX_LIMIT }
}

/// An [`EbpfLoader`] that has not read the kernel's BTF. The object does not need it: it has no CO-RE relocations.
///
/// aya 0.14 always reads and parses the whole BTF in `EbpfLoader::new`: 25 ms and 20 MB, more than everything else here
/// together. If it cannot open the file, it continues without BTF. So this forbids opening files during that one call.
/// That is safe: a program that loads has no other thread yet, and open files stay usable.
pub(super) fn loader_without_btf<'a>() -> EbpfLoader<'a> {
    let limit = getrlimit(Resource::Nofile);
    let closed = setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: limit.maximum }).is_ok();
    let mut loader = EbpfLoader::new();
    if closed {
        // Restore the old limit: raising the soft limit up to the hard one is always allowed.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    loader.btf(None);
    loader
}

fn possible_cpus() -> Result<u32, LoadError> {
    let cpus = nr_cpus().map_err(|(what, error)| LoadError::Io { what, error })?;
    Ok(cpus as u32)
}

/// Size of a page in bytes, the minimum for a ring buffer.
pub fn page_size() -> u32 {
    rustix::param::page_size() as u32
}

fn fill_filter<V: aya::Pod>(
    ebpf: &mut Ebpf,
    name: &str,
    keys: impl Iterator<Item = u32>,
    value: V,
) -> Result<(), LoadError> {
    let map = ebpf.map_mut(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })?;
    let mut map = BpfHashMap::<_, u32, V>::try_from(map)?;
    for key in keys {
        map.insert(key, value, 0)?;
    }
    Ok(())
}
