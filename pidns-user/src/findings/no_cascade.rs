//! A container's main process is no PID 1 of a PID namespace of its own (`--pid host`, `--pid container:X`, shareProcessNamespace):
//! the kernel kills no other process when it ends.

use std::time::Duration;

use super::{Scene, scene::explain_process};
use crate::{
    event::finding::{Diagnosis, Fact, Finding, Role, Severity},
    event::snapshot::SnapshotNamespace,
    model::{MainProcess, ProcessState},
};

/// Survivors that are listed.
const LISTED: usize = 8;
/// A runtime kills what is left in the cgroup within this time.
const GRACE: Duration = Duration::from_secs(1);

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    scene.recent.mains().filter_map(|main| of(scene, main)).collect()
}

fn of(scene: &Scene<'_>, main: &MainProcess) -> Option<Finding> {
    let survivors: Vec<&ProcessState> = scene
        .world
        .processes()
        .filter(|state| state.ended.is_none() && !state.key().is_same(main.process.key()))
        .filter(|state| state.process.container.as_ref().is_some_and(|own| own.is_same(&main.container)))
        .collect();
    let is_alive = scene.is_alive(main.process.key());
    let ended = main.ended.as_ref().map(|(at, _)| *at);
    if !is_alive && (survivors.is_empty() || !ended.is_none_or(|at| scene.is_over(at, GRACE))) {
        return None;
    }
    let mut evidence = vec![scene.role(Role::Main, main.process.clone())];
    if !is_alive {
        let others = survivors.iter().take(LISTED);
        evidence.extend(others.map(|state| {
            let process = super::scene::described(state);
            scene.known(Fact::Process { role: Role::Survivor, process, ended: false })
        }));
    }
    let ns = scene.ns(main.process.ns);
    // The container that it is about is the process's own.
    let ns = ns.map(|ns| SnapshotNamespace { container: Some(main.container.clone()), ..ns });
    Some(Finding {
        id: Diagnosis::NoCascade,
        severity: if is_alive { Severity::Info } else { Severity::Warning },
        since_boot_ns: ended.unwrap_or(main.process.start_boot_ns),
        ns,
        process: Some(main.process.clone()),
        next: evidence
            .last()
            .into_iter()
            .flat_map(|evidence| evidence.fact.processes())
            .map(|it| explain_process(it.pid))
            .collect(),
        evidence,
    })
}
