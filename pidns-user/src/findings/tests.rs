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

/// What happens, and what is found at a moment.
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
        let events = vec!["process.reap".into(), "namespace.destroy".into()];
        let filter = StreamFilter { events, ..StreamFilter::default() };
        let (version, boot_time) = ("0".into(), String::new());
        story.add(
            0.0,
            Body::StreamStart {
                version,
                host: None,
                kernel: None,
                boot_time,
                hooks,
                hooked_boot_ns: None,
                filter,
            },
        );
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

#[test]
fn an_init_that_leaves_an_orphan_is_found_and_one_that_reaps_it_is_not() {
    let mut story = Story::new();
    orphan(&mut story, 1, 10.0);
    assert_eq!(story.ids(10.5), [], "it may still reap");
    let finding = story.the(11.5);
    assert_eq!(finding.id, Diagnosis::ZombiesNotReaped);
    assert_eq!(finding.process.as_ref().map(|reaper| reaper.pid), Some(HostPid(INIT)));
    let Fact::Zombies { count: 1, orphans: 1, ref forked_by, .. } = finding.evidence[0].fact else {
        panic!("{finding:#?}")
    };
    assert_eq!(forked_by[0].comm, "sh".into());
    story.add(12.0, reap(process(&[INIT + 3, 3], INIT)));
    assert_eq!(story.ids(20.0), []);
}

#[test]
fn a_zombie_is_one_only_where_proc_has_it() {
    let mut story = Story::new();
    orphan(&mut story, 1, 10.0);
    assert_eq!(story.ids(11.5), [Diagnosis::ZombiesNotReaped], "a recording has nothing else");
    story.can_read = true;
    assert_eq!(story.ids(11.5), [], "it was not read yet");
    let key = process(&[INIT + 3, 3], INIT).key();
    let doing = |state| {
        let ppid = HostPid(INIT);
        Doing { state, ppid, tracer: None, threads: 1, wchan: None, frozen: false }
    };
    story.readings.doing.insert(key, Ok(doing('Z')));
    assert_eq!(story.ids(11.5), [Diagnosis::ZombiesNotReaped]);
    story.readings.doing.insert(key, Ok(doing('S')));
    assert_eq!(story.ids(11.5), [], "another process has its PID");
    story.readings.doing.insert(key, Ok(doing('Z')));
    story.readings.gone.insert(key);
    assert_eq!(story.ids(11.5), [], "the event of its reaping is to come");
}

#[test]
fn an_init_that_reaps_slowly_has_more_time() {
    let mut story = Story::new();
    orphan(&mut story, 1, 10.0);
    orphan(&mut story, 2, 10.1);
    story.add(10.5, reap(process(&[INIT + 5, 5], INIT)));
    assert_eq!(story.ids(13.0), [], "it reaped another one meanwhile");
    assert_eq!(story.ids(21.0), [Diagnosis::ZombiesNotReaped]);
}

#[test]
fn few_zombies_of_own_children_are_no_finding() {
    let mut story = Story::new();
    for number in 2..6 {
        let child = process(&[INIT + number, number], INIT);
        story.add(10.0, fork(child.clone(), process(&[INIT, 1], CREATOR))).add(10.0, exit(child));
    }
    assert_eq!(story.ids(60.0), [], "four");
    let child = process(&[INIT + 9, 9], INIT);
    story.add(61.0, fork(child.clone(), process(&[INIT, 1], CREATOR))).add(61.0, exit(child));
    assert_eq!(story.ids(62.0), [], "the fifth is young");
    assert_eq!(story.ids(72.0), [Diagnosis::ZombiesNotReaped]);
}

#[test]
fn a_hanging_teardown_names_its_processes() {
    let mut story = Story::new();
    let member = process(&[INIT + 1, 2], CREATOR);
    story.add(5.0, fork(member.clone(), process(&[CREATOR], 1)));
    story
        .add(10.0, init_exit(Exit::Code { code: 0 }, Cause::Exited))
        .add(10.0, exit(process(&[INIT, 1], CREATOR)));
    story.add(10.0, exit(member.clone()));
    assert_eq!(story.ids(10.5), []);
    let blocker = |finding: &Finding| {
        finding
            .evidence
            .iter()
            .find_map(|evidence| match &evidence.fact {
                Fact::Blocker { process, by, keeper, .. } => {
                    Some((process.pid, *by, keeper.as_ref().map(|keeper| keeper.pid)))
                }
                _ => None,
            })
            .unwrap_or_else(|| panic!("{finding:#?}"))
    };
    let finding = story.the(11.5);
    assert_eq!((finding.id, finding.since_boot_ns), (Diagnosis::TeardownBlocked, seconds(10.0)));
    assert_eq!(blocker(&finding), (member.pid, BlockedBy::Parent, Some(HostPid(CREATOR))));
    // /proc is newer.
    for (state, tracer, frozen, expected) in [
        ('Z', None, false, BlockedBy::Parent),
        ('Z', Some(1), false, BlockedBy::Tracer),
        ('t', Some(1), false, BlockedBy::Tracer),
        ('D', None, true, BlockedBy::Freezer),
        ('D', None, false, BlockedBy::Kernel),
        ('R', None, false, BlockedBy::Unknown),
    ] {
        let tracer = tracer.map(HostPid);
        let doing = Doing { state, ppid: HostPid(CREATOR), tracer, threads: 1, wchan: None, frozen };
        story.readings.doing = BTreeMap::from([(member.key(), Ok(doing))]);
        assert_eq!(blocker(&story.the(11.5)).1, expected, "{state} {tracer:?}");
    }
    story.readings.doing = BTreeMap::from([(member.key(), Err("no permission".to_owned()))]);
    let facts = story.the(11.5).evidence;
    assert!(matches!(&facts.last().expect("a fact").fact, Fact::Unseen { what } if what == "no permission"));
    story.add(12.0, reap(member));
    let torn_down = Body::NamespaceTeardown { ns: ns(NS, 1), killed: 0, nested: Vec::new(), duration_ns: 1 };
    story.add(12.0, torn_down);
    assert_eq!(story.ids(13.0), []);
}

#[test]
fn a_fork_into_a_dead_namespace_names_its_init_and_the_forker() {
    let mut story = Story::new();
    story.add(10.0, init_exit(Exit::Code { code: 3 }, Cause::Exited));
    story.add(11.0, refused(process(&[70], 1), "namespace_dead", None));
    let finding =
        story.found(11.1).into_iter().find(|it| it.id == Diagnosis::NamespaceDeadFork).expect("it is found");
    let facts: Vec<_> = finding.evidence.iter().map(|evidence| &evidence.fact).collect();
    assert!(matches!(facts[0], Fact::InitExit { exit: Exit::Code { code: 3 }, .. }), "{facts:#?}");
    assert!(matches!(facts[1], Fact::RefusedFork { process, .. } if process.pid == HostPid(70)));
    assert!(!story.ids(400.0).contains(&Diagnosis::NamespaceDeadFork), "it is long ago");
}

#[test]
fn an_ignored_sigterm_and_the_kill_that_follows_are_two_findings() {
    let signal = |signal: &str, from: &'static str| Body::InitSignal {
        ns: ns(NS, 1),
        process: process(&[INIT, 1], CREATOR),
        signal: signal.to_owned(),
        sender: Some(process(&[70], 1)),
        from: from.into(),
        fate: "ignored".into(),
    };
    let mut story = Story::new();
    story.add(10.0, signal("SIGCONT", "ancestor")).add(10.0, signal("SIGTERM", "kernel"));
    assert_eq!(story.ids(10.1), [], "neither is meant to end it");
    story.add(11.0, signal("SIGTERM", "ancestor"));
    let finding = story.the(11.1);
    assert_eq!((finding.id, finding.severity), (Diagnosis::InitIgnoredSignal, Severity::Warning));
    assert!(
        matches!(&finding.evidence[0].fact, Fact::Signal { sender: Some(sender), .. } if sender.pid == HostPid(70))
    );
    story.add(21.0, killed_by(70));
    story.add(22.0, signal("SIGTERM", "ancestor"));
    assert_eq!(story.ids(21.5), [Diagnosis::InitIgnoredSignal, Diagnosis::InitKilled]);
    let killed = story.found(21.5).remove(1);
    assert!(matches!(killed.evidence[0].fact, Fact::Signal { .. }), "what was tried before: {killed:#?}");
    assert_eq!(story.ids(400.0), []);
}

#[test]
fn an_init_that_ends_by_itself_was_not_killed() {
    let exits = [
        (Exit::Code { code: 1 }, Cause::Exited, None),
        (
            Exit::Signal { signal: "SIGINT".to_owned(), core: false },
            Cause::Reboot { command: "halt".into() },
            None,
        ),
        (
            Exit::Signal { signal: "SIGKILL".to_owned(), core: false },
            Cause::Oom { victim: process(&[INIT, 1], CREATOR) },
            Some(Severity::Critical),
        ),
        (
            Exit::Signal { signal: "SIGSEGV".to_owned(), core: true },
            Cause::Fault { signal: "SIGSEGV".to_owned() },
            Some(Severity::Critical),
        ),
        (
            Exit::Signal { signal: "SIGKILL".to_owned(), core: false },
            Cause::Cascade { ns: NsInum(5) },
            Some(Severity::Info),
        ),
        (Exit::Signal { signal: "SIGKILL".to_owned(), core: false }, Cause::Unknown, Some(Severity::Warning)),
    ];
    for (exit, cause, expected) in exits {
        let mut story = Story::new();
        story.add(10.0, init_exit(exit, cause.clone()));
        let found = story.found(10.1).into_iter().find(|finding| finding.id == Diagnosis::InitKilled);
        assert_eq!(found.map(|finding| finding.severity), expected, "{cause:?}");
    }
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

#[test]
fn a_limit_that_is_nearly_reached_is_found_where_it_is_set() {
    let mut story = Story::new();
    let mut chain = |limits: Vec<ReachedLimit>| {
        story.readings.limits.insert(NS, LimitChain { at: seconds(10.0), tasks: 0, limits, unread: 0 });
        story.found(10.0).iter().map(|finding| (finding.id, finding.severity)).collect::<Vec<_>>()
    };
    assert_eq!(chain(vec![limit("pids_cgroup", 79, 100)]), []);
    assert_eq!(
        chain(vec![limit("pid_max", 90, 100), limit("pids_cgroup", 1, 100)]),
        [],
        "that is the machine's"
    );
    let warning = (Diagnosis::PidExhaustion, Severity::Warning);
    assert_eq!(chain(vec![limit("pids_cgroup", 1, 500), limit("pids_cgroup", 80, 100)]), [warning]);
    let critical = (Diagnosis::PidExhaustion, Severity::Critical);
    assert_eq!(chain(vec![limit("pids_cgroup", 100, 100)]), [critical]);
}

#[test]
fn a_reached_limit_is_reported_once_while_short_processes_come_and_go() {
    let mut story = Story::new();
    let limits = vec![limit("pids_cgroup", 10, 10)];
    story.readings.limits =
        BTreeMap::from([(NS, LimitChain { at: seconds(2.0), limits, unread: 0, tasks: 0 })]);
    let (child, init) = (process(&[INIT + 1, 2], INIT), process(&[INIT, 1], CREATOR));
    story.add(3.0, fork(child.clone(), init)).add(3.0, exit(child.clone())).add(3.1, reap(child.clone()));
    let mut ledger = Ledger::default();
    let mut update = |story: &Story, at| ledger.update(story.found(at)).len();
    assert_eq!(update(&story, 4.0), 1);
    let child = process(&[INIT + 2, 3], INIT);
    story.add(5.0, fork(child.clone(), process(&[INIT, 1], CREATOR))).add(5.1, exit(child));
    assert_eq!(update(&story, 5.2), 0, "it will be reaped");
    assert_eq!(update(&story, 6.5), 1, "one that stays takes a part of it");
    assert!(story.the(6.5).evidence.iter().any(|it| matches!(it.fact, Fact::Zombies { count: 1, .. })));
}

#[test]
fn a_refused_fork_names_its_limit() {
    let mut story = Story::new();
    story.add(10.0, refused(process(&[INIT, 1], CREATOR), "pids_cgroup", Some(limit("pids_cgroup", 8, 8))));
    story.add(10.0, refused(process(&[INIT, 1], CREATOR), "permission", None));
    let finding = story.the(10.1);
    assert_eq!((finding.id, finding.severity), (Diagnosis::PidExhaustion, Severity::Critical));
    assert!(
        finding
            .evidence
            .iter()
            .any(|it| matches!(&it.fact, Fact::Limit { limit, .. } if limit.value == Some(8)))
    );
}

#[test]
fn threads_that_fill_a_limit_are_found_with_their_process() {
    let mut story = Story::new();
    story.readings.limits.insert(
        NS,
        LimitChain { at: seconds(10.0), tasks: 0, limits: vec![limit("pids_cgroup", 60, 100)], unread: 0 },
    );
    let init = process(&[INIT, 1], CREATOR);
    let doing = |threads| Doing {
        state: 'S',
        ppid: HostPid(CREATOR),
        tracer: None,
        threads,
        wchan: None,
        frozen: false,
    };
    story.readings.doing = BTreeMap::from([(init.key(), Ok(doing(20)))]);
    assert_eq!(story.ids(10.0), []);
    story.readings.doing = BTreeMap::from([(init.key(), Ok(doing(50)))]);
    let finding = story.the(10.0);
    assert_eq!(
        (finding.id, finding.process.map(|it| it.pid)),
        (Diagnosis::ThreadGrowth, Some(HostPid(INIT)))
    );
}

#[test]
fn a_refused_namespace_is_found_where_a_limit_refused_it() {
    let failed = |reason: &'static str| Body::NamespaceCreateFailed {
        via: "unshare".into(),
        creator: process(&[70], 1),
        errno: "ENOSPC".to_owned(),
        reason: reason.into(),
        limit: None,
        set_tid: Vec::new(),
        taken: None,
        holder: None,
        capability: None,
        user_ns: None,
    };
    let mut story = Story::new();
    story.add(10.0, failed("permission"));
    assert_eq!(story.ids(10.1), []);
    story.add(10.0, failed("count_limit"));
    assert_eq!(story.ids(10.1), [Diagnosis::CreationRefused]);
    let mut story = Story::new();
    story.add(10.0, failed("pids_cgroup"));
    assert_eq!(story.ids(10.1), [Diagnosis::PidExhaustion], "a clone that may make no process");
}

#[test]
fn a_held_namespace_names_its_holders() {
    let mut story = Story::new();
    story
        .add(10.0, init_exit(Exit::Code { code: 0 }, Cause::Exited))
        .add(10.0, exit(process(&[INIT, 1], CREATOR)));
    story.add(10.0, Body::NamespaceTeardown { ns: ns(NS, 1), killed: 0, nested: Vec::new(), duration_ns: 1 });
    story.add(10.0, reap(process(&[INIT, 1], CREATOR)));
    assert_eq!(story.ids(15.0), [], "it is not known what holds it");
    let holder = Holder::Fd { pid: HostPid(70), comm: None, tid: None, fd: 4 };
    let holders = Holders { at: seconds(10.0), holders: vec![holder.clone()], left_out: 0, unread: 0 };
    story.readings.holders.insert(NS, holders);
    assert_eq!(story.ids(10.5), [], "a short while");
    let finding = story.the(11.5);
    assert_eq!(
        (finding.id, &finding.evidence[0].fact),
        (Diagnosis::NamespaceLeaked, &Fact::Holder { holder })
    );
    story.add(12.0, Body::NamespaceDestroy { ns: ns(NS, 1), lived_ns: None });
    assert_eq!(story.ids(13.0), []);
}

#[test]
fn a_namespace_that_is_held_after_its_end_is_found_where_no_hook_sees_its_destruction() {
    let mut story = Story::new();
    let (version, boot_time, hooks) = ("0".into(), String::new(), BTreeMap::new());
    let filter = StreamFilter { events: vec!["process.reap".into()], ..StreamFilter::default() };
    story.add(
        0.0,
        Body::StreamStart {
            version,
            host: None,
            kernel: None,
            boot_time,
            hooks,
            hooked_boot_ns: None,
            filter,
        },
    );
    story.add(10.0, init_exit(Exit::Code { code: 0 }, Cause::Exited));
    story.add(10.0, exit(process(&[INIT, 1], CREATOR))).add(10.0, reap(process(&[INIT, 1], CREATOR)));
    assert!(story.world.namespace(NS).is_none(), "its processes are gone");
    let holder = Holder::Fd { pid: HostPid(70), comm: None, tid: None, fd: 4 };
    let holders = Holders { at: seconds(11.0), holders: vec![holder], left_out: 0, unread: 0 };
    story.readings.holders.insert(NS, holders);
    assert_eq!(story.ids(11.5), [Diagnosis::NamespaceLeaked]);
    story.readings.holders.insert(NS, Holders { at: seconds(12.0), ..Holders::default() });
    assert_eq!(story.ids(12.5), []);
}

#[test]
fn a_process_that_lost_its_session_is_left_over_and_one_that_its_shim_keeps_is_not() {
    let mut story = Story::new();
    let runtime = process(&[60], CREATOR);
    let joined = process(&[INIT + 1, 2], 60);
    story.add(5.0, fork(runtime.clone(), process(&[CREATOR], 1)));
    story.add(5.0, fork(joined.clone(), runtime.clone()));
    assert_eq!(story.ids(8.0), [], "its session is there");
    story.add(10.0, exit(runtime.clone())).add(10.0, reap(runtime));
    let with_parent = |story: &mut Story, pid: u32| {
        let doing =
            Doing { state: 'S', ppid: HostPid(pid), tracer: None, threads: 1, wchan: None, frozen: false };
        story.readings.doing = BTreeMap::from([(joined.key(), Ok(doing))]);
    };
    with_parent(&mut story, CREATOR);
    assert_eq!(story.ids(12.0), [], "the process that keeps PID 1 has it");
    with_parent(&mut story, 1);
    let finding = story.the(12.0);
    assert_eq!((finding.id, finding.severity), (Diagnosis::JoinedLeftover, Severity::Warning));
    with_parent(&mut story, CREATOR);
    let old = story.the(4_000.0);
    assert_eq!((old.id, old.severity), (Diagnosis::JoinedLeftover, Severity::Info), "after an hour");
}

#[test]
fn a_helper_that_outlives_its_namespace_is_found() {
    let mut story = Story::new();
    let shim = Process { comm: "containerd-shim".into(), ..process(&[CREATOR], 1) };
    story.add(
        3.0,
        Body::ProcessExec { process: shim, filename: "x".into(), args: None, args_truncated: false },
    );
    story
        .add(10.0, init_exit(Exit::Code { code: 0 }, Cause::Exited))
        .add(10.0, exit(process(&[INIT, 1], CREATOR)));
    story.add(10.0, reap(process(&[INIT, 1], CREATOR)));
    story.add(10.0, Body::NamespaceDestroy { ns: ns(NS, 1), lived_ns: None });
    assert_eq!(story.ids(15.0), []);
    assert_eq!(story.the(21.0).id, Diagnosis::CreatorLeftover);
    story.add(22.0, exit(process(&[CREATOR], 1)));
    assert_eq!(story.ids(23.0), []);
}

#[test]
fn a_proc_of_another_namespace_is_read_where_it_is_asked_about() {
    let mut story = Story::new();
    let shown = Some(ProcShows { ns: INITIAL_NS, path: "/proc".into() });
    story.readings.proc = BTreeMap::from([(process(&[INIT, 1], CREATOR).key(), shown)]);
    assert_eq!(story.ids(10.0), []);
    story.asked.insert(NS);
    assert_eq!(story.ids(10.0), [Diagnosis::ProcMismatch]);
}

#[test]
fn the_innermost_namespace_speaks_for_a_deep_nest() {
    let mut story = Story::new();
    for level in 26..=29 {
        let parent = if level == 26 { NS } else { NsInum(level - 1) };
        let inner = Namespace { parent: Some(parent), ..ns(NsInum(level), level) };
        let init = Process { ns: NsInum(level), ..process(&[200 + level, 1], INIT) };
        story.add(5.0, Body::NamespaceInit { ns: inner, process: init.clone() });
        story.add(5.0, fork(init, process(&[INIT, 1], CREATOR)));
    }
    let finding = story.the(6.0);
    assert_eq!((finding.id, finding.ns.map(|ns| ns.level)), (Diagnosis::NearDepthLimit, Some(29)));
}

#[test]
fn a_member_that_memory_ran_out_for_is_found_while_its_init_lives() {
    let mut story = Story::new();
    let member = process(&[INIT + 1, 2], INIT);
    story.add(5.0, fork(member.clone(), process(&[INIT, 1], CREATOR)));
    let Body::ProcessExit { process, exit, ran_ns, threads, cascade, orphaned, .. } = exit(member.clone())
    else {
        unreachable!("it is an exit")
    };
    let cause = Some(Cause::Oom { victim: member.clone() });
    story.add(6.0, Body::ProcessExit { process, exit, ran_ns, threads, cause, cascade, orphaned });
    story.add(6.0, reap(member));
    assert_eq!(story.ids(6.1), [Diagnosis::MemberOomKilled]);
    story.add(7.0, init_exit(Exit::Code { code: 0 }, Cause::Exited));
    assert_eq!(story.ids(7.1), [], "then its runtime restarts it");
}

#[test]
fn a_container_of_the_hosts_namespace_is_named_after_exec_and_not_during_setup() {
    let mut story = Story::new();
    let (runtime, id) = (Some(Runtime::Docker), Some("web".into()));
    let container = Some(Arc::new(Container { runtime, id, ..Container::default() }));
    let called = |pid: u32, comm: &str, ppid: u32| {
        let container = container.clone();
        Process { comm: comm.into(), container, ..process(&[pid], ppid) }
    };
    let exec =
        |process| Body::ProcessExec { process, filename: "x".into(), args: None, args_truncated: false };
    let (runc, main) = (called(200, "runc:[0:PARENT]", CREATOR), called(201, "runc:[2:INIT]", 200));
    story.add(5.0, fork(runc.clone(), process(&[CREATOR], 1))).add(5.1, fork(main, runc.clone()));
    story.add(5.2, exit(runc.clone())).add(5.2, reap(runc));
    story.add(5.3, exec(called(201, "sleep", CREATOR)));
    let finding = story.the(10.0);
    assert_eq!((finding.id, finding.severity), (Diagnosis::NoCascade, Severity::Info), "it has not ended");
    assert_eq!(finding.process.map(|main| main.pid), Some(HostPid(201)));
}

#[test]
fn a_process_that_unshared_and_forked_none_is_found_and_one_that_forked_is_not() {
    let mut story = Story::new();
    let (inner, unsharer) =
        (Namespace { born_boot_ns: Some(seconds(5.0)), ..ns(NsInum(7), 1) }, process(&[CREATOR], 1));
    story.add(
        5.0,
        Body::NamespaceCreate { ns: inner.clone(), via: Some("unshare".into()), creator: unsharer.clone() },
    );
    assert_eq!(story.ids(5.5), []);
    let finding = story.the(6.5);
    assert_eq!((finding.id, finding.severity), (Diagnosis::ChildrenElsewhere, Severity::Info));
    let init = Process { ns: NsInum(7), start_boot_ns: seconds(7.0), ..process(&[80, 1], CREATOR) };
    story.add(7.0, Body::NamespaceInit { ns: inner, process: init.clone() });
    story.add(7.0, fork(init, unsharer));
    assert_eq!(story.ids(9.0), []);
}

#[test]
fn a_ledger_reports_each_change_once() {
    let mut story = Story::new();
    let mut ledger = Ledger::default();
    orphan(&mut story, 1, 10.0);
    let mut update = |story: &Story, at| -> Vec<FindingState> {
        ledger.update(story.found(at)).into_iter().map(|(state, _)| state).collect()
    };
    assert_eq!(update(&story, 11.5), [FindingState::Opened]);
    assert_eq!(update(&story, 12.5), [], "only its age is another");
    orphan(&mut story, 2, 20.0);
    assert_eq!(update(&story, 21.5), [FindingState::Updated], "twice as many");
    orphan(&mut story, 3, 30.0);
    assert_eq!(update(&story, 31.5), [], "half as many more");
    for number in [3, 5, 7] {
        story.add(32.0, reap(process(&[INIT + number, number], INIT)));
    }
    assert_eq!(update(&story, 33.0), [FindingState::Closed]);
}

#[test]
fn a_recording_with_findings_is_believed() {
    let finding = {
        let mut story = Story::new();
        orphan(&mut story, 1, 10.0);
        story.the(11.5)
    };
    let mut watch = FindingsWatch::recorded(Thresholds::default());
    let world = World::default();
    let hear = |watch: &mut FindingsWatch, body| {
        let event = Event { seq: 1, time: Timestamp::UNIX_EPOCH, boot_ns: seconds(12.0), exact: true, body };
        watch.update(&Update { event: &event, container: None, changes: &[], world: Some(&world) });
    };
    let start = |events: Vec<crate::event::Token>| Body::StreamStart {
        version: "0".into(),
        host: None,
        kernel: None,
        boot_time: String::new(),
        hooked_boot_ns: None,
        hooks: BTreeMap::new(),
        filter: StreamFilter { events, ..StreamFilter::default() },
    };
    let finding_event = |state| Body::Finding { state, finding: Box::new(finding.clone()) };
    hear(&mut watch, start(vec!["finding".into()]));
    hear(&mut watch, finding_event(FindingState::Opened));
    watch.detect_at(&world, seconds(60.0));
    assert_eq!(watch.open().collect::<Vec<_>>(), [&finding]);
    hear(&mut watch, finding_event(FindingState::Closed));
    assert_eq!(watch.open().count(), 0);
    hear(&mut watch, start(Vec::new()));
    hear(&mut watch, finding_event(FindingState::Opened));
    assert_eq!(watch.open().count(), 0, "nothing was detected when it was recorded");
}

/// Reads nothing, and notes what it is asked.
struct Asked(Arc<Mutex<Vec<Wanted>>>);

impl Reader for Asked {
    fn ask(&mut self, wanted: Wanted) {
        self.0.lock().expect("no thread but this").push(wanted);
    }

    fn take(&mut self) -> Option<Readings> {
        // A thread has as many threads as are half of a limit, which is read anew while that is so.
        let last = self.0.lock().expect("no thread but this").last().cloned()?;
        let doing = |key| (key, Err("not read".to_owned()));
        let limits = vec![limit("pids_cgroup", 60, 100)];
        let chain =
            |inum| (inum, LimitChain { at: seconds(1.0), limits: limits.clone(), unread: 0, tasks: 0 });
        Some(Readings {
            doing: last.doing.into_iter().map(doing).collect(),
            limits: last.limits.into_keys().map(chain).collect(),
            ..Readings::default()
        })
    }
}

#[test]
fn a_reading_is_not_requested_again_because_of_its_own_arrival() {
    let story = Story::new();
    let mut watch = FindingsWatch::live(Thresholds::default(), || unreachable!("it is given one"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    watch.read_with(Box::new(Asked(Arc::clone(&asked))));
    for _ in 0..10 {
        watch.own_events(Some(&story.world), seconds(10.0));
    }
    let asked = asked.lock().expect("no thread but this");
    let doing = asked.iter().filter(|wanted| !wanted.doing.is_empty()).count();
    let limits = asked.iter().filter(|wanted| !wanted.limits.is_empty()).count();
    assert_eq!((limits, doing), (1, 1), "in ten ticks of one moment: {asked:#?}");
}

#[test]
fn thresholds_can_be_longer_than_any_time() {
    let mut story = Story::new();
    story.thresholds.zombie_age = Duration::MAX / 20;
    orphan(&mut story, 1, 10.0);
    assert_eq!(story.ids(1e9), []);
}
