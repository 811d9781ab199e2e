//! Tests of the metrics that result from given events.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use pidns_ebpf::abi::namespace_counters::NamespaceId;

use super::*;
use crate::{
    event::{
        Body, Event, Namespace, Process, StreamFilter,
        container::{Container, Runtime},
        identity::{BootNs, HostPid, NsInum},
        snapshot::SnapshotNamespace,
    },
    kernel::{
        gauges::Gauges,
        namespace_counters::{CounterError, Counts, Reading},
    },
    model::World,
    pipeline::{Consumer as _, Update},
    text::Name,
};

/// A source of given counts.
#[derive(Default)]
struct Counted(Reading);

impl CountSource for Counted {
    fn read(&self) -> Result<Reading, CounterError> {
        Ok(self.0.clone())
    }

    fn take(&mut self, gone: &HashSet<NamespaceId>) -> Result<HashMap<NamespaceId, Counts>, CounterError> {
        Ok(self.0.namespaces.extract_if(|id, _| gone.contains(id)).collect())
    }

    fn slots(&self) -> (u64, u64) {
        (0, 512)
    }
}

/// The metrics after these events. At most `namespace_limit` namespaces have series of their own.
fn scrape(bodies: impl IntoIterator<Item = Body>, namespace_limit: usize) -> String {
    scrape_of(Counted::default(), bodies, namespace_limit)
}

/// Like [`scrape`], with these counts of the kernel side.
fn scrape_of(counted: Counted, bodies: impl IntoIterator<Item = Body>, namespace_limit: usize) -> String {
    let facts = AgentFacts { hooks: Vec::new(), unseen: Vec::new(), gauges: Gauges::default() };
    let (metrics, mut consumer, _) =
        metrics(Ledger::new(Box::new(counted)), facts, OpenFindings::default(), namespace_limit)
            .expect("the descriptions are valid");
    let mut world = World::default();
    world.follow_namespaces(&BTreeMap::new());
    for body in bodies {
        let event = Event { seq: 1, time: Timestamp::UNIX_EPOCH, boot_ns: BootNs(9_000), exact: true, body };
        let changes = world.apply(&event);
        consumer.update(&Update { event: &event, container: None, changes: &changes, world: Some(&world) });
    }
    world.settle();
    world.processes_are_as_of(BootNs(9_000));
    consumer.tick(Some(&world));
    String::from_utf8(metrics.text().expect("write the metrics")).expect("UTF-8")
}

fn namespace(inum: u32, container: Option<Container>) -> Body {
    let ns = SnapshotNamespace {
        parent: Some(NsInum(1)),
        kernel_id: Some(u64::from(inum)),
        container: container.map(Arc::new),
        ..SnapshotNamespace::bare(NsInum(inum), 1)
    };
    Body::SnapshotNamespace { ns, holders: Vec::new(), holders_left_out: 0 }
}

fn process(pid: u32, ns: u32, state: char) -> Body {
    let process = Process {
        pid: HostPid(pid),
        pids: vec![pid, pid],
        comm: Name::from("x"),
        start_boot_ns: BootNs(u64::from(pid)),
        ppid: None,
        uid: 0,
        ns: NsInum(ns),
        container: None,
    };
    Body::snapshot_process(process, state, if state == 'Z' { 1 } else { 3 })
}

fn start() -> Body {
    Body::StreamStart {
        version: "1".into(),
        host: None,
        kernel: None,
        boot_time: String::new(),
        hooked_boot_ns: None,
        hooks: BTreeMap::new(),
        filter: StreamFilter::default(),
    }
}

#[test]
fn container_names_are_escaped_and_cut() {
    let container = |name: Name| Container {
        runtime: Some(Runtime::Docker),
        name: Some(name),
        pod: Some(Name::from("p\u{1b}[31m")),
        ..Container::default()
    };
    let hostile = container(Name::from(&b"a\"} 1\nb\\c\xff"[..]));
    let text = scrape([start(), namespace(7, Some(hostile)), process(3, 7, 'S')], 10);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("pidns_namespace_info")).collect();
    assert_eq!(
        lines,
        [
            r#"pidns_namespace_info{pidns="7",parent="1",level="1",runtime="docker",container="a\"} 1\\u{a}b\\\\c\\xff",pod="p\\u{1b}[31m",namespace=""} 1"#
        ]
    );
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok(), "{line:?} is no sample");
    }
    let long = container(Name::from("é".repeat(5_000).as_str()));
    let text = scrape([start(), namespace(7, Some(long))], 10);
    assert!(text.contains(&format!("container=\"{}…\"", "é".repeat(200))), "cut between characters");
}

#[test]
fn only_the_largest_namespaces_have_series() {
    let bodies = (1..=5_u32).flat_map(|ns| {
        let members = (0..ns).map(move |member| process(100 * ns + member, ns + 10, 'S'));
        [namespace(ns + 10, None)].into_iter().chain(members)
    });
    let text = scrape([start()].into_iter().chain(bodies), 2);
    let has = |ns: u32| text.contains(&format!("pidns_namespace_threads{{pidns=\"{ns}\"}}"));
    assert_eq!((11..=15).filter(|ns| has(*ns)).collect::<Vec<_>>(), [14, 15]);
    assert!(text.contains("pidns_namespace_series_dropped 3"));
    assert!(text.contains("pidns_namespaces{state=\"active\"} 5"));
    let none = scrape([start(), namespace(7, None)], 0);
    assert!(!none.contains("pidns=\""), "a namespace has series: {none}");
}

#[test]
fn processes_are_counted_by_state_and_an_empty_namespace_is_pinned() {
    let bodies = [
        start(),
        namespace(7, None),
        namespace(8, None),
        process(3, 7, 'R'),
        process(4, 7, 'Z'),
        process(5, 7, 'D'),
    ];
    let text = scrape(bodies, 10);
    for line in [
        "pidns_processes{runtime=\"none\",state=\"running\"} 1",
        "pidns_processes{runtime=\"none\",state=\"zombie\"} 1",
        "pidns_processes{runtime=\"none\",state=\"blocked\"} 1",
        "pidns_threads{runtime=\"none\"} 7",
        "pidns_namespaces{state=\"active\"} 1",
        "pidns_namespaces{state=\"pinned\"} 1",
        "pidns_namespace_max_level 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let zombies = text.lines().filter(|line| line.starts_with("pidns_namespace_zombie_oldest")).count();
    assert_eq!(zombies, 1, "only the namespace with a zombie has this series");
}

#[test]
fn a_dying_namespace_in_a_snapshot_is_draining() {
    let Body::SnapshotNamespace { ns, .. } = namespace(7, None) else { unreachable!() };
    let ns = SnapshotNamespace { dying: true, ..ns };
    let dying = Body::SnapshotNamespace { ns, holders: Vec::new(), holders_left_out: 0 };
    let text = scrape_of(Counted(Reading::default()), [start(), dying, process(5, 7, 'Z')], 10);
    let draining = text.lines().find(|line| {
        line.starts_with("pidns_namespaces{") && line.contains("draining") && line.ends_with(" 1")
    });
    assert!(draining.is_some(), "{text}");
}

#[test]
fn a_namespace_whose_only_process_is_a_zombie_pid_1_is_pinned() {
    let Body::SnapshotNamespace { ns, .. } = namespace(7, None) else { unreachable!() };
    let ns = SnapshotNamespace { dying: true, ..ns };
    let mut init = process(5, 7, 'Z');
    let Body::SnapshotProcess { process, .. } = &mut init else { unreachable!() };
    process.pids = vec![5, 1];
    let dying = Body::SnapshotNamespace { ns, holders: Vec::new(), holders_left_out: 0 };
    let text = scrape_of(Counted(Reading::default()), [start(), dying, init], 10);
    for line in ["pidns_namespaces{state=\"pinned\"} 1", "pidns_namespaces{state=\"draining\"} 0"] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[test]
fn counts_keyed_by_the_start_time_of_an_init_belong_to_its_container() {
    let container = Container { runtime: Some(Runtime::Docker), ..Container::default() };
    let Body::SnapshotNamespace { ns, .. } = namespace(7, Some(container)) else { unreachable!() };
    let ns = SnapshotNamespace { kernel_id: None, ..ns };
    let Body::SnapshotProcess { process, .. } = process(5, 7, 'S') else { unreachable!() };
    let init = Process { pids: vec![5, 1], ..process };
    let bodies = [
        start(),
        Body::SnapshotNamespace { ns, holders: Vec::new(), holders_left_out: 0 },
        Body::snapshot_process(init, 'S', 1),
    ];
    let counts = Counts { forks: 3, ..Counts::default() };
    let namespaces = [(NamespaceId::new(5, 7), counts)].into();
    let text = scrape_of(Counted(Reading { namespaces, ..Reading::default() }), bodies, 10);
    assert!(text.contains("pidns_process_forks_total{runtime=\"docker\"} 3"), "{text}");
    assert!(text.contains("pidns_namespace_forks_total{pidns=\"7\"} 3"), "{text}");
}

#[test]
fn a_namespace_that_ended_during_a_snapshot_is_counted_once() {
    let ns = |kernel_id| Namespace {
        inum: NsInum(7),
        level: 1,
        parent: Some(NsInum(1)),
        born_boot_ns: Some(BootNs(100 * kernel_id)),
        kernel_id: Some(kernel_id),
        user_ns: 1,
        owner_uid: 0,
        container: None,
    };
    let Body::SnapshotNamespace { ns: found, .. } = namespace(7, None) else { unreachable!() };
    let found = SnapshotNamespace { born_boot_ns: Some(BootNs(700)), ..found };
    let teardown = |kernel_id| Body::NamespaceTeardown {
        ns: ns(kernel_id),
        killed: 0,
        nested: Vec::new(),
        duration_ns: 1,
    };
    let bodies = [
        start(),
        Body::SnapshotNamespace { ns: found, holders: Vec::new(), holders_left_out: 0 },
        // This event is about an earlier namespace with the same number. It follows the snapshot in the stream.
        teardown(6),
        teardown(7),
        Body::NamespaceDestroy { ns: ns(7), lived_ns: None },
    ];
    let text = scrape(bodies, 10);
    assert!(text.contains("pidns_namespace_destructions_total 2"), "{text}");
}

/// /proc rounds the start of an init to a clock tick, and older kernels have no other id of a namespace.
#[test]
fn a_namespace_with_a_rounded_birth_time_is_counted_once() {
    let Body::SnapshotNamespace { ns: found, .. } = namespace(7, None) else { unreachable!() };
    let found = SnapshotNamespace { kernel_id: None, born_boot_ns: Some(BootNs(10_000_000)), ..found };
    let ns = Namespace {
        inum: NsInum(7),
        level: 1,
        parent: Some(NsInum(1)),
        born_boot_ns: Some(BootNs(10_000_700)),
        kernel_id: None,
        user_ns: 1,
        owner_uid: 0,
        container: None,
    };
    let mut init = process(5, 7, 'S');
    if let Body::SnapshotProcess { process, .. } = &mut init {
        (process.pids, process.start_boot_ns) = (vec![5, 1], BootNs(10_000_000));
    }
    let bodies = [
        start(),
        Body::SnapshotNamespace { ns: found, holders: Vec::new(), holders_left_out: 0 },
        init,
        Body::NamespaceTeardown { ns, killed: 0, nested: Vec::new(), duration_ns: 1 },
    ];
    let text = scrape(bodies, 10);
    assert!(text.contains("pidns_namespace_destructions_total 1"), "{text}");
}

#[test]
fn possible_label_values_start_at_0() {
    let text = scrape([start()], 10);
    for line in [
        "pidns_init_exits_total{reason=\"oom_kill\",runtime=\"podman\"} 0",
        "pidns_fork_failures_total{reason=\"namespace_dead\"} 0",
        "pidns_process_forks_total{runtime=\"host\"} 0",
        "pidns_trace_events_lost_total{stage=\"ring\"} 0",
        "pidns_joins_total{result=\"refused\"} 0",
    ] {
        // The order of the labels does not matter.
        let (name, labels) = line.split_once('{').expect("labels");
        let mut labels: Vec<&str> = labels.trim_end_matches("} 0").split(',').collect();
        let is_there = text.lines().any(|found| {
            labels.sort_unstable();
            found.starts_with(name)
                && found.ends_with(" 0")
                && labels.iter().all(|label| found.contains(label))
        });
        assert!(is_there, "{line} is missing in\n{text}");
    }
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series <= 400, "{series} series for a host without namespaces");
}
