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
use crate::{
    event::finding::Severity,
    kernel::hooks::HookSet,
    output::{fields::Fields, table::Field},
};

/// Default size of a stream's ring buffer, bytes.
const RING_SIZE: u32 = 4 << 20;

/// [`Severity`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SeverityName {
    /// Any finding.
    Info,
    /// Findings that do harm or will do harm.
    Warning,
    /// Findings that keep a service from working, or will within minutes.
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
    /// Only findings about this namespace or container, and those nested in it.
    ///
    /// An inode number (4026532847 or pid:[4026532847]), a PID on the host, a path like /proc/PID/ns/pid, or the name,
    /// pod or id (its beginning is enough) of a container. With a TARGET, the namespace that its /proc shows is checked
    /// too.
    pub target: Option<String>,

    /// Watch until Ctrl-C: print a line when a finding is opened, changes or is closed.
    #[arg(long, conflicts_with = "from")]
    pub watch: bool,

    /// With --watch: omit the table's heading.
    #[arg(long, help_heading = "Output", requires = "watch")]
    pub no_headers: bool,

    /// With --watch: columns, like time,event,detail; +uid adds to the default columns.
    ///
    /// The columns of the live stream: time, event, ns, level, pids, pid, ppid, uid, comm, container, detail.
    #[arg(long, help_heading = "Output", value_name = "FIELDS", requires = "watch")]
    pub fields: Option<Fields<Field>>,

    /// How long to watch before reporting.
    ///
    /// Refusals, signals and deaths are seen only while it watches.
    #[arg(long = "for", value_name = "TIME", default_value = "2s", value_parser = parse_duration, conflicts_with = "watch")]
    pub watch_for: Duration,

    /// Exit with code 1 only for a finding that is at least this severe.
    #[arg(long, value_name = "SEVERITY", value_parser = severity(), default_value = "info")]
    pub fail_on: Severity,

    /// Output format.
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "table")]
    pub output: SnapshotOutput,

    /// Layout of the output.
    #[command(flatten)]
    pub screen: ScreenArgs,

    /// Print only errors on stderr.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// Kernel hooks to use: auto, function, tracepoint.
    ///
    /// Function hooks (fentry, fexit) report more facts, and report them more exactly. Tracepoints exist on every
    /// kernel.
    #[arg(long, help_heading = "Kernel", value_name = "SET", hide_possible_values = true, value_parser = hook_set(), default_value = "auto")]
    pub hooks: HookSet,

    /// The source.
    #[command(flatten)]
    pub past: SourceArgs,

    /// Thresholds of findings.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
}

impl FindingsArgs {
    /// Options of the kernel side for it.
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
