//! Findings: detectors read the state of the host and return problems with PID namespaces, with the facts that prove
//! them. docs/findings.md describes each finding.
//!
//! A detector is a pure function of a [`DetectorInput`]: the model, recent events, and data read from /proc in parallel
//! with the stream. [`FindingsWatch`] runs the detectors while events arrive, and reports what opened, changed and
//! closed.

mod children_elsewhere;
mod creation_refused;
mod creator_leftover;
mod init_ignored_signal;
mod init_killed;
mod input;
mod joined_leftover;
mod ledger;
mod limit_use;
mod lives;
mod member_oom_killed;
mod namespace_dead_fork;
mod namespace_leaked;
mod near_depth_limit;
mod no_cascade;
mod once;
mod pid_exhaustion;
mod proc_mismatch;
pub mod readings;
mod teardown_blocked;
mod thread_growth;
mod thresholds;
mod watch;
mod zombies_not_reaped;

pub use self::{
    input::DetectorInput,
    ledger::Ledger,
    once::of_snapshot,
    thresholds::Thresholds,
    watch::{FindingsWatch, OpenFindings},
};
use crate::event::finding::{Diagnosis, Finding};

/// The findings that the agent cannot find; for each, what it lacks.
pub const NOT_IN_THE_AGENT: [(Diagnosis, &str); 1] =
    [(Diagnosis::ProcMismatch, "a namespace that the user asks about")];

/// A detector.
type Detector = fn(&DetectorInput<'_>) -> Vec<Finding>;

const DETECTORS: [Detector; 16] = [
    zombies_not_reaped::find,
    teardown_blocked::find,
    namespace_dead_fork::find,
    init_ignored_signal::find,
    init_killed::find,
    pid_exhaustion::find,
    creation_refused::find,
    namespace_leaked::find,
    joined_leftover::find,
    creator_leftover::find,
    no_cascade::find,
    proc_mismatch::find,
    thread_growth::find,
    near_depth_limit::find,
    member_oom_killed::find,
    children_elsewhere::find,
];

/// All current findings.
pub fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    DETECTORS.iter().flat_map(|detector| detector(input)).collect()
}

#[cfg(test)]
mod tests;
