//! Checks the completions and man pages that the program generates, with the programs that read them.

mod program;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs the program with PATH as the only variable, because generating needs nothing from the machine.
fn run(args: &[&str]) -> Output {
    Command::new(program::path()).args(args).env_clear().output().expect("run pidns-trace")
}

#[track_caller]
fn stdout(args: &[&str]) -> Vec<u8> {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The path of a program. Not every machine has every shell: without it, the test prints that it is skipped.
fn find(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed");
    }
    found
}

#[track_caller]
fn is_read_by(mut reader: Command, what: &Path) -> String {
    let output = reader.arg(what).stdin(Stdio::null()).output().expect("run the reader");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{reader:?}: {}: {stderr}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn each_shell_parses_its_completions() {
    let folder = tempfile::tempdir().expect("create a temporary directory");
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&["completions", shell]);
        assert!(script.ends_with(b"\n"), "{shell}");
        let file = folder.path().join(shell);
        fs::write(&file, script).expect("write the file");
        let Some(program) = find(shell) else { continue };
        let mut reader = Command::new(program);
        reader.arg("-n");
        is_read_by(reader, &file);
    }
}

#[test]
fn bash_completes_commands_options_and_values() {
    let Some(bash) = find("bash") else { return };
    let script = String::from_utf8(stdout(&["completions", "bash"])).expect("UTF-8");
    let complete = |args: &[&str]| {
        let list = args.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        let (last, before) = (args[args.len() - 1], args[args.len() - 2]);
        let ask = format!(
            "{script}\nCOMP_WORDS=({list}); COMP_CWORD={}; $(complete -p pidns-trace | grep -o '_pidns[^ ]*') pidns-trace '{last}' '{before}'; echo \"${{COMPREPLY[*]}}\"",
            args.len() - 1
        );
        let output = Command::new(&bash).args(["--norc", "-c", &ask]).output().expect("run bash");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    };
    assert_eq!(complete(&["pidns-trace", "tr"]), "trace tree");
    assert_eq!(complete(&["pidns-trace", "ps", "--fie"]), "--fields");
    assert_eq!(complete(&["pidns-trace", "--fr"]), "--from", "it may precede the command");
    assert_eq!(complete(&["pidns-trace", "--at", ""]), "", "no file name is a time");
    for command in ["trace", "replay"] {
        assert_eq!(complete(&["pidns-trace", command, "-e", "init.s"]), "init.signal", "{command}");
    }
    assert_eq!(complete(&["pidns-trace", "--event", "al"]), "all");
    assert_eq!(complete(&["pidns-trace", "ps", "--sort", "ag"]), "age");
    for (command, field, name) in [
        ("ps", "ent", "entry"),
        ("tree", "zom", "zombies"),
        ("pid", "lev", "level"),
        ("trace", "det", "detail"),
    ] {
        assert_eq!(complete(&["pidns-trace", command, "--fields", field]), name, "{command}");
    }
    assert_eq!(complete(&["pidns-trace", "tree", "-o", ""]), "table json dot");
    assert_eq!(
        complete(&["pidns-trace", "completions", ""])
            .split(' ')
            .filter(|word| !word.starts_with('-'))
            .collect::<Vec<_>>(),
        ["bash", "zsh", "fish"]
    );
}

#[test]
fn groff_formats_each_man_page_without_a_warning() {
    let folder = tempfile::tempdir().expect("create a temporary directory");
    let pages = folder.path().join("new/man1");
    assert!(
        stdout(&["man", pages.to_str().expect("UTF-8")]).is_empty(),
        "pages are only written to the directory"
    );
    let mut names: Vec<_> = fs::read_dir(&pages)
        .expect("list the directory")
        .map(|entry| entry.expect("a file").path())
        .collect();
    names.sort();
    let program = pages.join("pidns-trace.1");
    assert!(names.contains(&program) && names.contains(&pages.join("pidns-trace-ps.1")), "{names:?}");
    assert_eq!(fs::read(&program).expect("a page"), stdout(&["man"]), "`man` must print the same page");
    let Some(groff) = find("groff") else { return };
    for page in names {
        let mut reader = Command::new(&groff);
        reader.args(["-man", "-Tutf8", "-ww", "-rLL=80n", "-P-cbou"]);
        let text = is_read_by(reader, &page);
        for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
            assert!(text.lines().any(|line| line == heading), "{}: {heading}: {text}", page.display());
        }
    }
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("create a temporary file");
    let output = run(&["man", file.path().to_str().expect("UTF-8")]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("pidns-trace.1: Not a directory") && !stderr.contains("--force"), "{stderr}");
}
