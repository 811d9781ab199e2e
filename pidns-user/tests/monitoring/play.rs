//! The play that all tests check: three nodes, a quiet time, a situation for each alert, and the end of all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pidns_monitoring::{Alertmanager, Job, Prometheus, Setup, Webhook};

use crate::agent::Node;
use crate::cast::Loop;
use crate::director::{Director, Situation, now, wait_until};
use crate::scenes::{GoingOn, Standing};
use crate::{network, rules, scenes};

/// Alerts whose causes stay, or go on happening, until the end.
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

/// How long nothing but ordinary life goes on: as long as the longest range of an alert but that of a leak, and more.
const QUIET: Duration = Duration::from_secs(25);

/// All that is left of the play when it is over, and the servers, which can still be asked.
pub(crate) struct Play {
    pub(crate) prometheus: Prometheus,
    pub(crate) webhook: Webhook,
    _alertmanager: Alertmanager,
    /// They answer until the end: an alert would fire else.
    _nodes: Vec<Node>,
    pub(crate) folder: PathBuf,
    pub(crate) situations: Vec<Situation>,
    /// Begin and end of the quiet time.
    pub(crate) quiet: (f64, f64),
    /// When an agent was down.
    pub(crate) down: f64,
    /// When all other causes were there at once.
    pub(crate) height: f64,
    /// What each agent answered to a scrape then.
    pub(crate) metrics: Vec<String>,
}

/// What has become of the play.
enum State {
    NotPlayed,
    /// It panicked: it would again.
    Failed,
    Played(Box<Play>),
}

static STATE: Mutex<State> = Mutex::new(State::NotPlayed);

/// Calls the check with the play, which is played for the first of them.
pub(crate) fn with(check: fn(&Play)) {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    if matches!(*state, State::NotPlayed) {
        *state = State::Failed;
        *state = State::Played(Box::new(Play::perform()));
    }
    match &*state {
        State::Played(play) => check(play),
        _ => panic!("there is nothing to check: the first test has the reason"),
    }
}

/// Ends what still runs of it.
pub(crate) fn end() {
    *STATE.lock().unwrap_or_else(PoisonError::into_inner) = State::NotPlayed;
}

/// A folder for files and logs, empty. It stays after the tests, to be read.
fn own_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("monitoring");
    // It may not be there yet.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

impl Play {
    fn perform() -> Self {
        network::move_to_own();
        let folder = own_folder();
        let webhook = Webhook::start().expect("a free port");
        let alertmanager =
            Alertmanager::start(&folder, webhook.address()).unwrap_or_else(|error| panic!("{error}"));
        // The first counts what its programs cost, the third has little room for events.
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
        let mut director =
            Director { prometheus: &prometheus, webhook: &webhook, everywhere, situations: Vec::new() };
        wait_until(|| {
            nodes.iter_mut().for_each(Node::expect_running);
            director.count("pidns_trace_build_info") == nodes.len()
        });
        let logs: String = nodes.iter().map(Node::log).collect();
        assert_eq!(
            director.count("pidns_trace_build_info"),
            nodes.len(),
            "agents that answer; the logs:\n{logs}"
        );

        let ordinary = Loop::ordinary();
        // Rules that were evaluated before the first scrape found no agent.
        thread::sleep(Duration::from_secs(3));
        let began = now();
        thread::sleep(QUIET);
        let quiet = (began, now());

        let mut standing = Standing::begin(&mut director);
        director.begin("PidnsInitKilled", "warning").with("reason", "oom_kill").with("runtime", "none");
        scenes::run_out_of_memory();
        director.await_firing("PidnsInitKilled", || {});
        director.over("PidnsInitKilled");
        let down = scenes::lose_an_agent(&mut director, &mut nodes[1]);
        let going_on = GoingOn::begin(&mut director);
        director.begin("PidnsTraceEventsLost", "warning").on(&nodes[2]).with("stage", "ring");
        director.await_firing("PidnsTraceEventsLost", || {
            scenes::lose_events(&nodes[2]);
            thread::sleep(Duration::from_millis(500));
        });
        standing.fill_the_group(&mut director);
        for alert in LASTING {
            director.await_firing(alert, || {});
        }
        let height = now();
        let metrics = nodes.iter().map(Node::scrape).collect();

        drop(ordinary);
        standing.end();
        going_on.end();
        nodes[1].kill_agent();
        nodes[1].start_agent(&[]);
        director.all_is_over();
        wait_until(|| director.count("ALERTS") == 0);
        let situations = director.situations;
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
