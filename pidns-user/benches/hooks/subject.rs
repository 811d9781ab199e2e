//! What is measured: the machine with none, empty, or our programs on its hooks.

use anyhow::Result;
use pidns_user::kernel::hooks::HookSet;
use serde::Serialize;

use crate::{
    programs::{self, HOOKS, Programs, RunTimes, SYSCALL},
    tracer::{Run, Tracer},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    Bare,
    /// An empty program on each hook that the product uses.
    Empty,
    /// An empty program on the hook of system calls alone.
    EmptySyscall,
    /// A record reserved and submitted at each fork.
    ReserveSubmit,
    /// The same without waking its reader.
    ReserveQuiet,
    /// With the hooks that it takes by itself.
    Ours,
    OursNoSyscallHooks,
    OursTracepoint,
    OursFunction,
}

impl Subject {
    /// Ours, with this set of hooks.
    pub(crate) fn of(set: HookSet) -> Self {
        match set {
            HookSet::Auto => Self::Ours,
            HookSet::Function => Self::OursFunction,
            HookSet::Tracepoint => Self::OursTracepoint,
        }
    }

    /// What pidns-trace is started with, where it is ours.
    pub(crate) fn options(self) -> &'static [&'static str] {
        match self {
            Self::OursNoSyscallHooks => &["--no-syscall-hooks"],
            Self::OursTracepoint => &["--hooks", "tracepoint"],
            Self::OursFunction => &["--hooks", "function"],
            Self::Ours
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
        }
    }

    /// For the heading of a column.
    pub(crate) fn short_name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::ReserveSubmit => "reserve/submit",
            Self::ReserveQuiet => "no wake-up",
            Self::OursNoSyscallHooks => "--no-syscall-hooks",
            Self::OursTracepoint => "--hooks tracepoint",
            Self::OursFunction => "--hooks function",
            Self::Bare | Self::EmptySyscall | Self::Ours => self.name(),
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
                Parts::Ours(Tracer::start(self.options())?)
            }
        };
        let running = Running(parts);
        watch.measurements += 1;
        watch.look(&running);
        Ok(running)
    }
}

/// A subject in place. It goes when this is dropped.
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

    /// Takes it away; says how it went if it was ours.
    pub(crate) fn finish(self, watch: &mut Watch) -> Result<Option<Run>> {
        watch.look(&self);
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

/// Looks for what disturbs the figures.
#[derive(Default, Serialize)]
pub(crate) struct Watch {
    /// Subjects that were measured.
    pub(crate) measurements: u64,
    /// Times, of two for each, that another pidns-trace or bench had its programs on the hooks too.
    pub(crate) disturbed_looks: u64,
}

impl Watch {
    fn look(&mut self, running: &Running) {
        self.disturbed_looks += u64::from(programs::others_are_loaded(running.ids()));
    }
}
