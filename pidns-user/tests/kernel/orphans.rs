//! Compares the parents of orphans in a recording with the parents in /proc.

use pidns_user::{
    event::Body,
    event::identity::HostPid,
    model::{Reaper, World},
    source::recording::Recording,
};
use serde_json::Value;

use crate::actor_handle::Actor;
use crate::facts::Who;
use crate::recordings::{Recorder, expect_the_same, run_on};
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(orphans_have_the_parents_that_proc_shows),
    test!(a_subreaper_is_recognised_when_its_orphan_is_named),
    test!(a_zombie_in_a_recording_has_an_age),
];

/// Runs the situation, records it, and replays the recording into the model. When the parent of an orphan has exited,
/// the model must name the next parent as far as it is certain. Once an event names the orphan, the model must match
/// /proc.
fn expect_parents(situation: &str, far: impl Fn(&Who, &Who) -> u32) {
    let mut actor = Actor::start(situation, &[]);
    let _: bool = actor.hear("ready");
    let recorder = Recorder::start("it.ndjson", &[]);
    actor.go();
    let families = ["near", "far", "joined"];
    let orphans: Vec<Who> = families.iter().map(|family| actor.hear(family)).collect();
    actor.go();
    let _: bool = actor.hear("spoken");
    let (_directory, file) = recorder.stop();
    let init: Who = actor.hear("init");
    let between: Who = actor.hear("between");
    let init_pid = init.pid as u32;

    // The kernel must behave as the test expects.
    let expected = [init_pid, far(&init, &between), init_pid];
    let found: Vec<u32> = orphans.iter().map(|orphan| orphan.ppid as u32).collect();
    assert_eq!(found, expected, "the parents of {families:?} in /proc");

    let right_after = [
        Reaper::Parent(HostPid(init_pid)),
        Reaper::InitOrSubreaper { init: Some(HostPid(init_pid)) },
        Reaper::Parent(HostPid(init_pid)),
    ];
    let mut world = World::default();
    let mut exits = 0;
    let parents: Vec<Who> = families.iter().map(|family| actor.hear(&format!("{family}-parent"))).collect();
    for event in Recording::open(&file).expect("open the recording") {
        let event = event.expect("read the recording");
        world.apply(&event);
        let Body::ProcessExit { process, .. } = &event.body else { continue };
        let Some(family) = parents.iter().position(|parent| HostPid(parent.pid as u32) == process.pid) else {
            continue;
        };
        exits += 1;
        let orphan = world.process(HostPid(orphans[family].pid as u32)).expect("the orphan exists");
        assert!(orphan.orphaned, "{orphan:?}");
        assert_eq!(world.reaper(orphan), right_after[family], "{}: {orphan:?}", families[family]);
    }
    assert_eq!(exits, families.len(), "the recording must have each parent's exit");
    for (orphan, parent) in orphans.iter().zip(expected) {
        let known = world.process(HostPid(orphan.pid as u32)).expect("the orphan still exists");
        assert_eq!(world.reaper(known), Reaper::Parent(HostPid(parent)), "{known:?}");
    }
    expect_the_same(&file, init.ns);
    actor.go();
    actor.finish();
}

fn orphans_have_the_parents_that_proc_shows() {
    expect_parents("orphans", |init, _| init.pid as u32);
}

fn a_subreaper_is_recognised_when_its_orphan_is_named() {
    expect_parents("orphans-of-a-subreaper", |_, between| between.pid as u32);
}

fn a_zombie_in_a_recording_has_an_age() {
    let recorder = Recorder::start("it.ndjson", &[]);
    let mut actor = Actor::start("zombie-until-go", &[]);
    let _: u32 = actor.hear("zombie");
    let child: Who = actor.hear("child");
    let (_directory, file) = recorder.stop();
    let (code, exits, stderr) = run_on(&file, &["replay", "-o", "json", "-e", "process.exit"]);
    assert_eq!(code, Some(0), "{stderr}");
    let exit: Value = exits
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .find(|event: &Value| event["process"]["pid"] == child.pid)
        .expect("the recording has its exit");
    let (code, document, stderr) = run_on(&file, &["ps", &child.ns.to_string(), "-o", "json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let processes = document["processes"].as_array().expect("processes");
    let zombie = processes.iter().find(|process| process["pid"] == child.pid).expect("find the zombie");
    assert_eq!(zombie["zombie_since_boot_ns"], exit["boot_ns"], "{zombie}");
    assert!(exit["boot_ns"].is_u64(), "{exit}");
    let (code, table, stderr) = run_on(&file, &["ps", &child.ns.to_string()]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(table.contains("zombie for "), "{table}");
    actor.go();
    actor.finish();
}
