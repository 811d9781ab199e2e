//! Views on terminals of different widths. Columns are dropped or shortened, and sentences are wrapped at spaces.

use std::path::Path;

use serde_json::json;

use crate::{
    builder::{HOST, Recording, RecordingBuilder, namespace, process, program},
    pty::{in_script, on_terminal, on_terminal_with},
};

const WIDTHS: [usize; 4] = [60, 80, 120, 200];
const LONG: &str = "a-container-with-a-name-that-is-longer-than-any-column";
const FIRST: u32 = 4026532001;
const DEEPEST: u32 = 32;

/// A container with a long name, and namespaces in it down to the deepest possible level. It has a zombie, a joined
/// process, and a process whose name has wide characters.
fn deep() -> RecordingBuilder {
    let mut recording = RecordingBuilder::begin();
    recording.container(20, FIRST, LONG, 100_000);
    let mut pids = vec![100_000, 1];
    for level in 2..=DEEPEST {
        let (inum, parent) = (FIRST + level - 1, FIRST + level - 2);
        pids.insert(0, 100_000 + level);
        let ns = json!({"inum": inum, "level": level, "parent": parent, "born_boot_ns": 21_000_000_000_u64, "user_ns": 1, "owner_uid": 0});
        let creator = process(&[100_000, 1], LONG, 20, FIRST);
        recording.add(21, "namespace.create", json!({"ns": ns, "via": "clone", "creator": creator}));
        let init = process(&pids, "名前名前名", 21, inum);
        recording.add(21, "namespace.init", json!({"ns": ns, "process": init}));
        recording.fork(21, &init);
    }
    let zombie = process(&[200_000, 2], "a-zombie-of-long", 22, FIRST);
    recording.fork(22, &zombie);
    recording.add(23, "process.exit", json!({"process": zombie, "exit": {"code": 0}, "ran_ns": 1}));
    let joiner = process(&[200_001], "nsenter", 22, HOST);
    recording.fork(22, &joiner);
    recording.add(
        23,
        "namespace.join",
        json!({"ns": namespace(FIRST, 20, LONG), "process": joiner, "from": HOST}),
    );
    let joined = process(&[200_002, 3], "sh", 24, FIRST);
    recording.add(24, "process.fork", json!({"process": joined, "parent": joiner, "crosses": true}));
    recording.end(30);
    recording
}

fn views(file: &Path) -> Vec<Vec<String>> {
    let file = file.to_str().expect("UTF-8");
    let deepest = (FIRST + DEEPEST - 1).to_string();
    let btf = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/btf/6.12.117.btf");
    let views: Vec<Vec<&str>> = vec![
        vec!["replay", file, "-q", "--snapshot", "-e", "all"],
        vec!["ps", "--from", file],
        vec!["tree", "--from", file],
        vec!["pid", "100032", "--from", file],
        vec!["explain", &deepest, "--from", file],
        vec!["explain", "100000", "--from", file],
        vec!["findings", "--from", file, "--fail-on", "critical"],
        vec!["check", "--btf", btf],
    ];
    views.into_iter().map(|view| view.into_iter().map(str::to_owned).collect()).collect()
}

/// The columns that a line takes on a terminal. A wide character takes two.
fn columns(line: &str) -> usize {
    line.chars()
        .map(|c| if ('\u{1100}'..'\u{ffdc}').contains(&c) && !"→…─│├└".contains(c) { 2 } else { 1 })
        .sum()
}

#[test]
fn no_line_of_any_view_is_wider_than_the_terminal() {
    let recording = deep().file();
    for view in views(&recording.path) {
        let view: Vec<&str> = view.iter().map(String::as_str).collect();
        for width in WIDTHS {
            let shown = on_terminal(width, &view);
            assert!(shown.lines().count() > 1, "{view:?}: {shown}");
            for line in shown.lines() {
                assert!(columns(line) <= width, "{view:?} at {width}: {line:?} takes {}", columns(line));
            }
        }
    }
}

/// The width of a label of `explain`, and of the columns before a sentence of `check`.
const LABELS: usize = 32;

/// All words must be words of the full text. Exceptions are shortened words, and parts of words that are longer than
/// a line.
#[test]
fn only_words_longer_than_a_line_are_broken() {
    let recording = deep().file();
    let all = |view: &[&str]| {
        let output = program().args(view).output().expect("run the program");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    for view in views(&recording.path) {
        let view: Vec<&str> = view.iter().map(String::as_str).collect();
        let whole = all(&view);
        let whole: Vec<&str> = whole.split_whitespace().collect();
        for width in WIDTHS {
            for word in on_terminal(width, &view).split_whitespace().filter(|word| !word.contains('…')) {
                // A time may lack its milliseconds.
                let is_there = |there: &&str| *there == word || there.split('.').next() == Some(word);
                let is_part_of_long = |there: &&str| columns(there) + LABELS > width && there.contains(word);
                assert!(
                    whole.iter().any(is_there) || whole.iter().any(is_part_of_long),
                    "{view:?} at {width}: {word:?} is not a whole word"
                );
            }
        }
    }
}

#[test]
fn a_pipe_and_wide_get_the_full_text() {
    let recording = deep().file();
    let file = recording.path.to_str().expect("UTF-8");
    for args in [vec!["ps", "--from", file], vec!["tree", "--from", file], vec!["replay", file, "-q"]] {
        let output = program().args(&args).env("COLUMNS", "40").output().expect("run the program");
        let piped = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(!piped.contains('…'), "{piped}");
        assert_eq!(on_terminal(60, &[&args[..], &["--wide"]].concat()), piped, "{args:?}");
        assert!(on_terminal(60, &args).contains('…'), "{args:?} must be shortened");
    }
}

#[test]
fn named_columns_are_shown_on_a_narrow_terminal() {
    let recording = deep().file();
    let heading = |args: &[&str]| {
        let file = recording.path.to_str().expect("UTF-8");
        let text = on_terminal(60, &[args, &["--from", file]].concat());
        text.lines().next().expect("a heading").split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(heading(&["ps"]), ["NS", "PIDS", "S", "COMM", "ENTRY"]);
    assert_eq!(heading(&["ps", "--fields", "ns,level,pids,comm"]), ["NS", "LVL", "PIDS", "COMM"]);
    assert_eq!(heading(&["tree"]), ["NAMESPACE", "CONTAINER", "PID", "1", "PROCS", "DETAIL"]);
}

#[test]
fn the_same_options_control_colours_in_every_table() {
    let recording: Recording = deep().file();
    for view in views(&recording.path) {
        let view: Vec<&str> = view.iter().map(String::as_str).collect();
        let on_terminal = |variables: &[(&str, &str)], options: &[&str]| {
            on_terminal_with(variables, 200, &[&view[..], options].concat())
        };
        let coloured = on_terminal(&[], &[]);
        assert!(coloured.contains("\x1b["), "{view:?}: {coloured}");
        assert_eq!(on_terminal(&[("NO_COLOR", "")], &[]), coloured, "{view:?}: an empty NO_COLOR");
        assert!(!on_terminal(&[("NO_COLOR", "1")], &[]).contains('\x1b'), "{view:?}: NO_COLOR");
        assert!(!on_terminal(&[], &["--color=never"]).contains('\x1b'), "{view:?}: never");

        let piped = |options: &[&str]| {
            let output = program().args(&view).args(options).env_remove("NO_COLOR").output();
            String::from_utf8(output.expect("run the program").stdout).expect("UTF-8")
        };
        assert!(!piped(&[]).contains('\x1b'), "{view:?}: a pipe");
        assert!(piped(&["--color", "always"]).contains("\x1b["), "{view:?}: always");
    }
}

/// No view is designed for these widths.
#[test]
fn very_narrow_terminals_get_every_view() {
    let recording = deep().file();
    for view in views(&recording.path) {
        let view: Vec<&str> = view.iter().map(String::as_str).collect();
        for width in [1, 2, 10, 14, 20, 30] {
            let shown = on_terminal(width, &view);
            assert!(shown.lines().count() > 1, "{view:?} at {width}: {shown}");
        }
    }
}

#[test]
fn explanations_on_very_narrow_terminals_keep_their_whole_text() {
    let recording = deep().file();
    let file = recording.path.to_str().expect("UTF-8");
    // The table of the history is shortened like any table, so it is left out.
    let letters = |text: &str| {
        let sentences = text.split_once("History:").expect("a history").0;
        sentences.split_whitespace().collect::<String>()
    };
    let args = ["explain", "100000", "--from", file];
    let output = program().args(args).output().expect("run the program");
    let whole = letters(&String::from_utf8(output.stdout).expect("UTF-8"));
    for width in [10, 15, 20, 25, 30] {
        assert_eq!(letters(&on_terminal(width, &args)), whole, "at {width}");
    }
}

#[test]
fn an_added_column_replaces_others_on_a_narrow_terminal() {
    let recording = deep().file();
    let file = recording.path.to_str().expect("UTF-8");
    let heading = |width, args: &[&str]| {
        let text = on_terminal(width, &[args, &["--from", file]].concat());
        text.lines().next().expect("a heading").split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(heading(200, &["ps", "--fields", "+uid"]).len(), 8);
    assert_eq!(heading(60, &["ps", "--fields", "+uid"]), ["NS", "PIDS", "S", "COMM", "ENTRY", "UID"]);
    for (view, added, column) in [("ps", "+uid", "UID"), ("tree", "+owner", "OWNER")] {
        let (wide, narrow) =
            (heading(60, &[view, "--fields", added]), heading(30, &[view, "--fields", added]));
        assert!(narrow.last().is_some_and(|last| last.starts_with(&column[..3])), "{view}: {narrow:?}");
        assert!(narrow.len() < wide.len(), "{view}: {narrow:?}, {wide:?}");
    }
}

#[test]
fn notices_and_errors_are_broken_at_blanks() {
    let recording = deep().file();
    let file = recording.path.to_str().expect("UTF-8");
    let binary = crate::program::path();
    let binary = binary.to_str().expect("UTF-8");
    for (args, words) in [
        (vec!["ps", "nosuch", "--from", file], "as far as the recording shows"),
        (vec!["replay", file, "-p", "77"], "passes the filters"),
    ] {
        for width in [40, 60, 80] {
            // The program's own exit code does not matter here.
            let line = format!("'{binary}' '{}' || true", args.join("' '"));
            let shown = in_script(&[("NO_COLOR", "1")], width, &line);
            let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains(words), "{args:?} at {width}: {shown}");
            let notice = shown.lines().skip_while(|line| !line.starts_with("pidns-trace: "));
            assert!(notice.clone().count() > 1, "{args:?} at {width}: {shown}");
            for line in notice {
                assert!(columns(line) <= width, "{args:?} at {width}: {line:?}");
            }
        }
    }
}
