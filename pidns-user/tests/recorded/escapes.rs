//! A recording is untrusted text. Tests that none of it controls the terminal.

use serde_json::{Value, json};

use crate::builder::{HOST, Output, RecordingBuilder, namespace, process};

/// Sequences that clear the screen, name the window, and reverse the text direction.
const EVIL: &str = "\u{1b}[2J\u{9b}31m\u{7}\u{61c}\u{202e}\r";
const WEB: u32 = 4026532001;
const REBOOTED: u32 = 4026532002;

/// A recording with these sequences in each text field.
fn evil() -> RecordingBuilder {
    let mut recording = RecordingBuilder::begin();
    let zombie = process(&[50], EVIL, 1, HOST);
    recording.add(
        11,
        "snapshot.process",
        json!({"process": zombie, "state": "\u{1b}", "threads": 1, "cgroup": EVIL}),
    );
    let (ns, who) = (namespace(WEB, 20, EVIL), process(&[100, 1], EVIL, 20, WEB));
    let creator = process(&[1], "init", 0, HOST);
    recording.add(20, "namespace.create", json!({"ns": ns, "via": EVIL, "creator": creator}));
    recording.add(20, "namespace.init", json!({"ns": ns, "process": who}));
    recording.fork(20, &who);
    let other = process(&[101, 2], EVIL, 21, WEB);
    recording.add(21, "snapshot.process", json!({"process": other, "state": "\u{9b}", "threads": 3}));
    recording.add(
        22,
        "namespace.create_failed",
        json!({"via": EVIL, "creator": who, "errno": EVIL, "reason": EVIL, "limit": {"kind": EVIL, "cgroup": EVIL}}),
    );
    recording.add(
        22,
        "namespace.join_failed",
        json!({"ns": ns, "process": who, "errno": EVIL, "reason": EVIL}),
    );
    let taken = json!({"pid": 2, "ns": WEB, "as": EVIL});
    let refused = json!({"process": who, "ns": ns, "errno": EVIL, "reason": EVIL, "capability": EVIL});
    recording.add(22, "fork.failed", refused);
    let refused = json!({"process": who, "ns": ns, "errno": EVIL, "reason": "pid_taken", "set_tid": [2], "taken": taken,
                         "holder": other});
    recording.add(22, "fork.failed", refused);
    let signal =
        json!({"ns": ns, "process": who, "signal": EVIL, "sender": other, "from": EVIL, "fate": EVIL});
    recording.add(22, "init.signal", signal);
    recording.add(22, "stream.lost", json!({"stage": EVIL, "count": 1}));
    recording.add(22, "process.exec", json!({"process": who, "filename": EVIL, "args": [EVIL]}));
    let killed = json!({"signal": EVIL, "core": true});
    recording.add(23, "process.exit", json!({"process": other, "exit": killed, "ran_ns": 1}));
    recording.container(24, REBOOTED, EVIL, 200);
    let init = process(&[200, 1], EVIL, 24, REBOOTED);
    let cause = json!({"kind": "reboot", "command": EVIL});
    let exit = json!({"ns": namespace(REBOOTED, 24, EVIL), "process": init, "exit": killed, "cause": cause, "members": 1});
    recording.add(25, "namespace.init_exit", exit);
    recording.add(25, "process.exit", json!({"process": init, "exit": killed, "ran_ns": 1}));
    recording.end(30);
    recording
}

#[track_caller]
fn expect_harmless(args: &[&str], (_, stdout, stderr): &Output) {
    for text in [stdout, stderr] {
        let is_obeyed = |c: &char| {
            (c.is_control() && *c != '\n')
                || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        };
        assert_eq!(text.chars().find(is_obeyed), None, "{args:?}: {text:?}");
    }
}

#[test]
fn no_view_of_a_recording_writes_control_sequences() {
    let recording = evil().file();
    let numbers = [WEB, REBOOTED, HOST, 50, 100, 101, 200].map(|number| number.to_string());
    let explain = numbers.iter().map(|number| vec!["explain", number.as_str()]);
    let others = [
        &["replay", "-e", "all", "--snapshot"][..],
        &["tree"],
        &["ps", "--fields", "+state,container"],
        &["tree", "-o", "dot"],
        &["pid", "100"],
        &["ps", "nobody"],
        &["pid", "2", "--in", "200"],
    ];
    for args in others.into_iter().map(<[_]>::to_vec).chain(explain) {
        let run = recording.run(&args);
        assert!(!run.1.is_empty() || run.0 != 0, "{args:?}: expected output");
        expect_harmless(&args, &run);
    }
    let shown = recording.shown(&["replay", "-e", "all", "--snapshot"]);
    for part in [r"via \u{1b}[2J", r"reboot(2) inside: \u{1b}[2J", r"state \u{1b}", r"(\u{1b}[2J"] {
        assert!(shown.contains(part), "expected the escaped {part}: {shown}");
    }
}

/// Names in JSON that look like others or run backwards, for people and for parsers.
#[test]
fn json_escapes_control_characters_without_changing_the_value() {
    let names = ["cod\u{202e}gpj", "we\u{200b}b", "we\u{2060}b", "\u{301}web"];
    let mut recording = RecordingBuilder::begin();
    for (number, name) in (100..).zip(names) {
        let ns = WEB + number;
        recording.container(20, ns, name, number);
        let init = process(&[number, 1], name, 20, ns);
        let exec = json!({"process": init, "filename": name, "args": [name, "plain"]});
        recording.add(21, "process.exec", exec);
    }
    recording.end(30);
    let recording = recording.file();
    let is_shown = |c: char| c == '\n' || (' '..='~').contains(&c);
    let parsed = |args: &[&str]| -> Vec<Value> {
        let text = recording.shown(args);
        assert_eq!(text.chars().find(|&c| !is_shown(c)), None, "{args:?}: {text:?}");
        let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        values.map(|value| value.unwrap_or_else(|error| panic!("{args:?}: {error}"))).collect()
    };
    let events = parsed(&["replay", "-e", "all", "--snapshot", "-o", "json"]);
    let execs: Vec<_> = events.iter().filter(|event| event["event"] == "process.exec").collect();
    for (exec, name) in execs.iter().zip(names) {
        assert_eq!((&exec["process"]["comm"], &exec["args"]), (&name.into(), &json!([name, "plain"])));
        assert_eq!(exec["filename"], name);
    }
    assert_eq!(execs.len(), names.len());
    let processes = parsed(&["ps", "-o", "json"]);
    let comms = processes[0]["processes"].as_array().expect("processes");
    let comms: Vec<_> = comms.iter().filter(|one| one["pid"] != 1).map(|one| &one["comm"]).collect();
    assert_eq!(comms, names.map(Value::from).iter().collect::<Vec<_>>());
    let tree = parsed(&["tree", "-o", "json"]);
    let inner =
        tree[0]["namespaces"].as_array().expect("namespaces").iter().filter(|ns| ns["ns"]["level"] == 1);
    let named: Vec<_> = inner.map(|ns| &ns["ns"]["container"]["name"]).collect();
    assert_eq!(named, names.map(Value::from).iter().collect::<Vec<_>>());
    for (number, name) in (100..).zip(names) {
        let explained = parsed(&["explain", &number.to_string(), "-o", "json"]);
        assert_eq!(explained[0]["process"]["process"]["comm"], name);
    }
}

#[test]
fn the_error_of_a_line_is_printed_without_its_escapes() {
    let mut recording = RecordingBuilder::begin();
    let exit = json!({"code": 0});
    let (ns, init) = (namespace(WEB, 20, "web"), process(&[100, 1], "web", 20, WEB));
    let body = json!({"ns": ns, "process": init, "exit": exit, "cause": {"kind": EVIL}, "members": 0});
    recording.add(20, "namespace.init_exit", body);
    let run = recording.file().run(&["replay"]);
    assert!(run.0 == 2 && run.2.contains(r"unknown variant `\u{1b}[2J"), "{run:?}");
    expect_harmless(&["replay"], &run);
}
