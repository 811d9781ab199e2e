//! Arguments of `agent`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::thresholds::ThresholdArgs;
use super::values::{hook_set, parse_duration, parse_listen_address, parse_ring_size};
use crate::kernel::hooks::HookSet;

/// Options of `agent`.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// Address and port to serve on; :10978 for all addresses of the host [repeatable].
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:10978",
        value_parser = parse_listen_address
    )]
    pub listen: Vec<SocketAddr>,

    /// Path of the metrics.
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics")]
    pub telemetry_path: String,

    /// TLS, client certificates and passwords (docs/web.md).
    ///
    /// A file in the format of the Prometheus exporters. It is reloaded when it changes, and on SIGHUP.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config: Option<PathBuf>,

    /// Number of namespaces with their own series; 0: none.
    ///
    /// The namespaces with the most processes come first. Each has about 14 series.
    #[arg(long = "metrics.namespace-limit", value_name = "N", default_value_t = 200)]
    pub namespace_limit: usize,

    /// Interval between snapshots of all processes.
    ///
    /// A snapshot shows the states of processes and the zombies. (Forks, execs and exits are counted as they happen.)
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub snapshot_interval: Duration,

    /// Kernel hooks to use: auto, function, tracepoint.
    ///
    /// Function hooks (fentry, fexit) report more facts, and report them more exactly. Tracepoints exist on every
    /// kernel.
    #[arg(long, help_heading = "Kernel", value_name = "SET", hide_possible_values = true, value_parser = hook_set(), default_value = "auto")]
    pub hooks: HookSet,

    /// Hook all system calls if this kernel accepts no function hooks.
    ///
    /// That slows each system call a little. Without it, refused forks and refused namespaces are not reported, and
    /// setns only at the next fork.
    #[arg(long, help_heading = "Kernel")]
    pub syscall_hooks: bool,

    /// Size of the kernel's ring buffer: a power of two.
    ///
    /// Like 64K or 16M. Only events about namespaces and their inits go through it.
    #[arg(long, help_heading = "Kernel", value_name = "SIZE", default_value = "1M", value_parser = parse_ring_size)]
    pub ring_size: u32,

    /// Ask Docker's and Podman's daemons for container names that are not in their files.
    ///
    /// Through their sockets, for example for a daemon with its own data directory.
    #[arg(long, help_heading = "Advanced")]
    pub runtime_api: bool,

    /// Count the runs of BPF programs and their time, for more metrics.
    ///
    /// Adds 20 to 30 ns to each run of any BPF program on the host, and needs CAP_SYS_ADMIN at the start.
    #[arg(long, help_heading = "Advanced")]
    pub bpf_stats: bool,

    /// Format of log lines on stderr.
    #[arg(long, help_heading = "Output", value_name = "FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// Least severe log lines to write.
    #[arg(long, help_heading = "Output", value_name = "LEVEL", value_enum, default_value = "info")]
    pub log_level: AgentLogLevel,

    /// Log only errors, like --log-level error.
    #[arg(short, long, help_heading = "Output", hide_short_help = true, conflicts_with = "log_level")]
    pub quiet: bool,

    /// Thresholds of findings (pidns_findings).
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Levels of the agent's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AgentLogLevel {
    /// Errors.
    Error,
    /// Possible problems.
    Warn,
    /// Rare events.
    Info,
    /// Details, such as each refused client.
    Debug,
}
