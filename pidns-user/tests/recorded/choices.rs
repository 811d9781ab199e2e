//! What commands can be asked for: several targets, an order, more columns; and the messages where nothing matches.

use serde_json::{Value, json};

use crate::story::{HOST, Story, process};

const WEB: u32 = 4026532001;
const DB: u32 = 4026532002;

/// Two containers, of which one has a member that is younger than its init.
fn two() -> Story {
    let mut story = Story::begin();
    story.container(20, WEB, "web", 100);
    story.container(21, DB, "db", 200);
    story.fork(25, &process(&[101, 2], "worker", 25, WEB));
    story.end(30);
    story
}

fn column(table: &str) -> Vec<&str> {
    table.lines().map(|line| line.split_whitespace().next().expect("a column")).collect()
}

#[test]
fn ps_takes_several_targets() {
    let recording = two().file();
    let shown = |args: &[&str]| recording.shown(&[&["ps", "--fields", "pid", "--no-headers"], args].concat());
    assert_eq!(column(&shown(&["web"])), ["100", "101"]);
    assert_eq!(column(&shown(&["web", "db"])), ["100", "101", "200"]);
    assert_eq!(column(&shown(&["web", &WEB.to_string()])), ["100", "101"], "each process once");
    assert_eq!(column(&shown(&[])), ["1", "100", "101", "200"]);
    let refused = recording.refused(1, &["ps", "web", "nobody"]);
    assert!(refused.contains("nobody"), "{refused}");
}

#[test]
fn ps_sorts_by_any_field_in_either_direction() {
    let recording = two().file();
    let shown = |sort: &str| recording.shown(&["ps", "--fields", "pid", "--no-headers", "--sort", sort]);
    assert_eq!(column(&shown("pid")), ["1", "100", "101", "200"]);
    assert_eq!(column(&shown("-pid")), ["200", "101", "100", "1"]);
    assert_eq!(column(&shown("age")), ["101", "200", "100", "1"], "the youngest first");
    assert_eq!(column(&shown("-age")), ["1", "100", "200", "101"]);
    assert_eq!(column(&shown("comm")), ["200", "1", "100", "101"]);
    assert_eq!(column(&shown("-ns")), ["200", "100", "101", "1"], "equals stay in their order");
    let json = recording.shown(&["ps", "--sort=-pid", "-o", "json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["processes"][0]["pid"], 200, "{json}");
    let refused = recording.refused(2, &["ps", "--sort", "agee"]);
    assert!(refused.contains("did you mean age?"), "{refused}");
}

#[test]
fn a_recording_has_no_arguments() {
    let recording = two().file();
    let shown = recording.shown(&["ps", "web", "--fields", "pid,args", "--no-headers"]);
    assert_eq!(shown, "100  ?\n101  ?\n");
}

#[test]
fn pid_takes_several_and_fails_for_those_that_are_not_there() {
    let recording = two().file();
    let shown = recording.shown(&["pid", "101", "200"]);
    let one = recording.shown(&["pid", "101"]);
    assert_eq!(shown, format!("{one}\n{}", recording.shown(&["pid", "200"])));
    let (code, stdout, stderr) = recording.run(&["pid", "77", "101", "78"]);
    assert_eq!((code, stdout.as_str()), (1, one.as_str()), "{stderr}");
    assert!(stderr.contains("77") && stderr.contains("78"), "{stderr}");
    let json = recording.shown(&["pid", "101", "200", "-o", "json"]);
    let pids: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a document a line")["process"]["pid"].clone())
        .collect();
    assert_eq!(pids, [101, 200]);
}

#[test]
fn tree_has_images_and_pods() {
    let mut story = Story::begin();
    let container = json!({"runtime": "containerd", "id": "0123", "name": "api", "image": "registry/api:1",
                           "pod": "api-7f", "pod_namespace": "default"});
    let ns = json!({"inum": WEB, "level": 1, "parent": HOST, "user_ns": 1, "owner_uid": 0, "container": container});
    story.add(
        20,
        "namespace.create",
        json!({"ns": ns, "via": "clone", "creator": process(&[1], "init", 0, HOST)}),
    );
    story.add(20, "namespace.init", json!({"ns": ns, "process": process(&[100, 1], "api", 20, WEB)}));
    story.container(21, DB, "db", 200);
    story.end(30);
    let shown = story.file().shown(&["tree", "--fields", "image,pod"]);
    assert_eq!(
        shown,
        "IMAGE           POD\n-               -\nregistry/api:1  default/api-7f\n-               -\n"
    );
}

#[test]
fn an_empty_replay_names_the_options_to_use() {
    let mut hosts = Story::begin();
    hosts.fork(12, &process(&[100], "sh", 12, HOST));
    hosts.end(13);
    let hosts = hosts.file();
    let stderr_of = |recording: &crate::story::Recording, args: &[&str]| {
        let (code, stdout, stderr) = recording.run(&[&["replay"], args].concat());
        assert_eq!((code, stdout.lines().count()), (0, 1), "a heading: {stdout}{stderr}");
        stderr
    };
    let stderr = stderr_of(&hosts, &[]);
    assert!(
        stderr.contains("none of its 3 events (process.fork 1, snapshot.namespace 1, snapshot.process 1)"),
        "{stderr}"
    );
    assert!(stderr.contains("by default; -e all shows them"), "{stderr}");
    assert!(stderr_of(&hosts, &["-p", "77"]).contains("passes the filters"));
    assert!(stderr_of(&hosts, &["-e", "init.signal"]).contains("what -e asks for"));
    assert_eq!(stderr_of(&hosts, &["-q"]), "");
    let (_, _, stderr) = hosts.run(&["replay", "-e", "all"]);
    assert_eq!(stderr, "", "something is shown");
    let mut quiet = Story::begin();
    quiet.end(13);
    assert!(stderr_of(&quiet.file(), &[]).contains("--snapshot shows it"));
}
