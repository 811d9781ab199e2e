//! Tests which process must reap a zombie, with recordings that contain tracers and recordings that do not.

use serde_json::{Value, json};

use crate::builder::{HOST, RecordingBuilder, process};

const WEB: u32 = 4026532001;

/// An exiting PID 1 waits for a zombie (101), whose parent is outside. Another zombie (51) and its parent are on the
/// host. If `known`, both were zombies when the recording began, and the snapshot shows that nothing traces them.
fn hung(known: bool) -> RecordingBuilder {
    let mut recording = RecordingBuilder::begin();
    recording.container(20, WEB, "web", 100);
    let init = process(&[100, 1], "web", 20, WEB);
    let (inside, outside) = (process(&[101, 2], "worker", 21, WEB), process(&[51], "helper", 21, HOST));
    for zombie in [&inside, &outside] {
        if known {
            let seen =
                json!({"process": zombie, "state": "Z", "threads": 1, "threads_live": 0, "joined": true});
            recording.add(22, "snapshot.process", seen);
        } else {
            recording.fork(21, zombie);
            recording.add(22, "process.exit", json!({"process": zombie, "exit": {"code": 0}, "ran_ns": 1}));
        }
    }
    let ns = crate::builder::namespace(WEB, 20, "web");
    let exit = json!({"code": 0});
    let body = json!({"ns": ns, "process": init, "exit": exit, "cause": {"kind": "exited"}, "members": 1});
    recording.add(25, "namespace.init_exit", body);
    recording.add(25, "process.exit", json!({"process": init, "exit": exit, "ran_ns": 1}));
    recording.end(30);
    recording
}

const UNLESS: &str = "unless another process traces it, which the recording does not show";

#[test]
fn each_view_says_that_a_recording_has_no_tracers() {
    for (known, why) in [
        (true, json!({"kind": "not_reaped", "pid": 1, "comm": "init"})),
        (false, json!({"kind": "not_reaped", "pid": 1, "comm": "init", "tracer_unknown": true})),
    ] {
        let recording = hung(known).file();
        let expect = |args: &[&str], part: &str| {
            let text = recording.shown(args);
            assert_eq!(text.contains(part), !known, "{args:?}, known: {known}: {text}");
        };
        for target in [&WEB.to_string()[..], "101", "51", "1"] {
            expect(&["explain", target], UNLESS);
        }
        for view in ["tree", "ps"] {
            expect(&[view], "or a tracer has not waited for it");
        }
        let of =
            |args: &[&str]| -> Value { serde_json::from_str(&recording.shown(args)).expect("one document") };
        let explained = of(&["explain", &WEB.to_string(), "-o", "json"]);
        assert_eq!(explained["namespace"]["waits_for"][0]["why"], why, "{explained:#}");
        let zombie = &of(&["explain", "51", "-o", "json"])["process"]["zombie"];
        assert_eq!(zombie["reaper"]["pid"], 1, "{zombie:#}");
        assert_eq!(zombie.get("tracer_unknown").is_some(), !known, "{zombie:#}");
        let listed = of(&["ps", "-o", "json"]);
        let line = listed["processes"].as_array().expect("processes").iter().find(|line| line["pid"] == 101);
        assert_eq!(line.expect("the zombie")["awaited"]["why"], why, "{listed:#}");
        let tree = of(&["tree", "-o", "json"]);
        let lines = tree["namespaces"].as_array().expect("namespaces");
        let line = lines.iter().find(|line| line["ns"]["inum"] == WEB).expect("the namespace");
        assert_eq!(line["waits_for"][0]["why"], why, "{tree:#}");
        let (table, unknown) = (recording.shown(&["ps", "--fields", "pid,tracer", "--no-headers"]), !known);
        let row = table
            .lines()
            .find(|line| line.split_whitespace().next() == Some("101"))
            .expect("a row of the zombie");
        assert_eq!(row.split_whitespace().nth(1), Some(if unknown { "?" } else { "-" }), "{table}");
    }
}
