//! The command line: its arguments, and their values checked.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, ColorChoice, Parser, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};

use crate::{
    kernel::{hooks::HookSet, load::page_size},
    output::{fields::Fields, forest, levels, processes},
    target::LAST_PID,
};

/// See Linux PID namespaces being created, joined and destroyed, with every process's PID at every level.
///
/// Without a command it streams what happens, live, until Ctrl-C: namespaces being created (clone, clone3, unshare)
/// and joined (setns), their processes, signals that an init ignores, and what happens when an init dies.
#[derive(Debug, Parser)]
#[command(
    name = "pidns-trace",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Run it as root, or with CAP_BPF and CAP_PERFMON. `pidns-trace check` tells what this kernel allows.\n\n\
                  Exit codes: 0 done (also after Ctrl-C), 1 there is no such process or namespace (tree, ps, pid), 2 usage or I/O error, 3 a privilege is missing, \
                  4 this kernel lacks something, 5 events were lost and --strict was given, 130 a second Ctrl-C or \
                  SIGTERM cut the end off, as nobody had read the output for a second.\n\n\
                  Different filters must all match; of one that is given more than once, one match is enough."
)]
pub struct Cli {
    /// What to do; the live stream when left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of the live stream.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stream what happens to PID namespaces, live (this is the default).
    Trace(TraceArgs),
    /// Store what happens, with what exists at its start, in a file that `replay` and --from read.
    ///
    /// Everything is stored: what is shown of it is chosen when it is read. After a loss all is looked at again, and the
    /// corrections are stored too.
    Record(RecordArgs),
    /// Print a recording as the live stream would have been, with the same filters and views.
    ///
    /// A TARGET of --ns is an inode number here: namespaces are those of the recording, not of this machine. Of a file that
    /// is damaged or cut off, all that stands before the damage is printed; then it ends with 2.
    Replay(ReplayArgs),
    /// Show the namespaces that exist, each below its parent: its PID 1, processes, zombies, who joined, what holds it.
    ///
    /// A namespace lives for as long as anything refers to it. One without processes is shown with what keeps it alive: a
    /// process that has it open (fd), a mount, a process whose children go there, a namespace in it. Looked for are
    /// the files of all processes and the mounts of all mount namespaces that have a process.
    Tree(TreeArgs),
    /// List the processes with their PID at every level, and how they got into their namespace.
    ///
    /// PIDS reads from the host inwards: 27310 → 2 is 27310 on the host and 2 in its namespace. S is the state as ps(1)
    /// has it, of the first thread; Z is a zombie, which has ended and was not reaped by its parent. ENTRY is empty for
    /// who was born in the namespace; who was not has a parent outside, which the namespace cannot see.
    Ps(PsArgs),
    /// Translate a PID: which process it is on the host, and what it is at every level.
    ///
    /// A process has a PID in its own namespace and in each one above, and none further in or beside: there it is
    /// invisible, and this ends with exit code 1.
    Pid(PidArgs),
    /// Tell what this kernel and these privileges allow: a line for each hook, and what to do about each gap.
    ///
    /// A gap is something that stays unseen, or is seen less exactly; with gaps the stream runs all the same.
    #[command(
        after_help = "Exit codes: 0 the stream runs, gaps or not; 2 the output cannot be written, or FILE not be read; \
                            3 a privilege is missing; 4 this kernel lacks something, or FILE is no kernel's BTF."
    )]
    Check(CheckArgs),
}

/// The form of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: a line an event, times in local time; ~ at the end of a line: not exact.
    Table,
    /// For programs: one JSON object a line, times in UTC (docs/events.md).
    Json,
}

/// The form of what `check` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    /// For people: a line for each thing looked at, and below a gap what to do about it.
    Table,
    /// For programs: one JSON document (docs/check.md).
    Json,
}

/// Options of the live stream.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// What of it is shown.
    #[command(flatten)]
    pub filters: Filters,
    /// When it ends.
    #[command(flatten)]
    pub stop: Stop,
    /// How it is shown.
    #[command(flatten)]
    pub view: ViewArgs,
    /// How the kernel side works.
    #[command(flatten)]
    pub kernel: Kernel,
}

/// What of a stream is shown.
#[derive(Clone, Debug, Default, Args)]
pub struct Filters {
    /// Show only these events: a name, a pattern like 'namespace.*', or 'all'; several with commas [repeatable].
    ///
    /// Without this option: namespace.*, init.*, fork.failed, and the process.fork, process.exec and process.exit of
    /// processes that are not in the host's own namespace. With it: these events, of all processes; narrow them with
    /// --level, --ns, --pid or --comm. In JSON stream.start, stream.lost and stream.end are always there.
    #[arg(short, long = "event", value_name = "GLOB")]
    pub events: Vec<String>,

    /// Show only this namespace and those below it: an inode number, pid:[N], a PID, or a path like
    /// /proc/PID/ns/pid [repeatable].
    #[arg(short, long = "ns", value_name = "TARGET")]
    pub namespaces: Vec<String>,

    /// Show only this process, by its PID on the host; several with commas [repeatable].
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
    pub pids: Vec<u32>,

    /// Show only processes whose name (comm) matches, like 'nginx*' [repeatable].
    ///
    /// The name is that of the moment: a process is forked with its parent's, and has its program's from the exec on. The
    /// kernel keeps 15 bytes of it. Events about a namespace go by its creator, its PID 1 or who joins it; a teardown,
    /// which is about no process, is not shown.
    #[arg(long = "comm", value_name = "GLOB")]
    pub comms: Vec<String>,

    /// Show only this level of nesting: 0 is the host, 1 a container in it; ranges 1-3 and 2+ [repeatable].
    ///
    /// A process is at the level of its innermost namespace, a namespace at its own: --level 0 shows the host's
    /// processes, and what is refused to them. Without --event and --level the host's processes are left out.
    #[arg(long = "level", value_name = "LEVEL", value_delimiter = ',', allow_hyphen_values = true)]
    pub levels: Vec<String>,
}

/// When a stream ends.
#[derive(Clone, Debug, Args)]
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
pub struct ViewArgs {
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,

    /// Leave the table's heading out.
    #[arg(long)]
    pub no_headers: bool,

    /// Colours: auto is on a terminal only, and off with NO_COLOR set.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
}

/// How the kernel side works.
#[derive(Clone, Debug, Args)]
pub struct Kernel {
    /// Show an exec's arguments too, up to 4 KB. They can hold secrets.
    #[arg(long)]
    pub args: bool,

    /// End with exit code 5 if any event was lost.
    #[arg(long)]
    pub strict: bool,

    /// Say nothing on stderr but errors.
    #[arg(short, long)]
    pub quiet: bool,

    /// Size of the kernel's ring buffer: a power of two, like 64K or 16M. A larger one loses nothing in longer
    /// bursts, and takes twice its size of this process's address space.
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = parse_ring_size)]
    pub ring_size: u32,

    /// Which kernel hooks to use: functions (fentry, fexit) tell more, more exactly, and cost no other
    /// system call anything; tracepoints are there on
    /// every kernel.
    #[arg(long, value_name = "SET", value_enum, default_value = "auto")]
    pub hooks: HookSet,

    /// Leave the hook on system calls out, which slows every system call of the machine a little, and which kernels that
    /// take function hooks do without. unshare and setns are then seen at the next fork ("exact": false), and refusals
    /// are not seen.
    #[arg(long)]
    pub no_syscall_hooks: bool,

    /// Print the kernel side's own log on stderr, from this level on.
    #[arg(long, value_name = "LEVEL", value_enum, num_args = 0..=1, default_missing_value = "info")]
    pub bpf_log: Option<LogLevel>,
}

/// Options of `record`.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// The file: one JSON object a line (docs/events.md), compressed with zstd if its name ends in .zst. One that exists
    /// is left alone.
    pub file: PathBuf,

    /// Write over the file if it exists.
    #[arg(long)]
    pub force: bool,

    /// When it ends.
    #[command(flatten)]
    pub stop: Stop,
    /// How the kernel side works.
    #[command(flatten)]
    pub kernel: Kernel,
}

/// Options of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The recording, compressed or not; - for standard input.
    pub file: PathBuf,

    /// How fast: 1 as it happened, 10 ten times as fast. Without it: as fast as it can be printed.
    #[arg(long, value_name = "N", value_parser = parse_speed)]
    pub speed: Option<f64>,

    /// What of it is shown.
    #[command(flatten)]
    pub filters: Filters,
    /// How it is shown.
    #[command(flatten)]
    pub view: ViewArgs,
}

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

/// Where to look: here and now, or into a recording.
#[derive(Clone, Debug, Default, Args)]
pub struct Past {
    /// Look into this recording (made by `record`) in place of the kernel; - for standard input. TARGET is a namespace's
    /// inode number or a PID in it.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// The moment of the recording to look at: like 2026-11-23T14:03:07Z, or +30s from its start. Without it: its end.
    #[arg(long, value_name = "TIME", requires = "from", value_parser = parse_moment)]
    pub at: Option<Moment>,
}

/// A moment of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// By the wall clock.
    At(Timestamp),
    /// So long after its start.
    After(Duration),
}

/// Options of `tree`.
#[derive(Clone, Debug, Args)]
pub struct TreeArgs {
    /// Only this namespace and those below it: an inode number (4026532847 or pid:[4026532847]), a PID of the host, a path
    /// like /proc/PID/ns/pid, or the name, pod or id (its beginning is enough) of a container.
    pub target: Option<String>,

    /// Columns, with commas: ns, container, init, processes, zombies, up, level, parent, owner, detail, children. A list that begins
    /// with a + adds to the usual ones. In JSON: the members that hold these.
    #[arg(long, value_name = "FIELDS")]
    pub fields: Option<Fields<forest::Field>>,

    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: TreeOutput,

    /// Leave the table's heading out.
    #[arg(long)]
    pub no_headers: bool,

    /// Look again and again, every 2 seconds or so often, until Ctrl-C or until TARGET is gone. In JSON: a document a line.
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = parse_duration,
        conflicts_with = "from"
    )]
    pub watch: Option<Duration>,

    /// Where to look.
    #[command(flatten)]
    pub past: Past,
}

/// Options of `ps`.
#[derive(Clone, Debug, Args)]
pub struct PsArgs {
    /// Only the processes of this namespace and of those below it: an inode number (4026532847 or pid:[4026532847]), a PID
    /// of the host, a path like /proc/PID/ns/pid, or the name, pod or id (its beginning is enough) of a container.
    pub target: Option<String>,

    /// Columns, with commas: pid, pids, ns, level, ppid, uid, state, threads, age, entry, comm. A list that begins with a
    /// + adds to the usual ones. In JSON: the members that hold these.
    #[arg(long, value_name = "FIELDS")]
    pub fields: Option<Fields<processes::Field>>,

    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: SnapshotOutput,

    /// Leave the table's heading out.
    #[arg(long)]
    pub no_headers: bool,

    /// Look again and again, every 2 seconds or so often, until Ctrl-C or until TARGET is gone. In JSON: a document a line.
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = parse_duration,
        conflicts_with = "from"
    )]
    pub watch: Option<Duration>,

    /// Where to look.
    #[command(flatten)]
    pub past: Past,
}

/// Options of `pid`.
#[derive(Clone, Debug, Args)]
pub struct PidArgs {
    /// The PID.
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(LAST_PID)))]
    pub pid: u32,

    /// Where it is this number: an inode number (4026532847 or pid:[4026532847]), a PID of the host (for the
    /// namespace of that process), a path like /proc/PID/ns/pid, or the name, pod or id of a container. Without it: on the
    /// host.
    #[arg(long = "in", value_name = "TARGET")]
    pub target: Option<String>,

    /// Columns, with commas: level, ns, pid. In JSON: the members of each level.
    #[arg(long, value_name = "FIELDS")]
    pub fields: Option<Fields<levels::Field>>,

    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: SnapshotOutput,

    /// Leave the table's heading out.
    #[arg(long)]
    pub no_headers: bool,

    /// Where to look.
    #[command(flatten)]
    pub past: Past,
}

/// Options of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Which kernel hooks to try.
    #[arg(long, value_name = "SET", value_enum, default_value = "auto")]
    pub hooks: HookSet,

    /// Judge another kernel by its BTF alone: a copy of its /sys/kernel/btf/vmlinux.
    ///
    /// Needs no privilege and loads nothing. It tells which hooks would fit, and what of the kernel's structures is not
    /// there; not whether that kernel takes the hooks: one in lockdown, say, refuses fentry and fexit, and one may have
    /// no place to hook a function that it inlines (EBUSY).
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,

    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: CheckOutput,
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

fn parse_moment(text: &str) -> Result<Moment, String> {
    let moment = match text.strip_prefix('+') {
        Some(after) => parse_duration(after).ok().map(Moment::After),
        None => text.parse().ok().map(Moment::At),
    };
    moment.ok_or_else(|| {
        "give a time with its zone, like 2026-11-23T14:03:07Z, or +30s from the start".to_owned()
    })
}

fn parse_speed(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|speed: &f64| speed.is_finite() && *speed > 0.0)
        .ok_or_else(|| "give a number above 0: 1 is as it happened".to_owned())
}

fn parse_pid(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|pid| (1..=LAST_PID).contains(pid))
        .ok_or_else(|| format!("give the PID of a process on the host: a number from 1 to {LAST_PID}"))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    SignedDuration::from_str(text)
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "give a time with its unit, like 30s, 500ms, 5m or 1h30m".to_owned())
}

fn parse_ring_size(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.trim_end_matches(['B', 'b', 'i']).to_ascii_uppercase() {
        text if text.ends_with('K') => (text[..text.len() - 1].to_owned(), 1 << 10),
        text if text.ends_with('M') => (text[..text.len() - 1].to_owned(), 1 << 20),
        text => (text, 1),
    };
    let (least, most) = (page_size(), 1 << 30);
    digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|bytes| bytes.is_power_of_two() && (least..=most).contains(bytes))
        .ok_or_else(|| {
            format!("give a power of two from {}K to {}M, like 64K or 16M", least >> 10, most >> 20)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_each_command_is_its_own() {
        let mut cli = Cli::command();
        let stream = cli.render_long_help().to_string();
        for words in
            ["130", "not exact", "the name is that of the moment", "--level 0 shows", "must all match"]
        {
            let flat = stream.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
            assert!(flat.contains(&words.to_lowercase()), "{words:?}: {stream}");
        }
        let check = cli.find_subcommand_mut("check").unwrap().render_long_help().to_string();
        assert!(check.contains("docs/check.md") && !check.contains("a line an event"), "{check}");
    }

    #[test]
    fn another_kernel_is_judged_for_a_set_of_hooks() {
        let cli =
            Cli::try_parse_from(["pidns-trace", "check", "--hooks", "tracepoint", "--btf", "f"]).unwrap();
        let Some(Command::Check(CheckArgs { hooks: HookSet::Tracepoint, btf: Some(file), .. })) = cli.command
        else {
            panic!("{cli:?}");
        };
        assert_eq!(file, std::path::Path::new("f"));
        assert!(
            Cli::try_parse_from(["pidns-trace", "--btf", "f"]).is_err(),
            "the stream has a kernel of its own"
        );
    }

    #[test]
    fn sizes_are_powers_of_two_with_units() {
        assert_eq!(parse_ring_size("64K"), Ok(64 << 10));
        assert_eq!(parse_ring_size("8MiB"), Ok(8 << 20));
        assert_eq!(parse_ring_size("1048576"), Ok(1 << 20));
        for bad in ["12345", "3M", "1K", "2048M", "M", "", "-1", "99999999999M"] {
            assert!(parse_ring_size(bad).unwrap_err().contains("power of two"), "{bad}");
        }
    }

    #[test]
    fn pids_are_those_that_a_process_can_have() {
        let pids = |text: &str| {
            Cli::try_parse_from(["pidns-trace", "-p", text])
                .map(|cli| cli.trace.filters.pids)
                .map_err(|error| error.to_string())
        };
        assert_eq!(pids("1"), Ok(vec![1]));
        assert_eq!(pids("7,4194303"), Ok(vec![7, 4194303]));
        for bad in ["0", "4194304", "-1", "abc", "", "7,x"] {
            let error = pids(bad).unwrap_err();
            assert!(error.contains("from 1 to 4194303"), "{bad}: {error}");
        }
    }

    #[test]
    fn moments_are_times_or_counted_from_the_start() {
        assert_eq!(parse_moment("+1m30s"), Ok(Moment::After(Duration::from_secs(90))));
        let time = "2026-11-23T15:03:07.5+01:00";
        assert_eq!(parse_moment(time), Ok(Moment::At("2026-11-23T14:03:07.5Z".parse().unwrap())));
        for bad in ["", "+", "+5", "14:03", "2026-11-23", "2026-11-23T14:03:07"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
        assert!(Cli::try_parse_from(["pidns-trace", "ps", "--at", "+5s"]).is_err(), "of what recording?");
        assert!(Cli::try_parse_from(["pidns-trace", "ps", "--from", "f", "--watch"]).is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["5", "abc", "-5s", "0s", ""] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_stream_is_the_default_command() {
        let cli = Cli::try_parse_from(["pidns-trace", "-e", "all", "-o", "json"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.trace.filters.events, ["all"]);
        let cli = Cli::try_parse_from(["pidns-trace", "trace", "--level", "1-2,4"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Trace(args)) if args.filters.levels == ["1-2", "4"]));
        assert!(Cli::try_parse_from(["pidns-trace", "--count", "0"]).is_err());
    }
}
