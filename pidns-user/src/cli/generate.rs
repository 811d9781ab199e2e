//! Generates shell completions and man pages from the definition of the command line.

use std::io;

use clap::{Arg, ArgAction, Args, ValueEnum, ValueHint, builder::PossibleValuesParser};
use clap_complete::{Generator as _, aot};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{
    definition,
    examples::{self, EXIT_CODES},
};
use crate::{
    filter::choosable_events,
    output::{fields::Field as _, forest, levels, processes, table},
};

/// A shell with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// For bash: a file in /usr/share/bash-completion/completions, or `source <(pidns-trace completions bash)`.
    Bash,
    /// For zsh: a file _pidns-trace in a directory of $fpath.
    Zsh,
    /// For fish: a file in /usr/share/fish/vendor_completions.d.
    Fish,
}

/// Options of `completions`.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,

    /// Print only errors on stderr: it never prints anything else there.
    #[arg(short, long, hide = true)]
    pub quiet: bool,
}

/// Options of `man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Write one page for the program and one for each command to this directory, which is created if it is missing.
    /// Without it: print the page of the program.
    pub folder: Option<std::path::PathBuf>,

    /// Print only errors on stderr: it never prints anything else there.
    #[arg(short, long, hide = true)]
    pub quiet: bool,
}

/// A man page.
#[derive(Debug)]
pub struct Page {
    /// File name, like pidns-trace-ps.1.
    pub name: String,
    /// Content, as roff.
    pub text: Vec<u8>,
}

/// The definition with the values that shells offer. The program checks values with better errors than clap's.
fn completed() -> clap::Command {
    let events = || PossibleValuesParser::new(choosable_events().chain(["all"]));
    let program = definition();
    let names: Vec<String> = program.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let hints = |command: clap::Command| {
        command.mut_args(|option| match value_name(&option).as_deref() {
            _ if !option.get_action().takes_values() => option,
            Some("FILE") => option.value_hint(ValueHint::FilePath),
            Some("DIR" | "FOLDER") => option.value_hint(ValueHint::DirPath),
            // A TARGET can be a path.
            Some("TARGET") | None => option,
            Some(_) => option.value_hint(ValueHint::Other),
        })
    };
    let values = |name: &str, command: clap::Command| {
        command.mut_args(|option| match (option.get_id().as_str(), name) {
            ("events", _) => option.value_parser(events()),
            ("sort", _) => option.value_parser(PossibleValuesParser::new(processes::Field::NAMES)),
            ("fields", "tree") => option.value_parser(PossibleValuesParser::new(forest::Field::NAMES)),
            ("fields", "ps") => option.value_parser(PossibleValuesParser::new(processes::Field::NAMES)),
            ("fields", "pid") => option.value_parser(PossibleValuesParser::new(levels::Field::NAMES)),
            ("fields", _) => option.value_parser(PossibleValuesParser::new(table::Field::NAMES)),
            _ => option,
        })
    };
    let program = names
        .iter()
        .fold(program, |program, name| program.mut_subcommand(name, |command| values(name, hints(command))));
    // Options of several commands may precede the command.
    let shared = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    values("", hints(program))
        .arg(
            shared("from", "Read this recording instead of the kernel")
                .value_name("FILE")
                .value_hint(ValueHint::FilePath),
        )
        .arg(shared("at", "The moment in the recording").value_name("TIME").value_hint(ValueHint::Other))
        .arg(shared("watch", "Repeat").action(ArgAction::SetTrue))
}

fn value_name(option: &Arg) -> Option<String> {
    option.get_value_names().and_then(|names| names.first()).map(ToString::to_string)
}

/// The completion script of a shell.
pub fn completions(shell: Shell) -> io::Result<Vec<u8>> {
    let script = |name: &str| -> io::Result<Vec<u8>> {
        let mut command = completed();
        command.set_bin_name(name);
        command.build();
        let mut script = Vec::new();
        match shell {
            Shell::Bash => aot::Bash.try_generate(&command, &mut script),
            Shell::Zsh => aot::Zsh.try_generate(&command, &mut script),
            Shell::Fish => aot::Fish.try_generate(&command, &mut script),
        }?;
        Ok(script)
    };
    match shell {
        // If the program's name contains a hyphen, clap_complete 4.6.11 loses the options of commands: it turns the
        // hyphen into the separator of commands in one place and into an underscore in another. So use an underscore.
        Shell::Bash => {
            let script = String::from_utf8_lossy(&script("pidns_trace")?).into_owned();
            Ok(script.replace(" pidns_trace\n", " pidns-trace\n").into_bytes())
        }
        Shell::Zsh | Shell::Fish => script("pidns-trace"),
    }
}

/// The man pages: first the program's, then one for each command.
pub fn man_pages() -> io::Result<Vec<Page>> {
    let mut program = definition().disable_help_subcommand(true);
    program.build();
    let version = format!("pidns-trace {}", program.get_version().unwrap_or_default());
    let commands = program.get_subcommands().cloned().collect::<Vec<_>>();
    let pages = std::iter::once(program).chain(commands).map(|command| {
        let page = Man::new(command.clone()).source(version.clone()).manual("Linux PID namespaces");
        let mut text = Vec::new();
        page.render_title(&mut text)?;
        page.render_name_section(&mut text)?;
        page.render_synopsis_section(&mut text)?;
        page.render_description_section(&mut text)?;
        page.render_options_section(&mut text)?;
        if command.has_subcommands() {
            page.render_subcommands_section(&mut text)?;
        }
        end_of_page(command.get_name()).to_writer(&mut text)?;
        Ok(Page { name: page.get_filename(), text: in_ascii(&String::from_utf8_lossy(&text)) })
    });
    pages.collect()
}

/// The last sections of a page: exit codes, examples, and references.
fn end_of_page(command: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, what) in EXIT_CODES {
        roff.control("TP", ["5"]).text([bold(code)]).text([roman(what)]);
    }
    roff.control("SH", ["EXAMPLES"]);
    for (line, what) in examples::of(command) {
        roff.control("TP", []).text([bold(*line)]).text([roman(*what)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    let program = if command == "pidns-trace" { "" } else { "pidns-trace(1), " };
    roff.text([roman(format!("{program}pid_namespaces(7), namespaces(7), lsns(8)"))]);
    roff
}

/// roff reads bytes if no encoding is set, so other characters are written as their code points.
fn in_ascii(text: &str) -> Vec<u8> {
    let escaped = text.chars().map(|c| match c.is_ascii() {
        true => c.to_string(),
        false => format!("\\[u{:04X}]", u32::from(c)),
    });
    escaped.collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_its_own_man_page() {
        let pages = man_pages().expect("memory");
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        assert_eq!(names[0], "pidns-trace.1");
        for command in definition().get_subcommands() {
            let name = format!("pidns-trace-{}.1", command.get_name());
            assert!(names.contains(&name.as_str()), "{name}: {names:?}");
        }
        assert_eq!(names.len(), definition().get_subcommands().count() + 1, "{names:?}");
    }

    #[test]
    fn completions_know_every_command_and_its_options() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(completions(*shell).expect("memory")).expect("UTF-8");
            for command in definition().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell:?}: {}", command.get_name());
                for option in command.get_arguments().filter_map(Arg::get_long) {
                    assert!(script.contains(option), "{shell:?}: {} --{option}", command.get_name());
                }
            }
        }
    }
}
