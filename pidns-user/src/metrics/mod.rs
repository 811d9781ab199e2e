//! The metrics. They combine the kernel side's counters, the events and the state of the host.
//!
//! The pipeline feeds [`MetricsConsumer`], and the code that takes snapshots feeds [`Snapshots`]. A scrape reads only
//! [`Metrics`]. docs/metrics.md describes every metric.

mod agent;
mod budgets;
pub mod catalog;
mod collector;
mod consumer;
mod families;
mod histogram;
mod host_state;
mod labels;
mod ledger;
mod status;
mod tally;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

pub use self::{
    agent::AgentFacts,
    collector::{Metrics, MetricsError},
    consumer::MetricsConsumer,
    ledger::{CountSource, Ledger},
};
use self::{host_state::HostState, tally::EventCounts};
use crate::{findings::OpenFindings, source::observer::SnapshotWatch};

#[cfg(test)]
mod tests;

/// State that the pipeline's thread writes and scrapes read.
struct Shared {
    tally: Mutex<EventCounts>,
    ledger: Mutex<Ledger>,
    state: RwLock<Arc<HostState>>,
    pass: Mutex<Option<Duration>>,
    facts: Mutex<AgentFacts>,
    findings: OpenFindings,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, EventCounts> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> Arc<HostState> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, state: HostState) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }

    fn facts(&self) -> MutexGuard<'_, AgentFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_pass(&self) -> MutexGuard<'_, Option<Duration>> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the counters before each snapshot, and stores how long the snapshot takes.
pub struct Snapshots(Arc<Shared>);

impl SnapshotWatch for Snapshots {
    fn begins(&mut self) {
        self.0.ledger().before_snapshot();
    }

    fn passed(&mut self, took: Duration) {
        *self.0.last_pass() = Some(took);
    }
}

/// Creates the metrics of an agent, and the objects that feed them.
pub fn metrics(
    ledger: Ledger,
    facts: AgentFacts,
    findings: OpenFindings,
    namespace_limit: usize,
) -> Result<(Metrics, MetricsConsumer, Snapshots), MetricsError> {
    let shared = Arc::new(Shared {
        tally: Mutex::new(EventCounts::new()),
        ledger: Mutex::new(ledger),
        state: RwLock::default(),
        pass: Mutex::default(),
        facts: Mutex::new(facts),
        findings,
    });
    let metrics = Metrics::new(Arc::clone(&shared), namespace_limit)?;
    Ok((metrics, MetricsConsumer::new(Arc::clone(&shared)), Snapshots(shared)))
}
