//! Finds the container of a process from its cgroup ([`ParsedCgroup`]), and what the runtime's files say about it.
//!
//! No error here is fatal: if a file cannot be read, or is about another process, the container gets a doubt.

mod annotations;
mod api;
mod daemons;
mod first_processes;
mod lookup;
mod oci;
mod process;
mod read;
mod watchers;

use std::collections::HashSet;

use super::{
    Roots,
    cgroup::{Candidate, Layer, ParsedCgroup},
};
use crate::{
    event::container::{Container, Runtime},
    event::identity::ProcessKey,
    text::Name,
};
pub use api::Api;
pub(super) use first_processes::{FirstProcesses, StateId};
use lookup::FileLookup;
use process::Init;
pub(super) use process::{parent_of, process_exists};
use read::{FolderName, Reader};
use watchers::Claim;
pub(super) use watchers::{Parent, nspawn_machine};

/// The result for a cgroup.
#[derive(Debug)]
pub(super) struct Found {
    /// `None` if the process is in no container and no unit.
    pub(super) container: Option<Container>,
    /// Whether the result is final. A later read may find more, because a runtime writes its files only after the first
    /// process exists.
    pub(super) settled: bool,
    /// The first process that the files name.
    pub(super) confirmed_by: Option<ConfirmedBy>,
}

/// The first process of a container. While it lives, the result also holds for the container's other processes.
#[derive(Debug)]
pub(super) struct ConfirmedBy {
    init: Init,
    /// The container's own cgroup.
    path: Vec<u8>,
}

impl ConfirmedBy {
    /// Whether the result also holds for this process.
    pub(super) fn confirms(&self, process: ProcessKey, roots: &Roots) -> bool {
        self.init.doubt(process, &self.path, &roots.proc).is_none()
    }
}

/// Limits for the number of a container's doubts, and for the length of each in bytes. The author of the files controls
/// how many doubts there are.
const MAX_DOUBTS: usize = 16;
const LONGEST_DOUBT: usize = 512;

/// Finds the container of `process`: first from its cgroup and the files, then from the daemons.
pub(super) fn find(roots: &Roots, api: Option<&Api>, process: ProcessKey, parsed: &ParsedCgroup) -> Found {
    let reader = Reader::new();
    let count = parsed.containers.len();
    let mut found = match count {
        0 => find_candidate(&reader, roots, process, &parsed.candidates, parsed),
        _ => find_record(&reader, roots, api, process, parsed, count),
    };
    if found.confirmed_by.is_none() && count > 0 {
        // A process that is root in a container can make cgroups there, give them any name, and move into one.
        let outer = (1..count).rev().map(|count| find_record(&reader, roots, None, process, parsed, count));
        let outer = outer
            .chain(std::iter::once_with(|| find_candidate(&reader, roots, process, &parsed.around, parsed)));
        let is_its_first =
            |found: &Found| found.confirmed_by.as_ref().is_some_and(|of| of.init.pid == process.pid);
        let claim = found.container.as_ref().map(Container::label);
        if let Some(outer) = outer.into_iter().find(is_its_first) {
            found = outer;
            let claim = claim.unwrap_or_default();
            let container = found.container.get_or_insert_default();
            container
                .doubts
                .push(format!("its cgroup has the name of another container: {}", claim.for_terminal()));
        }
    }
    if let Some(container) = &mut found.container {
        container.by_cgroup_alone = found.confirmed_by.is_none();
        bound(&mut container.doubts);
    }
    found
}

/// Returns the container of this state. `process` is its first process, but its cgroup does not name it.
pub(super) fn find_by_first_process(
    roots: &Roots,
    process: ProcessKey,
    parsed: &ParsedCgroup,
    state: StateId,
) -> Option<Found> {
    let StateId { id, runtime_namespace, user } = state;
    // If the cgroup's path has a directory that may belong to a container, the innermost one is this container's. If
    // not, the container has no cgroup of its own, and the result is only valid for the first process.
    let path = parsed.candidates.first().map(|candidate| candidate.path.clone()).unwrap_or_default();
    let parent = runtime_namespace.as_deref().map(Name::from);
    let candidate = Candidate { id: Name::from(&*id), parent, path };
    let parsed = ParsedCgroup { user: user.or(parsed.user), ..parsed.clone() };
    let mut found = find_candidate(&Reader::new(), roots, process, &[candidate], &parsed);
    found.confirmed_by.as_ref()?;
    let container = found.container.as_mut()?;
    if user.is_some()
        && let Some(claim) = watchers::claim_about(process, &roots.proc, &id)
    {
        add_claimed_name(container, claim);
    }
    bound(&mut container.doubts);
    Some(found)
}

/// Removes duplicate doubts and limits their number and length.
fn bound(doubts: &mut Vec<String>) {
    let mut seen = HashSet::new();
    doubts.retain(|doubt| seen.insert(doubt.clone()));
    let more = doubts.len().saturating_sub(MAX_DOUBTS);
    doubts.truncate(MAX_DOUBTS);
    for doubt in doubts.iter_mut().filter(|doubt| doubt.len() > LONGEST_DOUBT) {
        doubt.truncate(doubt.floor_char_boundary(LONGEST_DOUBT));
        doubt.push('…');
    }
    if more > 0 {
        doubts.push(format!("and {more} more doubts"));
    }
}

/// Finds a container of nested ones: the innermost of the outermost `count` containers of a cgroup. It must have that
/// many.
fn find_record(
    reader: &Reader,
    roots: &Roots,
    api: Option<&Api>,
    process: ProcessKey,
    parsed: &ParsedCgroup,
    count: usize,
) -> Found {
    let innermost = &parsed.containers[count - 1];
    let mut container = of_layer(innermost);
    if count == parsed.containers.len() {
        container.unit = parsed.unit.clone();
    }
    container.outer = outer(parsed, count);
    if innermost.runtime == Some(Runtime::Lxc)
        && let Some(name) = watchers::lxc_name(process, &roots.proc, innermost)
    {
        container.name = Some(name);
    }
    if matches!(innermost.runtime, Some(Runtime::Lxc | Runtime::Nspawn)) {
        // Its id is its name, and its files have nothing more.
        return Found { container: Some(container), settled: true, confirmed_by: None };
    }
    let lookup = FileLookup { layer: innermost, process, proc: &roots.proc, reader };
    let Some(id) = FolderName::new(innermost.id.as_bytes()) else {
        container.doubts.push(format!("its id is not a valid file name: {}", innermost.id.for_terminal()));
        return Found { container: Some(container), settled: true, confirmed_by: None };
    };
    let own = innermost.user.map(|uid| roots.folders_of(uid));
    let everywhere = own.into_iter().chain([roots.folders()]);
    let mut init = everywhere.into_iter().find_map(|folders| lookup.fill(&folders, id, &mut container));
    if container.name.is_none()
        && let Some(api) = api
    {
        init = lookup.ask(api, id, init, &mut container).or(init);
    }
    if init.is_none() && container.doubts.is_empty() {
        container.doubts.push(format!("no runtime has a file about {}", id.as_str()));
    }
    if container.name.is_none()
        && matches!(container.runtime, None | Some(Runtime::Podman))
        && let Some(claim) = watchers::claim(process, &roots.proc, &innermost.path)
        && claim.runtime == Runtime::Podman
        && claim.id.as_ref() == Some(&innermost.id)
    {
        add_claimed_name(&mut container, claim);
    }
    let confirmed_by = init.map(|init| ConfirmedBy { init, path: innermost.path.clone() });
    Found { container: Some(container), settled: confirmed_by.is_some(), confirmed_by }
}

/// Adds the name that conmon's command line contains, if no file has one.
fn add_claimed_name(container: &mut Container, claim: Claim) {
    if container.name.is_none() {
        container
            .doubts
            .push("its name is only known from conmon's command line, not from a file of Podman".to_owned());
        container.name = Some(claim.name);
    }
}

/// Finds a container by a directory that may be named after it. A runtime must have a file about it that names this
/// process.
fn find_candidate(
    reader: &Reader,
    roots: &Roots,
    process: ProcessKey,
    candidates: &[Candidate],
    parsed: &ParsedCgroup,
) -> Found {
    for candidate in candidates {
        let Some(id) = FolderName::new(candidate.id.as_bytes()) else { continue };
        // Directories outside of the containers belong to the user of the outermost container.
        let user = parsed.containers.front().map_or(parsed.user, |outermost| outermost.user);
        let layer = Layer {
            runtime: None,
            id: candidate.id.clone(),
            runtime_namespace: candidate.parent.clone(),
            pod: None,
            user,
            path: candidate.path.clone(),
        };
        let mut container = Container { runtime_namespace: None, ..of_layer(&layer) };
        let lookup = FileLookup { layer: &layer, process, proc: &roots.proc, reader };
        let everywhere = user.map(|uid| roots.folders_of(uid)).into_iter().chain([roots.folders()]);
        let init = everywhere.into_iter().find_map(|folders| lookup.fill(&folders, id, &mut container));
        if let Some(init) = init {
            let confirmed_by = Some(ConfirmedBy { init, path: layer.path });
            return Found { container: Some(container), settled: true, confirmed_by };
        }
    }
    let unit = parsed.unit.as_ref().map(|unit| Container {
        runtime: Some(Runtime::Systemd),
        name: Some(unit.clone()),
        unit: Some(unit.clone()),
        user: parsed.user,
        ..Container::default()
    });
    Found { container: unit, settled: candidates.is_empty(), confirmed_by: None }
}

/// Returns the facts that the path alone shows.
fn of_layer(layer: &Layer) -> Container {
    let is_named = matches!(layer.runtime, Some(Runtime::Lxc | Runtime::Nspawn));
    Container {
        runtime: layer.runtime,
        id: Some(layer.id.clone()),
        name: is_named.then(|| layer.id.clone()),
        pod_uid: layer.pod.as_ref().map(|pod| pod.uid.clone()),
        qos: layer.pod.as_ref().and_then(|pod| pod.qos),
        runtime_namespace: layer.runtime_namespace.clone(),
        user: layer.user,
        ..Container::default()
    }
}

/// The containers around the innermost of the outermost `count`, each nested in the next.
fn outer(parsed: &ParsedCgroup, count: usize) -> Option<Box<Container>> {
    let around = parsed.containers.iter().take(count.saturating_sub(1));
    around.fold(None, |outer, layer| {
        Some(Box::new(Container { outer, by_cgroup_alone: true, ..of_layer(layer) }))
    })
}
