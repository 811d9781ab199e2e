//! The states of processes and namespaces in each view: dying and waiting namespaces, zombies that their parents
//! cannot reap, and processes whose parents are outside.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use pidns_user::event::identity::NsInum;
use pidns_user::kernel::clock;
use pidns_user::procfs::Procfs;
use serde_json::{Value, json};

use crate::actor_handle::Actor;
use crate::cgroups::{ScratchCgroup, unified_cgroups};
use crate::facts::Who;
use crate::forest::{document, namespace, output, process};
use crate::probes::Outcome;
use crate::recordings::{Recorder, run_on};
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_hung_teardown_names_the_outside_parent_that_it_waits_for),
    test!(a_recording_of_a_teardown_shows_an_exiting_init_that_is_not_a_zombie),
    test!(a_nested_namespace_dies_with_its_dying_parent, needs freezer),
    test!(a_process_in_a_frozen_v2_cgroup_is_shown_as_frozen_and_dies_of_sigkill, needs crate::probes::unified_cgroup),
    test!(a_traced_zombie_is_reaped_by_its_tracer_first),
    test!(a_process_whose_first_thread_has_ended_is_not_a_zombie),
    test!(an_init_whose_first_thread_has_ended_is_alive),
    test!(a_snapshot_knows_the_age_of_a_zombie),
    test!(the_adopter_of_a_process_is_not_shown_as_its_forker),
    test!(a_child_born_inside_is_not_shown_as_joined),
];

const FREEZER: &str = "/sys/fs/cgroup/freezer";

fn freezer() -> Outcome {
    match Path::new(FREEZER).join("cgroup.procs").exists() {
        true => Outcome::Run,
        false => Outcome::Skip("this machine has no cgroup v1 freezer".into()),
    }
}

#[track_caller]
fn explain(target: impl ToString) -> (Value, String) {
    let target = target.to_string();
    (document(&["explain", &target]), output(&["explain", &target], 0).0)
}

/// The state in a recording, as a JSON document and as text.
#[track_caller]
fn recorded(file: &Path, args: &[&str]) -> (Value, String) {
    let (code, text, stderr) = run_on(file, args);
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    let (_, document, _) = run_on(file, &[args, &["-o", "json"]].concat());
    (serde_json::from_str(&document).unwrap_or_else(|error| panic!("{error}: {document}")), text)
}

/// The document's reason why this process still exists.
#[track_caller]
fn why(waits_for: &Value, pid: i32) -> &Value {
    let all = waits_for.as_array().unwrap_or_else(|| panic!("waits_for is not a list: {waits_for}"));
    let found = all.iter().find(|awaited| awaited["process"]["pid"] == pid);
    &found.unwrap_or_else(|| panic!("no {pid}: {waits_for:#}"))["why"]
}

fn not_reaped_by(parent: &Who) -> Value {
    json!({ "kind": "not_reaped", "pid": parent.pid, "comm": parent.comm })
}

fn a_hung_teardown_names_the_outside_parent_that_it_waits_for() {
    let mut actor = Actor::start("hung-teardown", &[]);
    let (init, zombie, parent): (Who, Who, Who) =
        (actor.hear("init"), actor.hear("zombie"), actor.hear("parent"));
    actor.go();
    let _: bool = actor.hear("ready");
    let ns = init.ns.to_string();

    let tree = document(&["tree", &ns]);
    let line = namespace(&tree, init.ns);
    assert_eq!((&line["ns"]["dying"], &line["init"]["exiting"]), (&true.into(), &true.into()), "{line:#}");
    assert_eq!((why(&line["waits_for"], zombie.pid), &line["zombies"]), (&not_reaped_by(&parent), &1.into()));
    let (table, _) = output(&["tree", &ns], 0);
    let expected =
        format!("dying: waits for {}[{}] (zombie: {}[{}]", zombie.comm, zombie.pid, parent.comm, parent.pid);
    assert!(table.contains(&expected), "{table}");

    let listed = document(&["ps", &ns]);
    let (of_init, of_zombie) = (process(&listed, init.pid), process(&listed, zombie.pid));
    assert_eq!((&of_init["exiting"], &of_init["zombie"]), (&true.into(), &false.into()), "{of_init:#}");
    let times = (of_init["last_ran_boot_ns"].as_u64(), listed["boot_ns"].as_u64());
    assert!(matches!(times, (Some(ran), Some(now)) if 0 < ran && ran < now), "{of_init:#}");
    assert_eq!(
        of_zombie["awaited"],
        json!({ "ns": init.ns, "why": not_reaped_by(&parent) }),
        "{of_zombie:#}"
    );
    assert!(output(&["ps", &ns], 0).0.contains("exiting: waits for 1 process"), "{listed:#}");

    let (explained, text) = explain(&ns);
    let facts = &explained["namespace"];
    assert_eq!(facts["state"]["kind"], "dying", "{facts:#}");
    assert_eq!(why(&facts["waits_for"], zombie.pid), &not_reaped_by(&parent));
    assert!(text.contains("its PID 1 is exiting") && text.contains("1 process is left"), "{text}");
    assert!(text.contains("1 exiting, 1 Z (ended)"), "{text}");
    let (_, text) = explain(init.pid);
    assert!(text.contains("exiting: it waits") && text.contains(&zombie.pid.to_string()), "{text}");
    let (_, text) = explain(zombie.pid);
    assert!(text.contains(&format!("the end of {ns}")), "{text}");

    // A snapshot only from /proc shows it too.
    let shown = Procfs::default().snapshot(clock::boottime_ns(), &mut || {}).expect("read /proc");
    let of_init =
        shown.processes.iter().find(|process| process.pid.0 == init.pid as u32).expect("find the init");
    assert!(of_init.exiting && shown.namespaces[&NsInum(init.ns as u32)].dying, "{of_init:?}");

    // A recording that begins now shows it too.
    let (_directory, file) = Recorder::start("late.ndjson", &[]).stop();
    let (explained, text) = recorded(&file, &["explain", &ns]);
    let facts = &explained["namespace"];
    assert_eq!(facts["state"]["kind"], "dying", "{facts:#}");
    assert_eq!(why(&facts["waits_for"], zombie.pid), &not_reaped_by(&parent), "{text}");
    let (listed, _) = recorded(&file, &["ps", &ns]);
    let of_init = process(&listed, init.pid);
    assert_eq!((&of_init["exiting"], of_init["zombie"] == true), (&true.into(), false), "{of_init:#}");
    actor.go();
    actor.finish();
}

fn a_recording_of_a_teardown_shows_an_exiting_init_that_is_not_a_zombie() {
    let mut actor = Actor::start("hung-teardown", &[]);
    let (init, zombie, parent): (Who, Who, Who) =
        (actor.hear("init"), actor.hear("zombie"), actor.hear("parent"));
    let recorder = Recorder::start("early.ndjson", &[]);
    actor.go();
    let _: bool = actor.hear("ready");
    let (_directory, file) = recorder.stop();
    let ns = init.ns.to_string();
    let (explained, text) = recorded(&file, &["explain", &ns]);
    let facts = &explained["namespace"];
    assert_eq!(
        (&facts["state"]["kind"], &facts["state"]["cause"]["kind"]),
        (&"dying".into(), &"exited".into())
    );
    // It was a zombie before, and the snapshot shows that nothing traces it.
    assert_eq!(why(&facts["waits_for"], zombie.pid), &not_reaped_by(&parent), "{text}");
    assert!(!text.contains("PID 1 must be reaped"), "{text}");
    let (listed, _) = recorded(&file, &["ps", &ns]);
    let of_init = process(&listed, init.pid);
    assert_eq!((&of_init["exiting"], of_init["zombie"] == true), (&true.into(), false), "{of_init:#}");
    let (_, text) = recorded(&file, &["explain", &init.pid.to_string()]);
    assert!(text.contains("exiting: it waits") && !text.contains("zombie: it ended"), "{text}");
    actor.go();
    actor.finish();
}

/// Thaws the cgroup on drop, because a frozen process cannot even be killed.
pub(crate) struct Thaws(pub(crate) ScratchCgroup);

impl Drop for Thaws {
    fn drop(&mut self) {
        let _thawed_already = fs::write(format!("{}/freezer.state", self.0.path()), "THAWED");
    }
}

fn a_nested_namespace_dies_with_its_dying_parent() {
    let group = Thaws(ScratchCgroup::make(FREEZER));
    let mut actor = Actor::start("frozen-teardown", &[group.0.path()]);
    let (outer, inner): (Who, Who) = (actor.hear("outer"), actor.hear("inner"));
    let _: bool = actor.hear("ready");
    let (explained, text) = explain(outer.ns);
    let frozen = json!({ "kind": "frozen" });
    assert_eq!(why(&explained["namespace"]["waits_for"], inner.pid), &frozen, "{text}");
    assert!(text.contains("thawed"), "{text}");
    let (explained, text) = explain(inner.ns);
    let state = &explained["namespace"]["state"];
    let expected = json!({ "kind": "dying", "cause": { "kind": "cascade", "ns": outer.ns } });
    assert_eq!(*state, expected, "{text}");
    let (explained, text) = explain(inner.pid);
    let facts = &explained["process"];
    assert_eq!(facts["process"]["frozen"], true, "{facts:#}");
    assert_eq!(facts["process"]["freezer"], "cgroup_v1_or_suspend", "{facts:#}");
    assert_eq!(facts["awaited"], json!({ "ns": outer.ns, "why": frozen }), "{text}");
    let (table, _) = output(&["tree", &outer.ns.to_string()], 0);
    assert!(table.contains("(frozen)") && table.contains(&format!("dying with {}", outer.ns)), "{table}");
    actor.go();
    actor.finish();
}

fn a_process_in_a_frozen_v2_cgroup_is_shown_as_frozen_and_dies_of_sigkill() {
    let group = ScratchCgroup::make(unified_cgroups().expect("the probe found cgroup v2"));
    let mut actor = Actor::start("frozen-v2", &[group.path()]);
    let (init, frozen): (Who, Who) = (actor.hear("init"), actor.hear("frozen"));
    let _: bool = actor.hear("ready");
    let (_directory, file) = Recorder::start("it.ndjson", &[]).stop();
    let (ns, pid) = (init.ns.to_string(), frozen.pid.to_string());
    for (listed, table) in
        [(document(&["ps", &ns]), output(&["ps", &ns], 0).0), recorded(&file, &["ps", &ns])]
    {
        let line = process(&listed, frozen.pid);
        let found = (&line["frozen"], &line["freezer"], &line["state"]);
        assert_eq!(found, (&true.into(), &"cgroup_v2".into(), &"S".into()), "{line:#}");
        assert!(
            process(&listed, init.pid).get("frozen").is_none(),
            "its PID 1 must not be frozen: {listed:#}"
        );
        assert!(table.contains("frozen"), "{table}");
    }
    for (_, text) in [explain(&pid), recorded(&file, &["explain", &pid])] {
        assert!(text.contains("frozen by its cgroup (cgroup.freeze)"), "{text}");
    }
    actor.go();
    // The cgroup stays frozen, but the namespace must end.
    actor.finish();
}

fn a_traced_zombie_is_reaped_by_its_tracer_first() {
    let mut actor = Actor::start("traced-zombie", &[]);
    let (init, child, tracer): (Who, Who, Who) =
        (actor.hear("init"), actor.hear("child"), actor.hear("tracer"));
    let _: bool = actor.hear("alive");
    let (explained, text) = explain(child.pid);
    assert_eq!(explained["process"]["traced_by"]["pid"], tracer.pid, "{text}");
    assert!(text.contains("Traced by"), "{text}");
    actor.go();
    let _: bool = actor.hear("ready");
    let (explained, text) = explain(child.pid);
    let zombie = &explained["process"]["zombie"];
    assert_eq!((&zombie["tracer"]["pid"], &zombie["reaper"]["pid"]), (&tracer.pid.into(), &init.pid.into()));
    let expected = format!("its tracer {}[{}] keeps it until", tracer.comm, tracer.pid);
    assert!(text.contains(&expected), "{text}");
    let (_, text) = explain(init.ns);
    assert!(text.contains(&expected), "{text}");

    let (_directory, file) = Recorder::start("it.ndjson", &[]).stop();
    let (explained, text) = recorded(&file, &["explain", &child.pid.to_string()]);
    assert_eq!(explained["process"]["zombie"]["tracer"]["pid"], tracer.pid, "{text}");
    assert!(text.contains(&expected), "{text}");
    actor.go();
    actor.finish();
}

fn a_snapshot_knows_the_age_of_a_zombie() {
    /// The precision with which the scheduler's clock is compared with the other one.
    const ABOUT_NS: u64 = 100_000_000;
    let before = clock::boottime_ns().0;
    let mut child = Command::new("true").spawn().expect("start `true`");
    while fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|stat| !stat.contains(") Z ")) {
        thread::sleep(Duration::from_millis(1));
    }
    let after = clock::boottime_ns().0;
    thread::sleep(Duration::from_millis(700));
    let listed = document(&["ps", &child.id().to_string()]);
    let line = process(&listed, child.id() as i32);
    let since =
        line["zombie_since_boot_ns"].as_u64().unwrap_or_else(|| panic!("no start of the zombie: {line:#}"));
    let about = before.saturating_sub(ABOUT_NS)..after + ABOUT_NS;
    assert!(about.contains(&since), "{since} is not in {about:?}");
    let (explained, text) = explain(child.id());
    let report = explained["process"]["zombie"]["since_boot_ns"].as_u64();
    assert!(report.is_some_and(|since| about.contains(&since)), "{explained:#}");
    assert!(text.contains("zombie: it ended ") && text.contains(" ago, at "), "{text}");
    child.wait().expect("reap the child");
}

fn a_process_whose_first_thread_has_ended_is_not_a_zombie() {
    let mut actor = Actor::start("first-thread-gone", &[]);
    let (init, child): (Who, Who) = (actor.hear("init"), actor.hear("child"));
    let _: bool = actor.hear("ready");
    let ns = init.ns.to_string();
    let listed = document(&["ps", &ns]);
    let line = process(&listed, child.pid);
    let found = (&line["state"], &line["zombie"], &line["threads"], &line["threads_live"]);
    assert_eq!(found, (&"Z".into(), &false.into(), &2.into(), &1.into()), "{line:#}");
    for (text, what) in
        [(explain(child.pid).1, "1 other lives"), (explain(&ns).1, "only their first thread ended")]
    {
        assert!(text.contains(what) && !text.contains("must reap"), "{text}");
    }
    let (_directory, file) = Recorder::start("it.ndjson", &[]).stop();
    let (_, text) = recorded(&file, &["explain", &child.pid.to_string()]);
    assert!(text.contains("1 other lives"), "{text}");
    actor.go();
    actor.finish();
}

/// The namespace lives as long as another thread of its PID 1 does.
fn an_init_whose_first_thread_has_ended_is_alive() {
    let mut actor = Actor::start("first-thread-of-init-gone", &[]);
    let init: Who = actor.hear("child");
    let _: bool = actor.hear("ready");
    assert_eq!(init.pids.last(), Some(&1), "{init:?}");
    let ns = init.ns.to_string();
    let listed = document(&["ps", &ns]);
    let line = process(&listed, init.pid);
    let found = (&line["state"], &line["zombie"], &line["threads"], &line["threads_live"]);
    assert_eq!(found, (&"Z".into(), &false.into(), &2.into(), &1.into()), "{line:#}");
    let (report, text) = explain(&ns);
    assert_eq!(report["namespace"]["state"]["kind"], "alive", "{report:#}");
    assert!(report["namespace"]["zombies"].as_array().is_some_and(Vec::is_empty), "{report:#}");
    assert!(!text.contains("must reap") && !text.contains("dying"), "{text}");
    let (_, text) = explain(init.pid);
    assert!(text.contains("1 other lives") && !text.contains("must reap it"), "{text}");
    let (table, _) = output(&["tree", &ns], 0);
    assert!(!table.contains("zombie") && !table.contains("dying") && !table.contains('!'), "{table}");
    let (_directory, file) = Recorder::start("it.ndjson", &[]).stop();
    let (report, text) = recorded(&file, &["explain", &ns]);
    assert_eq!(report["namespace"]["state"]["kind"], "alive", "{text}");
    actor.go();
    actor.finish();
}

fn the_adopter_of_a_process_is_not_shown_as_its_forker() {
    let mut actor = Actor::start("adopted-from-outside", &[]);
    let (init, adopter): (Who, Who) = (actor.hear("init"), actor.hear("adopter"));
    let recorder = Recorder::start("it.ndjson", &[]);
    actor.go();
    let (forker, child): (Who, Who) = (actor.hear("forker"), actor.hear("child"));
    let _: bool = actor.hear("ready");
    let ns = init.ns.to_string();
    let expected = format!("its parent is outside: {}[{}]", adopter.comm, adopter.pid);
    for text in [output(&["ps", &ns], 0).0, explain(child.pid).1, explain(&ns).1] {
        assert!(text.contains(&expected) && !text.contains("forked by"), "{text}");
    }
    let (table, _) = output(&["tree", &ns], 0);
    assert!(table.contains("parent outside: ") && !table.contains("joined"), "{table}");
    let listed = document(&["ps", &ns]);
    let line = process(&listed, child.pid);
    assert_eq!((&line["joined"], line.get("forked_by")), (&true.into(), None), "{line:#}");

    let (_directory, file) = recorder.stop();
    let (listed, text) = recorded(&file, &["ps", &ns]);
    assert_eq!(process(&listed, child.pid)["forked_by"], forker.pid, "{text}");
    // The recording has the forker's name, although the forker has ended.
    let named = format!("{}[{}]", forker.comm, forker.pid);
    assert!(text.contains(&format!("joined: forked by {named}")), "{text}");
    let (tree, _) = output(&["tree", &ns, "--from", file.to_str().expect("a path")], 0);
    assert!(tree.contains(&format!("from {named}")), "{tree}");
    let (explained, text) = recorded(&file, &["explain", &child.pid.to_string()]);
    assert_eq!(explained["process"]["forked_by"], forker.pid, "{text}");
    let (tree, _) = recorded(&file, &["tree", &ns]);
    assert_eq!(namespace(&tree, init.ns)["joined"][0]["forked_by"], forker.pid, "{tree:#}");
    actor.go();
    actor.finish();
}

fn a_child_born_inside_is_not_shown_as_joined() {
    let mut actor = Actor::start("born-with-a-parent-outside", &[]);
    let (init, parent): (Who, Who) = (actor.hear("init"), actor.hear("parent"));
    let recorder = Recorder::start("it.ndjson", &[]);
    actor.go();
    let (joined, born): (Who, Who) = (actor.hear("joined"), actor.hear("born"));
    let _: bool = actor.hear("ready");
    let ns = init.ns.to_string();
    // The kernel must behave as the test expects.
    assert_eq!((joined.ppid, born.ppid), (parent.pid, parent.pid));
    // Their parents do not distinguish the two.
    let (_, text) = explain(born.pid);
    assert!(text.contains("its parent is outside: ") && !text.contains("joined"), "{text}");
    let (_directory, file) = recorder.stop();
    let (listed, text) = recorded(&file, &["ps", &ns]);
    let line = |who: &Who| process(&listed, who.pid)["joined"].clone();
    assert_eq!((line(&joined), line(&born)), (true.into(), false.into()), "{text}");
    let (_, text) = recorded(&file, &["explain", &born.pid.to_string()]);
    assert!(text.contains("born there"), "{text}");
    actor.go();
    actor.finish();
}
