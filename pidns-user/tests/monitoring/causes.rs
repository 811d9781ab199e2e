//! The causes of alerts.

use std::fs;
use std::time::Duration;

use crate::activity::{self, Loop};
use crate::actor_handle::Actor;
use crate::agent::Node;
use crate::alert_tracker::{AlertTracker, now, wait_until};
use crate::cgroups::{self, ScratchCgroup};
use crate::facts::Who;

/// Starts a situation that waits for "go".
fn start_waiting(situation: &str, args: &[&str]) -> Actor {
    let mut actor = Actor::start(situation, args);
    let _: bool = actor.hear("ready");
    actor
}

/// Lets actors continue, and waits for their end.
fn finish_all(actors: impl IntoIterator<Item = Actor>) {
    for mut actor in actors {
        actor.go();
        actor.finish();
    }
}

/// A cgroup that allows at most 40 processes.
fn group_of_40() -> ScratchCgroup {
    let root = cgroups::pids_controller().expect("/sys/fs/cgroup has the pids controller");
    let group = ScratchCgroup::make(&root);
    fs::write(format!("{}/pids.max", group.path()), "40").expect("set the limit");
    group
}

/// Makes the kernel kill an init because memory runs out.
pub(crate) fn run_out_of_memory() {
    let groups = cgroups::memory_cgroups().expect("/sys/fs/cgroup has the memory controller");
    let group = groups.make(16 << 20);
    activity::run("memory-runs-out", &[group.path()]);
}

/// Situations that wait until the test ends them.
pub(crate) struct LastingCauses {
    leaked: Vec<Actor>,
    careless: Actor,
    crowd: Vec<Actor>,
    /// Removed when its processes have ended.
    group: ScratchCgroup,
}

impl LastingCauses {
    pub(crate) fn begin(tracker: &mut AlertTracker<'_>) -> Self {
        tracker.begin("PidnsNamespaceLeaked", "info");
        let leaked = (0..6).map(|_| start_waiting("still-held-by-a-file", &[])).collect();
        let mut careless = Actor::start("zombies", &["25"]);
        let init: Who = careless.hear("init");
        tracker.begin("PidnsZombiesNotReaped", "warning").with("pidns", init.ns.to_string());
        let group = group_of_40();
        // With the init, 38 of the 40 PIDs are used.
        let mut crowd = start_waiting("still-crowded", &[group.path(), "37"]);
        let init: Who = crowd.hear("init");
        tracker
            .begin("PidnsPidExhaustionSoon", "warning")
            .with("pidns", init.ns.to_string())
            .with("limit", "pids_cgroup");
        Self { leaked, careless, crowd: vec![crowd], group }
    }

    /// Takes the last two PIDs of the cgroup.
    pub(crate) fn fill_the_group(&mut self, tracker: &mut AlertTracker<'_>) {
        let mut more = start_waiting("still-crowded", &[self.group.path(), "1"]);
        // Both namespaces are in the full cgroup.
        let [first, second] = [&mut self.crowd[0], &mut more].map(|crowd| crowd.hear::<Who>("init").ns);
        for (ns, severity) in [(first, "critical"), (second, "critical"), (second, "warning")] {
            let situation = tracker.begin("PidnsPidExhaustionSoon", severity);
            situation.with("pidns", ns.to_string()).with("limit", "pids_cgroup");
        }
        self.crowd.push(more);
    }

    /// Lets all actors continue, and waits for their end.
    pub(crate) fn end(self) {
        let Self { leaked, mut careless, crowd, group } = self;
        finish_all(leaked.into_iter().chain(crowd));
        drop(group);
        // On the first "go" it reaps.
        careless.go();
        finish_all([careless]);
    }
}

/// Situations that repeat, and a teardown that hangs for a minute.
///
/// Start them after the last restart of an agent, because an agent that missed an init's start does not report its
/// death.
pub(crate) struct RepeatedCauses {
    loops: [Loop; 2],
    blocked: Actor,
}

impl RepeatedCauses {
    pub(crate) fn begin(tracker: &mut AlertTracker<'_>) -> Self {
        tracker.begin("PidnsTeardownBlocked", "warning");
        let blocked = Actor::start("zombie-held-from-outside", &["60000"]);
        // Start it before the load is so high that an agent might lose this event.
        let nodes = tracker.everywhere.len();
        wait_until(|| tracker.count("pidns_namespaces{state=\"draining\"} > 0") >= nodes);
        tracker.begin("PidnsInitKilled", "info");
        let killings = Loop::of(&KILLINGS, Duration::from_millis(200));
        tracker.begin("PidnsCreationRefused", "warning").with("reason", "depth_limit");
        tracker.begin("PidnsForkIntoDeadNamespace", "warning");
        Self { loops: [killings, Loop::of(&REFUSALS, Duration::from_millis(500))], blocked }
    }

    /// Stops all of them.
    pub(crate) fn end(self) {
        drop(self.loops);
        // The parent of its zombie reaps it after some time.
        self.blocked.finish_within(60);
    }
}

const KILLINGS: [(&str, &[&str]); 1] = [("killed-from-outside", &[])];

/// Namespaces and forks that the kernel refuses.
const REFUSALS: [(&str, &[&str]); 3] =
    [("too-deep", &[]), ("dead-namespace", &[]), ("join-dead-namespace", &[])];

/// Kills a node's agent, and starts another as if the kernel lacked a tracepoint.
///
/// Returns a time when it was down.
pub(crate) fn lose_an_agent(tracker: &mut AlertTracker<'_>, node: &mut Node) -> f64 {
    tracker.begin("PidnsTraceDown", "warning").on(node);
    node.kill_agent();
    tracker.await_firing("PidnsTraceDown", || {});
    let down = now();
    tracker
        .begin("PidnsTraceHookDegraded", "warning")
        .on(node)
        .with("hook", "mark_victim")
        .with("form", "off");
    node.start_agent_without("mark_victim", &[]);
    let is_back = format!("up{{instance=\"{}\"}} == 1", node.instance());
    wait_until(|| tracker.count(&is_back) == 1);
    tracker.over("PidnsTraceDown");
    down
}

/// Makes an agent lose events once: while it is stopped, more events happen than its ring buffer holds. The stop is
/// shorter than a scrape may take, because otherwise the agent would count as down.
pub(crate) fn lose_events(node: &Node) {
    node.while_stopped(|| activity::run("churn", &["60"]));
}
