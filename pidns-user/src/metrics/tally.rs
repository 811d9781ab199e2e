//! Counts events and the facts that they report.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    histogram::{DELAYS, Histogram, KILLED, LIFETIMES, TEARDOWNS},
    labels::{
        CORRECTIONS, CREATION_REFUSALS, ENRICHMENT_SOURCES, EXIT_REASONS, FATES, FORK_REFUSALS, JOIN_RESULTS,
        LOSS_STAGES, METHODS, ORIGINS, RuntimeLabel,
    },
};
use crate::event::{
    Body, Cause, Event, Exit,
    container::{Container, Runtime},
    identity::BootNs,
};

/// Counts by one label.
pub(super) type ByLabel = BTreeMap<&'static str, u64>;

/// The counts since the agent started.
#[derive(Debug)]
pub(super) struct EventCounts {
    pub(super) events: BTreeMap<&'static str, u64>,
    pub(super) lost: ByLabel,
    pub(super) delays: Histogram,
    pub(super) creations: ByLabel,
    pub(super) creation_failures: ByLabel,
    pub(super) destructions: u64,
    pub(super) lifetimes: Histogram,
    pub(super) teardowns: Histogram,
    pub(super) killed: Histogram,
    /// By runtime and reason.
    pub(super) init_exits: BTreeMap<(RuntimeLabel, &'static str), u64>,
    /// By fate and origin.
    pub(super) init_signals: BTreeMap<(&'static str, &'static str), u64>,
    pub(super) joins: ByLabel,
    pub(super) fork_failures: ByLabel,
    pub(super) corrections: ByLabel,
    pub(super) enrichment_failures: ByLabel,
}

impl EventCounts {
    /// Starts all known label values at 0.
    pub(super) fn new() -> Self {
        let zeros = |labels: &[&'static str]| labels.iter().map(|label| (*label, 0)).collect();
        // Of processes, only ends for lack of memory are events.
        let comes = |name: &&str| !name.starts_with("process.") || *name == "process.exit";
        let event_names: BTreeSet<&'static str> = Body::NAMES.iter().copied().filter(comes).collect();
        Self {
            events: event_names.into_iter().map(|name| (name, 0)).collect(),
            lost: zeros(&LOSS_STAGES),
            delays: Histogram::new(DELAYS),
            creations: zeros(&METHODS),
            creation_failures: zeros(&CREATION_REFUSALS),
            destructions: 0,
            lifetimes: Histogram::new(LIFETIMES),
            teardowns: Histogram::new(TEARDOWNS),
            killed: Histogram::new(KILLED),
            init_exits: RuntimeLabel::BELOW
                .iter()
                .flat_map(|runtime| EXIT_REASONS.iter().map(|reason| ((*runtime, *reason), 0)))
                .collect(),
            init_signals: FATES
                .iter()
                .flat_map(|fate| ORIGINS.iter().map(|origin| ((*fate, *origin), 0)))
                .collect(),
            joins: zeros(&JOIN_RESULTS),
            fork_failures: zeros(&FORK_REFUSALS),
            corrections: zeros(&CORRECTIONS),
            enrichment_failures: zeros(&ENRICHMENT_SOURCES),
        }
    }

    /// Counts an event of the running kernel; `now` is the time of its processing.
    pub(super) fn count(&mut self, event: &Event, runtime: RuntimeLabel, now: BootNs) {
        *self.events.entry(event.body.name()).or_default() += 1;
        if !event.body.name().starts_with("stream.") && !event.body.name().starts_with("snapshot.") {
            self.delays.observe(seconds(now.saturating_since(event.boot_ns)));
        }
        match &event.body {
            Body::NamespaceCreate { via, .. } => {
                add(&mut self.creations, via.as_deref().unwrap_or("unknown"), "unknown");
            }
            Body::NamespaceCreateFailed { reason, .. } => add(&mut self.creation_failures, reason, "other"),
            Body::NamespaceTeardown { killed, duration_ns, .. } => {
                self.teardowns.observe(seconds(*duration_ns));
                self.killed.observe(f64::from(*killed));
            }
            Body::NamespaceInitExit { exit, cause, .. } => {
                *self.init_exits.entry((runtime, reason(exit, cause))).or_default() += 1;
            }
            Body::InitSignal { fate, from, .. } => {
                let label =
                    |known: &[&'static str], value: &str| known.iter().copied().find(|one| *one == value);
                if let Some(key) = label(&FATES, fate).zip(label(&ORIGINS, from)) {
                    *self.init_signals.entry(key).or_default() += 1;
                }
            }
            Body::NamespaceJoin { .. } => add(&mut self.joins, "ok", "ok"),
            Body::NamespaceJoinFailed { .. } => add(&mut self.joins, "refused", "refused"),
            Body::ForkFailed { reason, .. } => add(&mut self.fork_failures, reason, "other"),
            Body::StreamLost { stage, count } => add_many(&mut self.lost, stage, "malformed", *count),
            Body::StreamResync { added, removed, changed } => {
                for (kind, count) in [("added", added), ("removed", removed), ("changed", changed)] {
                    add_many(&mut self.corrections, kind, kind, *count);
                }
            }
            _ => {}
        }
    }

    /// Counts a failed lookup if the container of a namespace has no runtime or no name.
    pub(super) fn named(&mut self, container: &Container) {
        let has_name = container.name.is_some()
            // With these runtimes the id is the name.
            || matches!(container.runtime, Some(Runtime::Lxc | Runtime::Nspawn | Runtime::Systemd));
        if container.runtime.is_none() {
            add(&mut self.enrichment_failures, "cgroup", "cgroup");
        } else if !has_name {
            add(&mut self.enrichment_failures, "runtime", "runtime");
        }
    }

    /// Counts a destroyed namespace, and its lifetime if its birth is known.
    pub(super) fn destroyed(&mut self, born: Option<BootNs>, at: BootNs) {
        self.destructions += 1;
        if let Some(born) = born {
            self.lifetimes.observe(seconds(at.saturating_since(born)));
        }
    }
}

fn add(counts: &mut ByLabel, label: &str, otherwise: &'static str) {
    add_many(counts, label, otherwise, 1);
}

/// Adds to the count of this label, or to the count of `otherwise` if the label is unknown.
fn add_many(counts: &mut ByLabel, label: &str, otherwise: &'static str, count: u64) {
    let key = if counts.contains_key(label) { label } else { otherwise };
    if let Some(sum) = counts.get_mut(key) {
        *sum += count;
    }
}

/// Nanoseconds as seconds.
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The reason for an init's exit. If several apply, the kernel side's counters have the same precedence.
fn reason(exit: &Exit, cause: &Cause) -> &'static str {
    match (cause, exit) {
        (Cause::Oom { .. }, _) => "oom_kill",
        (Cause::Cascade { .. }, _) => "cascade",
        (_, Exit::Signal { .. }) => "signal",
        (_, Exit::Code { code: 0 }) => "ok",
        (_, Exit::Code { .. }) => "error",
    }
}
