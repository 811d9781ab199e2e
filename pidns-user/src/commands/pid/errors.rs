//! Errors for a PID that no process has in a namespace, or whose process is not visible there.

use jiff::Timestamp;

use super::{PidTable, place::PidNamespaceRef};
use crate::{
    commands::failure::Failure,
    event::identity::{BootNs, HostPid},
    event::snapshot::{SnapshotNamespace, SnapshotProcess, SnapshotSource},
};

/// How many processes or namespaces a message lists; further ones are counted.
const NAMED: usize = 3;

/// Says why no process has this PID in this namespace, and which processes have it elsewhere.
pub(super) fn no_process_in(pid: u32, place: PidNamespaceRef, host: &PidTable<'_>) -> Failure {
    let inum = place.inum;
    let known = host.how_far_that_is_known();
    let text = format!("no process has PID {pid} in namespace {inum}{known}");
    let Some(process) = host.of_number(HostPid(pid)) else {
        return Failure::NoMatch(match elsewhere(pid, host) {
            Some(elsewhere) => format!("{text}: {elsewhere}"),
            None => text,
        });
    };
    let levels = host.model.levels(process);
    let inside = place.level_of(process, &levels).and_then(|level| process.pids.get(level));
    let name = process.name();
    Failure::NoMatch(match inside {
        Some(inside) => format!("{text}: {pid} is the host PID of {name}, which has PID {inside} there"),
        None => format!(
            "{text}: the host's {pid} ({name}) is in {}, which is neither this namespace nor nested in it: it is invisible there",
            namespace_of(process)
        ),
    })
}

/// Says which of several namespaces with the same number is meant. `clock` converts to wall clock time.
pub(super) fn others_of_number(
    all: &[&SnapshotNamespace],
    meant: Option<&SnapshotNamespace>,
    clock: impl Fn(BootNs) -> Timestamp,
) -> Option<String> {
    let (meant, born) = meant.and_then(|meant| Some((meant, meant.born_boot_ns?)))?;
    let others = all.iter().filter(|ns| ns.differs_from(meant));
    let others: Vec<String> =
        others.filter_map(|ns| Some(format!("{:.6}", clock(ns.born_boot_ns?)))).collect();
    let (named, more) = others.split_at(NAMED.min(others.len()));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    (!others.is_empty()).then(|| {
        format!(
            "several namespaces have had the number {}: this is the one born at {:.6}; others were born at {}{more}: select them with --at",
            meant.inum,
            clock(born),
            named.join(", ")
        )
    })
}

/// The places where a PID that is free on the host is in use: "7 is nginx[48213] in namespace 4026532178".
pub(super) fn elsewhere(pid: u32, host: &PidTable<'_>) -> Option<String> {
    let mut found = Vec::new();
    for process in host.processes() {
        let levels = host.model.levels(process);
        // At level 0 it would have been found before.
        for (_, ns) in process.pids.iter().zip(levels).skip(1).filter(|(found, _)| **found == pid) {
            let ns = ns.map_or_else(|| "an unknown namespace".to_owned(), |ns| format!("namespace {ns}"));
            found.push(format!("{}[{}] in {ns}", process.name(), process.pid));
        }
    }
    let more = found.len().saturating_sub(NAMED);
    found.truncate(NAMED);
    let list = found.join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!list.is_empty()).then(|| format!("{pid} is {list}{more}"))
}

/// Says why a process has no PID in an existing namespace.
pub(super) fn invisible(
    asked: (u32, Option<PidNamespaceRef>),
    process: &SnapshotProcess,
    place: PidNamespaceRef,
    host: &PidTable<'_>,
) -> Failure {
    let levels = host.model.levels(process);
    let (name, inum) = (process.name(), place.inum);
    let who = match asked {
        (pid, Some(seen_in)) => format!("{pid} in {} is {} on the host ({name})", seen_in.inum, process.pid),
        (pid, None) => format!("{pid} ({name}) is"),
    };
    if process.pids.is_empty() || levels.contains(&None) {
        let remedy = match host.snapshot.source {
            SnapshotSource::Recording => "the recording does not contain all its namespaces",
            SnapshotSource::Iterator | SnapshotSource::Proc => {
                "its namespaces cannot be read. Reading needs CAP_SYS_PTRACE: run it with sudo"
            }
        };
        return Failure::Usage(format!("{who}: whether it is visible in {inum} is unknown: {remedy}"));
    }
    let own = namespace_of(process);
    let and = if asked.1.is_some() { " and" } else { "" };
    Failure::NoMatch(if process.ns == Some(inum) {
        format!("{who}{and} in {own}, but the TARGET is another namespace that had this number")
    } else {
        format!(
            "{who}{and} in {own}; it is invisible in {inum}, which is neither its own namespace nor an ancestor of it: a process is visible only \
             in its own namespace and the ancestors of it"
        )
    })
}

fn namespace_of(process: &SnapshotProcess) -> String {
    process.ns.map_or_else(|| "another namespace".to_owned(), |ns| format!("namespace {ns}"))
}
