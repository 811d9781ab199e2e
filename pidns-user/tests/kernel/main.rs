//! Tests the real program on the running kernel.
//!
//! One binary has two roles: the test runner, and the process that creates a situation with real system calls (`actor
//! NAME`). Tests run one after the other and as root. `PIDNS_TRACE_BIN` names the program under test (by default the
//! one that cargo built). `PIDNS_TEST_HOOKS` is its `--hooks`. `PIDNS_TEST_PATIENCE` multiplies every time limit.
//! `PIDNS_TEST_LIVES` is the number of processes in the big storms, `PIDNS_TEST_CHURN` the number of short-lived
//! namespaces. `PIDNS_TEST_BUSY` runs a part of the tests beside containers and a storm. `PIDNS_TEST_OWN_MACHINE`
//! allows tests that change settings of the whole machine.

mod actor;
mod actor_handle;
mod again;
mod agent;
mod busy;
mod cgroups;
mod chosen;
mod cli;
mod counting;
mod creation;
mod ending;
mod existing;
mod explain;
mod facts;
mod findings;
mod forest;
mod functions;
mod hanging;
mod holders;
mod invariants;
mod join;
mod limits;
mod orphans;
mod pipeline;
mod probes;
mod processes;
#[path = "../program/mod.rs"]
mod program;
mod recordings;
mod relations;
mod release;
mod sandbox;
#[path = "../schemas/mod.rs"]
mod schemas;
mod scrape;
mod seen;
mod settings;
mod signals;
mod states;
mod storm;
mod sys;
mod teardown;
mod threadless;
mod tracer;
mod uring;
mod watch;

use libtest_mimic::{Arguments, Completion, Trial};

use crate::probes::Outcome;

/// One test: its name, which is a sentence, the kernel features that it needs, and its function.
pub(crate) struct Test {
    name: &'static str,
    needs: fn() -> Outcome,
    body: fn(),
}

/// `test!(a_sentence)`, or `test!(a_sentence, needs a_probe)` if some kernels lack a feature.
macro_rules! test {
    ($body:ident) => {
        test!($body, needs crate::probes::nothing)
    };
    ($body:ident, needs $probe:path) => {
        $crate::Test { name: stringify!($body), needs: $probe, body: $body }
    };
}
pub(crate) use test;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|first| first == "actor") {
        std::process::exit(actor::main(&args[2..]));
    }
    let mut arguments = Arguments::from_args();
    // Every test traces the whole machine, so a second one would disturb it.
    arguments.test_threads = Some(1);
    if !arguments.list && sys::geteuid() != 0 {
        eprintln!("the kernel tests create PID namespaces and load eBPF programs: run them as root");
        std::process::exit(101);
    }
    let files = [
        ("invariants", invariants::TESTS),
        ("creation", creation::TESTS),
        ("join", join::TESTS),
        ("teardown", teardown::TESTS),
        ("release", release::TESTS),
        ("functions", functions::TESTS),
        ("signals", signals::TESTS),
        ("processes", processes::TESTS),
        ("chosen", chosen::TESTS),
        ("cli", cli::TESTS),
        ("ending", ending::TESTS),
        ("existing", existing::TESTS),
        ("explain", explain::TESTS),
        ("forest", forest::TESTS),
        ("states", states::TESTS),
        ("relations", relations::TESTS),
        ("hanging", hanging::TESTS),
        ("findings", findings::TESTS),
        ("findings::in_the_agent", findings::in_the_agent::TESTS),
        ("findings::limits", findings::limits::TESTS),
        ("holders", holders::TESTS),
        ("threadless", threadless::TESTS),
        ("watch", watch::TESTS),
        ("recordings", recordings::TESTS),
        ("orphans", orphans::TESTS),
        ("limits", limits::TESTS),
        ("storm", storm::TESTS),
        ("pipeline", pipeline::TESTS),
        ("counting", counting::TESTS),
        ("sandbox", sandbox::TESTS),
        ("agent", agent::TESTS),
    ];
    for name in busy::FILES {
        assert!(files.iter().any(|(file, _)| file == name), "busy::FILES: no tests have the name {name}");
    }
    let is_busy = busy::is_wanted();
    let files = files.iter().filter(|(file, _)| !is_busy || busy::has_tests(file));
    let trials = files.flat_map(|(file, tests)| tests.iter().map(|test| trial(file, test))).collect();
    let busy = (is_busy && !arguments.list).then(busy::BusyMachine::start);
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(busy);
    conclusion.exit();
}

fn trial(file: &str, test: &Test) -> Trial {
    let name = format!("{file}::{}", test.name);
    match (test.needs)() {
        Outcome::Run => {
            let body = test.body;
            Trial::test(name.clone(), move || {
                again::run(&name, body);
                Ok(())
            })
        }
        Outcome::Skip(reason) => {
            eprintln!("skipped {name}: {reason}");
            Trial::ignorable_test(name, move || Ok(Completion::ignored_with(reason))).with_ignored_flag(true)
        }
    }
}
