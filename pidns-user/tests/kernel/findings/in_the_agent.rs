//! Creates faults while the agent runs. It must count each finding in `pidns_findings`, and no longer when the cause is
//! removed.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use pidns_user::event::finding::Diagnosis;
use serde_json::Value;

use crate::actor_handle::{Actor, patience};
use crate::cgroups::{self, ScratchCgroup};
use crate::facts::Who;
use crate::probes;
use crate::scrape::{Agent, Samples};
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(the_agent_counts_each_finding_while_its_cause_exists, needs probes::counting_cgroups),
    test!(the_agent_counts_a_member_that_was_killed_for_lack_of_memory, needs probes::memory_cgroup),
    test!(the_agent_counts_a_refused_namespace, needs probes::user_namespaces),
    test!(the_agent_counts_a_container_without_a_namespace, needs probes::counting_cgroups),
];

/// Seconds between a cause and its finding: two snapshots, which are half a second apart, a threshold of one second,
/// and a second between two detections.
const SECONDS: u64 = 4;

/// Findings about past events end after 3 seconds. The agent sees refusals only with hooks on system calls, if the
/// kernel has no function hooks.
fn agent() -> Agent {
    Agent::start(&["--snapshot-interval=500ms", "--syscall-hooks", "--incident-time=3s", "--creator-time=1s"])
}

#[derive(Clone, Copy)]
enum Step {
    Hear(&'static str),
    Go,
}

use Step::{Go, Hear};

/// A situation, the steps after which the fault exists, and those that remove it.
struct Case {
    id: Diagnosis,
    situation: &'static str,
    args: &'static [&'static str],
    begins: &'static [Step],
    mends: &'static [Step],
}

const CASES: &[Case] = &[
    case(
        Diagnosis::ZombiesNotReaped,
        "init-does-not-reap",
        &["3"],
        &[Hear("ready")],
        &[Go, Hear("reaped"), Go],
    ),
    case(Diagnosis::TeardownBlocked, "hung-teardown", &[], &[Hear("standing"), Go, Hear("ready")], &[Go]),
    case(Diagnosis::NamespaceDeadFork, "forks-into-a-dead-namespace", &[], &[Hear("ready")], &[Go]),
    case(Diagnosis::InitIgnoredSignal, "ignores-a-signal", &[], &[Hear("ready")], &[Go, Hear("killed"), Go]),
    case(Diagnosis::InitKilled, "ignores-a-signal", &[], &[Hear("ready"), Go, Hear("killed")], &[Go]),
    case(
        Diagnosis::NamespaceLeaked,
        "file-holds-a-namespace",
        &[],
        &[Hear("ready")],
        &[Go, Hear("mended"), Go],
    ),
    case(Diagnosis::JoinedLeftover, "session-goes", &[], &[Hear("session"), Go, Hear("ready")], &[Go]),
    case(Diagnosis::CreatorLeftover, "helper-stays", &[], &[Hear("ready")], &[Go]),
    case(Diagnosis::NearDepthLimit, "deep-nest", &["29"], &[Hear("ready")], &[Go]),
    case(Diagnosis::ChildrenElsewhere, "unshares-and-waits", &[], &[Hear("ready")], &[Go]),
    // The cgroup is the first argument.
    case(Diagnosis::PidExhaustion, "full-cgroup", &["5"], &[Hear("ready")], &[Go]),
    case(Diagnosis::ThreadGrowth, "threads-in-a-cgroup", &[], &[Hear("ready")], &[Go]),
];

const fn case(
    id: Diagnosis,
    situation: &'static str,
    args: &'static [&'static str],
    begins: &'static [Step],
    mends: &'static [Step],
) -> Case {
    Case { id, situation, args, begins, mends }
}

/// Number of these findings that the agent counts.
fn open(samples: &Samples, id: Diagnosis) -> f64 {
    samples.starting(&format!("pidns_findings{{finding=\"{id}\"")).map(|(_, count)| count).sum()
}

fn take(actor: &mut Actor, steps: &[Step]) {
    for step in steps {
        match step {
            Hear(fact) => drop(actor.hear::<Value>(fact)),
            Go => actor.go(),
        }
    }
}

/// Plays a situation with these arguments.
#[track_caller]
fn play(agent: &Agent, case: &Case, args: &[&str]) {
    let Case { id, situation, begins, mends, .. } = *case;
    // The situation before may have had the same finding.
    let mut before = f64::INFINITY;
    let quiet = Instant::now() + patience(SECONDS);
    while before > 0.0 && Instant::now() < quiet {
        before = open(&agent.scrape(), id);
    }
    let mut actor = Actor::start(situation, args);
    if id == Diagnosis::JoinedLeftover {
        // The agent knows the earlier parent only from a snapshot.
        let _: Value = actor.hear("session");
        std::thread::sleep(std::time::Duration::from_millis(1_500));
    }
    take(&mut actor, begins);
    let began = Instant::now();
    agent.scrape_until(id.id(), |samples| open(samples, id) > before);
    let took = began.elapsed();
    // Holders are read for at most a hundredth of the time, and other namespaces may just have needed them.
    let seconds = if id == Diagnosis::NamespaceLeaked { 5 * SECONDS } else { SECONDS };
    assert!(took < patience(seconds), "{id} took {took:?}");
    eprintln!("{id}: {took:?} after its cause");
    take(&mut actor, mends);
    agent.scrape_until(&format!("the end of {id}"), |samples| open(samples, id) <= before);
    actor.finish();
}

fn the_agent_counts_each_finding_while_its_cause_exists() {
    let agent = agent();
    for case in CASES {
        let limit = match case.id {
            Diagnosis::PidExhaustion => "6",
            Diagnosis::ThreadGrowth => "100",
            _ => {
                play(&agent, case, case.args);
                continue;
            }
        };
        let group =
            ScratchCgroup::make(&cgroups::pids_controller().expect("the probe found the pids controller"));
        fs::write(format!("{}/pids.max", group.path()), limit).expect("set the limit");
        play(&agent, case, &[&[group.path()], case.args].concat());
    }
    // The other tests of this file have the rest.
    let others = [Diagnosis::MemberOomKilled, Diagnosis::CreationRefused, Diagnosis::NoCascade];
    let found: BTreeSet<&str> = CASES.iter().map(|case| case.id).chain(others).map(Diagnosis::id).collect();
    let status = agent.status();
    let unseen = status["findings_unseen"].as_object().expect("findings, with what the agent lacks for them");
    let unseen: BTreeSet<&str> = unseen.keys().map(String::as_str).collect();
    let all: BTreeSet<&str> = Diagnosis::ALL.iter().map(|id| id.id()).collect();
    assert!(found.is_disjoint(&unseen), "{unseen:?}");
    assert_eq!(found.union(&unseen).copied().collect::<BTreeSet<_>>(), all);
}

fn the_agent_counts_a_member_that_was_killed_for_lack_of_memory() {
    let group = cgroups::memory_cgroups().expect("the probe found the memory controller").make(64 << 20);
    let agent = agent();
    let events = |samples: &Samples| samples.get("pidns_trace_events_total{event=\"process.exit\"}");
    let before = events(&agent.scrape());
    let (situation, begins): (_, &[Step]) = ("memory-runs-out-for-a-member", &[Hear("end")]);
    let case = case(Diagnosis::MemberOomKilled, situation, &[], begins, &[Go]);
    play(&agent, &case, &[group.path()]);
    let log = agent.log_text();
    let found = log.lines().find(|line| line.contains("member-oom-killed")).expect("the agent logs findings");
    eprintln!("{found}");
    assert_eq!(events(&agent.scrape()) - before, 1.0, "no other process event may reach the agent");
}

fn the_agent_counts_a_refused_namespace() {
    let agent = agent();
    let case = case(Diagnosis::CreationRefused, "too-many", &[], &[Hear("refused")], &[]);
    play(&agent, &case, &[]);
}

fn the_agent_counts_a_container_without_a_namespace() {
    let agent = agent();
    // The name is that of an LXC container.
    let name = format!("lxc.payload.pidns-trace-test-{}", std::process::id());
    let root = cgroups::pids_controller().expect("the probe found the pids controller");
    let group = ScratchCgroup::named(&root, &name);
    let counted =
        |severity: &str| format!("pidns_findings{{finding=\"no-cascade\",severity=\"{severity}\"}}");
    let (info, warning) = (counted("info"), counted("warning"));
    let value = |samples: &Samples, series: &str| samples.find(series).unwrap_or(0.0);
    let samples = agent.scrape();
    let before = (value(&samples, &info), value(&samples, &warning));
    let mut actor = Actor::start("container-without-a-namespace", &[group.path()]);
    let _: bool = actor.hear("ready");
    agent.scrape_until("the container", |samples| value(samples, &info) > before.0);
    actor.go();
    let _: bool = actor.hear("ended");
    agent.scrape_until("its survivor", |samples| value(samples, &warning) > before.1);
    let main: Who = actor.hear("main");
    let log = agent.log_text();
    let survived = format!("the main process {}[{}] has ended, and 1 process", main.comm, main.pid);
    assert!(log.contains(&survived), "{log}");
    actor.go();
    agent.scrape_until("its end", |samples| (value(samples, &info), value(samples, &warning)) <= before);
    actor.finish();
}
