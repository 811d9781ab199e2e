//! The real program against the running kernel.
//!
//! One binary with two faces: the test runner, and (`actor NAME`) the process that makes a situation with real system
//! calls. Tests run one after the other and as root. `PIDNS_TRACE_BIN` names the program under test (else the one that
//! cargo built), `PIDNS_TEST_HOOKS` is the `--hooks` that it is given, `PIDNS_TEST_PATIENCE` multiplies every time
//! limit, `PIDNS_TEST_LIVES` is the size of the big storm, `PIDNS_TEST_CHURN` how many namespaces come and
//! go.

mod actor;
mod again;
mod agent;
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
mod release;
mod sandbox;
#[path = "../schemas/mod.rs"]
mod schemas;
mod scrape;
mod seen;
mod settings;
mod signals;
mod stage;
mod states;
mod storm;
mod sys;
mod teardown;
mod threadless;
mod ties;
mod tracer;
mod uring;
mod watch;

use libtest_mimic::{Arguments, Completion, Trial};

use crate::probes::Outcome;

/// One test: a sentence, what it needs of the kernel, and its body.
pub(crate) struct Test {
    name: &'static str,
    needs: fn() -> Outcome,
    body: fn(),
}

/// `test!(a_sentence)`, or `test!(a_sentence, needs a_probe)` where not every kernel can do it.
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
    // Every test watches the whole machine: a second one would be in its way.
    arguments.test_threads = Some(1);
    if !arguments.list && sys::geteuid() != 0 {
        eprintln!("the kernel tests make PID namespaces and load eBPF programs: run them as root");
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
        ("ties", ties::TESTS),
        ("hanging", hanging::TESTS),
        ("findings", findings::TESTS),
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
    let trials = files.iter().flat_map(|(file, tests)| tests.iter().map(|test| trial(file, test))).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(file: &str, test: &Test) -> Trial {
    let name = format!("{file}::{}", test.name);
    match (test.needs)() {
        Outcome::Run => {
            let body = test.body;
            Trial::test(name.clone(), move || {
                again::play(&name, body);
                Ok(())
            })
        }
        Outcome::Skip(reason) => {
            eprintln!("skipped {name}: {reason}");
            Trial::ignorable_test(name, move || Ok(Completion::ignored_with(reason))).with_ignored_flag(true)
        }
    }
}
