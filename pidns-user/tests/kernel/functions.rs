//! What only function hooks report, or report exactly.

use std::fs;

use aya::programs::loaded_programs;
use serde_json::json;

use crate::facts::Who;
use crate::seen::{boot_ns, expect, expect_absent, expect_process, get, in_ns};
use crate::stage::Actor;
use crate::tracer::{Tracer, watch};
use crate::{Test, probes, test};

pub(crate) const TESTS: &[Test] = &[
    test!(no_hook_on_system_calls_is_left, needs probes::function_hooks),
    test!(a_reap_is_reported_when_it_happens, needs probes::function_hooks),
    test!(a_zombie_from_before_the_start_is_seen_to_go, needs probes::function_hooks),
    test!(a_teardown_without_a_signal_is_exact, needs probes::function_hooks),
    test!(the_command_of_a_reboot_is_reported, needs probes::function_hooks),
];

/// By the kernel's own lists: the list of its programs has none of ours on sys_exit, and tracefs none at all on the
/// classic tracepoints of system calls (tp_btf does not show there).
fn no_hook_on_system_calls_is_left() {
    let tracer = Tracer::start(&[]);
    let programs: Vec<String> = loaded_programs()
        .map(|program| program.expect("programs can be listed").name_as_str().unwrap_or_default().to_owned())
        .collect();
    assert!(programs.iter().any(|name| name.starts_with("clone_returned")), "ours are among {programs:?}");
    assert!(!programs.iter().any(|name| name.starts_with("syscall_exit")), "one of ours of {programs:?}");
    let tracefs = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let root = tracefs.iter().find(|root| fs::exists(format!("{root}/events")).unwrap_or(false));
    let root = root.expect("tracefs is mounted where this test runs");
    for events in ["raw_syscalls", "syscalls"] {
        let enabled = fs::read_to_string(format!("{root}/events/{events}/enable"));
        assert_eq!(enabled.expect("tracefs can be read").trim(), "0", "{events} of tracefs");
    }
    let seen = tracer.stop();
    expect(seen.start(), "/hooks/sys_exit", "off: not needed beside the function hooks");
    expect(seen.start(), "/hooks/sched_process_free", "off: not needed beside the function hooks");
    expect(seen.start(), "/hooks/copy_pid_ns", "fexit");
    expect(seen.start(), "/hooks/zap_pid_ns_processes", "fentry+fexit");
}

fn a_zombie_from_before_the_start_is_seen_to_go() {
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
    assert!(boot_ns(reap) >= reaping, "it was not reaped before {reaping}: {reap}");
    assert_eq!(
        get::<u64>(reap, "/zombie_ns"),
        boot_ns(reap) - boot_ns(exit),
        "a zombie from exit to reaping"
    );
    let teardown = seen.one("namespace.teardown", in_ns(report.who("init").ns));
    assert!(boot_ns(teardown) >= boot_ns(reap), "its namespace waited for that:\n  {reap}\n  {teardown}");
}

/// The outer init has the kernel reap its children unasked while it dies: the inner one's death signals nothing.
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
        assert!(duration < boot_ns(teardown) - began, "it begins after the exit at {began}: {teardown}");
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
