//! The command line: its arguments, and their values checked.

mod agent;
mod arguments;
mod examples;
mod findings;
mod generate;
mod screen;
mod snapshot;
mod stream;
mod thresholds;
mod values;

use std::{env, ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

pub use self::{
    agent::{AgentArgs, AgentLogLevel, LogFormat},
    findings::FindingsArgs,
    generate::{CompletionsArgs, ManArgs, Page, Shell, completions, man_pages},
    screen::ScreenArgs,
    snapshot::{
        ExplainArgs, ExplainOutput, Memory, PidArgs, PsArgs, Repeat, SnapshotOutput, SourceArgs, TreeArgs,
        TreeOutput,
    },
    stream::{FilterOptions, Kernel, LogLevel, Output, RecordArgs, ReplayArgs, Stop, TraceArgs, ViewArgs},
    thresholds::ThresholdArgs,
    values::hook_set,
};
use crate::kernel::hooks::HookSet;

/// See Linux PID namespaces being created, joined and destroyed.
///
/// With every process's PID at every level. Without a command it streams what happens, live, until Ctrl-C: namespaces being created (clone, clone3, unshare)
/// and joined (setns), their processes, signals that an init ignores, and what happens when an init dies.
#[derive(Debug, Parser)]
#[command(name = "pidns-trace", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; the live stream when left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of the live stream.
    #[command(flatten)]
    pub trace: TraceArgs,
}

impl Cli {
    /// The arguments of this process. Ends the process with help, or with an error, where they ask for that.
    pub fn of_command_line() -> Self {
        Self::of(env::args_os().collect()).unwrap_or_else(|error| error.exit())
    }

    /// The same of these arguments, the program's name first.
    ///
    /// # Errors
    /// They mean nothing, or ask for help.
    pub fn of(arguments: Vec<OsString>) -> Result<Self, clap::Error> {
        let mut definition = definition();
        let arguments = arguments::in_order(arguments, |word| definition.find_subcommand(word).is_some());
        let matches = definition.try_get_matches_from_mut(arguments)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut definition))
    }
}

/// Options of the stream that the short help of the program shows; `pidns-trace trace -h` has the others.
const FIRST_OPTIONS: [&str; 10] =
    ["events", "namespaces", "containers", "pids", "comms", "levels", "duration", "count", "output", "quiet"];

/// The command line with all that its help has: examples, and exit codes.
fn definition() -> clap::Command {
    let program = Cli::command();
    let names: Vec<String> = program.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let program = names.iter().fold(program, |program, name| {
        program.mut_subcommand(name, |command| {
            command.after_long_help(examples::help(name)).after_help("--help has more options, and examples.")
        })
    });
    let is_first = |id: &str| FIRST_OPTIONS.contains(&id);
    let program = program.mut_args(|option| match is_first(option.get_id().as_str()) {
        true => option,
        false => option.hide_short_help(true),
    });
    let codes: String =
        examples::EXIT_CODES.iter().map(|(code, what)| format!("  {code:<3}  {what}\n")).collect();
    program
        .after_help("More options: pidns-trace trace -h. Examples: --help. Why it does not run: pidns-trace check.")
        .after_long_help(format!(
            "Run it as root, or with CAP_BPF and CAP_PERFMON. `pidns-trace check` shows what this kernel allows.\n\n\
             Different filters must all match; of one that is given more than once, one match is enough.\n\n\
             Exit codes:\n{codes}\n{}",
            examples::help("")
        ))
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stream what happens to PID namespaces, live (this is the default).
    Trace(TraceArgs),
    /// Store what happens in a file that `replay` and --from read.
    ///
    /// With what exists at its start. Everything is stored: what is shown of it is chosen when it is read. After a loss a new snapshot is taken, and the
    /// corrections are stored too.
    Record(RecordArgs),
    /// Print a recording as the live stream would have been.
    ///
    /// With the same filters and views.
    ///
    /// A TARGET of --ns is an inode number here: namespaces are those of the recording, not of this machine. Of a file that
    /// is damaged or cut off, all that stands before the damage is printed; then it ends with 2.
    Replay(ReplayArgs),
    /// Show the namespaces that exist, each below its parent, and what holds them.
    ///
    /// A namespace lives for as long as anything refers to it. One without processes is shown with what keeps it alive: a
    /// process that has it open (fd), a mount, a process whose children go there, a namespace in it. Searched are
    /// the files of all processes and the mounts of all mount namespaces that have a process.
    Tree(TreeArgs),
    /// List processes with their PID at every level, and how they got in.
    ///
    /// PIDS reads from the host inwards: 27310 → 2 is 27310 on the host and 2 in its namespace. S is the state as ps(1)
    /// has it, of the first thread; Z is a zombie, which has ended and was not reaped by its parent. ENTRY is empty for
    /// who was born in the namespace; who was not has a parent outside, which the namespace cannot see.
    Ps(PsArgs),
    /// Translate a PID: which process it is, and what it is at every level.
    ///
    /// A process has a PID in its own namespace and in each one above, and none further in or beside: there it is
    /// invisible, and this ends with exit code 1.
    Pid(PidArgs),
    /// Explain a namespace, process or container: all that is known, in sentences.
    ///
    /// Of a namespace: how far it has come, what it is in, who owns it, its container, its PID 1, its processes, zombies
    /// with who must reap them, who joined it and from where, what is in it, and what keeps it alive. Of a process: its PID
    /// at every level, its parent (which its namespace cannot see, where it joined from outside), how it got in, its
    /// children and where they go, who must reap it.
    ///
    /// A namespace begins with its PID 1, which adopts its orphans and must reap them. When it ends the kernel kills
    /// all processes in the namespace, and no process can fork there any more; the namespace itself stays for as long as
    /// anything refers to it.
    ///
    /// With --from it shows the history in the recording up to a moment, in order: who made it, signals to its PID 1, who
    /// joined, how it ended. Targets that had ended by then are shown too.
    Explain(ExplainArgs),
    /// Show what is wrong: zombies, hanging teardowns, killed PID 1s, limits.
    ///
    /// Zombies that nothing reaps, ends that hang, who killed PID 1, limits that are reached. It watches for 2 seconds (--for), reads the state of the host, and prints its findings: since when, the facts that prove it, each
    /// with its source, and the command to run next. What happens seldom (a signal that PID 1 ignored, a fork that was refused)
    /// is seen only while it watches: --watch goes on, the agent does so always, and a recording has it (--from). Exit code 1:
    /// something is wrong. docs/findings.md describes each finding.
    Findings(FindingsArgs),
    /// Serve metrics for Prometheus, until SIGTERM or Ctrl-C.
    ///
    /// It counts forks, execs and ends of processes in the kernel, so that a machine that is busy pays next to nothing for
    /// it, and follows namespaces and their inits by events. /metrics has the metrics (docs/metrics.md), / links to all
    /// pages, /readyz answers 200 after the first snapshot, /status shows which hooks run, what is unseen and what was lost. dashboards/ has Grafana dashboards and alerts.
    ///
    /// After the start it gives up all privileges but those for reading /proc and BPF maps. SIGHUP reads --web.config.file
    /// again. Under systemd it reports when it is ready, and answers its watchdog.
    Agent(AgentArgs),
    /// Show what this kernel and these privileges allow.
    ///
    /// A line for each hook, and what to do about each gap.
    ///
    /// A gap is something that stays unseen, or is seen less exactly; with gaps the stream runs all the same.
    ///
    /// Exit codes: 0 the stream runs, gaps or not; 2 the output cannot be written, or FILE not be read; 3 a privilege is missing;
    /// 4 this kernel lacks something, or FILE is no kernel's BTF.
    Check(CheckArgs),
    /// Print the script that completes this program's arguments in a shell.
    ///
    /// It needs no privilege. For bash, in this shell: source <(pidns-trace completions bash)
    Completions(CompletionsArgs),
    /// Print the man page, or write the man pages of all commands into a folder.
    ///
    /// It needs no privilege. To read the page: pidns-trace man | man -l -
    Man(ManArgs),
}

/// The form of the output of `check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    /// For people: a line for each check, and below a gap what to do about it.
    Table,
    /// For programs: one JSON document (docs/check.md).
    Json,
}

/// Options of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Which kernel hooks to try.
    #[arg(long, help_heading = "Kernel", value_name = "SET", value_parser = hook_set(), default_value = "auto")]
    pub hooks: HookSet,

    /// Judge another kernel by its BTF alone: a copy of its /sys/kernel/btf/vmlinux.
    ///
    /// Needs no privilege and loads nothing. It shows which hooks would fit, and what of the kernel's structures is not
    /// there; not whether that kernel takes the hooks: one in lockdown refuses fentry and fexit, and one may have
    /// no place to hook a function that it inlines (EBUSY).
    #[arg(long, help_heading = "Kernel", value_name = "FILE")]
    pub btf: Option<PathBuf>,

    /// The form of the output.
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "table")]
    pub output: CheckOutput,

    /// Print nothing on stderr but errors.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// How it is laid out.
    #[command(flatten)]
    pub screen: ScreenArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn the_help_of_each_command_is_its_own() {
        let mut cli = definition();
        let stream = cli.render_long_help().to_string();
        for words in [
            "130",
            "not exact",
            "the name is that of the moment",
            "--level 0 shows",
            "must all match",
            "which process ended the container web",
        ] {
            let flat = stream.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
            assert!(flat.contains(&words.to_lowercase()), "{words:?}: {stream}");
        }
        let check = cli.find_subcommand_mut("check").unwrap().render_long_help().to_string();
        assert!(check.contains("docs/check.md") && !check.contains("a line an event"), "{check}");
        for (command, words) in [
            ("tree", "--watch 500ms"),
            ("tree", "the whole `ns` for any of ns, container, up, level, parent and owner"),
            ("ps", "docs/snapshots.md#fields"),
            ("pid", "a PID is seen from its own namespace and from those around it"),
        ] {
            let help = cli.find_subcommand_mut(command).unwrap().render_long_help().to_string();
            let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains(words), "{command}: {words:?}: {help}");
        }
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
    fn the_stream_is_the_default_command() {
        let cli = Cli::try_parse_from(["pidns-trace", "-e", "all", "-o", "json"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.trace.filters.events, ["all"]);
        let cli = Cli::try_parse_from(["pidns-trace", "trace", "--level", "1-2,4"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Trace(args)) if args.filters.levels == ["1-2", "4"]));
        assert!(Cli::try_parse_from(["pidns-trace", "--count", "0"]).is_err());
    }

    #[test]
    fn the_short_help_of_each_command_fits_one_screen() {
        let mut cli = definition().term_width(100);
        cli.build();
        let length = |command: &mut clap::Command| command.render_help().to_string().lines().count();
        let program = length(&mut cli);
        assert!(program <= 40, "{program} lines: {}", cli.render_help());
        for command in cli.get_subcommands_mut() {
            let lines = length(command);
            assert!(lines <= 40, "{lines} lines: {}", command.render_help());
        }
    }

    #[test]
    fn long_help_has_headings_and_examples_that_can_be_run() {
        let mut cli = definition();
        cli.build();
        let help = cli.find_subcommand_mut("trace").unwrap().render_long_help().to_string();
        for heading in ["Filters:", "Output:", "Kernel:", "Advanced:", "Thresholds of findings:", "Examples:"]
        {
            assert!(help.lines().any(|line| line == heading), "{heading}: {help}");
        }
        let names: Vec<String> = cli.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        for name in names.iter().map(String::as_str).chain([""]).filter(|name| *name != "help") {
            assert!(!examples::of(name).is_empty());
            for (line, _) in examples::of(name) {
                // What follows is the shell's.
                let line = line.split(['|', '>']).next().unwrap_or_default();
                let words = quoted(line);
                let parsed = Cli::of(words).unwrap_or_else(|error| panic!("{line}: {error}"));
                let is_of_command = name.is_empty()
                    || line.starts_with(&format!("pidns-trace {name}"))
                    || parsed.command.is_some();
                assert!(is_of_command, "{name}: {line}");
            }
        }
    }

    /// The arguments of a line, as a shell splits it.
    fn quoted(line: &str) -> Vec<OsString> {
        let parts = line.split('\'').enumerate().flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(OsString::from).collect(),
            _ => vec![OsString::from(part)],
        });
        parts.collect()
    }

    #[test]
    fn shared_options_stand_before_or_after_the_command() {
        let parse = |line: &str| Cli::of(line.split(' ').map(OsString::from).collect()).unwrap();
        for line in ["pidns-trace -q -o json --from f ps web", "pidns-trace ps web -q -o json --from f"] {
            let Some(Command::Ps(args)) = parse(line).command else { panic!("{line}") };
            assert!(args.quiet && args.output == SnapshotOutput::Json && args.past.from.is_some(), "{line}");
        }
        let Some(Command::Tree(args)) = parse("pidns-trace tree --watch 1s web").command else {
            panic!("no tree")
        };
        assert_eq!(args.repeat.watch, Some(std::time::Duration::from_secs(1)));
        assert_eq!(args.target.as_deref(), Some("web"));
        let error = Cli::of(vec!["pidns-trace".into(), "tre".into()]).unwrap_err().to_string();
        assert!(error.contains("'tree'"), "{error}");
    }
}
