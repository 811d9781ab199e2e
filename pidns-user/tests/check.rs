//! Runs `check --btf` like a user: its exit codes, and where its messages go.

mod program;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

fn check(args: &[&str], file: &Path) -> Output {
    Command::new(program::path())
        .arg("check")
        .args(args)
        .arg("--btf")
        .arg(file)
        .output()
        .expect("run pidns-trace")
}

fn extract(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/btf").join(name)
}

/// A file with these contents, and its directory, which is removed on drop.
fn file(contents: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("create a temporary directory");
    let file = folder.path().join("btf");
    std::fs::write(&file, contents).expect("write the file");
    (folder, file)
}

#[track_caller]
fn expect(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout: {stdout}, stderr: {stderr}");
    (stdout, stderr)
}

#[test]
fn a_sufficient_kernel_exits_with_0() {
    let (table, stderr) = expect(&check(&[], &extract("7.3.4.btf")), 0);
    assert_eq!(stderr, "");
    for start in ["release_task         ok       would use fentry: ", "attaching            unknown "] {
        assert!(table.lines().any(|line| line.starts_with(start)), "{start:?}: {table}");
    }
}

#[test]
fn json_is_one_document_with_lines_and_verdicts() {
    let (json, _) = expect(&check(&["-o", "json", "--hooks", "tracepoint"], &extract("5.10.262.btf")), 0);
    let document: Value = serde_json::from_str(&json).expect("one document");
    assert_eq!(document["runs"], true, "{document}");
    let lines = document["lines"].as_array().expect("lines");
    let verdict = |what: &str| &lines.iter().find(|line| line["what"] == what).expect(what)["verdict"];
    assert_eq!(verdict("pid_max"), "gap");
    assert_eq!(verdict("copy_pid_ns"), "gap");
    assert_eq!(verdict("sys_exit"), "ok");
    assert_eq!(verdict("attaching"), "unknown");
}

#[test]
fn data_other_than_kernel_btf_exits_with_4_and_a_remedy() {
    let whole = std::fs::read(extract("6.18.15.btf")).expect("an extract");
    let cases: [(&[u8], &str, &str); 3] = [
        (b"", "the file is empty", "copy /sys/kernel/btf/vmlinux again"),
        (b"\x7fELF", "ELF", "objcopy --dump-section .BTF=out"),
        (&whole[..1_000], "cut short", "copy /sys/kernel/btf/vmlinux again"),
    ];
    for (contents, what, remedy) in cases {
        let (_folder, file) = file(contents);
        let (table, stderr) = expect(&check(&[], &file), 4);
        assert_eq!(stderr, "");
        assert!(table.contains(what) && table.contains(remedy), "{what}: {table}");
        let (json, _) = expect(&check(&["-o", "json"], &file), 4);
        let document: Value = serde_json::from_str(&json).expect("one document");
        assert_eq!(document["runs"], false, "{document}");
    }
}

#[test]
fn an_unreadable_file_exits_with_2() {
    for (file, error) in [("/", "Is a directory"), ("/no/such/file", "No such file")] {
        let (stdout, stderr) = expect(&check(&[], Path::new(file)), 2);
        assert_eq!(stdout, "");
        assert!(stderr.contains(&format!("cannot read {file}: {error}")), "{stderr}");
    }
}
