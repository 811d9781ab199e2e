//! Arguments of `agent`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::thresholds::ThresholdArgs;
use super::values::{hook_set, parse_duration, parse_listen_address, parse_ring_size};
use crate::kernel::hooks::HookSet;

/// Options of `agent`.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// Address and port to serve on; :10978 for all addresses of the machine [repeatable].
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
    /// A file in the format of the Prometheus exporters. It is read again when it changes, and on SIGHUP.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config: Option<PathBuf>,

    /// Give so many namespaces series of their own; 0: none.
    ///
    /// Those with most processes first. Each has about 14.
    #[arg(long = "metrics.namespace-limit", value_name = "N", default_value_t = 200)]
    pub namespace_limit: usize,

    /// Take a snapshot of all processes this often.
    ///
    /// What states they are in, and which are zombies. (Forks, execs and ends are counted as they happen.)
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub snapshot_interval: Duration,

    /// Which kernel hooks to use: auto, function, tracepoint.
    ///
    /// Functions (fentry, fexit) report more, more exactly; tracepoints are there on every kernel.
    #[arg(long, help_heading = "Kernel", value_name = "SET", hide_possible_values = true, value_parser = hook_set(), default_value = "auto")]
    pub hooks: HookSet,

    /// Where this kernel takes no function hooks: hook all system calls.
    ///
    /// That slows each a little. Without it, refused forks and namespaces are not seen, nor is setns before the next fork.
    #[arg(long, help_heading = "Kernel")]
    pub syscall_hooks: bool,

    /// Size of the kernel's ring buffer: a power of two.
    ///
    /// Like 64K or 16M. Only events of namespaces and their inits go through it.
    #[arg(long, help_heading = "Kernel", value_name = "SIZE", default_value = "1M", value_parser = parse_ring_size)]
    pub ring_size: u32,

    /// Ask Docker's and Podman's daemons for names that their files do not have.
    ///
    /// Through their sockets: such as for containers of a daemon with a data folder of its own.
    #[arg(long, help_heading = "Advanced")]
    pub runtime_api: bool,

    /// Count the runs of BPF programs and their time, for own metrics.
    ///
    /// Costs all BPF programs of the machine 20 to 30 ns a run, and needs CAP_SYS_ADMIN at the start.
    #[arg(long, help_heading = "Advanced")]
    pub bpf_stats: bool,

    /// How log lines are written to stderr.
    #[arg(long, help_heading = "Output", value_name = "FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// Least severe log lines to write.
    #[arg(long, help_heading = "Output", value_name = "LEVEL", value_enum, default_value = "info")]
    pub log_level: AgentLogLevel,

    /// From when on something is a finding (pidns_findings).
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Levels of the agent's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AgentLogLevel {
    /// What went wrong.
    Error,
    /// What may be wrong.
    Warn,
    /// What happens seldom.
    Info,
    /// Each refused client, and the like.
    Debug,
}
