//! `tree`: shows the forest of namespaces.

use std::{collections::BTreeMap, io};

use serde::Serialize;

use super::{
    JsonForm,
    columns::{self, Cell},
    document,
    fields::{Chosen, Fields, fields},
    fit::{Cut, Omit, WidthRule},
    phrases::{Duration, who},
    screen::{Paint, Screen},
    teardown::brief,
};
use crate::{
    event::container::Container,
    event::finding::{Finding, Severity},
    event::identity::{BootNs, HostPid, NsInum},
    event::snapshot::{
        Holder, ProcMount, Snapshot, SnapshotNamespace, SnapshotProcess, SnapshotSource, Unnamed, Unread,
    },
    event::{INITIAL_NS, VERSION, objects::is_zero},
    model::{Awaited, Entry, Forest, Node},
    text::or_unknown,
    text::{Count, Name},
};

/// Maximum number of holders, and of joined processes, that a line of the table lists. It shows the number of the
/// others. JSON lists more of them.
pub const NAMED: usize = 3;

fields! {
    /// The fields of a namespace in `tree`.
    pub enum Field, usual [Ns, Container, Init, Processes, Up, Detail], width_rule;
    /// Its inode number, below its parent's.
    Ns "ns" "NAMESPACE" Left ["ns"],
    /// The container of its PID 1.
    Container "container" "CONTAINER" Left ["ns"],
    /// The image of that container.
    Image "image" "IMAGE" Left ["ns"],
    /// The pod that it belongs to.
    Pod "pod" "POD" Left ["ns"],
    /// Its PID 1.
    Init "init" "PID 1" Left ["init"],
    /// Number of its processes.
    Processes "processes" "PROCS" Right ["processes"],
    /// Number of its zombies.
    Zombies "zombies" "ZOMBIES" Right ["zombies"],
    /// How long it has had an init.
    Up "up" "UP" Right ["ns"],
    /// Its level.
    Level "level" "LVL" Right ["ns"],
    /// Its parent.
    Parent "parent" "PARENT" Right ["ns"],
    /// Owner of its user namespace.
    Owner "owner" "OWNER" Right ["ns"],
    /// Findings, zombies, other containers, joined processes, and the holders of an empty namespace.
    Detail "detail" "DETAIL" Left
        ["findings", "zombies", "other_containers", "joined", "waits_for", "holders", "holders_left_out"],
    /// Findings about it.
    Findings "findings" "FINDINGS" Left ["findings"],
    /// Number of its child namespaces.
    Children "children" "CHILDREN" Right ["children"],
}

/// Whether these fields show findings.
pub fn asks_for_findings(fields: Option<&Fields<Field>>) -> bool {
    fields.is_none_or(|fields| fields.has(Field::Detail) || fields.has(Field::Findings))
}

/// The data to show.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The processes and namespaces.
    pub snapshot: &'a Snapshot,
    /// The same, as a forest.
    pub forest: &'a Forest<'a>,
    /// The findings.
    pub findings: &'a [Finding],
    /// The namespaces to show, with those nested in them; `None`: all.
    pub roots: Option<&'a [NsInum]>,
}

/// Findings by their namespace, or else by the namespace of their process.
struct Marks<'a>(BTreeMap<NsInum, Vec<&'a Finding>>);

impl<'a> Marks<'a> {
    fn of(findings: &'a [Finding]) -> Self {
        let mut marks = BTreeMap::<_, Vec<_>>::new();
        for finding in findings {
            let ns = finding.ns.as_ref().map(|ns| ns.inum);
            if let Some(inum) = ns.or(finding.process.as_ref().map(|process| process.ns)) {
                marks.entry(inum).or_default().push(finding);
            }
        }
        Self(marks)
    }

    /// Findings about this namespace, without those about an earlier one with the same number.
    fn at(&self, ns: &SnapshotNamespace) -> impl Iterator<Item = &'a Finding> {
        let all = self.0.get(&ns.inum).into_iter().flatten().copied();
        all.filter(|finding| !finding.cannot_be_about(ns))
    }

    /// The names of a namespace's findings, each once.
    fn names(&self, ns: &SnapshotNamespace) -> Vec<&'static str> {
        let mut names: Vec<_> = self.at(ns).map(|finding| finding.id.id()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn width_rule(field: Field) -> WidthRule {
    match field {
        Field::Up => WidthRule::fixed(Omit::Late(1)),
        Field::Processes => WidthRule::fixed(Omit::Late(2)),
        // Room for the inode number and at least the last branch of the tree before it.
        Field::Ns => WidthRule::from(13, 24, Cut::Start, Omit::Never),
        Field::Container => WidthRule::from(10, 16, Cut::End, Omit::Never),
        Field::Image => WidthRule::from(10, 24, Cut::End, Omit::Never),
        Field::Pod => WidthRule::from(10, 24, Cut::End, Omit::Never),
        Field::Init => WidthRule::from(10, 16, Cut::End, Omit::Never),
        Field::Detail | Field::Findings => WidthRule::from(14, 24, Cut::End, Omit::Never),
        Field::Zombies | Field::Level | Field::Parent | Field::Owner | Field::Children => {
            WidthRule::fixed(Omit::Never)
        }
    }
}

/// Writes the table of these namespaces.
pub fn table(
    shown: Shown<'_>,
    fields: &Fields<Field>,
    headings: bool,
    screen: Screen,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let Shown { snapshot, forest, findings, roots } = shown;
    let marks = Marks::of(findings);
    let walk = forest.walk(roots);
    let mut rows = Vec::with_capacity(walk.len());
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for (index, (depth, node)) in walk.iter().enumerate() {
        let ns = node.namespace;
        let text = |field| match field {
            Field::Ns => format!("{}{}", branch(&walk, index, *depth), ns.inum),
            Field::Container => match &ns.container {
                Some(container) => container.label().for_terminal().to_string(),
                None if ns.inum == INITIAL_NS => "host".to_owned(),
                None => "-".to_owned(),
            },
            Field::Image => {
                or_dash(ns.container.as_ref().and_then(|container| container.image.as_ref()).map(named))
            }
            Field::Pod => or_dash(ns.container.as_deref().and_then(pod)),
            Field::Init => node.init().map_or_else(|| "-".to_owned(), who),
            Field::Processes => node.members.len().to_string(),
            Field::Zombies => node.zombies().to_string(),
            Field::Up => ns.born_boot_ns.map_or_else(
                || "-".to_owned(),
                |born| Duration(snapshot.boot_ns.saturating_since(born)).to_string(),
            ),
            Field::Level => ns.level.to_string(),
            Field::Parent => or_dash(ns.parent.map(|parent| parent.to_string())),
            Field::Owner => ns.owner_uid.map_or_else(|| "?".to_owned(), |uid| uid.to_string()),
            Field::Detail => detail(forest, node, &marks, snapshot.unread.namespaces > 0),
            Field::Findings => {
                let names = marks.names(ns);
                if names.is_empty() { "-".to_owned() } else { names.join(", ") }
            }
            Field::Children => node.children.len().to_string(),
        };
        let cell = |field| Cell::painted(text(field), paint(field, forest, &marks, node));
        rows.push(fields.row(cell));
    }
    columns::write(&fields.columns(), &rows, headings, screen, to)
}

fn paint(field: Field, forest: &Forest<'_>, marks: &Marks<'_>, node: &Node<'_>) -> Paint {
    let inum = node.namespace.inum;
    let is_dying = forest.ends_with(inum).is_some();
    let worst = || marks.at(node.namespace).map(|finding| finding.severity).max();
    match field {
        Field::Detail | Field::Findings if worst() == Some(Severity::Critical) => Paint::Red,
        Field::Detail | Field::Findings if worst() == Some(Severity::Warning) => Paint::Yellow,
        Field::Detail if is_dying => Paint::Red,
        Field::Detail if node.members.is_empty() || node.zombies() > 0 => Paint::Yellow,
        Field::Zombies if node.zombies() > 0 => Paint::Yellow,
        Field::Ns if is_dying => Paint::Red,
        _ => Paint::None,
    }
}

fn named(name: &Name) -> String {
    name.for_terminal().to_string()
}

/// "default/api-7f": a container's pod, with its Kubernetes namespace if known.
fn pod(container: &Container) -> Option<String> {
    let pod = named(container.pod.as_ref()?);
    Some(match &container.pod_namespace {
        Some(namespace) => format!("{}/{pod}", named(namespace)),
        None => pod,
    })
}

/// "│ └─": draws a line for each level at which a sibling follows.
fn branch(walk: &[(u32, &Node<'_>)], index: usize, depth: u32) -> String {
    let goes_on = |level: u32| {
        walk[index + 1..].iter().find(|(depth, _)| *depth <= level).is_some_and(|(depth, _)| *depth == level)
    };
    let mut text = String::new();
    for level in 1..=depth {
        text.push_str(match (goes_on(level), level == depth) {
            (true, true) => "├─",
            (false, true) => "└─",
            (true, false) => "│ ",
            (false, false) => "  ",
        });
    }
    text
}

/// `hidden`: the namespaces of some processes cannot be read.
fn detail(forest: &Forest<'_>, node: &Node<'_>, marks: &Marks<'_>, hidden: bool) -> String {
    let ns = node.namespace.inum;
    let mut parts: Vec<String> = marks.names(node.namespace).iter().map(|name| format!("!{name}")).collect();
    match forest.ends_with(ns) {
        Some(ending) if ending == ns => {
            let awaited = forest.awaited_by(ns).iter().map(brief).collect::<Vec<_>>();
            parts.push(some("dying: waits for", &awaited, 0).unwrap_or_else(|| "dying".to_owned()));
        }
        Some(outer) => parts.push(format!("dying with {outer}")),
        None => {}
    }
    let zombies = node.zombies() as u64;
    if zombies > 0 {
        parts.push(Count(zombies, "zombie", "zombies").to_string());
    }
    let others: Vec<String> = node
        .other_containers()
        .iter()
        .map(|(container, members)| format!("{} ({})", container.label().for_terminal(), members.len()))
        .collect();
    parts.extend(some("also", &others, 0));
    let joined = node.members.iter().filter_map(|process| match forest.entry(process) {
        Entry::Joined { forked_by: Some(forker), origin, .. } => {
            let comm = origin.and_then(|origin| origin.comm);
            Some(format!("{} from {}[{forker}]", who(process), or_unknown(comm)))
        }
        _ => None,
    });
    parts.extend(some("joined", &joined.collect::<Vec<_>>(), 0));
    let outside = node.members.iter().filter_map(|process| match forest.entry(process) {
        Entry::Joined { forked_by: None, parent, origin } => {
            let comm = origin.and_then(|origin| origin.comm);
            let parent =
                parent.map(|parent| format!(" ({}[{parent}])", or_unknown(comm))).unwrap_or_default();
            Some(format!("{}{parent}", who(process)))
        }
        _ => None,
    });
    parts.extend(some("parent outside:", &outside.collect::<Vec<_>>(), 0));
    if node.members.is_empty() {
        let held = node.holders.iter().map(|holder| held_by(holder)).collect::<Vec<_>>();
        let held = some("held by", &held, node.holders_left_out as usize);
        parts.push(held.unwrap_or_else(|| "held by an unknown holder".to_owned()));
        if hidden {
            parts.push("or has processes that cannot be read".to_owned());
        }
    }
    parts.join("; ")
}

/// `left_out`: number of further items that are not in `all`.
fn some(what: &str, all: &[String], left_out: usize) -> Option<String> {
    let named = all.get(..NAMED.min(all.len()))?;
    match (named, (all.len() - named.len()).saturating_add(left_out)) {
        ([], 0) => None,
        ([], more) => Some(format!("{what} {more} that are not listed")),
        (named, 0) => Some(format!("{what} {}", named.join(", "))),
        (named, more) => Some(format!("{what} {} and {more} more", named.join(", "))),
    }
}

pub(super) fn held_by(holder: &Holder) -> String {
    match holder {
        Holder::Fd { pid, comm, fd, tid: None } => format!("{}[{pid}] fd {fd}", or_unknown(comm.as_ref())),
        Holder::Fd { pid, comm, fd, tid: Some(tid) } => {
            format!("{}[{pid}] fd {fd} of thread {tid}", or_unknown(comm.as_ref()))
        }
        Holder::PidForChildren { pid, comm } => {
            format!("{}[{pid}], whose children start there", or_unknown(comm.as_ref()))
        }
        Holder::Mount { path, mount_ns, pid } => {
            format!("a mount at {} (mount namespace {mount_ns}, as seen by PID {pid})", path.for_terminal())
        }
        Holder::ProcMount(mount) => format!("a proc at {}", place(mount)),
        Holder::Child { ns } => format!("namespace {ns} in it"),
    }
}

/// A mount point, for people.
pub fn place(mount: &ProcMount) -> String {
    let ProcMount { path, mount_ns, pid } = mount;
    format!("{} (mount namespace {mount_ns}, as seen by PID {pid})", path.for_terminal())
}

#[derive(Serialize)]
struct ForestDocument<'a> {
    v: u8,
    source: SnapshotSource,
    boot_ns: BootNs,
    namespaces: Vec<Chosen<NamespaceLine<'a>>>,
    unread: Unread,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unnamed_proc_mounts: &'a [Unnamed],
}

#[derive(Serialize)]
struct NamespaceLine<'a> {
    ns: &'a SnapshotNamespace,
    children: &'a [NsInum],
    processes: usize,
    zombies: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<&'a SnapshotProcess>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_containers: Vec<OtherContainer<'a>>,
    joined: Vec<Joined<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waits_for: Vec<Awaited>,
    holders: &'a [&'a Holder],
    #[serde(skip_serializing_if = "is_zero")]
    holders_left_out: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<&'a Finding>,
}

/// A container whose processes share the namespace.
#[derive(Serialize)]
struct OtherContainer<'a> {
    container: &'a Container,
    processes: usize,
}

#[derive(Serialize)]
struct Joined<'a> {
    process: &'a SnapshotProcess,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<HostPid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forked_by: Option<HostPid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<NsInum>,
}

/// Writes one document.
pub fn json(
    shown: Shown<'_>,
    fields: Option<&Fields<Field>>,
    form: JsonForm,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    let Shown { snapshot, forest, findings, roots } = shown;
    let marks = Marks::of(findings);
    let walk = forest.walk(roots);
    let joined = |process: &&'_ SnapshotProcess| match forest.entry(process) {
        Entry::Joined { forked_by, parent, origin } => {
            Some((forked_by, parent, origin.and_then(|origin| origin.ns)))
        }
        Entry::Born | Entry::Unknown => None,
    };
    let lines = walk.iter().map(|entry| NamespaceLine {
        ns: entry.1.namespace,
        children: &entry.1.children,
        processes: entry.1.members.len(),
        zombies: entry.1.zombies(),
        init: entry.1.init(),
        other_containers: entry
            .1
            .other_containers()
            .into_iter()
            .map(|(container, members)| OtherContainer { container, processes: members.len() })
            .collect(),
        joined: entry
            .1
            .members
            .iter()
            .filter_map(|process| {
                let (forked_by, parent, from) = joined(process)?;
                Some(Joined { process, parent, forked_by, from })
            })
            .collect(),
        waits_for: forest.awaited_by(entry.1.namespace.inum),
        holders: &entry.1.holders,
        holders_left_out: entry.1.holders_left_out,
        findings: marks.at(entry.1.namespace).collect(),
    });
    let Snapshot { source, boot_ns, unread, unnamed, .. } = snapshot;
    let namespaces = lines.map(|line| Chosen::of(line, fields)).collect();
    document(
        &ForestDocument {
            v: VERSION,
            source: *source,
            boot_ns: *boot_ns,
            namespaces,
            unread: *unread,
            unnamed_proc_mounts: unnamed,
        },
        form,
        to,
    )
}
