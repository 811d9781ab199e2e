//! The metrics: what the kernel side counts, what the events report, and what exists, added up for each scrape.
//!
//! [`MetricsConsumer`] is fed by the pipeline, [`Snapshots`] by the taking of snapshots, and [`Metrics`] is what a scrape reads:
//! it touches neither. docs/metrics.md describes every metric.

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
use self::{host_state::HostState, tally::Tally};
use crate::{findings::OpenFindings, source::observer::SnapshotWatch};

#[cfg(test)]
mod tests;

/// What the pipeline's thread writes and scrapes read.
struct Shared {
    tally: Mutex<Tally>,
    ledger: Mutex<Ledger>,
    state: RwLock<Arc<HostState>>,
    pass: Mutex<Option<Duration>>,
    facts: Mutex<AgentFacts>,
    findings: OpenFindings,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
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

/// Reads the counters before each snapshot, and how long the snapshot takes.
pub struct Snapshots(Arc<Shared>);

impl SnapshotWatch for Snapshots {
    fn begins(&mut self) {
        self.0.ledger().before_snapshot();
    }

    fn passed(&mut self, took: Duration) {
        *self.0.last_pass() = Some(took);
    }
}

/// The metrics of an agent, and what feeds them.
pub fn metrics(
    ledger: Ledger,
    facts: AgentFacts,
    findings: OpenFindings,
    namespace_limit: usize,
) -> Result<(Metrics, MetricsConsumer, Snapshots), MetricsError> {
    let shared = Arc::new(Shared {
        tally: Mutex::new(Tally::new()),
        ledger: Mutex::new(ledger),
        state: RwLock::default(),
        pass: Mutex::default(),
        facts: Mutex::new(facts),
        findings,
    });
    let metrics = Metrics::new(Arc::clone(&shared), namespace_limit)?;
    Ok((metrics, MetricsConsumer::new(Arc::clone(&shared)), Snapshots(shared)))
}
