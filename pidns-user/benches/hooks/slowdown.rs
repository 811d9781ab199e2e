//! How much slower forks and exits are, and what pidns-trace itself uses while they happen.

use std::{collections::BTreeMap, fmt};

use anyhow::Result;
use serde::Serialize;

use crate::{
    Plan,
    report::{Table, best, median, worst},
    storm::Load,
    subject::{Subject, Watch},
    tracer::Run,
};

const SUBJECTS: [Subject; 5] =
    [Subject::Bare, Subject::Empty, Subject::ReserveSubmit, Subject::Ours, Subject::OursNoSyscallHooks];

/// A subject in one round.
#[derive(Serialize)]
struct Round {
    /// Microseconds a life took, by the clock on the wall, in a new PID namespace.
    inside_us_per_life: f64,
    /// The same where the bench runs.
    outside_us_per_life: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<Run>,
}

#[derive(Serialize)]
pub(crate) struct Slowdown {
    lives_in_each_place: u64,
    workers: u64,
    rounds: BTreeMap<Subject, Vec<Round>>,
}

pub(crate) fn measure(plan: &Plan, watch: &mut Watch) -> Result<Slowdown> {
    let &Plan { lives, workers, rounds } = plan;
    let mut all: BTreeMap<Subject, Vec<Round>> = BTreeMap::new();
    for round in 1..=rounds {
        for subject in SUBJECTS {
            eprintln!("storm, round {round} of {rounds}: {}", subject.name());
            let running = subject.start(watch)?;
            let us_per_life = |inside| -> Result<f64> {
                let time = Load::Lives { lives, workers, inside }.run()?;
                Ok(time.as_secs_f64() * 1e6 / lives as f64)
            };
            let (inside_us_per_life, outside_us_per_life) = (us_per_life(true)?, us_per_life(false)?);
            let run = running.finish(watch)?;
            all.entry(subject).or_default().push(Round { inside_us_per_life, outside_us_per_life, run });
        }
    }
    Ok(Slowdown { lives_in_each_place: lives, workers, rounds: all })
}

impl Slowdown {
    fn rounds(&self, subject: Subject) -> &[Round] {
        self.rounds.get(&subject).map_or(&[], Vec::as_slice)
    }

    /// Microseconds (median of the rounds), and how much that is against the bare machine in the same round (median,
    /// and from where to where).
    fn against_bare(&self, subject: Subject, time: impl Fn(&Round) -> f64) -> [String; 2] {
        let ratios: Vec<f64> = self
            .rounds(subject)
            .iter()
            .zip(self.rounds(Subject::Bare))
            .map(|(this, bare)| time(this) / time(bare))
            .collect();
        let median_us = median(self.rounds(subject).iter().map(time));
        let ratio = format!(
            "x {:.3} ({:.3} to {:.3})",
            median(ratios.iter().copied()),
            best(ratios.iter().copied()),
            worst(ratios.iter().copied())
        );
        [format!("{median_us:.2} us"), if subject == Subject::Bare { "x 1".to_owned() } else { ratio }]
    }
}

impl fmt::Display for Slowdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Fork/exit storm: {} lives (fork, _exit, wait) in each place by {} workers; wall time a life, median of \
             the rounds; ratio to bare in the same round, median (from to)",
            self.lives_in_each_place, self.workers
        )?;
        let mut table = Table::new(&["", "level 1", "/ bare", "level 0", "/ bare"]);
        for subject in SUBJECTS {
            let inside = self.against_bare(subject, |round| round.inside_us_per_life);
            let outside = self.against_bare(subject, |round| round.outside_us_per_life);
            table.row([subject.name().to_owned()].into_iter().chain(inside).chain(outside));
        }
        writeln!(f, "{table}")?;

        writeln!(
            f,
            "What pidns-trace -e all -o json used in these storms (both places together; CPU and peak: median of the \
             rounds, the rest: sum)"
        )?;
        let mut table = Table::new(&[
            "",
            "events written",
            "lost",
            "kernel records",
            "user CPU/event",
            "system CPU/event",
            "bytes/event",
            "peak memory",
        ]);
        for subject in [Subject::Ours, Subject::OursNoSyscallHooks] {
            let runs: Vec<Run> = self.rounds(subject).iter().filter_map(|round| round.run).collect();
            let sum = |of: fn(&Run) -> u64| runs.iter().map(of).sum::<u64>();
            let per_event =
                |of: fn(&Run) -> u64| median(runs.iter().map(|run| of(run) as f64 / run.events as f64));
            table.row([
                subject.name().to_owned(),
                sum(|run| run.events).to_string(),
                sum(|run| run.lost).to_string(),
                sum(|run| run.kernel_records).to_string(),
                format!("{:.2} us", per_event(|run| run.user_us)),
                format!("{:.2} us", per_event(|run| run.system_us)),
                format!("{:.0}", per_event(|run| run.output_bytes)),
                format!("{:.1} MiB", median(runs.iter().map(|run| run.peak_kib as f64)) / 1024.0),
            ]);
        }
        write!(f, "{table}")
    }
}
