//! The command line: arguments and the validation of their values.

mod agent;
mod arguments;
mod errors;
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
/// It also shows every process's PID at every level. Without a command it streams events live until Ctrl-C: creations
/// of namespaces (clone, clone3, unshare), joins (setns), their processes, signals that an init ignores, and the end of
/// an init with its consequences.
#[derive(Debug, Parser)]
#[command(name = "pidns-trace", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// The command; without one, the live stream.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of the live stream.
    #[command(flatten)]
    pub trace: TraceArgs,
}

impl Cli {
    /// The arguments of this process. For help or on an error, ends the process with the text.
    pub fn of_command_line() -> Self {
        Self::of(env::args_os().collect()).unwrap_or_else(|error| error.exit())
    }

    /// Parses these arguments; the program's name is the first.
    ///
    /// # Errors
    ///
    /// The arguments are invalid, or request help.
    pub fn of(arguments: Vec<OsString>) -> Result<Self, clap::Error> {
        let mut definition = definition();
        let arguments = arguments::in_order(arguments, |word| definition.find_subcommand(word).is_some());
        let command = arguments.get(1).and_then(|word| word.to_str().map(str::to_owned));
        let command = command.filter(|word| definition.find_subcommand(word).is_some());
        let matches = definition
            .try_get_matches_from_mut(arguments)
            .map_err(|error| errors::explained(error, command.as_deref(), &mut definition))?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut definition))
    }
}

/// Options of the stream in the program's short help; `pidns-trace trace -h` shows the others.
const FIRST_OPTIONS: [&str; 10] =
    ["events", "namespaces", "containers", "pids", "comms", "levels", "duration", "count", "output", "quiet"];

/// The definition of the command line, with examples and exit codes for the help.
fn definition() -> clap::Command {
    let program = Cli::command();
    let names: Vec<String> = program.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let program = names.iter().fold(program, |program, name| {
        program.mut_subcommand(name, |command| {
            let has_filters = matches!(name.as_str(), "trace" | "replay");
            command.after_long_help(examples::help(name)).after_help(match has_filters {
                true => "Filters can be repeated. --help shows more options and examples.",
                false => "--help shows more options and examples.",
            })
        })
    });
    let program = program.mut_subcommand("replay", of_a_recording);
    let is_first = |id: &str| FIRST_OPTIONS.contains(&id);
    let program = program.mut_args(|option| match is_first(option.get_id().as_str()) {
        true => option,
        false => option.hide_short_help(true),
    });
    let codes: String =
        examples::EXIT_CODES.iter().map(|(code, what)| format!("  {code:<3}  {what}\n")).collect();
    program
        .mut_arg("output", |option| option.hide_default_value(true))
        .after_help(
            "Filters can be repeated. More options: pidns-trace trace -h. Examples: --help. If it does not run: pidns-trace check.",
        )
        .after_long_help(format!(
            "Run it as root, or with CAP_BPF and CAP_PERFMON. `pidns-trace check` shows what this kernel allows.\n\n\
             Different filters must all match; if one is given several times, one match is enough.\n\n\
             Exit codes:\n{codes}\n{}",
            examples::help("")
        ))
}

/// Filters mean something else in a recording than on this host.
fn of_a_recording(replay: clap::Command) -> clap::Command {
    replay
        .mut_arg("namespaces", |option| {
            option
                .value_name("NUMBER")
                .help("Only the namespace with this number, and those nested in it")
                .long_help(
                    "Only the namespace with this inode number and those nested in it.\n\n\
                     4026532847 or pid:[4026532847], as `pidns-trace tree --from FILE` prints it; `pidns-trace pid PID --from FILE` \
                     prints those of a process.",
                )
        })
        .mut_arg("containers", |option| {
            option.long_help(
                "Only this container: its name, pod, or id.\n\n\
                 Containers that ran inside it are shown too. A pod can be namespace/pod; the beginning of an id is enough. An \
                 event belongs to the container of its namespace's PID 1, even if only later events name that container.",
            )
        })
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stream events of PID namespaces live (the default command).
    Trace(TraceArgs),
    /// Store events in a file that `replay` and --from read.
    ///
    /// The file starts with the existing namespaces and processes. Everything is stored; filters apply when the file is
    /// read. After a loss a new snapshot is taken and stored, with the number of differences.
    Record(RecordArgs),
    /// Print a recording like the live stream.
    ///
    /// Filters and views are the same.
    ///
    /// If the file is damaged or cut off, everything before the damage is printed, and the exit code is 2.
    Replay(ReplayArgs),
    /// Show the namespaces as a tree, and what keeps them alive.
    ///
    /// A namespace lives as long as anything refers to it. A namespace without processes is shown with its holders: a
    /// process that has it open (fd), a mount, a process whose children will be born in it, a nested namespace. The
    /// search covers the files of all processes and the mounts of all mount namespaces that contain a process.
    Tree(TreeArgs),
    /// List processes with their PID at every level.
    ///
    /// It also shows how they entered. PIDS reads from the host inwards: 27310 → 2 is 27310 on the host and 2 in its
    /// namespace. S is the state of the first thread, as in ps(1); Z is a zombie, which has ended and is not reaped by
    /// its parent yet. ENTRY is empty for a process that was born in its namespace. Other processes have a parent
    /// outside, which is invisible in the namespace.
    Ps(PsArgs),
    /// Translate a PID: which process it is, and its PID at every level.
    ///
    /// A process has a PID in its own namespace and in all its ancestors. In all other namespaces it is invisible; then
    /// the exit code is 1.
    Pid(PidArgs),
    /// Show all that is known about a namespace, process or container.
    ///
    /// For a namespace: its state, ancestors, owner, container, PID 1, processes, zombies and the processes that must
    /// reap them, joined processes and their origin, nested namespaces, and holders. For a process: its PID at every
    /// level, its parent (invisible in its namespace if it joined from outside), how it entered, its children and where
    /// they are born, and the process that must reap it.
    ///
    /// A namespace begins with its PID 1, which adopts the namespace's orphans and must reap them. When PID 1 ends, the
    /// kernel kills all processes in the namespace, and no process can be forked into it any more. The namespace itself
    /// exists as long as anything refers to it.
    ///
    /// With --from it also shows the history in the recording up to a moment: the creator, signals to PID 1, joins, the
    /// end. Objects that were gone by then can be explained too.
    Explain(ExplainArgs),
    /// Show problems: zombies, hanging teardowns, killed PID 1s, limits.
    ///
    /// It watches for 2 seconds (--for), reads the state of the host, and prints its findings: how long each has
    /// existed, the facts that prove it with their sources, and the commands to run next. Rare events (a signal that
    /// PID 1 ignored, a refused fork) are only seen while it watches: --watch continues, the agent always watches, and
    /// a recording contains them (--from). Exit code 1: there are findings. docs/findings.md describes each finding.
    Findings(FindingsArgs),
    /// Serve metrics for Prometheus, until SIGTERM or Ctrl-C.
    ///
    /// The kernel side counts forks, execs and exits of processes, so the cost on a busy host is small. Namespaces and
    /// their inits are followed by events. /metrics has the metrics (docs/metrics.md), / links to all pages, /readyz
    /// answers 200 after the first snapshot, /status shows the attached hooks, missing information and losses.
    /// dashboards/ has Grafana dashboards and alerts.
    ///
    /// After the start it drops all privileges except those for reading /proc and BPF maps. SIGHUP reloads
    /// --web.config.file. Under systemd it reports when it is ready, and answers the watchdog.
    Agent(AgentArgs),
    /// Show what this kernel and these privileges allow.
    ///
    /// It prints a line for each hook, and a remedy for each gap.
    ///
    /// A gap is information that is missing or less exact; the stream runs with gaps too.
    ///
    /// Exit codes: 0 the stream runs, with or without gaps; 2 the output cannot be written, or FILE cannot be read; 3 a
    /// privilege is missing; 4 this kernel lacks something, or FILE is not the BTF of a kernel.
    Check(CheckArgs),
    /// Print the completion script of a shell.
    ///
    /// The script completes this program's arguments. It needs no privilege. For bash, in this shell: source
    /// <(pidns-trace completions bash)
    Completions(CompletionsArgs),
    /// Print the man page, or write all man pages to a directory.
    ///
    /// There is a page for each command. It needs no privilege. To read the page: pidns-trace man | man -l -
    Man(ManArgs),
}

/// The form of the output of `check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    /// For people: one line per check, and a remedy below each gap.
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

    /// Check another kernel by its BTF only: a copy of its /sys/kernel/btf/vmlinux.
    ///
    /// Needs no privilege and loads nothing. It shows which hooks fit and which parts of the kernel's structures are
    /// missing. It cannot show whether that kernel accepts the hooks: in lockdown it refuses fentry and fexit, and a
    /// function that it inlines may not be attachable (EBUSY).
    #[arg(long, help_heading = "Kernel", value_name = "FILE")]
    pub btf: Option<PathBuf>,

    /// Output format.
    #[arg(short, long, help_heading = "Output", value_enum, default_value = "table")]
    pub output: CheckOutput,

    /// Print only errors on stderr.
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// Layout of the output.
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
    fn help_of_each_command_describes_its_options() {
        let mut cli = definition();
        let stream = cli.render_long_help().to_string();
        for words in [
            "130",
            "not exact",
            "the name at the time of the event counts",
            "--level 0 shows",
            "must all match",
            "which process ended the container web",
        ] {
            let flat = stream.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
            assert!(flat.contains(&words.to_lowercase()), "{words:?}: {stream}");
        }
        let check = cli.find_subcommand_mut("check").unwrap().render_long_help().to_string();
        assert!(check.contains("docs/check.md") && !check.contains("one line per event"), "{check}");
        for (command, words) in [
            ("tree", "--watch 500ms"),
            ("tree", "the whole `ns` for any of ns, container, up, level, parent and owner"),
            ("ps", "docs/snapshots.md#fields"),
            ("replay", "--ns <NUMBER>"),
            ("replay", "even if only later events name that container"),
            ("pid", "a PID is visible in its own namespace and in the ancestors"),
        ] {
            let help = cli.find_subcommand_mut(command).unwrap().render_long_help().to_string();
            let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains(words), "{command}: {words:?}: {help}");
        }
    }

    #[test]
    fn check_takes_another_kernels_btf_and_a_set_of_hooks() {
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
    fn quiet_is_an_option_of_every_command() {
        for line in [
            "-q",
            "-q trace",
            "-q record f",
            "-q replay f",
            "-q tree",
            "-q ps",
            "-q pid 1",
            "-q explain 1",
            "-q findings",
            "-q agent",
            "-q check",
            "-q completions bash",
            "-q man",
        ] {
            if let Err(error) = Cli::of(quoted(&format!("pidns-trace {line}"))) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn an_option_of_other_commands_is_refused_without_a_wrong_tip() {
        let refused = |line: &str| match Cli::of(quoted(&format!("pidns-trace {line}"))) {
            Ok(cli) => panic!("{line}: {cli:?}"),
            Err(error) => error.to_string(),
        };
        for line in [
            "--from f",
            "--from=f -e all",
            "--at +5s",
            "--from f replay",
            "--from f replay f",
            "--from f record f",
        ] {
            let error = refused(line);
            assert!(error.contains("pidns-trace replay FILE") && !error.contains("tip:"), "{line}: {error}");
        }
        for (line, option) in [
            ("-o json agent", "'-o'"),
            ("--from f agent", "'--from'"),
            ("--from f check", "'--from'"),
            ("--fields pid explain 1", "'--fields'"),
            ("--watch 1s", "'--watch'"),
        ] {
            let error = refused(line);
            assert!(error.contains(&format!("unexpected argument {option}")), "{line}: {error}");
            assert!(!error.contains("tip:"), "{line}: {error}");
        }
        assert!(refused("--fron f tree").contains("tip:"), "a misspelt option gets one");
    }

    #[test]
    fn a_time_of_watch_has_a_unit_and_findings_takes_none() {
        let refused = |line: &str| Cli::of(quoted(&format!("pidns-trace {line}"))).unwrap_err().to_string();
        for line in ["findings --watch 1s", "findings --watch=1s", "--watch 1s findings"] {
            let error = refused(line);
            assert!(error.contains("takes no time") && error.contains("--for 10s"), "{line}: {error}");
        }
        for line in ["ps --watch 1", "tree --watch 0.5 web"] {
            assert!(refused(line).contains("with its unit"), "{line}");
        }
        for line in [
            "ps --watch 4026532178",
            "ps 1 --watch",
            "findings --watch web",
            "findings --watch --no-headers --fields time",
        ] {
            Cli::of(quoted(&format!("pidns-trace {line}"))).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert!(refused("findings --no-headers").contains("--watch"), "only its lines have a heading");
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
        let mut cli = definition().term_width(80);
        cli.build();
        let length = |command: &mut clap::Command| {
            let help = command.render_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
            help.lines().count()
        };
        let program = length(&mut cli);
        assert!(program <= 40, "{program} lines: {}", cli.render_help());
        for command in cli.get_subcommands_mut() {
            let lines = length(command);
            assert!(lines <= 40, "{lines} lines: {}", command.render_help());
        }
    }

    #[test]
    fn long_help_has_headings_and_valid_examples() {
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
                // The rest of the line is for the shell.
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

    /// Splits a line into arguments like a shell.
    fn quoted(line: &str) -> Vec<OsString> {
        let parts = line.split('\'').enumerate().flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(OsString::from).collect(),
            _ => vec![OsString::from(part)],
        });
        parts.collect()
    }

    #[test]
    fn shared_options_work_before_and_after_the_command() {
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
