//! Arguments of `findings`.

use std::time::Duration;

use clap::{Args, ValueEnum, builder::EnumValueParser, builder::TypedValueParser};

use super::{
    screen::ScreenArgs,
    snapshot::{SnapshotOutput, SourceArgs},
    stream::Kernel,
    thresholds::ThresholdArgs,
    values::{hook_set, parse_duration},
};
use crate::{event::finding::Severity, kernel::hooks::HookSet};

/// Size of the kernel's ring buffer, bytes: the default of a stream.
const RING_SIZE: u32 = 4 << 20;

/// [`Severity`] as the command line has it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SeverityName {
    /// Any finding.
    Info,
    /// Those that do harm, or will.
    Warning,
    /// Those that keep a service from working, or will within minutes.
    Critical,
}

fn severity() -> impl TypedValueParser<Value = Severity> {
    EnumValueParser::<SeverityName>::new().map(|name| match name {
        SeverityName::Info => Severity::Info,
        SeverityName::Warning => Severity::Warning,
        SeverityName::Critical => Severity::Critical,
    })
}

/// Options of `findings`.
#[derive(Clone, Debug, Args)]
pub struct FindingsArgs {
    /// Only what is about this namespace, or container, and those below it.
    ///
    /// An inode number (4026532847 or pid:[4026532847]), a PID of the host, a path like /proc/PID/ns/pid, or the name, pod or id (its beginning is enough) of a container. What its /proc shows
    /// is checked only where a TARGET is given.
    pub target: Option<String>,

    /// Go on until Ctrl-C: a line when something is found, has changed, or is over.
    #[arg(long, conflicts_with = "from")]
    pub watch: bool,

    /// Watch for this long before saying what is wrong.
    ///
    /// Refusals, signals and deaths are seen only while it watches.
    #[arg(long = "for", value_name = "TIME", default_value = "2s", value_parser = parse_duration, conflicts_with = "watch")]
    pub watch_for: Duration,

    /// End with exit code 1 only if something is at least this severe.
    #[arg(long, value_name = "SEVERITY", value_parser = severity(), default_value = "info")]
    pub fail_on: Severity,

    /// The form of the output.
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "table")]
    pub output: SnapshotOutput,

    /// How it is laid out.
    #[command(flatten)]
    pub screen: ScreenArgs,

    /// Print nothing on stderr but errors.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// Which kernel hooks to use: auto, function, tracepoint.
    ///
    /// Functions (fentry, fexit) report more, more exactly; tracepoints are there on every kernel.
    #[arg(long, help_heading = "Kernel", value_name = "SET", hide_possible_values = true, value_parser = hook_set(), default_value = "auto")]
    pub hooks: HookSet,

    /// The source.
    #[command(flatten)]
    pub past: SourceArgs,

    /// From when on something is a finding.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
}

impl FindingsArgs {
    /// How the kernel side works for it.
    pub fn kernel(&self) -> Kernel {
        Kernel {
            args: false,
            strict: false,
            quiet: self.quiet,
            ring_size: RING_SIZE,
            hooks: self.hooks,
            no_syscall_hooks: false,
            verify_interval: None,
            runtime_api: self.past.runtime_api,
            bpf_log: None,
        }
    }
}
