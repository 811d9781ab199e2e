//! A real Prometheus that scrapes the real agent on three nodes, while namespaces live, leak and die there.
//!
//! The nodes are network namespaces, each with an agent of its own. All three agents see the same kernel: what happens in it
//! happens on three nodes at once, and alerts about it fire three times. What is wrong with one agent alone is so on one node.
//!
//! One binary with two faces, as the kernel tests are: the test runner, and (`actor NAME`) their actor, which makes situations
//! with real system calls. All tests check one play, which the first one plays: it takes about two minutes. Run as root.
//! `PIDNS_TRACE_BIN` names the program under test (else the one that cargo built).

#[path = "../kernel/actor/mod.rs"]
#[expect(unused_imports, reason = "shared with the kernel tests")]
mod actor;
mod agent;
mod alerts;
mod cast;
#[path = "../kernel/cgroups.rs"]
mod cgroups;
mod dashboards;
mod director;
#[path = "../kernel/facts.rs"]
#[expect(dead_code, reason = "shared with the kernel tests")]
mod facts;
mod network;
mod play;
#[path = "../program/mod.rs"]
mod program;
mod promtool;
mod rules;
mod scenes;
#[path = "../kernel/stage.rs"]
#[expect(dead_code, reason = "shared with the kernel tests")]
mod stage;
#[path = "../kernel/sys.rs"]
#[expect(dead_code, reason = "shared with the kernel tests")]
mod sys;
mod tools;
#[path = "../kernel/uring.rs"]
mod uring;
mod webhook;

use libtest_mimic::{Arguments, Trial};

/// A test's name, which is a sentence, and its body.
type Test = (&'static str, fn(&play::Play));

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
    let mut arguments = Arguments::from_args();
    // They share a play, and this thread's network namespace.
    arguments.test_threads = Some(1);
    if !arguments.list && sys::geteuid() != 0 {
        eprintln!(
            "the monitoring tests make network and PID namespaces and load eBPF programs: run them as root"
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
            play::with(body);
            Ok(())
        })
    };
    let trials = files.iter().flat_map(|(file, tests)| tests.iter().map(|test| trial(file, *test))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Nothing is dropped at an exit by itself.
    play::end();
    conclusion.exit();
}
