mod ends;
mod leftovers;
mod limits;
mod reuse;
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
    readings::{Holders, LimitChain, ProcShows, ReadRequest, Reader, Readings},
    *,
};
use crate::{
    event::{
        Body, Cause, Event, Exit, INITIAL_NS, Namespace, Process, ReachedLimit, StreamFilter,
        container::{Container, Runtime},
        finding::{BlockedBy, Diagnosis, Evidence, Fact, FindingState, NameCount, Severity},
        identity::{BootNs, HostPid, NsInum},
        snapshot::{Holder, PidMax, ProcMount, SnapshotNamespace},
    },
    model::{Recent, World},
    pipeline::{Consumer, Update},
    procfs::activity::ProcessActivity,
};

const NS: NsInum = NsInum(4026532001);
/// The process that created the namespace and acts as the runtime's shim. It is in the host's namespace.
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

fn oom_killed(process: Process) -> Body {
    let exit = Exit::Signal { signal: "SIGKILL".to_owned(), core: false };
    let cause = Some(Cause::Oom { victim: process.clone() });
    Body::ProcessExit { process, exit, ran_ns: 1, threads: None, cause, cascade: None, orphaned: false }
}

fn reap(process: Process) -> Body {
    Body::ProcessReap { process, zombie_ns: None }
}

fn init_exit_event(exit: Exit, cause: Cause) -> Body {
    Body::NamespaceInitExit { ns: ns(NS, 1), process: process(&[INIT, 1], CREATOR), exit, cause, members: 2 }
}

fn killed_by(pid: u32) -> Body {
    let sender = Some(process(&[pid], 1));
    init_exit_event(
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

/// The start of a stream with these hooks and events.
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

/// Applies events to a model, and computes the findings at a given time.
struct TestHost {
    world: World,
    recent: Recent,
    readings: Readings,
    has_reader: bool,
    thresholds: Thresholds,
    targets: BTreeSet<NsInum>,
}

impl TestHost {
    /// A host with one namespace, created by [`CREATOR`], whose PID 1 is [`INIT`].
    fn new() -> Self {
        let mut host = Self {
            world: World::default(),
            recent: Recent::default(),
            readings: Readings::default(),
            has_reader: false,
            thresholds: Thresholds::default(),
            targets: BTreeSet::new(),
        };
        let hooks = BTreeMap::from([("proc_free_inum".to_owned(), "fentry".to_owned())]);
        host.add(0.0, stream_start(hooks, &["process.reap", "namespace.destroy"]));
        host.add(1.0, fork(process(&[CREATOR], 1), process(&[1], 0)));
        let creator = process(&[CREATOR], 1);
        host.add(
            2.0,
            Body::NamespaceCreate { ns: ns(NS, 1), via: Some("clone".into()), creator: creator.clone() },
        );
        host.add(2.0, Body::NamespaceInit { ns: ns(NS, 1), process: process(&[INIT, 1], CREATOR) });
        host.add(2.0, fork(process(&[INIT, 1], CREATOR), creator));
        host
    }

    fn add(&mut self, at: f64, body: Body) -> &mut Self {
        let event = Event { seq: 1, time: Timestamp::UNIX_EPOCH, boot_ns: seconds(at), exact: true, body };
        let changes = self.world.apply(&event);
        self.recent.update(&event, &changes, &self.world);
        self
    }

    /// Notes the holders of the last namespace with the number [`NS`].
    fn read_holders(&mut self, holders: Holders) {
        let ns = self.recent.last_namespace(NS).expect("it was there").ns.clone();
        self.readings.holders.insert(NS, (ns, holders));
    }

    fn found(&self, at: f64) -> Vec<Finding> {
        self.with_input(at, find)
    }

    /// Calls a function with the detector input of this time.
    fn with_input<T>(&self, at: f64, found: impl FnOnce(&DetectorInput<'_>) -> T) -> T {
        let open = BTreeSet::new();
        let input = DetectorInput {
            world: &self.world,
            recent: &self.recent,
            readings: &self.readings,
            thresholds: &self.thresholds,
            now: seconds(at),
            has_reader: self.has_reader,
            is_only_detection: false,
            open: &open,
            targets: &self.targets,
            snapshot: OnceCell::new(),
            members: OnceCell::new(),
        };
        found(&input)
    }

    /// From now on, processes come from snapshots, as for the agent. The last one was taken at this time.
    fn follow_namespaces(&mut self, as_of: f64) -> &mut Self {
        self.world.follow_namespaces(&BTreeMap::from([("proc_free_inum".to_owned(), "fentry".to_owned())]));
        self.world.processes_are_as_of(seconds(as_of));
        self
    }

    fn ids(&self, at: f64) -> Vec<Diagnosis> {
        self.found(at).iter().map(|finding| finding.id).collect()
    }

    /// The only finding.
    fn only_finding(&self, at: f64) -> Finding {
        let mut found = self.found(at);
        assert_eq!(found.len(), 1, "{found:#?}");
        found.remove(0)
    }
}

/// A child of the init forks and ends. The grandchild becomes a child of the init and ends at this time.
fn orphan(host: &mut TestHost, number: u32, at: f64) {
    let child = process(&[INIT + 2 * number, 2 * number], INIT);
    let grandchild = process(&[INIT + 2 * number + 1, 2 * number + 1], INIT + 2 * number);
    host.add(at, fork(child.clone(), process(&[INIT, 1], CREATOR)));
    host.add(at, fork(grandchild.clone(), child.clone()));
    host.add(at, exit(child.clone())).add(at, reap(child));
    host.add(at, exit(Process { ppid: Some(HostPid(INIT)), ..grandchild }));
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

/// Limits that were read for [`INIT`].
fn chain(at: f64, limits: Vec<ReachedLimit>) -> LimitChain {
    LimitChain { init: HostPid(INIT), at: seconds(at), tasks: 0, limits, unread: 0 }
}
