//! Facts that only function hooks report, or report exactly.

use std::fs;

use aya::programs::loaded_programs;
use serde_json::json;

use crate::actor_handle::Actor;
use crate::facts::Who;
use crate::seen::{boot_ns, expect, expect_absent, expect_process, get, in_ns};
use crate::tracer::{Tracer, watch};
use crate::{Test, probes, test};

pub(crate) const TESTS: &[Test] = &[
    test!(function_hooks_leave_no_hook_on_system_calls, needs probes::function_hooks),
    test!(a_reap_is_reported_when_it_happens, needs probes::function_hooks),
    test!(the_reap_of_an_older_zombie_is_reported, needs probes::function_hooks),
    test!(a_teardown_without_a_signal_is_exact, needs probes::function_hooks),
    test!(the_command_of_a_reboot_is_reported, needs probes::function_hooks),
];

/// Checks the kernel's own lists. The list of programs must have none of ours on sys_exit, and tracefs none on the
/// classic tracepoints of system calls (it does not show tp_btf).
fn function_hooks_leave_no_hook_on_system_calls() {
    let tracer = Tracer::start(&[]);
    let programs: Vec<String> = loaded_programs()
        .map(|program| program.expect("list the programs").name_as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(
        programs.iter().any(|name| name.starts_with("clone_returned")),
        "expected one of our programs in {programs:?}"
    );
    assert!(
        !programs.iter().any(|name| name.starts_with("syscall_exit")),
        "found a syscall program in {programs:?}"
    );
    let tracefs = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let root = tracefs.iter().find(|root| fs::exists(format!("{root}/events")).unwrap_or(false));
    let root = root.expect("tracefs is mounted where this test runs");
    for events in ["raw_syscalls", "syscalls"] {
        let enabled = fs::read_to_string(format!("{root}/events/{events}/enable"));
        assert_eq!(enabled.expect("read tracefs").trim(), "0", "{events} of tracefs");
    }
    let seen = tracer.stop();
    expect(seen.start(), "/hooks/sys_exit", "off: not needed with the function hooks");
    expect(seen.start(), "/hooks/sched_process_free", "off: not needed with the function hooks");
    expect(seen.start(), "/hooks/copy_pid_ns", "fexit");
    expect(seen.start(), "/hooks/zap_pid_ns_processes", "fentry+fexit");
}

fn the_reap_of_an_older_zombie_is_reported() {
    let mut actor = Actor::start("zombie-until-go", &[]);
    let child: Who = actor.hear("child");
    let _pid: u32 = actor.hear("zombie");
    let tracer = Tracer::start(&["-e", "all"]);
    actor.go();
    actor.finish();
    tracer.wait_for_process("process.reap", child.pid);
    let seen = tracer.stop();
    let reap = seen.of("process.reap", &child);
    expect(reap, "/process/pids", child.pids.clone());
    expect_absent(reap, "/exact");
    expect_absent(reap, "/zombie_ns");
}

fn a_reap_is_reported_when_it_happens() {
    let (report, seen) = watch("zombie-held-from-outside", &["100"]);
    let zombie = report.who("zombie");
    let reaping: u64 = report.the("reaping");
    let exit = seen.of("process.exit", &zombie);
    let reap = seen.of("process.reap", &zombie);
    expect_absent(reap, "/exact");
    assert!(boot_ns(reap) >= reaping, "the reap must not be before {reaping}: {reap}");
    assert_eq!(
        get::<u64>(reap, "/zombie_ns"),
        boot_ns(reap) - boot_ns(exit),
        "it was a zombie from exit to reap"
    );
    let teardown = seen.one("namespace.teardown", in_ns(report.who("init").ns));
    assert!(
        boot_ns(teardown) >= boot_ns(reap),
        "the namespace must wait for the reap:\n  {reap}\n  {teardown}"
    );
}

/// While the outer init dies, the kernel reaps its children automatically, so the inner init's death sends no signal.
fn a_teardown_without_a_signal_is_exact() {
    let tracer = Tracer::start(&["-e", "all"]);
    let report = Actor::start("nested-teardown", &[]).finish();
    let seen = tracer.stop_after(&report);
    for who in ["outer", "inner"] {
        let who: Who = report.who(who);
        let teardown = seen.one("namespace.teardown", in_ns(who.ns));
        expect_absent(teardown, "/exact");
        let began = boot_ns(seen.one("namespace.init_exit", in_ns(who.ns)));
        let duration: u64 = get(teardown, "/duration_ns");
        assert!(
            duration < boot_ns(teardown) - began,
            "the teardown must begin after the exit at {began}: {teardown}"
        );
    }
}

fn the_command_of_a_reboot_is_reported() {
    let (report, seen) = watch("reboot", &["power_off"]);
    let init = report.who("init");
    let init_exit = seen.one("namespace.init_exit", in_ns(init.ns));
    expect(init_exit, "/cause", json!({ "kind": "reboot", "command": "power_off" }));
    expect(init_exit, "/exit", json!({ "signal": "SIGINT" }));
    expect_process(init_exit, "/process", &init);
}
