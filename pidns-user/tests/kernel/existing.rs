//! The start of a stream, and its comparison with the kernel: `--snapshot` and `--verify-interval`.

use serde_json::Value;

use crate::actor_handle::Actor;
use crate::facts::Who;
use crate::tracer::Tracer;
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(existing_processes_come_before_events),
    test!(a_filter_applies_to_the_snapshot_and_to_events),
    test!(the_model_from_events_matches_the_kernel),
];

const SECONDS_FOR_A_STORM: u64 = 120;

fn is_snapshot(event: &Value) -> bool {
    event["event"].as_str().is_some_and(|name| name.starts_with("snapshot."))
}

fn existing_processes_come_before_events() {
    let mut actor = Actor::start("still-joined", &[]);
    let init: Who = actor.hear("init");
    let child: Who = actor.hear("child");
    let _: bool = actor.hear("ready");
    let tracer = Tracer::start(&["--snapshot"]);
    let silent = Tracer::start(&[]);
    actor.go();
    let report = actor.finish();
    for stream in [&tracer, &silent] {
        stream.wait_for_process("namespace.init_exit", init.pid);
    }
    let (seen, silent) = (tracer.stop(), silent.stop());
    assert!(!silent.events.iter().any(is_snapshot), "a snapshot must only appear on request");

    let existing: Vec<&Value> = seen.events.iter().skip(1).take_while(|event| is_snapshot(event)).collect();
    let namespaces = existing.iter().filter(|event| event["ns"]["inum"] == init.ns).count();
    assert_eq!(namespaces, 1, "{existing:#?}");
    let of = |pid| existing.iter().find(|event| event["process"]["pid"] == pid);
    assert_eq!(of(init.pid).expect("the init")["joined"], false);
    assert_eq!(of(child.pid).expect("the joined process")["joined"], true);
    assert!(
        of(report.actor).is_none(),
        "the host's processes are hidden in the snapshot, as they are in events"
    );
    let model = &seen.end()["model"];
    assert!(model["processes"].as_u64().is_some_and(|count| count > 2), "{model}");
}

fn a_filter_applies_to_the_snapshot_and_to_events() {
    let [mut wanted, mut other] = ["still-zombie"; 2].map(|name| Actor::start(name, &[]));
    let [one, another]: [Who; 2] = [wanted.hear("init"), other.hear("init")];
    let ns = one.ns.to_string();
    let tracer = Tracer::start(&["--snapshot", "-n", &ns, "-e", "process.exit,namespace.init_exit"]);
    for actor in [&mut other, &mut wanted] {
        let _: bool = actor.hear("ready");
        actor.go();
    }
    other.finish();
    wanted.finish();
    tracer.wait_for_process("process.exit", one.pid);
    let seen = tracer.stop();
    let shown: Vec<&Value> =
        seen.events.iter().filter(|event| event["ns"].is_object() || event["process"].is_object()).collect();
    for event in &shown {
        let ns = event["ns"]["inum"].as_u64().or(event["process"]["ns"].as_u64());
        assert_eq!(ns, Some(one.ns), "the event is in {another:?} or on the host: {event:#}");
        let name = event["event"].as_str().expect("a name");
        assert!(is_snapshot(event) || ["process.exit", "namespace.init_exit"].contains(&name), "{name}");
    }
    assert!(shown.iter().any(|event| event["event"] == "snapshot.process"), "{shown:#?}");
    assert_eq!(seen.all("namespace.init_exit", |_| true).len(), 1);
}

/// Activity of other programs on the machine may be invisible (a kernel may run no BPF program for some process). One
/// of three runs without a difference is enough.
fn the_model_from_events_matches_the_kernel() {
    let mut ends = Vec::new();
    for _ in 0..3 {
        let tracer = Tracer::start(&["--verify-interval", "200ms", "-e", "namespace.*"]);
        let mut storm = Actor::start("storm", &["2000", "2"]);
        let _: Who = storm.hear("init");
        storm.go();
        let _: u64 = storm.hear_within(SECONDS_FOR_A_STORM, "lives");
        std::thread::sleep(std::time::Duration::from_secs(1));
        let seen = tracer.stop();
        storm.go();
        let _: Who = storm.hear("straggler");
        storm.go();
        storm.finish();
        assert!(seen.named("process.fork").next().is_none(), "forks are followed but not shown");
        let model = seen.end()["model"].clone();
        assert!(model["checks"].as_u64().is_some_and(|checks| checks >= 1), "{model}");
        let is_right = model["drift"].is_null() && seen.end()["lost"] == serde_json::json!({});
        ends.push(seen.end().clone());
        if is_right {
            return;
        }
    }
    panic!("in each run the model differed from the kernel, or events were lost: {ends:#?}");
}
