//! Shell completions and man pages, made from the definition of the command line.

use std::io;

use clap::{Args, ValueEnum};
use clap_complete::{Generator as _, aot};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{
    definition,
    examples::{self, EXIT_CODES},
};

/// A shell that completions are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// For bash: a file in /usr/share/bash-completion/completions, or `source <(pidns-trace completions bash)`.
    Bash,
    /// For zsh: a file _pidns-trace in a folder of $fpath.
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
}

/// Options of `man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Write one page for the program and one for each command into this folder, which is made if it is missing. Without it:
    /// print the page of the program.
    pub folder: Option<std::path::PathBuf>,
}

/// A man page.
#[derive(Debug)]
pub struct Page {
    /// Its file, like pidns-trace-ps.1.
    pub name: String,
    /// What stands in it, as roff.
    pub text: Vec<u8>,
}

/// The script that completes this program's arguments.
pub fn completions(shell: Shell) -> io::Result<Vec<u8>> {
    let script = |name: &str| -> io::Result<Vec<u8>> {
        let mut command = definition();
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
        // Of a program with a hyphen in its name, clap_complete 4.6.11 finds no option of a command: it turns the hyphen into the
        // separator of commands in one place, and into an underscore in another.
        Shell::Bash => {
            let script = String::from_utf8_lossy(&script("pidns_trace")?).into_owned();
            Ok(script.replace(" pidns_trace\n", " pidns-trace\n").into_bytes())
        }
        Shell::Zsh | Shell::Fish => script("pidns-trace"),
    }
}

/// The man pages: the program's first, then one for each command.
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

/// Exit codes, examples, and where there is more.
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

/// roff reads bytes where no encoding is set: other characters are written by their numbers.
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
    fn each_command_has_a_man_page_of_its_own() {
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
                for option in command.get_arguments().filter_map(clap::Arg::get_long) {
                    assert!(script.contains(option), "{shell:?}: {} --{option}", command.get_name());
                }
            }
        }
    }
}
