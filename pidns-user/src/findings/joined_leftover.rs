//! A process that entered its namespace from outside outlives what started it: an exec session whose client was killed, a probe
//! that timed out.
//!
//! The process that forked it may be gone by design: runc ends and leaves it to the shim that keeps PID 1, too. A session is over
//! where it was left to another process than that. Where the runtime still keeps it, only its age is meaningful.

use super::{
    Scene,
    readings::Wanted,
    scene::{described, explain_process},
};
use crate::{
    event::{
        finding::{Diagnosis, Fact, Finding, Role, Severity},
        identity::HostPid,
    },
    model::{Entered, ProcessState, is_runtime_helper},
};

/// Processes that are read.
const MOST_MEMBERS: usize = 256;

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    entered(scene).filter_map(|state| of(scene, state)).collect()
}

/// The processes that came in from outside and live.
fn entered<'a>(scene: &'a Scene<'_>) -> impl Iterator<Item = &'a ProcessState> {
    let is_one = |state: &&ProcessState| {
        let came_in = matches!(state.entered, Entered::Joined { .. } | Entered::ParentOutside { .. });
        came_in && !state.is_init() && state.ended.is_none() && state.process.pids.len() > 1
    };
    scene.world.processes().filter(is_one)
}

fn of(scene: &Scene<'_>, state: &ProcessState) -> Option<Finding> {
    let inum = state.process.ns;
    let is_abandoned = is_abandoned(scene, state);
    let is_old = scene.is_over(state.process.start_boot_ns, scene.thresholds.joined);
    if is_abandoned.is_none() && !is_old {
        return None;
    }
    let mut evidence = Vec::new();
    let parent = is_abandoned.or_else(|| parent(scene, state)).and_then(|pid| scene.process(pid));
    evidence.extend(parent.map(|parent| scene.role(Role::Parent, parent)));
    if let Entered::Joined { forker } = &state.entered {
        evidence.push(scene.role(Role::Forker, scene.latest(forker)));
    }
    if is_abandoned.is_none() {
        let what =
            "whether the client of its session is still there: that is no process of this tree".to_owned();
        evidence.push(scene.known(Fact::Unseen { what }));
    }
    Some(Finding {
        id: Diagnosis::JoinedLeftover,
        severity: if is_abandoned.is_some() { Severity::Warning } else { Severity::Info },
        since_boot_ns: state.process.start_boot_ns,
        ns: scene.ns(inum),
        process: Some(described(state)),
        evidence,
        next: vec![explain_process(state.process.pid), format!("kill {}", state.process.pid)],
    })
}

/// The process that has it now, as its session's own is gone; `None` where the session lives, or that is not known.
fn is_abandoned(scene: &Scene<'_>, state: &ProcessState) -> Option<HostPid> {
    if !state.orphaned {
        return None;
    }
    let parent = parent(scene, state)?;
    let init = scene.world.namespace(state.process.ns)?.init.and_then(|init| scene.world.process(init))?;
    let keeper = self::parent(scene, init)?;
    let is_helper = || scene.process(parent).is_some_and(|parent| is_runtime_helper(&parent.comm));
    let is_inside = || {
        scene
            .world
            .process(parent)
            .is_some_and(|parent| scene.world.is_within(parent.process.ns, state.process.ns))
    };
    (parent != keeper && !is_inside() && !is_helper()).then_some(parent)
}

/// Its parent now. An orphan's next parent is certain only where it was read.
fn parent(scene: &Scene<'_>, state: &ProcessState) -> Option<HostPid> {
    let read = scene.readings.doing.get(&state.key()).and_then(|read| read.as_ref().ok());
    read.map(|doing| doing.ppid).or(state.parent)
}

/// What there is to read: the parents of those that lost theirs, and of their namespaces' PID 1s.
pub(super) fn want(scene: &Scene<'_>, wanted: &mut Wanted) {
    for state in entered(scene).filter(|state| state.orphaned).take(MOST_MEMBERS) {
        let init = scene.world.namespace(state.process.ns).and_then(|ns| ns.init);
        let init = init.and_then(|init| scene.world.process(init));
        let is_read = |state: &&ProcessState| scene.readings.doing.contains_key(&state.key());
        let both = [Some(state), init].into_iter().flatten();
        wanted.doing.extend(both.filter(|state| !is_read(state)).map(ProcessState::key));
    }
}
