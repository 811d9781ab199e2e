//! `ps`: lists processes with their PIDs.

use std::{borrow::Cow, collections::BTreeMap, io, str::FromStr, sync::Arc};

use serde::Serialize;

use super::{
    JsonForm,
    columns::{self, Cell},
    document,
    fields::{self, Chosen, Fields, fields},
    fit::{Cut, Omit, WidthRule},
    phrases::{Arguments, Duration, from_outside, pids},
    screen::{Paint, Screen},
    teardown::short,
};
use crate::{
    event::VERSION,
    event::container::Container,
    event::identity::{BootNs, HostPid},
    event::snapshot::{Snapshot, SnapshotProcess, SnapshotSource, Unread},
    model::{AwaitedBy, Entry, Forest},
    text::{Count, Name},
};

fields! {
    /// The fields of a process in `ps`.
    pub enum Field, usual [Ns, Level, Pids, State, Age, Comm, Entry], width_rule;
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
    /// Number of its threads.
    Threads "threads" "THR" Right ["threads"],
    /// Its tracer.
    Tracer "tracer" "TRACER" Right ["tracer"],
    /// The container of its own cgroup, or else that of its namespace's PID 1.
    Container "container" "CONTAINER" Left ["container"],
    /// Its cgroup: the path, or else the id.
    Cgroup "cgroup" "CGROUP" Left ["cgroup", "cgroup_id"],
    /// Whether it adopts orphans.
    Subreaper "subreaper" "SUBREAPER" Left ["subreaper"],
    /// How long it has existed.
    Age "age" "AGE" Right ["start_boot_ns"],
    /// How it entered its namespace, and its condition.
    Entry "entry" "ENTRY" Left ["joined", "forked_by", "zombie", "zombie_since_boot_ns", "exiting", "frozen", "freezer", "awaited"],
    /// The name.
    Comm "comm" "COMM" Left ["comm"],
    /// Its command-line arguments.
    Args "args" "ARGS" Left ["args"],
}

fn width_rule(field: Field) -> WidthRule {
    match field {
        Field::Level => WidthRule::fixed(Omit::Early(1)),
        Field::Age => WidthRule::fixed(Omit::Late(1)),
        Field::Ns => WidthRule::fixed(Omit::Late(2)),
        Field::Pids => WidthRule::from(12, 24, Cut::Middle, Omit::Never),
        Field::Comm => WidthRule::from(8, 15, Cut::End, Omit::Never),
        Field::Container => WidthRule::from(10, 16, Cut::End, Omit::Never),
        Field::Cgroup => WidthRule::from(12, 24, Cut::Start, Omit::Never),
        Field::Entry => WidthRule::from(16, 24, Cut::End, Omit::Never),
        Field::Args => WidthRule::from(16, 40, Cut::End, Omit::Never),
        Field::Pid
        | Field::Ppid
        | Field::Uid
        | Field::State
        | Field::Threads
        | Field::Tracer
        | Field::Subreaper => WidthRule::fixed(Omit::Never),
    }
}

/// The arguments of processes, if requested and known. They can contain secrets.
pub type ArgsOf = BTreeMap<HostPid, Vec<Name>>;

/// The processes to list, with related data.
pub struct Listing<'a> {
    /// The snapshot that contains them.
    pub snapshot: &'a Snapshot,
    /// The namespaces.
    pub forest: &'a Forest<'a>,
    /// The processes to list, in order.
    pub processes: Vec<&'a SnapshotProcess>,
    /// Their arguments.
    pub args: ArgsOf,
}

/// The arguments. For a process without any (a kernel thread, a zombie) the name in brackets, as in ps(1).
fn args_text(process: &SnapshotProcess, args: &ArgsOf) -> String {
    match args.get(&process.pid) {
        Some(args) if args.is_empty() => format!("[{}]", process.name()),
        Some(args) => Arguments(args, false).to_string().trim_start().to_owned(),
        None => "?".to_owned(),
    }
}

/// `--sort`: the field, and whether the largest value comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortBy {
    field: Field,
    descends: bool,
}

impl FromStr for SortBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (descends, name) = match text.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        Ok(Self { field: fields::field(name)?, descends })
    }
}

impl SortBy {
    /// Whether it sorts by this field.
    pub fn is_by(self, field: Field) -> bool {
        self.field == field
    }
}

/// A sort key. All keys of a field have the same variant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SortKey {
    Number(u64),
    Numbers(Vec<u32>),
    Text(String),
}

impl Listing<'_> {
    /// Sorts the processes. Those with an unknown value come last; equal values keep their order.
    pub fn sort(&mut self, by: SortBy) {
        let keyed = self.processes.iter().map(|&process| (sort_key(by.field, process, self), process));
        let mut keyed: Vec<_> = keyed.collect();
        keyed.sort_by(|(one, _), (other, _)| match (one, other) {
            (Some(one), Some(other)) if by.descends => other.cmp(one),
            (Some(one), Some(other)) => one.cmp(other),
            (one, other) => one.is_none().cmp(&other.is_none()),
        });
        self.processes = keyed.into_iter().map(|(_, process)| process).collect();
    }
}

fn sort_key(field: Field, process: &SnapshotProcess, listing: &Listing<'_>) -> Option<SortKey> {
    let Listing { snapshot, forest, processes: _, args } = listing;
    let number = |number: u64| SortKey::Number(number);
    match field {
        Field::Pid => Some(number(process.pid.0.into())),
        Field::Pids => Some(SortKey::Numbers(process.pids.clone())),
        Field::Ns => process.ns.map(|ns| number(ns.0.into())),
        Field::Level => process.level().map(|level| number(level.into())),
        Field::Ppid => process.ppid.map(|ppid| number(ppid.0.into())),
        Field::Uid => process.uid.map(|uid| number(uid.into())),
        Field::Threads => process.threads.map(|threads| number(threads.into())),
        Field::Tracer => process.tracer.map(|tracer| number(tracer.0.into())),
        Field::Subreaper => process.subreaper.map(|is_one| number(is_one.into())),
        Field::Age => process.start_boot_ns.map(|start| number(snapshot.boot_ns.saturating_since(start))),
        Field::State => process.state.map(|state| SortKey::Text(state.to_string())),
        Field::Args => args.get(&process.pid).map(|_| SortKey::Text(args_text(process, args))),
        Field::Container | Field::Cgroup | Field::Entry | Field::Comm => {
            Some(SortKey::Text(text(field, process, snapshot, forest, args)))
                .filter(|key| *key != SortKey::Text("?".to_owned()))
        }
    }
}

/// Writes the table of these processes.
pub fn table(
    listing: &Listing<'_>,
    fields: &Fields<Field>,
    headings: bool,
    screen: Screen,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let Listing { snapshot, forest, processes, args } = listing;
    let cell = |field, process| {
        Cell::painted(text(field, process, snapshot, forest, args), paint(field, process, forest))
    };
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

fn text(
    field: Field,
    process: &SnapshotProcess,
    snapshot: &Snapshot,
    forest: &Forest<'_>,
    args: &ArgsOf,
) -> String {
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
        Field::Args => args_text(process, args),
        Field::Entry => {
            let entry = match forest.entry(process) {
                Entry::Born => String::new(),
                Entry::Joined { forked_by, parent, origin } => from_outside(forked_by, parent, origin),
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

/// A description of an unusual state: a zombie and its age, what an exiting PID 1 waits for, or why a member of a dying
/// namespace has not ended.
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
    /// PID at level 0 of the process that forked it, if it came from outside and the fork was reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    forked_by: Option<HostPid>,
    /// The dying namespace whose end waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    awaited: Option<AwaitedBy>,
    /// Its command-line arguments, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<&'a [Name]>,
}

/// Whether the containers are needed.
pub fn asks_for_containers(fields: Option<&Fields<Field>>) -> bool {
    fields.is_some_and(|fields| fields.has(Field::Container))
}

/// Whether the paths of cgroups are needed.
pub fn asks_for_cgroups(fields: Option<&Fields<Field>>) -> bool {
    fields.is_some_and(|fields| fields.has(Field::Cgroup))
}

/// Writes one document.
pub fn json(
    listing: &Listing<'_>,
    fields: Option<&Fields<Field>>,
    form: JsonForm,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let Listing { snapshot, forest, processes, args } = listing;
    let wants_args = fields.is_some_and(|fields| fields.has(Field::Args));
    // The container is added only on request, because finding it means reading a runtime's files.
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
        // The arguments may be known only for sorting.
        args: args.get(&process.pid).filter(|_| wants_args).map(Vec::as_slice),
    });
    let processes = lines.map(|line| Chosen::of(line, fields)).collect();
    let Snapshot { source, boot_ns, unread, .. } = snapshot;
    document(
        &ProcessesDocument { v: VERSION, source: *source, boot_ns: *boot_ns, processes, unread: *unread },
        form,
        to,
    )
}
