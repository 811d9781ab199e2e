//! Thresholds of findings: options of `findings`, `trace`, `record` and `agent`.

use std::time::Duration;

use clap::Args;

use super::values::parse_duration;
use crate::findings::Thresholds;

/// When a situation becomes a finding.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Thresholds of findings")]
pub struct ThresholdArgs {
    /// PID 1 has this long to reap an orphan that has ended, and ten times as long if it reaps others meanwhile
    /// (zombies-not-reaped).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub zombie_age: Duration,

    /// A process that leaves this many of its own children as zombies for ten times --zombie-age is a finding
    /// (zombies-not-reaped).
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 5)]
    pub zombies: u64,

    /// The end of a namespace may take this long (teardown-blocked).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub teardown_time: Duration,

    /// A refusal, an ignored signal or a death is a finding for this long (namespace-dead-fork, init-ignored-signal, init-killed,
    /// pid-exhaustion, creation-refused, member-oom-killed, children-elsewhere).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    pub incident_time: Duration,

    /// A limit on PIDs is nearly reached when this share of it is used (pid-exhaustion).
    #[arg(long, hide_short_help = true, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub pids_percent: u8,

    /// A namespace may be held without a process for this long (namespace-leaked).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub leaked_time: Duration,

    /// A process that entered by setns may run for this long where its runtime still keeps it (joined-leftover).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub joined_time: Duration,

    /// A runtime's helper may outlive its namespace by this long (creator-leftover).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub creator_time: Duration,

    /// A process whose children go to another namespace has this long to fork one (children-elsewhere).
    #[arg(long, hide_short_help = true, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub elsewhere_time: Duration,

    /// A namespace with this many levels left below it, or fewer, is a finding (near-depth-limit).
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
    fn the_options_have_the_defaults_of_the_detectors() {
        let OfTest { thresholds } = OfTest::parse_from(["test"]);
        assert_eq!(Thresholds::from(thresholds), Thresholds::default());
    }
}
