//! Builds the answer to a scrape from the state that the pipeline publishes and the counters of the kernel side.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Encoder as _, Registry, TextEncoder,
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::MetricFamily,
};

use super::{
    Shared, agent,
    budgets::PidLimits,
    catalog,
    families::Families,
    host_state::{HostState, NamespaceStateLabel, NamespaceSummary},
    labels::{EXIT_REASONS, ProcessStateLabel},
    tally::{ByLabel, EventCounts, seconds},
};
use crate::{
    event::finding::Diagnosis, event::identity::BootNs, kernel::clock::SteadyWallOffset,
    kernel::namespace_counters::CounterError, text::Name,
};

/// Why metrics cannot be collected or written.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The `prometheus` crate refuses the collector or the metrics, which is a bug in this program.
    #[error(transparent)]
    Prometheus(#[from] prometheus::Error),
    /// The counters of the kernel side cannot be read.
    #[error("read the kernel's counters: {0}")]
    Counters(#[from] CounterError),
}

/// The metrics of an agent.
pub struct Metrics {
    registry: Registry,
    shared: Arc<Shared>,
}

impl Metrics {
    pub(super) fn new(shared: Arc<Shared>, namespace_limit: usize) -> Result<Self, MetricsError> {
        let descriptions = catalog::ALL.iter().map(|metric| {
            let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, Default::default())
        });
        let collector = HostCollector {
            descriptions: descriptions.collect::<Result<_, _>>()?,
            shared: Arc::clone(&shared),
            budgets: Mutex::default(),
            wall_offset: SteadyWallOffset::read(),
            namespace_limit,
        };
        let registry = Registry::new();
        registry.register(Box::new(collector))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self { registry, shared })
    }

    /// All current metrics in the text format (version 0.0.4).
    pub fn text(&self) -> Result<Vec<u8>, MetricsError> {
        self.shared.ledger().read()?;
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// The start of the last snapshot in the metrics; `None` before the first one.
    pub fn snapshot_boot_ns(&self) -> Option<BootNs> {
        Some(self.shared.state().as_of).filter(|as_of| *as_of > BootNs(0))
    }

    /// The state of the kernel side and the snapshots, as a JSON object.
    pub fn status(&self) -> serde_json::Value {
        self.shared.status()
    }
}

struct HostCollector {
    descriptions: Vec<Desc>,
    shared: Arc<Shared>,
    budgets: Mutex<PidLimits>,
    wall_offset: SteadyWallOffset,
    namespace_limit: usize,
}

impl Collector for HostCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        let state = self.shared.state();
        {
            let tally = self.shared.tally();
            collect_tally(&tally, &mut families);
            agent::collect_events(&tally, &mut families);
        }
        self.collect_lifecycle(&state, &mut families);
        collect_host(&state, &mut families);
        self.collect_findings(&mut families);
        self.collect_namespaces(&state, &mut families);
        if let Some(took) = *self.shared.last_pass() {
            families.add(&catalog::SNAPSHOT_SECONDS, &[], took.as_secs_f64());
        }
        self.shared.facts().collect(&mut families);
        families.into_families()
    }
}

fn collect_tally(tally: &EventCounts, families: &mut Families) {
    let mut add = |metric, counts: &ByLabel| {
        for (label, count) in counts {
            families.add(metric, &[label], *count as f64);
        }
    };
    add(&catalog::CREATIONS, &tally.creations);
    add(&catalog::CREATION_FAILURES, &tally.creation_failures);
    add(&catalog::JOINS, &tally.joins);
    add(&catalog::FORK_FAILURES, &tally.fork_failures);
    add(&catalog::ENRICHMENT_FAILURES, &tally.enrichment_failures);
    families.add(&catalog::DESTRUCTIONS, &[], tally.destructions as f64);
    families.add_histogram(&catalog::LIFETIME, &tally.lifetimes);
    families.add_histogram(&catalog::TEARDOWN, &tally.teardowns);
    families.add_histogram(&catalog::TEARDOWN_KILLED, &tally.killed);
    for ((runtime, reason), count) in &tally.init_exits {
        families.add(&catalog::INIT_EXITS, &[runtime.name(), reason], *count as f64);
    }
    for ((fate, from), count) in &tally.init_signals {
        families.add(&catalog::INIT_SIGNALS, &[fate, from], *count as f64);
    }
}

fn collect_host(state: &HostState, families: &mut Families) {
    for label in NamespaceStateLabel::ALL {
        let count = state.below().filter(|ns| ns.state == label).count();
        families.add(&catalog::NAMESPACES, &[label.name()], count as f64);
    }
    let deepest = state.namespaces.iter().map(|ns| ns.level).max().unwrap_or(0);
    families.add(&catalog::MAX_LEVEL, &[], f64::from(deepest));
    for (runtime, population) in state.by_runtime() {
        for (label, count) in ProcessStateLabel::ALL.iter().zip(population.states) {
            families.add(&catalog::PROCESSES, &[runtime.name(), label.name()], count as f64);
        }
        families.add(&catalog::THREADS, &[runtime.name()], population.threads as f64);
    }
}

/// The name of the table of slots. It is an array, so its slots in use are counted separately.
const SLOTS: &str = "ns_counters";

impl HostCollector {
    /// Adds the totals of forks, execs, exits and reaps.
    fn collect_lifecycle(&self, state: &HostState, families: &mut Families) {
        let ledger = self.shared.ledger();
        for (runtime, totals) in ledger.totals() {
            let runtime = runtime.name();
            let counts = totals.counts;
            families.add(&catalog::FORKS, &[runtime], counts.forks as f64);
            families.add(&catalog::EXECS, &[runtime], counts.execs as f64);
            for (reason, count) in EXIT_REASONS.iter().zip(counts.exits) {
                families.add(&catalog::EXITS, &[runtime, reason], count as f64);
            }
            families.add(&catalog::REAPS, &[runtime], totals.reaps as f64);
            families.add(&catalog::THREAD_CREATIONS, &[runtime], counts.threads_created as f64);
            families.add(&catalog::THREAD_EXITS, &[runtime], counts.threads_ended as f64);
        }
        let shared_slot = ledger.max_in_shared_slot(state.below().filter_map(|ns| ns.id));
        families.add(&catalog::COUNTED_TOGETHER, &[], shared_slot as f64);
        let (slots, all) = ledger.slots();
        families.add(&catalog::MAP_ENTRIES, &[SLOTS], slots as f64);
        families.add(&catalog::MAP_CAPACITY, &[SLOTS], all as f64);
    }

    /// Adds the number of open findings. Each finding has a series for every severity that it can have, from the start.
    fn collect_findings(&self, families: &mut Families) {
        let counts = self.shared.findings.counts();
        for id in Diagnosis::ALL {
            for severity in id.severities() {
                let count = counts.get(&(*id, *severity)).copied().unwrap_or(0);
                families.add(&catalog::FINDINGS, &[id.id(), severity.name()], count as f64);
            }
        }
    }

    /// Adds the series of single namespaces. Only those with the most processes have series.
    fn collect_namespaces(&self, state: &HostState, families: &mut Families) {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = || state.below().take(self.namespace_limit);
        budgets.refresh(shown());
        let wall_offset_ns = self.wall_offset.ns();
        let ledger = self.shared.ledger();
        for ns in shown() {
            let pidns = ns.inum.to_string();
            let pidns = pidns.as_str();
            add_info(ns, pidns, families);
            for (label, count) in ProcessStateLabel::ALL.iter().zip(ns.population.states) {
                families.add(&catalog::NAMESPACE_PROCESSES, &[pidns, label.name()], count as f64);
            }
            families.add(&catalog::NAMESPACE_THREADS, &[pidns], ns.population.threads as f64);
            if let Some(limit) = budgets.of(ns) {
                let labels = &[pidns, limit.kind.name()];
                families.add(&catalog::NAMESPACE_PIDS_CURRENT, labels, limit.current as f64);
                families.add(&catalog::NAMESPACE_PIDS_LIMIT, labels, limit.limit as f64);
            }
            if let Some(since) = ns.oldest_zombie {
                let time = unix_seconds(since, wall_offset_ns);
                families.add(&catalog::NAMESPACE_ZOMBIE_OLDEST, &[pidns], time);
            }
            if let Some(born) = ns.born {
                families.add(&catalog::NAMESPACE_CREATED, &[pidns], unix_seconds(born, wall_offset_ns));
            }
            // If the ledger no longer has the namespace, it has just ended. Its series end, they do not decrease.
            if let Some((forks, reaps)) = ns.id.and_then(|id| ledger.forks_and_reaps(id)) {
                families.add(&catalog::NAMESPACE_FORKS, &[pidns], forks as f64);
                families.add(&catalog::NAMESPACE_REAPS, &[pidns], reaps as f64);
            }
        }
        let dropped = state.below().count().saturating_sub(self.namespace_limit);
        families.add(&catalog::SERIES_DROPPED, &[], dropped as f64);
    }
}

fn add_info(ns: &NamespaceSummary, pidns: &str, families: &mut Families) {
    let container = ns.container.as_deref();
    let text = |name: Option<&Name>| name.map(label).unwrap_or_default();
    let name = container.and_then(|container| container.name.as_ref().or(container.id.as_ref()));
    families.add(
        &catalog::NAMESPACE_INFO,
        &[
            pidns,
            &ns.parent.map(|parent| parent.to_string()).unwrap_or_default(),
            &ns.level.to_string(),
            ns.runtime.name(),
            &text(name),
            &text(container.and_then(|container| container.pod.as_ref())),
            &text(container.and_then(|container| container.pod_namespace.as_ref())),
        ],
        1.0,
    );
}

/// A container's name as the value of a label: control characters are escaped, and long names are cut.
fn label(name: &Name) -> String {
    const LONGEST: usize = 200;
    let text = name.for_terminal().to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// This time as Unix time in seconds.
fn unix_seconds(at: BootNs, wall_offset_ns: i64) -> f64 {
    seconds(at.0.saturating_add_signed(wall_offset_ns))
}
