//! The subjects of the measurements: the machine without programs, with empty ones, or with ours.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use pidns_user::kernel::hooks::HookSet;
use serde::Serialize;

use crate::{
    program,
    programs::{self, HOOKS, Programs, RunTimes, SYSCALL},
    tracer::{Run, Tracer},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    Bare,
    /// An empty program on each of the six busy tracepoints.
    Empty,
    /// An empty program on the hook of system calls only.
    EmptySyscall,
    /// A program that reserves and submits a record at each fork.
    ReserveSubmit,
    /// The same without waking the reader.
    ReserveQuiet,
    /// pidns-trace with its own choice of hooks.
    Ours,
    OursNoSyscallHooks,
    OursTracepoint,
    OursFunction,
    /// pidns-trace without options: it shows processes of containers only.
    OursDefault,
    /// Another build, which PIDNS_TRACE_BEFORE names.
    Before,
    BeforeDefault,
}

impl Subject {
    /// pidns-trace with this set of hooks.
    pub(crate) fn of(set: HookSet) -> Self {
        match set {
            HookSet::Auto => Self::Ours,
            HookSet::Function => Self::OursFunction,
            HookSet::Tracepoint => Self::OursTracepoint,
        }
    }

    /// The options of pidns-trace besides `-e all`, for subjects that run it.
    pub(crate) fn options(self) -> &'static [&'static str] {
        match self {
            Self::OursNoSyscallHooks => &["--no-syscall-hooks"],
            Self::OursTracepoint => &["--hooks", "tracepoint"],
            Self::OursFunction => &["--hooks", "function"],
            Self::Ours
            | Self::OursDefault
            | Self::Before
            | Self::BeforeDefault
            | Self::Bare
            | Self::Empty
            | Self::EmptySyscall
            | Self::ReserveSubmit
            | Self::ReserveQuiet => &[],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Empty => "empty programs, same hooks",
            Self::EmptySyscall => "empty program, sys_exit alone",
            Self::ReserveSubmit => "reserve/submit at fork",
            Self::ReserveQuiet => "reserve/submit at fork, no wake-up",
            Self::Ours => "pidns-trace",
            Self::OursNoSyscallHooks => "pidns-trace --no-syscall-hooks",
            Self::OursTracepoint => "pidns-trace --hooks tracepoint",
            Self::OursFunction => "pidns-trace --hooks function",
            Self::OursDefault => "pidns-trace, no -e",
            Self::Before => "PIDNS_TRACE_BEFORE",
            Self::BeforeDefault => "PIDNS_TRACE_BEFORE, no -e",
        }
    }

    /// The name in the heading of a column.
    pub(crate) fn short_name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::ReserveSubmit => "reserve/submit",
            Self::ReserveQuiet => "no wake-up",
            Self::OursNoSyscallHooks => "--no-syscall-hooks",
            Self::OursTracepoint => "--hooks tracepoint",
            Self::OursFunction => "--hooks function",
            Self::Bare
            | Self::EmptySyscall
            | Self::Ours
            | Self::OursDefault
            | Self::Before
            | Self::BeforeDefault => self.name(),
        }
    }

    pub(crate) fn start(self, watch: &mut Watch) -> Result<Running> {
        let parts = match self {
            Self::Bare => Parts::Bare,
            Self::Empty => Parts::Bench(Programs::empty(&HOOKS.map(|hook| hook.tracepoint))?),
            Self::EmptySyscall => Parts::Bench(Programs::empty(&[SYSCALL])?),
            Self::ReserveSubmit => Parts::Bench(Programs::reserve_submit(true)?),
            Self::ReserveQuiet => Parts::Bench(Programs::reserve_submit(false)?),
            Self::Ours | Self::OursNoSyscallHooks | Self::OursTracepoint | Self::OursFunction => {
                Parts::Ours(Tracer::start(&program::path(), &[&["-e", "all"], self.options()].concat())?)
            }
            Self::OursDefault => Parts::Ours(Tracer::start(&program::path(), &[])?),
            Self::Before => Parts::Ours(Tracer::start(&before()?, &["-e", "all"])?),
            Self::BeforeDefault => Parts::Ours(Tracer::start(&before()?, &[])?),
        };
        let running = Running(parts);
        watch.measurements += 1;
        watch.read(&running);
        Ok(running)
    }
}

/// The path of the other build.
fn before() -> Result<PathBuf> {
    before_path().context("PIDNS_TRACE_BEFORE is not set")
}

/// The path of the other build, if it is set.
pub(crate) fn before_path() -> Option<PathBuf> {
    std::env::var_os("PIDNS_TRACE_BEFORE").map(PathBuf::from)
}

/// A running subject. Stopped on drop.
pub(crate) struct Running(Parts);

enum Parts {
    Bare,
    Bench(Programs),
    Ours(Tracer),
}

impl Running {
    fn ids(&self) -> &[u32] {
        match &self.0 {
            Parts::Bare => &[],
            Parts::Bench(programs) => &programs.ids,
            Parts::Ours(tracer) => &tracer.ids,
        }
    }

    pub(crate) fn run_times(&self) -> RunTimes {
        programs::run_times(self.ids())
    }

    /// Stops the subject. Returns the results of the run if it was pidns-trace.
    pub(crate) fn finish(self, watch: &mut Watch) -> Result<Option<Run>> {
        watch.read(&self);
        let ids = self.ids().to_vec();
        let run = match self.0 {
            Parts::Bare => None,
            Parts::Bench(programs) => {
                programs.finish();
                None
            }
            Parts::Ours(tracer) => Some(tracer.finish()?),
        };
        programs::await_gone(&ids)?;
        Ok(run)
    }
}

/// Detects disturbances of the measurements.
#[derive(Default, Serialize)]
pub(crate) struct Watch {
    /// Number of measured subjects.
    pub(crate) measurements: u64,
    /// Number of checks (two for each measurement) that found another pidns-trace or bench with programs on the
    /// hooks.
    pub(crate) disturbed_reads: u64,
}

impl Watch {
    fn read(&mut self, running: &Running) {
        self.disturbed_reads += u64::from(programs::others_are_loaded(running.ids()));
    }
}
