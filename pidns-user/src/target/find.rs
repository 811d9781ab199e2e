//! Resolves a TARGET in a snapshot of the running system or of a recording.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use crate::{
    event::container::{Called, Container},
    event::identity::{HostPid, NamespaceKey, NsInum},
    event::snapshot::{Snapshot, SnapshotNamespace, SnapshotProcess, SnapshotSource},
    model::Forest,
    target::{self, NotFound, ParsedTarget, TargetError, scope::Scope},
    text::Count,
};

/// The object that a TARGET names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The namespace with this inode number. It need not exist.
    Namespace(NsInum),
    /// The process with this PID on the host. It need not exist.
    Process(HostPid),
    /// A container: its namespace.
    Container(NsInum),
    /// A container without its own PID namespace: its processes share one with others.
    Sharing(Found),
    /// A pod: its containers.
    Pod(Vec<Found>),
    /// A container that is gone: its namespace. Another namespace may have the inode number by now.
    GoneContainer(NamespaceKey),
}

/// A container, and the namespace of its processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The namespace.
    pub(crate) ns: NsInum,
    /// The container.
    pub(crate) container: Arc<Container>,
    /// Whether the namespace's PID 1 is in the container. Otherwise the container shares the namespace.
    pub(crate) is_home: bool,
}

/// Resolves a TARGET. In a recording it can also be a container that is gone, found by its namespace in `gone` (the
/// last to go comes first).
pub(crate) fn name(
    target: &str,
    snapshot: &Snapshot,
    gone: &[SnapshotNamespace],
) -> Result<Target, TargetError> {
    let refused = |error| refusal(target, error, snapshot);
    match ParsedTarget::of(target).map_err(refused)? {
        ParsedTarget::Namespace(inum) => Ok(Target::Namespace(inum)),
        ParsedTarget::Pid(pid) => Ok(Target::Process(pid)),
        ParsedTarget::Name("") => Err(refused(NotFound::Meaningless("TARGET is empty".to_owned()))),
        ParsedTarget::Name(name) => match container(name, snapshot, gone)? {
            Some(found) => Ok(found),
            // It is a file in the current directory.
            None if snapshot.source != SnapshotSource::Recording && is_file(name) => {
                look_up(target, snapshot).map(Target::Namespace)
            }
            None => Err(no_container(name, snapshot)),
        },
        ParsedTarget::Path(_) => look_up(target, snapshot).map(Target::Namespace),
    }
}

/// Resolves a TARGET that exists to all that it selects: for a pod each of its containers, and for a container that
/// shares a namespace only its own processes.
pub(crate) fn scope(target: &str, snapshot: &Snapshot, forest: &Forest<'_>) -> Result<Scope, TargetError> {
    let found = match name(target, snapshot, &[])? {
        Target::Sharing(found) => vec![found],
        Target::Pod(found) => found,
        other => return namespace_of(target, other, snapshot, forest).map(Scope::of_namespace),
    };
    let mut scope = Scope::default();
    for Found { ns, container, is_home } in &found {
        if *is_home {
            scope.whole.push(*ns);
        } else {
            let is_of_it = |process: &&SnapshotProcess| {
                process.ns == Some(*ns)
                    && process.container.as_ref().is_some_and(|own| own.is_same(container))
            };
            scope.members.extend(snapshot.processes.iter().filter(is_of_it).map(|process| process.pid));
        }
    }
    Ok(scope)
}

/// Resolves a TARGET to its namespace, which must exist.
pub(crate) fn namespace(
    target: &str,
    snapshot: &Snapshot,
    forest: &Forest<'_>,
) -> Result<NsInum, TargetError> {
    namespace_of(target, name(target, snapshot, &[])?, snapshot, forest)
}

/// The one namespace of a pod's containers, if they share one.
pub(crate) fn one_namespace(target: &str, found: &[Found]) -> Result<NsInum, TargetError> {
    let namespaces: BTreeSet<NsInum> = found.iter().map(|found| found.ns).collect();
    match (namespaces.first(), namespaces.len()) {
        (Some(&inum), 1) => Ok(inum),
        _ => Err(TargetError::Usage(format!(
            "{target:?} is a pod of several containers, each with its own PID namespace: give the inode number or name \
             of one: {}",
            listed(found)
        ))),
    }
}

fn namespace_of(
    target: &str,
    named: Target,
    snapshot: &Snapshot,
    forest: &Forest<'_>,
) -> Result<NsInum, TargetError> {
    let inum = match named {
        Target::Sharing(found) => found.ns,
        Target::Pod(found) => one_namespace(target, &found)?,
        Target::Namespace(inum)
        | Target::Container(inum)
        | Target::GoneContainer(NamespaceKey { inum, .. }) => inum,
        Target::Process(pid) => match (forest.process(pid), snapshot.source) {
            (Some(process), SnapshotSource::Recording) => {
                process.ns.ok_or_else(|| no_process(pid, snapshot))?
            }
            (None, SnapshotSource::Recording) => return Err(no_process(pid, snapshot)),
            // A thread has a namespace too.
            (found, _) => match found.and_then(|process| process.ns) {
                Some(ns) => ns,
                None => look_up(target, snapshot)?,
            },
        },
    };
    match forest.node(inum) {
        Some(_) => Ok(inum),
        None => Err(no_namespace(inum, snapshot)),
    }
}

/// The error if no namespace has this number.
pub(crate) fn no_namespace(inum: NsInum, snapshot: &Snapshot) -> TargetError {
    TargetError::NoMatch(match snapshot.source {
        SnapshotSource::Recording => {
            format!("{inum}: no such namespace existed then, as far as the recording shows")
        }
        SnapshotSource::Iterator | SnapshotSource::Proc => format!(
            "{inum}: no PID namespace {inum} was found, neither with a process nor with a holder; `pidns-trace tree` \
             lists all that were found{}",
            match snapshot.unread.namespaces {
                0 => String::new(),
                unread => format!(
                    ". {} that cannot be read: run it with sudo",
                    Count(unread, "process has a namespace", "processes have namespaces")
                ),
            }
        ),
    })
}

/// Whether a TARGET is the inode number of a namespace that is gone.
pub(crate) fn is_gone_namespace(target: &str, gone: &[SnapshotNamespace]) -> bool {
    matches!(ParsedTarget::of(target), Ok(ParsedTarget::Namespace(inum)) if gone.iter().any(|ns| ns.inum == inum))
}

/// The error if no process has this PID.
pub(crate) fn no_process(pid: HostPid, snapshot: &Snapshot) -> TargetError {
    if snapshot.source == SnapshotSource::Recording {
        return TargetError::NoMatch(format!(
            "no process had the PID {pid} then, as far as the recording shows (it does not contain ids of threads)"
        ));
    }
    TargetError::NoMatch(format!(
        "there is no process of PID {pid}, and no thread with this id; for a PID inside a container, use `pid {pid} \
         --in TARGET`"
    ))
}

/// Looks a TARGET up in /proc or as a file. A recording does not contain these.
fn look_up(target: &str, snapshot: &Snapshot) -> Result<NsInum, TargetError> {
    let found = match snapshot.source {
        SnapshotSource::Recording => {
            Err(NotFound::Meaningless("this names nothing in the recording".to_owned()))
        }
        SnapshotSource::Iterator | SnapshotSource::Proc => target::look_up_namespace(target),
    };
    found.map_err(|error| refusal(target, error, snapshot))
}

fn refusal(target: &str, error: NotFound, snapshot: &Snapshot) -> TargetError {
    match error {
        NotFound::Nothing(text) => TargetError::NoMatch(format!("{target}: {text}")),
        NotFound::Unreadable(text) => TargetError::Usage(format!("{target}: {text}")),
        NotFound::Meaningless(text) => {
            TargetError::Usage(format!("{target:?}: {text}: a TARGET is {}", forms(snapshot)))
        }
    }
}

fn forms(snapshot: &Snapshot) -> &'static str {
    match snapshot.source {
        SnapshotSource::Recording => target::RECORDED_FORMS,
        SnapshotSource::Iterator | SnapshotSource::Proc => target::FORMS,
    }
}

/// Whether the name is a relative path of an existing file. Other paths begin with / or . and are never names.
fn is_file(name: &str) -> bool {
    name.contains('/') && Path::new(name).symlink_metadata().is_ok()
}

/// Finds the container with this name, existing or gone. A full name, even of a container that is gone, has precedence
/// over the name of a pod, and that over the beginning of an id. A container that a runtime confirms has precedence
/// over one that is known by its cgroup alone, because any process that may create a cgroup can give it any name.
fn container(
    text: &str,
    snapshot: &Snapshot,
    gone: &[SnapshotNamespace],
) -> Result<Option<Target>, TargetError> {
    for how in [Called::So, Called::ByPod, Called::Beginning] {
        for is_confirmed in [true, false] {
            let is_it = |container: &Container| {
                container.is_confirmed() == is_confirmed && container.called(text) == Some(how)
            };
            if let Some(living) = living_container(text, how, is_it, snapshot)? {
                return Ok(Some(living));
            }
            if let Some(gone) = gone_container(is_it, gone) {
                return Ok(Some(gone));
            }
        }
    }
    Ok(None)
}

fn living_container(
    text: &str,
    how: Called,
    is_it: impl Fn(&Container) -> bool,
    snapshot: &Snapshot,
) -> Result<Option<Target>, TargetError> {
    let home = |(ns, container): (NsInum, &Arc<Container>)| Found {
        ns,
        container: Arc::clone(container),
        is_home: true,
    };
    let mut called: Vec<Found> = snapshot
        .containers()
        .filter(|(_, container)| is_it(container))
        .filter(|&(inum, container)| !is_within_its_own(inum, container, snapshot))
        .map(home)
        .collect();
    for (ns, container) in snapshot.sharing_containers().filter(|(_, container)| is_it(container)) {
        // A process of a container with its own namespace may have joined another namespace. It still belongs to that
        // container.
        if !called.iter().any(|known| known.container.is_same(container)) {
            called.push(Found { ns, container: Arc::clone(container), is_home: false });
        }
    }
    let pods: BTreeSet<_> = called.iter().map(|found| found.container.pod_label()).collect();
    match &*called {
        [] => Ok(None),
        [Found { ns, is_home: true, .. }] => Ok(Some(Target::Container(*ns))),
        [found] => Ok(Some(Target::Sharing(found.clone()))),
        _ if how == Called::ByPod && pods.len() == 1 => Ok(Some(Target::Pod(called))),
        _ => Err(TargetError::Usage(format!(
            "{text:?} is the name of several containers: give the inode number of one: {}",
            listed(&called)
        ))),
    }
}

/// A list of items like "4026532178 (docker/web, id 0123…)".
fn listed(found: &[Found]) -> String {
    let line = |Found { ns, container, is_home: _ }: &Found| {
        let id = container.id.as_ref();
        let id = id.map(|id| format!(", id {}", id.for_terminal())).unwrap_or_default();
        format!("{ns} ({}{id})", container.label().for_terminal())
    };
    found.iter().map(line).collect::<Vec<_>>().join(", ")
}

/// The matching container that was the last to go.
fn gone_container(is_it: impl Fn(&Container) -> bool, gone: &[SnapshotNamespace]) -> Option<Target> {
    let called = |ns: &&SnapshotNamespace| ns.container.as_ref().is_some_and(|container| is_it(container));
    let last = gone.iter().find(called)?;
    // A namespace that was created inside the container has the same cgroup, so take the outermost one.
    let its_own = gone.iter().filter(|ns| ns.container == last.container).min_by_key(|ns| ns.level);
    its_own.map(|ns| Target::GoneContainer(ns.key()))
}

/// Whether an ancestor of the namespace belongs to the same container. A namespace that was created inside a container
/// has the container's cgroup too.
fn is_within_its_own(inum: NsInum, container: &Container, snapshot: &Snapshot) -> bool {
    let mut next = snapshot.namespaces.get(&inum);
    while let Some(below) = next {
        // Without this check, a wrong parent could lead into an endless loop.
        next = below.parent.and_then(|parent| snapshot.namespaces.get(&parent));
        next = next.filter(|parent| parent.level < below.level);
        if next.and_then(|parent| parent.container.as_ref()).is_some_and(|outer| {
            container.id.is_some() && outer.id == container.id && outer.runtime == container.runtime
        }) {
            return true;
        }
    }
    false
}

/// Lists some of the existing containers.
pub(crate) fn existing_containers(snapshot: &Snapshot) -> String {
    const NAMED: usize = 5;
    let all = snapshot.containers().chain(snapshot.sharing_containers());
    let labels = all.map(|(_, container)| container.label().for_terminal().to_string());
    let labels: BTreeSet<String> = labels.collect();
    let named: Vec<&str> = labels.iter().take(NAMED).map(String::as_str).collect();
    match (named.is_empty(), labels.len() - named.len()) {
        (true, _) => "no container was found".to_owned(),
        (false, 0) => format!("there are {}", named.join(", ")),
        (false, more) => format!("there are {} and {more} more", named.join(", ")),
    }
}

/// The error if no container has this name. It lists some existing names, in case this one is misspelt.
fn no_container(name: &str, snapshot: &Snapshot) -> TargetError {
    let found = existing_containers(snapshot);
    let known = match snapshot.source {
        SnapshotSource::Recording => ", as far as the recording shows",
        SnapshotSource::Iterator | SnapshotSource::Proc => "",
    };
    TargetError::NoMatch(format!(
        "no container is called {name:?}{known}: {found}. A TARGET is {}",
        forms(snapshot)
    ))
}

#[cfg(test)]
mod tests;
