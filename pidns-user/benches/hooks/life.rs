//! Measures the cost of a process's life at the hooks that every process passes: fork, exit, free and the signal to
//! its parent. It compares two uses of pidns-trace with bpftrace's count() and printf(), with an empty program, and
//! with another build of pidns-trace if there is one.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use serde::Serialize;

use crate::{
    Plan,
    bpftrace::{self, Script},
    in_turn,
    programs::RunTimes,
    report::{Table, median},
    storm::Load,
    subject::{Running, Subject, Watch, before_path},
};

/// The steps of a life: our name, the hooks to which our programs and the empty ones are attached, and bpftrace's name.
const STEPS: [Step; 4] = [
    Step { name: "fork", places: &["sched_process_fork"], tracepoint: "sched:sched_process_fork" },
    Step { name: "exit", places: &["sched_process_exit"], tracepoint: "sched:sched_process_exit" },
    // Only one of the two is hooked.
    Step {
        name: "free",
        places: &["sched_process_free", "fentry release_task"],
        tracepoint: "sched:sched_process_free",
    },
    Step { name: "signal", places: &["signal_generate"], tracepoint: "signal:signal_generate" },
];

struct Step {
    name: &'static str,
    places: &'static [&'static str],
    tracepoint: &'static str,
}

/// The arguments of printf(), which runs at the two steps that identify a process. Older bpftrace cannot print
/// `parent_comm`, which has no fixed length on newer kernels. At a fork, both names are `comm`.
const PRINTED: [(&str, &str, &str); 2] = [
    ("fork", "%s %d %s %d", "comm, args->parent_pid, comm, args->child_pid"),
    ("exit", "%s %d", "args->comm, args->pid"),
];

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Row {
    Empty,
    Count,
    Printf,
    BeforeAll,
    All,
    BeforeDefault,
    Default,
}

impl Row {
    const ALL: [Self; 7] = [
        Self::Empty,
        Self::Count,
        Self::Printf,
        Self::BeforeAll,
        Self::All,
        Self::BeforeDefault,
        Self::Default,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Empty => "an empty program",
            Self::Count => "bpftrace, count()",
            Self::Printf => "bpftrace, printf()",
            Self::BeforeAll => "PIDNS_TRACE_BEFORE -e all",
            Self::All => "pidns-trace -e all",
            Self::BeforeDefault => "PIDNS_TRACE_BEFORE",
            Self::Default => "pidns-trace",
        }
    }

    fn is_bpftrace(self) -> bool {
        matches!(self, Self::Count | Self::Printf)
    }

    /// The row of the earlier build that it is compared with, in the same round.
    fn before(self) -> Option<Self> {
        match self {
            Self::All => Some(Self::BeforeAll),
            Self::Default => Some(Self::BeforeDefault),
            _ => None,
        }
    }

    fn start(self, watch: &mut Watch) -> Result<Parts> {
        let subject = match self {
            Self::Empty => Subject::Empty,
            Self::All => Subject::Ours,
            Self::Default => Subject::OursDefault,
            Self::BeforeAll => Subject::Before,
            Self::BeforeDefault => Subject::BeforeDefault,
            Self::Count => {
                let scripts = STEPS.iter().map(|step| Ok((step.name, Script::count(step.tracepoint)?)));
                return Ok(Parts::Scripts(scripts.collect::<Result<_>>()?));
            }
            Self::Printf => {
                let scripts = PRINTED.iter().map(|(name, format, arguments)| {
                    let step =
                        STEPS.iter().find(|step| step.name == *name).context("no step has that name")?;
                    Ok((*name, Script::printf(step.tracepoint, format, arguments)?))
                });
                return Ok(Parts::Scripts(scripts.collect::<Result<_>>()?));
            }
        };
        Ok(Parts::Programs(subject.start(watch)?))
    }
}

/// The parts that run while a row is measured.
enum Parts {
    Programs(Running),
    Scripts(Vec<(&'static str, Script)>),
}

/// Nanoseconds and runs so far, by step.
type Totals = BTreeMap<&'static str, (u64, u64)>;

impl Parts {
    fn totals(&self) -> Result<Totals> {
        match self {
            Self::Programs(running) => Ok(by_step(&running.run_times())),
            Self::Scripts(scripts) => scripts
                .iter()
                .map(|(name, script)| script.runs().map(|runs| (*name, (runs.ns, runs.runs))))
                .collect(),
        }
    }

    fn finish(self, watch: &mut Watch) -> Result<()> {
        match self {
            Self::Programs(running) => running.finish(watch).map(drop),
            Self::Scripts(scripts) => {
                drop(scripts);
                Ok(())
            }
        }
    }
}

fn by_step(times: &RunTimes) -> Totals {
    let total = |step: &Step| {
        let found = step.places.iter().filter_map(|place| times.get(place));
        found.fold((0, 0), |(ns, runs), (time, more)| (ns + time.as_nanos() as u64, runs + more))
    };
    STEPS.iter().map(|step| (step.name, total(step))).collect()
}

/// Mean nanoseconds of a run in one round, by step.
type Means = BTreeMap<&'static str, f64>;

#[derive(Serialize)]
pub(crate) struct Lives {
    lives: u64,
    workers: u64,
    /// The reason why bpftrace is not in the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    without_bpftrace: Option<&'static str>,
    /// The means of each round, by place (true: in a container) and row.
    #[serde(skip)]
    means: BTreeMap<(bool, Row), Vec<Means>>,
    /// The medians, for the JSON output.
    medians: BTreeMap<&'static str, BTreeMap<&'static str, Means>>,
}

pub(crate) fn measure(plan: &Plan, watch: &mut Watch) -> Result<Lives> {
    let &Plan { lives, light, workers, rounds, .. } = plan;
    let _enabled = enable_stats(Stats::RunTime)
        .context("enable the kernel's BPF statistics (Linux 5.8 and CAP_SYS_ADMIN)")?;
    let without_bpftrace = bpftrace::missing();
    if let Some(why) = without_bpftrace {
        eprintln!("bpftrace is not measured: {why}");
    }
    let has_before = before_path().is_some();
    let rows: Vec<Row> = Row::ALL
        .into_iter()
        .filter(|row| without_bpftrace.is_none() || !row.is_bpftrace())
        .filter(|row| has_before || !matches!(row, Row::BeforeAll | Row::BeforeDefault))
        .collect();
    let mut means: BTreeMap<(bool, Row), Vec<Means>> = BTreeMap::new();
    for round in 1..=rounds {
        for row in in_turn(&rows, round) {
            eprintln!("a life, round {round} of {rounds}: {}", row.name());
            let parts = row.start(watch)?;
            for inside in [true, false] {
                let before = parts.totals()?;
                Load::Lives { lives, workers, inside, light }.run()?;
                let after = parts.totals()?;
                means.entry((inside, row)).or_default().push(means_of(&before, &after, lives));
            }
            parts.finish(watch)?;
        }
    }
    let mut lives = Lives { lives, workers, without_bpftrace, means, medians: BTreeMap::new() };
    lives.medians = [true, false]
        .into_iter()
        .map(|inside| {
            let rows = rows.iter().map(|row| (row.name(), lives.medians(inside, *row)));
            (place(inside), rows.collect())
        })
        .collect();
    Ok(lives)
}

/// The means by step. A step whose program hardly ran is left out, because another hook replaces it.
fn means_of(before: &Totals, after: &Totals, lives: u64) -> Means {
    after
        .iter()
        .filter_map(|(step, (ns, runs))| {
            let (ns_before, runs_before) = before.get(step).copied().unwrap_or_default();
            let runs = runs.saturating_sub(runs_before);
            (runs > lives / 2).then(|| (*step, ns.saturating_sub(ns_before) as f64 / runs as f64))
        })
        .collect()
}

fn place(inside: bool) -> &'static str {
    if inside { "in a new PID namespace (level 1)" } else { "where the bench runs (level 0)" }
}

fn sum(means: &Means) -> f64 {
    means.values().sum()
}

impl Lives {
    fn rounds(&self, inside: bool, row: Row) -> &[Means] {
        self.means.get(&(inside, row)).map_or(&[], Vec::as_slice)
    }

    fn medians(&self, inside: bool, row: Row) -> Means {
        let rounds = self.rounds(inside, row);
        let steps = STEPS.iter().filter_map(|step| {
            let values: Vec<f64> = rounds.iter().filter_map(|means| means.get(step.name).copied()).collect();
            (!values.is_empty()).then(|| (step.name, median(values)))
        });
        steps.collect()
    }

    /// The median over the rounds of one row divided by another in the same round.
    fn against(&self, inside: bool, row: Row, other: Row, of: impl Fn(&Means) -> Option<f64>) -> Option<f64> {
        let pairs = self.rounds(inside, row).iter().zip(self.rounds(inside, other));
        let ratios: Vec<f64> = pairs.filter_map(|(this, other)| Some(of(this)? / of(other)?)).collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }
}

impl fmt::Display for Lives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "The hooks of a process's life, by BPF run statistics (each figure includes one read of the clock): ns a run, \
             median of the rounds' means.\nEach round has {} lives ({} workers), and measures all rows in turn. A ratio is \
             the median of the rounds' ratios",
            self.lives, self.workers
        )?;
        if let Some(why) = self.without_bpftrace {
            writeln!(f, "bpftrace is not measured: {why}")?;
        }
        let ratio =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("x {value:.2}"));
        for inside in [true, false] {
            let headings = ["sum", "fork / count()", "sum / empty", "printf() / sum", "sum / before"];
            let steps = STEPS.iter().map(|step| step.name);
            let headings: Vec<&str> = [place(inside)].into_iter().chain(steps).chain(headings).collect();
            let mut table = Table::new(&headings);
            for row in Row::ALL {
                if self.rounds(inside, row).is_empty() {
                    continue;
                }
                let medians = self.medians(inside, row);
                let cells = STEPS.iter().map(|step| {
                    medians.get(step.name).map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0}"))
                });
                let fork = |means: &Means| means.get("fork").copied();
                let whole = |means: &Means| Some(sum(means));
                let ratios = [
                    self.against(inside, row, Row::Count, fork),
                    self.against(inside, row, Row::Empty, whole),
                    self.against(inside, Row::Printf, row, whole),
                    row.before().and_then(|before| self.against(inside, row, before, whole)),
                ];
                let total = median(self.rounds(inside, row).iter().map(sum));
                table.row(
                    [row.name().to_owned()]
                        .into_iter()
                        .chain(cells)
                        .chain([format!("{total:.0}")])
                        .chain(ratios.map(ratio)),
                );
            }
            write!(f, "{table}")?;
        }
        Ok(())
    }
}
