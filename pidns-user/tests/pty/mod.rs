//! The program on a terminal of its own.

use std::{
    iter,
    process::{Command, Stdio},
};

use super::program;

/// What the program shows on a terminal of so many columns, where it ends well.
#[track_caller]
pub(crate) fn on_terminal(columns: usize, args: &[&str]) -> String {
    on_terminal_with(&[("NO_COLOR", "1")], columns, args)
}

/// The same with these variables.
#[track_caller]
pub(crate) fn on_terminal_with(variables: &[(&str, &str)], columns: usize, args: &[&str]) -> String {
    let quoted = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
    let binary = program::path();
    let words = iter::once(binary.to_str().expect("UTF-8")).chain(args.iter().copied()).map(quoted);
    let command = format!("stty cols {columns} rows 50; exec {}", words.collect::<Vec<_>>().join(" "));
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env_remove("COLUMNS")
        .env_remove("NO_COLOR")
        .env("TZ", "UTC")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("script(1) of util-linux runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8").replace("\r\n", "\n");
    assert!(output.status.success(), "{args:?}: {}: {text}", output.status);
    text
}
