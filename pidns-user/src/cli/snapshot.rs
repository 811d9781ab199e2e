//! Arguments of the commands that show a state: `tree`, `ps`, `pid`, `explain`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::screen::ScreenArgs;
use super::values::{parse_duration, parse_moment, parse_pid_somewhere};
use crate::output::{
    fields::Fields,
    forest, levels,
    processes::{self, SortBy},
};
use crate::source::replay::Until;

/// Output format of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SnapshotOutput {
    /// For people.
    Table,
    /// For programs: one JSON document (docs/snapshots.md).
    Json,
}

/// Output format of `tree`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TreeOutput {
    /// For people.
    Table,
    /// For programs: one JSON document (docs/snapshots.md).
    Json,
    /// For Graphviz: a graph, which `dot -Tsvg` draws.
    Dot,
}

/// The source: this host now, or a recording.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Recording")]
pub struct SourceArgs {
    /// Read this recording (made by `record`) instead of the kernel.
    ///
    /// FILE is - for standard input (not for `explain`, which reads it twice). TARGET is the inode number of a
    /// namespace, a PID on the host, or the name, pod or id of a container in the recording.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// The moment in the recording: 2026-11-23T14:03:07Z, or +30s from its start.
    ///
    /// Without it: its end.
    #[arg(long, value_name = "TIME", requires = "from", value_parser = parse_moment)]
    pub at: Option<Until>,

    /// Ask Docker's and Podman's daemons, through their sockets, for container names that are not in their files.
    #[arg(long, help_heading = "Advanced", hide_short_help = true, conflicts_with = "from")]
    pub runtime_api: bool,
}

/// Memory of gone objects.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Memory {
    /// How many gone processes, and how many gone namespaces, to remember: the last ones. (An earlier moment, --at,
    /// shows earlier ones too.) [default: 10000]
    #[arg(long, help_heading = "Advanced", hide_short_help = true, value_name = "N", requires = "from")]
    pub remember: Option<usize>,
}

/// Options of `tree`.
#[derive(Clone, Debug, Args)]
pub struct TreeArgs {
    /// Only this namespace or container, and those nested in it.
    ///
    /// An inode number (4026532847 or pid:[4026532847]), a PID on the host, a path like /proc/PID/ns/pid, or the name,
    /// pod or id (its beginning is enough) of a container.
    pub target: Option<String>,

    /// Columns, like ns,container,zombies; +owner adds to the default columns.
    ///
    /// ns, container, image, pod, init, processes, zombies, up, level, parent, owner, detail, children. In JSON: the
    /// members that contain these; the whole `ns` for any of ns, container, up, level, parent and owner
    /// (docs/snapshots.md#fields).
    #[arg(long, help_heading = "Output", value_name = "FIELDS")]
    pub fields: Option<Fields<forest::Field>>,

    /// Output format.
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "table")]
    pub output: TreeOutput,

    /// Omit the table's heading.
    #[arg(long, help_heading = "Output")]
    pub no_headers: bool,

    /// Repetition.
    #[command(flatten)]
    pub repeat: Repeat,

    /// Layout of the output.
    #[command(flatten)]
    pub screen: ScreenArgs,

    /// Print only errors on stderr.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// The source.
    #[command(flatten)]
    pub past: SourceArgs,
}

/// Options of `ps`.
#[derive(Clone, Debug, Args)]
pub struct PsArgs {
    /// Only processes of these namespaces or containers, and of those nested in them.
    ///
    /// An inode number (4026532847 or pid:[4026532847]), a PID on the host, a path like /proc/PID/ns/pid, or the name,
    /// pod or id (its beginning is enough) of a container.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,

    /// Sort by this field; -age has the largest first.
    ///
    /// The names are those of --fields. Processes with an unknown value come last.
    #[arg(long, help_heading = "Output", value_name = "FIELD", allow_hyphen_values = true)]
    pub sort: Option<SortBy>,

    /// Columns, like pids,comm; +uid,container adds to the default columns.
    ///
    /// pid, pids, ns, level, ppid, uid, state, threads, tracer, subreaper, cgroup, container, age, entry, comm, args
    /// (they can contain secrets, and are not in recordings). In JSON: the members that contain these
    /// (docs/snapshots.md#fields).
    #[arg(long, help_heading = "Output", value_name = "FIELDS")]
    pub fields: Option<Fields<processes::Field>>,

    /// Output format.
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "table")]
    pub output: SnapshotOutput,

    /// Omit the table's heading.
    #[arg(long, help_heading = "Output")]
    pub no_headers: bool,

    /// Repetition.
    #[command(flatten)]
    pub repeat: Repeat,

    /// Layout of the output.
    #[command(flatten)]
    pub screen: ScreenArgs,

    /// Print only errors on stderr.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// The source.
    #[command(flatten)]
    pub past: SourceArgs,
}

/// Options of `pid`.
#[derive(Clone, Debug, Args)]
pub struct PidArgs {
    /// One or several PIDs.
    #[arg(value_name = "PID", required = true, value_parser = parse_pid_somewhere)]
    pub pids: Vec<u32>,

    /// The namespace or container in which it has this PID. Without it: the host.
    ///
    /// An inode number (4026532847 or pid:[4026532847]), a PID on the host (meaning the namespace of that process), a
    /// path like /proc/PID/ns/pid, or the name, pod or id of a container.
    #[arg(long = "in", value_name = "TARGET")]
    pub target: Option<String>,

    /// Show only its PID in this namespace or container.
    ///
    /// A TARGET as for --in. If the process is invisible there, a message says so, and the exit code is 1: a PID is
    /// visible in its own namespace and in the ancestors.
    #[arg(long, value_name = "TARGET")]
    pub to: Option<String>,

    /// Columns: level, ns, container, pid.
    ///
    /// In JSON: the members of each level.
    #[arg(long, help_heading = "Output", value_name = "FIELDS")]
    pub fields: Option<Fields<levels::Field>>,

    /// Output format.
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "table")]
    pub output: SnapshotOutput,

    /// Omit the table's heading.
    #[arg(long, help_heading = "Output")]
    pub no_headers: bool,

    /// Layout of the output.
    #[command(flatten)]
    pub screen: ScreenArgs,

    /// Print only errors on stderr.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// The source.
    #[command(flatten)]
    pub past: SourceArgs,

    /// Memory of gone objects.
    #[command(flatten)]
    pub memory: Memory,
}

/// Options of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// A namespace, a process or a container.
    ///
    /// A namespace, by its inode number (4026532847 or pid:[4026532847]) or a path like /proc/PID/ns/pid; a process, by
    /// its PID on the host; or a container, by its name, pod or id (its beginning is enough).
    pub target: String,

    /// Output format.
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "text")]
    pub output: ExplainOutput,

    /// Layout of the output.
    #[command(flatten)]
    pub screen: ScreenArgs,

    /// Print only errors on stderr.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// The source.
    #[command(flatten)]
    pub past: SourceArgs,

    /// Memory of gone objects.
    #[command(flatten)]
    pub memory: Memory,
}

/// Output format of `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExplainOutput {
    /// For people: sentences.
    #[value(alias = "table")]
    Text,
    /// For programs: one JSON document (docs/snapshots.md).
    Json,
}

/// Whether to repeat.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Repeat {
    /// Repeat every 2 seconds, or --watch 500ms.
    ///
    /// Until Ctrl-C or until TARGET is gone. In JSON: one document per line.
    #[arg(
        long,
        help_heading = "Output",
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = parse_duration,
        conflicts_with = "from"
    )]
    pub watch: Option<Duration>,
}
