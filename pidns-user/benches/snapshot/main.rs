//! `cargo xtask bench snapshot`: measures how long pidns-trace and other tools need for a snapshot of all processes.
//!
//! One binary has two roles: the bench, and the processes to read (`snapshot crowd N`). All subjects are measured in
//! turns in each round, so that noise affects all of them alike. Ratios are more reliable than times.

mod crowd;
#[path = "../../tests/program/mod.rs"]
mod program;
#[path = "../hooks/report.rs"]
#[expect(dead_code, reason = "shared with the bench of the hooks, which uses more of it")]
mod report;
mod subject;

use std::{collections::BTreeMap, fmt, fs, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use serde::Serialize;

use crate::{
    crowd::{Crowd, MEMBERS},
    report::{Table, median, worst},
    subject::{Measurement, Subject, Subjects},
};

/// Measure how long pidns-trace and other tools need for a snapshot of all processes.
#[derive(Parser)]
#[command(name = "cargo xtask bench snapshot --", args_override_self = true)]
struct Args {
    /// Number of processes to create; several with commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "100,1000,6000,18000")]
    processes: Vec<u64>,

    /// Number of processes in each PID namespace
    #[arg(long, value_name = "N", default_value_t = MEMBERS, value_parser = clap::value_parser!(u64).range(1..=1000))]
    members: u64,

    /// Measure only pidns-trace: other tools take minutes for 100,000 processes
    #[arg(long)]
    alone: bool,

    /// Also measure the `tree` of another pidns-trace, such as an earlier build
    #[arg(long, value_name = "PROGRAM")]
    before: Option<PathBuf>,

    /// Rounds, each of which measures everything
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// `cargo bench` passes this; `cargo test --all-targets` does not
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Serialize)]
struct Report {
    kernel: String,
    /// The load average of the last minute before the bench began.
    load_average: String,
    rounds: u64,
    members: u64,
    crowds: Vec<Measured>,
}

/// A crowd, and the measured snapshots of it.
#[derive(Serialize)]
struct Measured {
    processes: u64,
    namespaces: u64,
    samples: BTreeMap<Subject, Vec<Measurement>>,
}

impl Measured {
    fn took(&self, subject: Subject) -> &[Measurement] {
        self.samples.get(&subject).map(Vec::as_slice).unwrap_or_default()
    }

    fn median_ms(&self, subject: Subject) -> f64 {
        median(self.took(subject).iter().map(|took| took.ms))
    }

    fn median_cpu_ms(&self, subject: Subject) -> f64 {
        median(self.took(subject).iter().filter_map(|took| took.cpu_ms))
    }

    /// The factor by which `ours` is faster than `other`: the median of the rounds' ratios.
    fn times_faster(&self, ours: Subject, other: Subject) -> f64 {
        let rounds = self.took(ours).iter().zip(self.took(other));
        median(rounds.map(|(ours, other)| other.ms / ours.ms))
    }

    fn peak_mib(&self, subject: Subject) -> f64 {
        worst(self.took(subject).iter().filter_map(|took| took.peak_kib).map(|kib| kib as f64 / 1024.0))
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|first| first == crowd::ARGUMENT) {
        return crowd::main(&args[2..]);
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
        eprintln!("nothing measured: run `cargo xtask bench snapshot`, or this binary with --bench");
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("it loads eBPF programs and creates PID namespaces, which needs root: use sudo");
    }
    ensure!(args.processes.iter().all(|&processes| processes >= args.members), "fewer than one namespace");
    if let Some(why) = args.processes.iter().max().and_then(|&most| crowd::no_room_for(most, args.members)) {
        bail!("this machine has no room for as many processes: {why}. choose fewer with --processes");
    }
    let load_average = first_word("/proc/loadavg");
    let mut subjects = Subjects::ready(args.before.clone())?;
    let all: Vec<Subject> = Subject::ALL
        .into_iter()
        .filter(|subject| !(args.alone && subject.is_of_others()))
        .filter(|subject| args.before.is_some() || *subject != Subject::OtherBuild)
        .collect();
    let crowds = args.processes.iter().map(|&processes| measure(processes, args, &all, &mut subjects));
    let crowds = crowds.collect::<Result<_>>()?;
    let kernel = first_word("/proc/sys/kernel/osrelease");
    let report = Report { kernel, load_average, rounds: args.rounds, members: args.members, crowds };
    let text = if args.json { serde_json::to_string(&report)? + "\n" } else { report.to_string() };
    std::io::stdout().write_all(text.as_bytes()).context("write the report")
}

fn measure(processes: u64, args: &Args, all: &[Subject], subjects: &mut Subjects) -> Result<Measured> {
    let &Args { rounds, members, .. } = args;
    eprintln!("{processes} processes, {rounds} rounds");
    let crowd = Crowd::start(processes, members)?;
    let mut samples: BTreeMap<Subject, Vec<Measurement>> = BTreeMap::new();
    for round in 0..rounds {
        // Rotate the order, so that no subject is always first after a pause.
        let first = (round % all.len() as u64) as usize;
        for &subject in all.iter().cycle().skip(first).take(all.len()) {
            let took = subjects.measure(subject)?;
            let made = processes / members * members;
            ensure!(took.seen.is_none_or(|seen| seen >= made), "{}: {took:?} of {made}", subject.name());
            samples.entry(subject).or_default().push(took);
        }
    }
    drop(crowd);
    Ok(Measured { processes, namespaces: processes / members, samples })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, load_average, rounds, members, crowds } = self;
        writeln!(
            f,
            "Linux {kernel}, load average {load_average} before; {rounds} rounds, each subject in turn"
        )?;
        writeln!(
            f,
            "\nA snapshot of all processes, {members} in a PID namespace, besides the machine's own; medians"
        )?;
        let headings: Vec<String> =
            crowds.iter().map(|crowd| format!("{} processes", crowd.processes)).collect();
        let headings: Vec<&str> = [""].into_iter().chain(headings.iter().map(String::as_str)).collect();
        let mut table = Table::new(&headings);
        let mut row = |name: String, cell: &dyn Fn(&Measured) -> String| {
            table.row([name].into_iter().chain(crowds.iter().map(cell)));
        };
        let measured = |subject: &Subject| crowds.iter().all(|crowd| crowd.samples.contains_key(subject));
        for subject in Subject::ALL.into_iter().filter(measured) {
            row(subject.name().to_owned(), &|crowd| format!("{:.1} ms", crowd.median_ms(subject)));
        }
        for (what, ours, other) in [
            ("ps -o json, times faster than lsns", Subject::OursPs, Subject::Lsns),
            ("ps -o json, times faster than ps", Subject::OursPs, Subject::Ps),
            ("the pass, times faster than every status", Subject::OursPass, Subject::StatusLoop),
            ("tree -o json, times faster than lsns", Subject::OursTree, Subject::Lsns),
            ("tree -o json, times faster than before", Subject::OursTree, Subject::OtherBuild),
            ("holders, times faster than from /proc", Subject::OursHolders, Subject::OursHoldersOfProc),
        ]
        .into_iter()
        .filter(|(_, ours, other)| measured(ours) && measured(other))
        {
            row(what.to_owned(), &|crowd| format!("x {:.1}", crowd.times_faster(ours, other)));
        }
        let of_processes =
            [Subject::Lsns, Subject::OursTree, Subject::OtherBuild, Subject::OursPs, Subject::OursRecord];
        for subject in of_processes.into_iter().filter(measured) {
            row(format!("{}, CPU", subject.name()), &|crowd| {
                format!("{:.1} ms", crowd.median_cpu_ms(subject))
            });
        }
        for subject in of_processes.into_iter().filter(measured) {
            row(format!("{}, memory at most", subject.name()), &|crowd| {
                format!("{:.1} MiB", crowd.peak_mib(subject))
            });
        }
        write!(f, "{table}")
    }
}

/// The first word of a file, for the heading. Empty if the file cannot be read.
fn first_word(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
}
