//! Runs the commands that the documents show with their output. The output must be the same as on the page.
//!
//! A block that begins with `$ ` shows commands. A command that reads a recording of pidns-user/tests/recordings runs
//! unchanged. A command that shows a live system cannot run in a check: a comment above its block names a command
//! that prints the same from a recording,
//!
//! `<!-- $ pidns-trace replay web.ndjson -c web -->`
//!
//! or gives a reason: `<!-- not run: why -->`. A command that must fail ends with `# fails`.

use std::{
    env, fs,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{page::Page, pages};

/// The program, and the directory of the recordings that it reads.
pub(crate) struct Runner {
    program: PathBuf,
    recordings: PathBuf,
}

impl Runner {
    pub(crate) fn new(root: &Path, program: &Path) -> Result<Self> {
        let program =
            program.canonicalize().with_context(|| format!("{} does not exist", program.display()))?;
        ensure!(program.ends_with("pidns-trace"), "{} must be called pidns-trace", program.display());
        Ok(Self { program, recordings: root.join("pidns-user/tests/recordings") })
    }

    /// Runs a shell line and returns its output. The exit code is ignored, because some examples show a failing
    /// pidns-trace.
    pub(super) fn run(&self, line: &str) -> Result<String> {
        let folder = self.program.parent().context("the program has no directory")?;
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
        let text =
            String::from_utf8(output.stdout).with_context(|| format!("`{line}` does not print UTF-8"))?;
        ensure!(!text.trim().is_empty(), "`{line}` prints nothing");
        ensure!(text.starts_with("pidns-trace: ") == line.ends_with("# fails"), "`{line}` prints {text}");
        // Pages have no blanks at the end of lines.
        Ok(text.lines().map(|line| format!("{}\n", line.trim_end())).collect())
    }
}

/// A command of a page, and the position of its output in the text.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    /// The line number of the block.
    line: usize,
    command: String,
    output: Range<usize>,
}

/// Fails if a page shows other output than its commands print. The error names each such page.
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
    bail!("examples print something else (`cargo xtask docs write` updates the pages):\n{}", stale.join("\n"))
}

/// Writes the output of each example into its page.
pub(super) fn write(root: &Path, runner: &Runner) -> Result<()> {
    for (name, text, new) in pages(root, runner)? {
        if new != text {
            fs::write(root.join(&name), new).with_context(|| format!("cannot write {}", name.display()))?;
            eprintln!("wrote {}", name.display());
        }
    }
    Ok(())
}

/// Each page with its text, and with the text that it should have.
fn pages(root: &Path, runner: &Runner) -> Result<Vec<(PathBuf, String, String)>> {
    let mut pages = Vec::new();
    for name in pages::files(root, &["md"])? {
        let text = fs::read_to_string(root.join(&name))
            .with_context(|| format!("cannot read {}", name.display()))?;
        let found = examples(&text, |file| runner.recordings.join(file).is_file())
            .with_context(|| format!("{}", name.display()))?;
        let mut new = text.clone();
        // Start at the end, so that earlier positions stay valid.
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

/// Finds the examples of a page. Fails if a block shows the program's output without a recording or a note.
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
            let [(_, output)] = &commands[..] else {
                bail!("line {line}: a block with such a note must contain exactly one command")
            };
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

/// The commands of a block, each with the position of its output.
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

/// The first line in which two texts differ, from both.
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
    fn commands_on_a_recording_run_unchanged() {
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
    fn a_note_names_the_command_that_replaces_a_live_one() {
        let text = "<!-- $ pidns-trace replay web.ndjson -->\n```console\n$ sudo pidns-trace\nout\n```\n";
        assert_eq!(found(text).expect("examples"), [pair("pidns-trace replay web.ndjson", "out\n")]);
    }

    #[test]
    fn a_block_without_output_of_the_program_is_skipped() {
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
    fn live_output_without_a_note_is_an_error() {
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
