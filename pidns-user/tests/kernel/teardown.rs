//! Tests the exit of a PID 1 and the teardown of its namespace.

use serde_json::{Value, json};

use crate::actor_handle::{Actor, Report};
use crate::facts::{Ended, Who};
use crate::seen::{
    Seen, about, boot_ns, expect, expect_absent, expect_not, expect_order, expect_process, get, in_ns,
};
use crate::tracer::{Tracer, watch};
use crate::{Test, cgroups, probes, test};

pub(crate) const TESTS: &[Test] = &[
    test!(an_exiting_init_takes_every_member_down),
    test!(an_init_without_members_kills_no_process),
    test!(killed_init_takes_every_member_down_and_names_the_killer),
    test!(an_init_that_faults_has_the_cause_fault),
    test!(an_inner_namespace_dies_with_the_outer_one),
    test!(a_restart_inside_is_a_reboot),
    test!(a_halt_inside_is_a_reboot),
    test!(an_init_killed_by_oom_has_the_cause_oom, needs probes::memory_cgroup),
    test!(an_init_dies_with_its_last_thread_and_not_with_its_first),
    test!(an_exec_by_another_thread_of_init_is_not_a_death),
    test!(a_teardown_lasts_until_the_outside_parent_has_reaped),
];

/// Checks the three parts of an init's death, in order: its own exit, every member's exit, and the teardown.
fn expect_downfall(seen: &Seen, init: &Who, members: &[Who], killed_by: u64) {
    let init_exit = seen.one("namespace.init_exit", in_ns(init.ns));
    expect_process(init_exit, "/process", init);
    let teardown = seen.one("namespace.teardown", in_ns(init.ns));
    let duration: u64 = get(teardown, "/duration_ns");
    assert!((1..10_000_000_000).contains(&duration), "the teardown has an unlikely duration: {teardown}");
    for member in members {
        let exit = seen.of("process.exit", member);
        expect_process(exit, "/process", member);
        expect(exit, "/exit", json!({ "signal": "SIGKILL" }));
        expect(exit, "/cascade", killed_by);
        expect_order(&[init_exit, exit, teardown]);
    }
    let exit = seen.of("process.exit", init);
    expect_absent(exit, "/cascade");
    assert_eq!(
        exit["exit"], init_exit["exit"],
        "both events must have the same exit:\n  {exit}\n  {init_exit}"
    );
}

fn nested_of(teardown: &Value) -> Vec<u64> {
    teardown.get("nested").map_or(Vec::new(), |_| get(teardown, "/nested"))
}

fn an_exiting_init_takes_every_member_down() {
    let (report, seen) = watch("exit-with-members", &["50", "7"]);
    let (init, members): (Who, Vec<Who>) = (report.who("init"), report.all("member"));
    assert_eq!(members.len(), 50, "the number of members");

    let init_exit = seen.one("namespace.init_exit", in_ns(init.ns));
    expect(init_exit, "/exit", json!({ "code": 7 }));
    expect(init_exit, "/cause", json!({ "kind": "exited" }));
    expect(init_exit, "/members", 50);
    expect_downfall(&seen, &init, &members, init.ns);
    let teardown = seen.one("namespace.teardown", in_ns(init.ns));
    expect(teardown, "/killed", 50);
    assert!(nested_of(teardown).is_empty(), "no namespace is nested here: {teardown}");
    let fallen = seen.all("process.exit", |event| event["cascade"] == init.ns);
    assert_eq!(fallen.len(), 50, "the number of killed members");
}

fn an_init_without_members_kills_no_process() {
    let (report, seen) = watch("exit-with-members", &["0", "0"]);
    let init = report.who("init");
    let init_exit = seen.one("namespace.init_exit", in_ns(init.ns));
    expect(init_exit, "/exit", json!({ "code": 0 }));
    expect(init_exit, "/cause", json!({ "kind": "exited" }));
    expect(init_exit, "/members", 0);
    expect_downfall(&seen, &init, &[], init.ns);
    expect(seen.one("namespace.teardown", in_ns(init.ns)), "/killed", 0);
}

fn killed_init_takes_every_member_down_and_names_the_killer() {
    let (report, seen) = watch("killed-from-outside", &[]);
    let (init, killer, members): (Who, Who, Vec<Who>) =
        (report.who("init"), report.who("killer"), report.all("member"));
    assert_eq!(report.the::<Ended>("end").signal, Some(libc::SIGKILL));

    let init_exit = seen.one("namespace.init_exit", in_ns(init.ns));
    expect(init_exit, "/exit", json!({ "signal": "SIGKILL" }));
    expect(init_exit, "/cause/kind", "signal");
    expect(init_exit, "/cause/signal", "SIGKILL");
    expect_process(init_exit, "/cause/sender", &killer);
    expect(init_exit, "/members", 3);
    expect_downfall(&seen, &init, &members, init.ns);
    expect(seen.one("namespace.teardown", in_ns(init.ns)), "/killed", 3);
}

fn an_init_that_faults_has_the_cause_fault() {
    let (report, seen) = watch("fault", &[]);
    let (init, members): (Who, Vec<Who>) = (report.who("init"), report.all("member"));
    let init_exit = seen.one("namespace.init_exit", in_ns(init.ns));
    expect(init_exit, "/exit/signal", "SIGSEGV");
    expect_not(init_exit, "/exit/core");
    expect(init_exit, "/cause", json!({ "kind": "fault", "signal": "SIGSEGV" }));
    expect_downfall(&seen, &init, &members, init.ns);
}

fn an_inner_namespace_dies_with_the_outer_one() {
    let tracer = Tracer::start(&["-e", "all"]);
    let report = Actor::start("nested-teardown", &[]).finish();
    let inner_is_down = |event: &Value| event["event"] == "namespace.teardown" && event["ns"]["level"] == 2;
    tracer.wait_for("the teardown of the inner namespace", inner_is_down);
    let seen = tracer.stop_after(&report);
    let (outer, inner, members): (Who, Who, Vec<Who>) =
        (report.who("outer"), report.who("inner"), report.all("member"));

    let outer_exit = seen.one("namespace.init_exit", in_ns(outer.ns));
    expect_process(outer_exit, "/cause/sender", &report.who("killer"));
    expect(outer_exit, "/members", 4);
    let inner_exit = seen.one("namespace.init_exit", in_ns(inner.ns));
    expect(inner_exit, "/exit", json!({ "signal": "SIGKILL" }));
    expect(inner_exit, "/cause", json!({ "kind": "cascade", "ns": outer.ns }));
    expect(inner_exit, "/members", 3);

    let (outer_end, inner_end) =
        (seen.one("namespace.teardown", in_ns(outer.ns)), seen.one("namespace.teardown", in_ns(inner.ns)));
    expect(outer_end, "/killed", 4);
    assert_eq!(nested_of(outer_end), [inner.ns], "the inner namespace died with it: {outer_end}");
    assert!(nested_of(inner_end).is_empty(), "no namespace is nested there: {inner_end}");
    expect_order(&[outer_exit, inner_exit, outer_end]);
    if inner_end["exact"] != false {
        // The outer init ignores SIGCHLD by then, so a hook may report the end of the inner namespace late.
        expect_order(&[inner_exit, inner_end, outer_end]);
    }

    // The outer init sends all its signals at once, before the inner one can wake up and send its own.
    expect_downfall(&seen, &outer, &members, outer.ns);
    expect(seen.of("process.exit", &inner), "/cascade", outer.ns);
}

fn a_restart_inside_is_a_reboot() {
    reboots_inside("restart", "SIGHUP");
}

fn a_halt_inside_is_a_reboot() {
    reboots_inside("halt", "SIGINT");
}

/// The parent's wait status names the command: SIGHUP for a restart, SIGINT for a halt.
fn reboots_inside(command: &str, signal: &str) {
    let (report, seen) = watch("reboot", &[command]);
    let (init, members): (Who, Vec<Who>) = (report.who("init"), report.all("member"));
    let init_exit = seen.one("namespace.init_exit", in_ns(init.ns));
    expect(init_exit, "/cause", json!({ "kind": "reboot", "command": command }));
    expect(init_exit, "/exit", json!({ "signal": signal }));
    expect_downfall(&seen, &init, &members, init.ns);
}

fn an_init_killed_by_oom_has_the_cause_oom() {
    let group = cgroups::memory_cgroups().expect("the probe found the memory controller").make(16 << 20);
    let (report, seen) = watch("memory-runs-out", &[group.path()]);
    let init = report.who("init");
    let init_exit = seen.one("namespace.init_exit", in_ns(init.ns));
    expect(init_exit, "/exit", json!({ "signal": "SIGKILL" }));
    expect(init_exit, "/cause/kind", "oom");
    expect_process(init_exit, "/cause/victim", &init);
}

/// Runs a situation that reports `halfway` and waits, and then lets it continue.
fn watch_in_two_halves(situation: &str, halfway: &str) -> (Report, Seen) {
    let tracer = Tracer::start(&["-e", "all"]);
    let mut actor = Actor::start(situation, &[]);
    let _: Value = actor.hear(halfway);
    actor.go();
    let report = actor.finish();
    let seen = tracer.stop_after(&report);
    (report, seen)
}

fn an_init_dies_with_its_last_thread_and_not_with_its_first() {
    let (report, seen) = watch_in_two_halves("leader-leaves-init", "leader-gone");
    let init = report.who("init");
    assert_eq!(report.the::<Ended>("end").code, Some(9), "the second thread's exit code counts");
    let last_leaves: u64 = report.the("last-leaves");
    for event in [seen.one("namespace.init_exit", in_ns(init.ns)), seen.of("process.exit", &init)] {
        assert!(
            boot_ns(event) >= last_leaves,
            "the end of the first thread must not count as the init's: {event}"
        );
        expect_process(event, "/process", &init);
        expect(event, "/exit", json!({ "code": 9 }));
    }
    expect(seen.of("process.exit", &init), "/threads", 2);
    seen.one("namespace.teardown", in_ns(init.ns));
}

fn an_exec_by_another_thread_of_init_is_not_a_death() {
    let (report, seen) = watch_in_two_halves("thread-execs-in-init", "after-exec");
    let (init, after): (Who, Who) = (report.who("init"), report.who("after-exec"));
    assert_eq!((init.pid, &init.pids), (after.pid, &after.pids), "the thread must become PID 1");
    let execs = seen.all("process.exec", about(init.pid));
    assert_eq!(execs.len(), 2, "expected one exec by the actor and one by the thread: {execs:#?}");
    let leaving: u64 = report.the("leaving");
    for event in [seen.one("namespace.init_exit", in_ns(init.ns)), seen.of("process.exit", &init)] {
        assert!(boot_ns(event) >= leaving, "no process may die at the exec: {event}");
        expect_process(event, "/process", &after);
        expect(event, "/exit", json!({ "code": 4 }));
    }
}

fn a_teardown_lasts_until_the_outside_parent_has_reaped() {
    let (report, seen) = watch("zombie-held-from-outside", &["300"]);
    let init = report.who("init");
    let reaping: u64 = report.the("reaping");
    let init_exit = seen.one("namespace.init_exit", in_ns(init.ns));
    assert!(boot_ns(init_exit) < reaping, "the init must die at once: {init_exit}");
    let teardown = seen.one("namespace.teardown", in_ns(init.ns));
    assert!(boot_ns(teardown) >= reaping, "the namespace must wait for the outside parent: {teardown}");
    let duration: u64 = get(teardown, "/duration_ns");
    assert!((200_000_000..5_000_000_000).contains(&duration), "expected about 300 ms: {teardown}");
}
