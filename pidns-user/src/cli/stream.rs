//! Arguments of the commands that make or show a stream: `trace`, `record`, `replay`.

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

/// The form of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: a line an event, times in local time; ~ at the end of a line: not exact.
    Table,
    /// For programs: one JSON object a line, times in UTC (docs/events.md).
    Json,
}

/// Options of the live stream.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// What of it is shown.
    #[command(flatten)]
    pub filters: FilterOptions,
    /// When it ends.
    #[command(flatten)]
    pub stop: Stop,
    /// How it is shown.
    #[command(flatten)]
    pub view: ViewArgs,
    /// Report what goes wrong too (docs/findings.md).
    ///
    /// Zombies that nothing reaps, ends that hang, limits that are reached. The kernel then sends everything, as for `record`.
    #[arg(long, help_heading = "Filters")]
    pub findings: bool,
    /// How the kernel side works.
    #[command(flatten)]
    pub kernel: Kernel,
    /// From when on something is a finding.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
}

/// What of a stream is shown.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterOptions {
    /// Only these events: fork, 'init exit', 'namespace.*', all [repeatable].
    ///
    /// A name (docs/events.md), a label of the column EVENT, a pattern like 'namespace.*', or 'all'; several with commas.
    ///
    /// Without this option: namespace.*, init.*, fork.failed, and the process.fork, process.exec and process.exit of
    /// processes that are not in the host's own namespace. With it: these events, of all processes; narrow them with
    /// --level, --ns, --pid or --comm. In JSON stream.start, stream.lost and stream.end are always there.
    #[arg(short, long = "event", value_name = "GLOB")]
    pub events: Vec<String>,

    /// Only this namespace and those below it [repeatable].
    ///
    /// TARGET is an inode number, pid:[N], a PID, a path like /proc/PID/ns/pid, or the name, pod or id of a container that
    /// runs.
    #[arg(short, long = "ns", value_name = "TARGET")]
    pub namespaces: Vec<String>,

    /// Only this container: its name, pod, or id [repeatable].
    ///
    /// What runs in it is shown too. A pod can be namespace/pod; of an id its beginning is enough.
    ///
    /// One that is started later is shown as well. An event belongs to the container that the PID 1 of its namespace runs
    /// in; where that is known only after the first events, these are not shown.
    #[arg(short, long = "container", value_name = "NAME")]
    pub containers: Vec<String>,

    /// Only this process, by its PID on the host [repeatable].
    ///
    /// An event with two processes (who forks and who is forked, who sends a signal and who gets it) is shown for either.
    #[arg(
        short,
        long = "pid",
        value_name = "PID",
        value_delimiter = ',',
        allow_negative_numbers = true,
        value_parser = parse_pid
    )]
    pub pids: Vec<HostPid>,

    /// Only processes of this name (comm), like 'nginx*' [repeatable].
    ///
    /// The name is that of the moment: a process is forked with its parent's, and has its program's from the exec on. The
    /// kernel keeps 15 bytes of it. Events about a namespace go by its creator, its PID 1 or who joins it; a teardown,
    /// which is about no process, is not shown.
    #[arg(long = "comm", value_name = "GLOB")]
    pub comms: Vec<String>,

    /// Only this level: 0 is the host, 1 a container; 1-3, 2+ [repeatable].
    ///
    /// A process is at the level of its innermost namespace, a namespace at its own: --level 0 shows the host's
    /// processes, and what is refused to them. Without --event and --level the host's processes are left out.
    #[arg(long = "level", value_name = "LEVEL", value_delimiter = ',', allow_hyphen_values = true)]
    pub levels: Vec<String>,

    /// Begin with what exists already.
    ///
    /// As snapshot.namespace and snapshot.process; after a loss a new snapshot is taken. Live, the kernel then sends everything, and it is filtered here: that costs as much as `record`.
    #[arg(long)]
    pub snapshot: bool,
}

impl FilterOptions {
    /// What these options ask for.
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

/// When a stream ends.
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

/// How a stream is shown.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct ViewArgs {
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,

    /// Leave the table's heading out.
    #[arg(long)]
    pub no_headers: bool,

    /// Columns, like time,event,detail; +uid adds to the usual ones.
    ///
    /// time, event, ns, level, pids, pid, ppid, uid, comm, container, detail. All that are named are shown, however narrow the
    /// terminal.
    #[arg(long, value_name = "FIELDS")]
    pub fields: Option<Fields<Field>>,

    /// How it is laid out.
    #[command(flatten)]
    pub screen: ScreenArgs,
}

/// How the kernel side works.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Kernel")]
pub struct Kernel {
    /// Show an exec's arguments too, up to 4 KB. They can hold secrets.
    #[arg(long)]
    pub args: bool,

    /// End with exit code 5 if any event was lost.
    #[arg(long)]
    pub strict: bool,

    /// Print nothing on stderr but errors.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// Size of the kernel's ring buffer: a power of two.
    ///
    /// Like 64K or 16M. A larger one loses nothing in longer bursts, and takes twice its size of this process's address space.
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = parse_ring_size)]
    pub ring_size: u32,

    /// Which kernel hooks to use: auto, function, tracepoint.
    ///
    /// Functions (fentry, fexit) report more, more exactly, and cost no other system call anything; tracepoints are there on
    /// every kernel.
    #[arg(long, value_name = "SET", hide_possible_values = true, value_parser = hook_set(), default_value = "auto")]
    pub hooks: HookSet,

    /// Leave the hook on system calls out, which slows every system call of the machine a little.
    ///
    /// Kernels that take function hooks do without it. unshare and setns are then seen at the next fork ("exact": false), and
    /// refusals are not seen.
    #[arg(long, help_heading = "Advanced", hide_short_help = true)]
    pub no_syscall_hooks: bool,

    /// Compare what the events make of the processes and namespaces with what the kernel has, this often.
    ///
    /// Differences are counted (`model` of stream.end), and corrected (stream.resync). The kernel then sends everything, as
    /// for `record`.
    #[arg(long, help_heading = "Advanced", hide_short_help = true, value_name = "TIME", value_parser = parse_duration)]
    pub verify_interval: Option<Duration>,

    /// Ask Docker's and Podman's daemons for container names that their files do not have.
    ///
    /// Such as those of a daemon with a data folder of its own. One that does not answer costs 2 seconds, once.
    #[arg(long, help_heading = "Advanced", hide_short_help = true)]
    pub runtime_api: bool,

    /// Print the kernel side's own log on stderr, from this level on.
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

/// Levels of the kernel side's log, in aya-log's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What went wrong.
    Warn = 2,
    /// What happens rarely.
    Info = 3,
    /// What each hook does.
    Debug = 4,
}

/// Options of `record`.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// The file to write, compressed if its name ends in .zst.
    ///
    /// One JSON object a line (docs/events.md). One that exists is left alone; a new one can be read by its owner alone (mode
    /// 0600).
    pub file: PathBuf,

    /// Write a new file in its place if it exists.
    ///
    /// Of a link, that is the link's place: it is not followed.
    #[arg(long)]
    pub force: bool,

    /// When it ends.
    #[command(flatten)]
    pub stop: Stop,
    /// How the kernel side works.
    #[command(flatten)]
    pub kernel: Kernel,
    /// From when on something is a finding.
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
}

/// Options of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The recording, compressed or not; - for standard input.
    pub file: PathBuf,

    /// How fast: 1 as it happened, 10 ten times as fast.
    ///
    /// Without it: as fast as it can be printed.
    #[arg(long, value_name = "N", value_parser = parse_speed)]
    pub speed: Option<f64>,

    /// Stop after this much recorded time, like 30s or 1h30m.
    ///
    /// However fast it is printed.
    #[arg(long, help_heading = "Filters", value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Stop after this many events that are shown.
    #[arg(long, help_heading = "Filters", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Print nothing on stderr but errors.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// What of it is shown.
    #[command(flatten)]
    pub filters: FilterOptions,
    /// How it is shown.
    #[command(flatten)]
    pub view: ViewArgs,
}
