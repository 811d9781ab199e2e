mod ends;
mod leftovers;
mod limits;
mod watch;
mod zombies;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    readings::{Holders, LimitChain, ProcShows, Reader, Readings, Wanted},
    *,
};
use crate::{
    event::{
        Body, Cause, Event, Exit, INITIAL_NS, Namespace, Process, ReachedLimit, StreamFilter,
        container::{Container, Runtime},
        finding::{BlockedBy, Diagnosis, Fact, FindingState, Severity},
        identity::{BootNs, HostPid, NsInum},
        snapshot::Holder,
    },
    model::{Recent, World},
    pipeline::{Consumer, Update},
    procfs::doing::Doing,
};

const NS: NsInum = NsInum(4026532001);
/// The process that created the namespace, and the runtime's shim, both of the host.
const CREATOR: u32 = 50;
const INIT: u32 = 100;

fn seconds(seconds: f64) -> BootNs {
    BootNs((seconds * 1e9) as u64)
}

fn process(pids: &[u32], ppid: u32) -> Process {
    Process {
        pid: HostPid(pids[0]),
        pids: pids.to_vec(),
        comm: if pids.last() == Some(&1) { "init".into() } else { "sh".into() },
        start_boot_ns: BootNs(u64::from(pids[0])),
        ppid: Some(HostPid(ppid)),
        uid: 0,
        ns: if pids.len() > 1 { NS } else { INITIAL_NS },
        container: None,
    }
}

fn ns(inum: NsInum, level: u32) -> Namespace {
    Namespace {
        inum,
        level,
        parent: Some(INITIAL_NS),
        born_boot_ns: Some(BootNs(1)),
        kernel_id: None,
        user_ns: 4026531837,
        owner_uid: 0,
        container: None,
    }
}

fn fork(process: Process, parent: Process) -> Body {
    let crosses = process.ns != parent.ns;
    Body::ProcessFork { process, parent, crosses, restored: false }
}

fn exit(process: Process) -> Body {
    let exit = Exit::Code { code: 0 };
    Body::ProcessExit { process, exit, ran_ns: 1, threads: None, cause: None, cascade: None, orphaned: false }
}

fn reap(process: Process) -> Body {
    Body::ProcessReap { process, zombie_ns: None }
}

fn init_exit(exit: Exit, cause: Cause) -> Body {
    Body::NamespaceInitExit { ns: ns(NS, 1), process: process(&[INIT, 1], CREATOR), exit, cause, members: 2 }
}

fn killed_by(pid: u32) -> Body {
    let sender = Some(process(&[pid], 1));
    init_exit(
        Exit::Signal { signal: "SIGKILL".to_owned(), core: false },
        Cause::Signal { signal: "SIGKILL".to_owned(), sender },
    )
}

fn refused(process: Process, reason: &'static str, limit: Option<ReachedLimit>) -> Body {
    let errno = "EAGAIN".to_owned();
    Body::ForkFailed {
        process,
        ns: Some(ns(NS, 1)),
        errno,
        reason: reason.into(),
        thread: false,
        limit,
        set_tid: Vec::new(),
        taken: None,
        holder: None,
        capability: None,
        user_ns: None,
    }
}

/// A stream with these hooks and events.
fn stream_start(hooks: BTreeMap<String, String>, events: &[&'static str]) -> Body {
    let events = events.iter().map(|&event| event.into()).collect();
    Body::StreamStart {
        version: "0".into(),
        host: None,
        kernel: None,
        boot_time: String::new(),
        hooks,
        hooked_boot_ns: None,
        filter: StreamFilter { events, ..StreamFilter::default() },
    }
}

/// Events, and the findings at a moment.
struct Story {
    world: World,
    recent: Recent,
    readings: Readings,
    can_read: bool,
    thresholds: Thresholds,
    asked: BTreeSet<NsInum>,
}

impl Story {
    /// A machine with one namespace, that [`CREATOR`] made, whose PID 1 is [`INIT`].
    fn new() -> Self {
        let mut story = Self {
            world: World::default(),
            recent: Recent::default(),
            readings: Readings::default(),
            can_read: false,
            thresholds: Thresholds::default(),
            asked: BTreeSet::new(),
        };
        let hooks = BTreeMap::from([("proc_free_inum".to_owned(), "fentry".to_owned())]);
        story.add(0.0, stream_start(hooks, &["process.reap", "namespace.destroy"]));
        story.add(1.0, fork(process(&[CREATOR], 1), process(&[1], 0)));
        let creator = process(&[CREATOR], 1);
        story.add(
            2.0,
            Body::NamespaceCreate { ns: ns(NS, 1), via: Some("clone".into()), creator: creator.clone() },
        );
        story.add(2.0, Body::NamespaceInit { ns: ns(NS, 1), process: process(&[INIT, 1], CREATOR) });
        story.add(2.0, fork(process(&[INIT, 1], CREATOR), creator));
        story
    }

    fn add(&mut self, at: f64, body: Body) -> &mut Self {
        let event = Event { seq: 1, time: Timestamp::UNIX_EPOCH, boot_ns: seconds(at), exact: true, body };
        let changes = self.world.apply(&event);
        self.recent.update(&event, &changes, &self.world);
        self
    }

    fn found(&self, at: f64) -> Vec<Finding> {
        let open = BTreeSet::new();
        let scene = Scene {
            world: &self.world,
            recent: &self.recent,
            readings: &self.readings,
            thresholds: &self.thresholds,
            now: seconds(at),
            can_read: self.can_read,
            at_once: false,
            open: &open,
            asked: &self.asked,
            snapshot: OnceCell::new(),
        };
        find(&scene)
    }

    fn ids(&self, at: f64) -> Vec<Diagnosis> {
        self.found(at).iter().map(|finding| finding.id).collect()
    }

    /// The one finding that there is.
    fn the(&self, at: f64) -> Finding {
        let mut found = self.found(at);
        assert_eq!(found.len(), 1, "{found:#?}");
        found.remove(0)
    }
}

/// A child of the init forks one, and ends: the grandchild is the init's, and ends at this time.
fn orphan(story: &mut Story, number: u32, at: f64) {
    let child = process(&[INIT + 2 * number, 2 * number], INIT);
    let grandchild = process(&[INIT + 2 * number + 1, 2 * number + 1], INIT + 2 * number);
    story.add(at, fork(child.clone(), process(&[INIT, 1], CREATOR)));
    story.add(at, fork(grandchild.clone(), child.clone()));
    story.add(at, exit(child.clone())).add(at, reap(child));
    story.add(at, exit(Process { ppid: Some(HostPid(INIT)), ..grandchild }));
}

fn limit(kind: &'static str, current: u64, value: u64) -> ReachedLimit {
    let (cgroup, cgroup_id, uid, ns, user_ns) = (None, None, None, None, None);
    ReachedLimit {
        kind: kind.into(),
        value: Some(value),
        current: Some(current),
        cgroup,
        cgroup_id,
        uid,
        ns,
        user_ns,
    }
}
