//! The commands that the documents show with their output. They are run, and the output must be the one on the page.
//!
//! A block that begins with `$ ` shows commands. One that names a recording of pidns-user/tests/recordings is run as it is.
//! A command that shows a live system cannot be: above its block stands the command that prints the same of a recording,
//!
//! `<!-- $ pidns-trace replay web.ndjson -c web -->`
//!
//! or `<!-- not run: why -->`. A command that is meant to fail ends with `# fails`.

use std::{
    env, fs,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{links, page::Page};

/// The program, and the folder of the recordings that it reads.
pub(crate) struct Runner {
    program: PathBuf,
    recordings: PathBuf,
}

impl Runner {
    pub(crate) fn new(root: &Path, program: &Path) -> Result<Self> {
        let program = program.canonicalize().with_context(|| format!("there is no {}", program.display()))?;
        ensure!(program.ends_with("pidns-trace"), "{} must be called pidns-trace", program.display());
        Ok(Self { program, recordings: root.join("pidns-user/tests/recordings") })
    }

    /// What a line of shell prints. The exit code of pidns-trace is part of some examples, so it does not count.
    pub(super) fn run(&self, line: &str) -> Result<String> {
        let folder = self.program.parent().context("the program is in no folder")?;
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([folder.to_owned()].into_iter().chain(env::split_paths(&inherited)))?;
        let output = Command::new("sh")
            .args(["-c", &format!("{{ {line}\n}} 2>&1")])
            .current_dir(&self.recordings)
            .env("PATH", path)
            .env("TZ", "UTC")
            .env("NO_COLOR", "1")
            .env_remove("COLUMNS")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run `{line}`"))?;
        let text = String::from_utf8(output.stdout).with_context(|| format!("`{line}` prints no UTF-8"))?;
        ensure!(!text.trim().is_empty(), "`{line}` prints nothing");
        ensure!(text.starts_with("pidns-trace: ") == line.ends_with("# fails"), "`{line}` prints {text}");
        // Pages have no blanks at the ends of lines.
        Ok(text.lines().map(|line| format!("{}\n", line.trim_end())).collect())
    }
}

/// A command of a page, and where its output is in the text.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    /// The line of the block.
    line: usize,
    command: String,
    output: Range<usize>,
}

/// Fails with each page whose examples print something else than it shows.
pub(super) fn check(root: &Path, runner: &Runner) -> Result<()> {
    let mut stale = Vec::new();
    for (name, text, new) in pages(root, runner)? {
        if new != text {
            stale.push(format!("{}:\n{}", name.display(), first_difference(&text, &new)));
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    bail!("examples print something else (`cargo xtask docs write` puts it in):\n{}", stale.join("\n"))
}

/// Puts the output of each example into its page.
pub(super) fn write(root: &Path, runner: &Runner) -> Result<()> {
    for (name, text, new) in pages(root, runner)? {
        if new != text {
            fs::write(root.join(&name), new).with_context(|| format!("cannot write {}", name.display()))?;
            eprintln!("wrote {}", name.display());
        }
    }
    Ok(())
}

/// Each page with its text, and the text as it should be.
fn pages(root: &Path, runner: &Runner) -> Result<Vec<(PathBuf, String, String)>> {
    let mut pages = Vec::new();
    for name in links::files(root, &["md"])? {
        let text = fs::read_to_string(root.join(&name))
            .with_context(|| format!("cannot read {}", name.display()))?;
        let found = examples(&text, |file| runner.recordings.join(file).is_file())
            .with_context(|| format!("{}", name.display()))?;
        let mut new = text.clone();
        // From the end, so that the places before stay right.
        for example in found.iter().rev() {
            let output = runner
                .run(&example.command)
                .with_context(|| format!("{}:{}", name.display(), example.line))?;
            new.replace_range(example.output.clone(), &output);
        }
        pages.push((name, text, new));
    }
    Ok(pages)
}

/// The examples of a page. Fails with a block that shows the program's output and does not state where it is from.
fn examples(text: &str, is_recording: impl Fn(&str) -> bool) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    for block in Page::read(text).blocks {
        let commands = commands(text, block.text.clone());
        let above = text[..block.text.start].lines().rev().nth(1).unwrap_or_default().trim();
        let note = above.strip_prefix("<!-- ").and_then(|note| note.strip_suffix(" -->"));
        if note.is_some_and(|note| note.starts_with("not run: ")) {
            continue;
        }
        let line = block.line;
        if let Some(command) = note.and_then(|note| note.strip_prefix("$ ")) {
            let [(_, output)] = &commands[..] else { bail!("line {line}: a note is about one command") };
            examples.push(Example { line, command: command.to_owned(), output: output.clone() });
            continue;
        }
        for (command, output) in commands {
            let is_ours = command.trim_start_matches("sudo ").starts_with("pidns-trace");
            if is_ours && command.split_whitespace().any(&is_recording) {
                examples.push(Example { line, command: command.to_owned(), output });
            } else if is_ours && !output.is_empty() {
                bail!(
                    "line {line}: `{command}` reads no recording: state above the block how its output is made \
                     (xtask/src/docs/examples.rs)"
                );
            }
        }
    }
    Ok(examples)
}

/// The commands of a block, each with the place of its output.
fn commands(text: &str, block: Range<usize>) -> Vec<(&str, Range<usize>)> {
    let mut commands: Vec<(&str, Range<usize>)> = Vec::new();
    let mut at = block.start;
    for line in text[block].split_inclusive('\n') {
        at += line.len();
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command.trim_end(), at..at));
        } else if let Some((_, output)) = commands.last_mut() {
            output.end = at;
        }
    }
    commands
}

/// The first line in which two texts differ, as both have it.
fn first_difference(old: &str, new: &str) -> String {
    let (mut old_lines, mut new_lines) = (old.lines(), new.lines());
    for number in 1.. {
        match (old_lines.next(), new_lines.next()) {
            (None, None) => break,
            (old, new) if old == new => {}
            (old, new) => {
                return format!("  line {number}\n  - {}\n  + {}", old.unwrap_or(""), new.unwrap_or(""));
            }
        }
    }
    "  only the ends of lines differ".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Result<Vec<(String, String)>> {
        let found = examples(text, |file| file == "web.ndjson")?;
        Ok(found.into_iter().map(|one| (one.command, text[one.output].to_owned())).collect())
    }

    fn pair(command: &str, output: &str) -> (String, String) {
        (command.to_owned(), output.to_owned())
    }

    #[test]
    fn commands_on_a_recording_are_run_as_they_are() {
        let text = "```\n$ pidns-trace tree --from web.ndjson\none\ntwo\n$ pidns-trace ps --from web.ndjson\nthree\n```\n";
        assert_eq!(
            found(text).expect("examples"),
            [
                pair("pidns-trace tree --from web.ndjson", "one\ntwo\n"),
                pair("pidns-trace ps --from web.ndjson", "three\n")
            ]
        );
    }

    #[test]
    fn a_note_names_the_command_run_in_place_of_a_live_one() {
        let text = "<!-- $ pidns-trace replay web.ndjson -->\n```console\n$ sudo pidns-trace\nout\n```\n";
        assert_eq!(found(text).expect("examples"), [pair("pidns-trace replay web.ndjson", "out\n")]);
    }

    #[test]
    fn a_block_without_our_output_is_no_example() {
        for text in [
            "```\n$ sudo pidns-trace\n```\n",
            "```\n$ ps\nout\n```\n",
            "```\npidns-trace tree     # text\n```\n",
            "<!-- not run: it shows this machine -->\n```\n$ pidns-trace tree\nout\n```\n",
        ] {
            assert_eq!(found(text).expect("examples"), [], "{text}");
        }
    }

    #[test]
    fn output_from_nowhere_is_an_error() {
        let error = found("\n```\n$ sudo pidns-trace tree\nout\n```\n").expect_err("no recording");
        assert!(
            error.to_string().starts_with("line 2: `sudo pidns-trace tree` reads no recording"),
            "{error}"
        );
    }

    #[test]
    fn the_first_difference_is_shown_with_its_line() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), "  line 2\n  - b\n  + c");
        assert_eq!(first_difference("a\n", "a\nb\n"), "  line 2\n  - \n  + b");
    }
}
