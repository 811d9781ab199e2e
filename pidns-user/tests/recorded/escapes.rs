//! What a recording says is whatever somebody wrote there: none of it may steer the terminal.

use serde_json::json;

use crate::story::{HOST, Story, Told, namespace, process};

/// Clears a screen, names a window, turns the direction.
const EVIL: &str = "\u{1b}[2J\u{9b}31m\u{7}\u{61c}\u{202e}\r";
const WEB: u32 = 4026532001;
const REBOOTED: u32 = 4026532002;

/// Each field that is text, full of it.
fn evil() -> Story {
    let mut story = Story::begin();
    let zombie = process(&[50], EVIL, 1, HOST);
    story.tell(11, "snapshot.process", json!({"process": zombie, "state": "\u{1b}", "threads": 1}));
    let (ns, who) = (namespace(WEB, 20, EVIL), process(&[100, 1], EVIL, 20, WEB));
    let creator = process(&[1], "init", 0, HOST);
    story.tell(20, "namespace.create", json!({"ns": ns, "via": EVIL, "creator": creator}));
    story.tell(20, "namespace.init", json!({"ns": ns, "process": who}));
    story.fork(20, &who);
    let other = process(&[101, 2], EVIL, 21, WEB);
    story.tell(21, "snapshot.process", json!({"process": other, "state": "\u{9b}", "threads": 3}));
    story.tell(
        22,
        "namespace.create_failed",
        json!({"via": EVIL, "creator": who, "errno": EVIL, "reason": EVIL}),
    );
    story.tell(22, "namespace.join_failed", json!({"ns": ns, "process": who, "errno": EVIL, "reason": EVIL}));
    story.tell(22, "fork.failed", json!({"process": who, "ns": ns, "errno": EVIL, "reason": EVIL}));
    let signal =
        json!({"ns": ns, "process": who, "signal": EVIL, "sender": other, "from": EVIL, "fate": EVIL});
    story.tell(22, "init.signal", signal);
    story.tell(22, "stream.lost", json!({"stage": EVIL, "count": 1}));
    story.tell(22, "process.exec", json!({"process": who, "filename": EVIL, "args": [EVIL]}));
    let killed = json!({"signal": EVIL, "core": true});
    story.tell(23, "process.exit", json!({"process": other, "exit": killed, "ran_ns": 1}));
    story.container(24, REBOOTED, EVIL, 200);
    let init = process(&[200, 1], EVIL, 24, REBOOTED);
    let cause = json!({"kind": "reboot", "command": EVIL});
    let exit = json!({"ns": namespace(REBOOTED, 24, EVIL), "process": init, "exit": killed, "cause": cause, "members": 1});
    story.tell(25, "namespace.init_exit", exit);
    story.tell(25, "process.exit", json!({"process": init, "exit": killed, "ran_ns": 1}));
    story.end(30);
    story
}

#[track_caller]
fn expect_harmless(args: &[&str], (_, stdout, stderr): &Told) {
    for text in [stdout, stderr] {
        let is_obeyed = |c: &char| {
            (c.is_control() && *c != '\n')
                || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        };
        assert_eq!(text.chars().find(is_obeyed), None, "{args:?}: {text:?}");
    }
}

#[test]
fn no_view_of_a_recording_writes_what_a_terminal_obeys() {
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
        let told = recording.told(&args);
        assert!(!told.1.is_empty() || told.0 != 0, "{args:?}: something is shown");
        expect_harmless(&args, &told);
    }
    let shown = recording.shown(&["replay", "-e", "all", "--snapshot"]);
    for part in [r"via \u{1b}[2J", r"reboot(2) inside: \u{1b}[2J", r"state \u{1b}", r"(\u{1b}[2J"] {
        assert!(shown.contains(part), "{part} is told, escaped: {shown}");
    }
}

#[test]
fn what_is_wrong_with_a_line_is_told_without_its_escapes() {
    let mut story = Story::begin();
    let exit = json!({"code": 0});
    let (ns, init) = (namespace(WEB, 20, "web"), process(&[100, 1], "web", 20, WEB));
    let body = json!({"ns": ns, "process": init, "exit": exit, "cause": {"kind": EVIL}, "members": 0});
    story.tell(20, "namespace.init_exit", body);
    let told = story.file().told(&["replay"]);
    assert!(told.0 == 2 && told.2.contains(r"unknown variant `\u{1b}[2J"), "{told:?}");
    expect_harmless(&["replay"], &told);
}
