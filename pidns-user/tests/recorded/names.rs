//! Names in a recording: of containers whose first events are without, of processes that share a namespace, of namespaces that
//! had a number before.

use serde_json::{Value, json};

use crate::story::{HOST, Recording, Story, namespace, process};

const NS: u32 = 4026532001;

fn without_name(inum: u32, born: u64) -> Value {
    let mut ns = namespace(inum, born, "nobody");
    ns.as_object_mut().expect("an object").remove("container");
    ns
}

/// The events that a replay shows: name, and PID of the process.
fn replayed(recording: &Recording, name: &str) -> Vec<(String, Option<u64>)> {
    let shown = recording.shown(&["replay", "-o", "json", "-e", "namespace.*,process.*", "-c", name]);
    let events = shown.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let events = events.filter(|event| !event["event"].as_str().expect("a name").starts_with("stream."));
    events
        .map(|event| (event["event"].as_str().expect("a name").to_owned(), event["process"]["pid"].as_u64()))
        .collect()
}

/// A container that gets its name with its end, then another of the same number.
fn named_at_its_end() -> Recording {
    let mut story = Story::begin();
    let creator = process(&[1], "init", 0, HOST);
    for (second, name, pid) in [(20, "web", 100), (40, "db", 200)] {
        let init = process(&[pid, 1], name, second, NS);
        story.add(second, "namespace.create", json!({"ns": without_name(NS, second), "creator": creator}));
        story.add(second, "namespace.init", json!({"ns": without_name(NS, second), "process": init}));
        story.fork(second, &init);
        let exit = json!({"ns": namespace(NS, second, name), "process": init, "exit": {"code": 0},
                          "cause": {"kind": "exited"}, "members": 0});
        story.add(second + 5, "namespace.init_exit", exit);
        story.ends(second + 6, &init);
        let gone = json!({"ns": namespace(NS, second, name), "lived_ns": 1});
        story.add(second + 7, "namespace.destroy", gone);
    }
    story.end(60);
    story.file()
}

#[test]
fn the_first_events_of_a_container_are_shown_though_only_later_ones_name_it() {
    let recording = named_at_its_end();
    for (name, pid) in [("web", 100), ("db", 200)] {
        let events = replayed(&recording, name);
        let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "namespace.create",
            "namespace.init",
            "process.fork",
            "namespace.init_exit",
            "process.exit",
            "process.reap",
            "namespace.destroy",
        ];
        assert_eq!(names, expected, "{name}");
        assert!(events.iter().all(|(_, of)| of.is_none_or(|of| of == pid)), "{name}: {events:?}");
    }
}

#[test]
fn an_earlier_namespace_of_a_number_is_named_with_how_to_ask_for_it() {
    let recording = named_at_its_end();
    let number = NS.to_string();
    let shown = recording.shown(&["explain", &number]);
    assert!(shown.starts_with(&format!("Namespace {NS} (docker/db)")), "{shown}");
    let line = shown
        .lines()
        .find(|line| line.contains("another namespace had this number"))
        .expect("the earlier one");
    assert!(line.contains("until 00:17:07.000 (docker/web)"), "{line}");
    let at = line.split("--at ").nth(1).and_then(|rest| rest.split('`').next()).expect("a moment");
    let shown = recording.shown(&["explain", &number, "--at", at]);
    assert!(shown.starts_with(&format!("Namespace {NS} (docker/web)")), "{at}: {shown}");
    assert!(!shown.contains("another namespace had this number"), "it was the first: {shown}");
}

#[test]
fn a_finding_about_an_earlier_namespace_of_a_number_is_not_one_about_the_later() {
    let mut story = Story::begin();
    story.container(20, NS, "web", 100);
    let init = process(&[100, 1], "web", 20, NS);
    let killer = process(&[50], "killer", 5, HOST);
    let exit = json!({"ns": namespace(NS, 20, "web"), "process": init, "exit": {"signal": "SIGKILL"},
                      "cause": {"kind": "signal", "signal": "SIGKILL", "sender": killer}, "members": 1});
    story.add(25, "namespace.init_exit", exit);
    story.ends(25, &init);
    story.add(26, "namespace.destroy", json!({"ns": namespace(NS, 20, "web"), "lived_ns": 6}));
    story.container(27, NS, "db", 200);
    story.end(28);
    let recording = story.file();
    let number = NS.to_string();
    let (of_web, of_db) = (recording.shown(&["explain", "web"]), recording.shown(&["explain", "db"]));
    assert!(of_web.contains("init-killed"), "{of_web}");
    assert!(!of_db.contains("init-killed"), "{of_db}");
    let by_number = recording.shown(&["explain", &number]);
    assert!(by_number.starts_with(&format!("Namespace {NS} (docker/db)")), "{by_number}");
    assert!(!by_number.contains("init-killed"), "{by_number}");
    let tree = recording.shown(&["tree", &number]);
    assert!(tree.contains("docker/db") && !tree.contains("init-killed"), "{tree}");
    let found = |target: &str| recording.run(&["findings", target]).1;
    assert!(found("web").contains("init-killed"), "{}", found("web"));
    assert!(!found("db").contains("init-killed"), "{}", found("db"));
    assert!(found(&number).contains("init-killed"), "the number is that of both: {}", found(&number));
}

#[test]
fn a_namespace_is_kept_by_the_process_whose_children_go_there() {
    let mut story = Story::begin();
    let maker = process(&[70], "maker", 15, HOST);
    story.fork(15, &maker);
    let ns = without_name(NS, 20);
    story.add(20, "namespace.create", json!({"ns": ns, "via": "unshare", "creator": maker}));
    story.end(30);
    let shown = story.file().shown(&["explain", &NS.to_string()]);
    assert!(shown.contains("Kept by     maker[70], whose children go there"), "{shown}");
    assert!(!shown.contains("not seen"), "{shown}");
}

#[test]
fn a_process_that_shares_a_namespace_keeps_its_own_container() {
    let mut story = Story::begin();
    story.container(20, NS, "web", 100);
    let mut side = process(&[101, 7], "side", 21, NS);
    story.fork(21, &side);
    side["container"] = json!({"runtime": "docker", "id": "side0123", "name": "side"});
    story.add(22, "process.exec", json!({"process": side, "filename": "/side"}));
    story.end(30);
    let recording = story.file();
    let shown = recording.shown(&["ps", "side", "--fields", "pid,container", "--no-headers"]);
    assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), ["101", "docker/side"]);
    let events = replayed(&recording, "side");
    assert_eq!(events, [("process.fork".to_owned(), Some(101)), ("process.exec".to_owned(), Some(101))]);
    let shown = recording.shown(&["tree", "side"]);
    assert!(shown.contains("docker/web") && shown.contains("also docker/side (1)"), "{shown}");
}
