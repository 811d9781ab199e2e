//! `cargo xtask bench`: measures the cost of the hooks on this machine, compared with no programs and with empty
//! programs.
//!
//! One binary has two roles: the bench, and the load that it measures with (`storm NAME`). All subjects are measured
//! in turns in each round, so that noise affects all of them alike. Ratios are more reliable than times.

mod bpftrace;
mod calls;
mod cost;
mod life;
#[path = "../../tests/program/mod.rs"]
mod program;
mod programs;
mod report;
mod sets;
mod slowdown;
mod start;
mod storm;
mod subject;
mod tracer;

use std::{fmt, fs, io::Write as _, process::ExitCode, thread};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use pidns_user::kernel::hooks::HookSet;
use serde::Serialize;

use crate::{
    calls::Calls,
    cost::Costs,
    life::Lives,
    sets::Sets,
    slowdown::Slowdown,
    start::Start,
    subject::{Subject, Watch},
};

/// Measure the cost of pidns-trace on this machine.
///
/// The part `life` compares it with bpftrace, if that is installed and a tracefs is on /sys/kernel/tracing; else the
/// report says why not. PIDNS_TRACE_BIN names the program to measure, PIDNS_TRACE_BEFORE an earlier build of it,
/// which is measured in the same rounds of `life` and `storm`.
#[derive(Parser)]
#[command(name = "cargo xtask bench --", args_override_self = true)]
struct Args {
    /// Number of processes that live and die for each subject and place in a round
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    lives: u64,

    /// Rounds, each of which measures everything
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,

    /// Let processes share their parent's memory, as after vfork(2): without copying, the cost of the hooks weighs
    /// most
    #[arg(long)]
    light: bool,

    /// Number of processes that fork at the same time [default: one for each CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    workers: Option<u64>,

    /// Number of system calls in a loop of the part `calls`
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    calls: u64,

    /// Compare pidns-trace with these sets of hooks, and without hooks, instead of empty programs [repeatable]
    #[arg(long, value_name = "SET", value_parser = pidns_user::cli::hook_set(), value_delimiter = ',')]
    hooks: Vec<HookSet>,

    /// Measure only this part [repeatable]
    #[arg(long, value_name = "PART", value_enum, value_delimiter = ',')]
    only: Vec<Part>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// `cargo bench` passes this; `cargo test --all-targets` does not
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the report.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Slowdown of forks and exits, and resource use of pidns-trace
    Storm,
    /// Nanoseconds in the kernel for each hook
    Hooks,
    /// Nanoseconds in the kernel for a process's life, for two uses of pidns-trace and for bpftrace
    Life,
    /// Overhead of an unrelated system call
    Calls,
    /// Time from the start to the first event
    Start,
}

/// The amounts to measure.
struct Plan {
    lives: u64,
    light: bool,
    workers: u64,
    rounds: u64,
    calls: u64,
    /// The sets of hooks to compare, if the user chose them.
    sets: Option<Sets>,
}

impl Plan {
    /// The subjects to measure: the chosen sets of hooks (and the bare machine if `bare_too`), or the usual subjects.
    fn subjects(&self, usual: &[Subject], bare_too: bool) -> Vec<Subject> {
        match &self.sets {
            Some(sets) => bare_too.then_some(Subject::Bare).into_iter().chain(sets.subjects()).collect(),
            None => usual.to_vec(),
        }
    }
}

/// The subjects in the order of this round. The order rotates, so that none is always first after a pause.
fn in_turn<T: Copy>(subjects: &[T], round: u64) -> impl Iterator<Item = T> {
    let first = (round % subjects.len() as u64) as usize;
    subjects.iter().copied().cycle().skip(first).take(subjects.len())
}

#[derive(Serialize)]
struct Machine {
    kernel: String,
    processor: String,
    cpus: u64,
    /// Whether the clock counts instructions, one nanosecond each, as in an emulated machine.
    counts_instructions: bool,
    /// The load average of the last minute before the bench began.
    load_average: String,
    watch: Watch,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    rounds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sets: Option<Sets>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storm: Option<Slowdown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hooks: Option<Costs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    life: Option<Lives>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<Calls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Start>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, rounds, sets, storm, hooks, life, calls, start } = self;
        let Machine { kernel, processor, cpus, counts_instructions, load_average, watch } = machine;
        writeln!(f, "Linux {kernel}, {cpus} x {processor}, load average {load_average} before")?;
        if *counts_instructions {
            writeln!(f, "The clock counts instructions: 1 ns is one instruction")?;
        }
        writeln!(f, "{rounds} rounds, each subject in turn")?;
        if watch.disturbed_reads > 0 {
            writeln!(
                f,
                "DISTURBED: another pidns-trace or bench was attached at {} of {} checks",
                watch.disturbed_reads,
                2 * watch.measurements
            )?;
        }
        sets.as_ref().map_or(Ok(()), |sets| write!(f, "{sets}"))?;
        let parts: [Option<&dyn fmt::Display>; 5] = [
            storm.as_ref().map(|part| part as _),
            hooks.as_ref().map(|part| part as _),
            life.as_ref().map(|part| part as _),
            calls.as_ref().map(|part| part as _),
            start.as_ref().map(|part| part as _),
        ];
        parts.into_iter().flatten().try_for_each(|part| write!(f, "\n{part}"))
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|first| first == storm::ARGUMENT) {
        return storm::main(&args[2..]);
    }
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if !args.bench {
        eprintln!("nothing measured: run `cargo xtask bench`, or this binary with --bench");
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "it loads eBPF programs and creates PID namespaces, which needs root: run `cargo xtask bench` or use sudo"
        );
    }
    let cpus = thread::available_parallelism().context("count the CPUs")?.get() as u64;
    let sets = (!args.hooks.is_empty()).then(|| Sets::try_each(&args.hooks)).transpose()?;
    let workers = args.workers.unwrap_or(cpus);
    let plan =
        Plan { lives: args.lives, light: args.light, workers, rounds: args.rounds, calls: args.calls, sets };
    let load_average = first_word("/proc/loadavg");
    let mut watch = Watch::default();
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    let storm = wanted(Part::Storm).then(|| slowdown::measure(&plan, &mut watch)).transpose()?;
    let hooks = wanted(Part::Hooks).then(|| cost::measure(&plan, &mut watch)).transpose()?;
    let life = wanted(Part::Life).then(|| life::measure(&plan, &mut watch)).transpose()?;
    let calls = wanted(Part::Calls).then(|| calls::measure(&plan, &mut watch)).transpose()?;
    let start = wanted(Part::Start).then(start::measure).transpose()?;
    let machine = Machine {
        kernel: first_word("/proc/sys/kernel/osrelease"),
        processor: processor(),
        cpus,
        // Only the starter of the machine knows: `cargo xtask bench --vm` sets the variable.
        counts_instructions: std::env::var_os("PIDNS_BENCH_INSTRUCTIONS").is_some_and(|value| value == "1"),
        load_average,
        watch,
    };
    let report = Report { machine, rounds: plan.rounds, sets: plan.sets, storm, hooks, life, calls, start };
    let text = if args.json { serde_json::to_string(&report)? + "\n" } else { report.to_string() };
    std::io::stdout().write_all(text.as_bytes()).context("write the report")
}

/// The first word of a file, for the heading. Empty if the file cannot be read.
fn first_word(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    name.map_or_else(|| "CPU".to_owned(), |(_, name)| name.trim().to_owned())
}
