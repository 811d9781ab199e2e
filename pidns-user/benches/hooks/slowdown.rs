//! Measures the slowdown of forks and exits, and the resources that pidns-trace uses meanwhile.

use std::{collections::BTreeMap, fmt};

use anyhow::Result;
use serde::Serialize;

use crate::{
    Plan, in_turn,
    report::{Table, median, quartiles},
    storm::{Load, Took},
    subject::{Subject, Watch, before_path},
    tracer::Run,
};

const USUAL: [Subject; 5] =
    [Subject::Bare, Subject::Empty, Subject::ReserveSubmit, Subject::Ours, Subject::OursNoSyscallHooks];

/// Turns in a round. The other load of the machine changes within seconds, so a subject and the bare machine must run
/// shortly after each other.
const TURNS: u64 = 5;

/// The time of a life: fork, _exit, wait.
#[derive(Clone, Copy, Serialize)]
struct Life {
    /// Wall time in microseconds, of all workers together. Other work on the CPUs adds to it.
    wall_us: f64,
    /// CPU time of the processes in microseconds. It includes the work of the hooks, and nothing of other processes.
    cpu_us: f64,
}

/// A subject's turn.
#[derive(Serialize)]
struct Turn {
    /// In a new PID namespace, at level 1.
    inside: Life,
    /// Where the bench runs.
    outside: Life,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<Run>,
}

/// Selects the lives of one place.
type Place = fn(&Turn) -> Life;

#[derive(Serialize)]
pub(crate) struct Slowdown {
    #[serde(skip)]
    subjects: Vec<Subject>,
    /// Number of lives in each turn and place.
    lives: u64,
    light: bool,
    workers: u64,
    turns: BTreeMap<Subject, Vec<Turn>>,
}

pub(crate) fn measure(plan: &Plan, watch: &mut Watch) -> Result<Slowdown> {
    let &Plan { lives, light, workers, rounds, .. } = plan;
    let lives = lives.div_ceil(TURNS);
    let mut subjects = plan.subjects(&USUAL, true);
    if before_path().is_some() {
        subjects.push(Subject::Before);
    }
    let mut turns: BTreeMap<Subject, Vec<Turn>> = BTreeMap::new();
    for turn in 1..=rounds * TURNS {
        for subject in in_turn(&subjects, turn) {
            eprintln!("storm, turn {turn} of {}: {}", rounds * TURNS, subject.name());
            let running = subject.start(watch)?;
            let live = |inside| -> Result<Life> {
                let Took { wall, cpu } = Load::Lives { lives, workers, inside, light }.run()?;
                let [wall_us, cpu_us] = [wall, cpu].map(|time| time.as_secs_f64() * 1e6 / lives as f64);
                Ok(Life { wall_us, cpu_us })
            };
            let (inside, outside) = (live(true)?, live(false)?);
            let run = running.finish(watch)?;
            turns.entry(subject).or_default().push(Turn { inside, outside, run });
        }
    }
    Ok(Slowdown { subjects, lives, light, workers, turns })
}

impl Slowdown {
    fn turns(&self, subject: Subject) -> &[Turn] {
        self.turns.get(&subject).map_or(&[], Vec::as_slice)
    }

    /// The median of the turns, and its ratio to the bare machine.
    fn against_bare(&self, subject: Subject, time: impl Fn(&Turn) -> f64) -> [String; 2] {
        let median_us = format!("{:.1} us", median(self.turns(subject).iter().map(&time)));
        if subject == Subject::Bare {
            return [median_us, "1".to_owned()];
        }
        [median_us, self.against(subject, Subject::Bare, time)]
    }

    /// One subject's time divided by another's in the same turn: median and quartiles.
    fn against(&self, subject: Subject, other: Subject, time: impl Fn(&Turn) -> f64) -> String {
        let pairs = self.turns(subject).iter().zip(self.turns(other));
        let ratios: Vec<f64> = pairs.map(|(this, other)| time(this) / time(other)).collect();
        let [low, high] = quartiles(ratios.iter().copied());
        format!("x {:.3} ({low:.3}..{high:.3})", median(ratios))
    }

    /// Whether both sets of hooks were measured.
    fn has_both_sets(&self) -> bool {
        [Subject::OursTracepoint, Subject::OursFunction].iter().all(|subject| self.subjects.contains(subject))
    }
}

impl fmt::Display for Slowdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Fork/exit storm: {} turns of {} lives ({}, _exit, wait) in each place, {} workers. Wall time and CPU time of \
             a life:\nmedian of the turns. Ratio to the bare machine in the same turn: median (quartiles)",
            self.turns(Subject::Bare).len(),
            self.lives,
            if self.light { "vfork" } else { "fork" },
            self.workers
        )?;
        let places: [(&str, Place); 2] = [
            ("in a new PID namespace (level 1)", |turn| turn.inside),
            ("where the bench runs (level 0)", |turn| turn.outside),
        ];
        for (place, life) in places {
            let mut table = Table::new(&[place, "wall", "/ bare", "CPU", "/ bare"]);
            for &subject in &self.subjects {
                let wall = self.against_bare(subject, |turn| life(turn).wall_us);
                let cpu = self.against_bare(subject, |turn| life(turn).cpu_us);
                table.row([subject.name().to_owned()].into_iter().chain(wall).chain(cpu));
            }
            if self.has_both_sets() {
                let sets = |time: fn(Life) -> f64| {
                    self.against(Subject::OursFunction, Subject::OursTracepoint, |turn| time(life(turn)))
                };
                let [wall, cpu] = [sets(|life| life.wall_us), sets(|life| life.cpu_us)];
                let cells = ["  function / tracepoint", "", &wall, "", &cpu];
                table.row(cells.map(str::to_owned));
            }
            writeln!(f, "{table}")?;
        }

        writeln!(
            f,
            "Resources of pidns-trace -e all -o json in these storms, in both places together (CPU, bytes and memory: \
             median of the turns; events and records: sum)"
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
        for &subject in &self.subjects {
            let runs: Vec<Run> = self.turns(subject).iter().filter_map(|turn| turn.run).collect();
            if runs.is_empty() {
                continue;
            }
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
