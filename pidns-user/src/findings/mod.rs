//! What goes wrong with PID namespaces: detectors read the state of the host and return what they find, with the facts that
//! prove it. docs/findings.md describes each finding.
//!
//! A detector is a pure function of a [`Scene`]: the model, what happened lately, and what was read of /proc beside the stream.
//! [`FindingsWatch`] runs them while events come, and reports what was opened, changed and closed.

mod children_elsewhere;
mod creation_refused;
mod creator_leftover;
mod init_ignored_signal;
mod init_killed;
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
mod scene;
mod teardown_blocked;
mod thread_growth;
mod thresholds;
mod watch;
mod zombies_not_reaped;

pub use self::{
    ledger::Ledger,
    once::of_snapshot,
    scene::Scene,
    thresholds::Thresholds,
    watch::{FindingsWatch, OpenFindings},
};
use crate::event::finding::Finding;

/// A detector.
type Detector = fn(&Scene<'_>) -> Vec<Finding>;

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

/// All that is wrong.
pub fn find(scene: &Scene<'_>) -> Vec<Finding> {
    DETECTORS.iter().flat_map(|detector| detector(scene)).collect()
}

#[cfg(test)]
mod tests;
