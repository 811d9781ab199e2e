//! Errors for a PID that no process has in a namespace, or whose process is not seen there.

use jiff::Timestamp;

use super::{PidTable, place::PidPlace};
use crate::{
    commands::failure::Failure,
    event::identity::{BootNs, HostPid},
    event::snapshot::{SnapshotNamespace, SnapshotProcess, SnapshotSource},
};

/// Processes that are named as having the number elsewhere, and namespaces that had one number; of more it gives the number.
const NAMED: usize = 3;

/// Why no process has this PID in this namespace, and which processes have the number elsewhere: they are mostly meant.
pub(super) fn no_process_in(pid: u32, place: PidPlace, host: &PidTable<'_>) -> Failure {
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
        Some(inside) => format!("{text}: {pid} is the host's number for {name}, which is {inside} there"),
        None => format!(
            "{text}: the host's {pid} ({name}) is in {}, which is not that one nor below it, and so is invisible there",
            namespace_of(process)
        ),
    })
}

/// Which namespace is meant of several that have had one number. `clock`: the time of day.
pub(super) fn others_of_number(
    all: &[&SnapshotNamespace],
    meant: Option<&SnapshotNamespace>,
    clock: impl Fn(BootNs) -> Timestamp,
) -> Option<String> {
    let (meant, born) = meant.and_then(|meant| Some((meant, meant.born_boot_ns?)))?;
    let others = all.iter().filter(|ns| ns.is_another(meant));
    let others: Vec<String> =
        others.filter_map(|ns| Some(format!("{:.6}", clock(ns.born_boot_ns?)))).collect();
    let (named, more) = others.split_at(NAMED.min(others.len()));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    (!others.is_empty()).then(|| {
        format!(
            "of the namespaces that have had the number {}, this is about the one of {:.6}; others were born at {}{more}: --at asks for them",
            meant.inum,
            clock(born),
            named.join(", ")
        )
    })
}

/// Where a number that is free on the host is in use: "7 is nginx[48213] in namespace 4026532178".
pub(super) fn elsewhere(pid: u32, host: &PidTable<'_>) -> Option<String> {
    let mut found = Vec::new();
    for process in host.processes() {
        let levels = host.model.levels(process);
        // At level 0 it would have been found.
        for (_, ns) in process.pids.iter().zip(levels).skip(1).filter(|(found, _)| **found == pid) {
            let ns = ns.map_or_else(|| "one that is not known".to_owned(), |ns| format!("namespace {ns}"));
            found.push(format!("{}[{}] in {ns}", process.name(), process.pid));
        }
    }
    let more = found.len().saturating_sub(NAMED);
    found.truncate(NAMED);
    let list = found.join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!list.is_empty()).then(|| format!("{pid} is {list}{more}"))
}

/// Why a process has no PID in a namespace that exists.
pub(super) fn invisible(
    asked: (u32, Option<PidPlace>),
    process: &SnapshotProcess,
    place: PidPlace,
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
            SnapshotSource::Recording => "the recording does not have all the namespaces that it is in",
            SnapshotSource::Iterator | SnapshotSource::Proc => {
                "its namespaces may not be read. That takes CAP_SYS_PTRACE: run it with sudo"
            }
        };
        return Failure::Usage(format!("{who}: whether it is seen in {inum} is unknown, as {remedy}"));
    }
    let own = namespace_of(process);
    let and = if asked.1.is_some() { " and" } else { "" };
    Failure::NoMatch(if process.ns == Some(inum) {
        format!("{who}{and} in {own}, but not in the one that had that number when it was what is asked for")
    } else {
        format!(
            "{who}{and} in {own}; it is invisible in {inum}, which is neither that one nor around it: PIDs are seen from \
             their own namespace and those around it"
        )
    })
}

fn namespace_of(process: &SnapshotProcess) -> String {
    process.ns.map_or_else(|| "another namespace".to_owned(), |ns| format!("namespace {ns}"))
}
