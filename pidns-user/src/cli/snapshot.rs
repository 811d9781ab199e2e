//! Arguments of the commands that show what exists: `tree`, `ps`, `pid`, `explain`.

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

/// The form of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SnapshotOutput {
    /// For people.
    Table,
    /// For programs: one JSON document (docs/snapshots.md).
    Json,
}

/// The form of `tree`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TreeOutput {
    /// For people.
    Table,
    /// For programs: one JSON document (docs/snapshots.md).
    Json,
    /// For Graphviz: a graph, which `dot -Tsvg` draws.
    Dot,
}

/// The source: this machine now, or a recording.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Recording")]
pub struct SourceArgs {
    /// Read this recording (made by `record`) in place of the kernel.
    ///
    /// FILE is - for standard input (not of `explain`, which reads it twice). TARGET is a namespace's inode number, a PID of the host,
    /// or a container's name, pod or id in it.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// The moment of it: 2026-11-23T14:03:07Z, or +30s from its start.
    ///
    /// Without it: its end.
    #[arg(long, value_name = "TIME", requires = "from", value_parser = parse_moment)]
    pub at: Option<Until>,

    /// Ask Docker's and Podman's daemons, through their sockets, for container names that their files do not have.
    #[arg(long, help_heading = "Advanced", hide_short_help = true, conflicts_with = "from")]
    pub runtime_api: bool,
}

/// How far back those that are gone are remembered.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Memory {
    /// How many of the processes, and of the namespaces, that were gone by then are remembered: the last ones. (Those that went
    /// before are found at an earlier moment, too: --at.) [default: 10000]
    #[arg(long, help_heading = "Advanced", hide_short_help = true, value_name = "N", requires = "from")]
    pub remember: Option<usize>,
}

/// Options of `tree`.
#[derive(Clone, Debug, Args)]
pub struct TreeArgs {
    /// Only this namespace, or container, and what is below it.
    ///
    /// An inode number (4026532847 or pid:[4026532847]), a PID of the host, a path like /proc/PID/ns/pid, or the name, pod or id
    /// (its beginning is enough) of a container.
    pub target: Option<String>,

    /// Columns, like ns,container,zombies; +owner adds to the usual ones.
    ///
    /// ns, container, image, pod, init, processes, zombies, up, level, parent, owner, detail, children. In JSON: the members that hold these; the whole `ns` for any of ns, container, up,
    /// level, parent and owner (docs/snapshots.md#fields).
    #[arg(long, help_heading = "Output", value_name = "FIELDS")]
    pub fields: Option<Fields<forest::Field>>,

    /// The form of the output.
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "table")]
    pub output: TreeOutput,

    /// Leave the table's heading out.
    #[arg(long, help_heading = "Output")]
    pub no_headers: bool,

    /// When to repeat.
    #[command(flatten)]
    pub repeat: Repeat,

    /// How it is laid out.
    #[command(flatten)]
    pub screen: ScreenArgs,

    /// Print nothing on stderr but errors.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// The source.
    #[command(flatten)]
    pub past: SourceArgs,
}

/// Options of `ps`.
#[derive(Clone, Debug, Args)]
pub struct PsArgs {
    /// Only the processes of these namespaces, or containers, and of those below them.
    ///
    /// An inode number (4026532847 or pid:[4026532847]), a PID of the host, a path like /proc/PID/ns/pid, or the name, pod or id
    /// (its beginning is enough) of a container.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,

    /// Sort by this field; -age has the largest first.
    ///
    /// The names are those of --fields. Of what is not known it comes last.
    #[arg(long, help_heading = "Output", value_name = "FIELD", allow_hyphen_values = true)]
    pub sort: Option<SortBy>,

    /// Columns, like pids,comm; +uid,container adds to the usual ones.
    ///
    /// pid, pids, ns, level, ppid, uid, state, threads, tracer, subreaper, cgroup, container, age, entry, comm, args (which can
    /// hold secrets; not of a recording). In JSON: the members that hold these (docs/snapshots.md#fields).
    #[arg(long, help_heading = "Output", value_name = "FIELDS")]
    pub fields: Option<Fields<processes::Field>>,

    /// The form of the output.
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "table")]
    pub output: SnapshotOutput,

    /// Leave the table's heading out.
    #[arg(long, help_heading = "Output")]
    pub no_headers: bool,

    /// When to repeat.
    #[command(flatten)]
    pub repeat: Repeat,

    /// How it is laid out.
    #[command(flatten)]
    pub screen: ScreenArgs,

    /// Print nothing on stderr but errors.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// The source.
    #[command(flatten)]
    pub past: SourceArgs,
}

/// Options of `pid`.
#[derive(Clone, Debug, Args)]
pub struct PidArgs {
    /// The PID, or several.
    #[arg(value_name = "PID", required = true, value_parser = parse_pid_somewhere)]
    pub pids: Vec<u32>,

    /// Where it is this number: a namespace or container. Without it: the host.
    ///
    /// An inode number (4026532847 or pid:[4026532847]), a PID of the host (for the namespace of that process), a path like
    /// /proc/PID/ns/pid, or the name, pod or id of a container.
    #[arg(long = "in", value_name = "TARGET")]
    pub target: Option<String>,

    /// Only what it is in this namespace or container.
    ///
    /// A TARGET as of --in. Where it is invisible there, a message reports it, and the exit code is 1: a PID is seen from its own namespace and from those around it.
    #[arg(long, value_name = "TARGET")]
    pub to: Option<String>,

    /// Columns: level, ns, container, pid.
    ///
    /// In JSON: the members of each level.
    #[arg(long, help_heading = "Output", value_name = "FIELDS")]
    pub fields: Option<Fields<levels::Field>>,

    /// The form of the output.
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "table")]
    pub output: SnapshotOutput,

    /// Leave the table's heading out.
    #[arg(long, help_heading = "Output")]
    pub no_headers: bool,

    /// How it is laid out.
    #[command(flatten)]
    pub screen: ScreenArgs,

    /// Print nothing on stderr but errors.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// The source.
    #[command(flatten)]
    pub past: SourceArgs,

    /// What is remembered there.
    #[command(flatten)]
    pub memory: Memory,
}

/// Options of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// A namespace, a process or a container.
    ///
    /// A namespace, by its inode number (4026532847 or pid:[4026532847]) or a path like /proc/PID/ns/pid; a process, by its
    /// PID on the host; or a container, by its name, pod or id (its beginning is enough).
    pub target: String,

    /// The form of the output.
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "text")]
    pub output: ExplainOutput,

    /// How it is laid out.
    #[command(flatten)]
    pub screen: ScreenArgs,

    /// Print nothing on stderr but errors.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// The source.
    #[command(flatten)]
    pub past: SourceArgs,

    /// What is remembered there.
    #[command(flatten)]
    pub memory: Memory,
}

/// The form of `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExplainOutput {
    /// For people: sentences.
    #[value(alias = "table")]
    Text,
    /// For programs: one JSON document (docs/snapshots.md).
    Json,
}

/// Whether to run once.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Repeat {
    /// Repeat every 2 seconds, or --watch 500ms.
    ///
    /// Until Ctrl-C or until TARGET is gone. In JSON: a document a line.
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
