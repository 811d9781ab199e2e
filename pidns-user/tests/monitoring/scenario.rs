//! The run that all tests check: three nodes, a quiet period, a situation for each alert, and the end of all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pidns_monitoring::{Alertmanager, Job, Prometheus, Setup, Webhook};

use crate::activity::Loop;
use crate::agent::Node;
use crate::alert_tracker::{AlertTracker, Situation, now, wait_until};
use crate::causes::{LastingCauses, RepeatedCauses};
use crate::{causes, network, rules};

/// Alerts whose causes stay or repeat until the end.
const LASTING: [&str; 8] = [
    "PidnsNamespaceLeaked",
    "PidnsTeardownBlocked",
    "PidnsZombiesNotReaped",
    "PidnsPidExhaustionSoon",
    "PidnsTraceHookDegraded",
    "PidnsInitKilled",
    "PidnsCreationRefused",
    "PidnsForkIntoDeadNamespace",
];

/// The length of the quiet period with only ordinary activity. It is longer than the longest range of an alert
/// (without the leak).
const QUIET: Duration = Duration::from_secs(25);

/// The results of the run, and the servers, which still answer queries.
pub(crate) struct Scenario {
    pub(crate) prometheus: Prometheus,
    pub(crate) webhook: Webhook,
    _alertmanager: Alertmanager,
    /// They answer until the end, because otherwise an alert would fire.
    _nodes: Vec<Node>,
    pub(crate) folder: PathBuf,
    pub(crate) situations: Vec<Situation>,
    /// Start and end of the quiet period.
    pub(crate) quiet: (f64, f64),
    /// A time when an agent was down.
    pub(crate) down: f64,
    /// A time when all other causes existed at the same time.
    pub(crate) height: f64,
    /// Each agent's answer to a scrape at that time.
    pub(crate) metrics: Vec<String>,
}

/// The state of the run.
enum State {
    NotRun,
    /// It panicked, and would panic again.
    Failed,
    Done(Box<Scenario>),
}

static STATE: Mutex<State> = Mutex::new(State::NotRun);

/// Calls the check with the run. The first call performs the run.
pub(crate) fn with(check: fn(&Scenario)) {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*state, State::NotRun) {
        *state = State::Failed;
        *state = State::Done(Box::new(Scenario::perform()));
    }
    match &*state {
        State::Done(scenario) => check(scenario),
        _ => panic!("the run failed: the first test shows the reason"),
    }
}

/// Stops everything that still runs.
pub(crate) fn end() {
    *STATE.lock().unwrap_or_else(PoisonError::into_inner) = State::NotRun;
}

/// An empty directory for files and logs. It stays after the tests, so that you can read them.
fn own_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("monitoring");
    // The directory may not exist.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

impl Scenario {
    fn perform() -> Self {
        network::move_to_own();
        let folder = own_folder();
        let webhook = Webhook::start().expect("a free port");
        let alertmanager =
            Alertmanager::start(&folder, webhook.address()).unwrap_or_else(|error| panic!("{error}"));
        // The first agent measures the cost of its programs. The third has a small ring buffer.
        let args: [&[&str]; 3] = [&["--bpf-stats"], &[], &["--ring-size", "4K"]];
        let mut nodes: Vec<Node> =
            args.iter().zip(11..).map(|(args, number)| Node::start(number, &folder, args)).collect();
        let everywhere: Vec<String> = nodes.iter().map(Node::instance).collect();
        let setup = Setup {
            jobs: vec![Job::new("pidns-trace", everywhere.clone())],
            rules: vec![rules::folder().join("rules.yml"), rules::write_shortened(&folder)],
            alertmanager: Some(alertmanager.address()),
            ..Setup::in_folder(&folder)
        };
        let prometheus = Prometheus::start(&setup).unwrap_or_else(|error| panic!("{error}"));
        let mut tracker =
            AlertTracker { prometheus: &prometheus, webhook: &webhook, everywhere, situations: Vec::new() };
        wait_until(|| {
            nodes.iter_mut().for_each(Node::expect_running);
            tracker.count("pidns_trace_build_info") == nodes.len()
        });
        let logs: String = nodes.iter().map(Node::log).collect();
        assert_eq!(
            tracker.count("pidns_trace_build_info"),
            nodes.len(),
            "not all agents answer; the logs:\n{logs}"
        );

        let ordinary = Loop::ordinary();
        // Rules that were evaluated before the first scrape found no agent, so wait.
        thread::sleep(Duration::from_secs(3));
        let began = now();
        thread::sleep(QUIET);
        let quiet = (began, now());

        let mut lasting = LastingCauses::begin(&mut tracker);
        tracker.begin("PidnsInitKilled", "warning").with("reason", "oom_kill").with("runtime", "none");
        causes::run_out_of_memory();
        tracker.await_firing("PidnsInitKilled", || {});
        tracker.over("PidnsInitKilled");
        let down = causes::lose_an_agent(&mut tracker, &mut nodes[1]);
        let repeated = RepeatedCauses::begin(&mut tracker);
        tracker.begin("PidnsTraceEventsLost", "warning").on(&nodes[2]).with("stage", "ring");
        tracker.await_firing("PidnsTraceEventsLost", || {
            causes::lose_events(&nodes[2]);
            thread::sleep(Duration::from_millis(500));
        });
        lasting.fill_the_group(&mut tracker);
        for alert in LASTING {
            tracker.await_firing(alert, || {});
        }
        let height = now();
        let metrics = nodes.iter().map(Node::scrape).collect();

        drop(ordinary);
        lasting.end();
        repeated.end();
        nodes[1].kill_agent();
        nodes[1].start_agent(&[]);
        tracker.all_is_over();
        wait_until(|| tracker.count("ALERTS") == 0);
        let situations = tracker.situations;
        let fired: usize = situations.iter().map(|one| one.instances.len()).sum();
        wait_until(|| webhook.received().iter().filter(|one| one.is_resolved).count() >= fired);
        Self {
            prometheus,
            webhook,
            _alertmanager: alertmanager,
            _nodes: nodes,
            folder,
            situations,
            quiet,
            down,
            height,
            metrics,
        }
    }
}
