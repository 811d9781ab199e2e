//! A real Prometheus scrapes the real agent on three nodes, while namespaces are created, leak and end there.
//!
//! Each node is a network namespace with its own agent. All three agents see the same kernel, so every event in it
//! appears on three nodes, and its alerts fire three times. A fault of one agent appears on one node.
//!
//! One binary has three roles: the test runner; its actor (`actor NAME`), which creates situations with real system
//! calls like that of the kernel tests; and (`figures MINUTES`) the measurement of docs/measurements/many-machines.md.
//! All tests but those of `many_machines` check the same run. The first of them performs it, which takes about two
//! minutes. Run as root. `PIDNS_TRACE_BIN` names the program under test (by default the one that cargo built).

mod activity;
#[path = "../kernel/actor/mod.rs"]
#[expect(unused_imports, reason = "shared with the kernel tests")]
mod actor;
#[path = "../kernel/actor_handle.rs"]
#[expect(dead_code, reason = "shared with the kernel tests")]
mod actor_handle;
mod agent;
mod alert_tracker;
mod alerts;
mod causes;
#[path = "../kernel/cgroups.rs"]
mod cgroups;
mod dashboards;
mod examples;
#[path = "../kernel/facts.rs"]
#[expect(dead_code, reason = "shared with the kernel tests")]
mod facts;
mod figures;
mod many_machines;
mod network;
#[path = "../program/mod.rs"]
mod program;
mod promtool;
mod rules;
mod scenario;
#[path = "../kernel/sys.rs"]
#[expect(dead_code, reason = "shared with the kernel tests")]
mod sys;
mod tools;
#[path = "../kernel/uring.rs"]
mod uring;
mod webhook;

use libtest_mimic::{Arguments, Trial};

/// A test's name, which is a sentence, and its function.
type Test = (&'static str, fn(&scenario::Scenario));

/// `tests![a_sentence, …]`
macro_rules! tests {
    ($($body:ident),* $(,)?) => {
        &[$((stringify!($body), $body)),*]
    };
}
pub(crate) use tests;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|first| first == "actor") {
        std::process::exit(actor::main(&args[2..]));
    }
    if args.get(1).is_some_and(|first| first == "figures") {
        figures::main(&args[2..]);
        return;
    }
    let mut arguments = Arguments::from_args();
    // The tests share one run, and this thread's network namespace.
    arguments.test_threads = Some(1);
    if !arguments.list && sys::geteuid() != 0 {
        eprintln!(
            "the monitoring tests create network and PID namespaces and load eBPF programs: run them as root"
        );
        std::process::exit(101);
    }
    let files = [
        ("rules", rules::TESTS),
        ("alerts", alerts::TESTS),
        ("webhook", webhook::TESTS),
        ("dashboards", dashboards::TESTS),
        ("promtool", promtool::TESTS),
    ];
    let trial = |file: &str, (name, body): Test| {
        Trial::test(format!("{file}::{name}"), move || {
            scenario::with(body);
            Ok(())
        })
    };
    let of_play = files.iter().flat_map(|(file, tests)| tests.iter().map(|test| trial(file, *test)));
    // These tests come first, because the shared run leaves its agents and servers running.
    let of_many = many_machines::TESTS.iter().map(|(name, body)| {
        Trial::test(format!("many_machines::{name}"), move || {
            body();
            Ok(())
        })
    });
    let trials = of_many.chain(of_play).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // `exit` drops nothing, so stop everything here.
    scenario::end();
    conclusion.exit();
}
