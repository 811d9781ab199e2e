//! Prints the results of the runs: a table, and notes below it.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{skips, stream::Progress, wanted::Hooks};

/// One kernel's run.
pub(super) struct Outcome {
    /// Its name for messages: the kernel, and the hooks if they were chosen.
    pub(super) label: String,
    pub(super) version: String,
    pub(super) hooks: Hooks,
    pub(super) progress: Progress,
    pub(super) boot: Option<Duration>,
    pub(super) tests: Option<Duration>,
    /// The reason why the guest did not end normally.
    pub(super) note: Option<String>,
    /// The end of its console.
    pub(super) console: String,
}

impl Outcome {
    /// All faults except failed tests, in sentences.
    pub(super) fn problems(&self) -> Vec<String> {
        let progress = &self.progress;
        let mut problems: Vec<String> = self.note.clone().into_iter().chain(progress.problem()).collect();
        if !progress.hooks.is_empty() && !self.hooks.covers(progress.hooks.values()) {
            problems.push(format!(
                "the hooks are not the requested ones ({}): {:?}",
                self.hooks.name(),
                progress.hooks
            ));
        }
        let release = progress.release.as_deref().unwrap_or_default();
        let forbidden = progress.skipped.iter().filter(|skip| !skips::is_allowed(skip, release, self.hooks));
        problems
            .extend(forbidden.map(|skip| format!("{} must not be skipped here: {}", skip.name, skip.reason)));
        problems
    }

    pub(super) fn is_good(&self) -> bool {
        self.progress.failed.is_empty() && self.problems().is_empty()
    }

    /// Counts the hooks by form.
    fn forms(&self) -> String {
        let mut forms = BTreeMap::<&str, usize>::new();
        for form in self.progress.hooks.values() {
            *forms.entry(if form.starts_with("off") { "off" } else { form }).or_default() += 1;
        }
        let forms: Vec<_> = forms.iter().map(|(form, count)| format!("{count} {form}")).collect();
        if forms.is_empty() { "none".to_owned() } else { forms.join(", ") }
    }

    /// Describes every failure at length. Empty if the outcome is good.
    pub(super) fn failure_details(&self) -> String {
        let mut text = String::new();
        for failure in &self.progress.failed {
            let _ = writeln!(text, "{}: FAILED {}\n{}", self.label, failure.name, indent(&failure.output));
        }
        let problems = self.problems();
        for problem in &problems {
            let _ = writeln!(text, "{}: {problem}", self.label);
        }
        if !problems.is_empty() && !self.console.is_empty() {
            let _ = writeln!(text, "{}: the end of its console:\n{}", self.label, indent(&self.console));
        }
        text
    }
}

fn indent(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// The table, the reasons for skips, second tries and hooks that are off, and a last line with the sums.
pub(super) fn report(outcomes: &[Outcome]) -> String {
    let header =
        ["kernel", "version", "hooks", "passed", "skipped", "failed", "boot", "tests"].map(str::to_owned);
    let mut rows = vec![header];
    rows.extend(outcomes.iter().map(row));
    let mut text = table(&rows);
    text += &notes(outcomes);
    let sum = |count: fn(&Outcome) -> usize| outcomes.iter().map(count).sum::<usize>();
    let _ = writeln!(
        text,
        "{} passed, {} failed, {} skipped",
        sum(|outcome| outcome.progress.passed),
        sum(failures),
        sum(|outcome| outcome.progress.skipped.len()),
    );
    text
}

/// The number of failures. A run that did not end well counts as one more.
fn failures(outcome: &Outcome) -> usize {
    outcome.progress.failed.len() + usize::from(!outcome.problems().is_empty())
}

fn row(outcome: &Outcome) -> [String; 8] {
    let seconds =
        |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
    [
        outcome.label.clone(),
        outcome.version.clone(),
        outcome.forms(),
        outcome.progress.passed.to_string(),
        outcome.progress.skipped.len().to_string(),
        failures(outcome).to_string(),
        seconds(outcome.boot),
        seconds(outcome.tests),
    ]
}

fn table(rows: &[[String; 8]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            // Numbers are aligned to the right.
            if column < 3 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  "));
    }
    text
}

fn notes(outcomes: &[Outcome]) -> String {
    let mut notes = BTreeMap::<String, Vec<&str>>::new();
    for outcome in outcomes {
        for skip in &outcome.progress.skipped {
            notes.entry(format!("skipped {}: {}", skip.name, skip.reason)).or_default().push(&outcome.label);
        }
        for again in &outcome.progress.again {
            notes.entry(again.clone()).or_default().push(&outcome.label);
        }
        for (hook, form) in outcome.progress.hooks.iter().filter(|(_, form)| form.starts_with("off")) {
            notes.entry(format!("hook {hook} is {form}")).or_default().push(&outcome.label);
        }
    }
    notes.iter().map(|(note, labels)| format!("{note} ({})\n", labels.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::stream::Listener as _, *};

    fn outcome(label: &str, lines: &str) -> Outcome {
        let mut progress = Progress::default();
        lines.lines().for_each(|line| progress.line(line));
        Outcome {
            label: label.into(),
            version: "6.1.192-1".into(),
            hooks: Hooks::Auto,
            progress,
            boot: Some(Duration::from_millis(4_700)),
            tests: None,
            note: None,
            console: "Kernel panic".into(),
        }
    }

    const RUN: &str = r#"@boot 6.1.0-56-cloud-amd64
@start {"hooks":{"fork":"tp_btf","exec":"tp_btf","zap":"off: refused"}}
skipped a::limit: this kernel's BTF has no field pid_max in pid_namespace
{ "type": "suite", "event": "started", "test_count": 2 }
again a::works: hooks were left out
{ "type": "test", "name": "a::works", "event": "ok" }
{ "type": "test", "name": "a::limit", "event": "ignored" }
@exit 0"#;

    #[test]
    fn the_table_lists_run_and_skipped_tests() {
        let good = outcome("6.1", RUN);
        assert!(good.is_good(), "{}", good.failure_details());
        let text = report(&[good, outcome("newest", "")]);
        let expected = "\
kernel  version    hooks            passed  skipped  failed   boot  tests
6.1     6.1.192-1  1 off, 2 tp_btf       1        1       0  4.7 s      -
newest  6.1.192-1  none                  0        0       1  4.7 s      -
again a::works: hooks were left out (6.1)
hook zap is off: refused (6.1)
skipped a::limit: this kernel's BTF has no field pid_max in pid_namespace (6.1)
1 passed, 1 failed, 1 skipped
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_forbidden_skip_fails_the_kernel() {
        let newer = outcome("newest", &RUN.replace("6.1.0-56", "7.2.13+deb14"));
        assert!(!newer.is_good());
        assert!(
            newer.failure_details().contains("a::limit must not be skipped"),
            "{}",
            newer.failure_details()
        );
    }

    #[test]
    fn other_hooks_than_requested_fail_the_kernel() {
        let mut forced = outcome("6.1:function", RUN);
        forced.hooks = Hooks::Function;
        assert!(
            !forced.is_good() && forced.failure_details().contains("(function)"),
            "{}",
            forced.failure_details()
        );
        forced.hooks = Hooks::Tracepoint;
        assert!(forced.is_good(), "{}", forced.failure_details());
    }

    #[test]
    fn a_crashed_kernel_shows_its_console() {
        let dead = outcome("6.1", "@boot 6.1.0");
        assert!(
            !dead.is_good() && dead.failure_details().contains("Kernel panic"),
            "{}",
            dead.failure_details()
        );
    }
}
