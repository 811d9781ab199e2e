//! A process's /proc shows another namespace than its own: that of the process that mounted it.
//!
//! Sandboxes that do not use /proc have this on purpose, so it is checked only for a namespace that the user asks
//! about.

use super::{
    DetectorInput,
    input::described,
    readings::{ProcShows, ReadRequest},
};
use crate::{
    event::MAX_LEVEL,
    event::finding::{Diagnosis, Fact, Finding, Severity},
    event::identity::NsInum,
    model::{ProcessState, Stage},
};

pub(super) fn find(input: &DetectorInput<'_>) -> Vec<Finding> {
    inits(input).filter_map(|init| of(input, init)).collect()
}

/// PID 1s of the namespaces that the user asks about.
fn inits<'a>(input: &'a DetectorInput<'_>) -> impl Iterator<Item = &'a ProcessState> {
    let targets = input.targets.iter().filter_map(|inum| input.world.namespace(*inum));
    let living = targets.filter(|state| state.namespace.level > 0 && state.stage == Stage::Alive);
    living.filter_map(|state| input.world.process(state.init?)).filter(|init| init.ended.is_none())
}

fn of(input: &DetectorInput<'_>, init: &ProcessState) -> Option<Finding> {
    let ProcShows { ns, path } = input.readings.proc.get(&init.key())?.as_ref()?;
    let process = described(init);
    let mut evidence = vec![input.proc_evidence(Fact::ProcShows { ns: *ns, path: path.clone() })];
    if let Some(children) = init.children_ns {
        evidence.push(input.model_evidence(Fact::ChildrenGoTo { process: process.clone(), ns: children }));
    }
    let next =
        format!("nsenter --target {} --pid --mount mount -t proc proc {}", process.pid, path.for_terminal());
    Some(Finding {
        id: Diagnosis::ProcMismatch,
        severity: Severity::Info,
        since_boot_ns: init.process.start_boot_ns,
        ns: input.ns(init.process.ns),
        process: Some(process),
        evidence,
        next: vec![next],
    })
}

/// Requests the namespaces that the /proc of these processes shows.
pub(super) fn add_requests(input: &DetectorInput<'_>, request: &mut ReadRequest) {
    for init in inits(input).filter(|init| !input.readings.proc.contains_key(&init.key())) {
        let parent = |inum: &NsInum| input.world.namespace(*inum)?.namespace.parent;
        // The deepest level is 32.
        let around = std::iter::successors(parent(&init.process.ns), parent).take(MAX_LEVEL as usize);
        let shown = around.filter_map(|inum| {
            let state = input.world.namespace(inum)?;
            Some((inum, if state.namespace.level == 0 { None } else { Some(state.init?) }))
        });
        request.proc.insert(init.key(), shown.collect());
    }
}
