//! Options of commands: several targets, a sort order, more columns. Also the messages when nothing matches.

use serde_json::{Value, json};

use crate::builder::{HOST, RecordingBuilder, process};

const WEB: u32 = 4026532001;
const DB: u32 = 4026532002;

/// A recording with two containers. One has a member that is younger than its init.
fn two() -> RecordingBuilder {
    let mut recording = RecordingBuilder::begin();
    recording.container(20, WEB, "web", 100);
    recording.container(21, DB, "db", 200);
    recording.fork(25, &process(&[101, 2], "worker", 25, WEB));
    recording.end(30);
    recording
}

fn column(table: &str) -> Vec<&str> {
    table.lines().map(|line| line.split_whitespace().next().expect("a column")).collect()
}

#[test]
fn ps_accepts_several_targets() {
    let recording = two().file();
    let shown = |args: &[&str]| recording.shown(&[&["ps", "--fields", "pid", "--no-headers"], args].concat());
    assert_eq!(column(&shown(&["web"])), ["100", "101"]);
    assert_eq!(column(&shown(&["web", "db"])), ["100", "101", "200"]);
    assert_eq!(column(&shown(&["web", &WEB.to_string()])), ["100", "101"], "each process is listed once");
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
    assert_eq!(column(&shown("age")), ["101", "200", "100", "1"], "the youngest comes first");
    assert_eq!(column(&shown("-age")), ["1", "100", "200", "101"]);
    assert_eq!(column(&shown("comm")), ["200", "1", "100", "101"]);
    assert_eq!(column(&shown("-ns")), ["200", "100", "101", "1"], "equal rows keep their order");
    let json = recording.shown(&["ps", "--sort=-pid", "-o", "json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["processes"][0]["pid"], 200, "{json}");
    let refused = recording.refused(2, &["ps", "--sort", "agee"]);
    assert!(refused.contains("did you mean age?"), "{refused}");
}

#[test]
fn arguments_are_unknown_in_a_recording() {
    let recording = two().file();
    let shown = recording.shown(&["ps", "web", "--fields", "pid,args", "--no-headers"]);
    assert_eq!(shown, "100  ?\n101  ?\n");
}

#[test]
fn pid_accepts_several_and_fails_for_missing_ones() {
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
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("one document for each line")["process"]["pid"].clone()
        })
        .collect();
    assert_eq!(pids, [101, 200]);
}

#[test]
fn tree_shows_images_and_pods() {
    let mut recording = RecordingBuilder::begin();
    let container = json!({"runtime": "containerd", "id": "0123", "name": "api", "image": "registry/api:1",
                           "pod": "api-7f", "pod_namespace": "default"});
    let ns = json!({"inum": WEB, "level": 1, "parent": HOST, "user_ns": 1, "owner_uid": 0, "container": container});
    recording.add(
        20,
        "namespace.create",
        json!({"ns": ns, "via": "clone", "creator": process(&[1], "init", 0, HOST)}),
    );
    recording.add(20, "namespace.init", json!({"ns": ns, "process": process(&[100, 1], "api", 20, WEB)}));
    recording.container(21, DB, "db", 200);
    recording.end(30);
    let shown = recording.file().shown(&["tree", "--fields", "image,pod"]);
    assert_eq!(
        shown,
        "IMAGE           POD\n-               -\nregistry/api:1  default/api-7f\n-               -\n"
    );
}

#[test]
fn an_empty_replay_names_the_options_to_use() {
    let mut hosts = RecordingBuilder::begin();
    hosts.fork(12, &process(&[100], "sh", 12, HOST));
    hosts.end(13);
    let hosts = hosts.file();
    let stderr_of = |recording: &crate::builder::Recording, args: &[&str]| {
        let (code, stdout, stderr) = recording.run(&[&["replay"], args].concat());
        assert_eq!((code, stdout.lines().count()), (0, 1), "expected only a heading: {stdout}{stderr}");
        stderr
    };
    let stderr = stderr_of(&hosts, &[]);
    assert!(
        stderr.contains("none of its 3 events (process.fork 1, snapshot.namespace 1, snapshot.process 1)"),
        "{stderr}"
    );
    assert!(stderr.contains("by default; -e all shows them"), "{stderr}");
    assert!(stderr_of(&hosts, &["-p", "77"]).contains("passes the filters"));
    assert!(stderr_of(&hosts, &["-e", "init.signal"]).contains("matches -e; -e all"));
    assert_eq!(stderr_of(&hosts, &["-q"]), "");
    let (_, _, stderr) = hosts.run(&["replay", "-e", "all"]);
    assert_eq!(stderr, "", "a replay that shows events has no message");
    let mut quiet = RecordingBuilder::begin();
    quiet.end(13);
    assert!(stderr_of(&quiet.file(), &[]).contains("use --snapshot"));
}

#[test]
fn a_namespace_of_a_replay_is_a_number_and_the_error_names_the_options_for_the_rest() {
    let recording = two().file();
    let number = WEB.to_string();
    let shown = recording.shown(&["replay", "-n", &number, "--no-headers", "--fields", "ns"]);
    assert!(shown.lines().count() > 0 && shown.lines().all(|line| line == number), "{shown}");
    let refused = recording.refused(2, &["replay", "-n", "web"]);
    assert!(refused.contains("takes an inode number") && refused.contains("pod or id to -c"), "{refused}");
    let refused = recording.refused(2, &["replay", "-n", "100"]);
    assert!(refused.contains("pidns-trace pid 100 --from FILE") && !refused.contains("a path"), "{refused}");
    let shown = recording.shown(&["pid", "100"]);
    assert!(shown.contains(&number), "the advice is true: {shown}");
    let refused = recording.refused(2, &["explain", "mnt:[4026531832]"]);
    assert!(refused.contains("a namespace of another type (mnt)"), "{refused}");
    assert!(!refused.contains("is called"), "it is no container: {refused}");
}

#[test]
fn an_unknown_place_of_several_pids_is_one_error() {
    let (code, stdout, stderr) = two().file().run(&["pid", "1", "5", "--in", "nosuch"]);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert_eq!(stderr.matches("no container is called").count(), 1, "{stderr}");
}

#[test]
fn tree_calls_the_hosts_namespace_host() {
    let shown = two().file().shown(&["tree", "--no-headers", "--fields", "container"]);
    assert_eq!(shown, "host\ndocker/web\ndocker/db\n");
}
