//! Arguments of `findings`, and the thresholds that other commands have too.

use std::time::Duration;

use clap::{Args, ValueEnum, builder::EnumValueParser, builder::TypedValueParser};

use super::{
    snapshot::{SnapshotOutput, SourceArgs},
    stream::Kernel,
    values::{hook_set, parse_duration},
};
use crate::{event::finding::Severity, findings::Thresholds, kernel::hooks::HookSet};

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
    /// Only what is about this namespace and those below it: an inode number (4026532847 or pid:[4026532847]), a PID of the
    /// host, a path like /proc/PID/ns/pid, or the name, pod or id (its beginning is enough) of a container. What its /proc shows
    /// is looked at only where a TARGET is given.
    pub target: Option<String>,

    /// Go on until Ctrl-C: a line when something is found, has changed, or is over.
    #[arg(long, conflicts_with = "from")]
    pub watch: bool,

    /// Watch for this long before saying what is wrong. Refusals, signals and deaths are seen only while it watches.
    #[arg(long = "for", value_name = "TIME", default_value = "2s", value_parser = parse_duration, conflicts_with = "watch")]
    pub watch_for: Duration,

    /// End with exit code 1 only if something is at least this severe.
    #[arg(long, value_name = "SEVERITY", value_parser = severity(), default_value = "info")]
    pub fail_on: Severity,

    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: SnapshotOutput,

    /// Say nothing on stderr but errors.
    #[arg(short, long)]
    pub quiet: bool,

    /// Which kernel hooks to use: functions (fentry, fexit) tell more, more exactly; tracepoints are there on every kernel.
    #[arg(long, value_name = "SET", value_parser = hook_set(), default_value = "auto")]
    pub hooks: HookSet,

    /// Where to look.
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

/// From when on something is a finding.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Thresholds of findings")]
pub struct ThresholdArgs {
    /// An orphan's zombie that PID 1 has not reaped for this long is not reaped (zombies-not-reaped). Ten times as long, where it
    /// reaps others meanwhile.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub zombie_age: Duration,

    /// Of its own children a process may leave fewer zombies than this, for ten times --zombie-age (zombies-not-reaped).
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub zombies: u64,

    /// The end of a namespace may take this long (teardown-blocked).
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub teardown_time: Duration,

    /// A refusal, an ignored signal or a death is a finding for this long (namespace-dead-fork, init-ignored-signal, init-killed,
    /// pid-exhaustion, creation-refused, member-oom-killed, children-elsewhere).
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    pub incident_time: Duration,

    /// This share of a limit on PIDs may be used (pid-exhaustion).
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub pids_percent: u8,

    /// A namespace may be held without a process for this long (namespace-leaked).
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub leaked_time: Duration,

    /// A process that entered by setns may run for this long where its runtime still keeps it (joined-leftover).
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub joined_time: Duration,

    /// A runtime's helper may outlive its namespace by this long (creator-leftover).
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub creator_time: Duration,

    /// A process whose children go to another namespace has this long to fork one (children-elsewhere).
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub elsewhere_time: Duration,

    /// Fewer levels than this below the deepest are few (near-depth-limit).
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub depth_left: u32,
}

impl From<ThresholdArgs> for Thresholds {
    fn from(args: ThresholdArgs) -> Self {
        Self {
            zombie_age: args.zombie_age,
            zombies: args.zombies.max(1),
            teardown: args.teardown_time,
            incident: args.incident_time,
            pids_percent: args.pids_percent,
            leaked: args.leaked_time,
            joined: args.joined_time,
            creator: args.creator_time,
            elsewhere: args.elsewhere_time,
            depth_left: args.depth_left,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct OfTest {
        #[command(flatten)]
        thresholds: ThresholdArgs,
    }

    #[test]
    fn the_options_have_the_defaults_of_the_detectors() {
        let OfTest { thresholds } = OfTest::parse_from(["test"]);
        assert_eq!(Thresholds::from(thresholds), Thresholds::default());
    }
}
