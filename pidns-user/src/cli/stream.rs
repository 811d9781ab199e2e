//! Arguments of the commands that create or show a stream: `trace`, `record`, `replay`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    screen::ScreenArgs,
    thresholds::ThresholdArgs,
    values::{hook_set, parse_duration, parse_pid, parse_ring_size, parse_speed},
};
use crate::{
    event::identity::HostPid,
    filter::FilterArgs,
    kernel::hooks::HookSet,
    output::{fields::Fields, table::Field},
};

/// Format of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: one line per event, times in local time; ~ at the end of a line: not exact.
    Table,
    /// For programs: one JSON object per line, times in UTC (docs/events.md).
    Json,
}

/// Options of the live stream.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Filters.
    #[command(flatten)]
    pub filters: FilterOptions,
    /// When to stop.
    #[command(flatten)]
    pub stop: Stop,
    /// Output format and layout.
    #[command(flatten)]
    pub view: ViewArgs,
    /// Report findings too (docs/findings.md).
    ///
    /// Such as zombies that are not reaped, hanging teardowns, and reached limits. The kernel side then sends
    /// everything, as for `record`.
    #[arg(long, help_heading = "Filters")]
    pub findings: bool,
    /// Options of the kernel side.
    #[command(flatten)]
    pub kernel: Kernel,
    /// Thresholds of findings.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
}

/// Filters of a stream.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterOptions {
    /// Only these events, like fork, 'namespace.*', all.
    ///
    /// A name (docs/events.md), a label of the column EVENT like 'init exit', a pattern like 'namespace.*', or 'all';
    /// separate several with commas.
    ///
    /// Without this option: namespace.*, init.*, fork.failed, and the process.fork, process.exec and process.exit of
    /// processes outside the host's own namespace. With it: these events, of all processes; narrow them with --level,
    /// --ns, --pid or --comm. JSON output always contains stream.start, stream.lost and stream.end.
    #[arg(short, long = "event", value_name = "GLOB")]
    pub events: Vec<String>,

    /// Only this namespace and those nested in it.
    ///
    /// TARGET is an inode number, pid:[N], a PID, a path like /proc/PID/ns/pid, or the name, pod or id of a running
    /// container.
    #[arg(short, long = "ns", value_name = "TARGET")]
    pub namespaces: Vec<String>,

    /// Only this container: its name, pod, or id.
    ///
    /// Containers that run inside it are shown too. A pod can be namespace/pod; the beginning of an id is enough.
    ///
    /// Containers that start later are shown too. An event belongs to the container of its namespace's PID 1. If that
    /// container becomes known only after the first events, these events are not shown.
    #[arg(short, long = "container", value_name = "NAME")]
    pub containers: Vec<String>,

    /// Only this process, by its PID on the host.
    ///
    /// An event with two processes (forker and child, sender and receiver of a signal) is shown if either matches.
    #[arg(
        short,
        long = "pid",
        value_name = "PID",
        value_delimiter = ',',
        allow_negative_numbers = true,
        value_parser = parse_pid
    )]
    pub pids: Vec<HostPid>,

    /// Only processes with this name (comm), like 'nginx*'.
    ///
    /// The name at the time of the event counts: a forked process has its parent's name until it execs. The kernel
    /// keeps 15 bytes of a name. For events about a namespace it is the name of the creator, the PID 1 or the joining
    /// process; a teardown has no process and is not shown.
    #[arg(long = "comm", value_name = "GLOB")]
    pub comms: Vec<String>,

    /// Only this level: 0 is the host, 1 a container; 1-3, 2+.
    ///
    /// A process is at the level of its innermost namespace, a namespace at its own: --level 0 shows the host's
    /// processes, and refusals to them. Without --event and --level the host's processes are omitted.
    #[arg(long = "level", value_name = "LEVEL", value_delimiter = ',', allow_hyphen_values = true)]
    pub levels: Vec<String>,

    /// Start with the existing namespaces and processes.
    ///
    /// They are printed as snapshot.namespace and snapshot.process; after a loss a new snapshot is taken. In the live
    /// stream the kernel side then sends everything, and filters apply in user space: that costs as much as `record`.
    #[arg(long)]
    pub snapshot: bool,
}

impl FilterOptions {
    /// Converts these options to a filter.
    pub fn args(&self, no_syscall_hooks: bool) -> FilterArgs {
        let Self { events, namespaces, containers, pids, comms, levels, snapshot: existing } = self.clone();
        let findings = false;
        FilterArgs {
            events,
            namespaces,
            containers,
            pids,
            comms,
            levels,
            existing,
            findings,
            no_syscall_hooks,
        }
    }
}

/// When to end a stream.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Filters")]
pub struct Stop {
    /// Stop after this long, like 30s, 500ms or 1h30m.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Stop after this many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// Output format and layout of a stream.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct ViewArgs {
    /// Output format.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,

    /// Omit the table's heading.
    #[arg(long)]
    pub no_headers: bool,

    /// Columns, like time,event,detail; +uid adds to the default columns.
    ///
    /// time, event, ns, level, pids, pid, ppid, uid, comm, container, detail. Columns that you name are shown even on a
    /// narrow terminal.
    #[arg(long, value_name = "FIELDS")]
    pub fields: Option<Fields<Field>>,

    /// Layout of the output.
    #[command(flatten)]
    pub screen: ScreenArgs,
}

/// Options of the kernel side.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kernel")]
pub struct Kernel {
    /// Show an exec's arguments too, up to 4 KB. They can contain secrets.
    #[arg(long)]
    pub args: bool,

    /// Exit with code 5 if any event was lost.
    #[arg(long)]
    pub strict: bool,

    /// Print only errors on stderr.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// Size of the kernel's ring buffer: a power of two.
    ///
    /// Like 64K or 16M. A larger buffer survives longer bursts without losses, and uses twice its size of this
    /// process's address space.
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = parse_ring_size)]
    pub ring_size: u32,

    /// Kernel hooks to use: auto, function, tracepoint.
    ///
    /// Function hooks (fentry, fexit) report more facts, and report them more exactly. They do not slow unrelated
    /// system calls. Tracepoints exist on every kernel.
    #[arg(long, value_name = "SET", hide_possible_values = true, value_parser = hook_set(), default_value = "auto")]
    pub hooks: HookSet,

    /// Do not hook system calls. That hook slows every system call of the host a little.
    ///
    /// Kernels that accept function hooks do not need this hook. Without it, unshare and setns are reported at the next
    /// fork ("exact": false), and refusals are not reported.
    #[arg(long, help_heading = "Advanced", hide_short_help = true)]
    pub no_syscall_hooks: bool,

    /// Compare the model of processes and namespaces with the kernel at this interval.
    ///
    /// Differences are counted (`model` of stream.end) and corrected (stream.resync). The kernel side then sends
    /// everything, as for `record`.
    #[arg(long, help_heading = "Advanced", hide_short_help = true, value_name = "TIME", value_parser = parse_duration)]
    pub verify_interval: Option<Duration>,

    /// Ask Docker's and Podman's daemons for container names that are not in their files.
    ///
    /// For example for a daemon with its own data directory. A daemon that does not answer costs 2 seconds, once.
    #[arg(long, help_heading = "Advanced", hide_short_help = true)]
    pub runtime_api: bool,

    /// Print the log of the kernel side on stderr, from this level on.
    #[arg(
        long,
        help_heading = "Advanced",
        hide_short_help = true,
        value_name = "LEVEL",
        value_enum,
        num_args = 0..=1,
        default_missing_value = "info"
    )]
    pub bpf_log: Option<LogLevel>,
}

/// Levels of the kernel side's log, as aya-log numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Errors.
    Warn = 2,
    /// Rare events.
    Info = 3,
    /// Work of each hook.
    Debug = 4,
}

/// Options of `record`.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// The file to write, compressed if its name ends in .zst.
    ///
    /// One JSON object per line (docs/events.md). An existing file is not overwritten. Only the owner can read the new
    /// file (mode 0600).
    pub file: PathBuf,

    /// Replace an existing file with a new one.
    ///
    /// A link is replaced and not followed.
    #[arg(long)]
    pub force: bool,

    /// When to stop.
    #[command(flatten)]
    pub stop: Stop,
    /// Options of the kernel side.
    #[command(flatten)]
    pub kernel: Kernel,
    /// Thresholds of findings.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
}

/// Options of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The recording, compressed or not; - for standard input.
    pub file: PathBuf,

    /// Replay speed: 1 is real time, 10 is ten times as fast.
    ///
    /// Without it: as fast as possible.
    #[arg(long, value_name = "N", value_parser = parse_speed)]
    pub speed: Option<f64>,

    /// Stop after this much recorded time, like 30s or 1h30m.
    ///
    /// The speed does not matter.
    #[arg(long, help_heading = "Filters", value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Stop after showing this many events.
    #[arg(long, help_heading = "Filters", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Print only errors on stderr.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// Filters.
    #[command(flatten)]
    pub filters: FilterOptions,
    /// Output format and layout.
    #[command(flatten)]
    pub view: ViewArgs,
}
