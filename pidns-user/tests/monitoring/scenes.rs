//! The causes of alerts.

use std::fs;
use std::time::Duration;

use crate::agent::Node;
use crate::cast::{self, Loop};
use crate::cgroups::{self, ScratchCgroup};
use crate::director::{Director, now, wait_until};
use crate::facts::Who;
use crate::stage::Actor;

/// A situation that stands still.
fn still(situation: &str, args: &[&str]) -> Actor {
    let mut actor = Actor::start(situation, args);
    let _: bool = actor.hear("ready");
    actor
}

/// Lets actors go on, and waits for their end.
fn dismiss(actors: impl IntoIterator<Item = Actor>) {
    for mut actor in actors {
        actor.go();
        actor.finish();
    }
}

/// A cgroup of at most 40 processes.
fn group_of_40() -> ScratchCgroup {
    let root = cgroups::pids_controller().expect("the pids controller is in /sys/fs/cgroup");
    let group = ScratchCgroup::make(&root);
    fs::write(format!("{}/pids.max", group.path()), "40").expect("a limit can be set");
    group
}

/// Has the kernel kill an init because memory runs out.
pub(crate) fn run_out_of_memory() {
    let groups = cgroups::memory_cgroups().expect("the memory controller is in /sys/fs/cgroup");
    let group = groups.make(16 << 20);
    cast::play("memory-runs-out", &[group.path()]);
}

/// What stands still until it may end.
pub(crate) struct Standing {
    leaked: Vec<Actor>,
    careless: Actor,
    crowd: Vec<Actor>,
    /// Goes when its processes have.
    group: ScratchCgroup,
}

impl Standing {
    pub(crate) fn begin(director: &mut Director<'_>) -> Self {
        director.begin("PidnsNamespaceLeaked", "info");
        let leaked = (0..6).map(|_| still("still-held-by-a-file", &[])).collect();
        let mut careless = Actor::start("zombies", &["25"]);
        let init: Who = careless.hear("init");
        director.begin("PidnsZombiesNotReaped", "warning").with("pidns", init.ns.to_string());
        let group = group_of_40();
        // With the init, 38 of 40.
        let mut crowd = still("still-crowded", &[group.path(), "37"]);
        let init: Who = crowd.hear("init");
        director
            .begin("PidnsPidExhaustionSoon", "warning")
            .with("pidns", init.ns.to_string())
            .with("limit", "pids_cgroup");
        Self { leaked, careless, crowd: vec![crowd], group }
    }

    /// Takes the two PIDs that are left in the cgroup.
    pub(crate) fn fill_the_group(&mut self, director: &mut Director<'_>) {
        let mut more = still("still-crowded", &[self.group.path(), "1"]);
        // The cgroup that is full is that of both namespaces.
        let [first, second] = [&mut self.crowd[0], &mut more].map(|crowd| crowd.hear::<Who>("init").ns);
        for (ns, severity) in [(first, "critical"), (second, "critical"), (second, "warning")] {
            let situation = director.begin("PidnsPidExhaustionSoon", severity);
            situation.with("pidns", ns.to_string()).with("limit", "pids_cgroup");
        }
        self.crowd.push(more);
    }

    /// Lets all go, and waits for that.
    pub(crate) fn end(self) {
        let Self { leaked, mut careless, crowd, group } = self;
        dismiss(leaked.into_iter().chain(crowd));
        drop(group);
        // It reaps at the first go.
        careless.go();
        dismiss([careless]);
    }
}

/// What happens again and again, and a teardown that does not come to its end for a minute.
///
/// This begins when all agents are there for good: none gets an init's death without its start.
pub(crate) struct GoingOn {
    loops: [Loop; 2],
    blocked: Actor,
}

impl GoingOn {
    pub(crate) fn begin(director: &mut Director<'_>) -> Self {
        director.begin("PidnsTeardownBlocked", "warning");
        let blocked = Actor::start("zombie-held-from-outside", &["60000"]);
        // Before there is so much that one of them loses just that event.
        let nodes = director.everywhere.len();
        wait_until(|| director.count("pidns_namespaces{state=\"draining\"} > 0") >= nodes);
        director.begin("PidnsInitKilled", "info");
        let killings = Loop::of(&KILLINGS, Duration::from_millis(200));
        director.begin("PidnsCreationRefused", "warning").with("reason", "depth_limit");
        director.begin("PidnsForkIntoDeadNamespace", "warning");
        Self { loops: [killings, Loop::of(&REFUSALS, Duration::from_millis(500))], blocked }
    }

    /// Ends all of it.
    pub(crate) fn end(self) {
        drop(self.loops);
        // The parent of its zombie reaps it by itself, after its time.
        self.blocked.finish_within(60);
    }
}

const KILLINGS: [(&str, &[&str]); 1] = [("killed-from-outside", &[])];

/// Namespaces and forks that the kernel refuses.
const REFUSALS: [(&str, &[&str]); 3] =
    [("too-deep", &[]), ("dead-namespace", &[]), ("join-dead-namespace", &[])];

/// Kills a node's agent. It comes back on a kernel that seems to lack a tracepoint.
///
/// Returns a moment when it was down.
pub(crate) fn lose_an_agent(director: &mut Director<'_>, node: &mut Node) -> f64 {
    director.begin("PidnsTraceDown", "warning").on(node);
    node.kill_agent();
    director.await_firing("PidnsTraceDown", || {});
    let down = now();
    director
        .begin("PidnsTraceHookDegraded", "warning")
        .on(node)
        .with("hook", "mark_victim")
        .with("form", "off");
    node.start_agent_without("mark_victim", &[]);
    let is_back = format!("up{{instance=\"{}\"}} == 1", node.instance());
    wait_until(|| director.count(&is_back) == 1);
    director.over("PidnsTraceDown");
    down
}

/// Has an agent lose events, once: while it is stopped, more of them happen than its ring buffer takes. It is stopped for a
/// shorter time than a scrape may take, or it would count as down.
pub(crate) fn lose_events(node: &Node) {
    node.while_stopped(|| cast::play("churn", &["60"]));
}
