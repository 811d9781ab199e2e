//! Thresholds of findings: options of `findings`, `trace`, `record` and `agent`.

use std::time::Duration;

use clap::Args;

use super::values::parse_duration;
use crate::findings::Thresholds;

/// When a situation becomes a finding.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Thresholds of findings")]
pub struct ThresholdArgs {
    /// Time for PID 1 to reap an ended orphan; ten times as long if PID 1 reaps others meanwhile (zombies-not-reaped).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub zombie_age: Duration,

    /// A process that leaves this number of its own children as zombies for ten times --zombie-age is a finding
    /// (zombies-not-reaped).
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 5)]
    pub zombies: u64,

    /// Time that the end of a namespace may take (teardown-blocked).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub teardown_time: Duration,

    /// How long a refusal, an ignored signal or a death remains a finding (namespace-dead-fork, init-ignored-signal,
    /// init-killed, pid-exhaustion, creation-refused, member-oom-killed, children-elsewhere).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    pub incident_time: Duration,

    /// Share of a limit on PIDs at which it counts as nearly reached (pid-exhaustion).
    #[arg(long, hide_short_help = true, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub pids_percent: u8,

    /// Time that a namespace without processes may be held (namespace-leaked).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub leaked_time: Duration,

    /// Time that a process that entered by setns may run if its parent does not show whether its starter has ended
    /// (joined-leftover).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub joined_time: Duration,

    /// Time that a runtime's helper may outlive its namespace (creator-leftover).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub creator_time: Duration,

    /// Time for a process to fork after its children's namespace was changed (children-elsewhere).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub elsewhere_time: Duration,

    /// A namespace with this number of levels or fewer left below it is a finding (near-depth-limit).
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 4)]
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
    fn options_have_the_defaults_of_the_detectors() {
        let OfTest { thresholds } = OfTest::parse_from(["test"]);
        assert_eq!(Thresholds::from(thresholds), Thresholds::default());
    }
}
