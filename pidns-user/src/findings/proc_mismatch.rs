//! /proc shows another namespace than the one that the process is in: it shows that of the process that
//! mounted it.
//!
//! Sandboxes that use no /proc have that on purpose, so that it is checked only where a namespace is asked about.

use super::{
    Scene,
    readings::{ProcShows, Wanted},
    scene::described,
};
use crate::{
    event::MAX_LEVEL,
    event::finding::{Diagnosis, Fact, Finding, Severity},
    event::identity::NsInum,
    model::{ProcessState, Stage},
};

pub(super) fn find(scene: &Scene<'_>) -> Vec<Finding> {
    inits(scene).filter_map(|init| of(scene, init)).collect()
}

/// The PID 1s of the namespaces that are asked about.
fn inits<'a>(scene: &'a Scene<'_>) -> impl Iterator<Item = &'a ProcessState> {
    let asked = scene.asked.iter().filter_map(|inum| scene.world.namespace(*inum));
    let living = asked.filter(|state| state.namespace.level > 0 && state.stage == Stage::Alive);
    living.filter_map(|state| scene.world.process(state.init?)).filter(|init| init.ended.is_none())
}

fn of(scene: &Scene<'_>, init: &ProcessState) -> Option<Finding> {
    let ProcShows { ns, path } = scene.readings.proc.get(&init.key())?.as_ref()?;
    let process = described(init);
    let mut evidence = vec![scene.read(Fact::ProcShows { ns: *ns, path: path.clone() })];
    if let Some(children) = init.children_ns {
        evidence.push(scene.known(Fact::ChildrenGoTo { process: process.clone(), ns: children }));
    }
    let next =
        format!("nsenter --target {} --pid --mount mount -t proc proc {}", process.pid, path.for_terminal());
    Some(Finding {
        id: Diagnosis::ProcMismatch,
        severity: Severity::Info,
        since_boot_ns: init.process.start_boot_ns,
        ns: scene.ns(init.process.ns),
        process: Some(process),
        evidence,
        next: vec![next],
    })
}

/// What there is to read: what /proc shows to these.
pub(super) fn want(scene: &Scene<'_>, wanted: &mut Wanted) {
    for init in inits(scene).filter(|init| !scene.readings.proc.contains_key(&init.key())) {
        let parent = |inum: &NsInum| scene.world.namespace(*inum)?.namespace.parent;
        // A namespace is no level deeper than 32.
        let around = std::iter::successors(parent(&init.process.ns), parent).take(MAX_LEVEL as usize);
        let shown = around.filter_map(|inum| {
            let state = scene.world.namespace(inum)?;
            Some((inum, if state.namespace.level == 0 { None } else { Some(state.init?) }))
        });
        wanted.proc.insert(init.key(), shown.collect());
    }
}
