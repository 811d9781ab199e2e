//! Checks the real agent's metrics with promtool.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::scenario::Scenario;
use crate::{Test, tests, tools};

pub(crate) const TESTS: &[Test] = tests![promtool_finds_no_fault_with_the_metrics];

/// Runs promtool with this input. It must find no fault.
pub(crate) fn run(args: &[&str], input: &str) {
    let mut promtool = Command::new(tools::needed("promtool", "prometheus"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start promtool");
    let mut stdin = promtool.stdin.take().expect("stdin is a pipe");
    stdin.write_all(input.as_bytes()).expect("write to promtool");
    drop(stdin);
    let output = promtool.wait_with_output().expect("wait for promtool");
    let [out, complaints] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success() && complaints.is_empty(), "promtool {args:?}: {complaints}{out}");
}

fn promtool_finds_no_fault_with_the_metrics(scenario: &Scenario) {
    for metrics in &scenario.metrics {
        assert!(metrics.contains("pidns_namespaces{"), "{metrics}");
        run(&["check", "metrics"], metrics);
    }
    assert_eq!(scenario.metrics.len(), 3, "expected one scrape for each node");
}
