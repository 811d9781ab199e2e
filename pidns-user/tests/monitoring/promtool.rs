//! Prometheus's own tool, on what the real agent exports.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::play::Play;
use crate::{Test, tests, tools};

pub(crate) const TESTS: &[Test] = tests![promtool_finds_no_fault_with_the_metrics];

/// Runs it, and expects that it finds no fault with what it is given.
pub(crate) fn run(args: &[&str], input: &str) {
    let mut promtool = Command::new(tools::needed("promtool", "prometheus"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool can be run");
    let mut stdin = promtool.stdin.take().expect("stdin is a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("it ends");
    let [out, complaints] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success() && complaints.is_empty(), "promtool {args:?}: {complaints}{out}");
}

fn promtool_finds_no_fault_with_the_metrics(play: &Play) {
    for metrics in &play.metrics {
        assert!(metrics.contains("pidns_namespaces{"), "{metrics}");
        run(&["check", "metrics"], metrics);
    }
    assert_eq!(play.metrics.len(), 3, "one scrape a node");
}
