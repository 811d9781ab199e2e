//! Damaged recordings. Every command reports the damage, and shows what comes before it.

use std::process::Stdio;

use crate::builder::{Recording, RecordingBuilder, process, program};

const WEB: u32 = 4026532001;
const LATE: u32 = 4026532002;

/// The text without this line. Lines count from 1.
fn without_line(text: &str, line: usize) -> Recording {
    let kept = text.lines().enumerate().filter(|(index, _)| index + 1 != line);
    Recording::of(kept.map(|(_, line)| format!("{line}\n")).collect::<String>().as_bytes())
}

fn recording() -> RecordingBuilder {
    let mut recording = RecordingBuilder::begin();
    recording.container(20, WEB, "web", 100);
    recording.fork(21, &process(&[101, 7], "worker", 21, WEB));
    recording.container(30, LATE, "late", 200);
    recording.end(40);
    recording
}

#[test]
fn a_target_after_the_damage_is_reported_with_the_damage() {
    let text = recording().text();
    let late = text.lines().position(|line| line.contains("late")).expect("the recording has this line") + 1;
    let cut: String = text.lines().take(late - 1).map(|line| format!("{line}\n")).collect();
    let recording = Recording::of(cut.as_bytes());
    for args in [&["tree"][..], &["ps"], &["explain"], &["pid", "1", "--in"]] {
        let stderr = recording.refused(2, &[args, &[&LATE.to_string()]].concat());
        for part in ["stream.end", &LATE.to_string(), "before the damage"] {
            assert!(stderr.contains(part), "{args:?}: {part}: {stderr}");
        }
        let stderr = recording.refused(2, &[args, &["pid:[3]"]].concat());
        assert!(stderr.contains("small"), "an unknown TARGET is reported as such: {stderr}");
    }
}

#[test]
fn missing_lines_are_found_and_the_lines_before_them_are_shown() {
    let text = recording().text();
    let line =
        text.lines().position(|line| line.contains("worker")).expect("the recording has this line") + 1;
    let recording = without_line(&text, line);
    let (code, shown, stderr) = recording.run(&["replay", "--no-headers"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains(&format!("line {line}: 1 event is missing before it")), "{stderr}");
    assert!(shown.contains("web") && !shown.contains("late"), "{shown}");
    let (code, shown, stderr) = recording.run(&["tree", "--no-headers", "--fields", "container"]);
    assert_eq!((code, shown.as_str()), (2, "host\ndocker/web\n"), "{stderr}");
}

#[test]
fn the_last_of_several_recordings_in_a_file_counts() {
    let mut second = RecordingBuilder::begin();
    second.container(20, LATE, "late", 200);
    second.end(40);
    let recording = Recording::of(format!("{}{}", recording().text(), second.text()).as_bytes());
    let shown = recording.shown(&["tree", "--no-headers", "--fields", "container"]);
    assert_eq!(shown, "host\ndocker/late\n");
    let shown = recording.shown(&["explain", "late"]);
    assert_eq!(
        shown.matches("by init[1] via clone").count(),
        1,
        "the history must come from the last recording: {shown}"
    );
    assert!(recording.shown(&["replay"]).contains("docker/web"));
}

#[test]
fn at_accepts_times_of_day_as_replay_prints_them() {
    let mut recording = RecordingBuilder::begin();
    recording.step = 3600;
    recording.container(20, WEB, "web", 100);
    recording.container(30, LATE, "late", 200);
    recording.end(40);
    let recording = recording.file();
    // 1000 + 20 + 3600 seconds.
    let at = |time| recording.shown(&["tree", "--no-headers", "--fields", "container", "--at", time]);
    assert_eq!(at("1970-01-01T01:17:00Z"), "host\ndocker/web\n");
    assert_eq!(at("1970-01-01T00:30:00Z"), "host\n");
}

#[test]
fn a_failure_keeps_its_exit_code_with_a_closed_stderr() {
    let (reader, writer) = std::io::pipe().expect("create a pipe");
    drop(reader);
    let recording = Recording::of(b"no recording\n");
    let mut replay = program();
    replay.arg("replay").arg(&recording.path).stdout(Stdio::null()).stderr(writer);
    assert_eq!(replay.status().expect("run the program").code(), Some(2));
}

#[test]
fn a_recording_that_ends_in_its_first_snapshot_is_refused() {
    let text = recording().text();
    let incomplete: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    let stderr = Recording::of(incomplete.as_bytes()).refused(2, &["tree"]);
    assert!(stderr.contains("the output lacks processes and namespaces"), "{stderr}");
    let behind_it: String = text.lines().take(6).map(|line| format!("{line}\n")).collect();
    let stderr = Recording::of(behind_it.as_bytes()).refused(2, &["tree"]);
    assert!(!stderr.contains("lacks"), "{stderr}");
}

#[test]
fn foreign_and_empty_files_are_reported_as_such() {
    let stderr = Recording::of(b"root:x:0:0\n").refused(2, &["replay"]);
    assert!(stderr.contains("is this a recording"), "{stderr}");
    let stderr = Recording::of(b"").refused(2, &["ps"]);
    assert!(stderr.contains("it is empty"), "{stderr}");
    for bytes in [&b"root:x:0:0\n"[..], b"", b"\x7fELF\0\n"] {
        let (code, stdout, stderr) = Recording::of(bytes).run(&["replay"]);
        assert_eq!((code, stdout.as_str()), (2, ""), "no heading above nothing: {stderr}");
        assert!(!stderr.contains("line 0"), "{stderr}");
    }
}
