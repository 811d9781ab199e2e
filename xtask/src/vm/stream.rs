//! Reads the output of a guest: marks of its init, the test runner's JSON lines, and the output of the tests in
//! between.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Reads the output of a guest, line by line.
pub(super) trait Listener {
    fn line(&mut self, line: &str);
    /// Whether the guest has booted.
    fn is_up(&self) -> bool;
    /// Whether the job of the guest has ended.
    fn is_over(&self) -> bool;
}

/// A test that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) name: String,
    /// The output of the test, and the runner's result.
    pub(super) output: String,
}

/// A test that did not run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Skip {
    pub(super) name: String,
    pub(super) reason: String,
}

/// The results so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The kernel's release, once the guest has booted.
    pub(super) release: Option<String>,
    /// The tracer's hooks, and the form of each.
    pub(super) hooks: BTreeMap<String, String>,
    /// The number of tests.
    planned: Option<usize>,
    pub(super) passed: usize,
    pub(super) failed: Vec<Failure>,
    pub(super) skipped: Vec<Skip>,
    /// Each retry and its reason, as the tests printed it.
    pub(super) again: Vec<String>,
    /// The test that runs now.
    running: Option<String>,
    /// The output since the last test ended.
    output: String,
    /// Reasons that tests printed before the runner reported them as ignored.
    reasons: BTreeMap<String, String>,
    /// The exit code of the tests.
    exit: Option<i32>,
}

/// The runner's lines, without unused fields.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Suite {
        event: String,
        test_count: Option<usize>,
    },
    Test {
        event: String,
        name: String,
        #[serde(default)]
        stdout: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Start {
    hooks: BTreeMap<String, String>,
}

/// The largest part of a test's output that is kept, in bytes.
const OUTPUT_KEPT: usize = 64 << 10;

impl Listener for Progress {
    /// A serial port may end lines with a carriage return.
    fn line(&mut self, line: &str) {
        let line = line.trim_end_matches(['\r', '\n']);
        if let Some(release) = line.strip_prefix("@boot ") {
            self.release = Some(release.to_owned());
        } else if let Some(start) = line.strip_prefix("@start ") {
            if let Ok(start) = serde_json::from_str::<Start>(start) {
                self.hooks = start.hooks;
                self.output.clear();
            }
        } else if let Some(code) = line.strip_prefix("@exit ") {
            self.exit = code.parse().ok();
        } else if let Some((name, reason)) =
            line.strip_prefix("skipped ").and_then(|skip| skip.split_once(": "))
        {
            self.reasons.insert(name.to_owned(), reason.to_owned());
        } else if line.starts_with("again ") {
            self.again.push(line.to_owned());
        } else if let Some(runners) = self.runners_line(line) {
            self.runner(runners);
        } else {
            self.print(line);
        }
    }

    fn is_up(&self) -> bool {
        self.release.is_some()
    }

    fn is_over(&self) -> bool {
        self.exit.is_some()
    }
}

impl Progress {
    /// Parses a line of the runner. A test may have left unfinished output before it.
    fn runners_line(&mut self, line: &str) -> Option<Line> {
        let begin = line.find(r#"{ "type": ""#)?;
        let runners = serde_json::from_str(&line[begin..]).ok()?;
        if begin > 0 {
            self.print(&line[..begin]);
        }
        Some(runners)
    }

    fn print(&mut self, line: &str) {
        self.output += line;
        self.output.push('\n');
        if self.output.len() > OUTPUT_KEPT {
            let cut = self.output.len() - OUTPUT_KEPT / 2;
            let cut = (cut..).find(|cut| self.output.is_char_boundary(*cut)).unwrap_or(0);
            self.output.replace_range(..cut, "…");
        }
    }

    fn runner(&mut self, line: Line) {
        match line {
            Line::Suite { event, test_count } if event == "started" => self.planned = test_count,
            Line::Test { event, name, stdout } => match event.as_str() {
                "started" => {
                    self.output.clear();
                    self.running = Some(name);
                }
                "ok" => self.ended(|progress, _| progress.passed += 1),
                "failed" => self.ended(|progress, printed| {
                    progress.failed.push(Failure { name, output: printed + &stdout });
                }),
                "ignored" => self.ended(|progress, _| {
                    let reason = progress.reasons.remove(&name).unwrap_or_else(|| "no reason given".into());
                    progress.skipped.push(Skip { name, reason });
                }),
                _ => {}
            },
            Line::Suite { .. } | Line::Other => {}
        }
    }

    fn ended(&mut self, how: impl FnOnce(&mut Self, String)) {
        self.running = None;
        let printed = std::mem::take(&mut self.output);
        how(self, printed);
    }

    /// The first fault that is not a failed test.
    pub(super) fn problem(&self) -> Option<String> {
        let counted = self.passed + self.failed.len() + self.skipped.len();
        if self.release.is_none() {
            return Some("it did not boot".to_owned());
        }
        if self.exit.is_none() {
            let when = self.running.as_ref().map_or_else(
                || "before its tests ended".to_owned(),
                |test| format!("during the test {test}"),
            );
            return Some(format!("it ended {when}: {}", self.output.trim()));
        }
        if self.planned.is_none() || counted == 0 {
            return Some(format!("no test ran: {}", self.output.trim()));
        }
        if self.planned != Some(counted) {
            return Some(format!("only {counted} of {} tests reported a result", self.planned.unwrap_or(0)));
        }
        if self.exit != Some(0) && self.failed.is_empty() {
            return Some(format!("the tests ended with {}: {}", self.exit.unwrap_or(-1), self.output.trim()));
        }
        if self.hooks.is_empty() {
            return Some("pidns-trace reported no hooks: it did not start".to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(text: &str) -> Progress {
        let mut progress = Progress::default();
        text.lines().for_each(|line| progress.line(line));
        progress
    }

    const GOOD: &str = r#"@boot 6.1.0-56-cloud-amd64
@start {"event":"stream.start","hooks":{"sched_process_fork":"tp_btf","sys_exit":"off: not here"}}
skipped processes::two: no field pid_max in pid_namespace

{ "type": "suite", "event": "started", "test_count": 3 }
{ "type": "test", "event": "started", "name": "creation::one" }
{ "type": "test", "name": "creation::one", "event": "ok" }
{ "type": "test", "event": "started", "name": "processes::two" }
{ "type": "test", "name": "processes::two", "event": "ignored" }
{ "type": "test", "event": "started", "name": "cli::three" }
thread 'main' panicked at cli.rs:1:1:
expected "a"
an unfinished line{ "type": "test", "name": "cli::three", "event": "failed", "stdout": "Error: \"no \\\"a\\\"\"\n" }
{ "type": "suite", "event": "failed", "passed": 1, "failed": 1, "ignored": 1, "measured": 0, "filtered_out": 0, "exec_time": 1.5 }
@exit 101
"#;

    #[test]
    fn tests_are_counted_with_their_reason_or_output() {
        let progress = progress(&GOOD.replace('\n', "\r\n"));
        assert_eq!(progress.release.as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(progress.hooks["sched_process_fork"], "tp_btf");
        assert_eq!(progress.passed, 1);
        let skip = Skip { name: "processes::two".into(), reason: "no field pid_max in pid_namespace".into() };
        assert_eq!(progress.skipped, [skip]);
        let [failure] = &progress.failed[..] else { panic!("one failure: {:?}", progress.failed) };
        assert_eq!(failure.name, "cli::three");
        for part in ["panicked at", "expected \"a\"", "an unfinished line", "Error: \"no"] {
            assert!(failure.output.contains(part), "{}", failure.output);
        }
        assert_eq!(progress.problem(), None);
        assert!(progress.is_over());
    }

    #[test]
    fn a_guest_that_dies_names_the_running_test() {
        let cut = GOOD.find("an unfinished").expect("in the text");
        let problem = progress(&GOOD[..cut]).problem().expect("the end is missing");
        assert!(problem.contains("cli::three") && problem.contains("expected \"a\""), "{problem}");
        assert_eq!(progress("").problem().as_deref(), Some("it did not boot"));
    }

    #[test]
    fn tests_that_did_not_run_are_failures() {
        let without_a_test: String = GOOD
            .lines()
            .filter(|line| !line.contains("creation::one"))
            .map(|line| format!("{line}\n"))
            .collect();
        let problem = progress(&without_a_test).problem().expect("one is missing");
        assert!(problem.contains("2 of 3"), "{problem}");
        let problem = progress("@boot 6.1\nkernel-tests: not found\n@exit 127\n").problem();
        assert!(problem.as_ref().is_some_and(|problem| problem.contains("not found")), "{problem:?}");
    }

    #[test]
    fn a_tracer_without_hooks_is_a_fault() {
        let silent = GOOD.replace("@start {", "@start").replace("failed", "ok").replace("101", "0");
        let problem = progress(&silent).problem().expect("no hooks");
        assert!(problem.contains("did not start"), "{problem}");
    }

    #[test]
    fn only_the_end_of_long_output_is_kept() {
        let mut progress = progress("@boot 6.1");
        (0..20_000).for_each(|line| progress.line(&format!("ä line {line}")));
        assert!(progress.output.len() <= OUTPUT_KEPT && progress.output.ends_with("line 19999\n"));
    }
}
