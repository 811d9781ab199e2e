//! Compares every view of one recording with golden files, which were read and found right.
//!
//! It needs no kernel and no privilege: the real program reads the recording, which recordings/nested.sh makes.
//! `UPDATE_GOLDEN=1 cargo test -p pidns-user --test views` writes the files again. Read the difference then.

mod program;
mod pty;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The recording in tests/recordings. The golden files are in a directory with its name.
const RECORDING: &str = "nested.ndjson";

/// A point in time at which everything in it is alive.
const ALIVE: &str = "+2s";

// The namespaces and processes in the recording.
/// A namespace that only a file holds.
const HELD: &str = "4026532177";
/// The namespace of a shell.
const SHELLS: &str = "4026532179";
/// A nested namespace.
const NESTED: &str = "4026532180";
/// A namespace whose PID 1 has ended, so a fork is refused.
const REFUSING: &str = "4026532181";
/// The shell.
const SHELL: &str = "17259";
/// The shell's child that does not reap.
const NEGLIGENT: &str = "17261";
/// The zombie of that child.
const ZOMBIE: &str = "17262";
/// The process in the nested namespace.
const INNERMOST: &str = "17263";
/// A process that joined with nsenter.
const JOINED: &str = "17283";
/// A process whose fork was refused.
const REFUSED: &str = "17288";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

/// Runs the program. Returns its output and exit code.
fn run(args: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::new(program::path())
        .args(args)
        .current_dir(folder())
        .env("TZ", "UTC")
        .env("NO_COLOR", "1")
        .output()
        .expect("run the program");
    let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
    (text(output.stdout), text(output.stderr), output.status.code())
}

/// Compares the program's output for the recording with this golden file.
#[track_caller]
fn expect(golden: &str, args: &[&str]) {
    let of_recording = match args {
        ["replay", rest @ ..] => [&["replay", RECORDING], rest].concat(),
        args => [args, &["--from", RECORDING]].concat(),
    };
    let (stdout, stderr, code) = run(&of_recording);
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    compare(golden, args, stdout);
}

/// The same for its output on terminals of these widths.
#[track_caller]
fn expect_on_terminals(golden: &str, args: &[&str]) {
    let file = folder().join(RECORDING);
    let file = file.to_str().expect("UTF-8");
    for columns in [60, 80, 120] {
        let of_recording = match args {
            ["replay", rest @ ..] => [&["replay", file], rest].concat(),
            args => [args, &["--from", file]].concat(),
        };
        compare(&format!("{golden}-{columns}.txt"), args, pty::on_terminal(columns, &of_recording));
    }
}

#[track_caller]
fn compare(golden: &str, args: &[&str], stdout: String) {
    let file = folder().join(RECORDING.trim_end_matches(".ndjson")).join(golden);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(file.parent().expect("the file has a directory")).expect("create the directory");
        fs::write(&file, stdout).expect("write the golden file");
        return;
    }
    let golden = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    if stdout != golden {
        panic!(
            "{args:?} does not print the text in {} (-: the file, +: the output; UPDATE_GOLDEN=1 writes the file again):\n{}",
            file.display(),
            difference(&golden, &stdout)
        );
    }
}

/// Compares both text and JSON.
#[track_caller]
fn expect_both(golden: &str, args: &[&str]) {
    expect(&format!("{golden}.txt"), args);
    expect(&format!("{golden}.json"), &[args, &["-o", "json"]].concat());
}

/// The different lines, with the lines around them.
fn difference(before: &str, after: &str) -> String {
    const AROUND: usize = 2;
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    // The length of the longest common subsequence from each position on.
    let mut common = vec![vec![0u32; after.len() + 1]; before.len() + 1];
    for (i, old) in before.iter().enumerate().rev() {
        for (j, new) in after.iter().enumerate().rev() {
            common[i][j] =
                if old == new { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < before.len() || j < after.len() {
        if i < before.len() && j < after.len() && before[i] == after[j] {
            lines.push((' ', before[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == after.len() || (i < before.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', before[i]));
            i += 1;
        } else {
            lines.push(('+', after[j]));
            j += 1;
        }
    }
    let mut text = String::new();
    let is_near = |at: usize| {
        let from = at.saturating_sub(AROUND);
        lines.iter().skip(from).take(at + AROUND + 1 - from).any(|(sign, _)| *sign != ' ')
    };
    for (at, (sign, line)) in lines.iter().enumerate().filter(|(at, _)| is_near(*at)) {
        if at > 0 && !is_near(at - 1) {
            text.push_str("  …\n");
        }
        writeln!(text, "{sign} {line}").expect("memory");
    }
    text
}

#[test]
fn a_difference_is_shown_with_the_lines_around_it() {
    let with = |fifth| (0..9).map(|n| format!("{}\n", if n == 5 { fifth } else { n })).collect::<String>();
    let (before, after) = (with(5), with(50));
    assert_eq!(difference(&before, &after), "  …\n  3\n  4\n- 5\n+ 50\n  6\n  7\n");
    assert_eq!(difference("a\nb\n", "a\n"), "  a\n- b\n");
    assert_eq!(difference("a\n", "a\n"), "");
}

#[test]
fn a_replay_equals_the_live_stream() {
    expect("replay.txt", &["replay"]);
    expect("replay.json", &["replay", "-o", "json"]);
    expect("replay-host.txt", &["replay", "-e", "process.*"]);
    expect("replay-snapshot.txt", &["replay", "--snapshot"]);
    expect("replay-one.txt", &["replay", "-n", NESTED]);
}

#[test]
fn views_fit_the_terminal() {
    expect_on_terminals("replay", &["replay", "-q"]);
    expect_on_terminals("ps-alive", &["ps", "--at", ALIVE]);
    expect_on_terminals("tree-alive", &["tree", "--at", ALIVE]);
    expect_on_terminals("explain-namespace", &["explain", SHELLS, "--at", ALIVE]);
    expect_on_terminals("explain-nested", &["explain", NESTED]);
}

#[test]
fn trees() {
    expect_both("tree-alive", &["tree", "--at", ALIVE]);
    expect("tree-alive.dot", &["tree", "--at", ALIVE, "-o", "dot"]);
    expect_both("tree-end", &["tree"]);
    expect(
        "tree-one.txt",
        &["tree", SHELLS, "--at", ALIVE, "--fields", "ns,level,parent,processes,zombies", "--no-headers"],
    );
}

#[test]
fn processes() {
    expect_both("ps-alive", &["ps", "--at", ALIVE]);
    expect("ps-one.txt", &["ps", NESTED, "--at", ALIVE, "--fields", "+ppid,state"]);
}

#[test]
fn pids() {
    expect_both("pid-alive", &["pid", INNERMOST, "--at", ALIVE]);
    expect("pid-within.txt", &["pid", "5", "--in", SHELLS, "--at", ALIVE]);
    expect_both("pid-dead", &["pid", INNERMOST]);
}

#[test]
fn explanations_of_namespaces() {
    expect_both("explain-namespace", &["explain", SHELLS, "--at", ALIVE]);
    expect_both("explain-dead-namespace", &["explain", SHELLS]);
    expect("explain-nested.txt", &["explain", NESTED]);
    expect("explain-held.txt", &["explain", HELD]);
    expect("explain-refusing.txt", &["explain", REFUSING]);
}

#[test]
fn explanations_of_processes() {
    expect_both("explain-init", &["explain", SHELL, "--at", ALIVE]);
    expect_both("explain-dead-init", &["explain", SHELL]);
    expect("explain-zombie.txt", &["explain", ZOMBIE, "--at", ALIVE]);
    expect("explain-negligent.txt", &["explain", NEGLIGENT, "--at", ALIVE]);
    expect("explain-joined.txt", &["explain", JOINED, "--at", ALIVE]);
    expect("explain-refused.txt", &["explain", REFUSED]);
}
