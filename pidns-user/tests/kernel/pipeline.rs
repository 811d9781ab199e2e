//! The pipeline in this process on the running kernel, following only namespaces, like the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pidns_user::event::{
    Body,
    identity::{BootNs, NsInum},
};
use pidns_user::filter::Filter;
use pidns_user::kernel::load::{self, Settings};
use pidns_user::model::{Stage, World};
use pidns_user::pipeline::follow::KernelFilter;
use pidns_user::pipeline::{
    Consumer, ContainerSource, Follow, Pipeline, Publisher, Report, Resync, Update, Wants,
};
use pidns_user::source::live::Live;
use pidns_user::source::observer::Observer;
use pidns_user::source::snapshots;

use crate::actor_handle::{Actor, patience};
use crate::facts::Who;
use crate::settings::{SECONDS_FOR_A_STORM, hooks, lives};
use crate::{Test, again, probes, test};

pub(crate) const TESTS: &[Test] = &[test!(namespace_mode_survives_a_storm_and_sends_no_process_records)];

pub(crate) const NAMESPACES: usize = 50;

/// Namespace events by name: inode number and PID 1.
#[derive(Default)]
struct Seen {
    events: BTreeMap<&'static str, Vec<(u64, Option<u64>)>>,
    processes: u64,
    snapshots: u64,
    reports_destructions: bool,
    end: Option<Body>,
}

impl Consumer for Seen {
    fn update(&mut self, update: &Update<'_>) -> Wants {
        again::hear_event(update.event);
        let body = &update.event.body;
        match body {
            Body::StreamStart { hooks, .. } => {
                self.reports_destructions =
                    hooks.get("proc_free_inum").is_some_and(|form| !form.starts_with("off"));
            }
            Body::StreamResync { .. } => self.snapshots += 1,
            Body::StreamEnd { .. } => self.end = Some(body.clone()),
            Body::NamespaceInit { ns, process } | Body::NamespaceInitExit { ns, process, .. } => {
                self.events
                    .entry(body.name())
                    .or_default()
                    .push((ns.inum.0.into(), Some(process.pid.0.into())));
            }
            Body::NamespaceCreate { ns, .. }
            | Body::NamespaceTeardown { ns, .. }
            | Body::NamespaceDestroy { ns, .. } => {
                self.events.entry(body.name()).or_default().push((ns.inum.0.into(), None));
            }
            _ => self.processes += u64::from(body.name().starts_with("process.")),
        }
        Wants::More
    }
}

fn namespace_mode_survives_a_storm_and_sends_no_process_records() {
    let follow = Follow::Namespaces { refresh: Duration::from_millis(500) };
    let filter = Filter::everything().expect("the default filter is valid");
    let KernelFilter { event_mask, level_mask, namespaces, pids } = follow.kernel_filter(&filter);
    let settings =
        Settings { event_mask, level_mask, namespaces, pids, hooks: hooks(), ..Settings::everything() };
    let mut observer = Observer::before_a_stream();
    observer.snapshot(false, &mut || {}).expect("take a snapshot");
    let (loaded, reader, waker) = load::load(&settings).expect("load the eBPF object");
    let start = Body::StreamStart {
        version: "test".into(),
        host: None,
        kernel: None,
        boot_time: String::new(),
        hooked_boot_ns: None,
        hooks: loaded.hooks.iter().map(|(hook, form)| (hook.name.to_owned(), form.to_string())).collect(),
        filter: filter.filter.clone(),
    };
    let source = Live::new(loaded, reader, None, start, follow.has_reaps(&filter));
    let (mut publisher, published) = Publisher::new(Duration::from_millis(50));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let stream = thread::spawn(move || -> (Report, Seen, Option<World>) {
        let mut seen = Seen::default();
        let resync = Resync::new(snapshots::start(observer), None, follow.refresh());
        let pipeline = Pipeline::new(source, follow, ContainerSource::Unknown).with_snapshots(resync);
        let (report, _, world) = pipeline.run(&mut [&mut publisher, &mut seen], &stopped);
        (report, seen, world)
    });
    let wait_for = |what: &str, is_so: &dyn Fn() -> bool| {
        let deadline = Instant::now() + patience(20);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what} did not come in time");
            thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for("the first snapshot", &|| published.borrow().processes_as_of_boot_ns > Some(BootNs(0)));

    let mut actor = Actor::start("storms", &[&lives().to_string(), &NAMESPACES.to_string()]);
    let done: u64 = actor.hear_within(SECONDS_FOR_A_STORM, "lives");
    assert_eq!(done, lives());
    let alive_within = |wanted: &BTreeSet<u64>| {
        let published = published.borrow();
        let state =
            |inum: &u64| published.namespaces.iter().find(|state| u64::from(state.namespace.inum.0) == *inum);
        wanted.iter().filter(|inum| state(inum).is_some_and(|state| state.stage == Stage::Alive)).count()
    };
    let inums = |facts: &[Who]| facts.iter().map(|who| who.ns).collect::<BTreeSet<u64>>();
    let staying = inums(&actor.all_heard("staying"));
    let leaving = inums(&actor.all_heard("leaving"));
    assert_eq!((staying.len(), leaving.len()), (NAMESPACES / 2, NAMESPACES / 2));
    wait_for(&format!("the state of all {} staying namespaces", staying.len()), &|| {
        alive_within(&staying) == staying.len()
    });
    wait_for(&format!("the end of all {} leaving namespaces", leaving.len()), &|| {
        alive_within(&leaving) == 0
    });
    {
        let published = published.borrow();
        let states =
            published.namespaces.iter().filter(|state| staying.contains(&state.namespace.inum.0.into()));
        for state in states {
            assert!(state.init.is_some(), "PID 1 of {} must be known", state.namespace.inum);
        }
    }
    let as_of = published.borrow().processes_as_of_boot_ns;
    wait_for("another snapshot", &|| published.borrow().processes_as_of_boot_ns > as_of);
    actor.go();
    let report = actor.finish();
    let everyone: Vec<Who> = [report.all("staying"), report.all("leaving")].concat();
    wait_for("the end of the others", &|| alive_within(&staying) == 0);
    stop.store(true, Ordering::Release);
    waker.wake().expect("wake the stream");
    let (report, seen, world) = stream.join().expect("the stream does not panic");

    assert!(report.error.is_none() && report.failures.is_empty(), "{report:?}");
    let mut lost = report.lost.clone();
    if probes::tracepoints_are_preemptible() {
        // These kernels can skip hooks. If the test needed a skipped event, it is run again.
        lost.remove("hook");
    }
    assert_eq!(lost, BTreeMap::new(), "nothing may be lost");
    let Some(Body::StreamEnd { kernel, .. }) = &seen.end else { panic!("no stream.end") };
    let of_processes: Vec<_> = kernel.keys().filter(|name| name.starts_with("process.")).collect();
    assert!(of_processes.is_empty() && seen.processes == 0, "process records reached user space: {kernel:?}");
    assert!(seen.snapshots >= 1, "snapshots must follow the first one");
    let count = |event: &str, wanted: (u64, Option<u64>)| {
        seen.events.get(event).map_or(0, |all| all.iter().filter(|one| **one == wanted).count())
    };
    for Who { ns, pid, .. } in &everyone {
        let init = Some(*pid as u64);
        assert_eq!(count("namespace.init", (*ns, init)), 1, "the init of {ns}");
        assert_eq!(count("namespace.init_exit", (*ns, init)), 1, "its exit");
        // Another namespace may have had this number before or afterwards.
        assert!(count("namespace.create", (*ns, None)) >= 1, "the creation of {ns}");
        assert!(count("namespace.teardown", (*ns, None)) >= 1, "the teardown of {ns}");
        let destroyed = count("namespace.destroy", (*ns, None));
        assert_eq!(destroyed >= 1, seen.reports_destructions, "the destruction of {ns}: {destroyed}");
    }
    let world = world.expect("the pipeline kept a model");
    if seen.reports_destructions {
        let inconsistencies = world.inconsistencies();
        assert_eq!(inconsistencies.destructions_unseen, 0, "{inconsistencies:?}");
    }
    let left = everyone.iter().filter(|who| world.namespace(NsInum(who.ns as u32)).is_some());
    // Another namespace of this machine may have got one of the numbers meanwhile.
    assert!(left.count() <= 1, "at most one inode number of the storm is in use again");
}
