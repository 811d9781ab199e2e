//! Measures the overhead of a system call that has nothing to do with processes.

use std::{collections::BTreeMap, fmt};

use anyhow::Result;
use serde::Serialize;

use crate::{
    Plan, in_turn,
    report::{Table, best, median, quartiles},
    storm::Load,
    subject::{Subject, Watch},
};

const USUAL: [Subject; 4] =
    [Subject::Bare, Subject::EmptySyscall, Subject::Ours, Subject::OursNoSyscallHooks];
/// Loops in each round. The fastest one is compared, because nothing interrupted it.
const LOOPS: usize = 3;

#[derive(Serialize)]
pub(crate) struct Calls {
    #[serde(skip)]
    subjects: Vec<Subject>,
    calls: u64,
    /// The time of each loop, by subject.
    ns_per_call: BTreeMap<Subject, Vec<f64>>,
}

pub(crate) fn measure(plan: &Plan, watch: &mut Watch) -> Result<Calls> {
    let &Plan { rounds, calls, .. } = plan;
    let subjects = plan.subjects(&USUAL, true);
    let mut ns_per_call: BTreeMap<Subject, Vec<f64>> = BTreeMap::new();
    for round in 1..=rounds {
        for subject in in_turn(&subjects, round) {
            eprintln!("system calls, round {round} of {rounds}: {}", subject.name());
            let running = subject.start(watch)?;
            for _ in 0..LOOPS {
                let time = Load::Calls(calls).run()?.wall;
                ns_per_call.entry(subject).or_default().push(time.as_secs_f64() * 1e9 / calls as f64);
            }
            running.finish(watch)?;
        }
    }
    Ok(Calls { subjects, calls, ns_per_call })
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "An unrelated system call: getppid(2) in a loop of {}", self.calls)?;
        let best_of = |subject| best(self.ns_per_call.get(&subject).into_iter().flatten().copied());
        let bare = best_of(Subject::Bare);
        let mut table = Table::new(&["", "best loop", "more than bare", "/ bare", "median loop (quartiles)"]);
        for &subject in &self.subjects {
            let this = best_of(subject);
            let loops = || self.ns_per_call.get(&subject).into_iter().flatten().copied();
            let [low, high] = quartiles(loops());
            table.row([
                subject.name().to_owned(),
                format!("{this:.1} ns"),
                format!("{:.1} ns", this - bare),
                format!("x {:.2}", this / bare),
                format!("{:.1} ns ({low:.1}..{high:.1})", median(loops())),
            ]);
        }
        write!(f, "{table}")
    }
}
