//! Runs the program on a separate terminal.

use std::{
    iter,
    process::{Command, Stdio},
};

use super::program;

/// The program's output on a terminal of this width. It must exit with 0.
#[track_caller]
pub(crate) fn on_terminal(columns: usize, args: &[&str]) -> String {
    on_terminal_with(&[("NO_COLOR", "1")], columns, args)
}

/// The same with these environment variables.
#[track_caller]
pub(crate) fn on_terminal_with(variables: &[(&str, &str)], columns: usize, args: &[&str]) -> String {
    let quoted = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
    let binary = program::path();
    let words = iter::once(binary.to_str().expect("UTF-8")).chain(args.iter().copied()).map(quoted);
    in_script(variables, columns, &format!("exec {}", words.collect::<Vec<_>>().join(" ")))
}

/// Everything that a shell's command prints on a terminal of this width. It must exit with 0.
#[track_caller]
pub(crate) fn in_script(variables: &[(&str, &str)], columns: usize, command: &str) -> String {
    let command = format!("stty cols {columns} rows 50; {command}");
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env_remove("COLUMNS")
        .env_remove("NO_COLOR")
        .env("TZ", "UTC")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("run script(1) of util-linux");
    let text = String::from_utf8(output.stdout).expect("UTF-8").replace("\r\n", "\n");
    assert!(output.status.success(), "{command}: {}: {text}", output.status);
    text
}
