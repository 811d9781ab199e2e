//! Measures nanoseconds in the kernel for each hook, with the kernel's own statistics.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use serde::Serialize;

use crate::{
    Plan, in_turn,
    programs::{FORK, places},
    report::{Table, best},
    storm::Load,
    subject::{Subject, Watch},
};

const USUAL: [Subject; 5] = [
    Subject::Empty,
    Subject::ReserveSubmit,
    Subject::ReserveQuiet,
    Subject::Ours,
    Subject::OursNoSyscallHooks,
];
/// The upper limit for the mean run time of our program at a fork.
const FORK_LIMIT_NS: f64 = 600.0;
/// Number of short-lived processes for each exec. An exec takes many times as long.
const LIVES_PER_EXEC: u64 = 100;

/// Run times of a program on a hook.
#[derive(Default, Serialize)]
struct Cost {
    runs: u64,
    mean_ns: f64,
    /// The mean of each round.
    means_ns: Vec<f64>,
    #[serde(skip)]
    total: Duration,
}

#[derive(Serialize)]
pub(crate) struct Costs {
    #[serde(skip)]
    subjects: Vec<Subject>,
    rounds: u64,
    lives: u64,
    execs: u64,
    /// The costs by subject and place.
    programs: BTreeMap<Subject, BTreeMap<&'static str, Cost>>,
    /// Present if empty programs were measured too.
    #[serde(skip_serializing_if = "Option::is_none")]
    fork: Option<Fork>,
}

/// Our program at a fork, compared with its limits.
#[derive(Serialize)]
struct Fork {
    mean_ns: f64,
    /// The cost of reserving and submitting one record: the program that does only that, minus the empty one.
    reserve_submit_ns: f64,
    /// The same without wake-ups of the reader. A storm has hundreds of wake-ups a second.
    reserve_submit_quiet_ns: f64,
    /// 3 x empty + one reserve/submit.
    relative_limit_ns: f64,
    /// The same without wake-ups, because their cost depends on the reader's activity at that moment.
    relative_limit_quiet_ns: f64,
    limit_ns: f64,
}

pub(crate) fn measure(plan: &Plan, watch: &mut Watch) -> Result<Costs> {
    let &Plan { lives, light, workers, rounds, .. } = plan;
    let subjects = plan.subjects(&USUAL, false);
    let execs = (lives / LIVES_PER_EXEC).max(1);
    let _enabled = enable_stats(Stats::RunTime)
        .context("enable the kernel's BPF statistics (Linux 5.8 and CAP_SYS_ADMIN)")?;
    let mut programs: BTreeMap<Subject, BTreeMap<&'static str, Cost>> = BTreeMap::new();
    for round in 1..=rounds {
        for subject in in_turn(&subjects, round) {
            eprintln!("time in the kernel, round {round} of {rounds}: {}", subject.name());
            let running = subject.start(watch)?;
            let before = running.run_times();
            Load::Lives { lives, workers, inside: true, light }.run()?;
            Load::Execs(execs).run()?;
            let after = running.run_times();
            running.finish(watch)?;
            for (place, (time, runs)) in after {
                let (time_before, runs_before) = before.get(place).copied().unwrap_or_default();
                let (time, runs) = (time.saturating_sub(time_before), runs.saturating_sub(runs_before));
                if runs == 0 {
                    continue;
                }
                let cost = programs.entry(subject).or_default().entry(place).or_default();
                cost.means_ns.push(nanoseconds(time) / runs as f64);
                cost.total += time;
                cost.runs += runs;
                cost.mean_ns = nanoseconds(cost.total) / cost.runs as f64;
            }
        }
    }
    let fork = subjects.contains(&Subject::Empty).then(|| Fork::of(&programs)).transpose()?;
    Ok(Costs { subjects, rounds, lives, execs, programs, fork })
}

impl Fork {
    fn of(programs: &BTreeMap<Subject, BTreeMap<&'static str, Cost>>) -> Result<Self> {
        let fork = |subject| {
            let cost = programs.get(&subject).and_then(|costs| costs.get(FORK));
            cost.map(|cost| cost.mean_ns)
                .with_context(|| format!("{subject:?}: the program at fork never ran"))
        };
        let (empty, record) = (fork(Subject::Empty)?, fork(Subject::ReserveSubmit)?);
        let quiet = fork(Subject::ReserveQuiet)?;
        Ok(Self {
            mean_ns: fork(Subject::Ours)?,
            reserve_submit_ns: record - empty,
            reserve_submit_quiet_ns: quiet - empty,
            relative_limit_ns: 3.0 * empty + (record - empty),
            relative_limit_quiet_ns: 3.0 * empty + (quiet - empty),
            limit_ns: FORK_LIMIT_NS,
        })
    }
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_nanos() as f64
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Time in the kernel of one run, by BPF run statistics (each figure has a read of the clock in it): \
             mean of all runs (mean of the best round); each round {} lives at level 1, {} execs",
            self.lives, self.execs
        )?;
        let cost = |subject: Subject, place: &str| self.programs.get(&subject)?.get(place);
        let with_ratio =
            [Subject::Empty, Subject::Ours].iter().all(|subject| self.subjects.contains(subject));
        let headings = ["hook"].into_iter().chain(self.subjects.iter().map(|subject| subject.short_name()));
        let mut table =
            Table::new(&headings.chain(with_ratio.then_some("pidns-trace / empty")).collect::<Vec<_>>());
        for place in
            places().filter(|place| self.subjects.iter().any(|subject| cost(*subject, place).is_some()))
        {
            let cells = self.subjects.iter().map(|subject| {
                cost(*subject, place).map_or_else(
                    || "-".to_owned(),
                    |cost| {
                        let best = best(cost.means_ns.iter().copied());
                        format!("{:.0} ns ({best:.0}), {} runs", cost.mean_ns, cost.runs)
                    },
                )
            });
            let ratio = with_ratio.then(|| {
                let both = cost(Subject::Ours, place).zip(cost(Subject::Empty, place));
                both.map_or_else(
                    || "-".to_owned(),
                    |(ours, empty)| format!("x {:.1}", ours.mean_ns / empty.mean_ns),
                )
            });
            table.row([place.to_owned()].into_iter().chain(cells).chain(ratio));
        }
        let lives = self.rounds * (self.lives + self.execs);
        let a_life = self.subjects.iter().map(|subject| {
            let costs = self.programs.get(subject).into_iter().flat_map(BTreeMap::values);
            let total: Duration = costs.map(|cost| cost.total).sum();
            format!("{:.0} ns", nanoseconds(total) / lives as f64)
        });
        table.row(["all programs, for each life".to_owned()].into_iter().chain(a_life));
        write!(f, "{table}")?;

        let Some(fork) = &self.fork else { return Ok(()) };
        let Fork {
            mean_ns,
            reserve_submit_ns,
            reserve_submit_quiet_ns,
            relative_limit_ns,
            relative_limit_quiet_ns,
            limit_ns,
        } = *fork;
        writeln!(
            f,
            "  One record reserved and submitted: {reserve_submit_ns:.0} ns, {reserve_submit_quiet_ns:.0} ns without \
             wake-ups"
        )?;
        for (what, limit) in [
            ("3 x empty + one reserve/submit", relative_limit_ns),
            ("3 x empty + one reserve/submit without wake-ups", relative_limit_quiet_ns),
            ("the limit", limit_ns),
        ] {
            let verdict = if mean_ns <= limit { "within" } else { "ABOVE" };
            writeln!(
                f,
                "  {FORK}: {mean_ns:.0} ns, {verdict} {what} = {limit:.0} ns (x {:.2})",
                mean_ns / limit
            )?;
        }
        Ok(())
    }
}
