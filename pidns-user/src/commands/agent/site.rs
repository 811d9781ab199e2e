//! The content of the agent's pages.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    event::identity::BootNs,
    findings::NOT_IN_THE_AGENT,
    kernel::{capabilities::Capabilities, clock, memory, sandbox::Protection},
    metrics::Metrics,
    model::World,
    pipeline::{Consumer, Update, Wants},
    web::{Format, Site, SiteError},
};

/// If the stream makes no progress for this time, the agent counts as unhealthy. The time is long, because processing
/// the snapshot of a large host takes a while.
const STANDSTILL_NS: u64 = 60_000_000_000;

/// The pages of the agent.
pub(super) struct AgentSite {
    metrics: Metrics,
    began: Instant,
    beat: Arc<AtomicU64>,
    protections: Mutex<BTreeMap<&'static str, Protection>>,
}

/// Records that the stream makes progress. After each snapshot it also returns free memory to the system.
pub(super) struct Pulse {
    beat: Arc<AtomicU64>,
    snapshot: Option<BootNs>,
}

impl AgentSite {
    pub(super) fn new(metrics: Metrics) -> Self {
        let beat = Arc::new(AtomicU64::new(clock::boottime_ns().0));
        Self { metrics, began: Instant::now(), beat, protections: Mutex::default() }
    }

    /// Records whether a protection is on, or why it is off.
    pub(super) fn note_protection(&self, by: &'static str, protection: Protection) {
        self.protections().insert(by, protection);
    }

    fn protections(&self) -> MutexGuard<'_, BTreeMap<&'static str, Protection>> {
        self.protections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The consumer that records the progress of the stream.
    pub(super) fn pulse(&self) -> Pulse {
        Pulse { beat: Arc::clone(&self.beat), snapshot: None }
    }

    fn standstill_ns(&self) -> u64 {
        clock::boottime_ns().saturating_since(BootNs(self.beat.load(Ordering::Relaxed)))
    }
}

impl Site for AgentSite {
    fn metrics(&self, _: Format) -> Result<Vec<u8>, SiteError> {
        self.readiness().map_err(SiteError::NotReady)?;
        self.metrics.text().map_err(|error| SiteError::Failed(error.to_string()))
    }

    fn status(&self) -> Value {
        let capabilities = Capabilities::own().map(Capabilities::names).unwrap_or_default();
        let protections: serde_json::Map<_, _> = self
            .protections()
            .iter()
            .map(|(name, protection)| ((*name).to_owned(), json!(protection.to_string())))
            .collect();
        let mut status = self.metrics.status();
        if let Value::Object(fields) = &mut status {
            fields.insert("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
            fields.insert("uptime_seconds".to_owned(), json!(self.began.elapsed().as_secs()));
            fields.insert("ready".to_owned(), json!(self.readiness().is_ok()));
            fields.insert("healthy".to_owned(), json!(self.health().is_ok()));
            let unseen = NOT_IN_THE_AGENT.map(|(id, lacks)| (id.id().to_owned(), json!(lacks)));
            fields.insert("findings_unseen".to_owned(), Value::Object(unseen.into_iter().collect()));
            fields.insert("capabilities".to_owned(), json!(capabilities));
            fields.insert("protections".to_owned(), Value::Object(protections));
        }
        status
    }

    fn health(&self) -> Result<(), String> {
        match self.standstill_ns() {
            0..=STANDSTILL_NS => Ok(()),
            ns => Err(format!("the stream of events has stood still for {} s", ns / 1_000_000_000)),
        }
    }

    fn readiness(&self) -> Result<(), String> {
        match self.metrics.snapshot_boot_ns() {
            Some(_) => Ok(()),
            None => Err("the first snapshot of the machine is being taken".to_owned()),
        }
    }
}

impl Consumer for Pulse {
    fn update(&mut self, _: &Update<'_>) -> Wants {
        Wants::More
    }

    fn tick(&mut self, world: Option<&World>) -> Wants {
        self.beat.store(clock::boottime_ns().0, Ordering::Relaxed);
        let snapshot = world.filter(|world| !world.is_in_snapshot()).and_then(World::processes_as_of);
        if snapshot > self.snapshot {
            self.snapshot = snapshot;
            memory::trim();
        }
        Wants::More
    }
}
