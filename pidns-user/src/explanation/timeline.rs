//! History of one namespace or process in a stream, in bounded memory.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::{Serialize, Serializer, ser::SerializeSeq as _};

use crate::{
    event::finding::Evidence,
    event::identity::{BootNs, ProcessKey, TICK_NS},
    event::snapshot::SnapshotNamespace,
    event::{Body, Cause, Event, Namespace, Process},
};

/// Number of first events that are kept.
pub const FIRST_LINES: usize = 100;
/// Number of last events that are kept. Events in between are only counted.
pub const LAST_LINES: usize = 100;

/// The namespace or process that a history is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A namespace.
    Namespace {
        /// The namespace.
        ns: SnapshotNamespace,
        /// When it was gone.
        gone: Option<BootNs>,
    },
    /// A process.
    Process {
        /// The process.
        key: ProcessKey,
        /// When it was gone.
        gone: Option<BootNs>,
    },
}

/// Counts of frequent events, which are not listed one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Processes born in the namespace, or forked by the process.
    pub forks: u64,
    /// Processes of the namespace that ended.
    pub exits: u64,
    /// How many of these the kernel killed after the namespace's PID 1 had ended.
    pub killed: u64,
    /// Processes of the namespace that were reaped.
    pub reaps: u64,
}

/// The history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Timeline {
    #[serde(skip)]
    subject: Subject,
    /// Start of the recording, on both clocks.
    #[serde(rename = "begins_boot_ns", serialize_with = "boot_ns", skip_serializing_if = "Option::is_none")]
    pub begins: Option<(BootNs, Timestamp)>,
    /// Whether the subject is older than the recording. Its earlier history is then unknown.
    pub was_there: bool,
    /// For a namespace: start of its init, if an event reported it.
    #[serde(skip)]
    init_start_boot_ns: Option<BootNs>,
    /// Events that are only counted.
    pub counts: Counts,
    /// For a namespace: the processes that held up its teardown, by the findings about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held_up_by: Vec<Evidence>,
    /// The event of its end: for a namespace the exit of its init, for a process its exit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Event>,
    /// The first events, up to [`FIRST_LINES`], followed by the last, up to [`LAST_LINES`].
    pub events: Kept,
    /// Number of events omitted between these.
    pub left_out: u64,
}

/// The kept events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The first events.
    pub first: Vec<Event>,
    /// The last events, after the omitted ones.
    pub last: VecDeque<Event>,
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.first.len() + self.last.len()))?;
        for event in self.first.iter().chain(&self.last) {
            list.serialize_element(event)?;
        }
        list.end()
    }
}

fn boot_ns<S: Serializer>(begins: &Option<(BootNs, Timestamp)>, serializer: S) -> Result<S::Ok, S::Error> {
    begins.map(|(boot_ns, _)| boot_ns).serialize(serializer)
}

impl Timeline {
    /// Starts an empty history.
    pub fn new(subject: Subject) -> Self {
        Self {
            subject,
            begins: None,
            was_there: false,
            init_start_boot_ns: None,
            counts: Counts::default(),
            held_up_by: Vec::new(),
            end: None,
            events: Kept::default(),
            left_out: 0,
        }
    }

    /// Records the event if it is about the subject.
    pub fn follow(&mut self, event: &Event) {
        if self.begins.is_none() {
            self.begins = Some((event.boot_ns, event.time));
            self.was_there = match &self.subject {
                Subject::Namespace { ns, .. } => ns.born_boot_ns.is_some_and(|born| born < event.boot_ns),
                Subject::Process { key, .. } => key.start < event.boot_ns,
            };
        }
        let subject = self.subject.clone();
        let is_shown = match &subject {
            Subject::Namespace { ns, gone } => self.about_namespace(event, ns, *gone),
            Subject::Process { key, gone } => self.about_process(event, *key, *gone),
        };
        if is_shown {
            self.keep(event);
        }
    }

    fn keep(&mut self, event: &Event) {
        if self.events.first.len() < FIRST_LINES {
            self.events.first.push(event.clone());
            return;
        }
        self.events.last.push_back(event.clone());
        if self.events.last.len() > LAST_LINES {
            self.events.last.pop_front();
            self.left_out += 1;
        }
    }

    /// Counts the event if it is about a member. Returns whether to show it.
    fn about_namespace(&mut self, event: &Event, known: &SnapshotNamespace, gone: Option<BootNs>) -> bool {
        if let Body::NamespaceInit { ns, process } = &event.body
            && is_same(ns, known, self.init_start_boot_ns, event.boot_ns, gone)
        {
            self.init_start_boot_ns = Some(process.start_boot_ns);
        }
        let init_start = self.init_start_boot_ns;
        let is = |ns: &Namespace| is_same(ns, known, init_start, event.boot_ns, gone);
        // If the creation is reported at the return of a call, the init may have started and forked long before that.
        let begun =
            known.born_boot_ns.map(|born| self.init_start_boot_ns.map_or(born, |start| start.min(born)));
        let member =
            |process: &Process| process.ns == known.inum && is_within(process.start_boot_ns, begun, gone);
        let within = known.born_boot_ns.is_none_or(|born| born <= event.boot_ns)
            && gone.is_none_or(|gone| event.boot_ns <= gone);
        match &event.body {
            Body::SnapshotNamespace { ns, .. } => {
                // A snapshot has no birth for a namespace without an init.
                self.was_there |= known.born_boot_ns.is_none() && ns.inum == known.inum;
                false
            }
            Body::NamespaceCreate { ns, .. } => is(ns) || (ns.parent == Some(known.inum) && within),
            Body::NamespaceCreateFailed { creator, .. } => member(creator),
            Body::NamespaceInitExit { ns, .. } => {
                if is(ns) {
                    self.end = Some(event.clone());
                }
                is(ns)
            }
            Body::NamespaceInit { ns, .. }
            | Body::NamespaceJoin { ns, .. }
            | Body::NamespaceTeardown { ns, .. }
            | Body::NamespaceDestroy { ns, .. }
            | Body::InitSignal { ns, .. } => is(ns),
            Body::NamespaceJoinFailed { ns, .. } | Body::ForkFailed { ns, .. } => ns.as_ref().is_some_and(is),
            Body::ProcessFork { process, crosses, .. } => {
                let is_born = member(process);
                self.counts.forks += u64::from(is_born);
                is_born && *crosses && !process.is_init()
            }
            Body::ProcessExit { process, cascade, .. } => {
                let is_member = member(process);
                self.counts.exits += u64::from(is_member);
                self.counts.killed += u64::from(is_member && cascade.is_some());
                false
            }
            Body::ProcessReap { process, .. } => {
                self.counts.reaps += u64::from(member(process));
                false
            }
            Body::Finding { finding, .. } => {
                let is_of =
                    finding.ns.as_ref().is_some_and(|ns| ns.inum == known.inum && !ns.differs_from(known));
                if is_of {
                    finding.add_blockers(&mut self.held_up_by);
                }
                within && is_of
            }
            Body::StreamLost { .. } | Body::StreamResync { .. } => within,
            Body::StreamStart { .. }
            | Body::StreamEnd { .. }
            | Body::SnapshotProcess { .. }
            | Body::ProcessExec { .. } => false,
        }
    }

    fn about_process(&mut self, event: &Event, key: ProcessKey, gone: Option<BootNs>) -> bool {
        let is = |process: &Process| process.key() == key;
        match &event.body {
            Body::NamespaceCreate { creator, .. } | Body::NamespaceCreateFailed { creator, .. } => {
                is(creator)
            }
            Body::NamespaceInitExit { process, cause, .. } => {
                is(process)
                    || match cause {
                        Cause::Signal { sender: Some(other), .. }
                        | Cause::ParentDeath { parent: other, .. }
                        | Cause::Oom { victim: other } => is(other),
                        Cause::Signal { sender: None, .. }
                        | Cause::Exited
                        | Cause::Cascade { .. }
                        | Cause::Reboot { .. }
                        | Cause::Fault { .. }
                        | Cause::Unknown => false,
                    }
            }
            Body::InitSignal { process, sender, .. } => is(process) || sender.as_ref().is_some_and(is),
            Body::ProcessFork { process, parent, .. } => {
                self.counts.forks += u64::from(is(parent));
                is(process)
            }
            Body::ProcessExit { process, .. } => {
                if is(process) {
                    self.end = Some(event.clone());
                }
                is(process)
            }
            Body::NamespaceInit { process, .. }
            | Body::NamespaceJoin { process, .. }
            | Body::NamespaceJoinFailed { process, .. }
            | Body::ProcessExec { process, .. }
            | Body::ProcessReap { process, .. }
            | Body::ForkFailed { process, .. } => is(process),
            Body::Finding { finding, .. } => {
                let facts = finding.evidence.iter().flat_map(|evidence| evidence.fact.processes());
                facts.chain(&finding.process).any(is)
            }
            Body::StreamLost { .. } | Body::StreamResync { .. } => {
                key.start <= event.boot_ns && gone.is_none_or(|gone| event.boot_ns <= gone)
            }
            Body::StreamStart { .. }
            | Body::StreamEnd { .. }
            | Body::SnapshotNamespace { .. }
            | Body::SnapshotProcess { .. }
            | Body::NamespaceTeardown { .. }
            | Body::NamespaceDestroy { .. } => false,
        }
    }
}

/// Whether an event's namespace is this one. Other namespaces may have had the inode number before or afterwards.
fn is_same(
    ns: &Namespace,
    known: &SnapshotNamespace,
    init_start: Option<BootNs>,
    at: BootNs,
    gone: Option<BootNs>,
) -> bool {
    if ns.inum != known.inum {
        return false;
    }
    if let (Some(given), Some(known)) = (ns.kernel_id, known.kernel_id) {
        return given == known;
    }
    // `born_boot_ns` is the start of the init if no hook saw the creation.
    let mut births = [known.born_boot_ns, init_start].into_iter().flatten().peekable();
    let is_one = births.peek().is_none()
        || ns.born_boot_ns.is_none_or(|given| births.any(|birth| birth.is_same(given)));
    is_one
        && known.born_boot_ns.is_none_or(|born| born.saturating_sub(TICK_NS) <= at)
        && gone.is_none_or(|gone| at <= gone)
}

/// Whether a process with this start time was born while the namespace existed.
fn is_within(start: BootNs, begun: Option<BootNs>, gone: Option<BootNs>) -> bool {
    begun.is_none_or(|begun| begun.saturating_sub(TICK_NS) <= start) && gone.is_none_or(|gone| start <= gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::NsInum;

    fn namespace_born(born: u64) -> Namespace {
        Namespace {
            inum: NsInum(200),
            level: 1,
            parent: Some(NsInum(100)),
            born_boot_ns: Some(BootNs(born)),
            kernel_id: None,
            user_ns: 1,
            owner_uid: 0,
            container: None,
        }
    }

    fn event(boot_ns: u64, body: Body) -> Event {
        Event { seq: 1, time: Timestamp::UNIX_EPOCH, boot_ns: BootNs(boot_ns), exact: true, body }
    }

    fn teardown(ns: &Namespace) -> Body {
        Body::NamespaceTeardown { ns: ns.clone(), killed: 0, nested: Vec::new(), duration_ns: 1 }
    }

    /// Before 6.18 only the birth distinguishes namespaces with the same number, and the end of a namespace may be
    /// unreported.
    #[test]
    fn events_of_a_later_namespace_with_the_same_number_are_not_in_the_history() {
        let known =
            SnapshotNamespace { born_boot_ns: Some(BootNs(50)), ..SnapshotNamespace::bare(NsInum(200), 1) };
        let mut history = Timeline::new(Subject::Namespace { ns: known, gone: None });
        for (at, born) in [(60, 50), (90, 80), (95, 30)] {
            history.follow(&event(at, teardown(&namespace_born(born))));
        }
        let times: Vec<BootNs> = history.events.first.iter().map(|event| event.boot_ns).collect();
        assert_eq!(times, [BootNs(60)]);
    }
}
