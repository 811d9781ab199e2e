//! `cargo xtask bench agent`: measures the cost of the agent. It compares each hook of the agent with bpftrace's
//! count() on the same tracepoint, runs the storm and the system call with the agent and on the bare machine, and
//! measures the agent's CPU, its memory, and a scrape of a crowded machine.
//!
//! One binary has three roles: the bench, the load (`agent storm NAME`), and the processes to read (`agent crowd N`).

#[path = "../hooks/bpftrace.rs"]
#[expect(dead_code, reason = "shared with the bench of the hooks, which has more scripts")]
mod bpftrace;
#[path = "../snapshot/crowd.rs"]
mod crowd;
#[path = "../../tests/program/mod.rs"]
mod program;
#[path = "../hooks/report.rs"]
#[expect(dead_code, reason = "shared with the bench of the hooks, which uses more of it")]
mod report;
mod running;
#[path = "../hooks/storm.rs"]
#[expect(dead_code, reason = "shared with the bench of the hooks, which has more loads")]
mod storm;

use std::{
    io::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use aya::sys::{Stats, enable_stats};
use clap::Parser;

use crate::{
    bpftrace::{Runs, Script},
    crowd::{Crowd, MEMBERS},
    report::{Table, median},
    running::Agent,
    storm::Load,
};

/// Measure the cost of the agent on this machine. Needs bpftrace, and a tracefs on /sys/kernel/tracing.
#[derive(Parser)]
#[command(name = "cargo xtask bench agent --", args_override_self = true)]
struct Args {
    /// Number of processes that live and die in a storm
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    lives: u64,

    /// Rounds, each of which measures everything
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,

    /// Number of processes of the scraped crowd, six in a namespace
    #[arg(long, value_name = "N", default_value_t = 6_000, value_parser = clap::value_parser!(u64).range(MEMBERS..))]
    processes: u64,

    /// `cargo bench` passes this; `cargo test --all-targets` does not
    #[arg(long, hide = true)]
    bench: bool,
}

/// The tracepoints of the agent in bpftrace's notation, and the agent's programs there.
const HOOKS: [(&str, &[&str]); 4] = [
    ("sched:sched_process_fork", &["process_fork", "again_process_fork"]),
    ("sched:sched_process_exec", &["process_exec", "again_process_exec"]),
    ("sched:sched_process_exit", &["process_exit_group_dead", "process_exit_live", "again_process_exit"]),
    ("signal:signal_generate", &["signal_generate"]),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(crowd::ARGUMENT) => return crowd::main(&args[2..]),
        Some(storm::ARGUMENT) => return storm::main(&args[2..]),
        _ => {}
    }
    let args = Args::parse();
    if !args.bench {
        return ExitCode::SUCCESS;
    }
    match measure(&args) {
        Ok(report) => {
            // A closed pipe means that the report has no reader.
            let _ = write!(std::io::stdout(), "{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<String> {
    // The kernel counts while this file is open.
    let _counting = enable_stats(Stats::RunTime).context("enable the kernel's BPF statistics")?;
    let hooks = hooks(args)?;
    let storms = storms(args)?;
    let crowd = scrapes(args)?;
    Ok(format!("{hooks}\n{storms}\n{crowd}"))
}

/// Nanoseconds in the kernel for each hook, with the agent and bpftrace attached together.
fn hooks(args: &Args) -> Result<Table> {
    let mut table = Table::new(&["tracepoint", "agent", "bpftrace count()", "agent / bpftrace"]);
    let agent = Agent::start(&["--bpf-stats"])?;
    let counts = HOOKS.map(|(tracepoint, _)| Script::count(tracepoint));
    let counts: Vec<Script> = counts.into_iter().collect::<Result<_>>()?;
    let of_agent = |programs: &[&str]| -> Result<Runs> {
        let answer = agent.get("/metrics")?;
        let sum = |metric: &str| -> f64 {
            let wanted = |line: &&str| programs.iter().any(|name| line.contains(&format!("\"{name}\"")));
            let lines = answer.lines().filter(|line| line.starts_with(metric)).filter(wanted);
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        let ns = (sum("pidns_trace_bpf_program_seconds_total") * 1e9) as u64;
        Ok(Runs { ns, runs: sum("pidns_trace_bpf_program_runs_total") as u64 })
    };
    let mut rounds: Vec<Vec<(f64, f64)>> = vec![Vec::new(); HOOKS.len()];
    for _ in 0..args.rounds {
        let before = HOOKS.map(|(_, programs)| of_agent(programs));
        let counted_before: Vec<Runs> = counts.iter().map(Script::runs).collect::<Result<_>>()?;
        Load::Lives { lives: args.lives, workers: 1, inside: true, light: true }.run()?;
        Load::Execs(args.lives / 20).run()?;
        for (index, before) in before.into_iter().enumerate() {
            let ours = per_run(before?, of_agent(HOOKS[index].1)?);
            rounds[index].push((ours, per_run(counted_before[index], counts[index].runs()?)));
        }
    }
    for ((tracepoint, _), rounds) in HOOKS.iter().zip(&rounds) {
        let ns = |of: fn(&(f64, f64)) -> f64| median(rounds.iter().map(of));
        table.row([
            (*tracepoint).to_owned(),
            format!("{:.0} ns", ns(|(ours, _)| *ours)),
            format!("{:.0} ns", ns(|(_, theirs)| *theirs)),
            format!("{:.2}", ns(|(ours, theirs)| ours / theirs)),
        ]);
    }
    Ok(table)
}

fn per_run(before: Runs, after: Runs) -> f64 {
    (after.ns - before.ns) as f64 / (after.runs - before.runs).max(1) as f64
}

/// Runs the storm and getppid(2) with and without the agent, in turns.
fn storms(args: &Args) -> Result<Table> {
    let load = Load::Lives { lives: args.lives, workers: 2, inside: true, light: false };
    let calls = Load::Calls(2_000_000);
    let (mut slower, mut calls_slower, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..args.rounds {
        let bare = || -> Result<(Duration, Duration)> { Ok((load.run()?.cpu, calls.run()?.cpu)) };
        let watched = || -> Result<(Duration, Duration, f64)> {
            let agent = Agent::start(&[])?;
            let before = agent.cpu()?;
            let took = load.run()?;
            let share = (agent.cpu()? - before).as_secs_f64() / took.wall.as_secs_f64();
            Ok((took.cpu, calls.run()?.cpu, share))
        };
        // Alternate the order, so that neither always runs first after a pause.
        let (bare, watched) = if round % 2 == 0 {
            let bare = bare()?;
            (bare, watched()?)
        } else {
            let watched = watched()?;
            (bare()?, watched)
        };
        slower.push(watched.0.as_secs_f64() / bare.0.as_secs_f64());
        calls_slower.push(watched.1.as_secs_f64() / bare.1.as_secs_f64());
        shares.push(100.0 * watched.2);
    }
    let mut table = Table::new(&["with the agent", "median of the rounds"]);
    table.row(["storm of forks, CPU, against bare".to_owned(), format!("{:.3}", median(slower))]);
    table.row(["getppid(2), CPU, against bare".to_owned(), format!("{:.3}", median(calls_slower))]);
    table.row(["CPU of the agent during the storm".to_owned(), format!("{:.2} %", median(shares))]);
    Ok(table)
}

/// Measures a scrape of a crowded machine, and the agent's memory there.
fn scrapes(args: &Args) -> Result<Table> {
    if let Some(why) = crowd::no_room_for(args.processes, MEMBERS) {
        bail!("no room for the crowd: {why}");
    }
    let _crowd = Crowd::start(args.processes, MEMBERS)?;
    let agent = Agent::start(&[])?;
    let times = (0..20).map(|_| -> Result<f64> {
        let began = Instant::now();
        agent.get("/metrics")?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    });
    let times: Vec<f64> = times.collect::<Result<_>>()?;
    let namespaces = agent.value("pidns_namespaces{state=\"active\"}")?;
    let (memory, most) = agent.memory()?;
    let mut table =
        Table::new(&[&format!("{namespaces} namespaces, {} processes", args.processes), "measured"]);
    let slowest = times.iter().copied().fold(0.0, f64::max);
    table.row([
        "scrape, median and slowest of 20".to_owned(),
        format!("{:.1} ms, {slowest:.1} ms", median(times)),
    ]);
    table.row([
        "memory, and the most so far".to_owned(),
        format!("{:.1} MiB, {:.1} MiB", memory as f64 / 1024.0, most as f64 / 1024.0),
    ]);
    Ok(table)
}
