//! `ps`: processes with their PIDs.

use std::{borrow::Cow, io, sync::Arc};

use serde::Serialize;

use super::{
    JsonForm,
    columns::{self, Cell},
    document,
    fields::{Chosen, Fields, fields},
    fit::{Cut, Leave, Room},
    phrases::{Duration, from_outside, pids},
    screen::{Paint, Screen},
    teardown::short,
};
use crate::{
    event::VERSION,
    event::container::Container,
    event::identity::{BootNs, HostPid},
    event::snapshot::{Snapshot, SnapshotProcess, SnapshotSource, Unread},
    model::{AwaitedBy, Entry, Forest},
    text::Count,
};

fields! {
    /// What `ps` tells of a process.
    pub enum Field, usual [Ns, Level, Pids, State, Age, Comm, Entry], room;
    /// The PID at level 0.
    Pid "pid" "PID" Right ["pid"],
    /// The PIDs at all levels.
    Pids "pids" "PIDS" Left ["pids"],
    /// The innermost namespace.
    Ns "ns" "NS" Right ["ns"],
    /// Its level.
    Level "level" "LVL" Right ["level"],
    /// The parent at level 0.
    Ppid "ppid" "PPID" Right ["ppid"],
    /// The user.
    Uid "uid" "UID" Right ["uid"],
    /// The state.
    State "state" "S" Left ["state"],
    /// Threads.
    Threads "threads" "THR" Right ["threads"],
    /// Who traces it.
    Tracer "tracer" "TRACER" Right ["tracer"],
    /// What it runs in, by its own cgroup or else by that of the PID 1 of its namespace.
    Container "container" "CONTAINER" Left ["container"],
    /// Its cgroup: the path, or else the id.
    Cgroup "cgroup" "CGROUP" Left ["cgroup", "cgroup_id"],
    /// Whether it adopts orphans.
    Subreaper "subreaper" "SUBREAPER" Left ["subreaper"],
    /// Since when it exists.
    Age "age" "AGE" Right ["start_boot_ns"],
    /// How it got in.
    Entry "entry" "ENTRY" Left ["joined", "forked_by", "zombie", "zombie_since_boot_ns", "exiting", "frozen", "freezer", "awaited"],
    /// The name.
    Comm "comm" "COMM" Left ["comm"],
}

fn room(field: Field) -> Room {
    match field {
        Field::Level => Room::whole(Leave::Soon(1)),
        Field::Age => Room::whole(Leave::Late(1)),
        Field::Ns => Room::whole(Leave::Late(2)),
        Field::Pids => Room::from(12, 24, Cut::Middle, Leave::Stays),
        Field::Comm => Room::from(8, 15, Cut::End, Leave::Stays),
        Field::Container => Room::from(10, 16, Cut::End, Leave::Stays),
        Field::Cgroup => Room::from(12, 24, Cut::Start, Leave::Stays),
        Field::Entry => Room::from(16, 24, Cut::End, Leave::Stays),
        Field::Pid
        | Field::Ppid
        | Field::Uid
        | Field::State
        | Field::Threads
        | Field::Tracer
        | Field::Subreaper => Room::whole(Leave::Stays),
    }
}

/// Writes the table of these processes.
pub fn table(
    snapshot: &Snapshot,
    forest: &Forest<'_>,
    processes: &[&SnapshotProcess],
    fields: &Fields<Field>,
    headings: bool,
    screen: Screen,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let cell =
        |field, process| Cell::painted(text(field, process, snapshot, forest), paint(field, process, forest));
    let rows: Vec<_> = processes.iter().map(|process| fields.row(|field| cell(field, process))).collect();
    columns::write(&fields.columns(), &rows, headings, screen, to)
}

fn paint(field: Field, process: &SnapshotProcess, forest: &Forest<'_>) -> Paint {
    match (field, process.state) {
        (Field::State | Field::Entry, Some('Z' | 'X')) => Paint::Red,
        (Field::State, Some('D' | 'T' | 't')) => Paint::Yellow,
        (Field::State, Some('R')) => Paint::Green,
        (Field::Entry, _) if matches!(forest.entry(process), Entry::Joined { .. }) => Paint::Cyan,
        _ => Paint::None,
    }
}

fn text(field: Field, process: &SnapshotProcess, snapshot: &Snapshot, forest: &Forest<'_>) -> String {
    fn known<T: ToString>(fact: Option<T>) -> String {
        fact.map_or_else(|| "?".to_owned(), |fact| fact.to_string())
    }
    match field {
        Field::Pid => process.pid.to_string(),
        Field::Pids if process.pids.is_empty() => format!("{} → ?", process.pid),
        Field::Pids => pids(&process.pids),
        Field::Ns => known(process.ns),
        Field::Level => known(process.level()),
        Field::Ppid if process.state.is_some() && process.ppid.is_none() => "-".to_owned(),
        Field::Ppid => known(process.ppid),
        Field::Uid => known(process.uid),
        Field::State => known(process.state),
        Field::Threads => known(process.threads),
        Field::Tracer if process.tracer.is_none() && process.knows_tracer(snapshot.source) => "-".to_owned(),
        Field::Tracer => known(process.tracer),
        Field::Container => container(process, snapshot)
            .map_or_else(|| "-".to_owned(), |container| container.label().for_terminal().to_string()),
        Field::Cgroup => match &process.cgroup {
            Some(path) => path.for_terminal().to_string(),
            None => known(process.cgroup_id),
        },
        Field::Subreaper => known(process.subreaper.map(|is_one| if is_one { "yes" } else { "-" })),
        Field::Age => {
            known(process.start_boot_ns.map(|start| Duration(snapshot.boot_ns.saturating_since(start))))
        }
        Field::Comm => process.name(),
        Field::Entry => {
            let entry = match forest.entry(process) {
                Entry::Born => String::new(),
                Entry::Joined { forked_by, parent, process, from } => {
                    from_outside(forked_by, parent, process, from)
                }
                Entry::Unknown => "?".to_owned(),
            };
            let condition = condition(process, snapshot.boot_ns, forest);
            [condition, Some(entry)]
                .into_iter()
                .flatten()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(", ")
        }
    }
}

fn container<'a>(process: &'a SnapshotProcess, snapshot: &'a Snapshot) -> Option<&'a Arc<Container>> {
    process.container.as_ref().or_else(|| snapshot.namespaces.get(&process.ns?)?.container.as_ref())
}

/// "zombie", and for how long where that is known; what a PID 1 that is exiting waits for; why a process is still there whose
/// namespace goes down.
fn condition(process: &SnapshotProcess, now: BootNs, forest: &Forest<'_>) -> Option<String> {
    if process.exiting && process.is_init() {
        let left = process.ns.map(|ns| forest.awaited_by(ns).len()).unwrap_or_default();
        return Some(format!("exiting: waits for {}", Count(left as u64, "process", "processes")));
    }
    if let Some(AwaitedBy { ns, why: Some(why) }) = forest.awaiting(process) {
        return Some(format!("holds up the end of {ns}: {}", short(&why)));
    }
    if process.outlives_first_thread() {
        return Some("its first thread has ended".to_owned());
    }
    if process.frozen {
        return Some("frozen".to_owned());
    }
    let age = |since| format!("zombie for {}", Duration(now.saturating_since(since)));
    process.is_zombie().then(|| process.zombie_since_boot_ns.map_or_else(|| "zombie".to_owned(), age))
}

#[derive(Serialize)]
struct ProcessesDocument<'a> {
    v: u8,
    source: SnapshotSource,
    boot_ns: BootNs,
    processes: Vec<Chosen<ProcessLine<'a>>>,
    unread: Unread,
}

#[derive(Serialize)]
struct ProcessLine<'a> {
    #[serde(flatten)]
    process: Cow<'a, SnapshotProcess>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zombie: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<bool>,
    /// PID at level 0 of the process that forked it, where it came from outside and that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    forked_by: Option<HostPid>,
    /// The end of a namespace that waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    awaited: Option<AwaitedBy>,
}

/// Whether the containers have to be known.
pub fn asks_for_containers(fields: Option<&Fields<Field>>) -> bool {
    fields.is_some_and(|fields| fields.has(Field::Container))
}

/// Whether the paths of cgroups have to be known.
pub fn asks_for_cgroups(fields: Option<&Fields<Field>>) -> bool {
    fields.is_some_and(|fields| fields.has(Field::Cgroup))
}

/// Writes one document.
pub fn json(
    snapshot: &Snapshot,
    forest: &Forest<'_>,
    processes: &[&SnapshotProcess],
    fields: Option<&Fields<Field>>,
    form: JsonForm,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    // Only where it is asked for is the container there: to know it takes a look at a runtime's files.
    let with_container = |process: &'_ SnapshotProcess| SnapshotProcess {
        container: container(process, snapshot).cloned(),
        ..process.clone()
    };
    let lines = processes.iter().map(|process| ProcessLine {
        process: match asks_for_containers(fields) {
            true => Cow::Owned(with_container(process)),
            false => Cow::Borrowed(*process),
        },
        level: process.level(),
        zombie: process.state.map(|_| process.is_zombie()),
        joined: match forest.entry(process) {
            Entry::Born => Some(false),
            Entry::Joined { .. } => Some(true),
            Entry::Unknown => None,
        },
        forked_by: match forest.entry(process) {
            Entry::Joined { forked_by, .. } => forked_by,
            Entry::Born | Entry::Unknown => None,
        },
        awaited: forest.awaiting(process),
    });
    let processes = lines.map(|line| Chosen::of(line, fields)).collect();
    let Snapshot { source, boot_ns, unread, .. } = snapshot;
    document(
        &ProcessesDocument { v: VERSION, source: *source, boot_ns: *boot_ns, processes, unread: *unread },
        form,
        to,
    )
}
