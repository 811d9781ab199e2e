//! Names in a recording: of containers whose first events have no name, of processes that share a namespace, and of
//! earlier namespaces with the same number.

use serde_json::{Value, json};

use crate::builder::{HOST, Recording, RecordingBuilder, namespace, process};

const NS: u32 = 4026532001;

fn without_name(inum: u32, born: u64) -> Value {
    let mut ns = namespace(inum, born, "nobody");
    ns.as_object_mut().expect("an object").remove("container");
    ns
}

/// The events that a replay shows: the name, and the PID of the process.
fn replayed(recording: &Recording, name: &str) -> Vec<(String, Option<u64>)> {
    let shown = recording.shown(&["replay", "-o", "json", "-e", "namespace.*,process.*", "-c", name]);
    let events = shown.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let events = events.filter(|event| !event["event"].as_str().expect("a name").starts_with("stream."));
    events
        .map(|event| (event["event"].as_str().expect("a name").to_owned(), event["process"]["pid"].as_u64()))
        .collect()
}

/// A container that only the events of its end name, and then another container whose namespace has the same number.
fn named_at_its_end() -> Recording {
    let mut recording = RecordingBuilder::begin();
    let creator = process(&[1], "init", 0, HOST);
    for (second, name, pid) in [(20, "web", 100), (40, "db", 200)] {
        let init = process(&[pid, 1], name, second, NS);
        recording.add(
            second,
            "namespace.create",
            json!({"ns": without_name(NS, second), "creator": creator}),
        );
        recording.add(second, "namespace.init", json!({"ns": without_name(NS, second), "process": init}));
        recording.fork(second, &init);
        let exit = json!({"ns": namespace(NS, second, name), "process": init, "exit": {"code": 0},
                          "cause": {"kind": "exited"}, "members": 0});
        recording.add(second + 5, "namespace.init_exit", exit);
        recording.ends(second + 6, &init);
        let gone = json!({"ns": namespace(NS, second, name), "lived_ns": 1});
        recording.add(second + 7, "namespace.destroy", gone);
    }
    recording.end(60);
    recording.file()
}

#[test]
fn early_events_of_a_container_are_shown_even_if_only_later_ones_name_it() {
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

/// A namespace whose container only its cgroup names yet: an id, and nothing else.
fn claimed(inum: u32, born: u64, name: &str) -> Value {
    let mut ns = namespace(inum, born, name);
    ns["container"] = json!({"runtime": "docker", "id": format!("{name}0123"), "by_cgroup_alone": true});
    ns
}

/// A container that its cgroup names from its init on, and its runtime from a signal on. A finding about it is over at
/// the end.
fn named_by_a_signal() -> Recording {
    let mut recording = RecordingBuilder::begin();
    let creator = process(&[1], "init", 0, HOST);
    let init = process(&[100, 1], "server", 20, NS);
    let claimed = claimed(NS, 20, "web");
    recording.add(
        20,
        "namespace.create",
        json!({"ns": without_name(NS, 20), "via": "clone", "creator": creator}),
    );
    recording.add(20, "namespace.init", json!({"ns": claimed, "process": init}));
    recording.fork(20, &init);
    recording.fork(21, &process(&[101, 2], "worker", 21, NS));
    let mut about = claimed.clone();
    about["born_boot_ns"] = json!(20_000_000_000_u64);
    let finding = json!({"id": "init-ignored-signal", "severity": "warning", "since_boot_ns": 30_000_000_000_u64,
                         "ns": about, "process": init, "evidence": []});
    let signal = json!({"ns": namespace(NS, 20, "web"), "process": init, "signal": "SIGTERM", "from": "ancestor",
                        "fate": "ignored"});
    recording.add(30, "init.signal", signal);
    recording.add(31, "finding", json!({"finding": finding, "state": "opened"}));
    recording.ends(40, &init);
    recording.add(41, "finding", json!({"finding": finding, "state": "closed"}));
    recording.end(50);
    recording.file()
}

#[test]
fn early_events_with_only_an_id_belong_to_the_container_that_later_ones_name() {
    let recording = named_by_a_signal();
    let expected = [
        ("namespace.create", Some(1)),
        ("namespace.init", Some(100)),
        ("process.fork", Some(100)),
        ("process.fork", Some(101)),
        ("process.exit", Some(100)),
        ("process.reap", Some(100)),
    ];
    let of = |name: &str| {
        let events = recording.shown(&["replay", "-o", "json", "-e", "namespace.*,process.*", "-c", name]);
        let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let events = events.filter(|event| !event["event"].as_str().expect("a name").starts_with("stream."));
        events
            .map(|event| {
                let process = if event["process"].is_null() { &event["creator"] } else { &event["process"] };
                (event["event"].as_str().expect("a name").to_owned(), process["pid"].as_u64())
            })
            .collect::<Vec<_>>()
    };
    let expected: Vec<_> = expected.iter().map(|(name, pid)| ((*name).to_owned(), *pid)).collect();
    assert_eq!(of("web"), expected);
    assert_eq!(of("docker/web"), expected);
    assert_eq!(of("web0123"), expected, "its id means the same events");
}

#[test]
fn views_name_a_container_before_the_event_that_names_it() {
    let recording = named_by_a_signal();
    let table = recording.shown(&["replay", "-e", "all", "--no-headers", "--fields", "event,container"]);
    let about: Vec<&str> = table.lines().filter(|line| line.contains("docker/")).collect();
    assert!(about.iter().all(|line| line.ends_with("docker/web")), "{table}");
    let over = about.iter().filter(|line| line.starts_with("over ")).count();
    assert_eq!((about.len(), over), (8, 1), "{table}");
    let shown = recording.shown(&["ps", "web", "--at", "+12s", "--fields", "pid,container", "--no-headers"]);
    assert_eq!(shown, "100  docker/web\n101  docker/web\n");
    let shown = recording.shown(&["explain", "web", "--at", "+12s"]);
    assert!(shown.contains("(docker/web)"), "{shown}");
    let json = recording.shown(&["replay", "-o", "json", "-e", "namespace.init"]);
    assert!(json.contains("by_cgroup_alone"), "without a filter, JSON is what the file contains: {json}");
}

#[test]
fn explain_names_an_earlier_namespace_with_the_same_number_and_its_option() {
    let recording = named_at_its_end();
    let number = NS.to_string();
    let shown = recording.shown(&["explain", &number]);
    assert!(shown.starts_with(&format!("Namespace {NS} (docker/db)")), "{shown}");
    let line = shown
        .lines()
        .find(|line| line.contains("another namespace had this number"))
        .expect("a line about the earlier namespace");
    assert!(line.contains("until 00:17:07.000 (docker/web)"), "{line}");
    let at = line.split("--at ").nth(1).and_then(|rest| rest.split('`').next()).expect("a time after --at");
    let shown = recording.shown(&["explain", &number, "--at", at]);
    assert!(shown.starts_with(&format!("Namespace {NS} (docker/web)")), "{at}: {shown}");
    assert!(!shown.contains("another namespace had this number"), "it was the first namespace: {shown}");
}

#[test]
fn a_finding_about_an_earlier_namespace_is_not_shown_for_a_later_one() {
    let mut recording = RecordingBuilder::begin();
    recording.container(20, NS, "web", 100);
    let init = process(&[100, 1], "web", 20, NS);
    let killer = process(&[50], "killer", 5, HOST);
    let exit = json!({"ns": namespace(NS, 20, "web"), "process": init, "exit": {"signal": "SIGKILL"},
                      "cause": {"kind": "signal", "signal": "SIGKILL", "sender": killer}, "members": 1});
    recording.add(25, "namespace.init_exit", exit);
    recording.ends(25, &init);
    recording.add(26, "namespace.destroy", json!({"ns": namespace(NS, 20, "web"), "lived_ns": 6}));
    recording.container(27, NS, "db", 200);
    recording.end(28);
    let recording = recording.file();
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
    assert!(found(&number).contains("init-killed"), "both have this number: {}", found(&number));
}

#[test]
fn explain_names_the_process_whose_children_start_in_the_namespace() {
    let mut recording = RecordingBuilder::begin();
    let maker = process(&[70], "maker", 15, HOST);
    recording.fork(15, &maker);
    let ns = without_name(NS, 20);
    recording.add(20, "namespace.create", json!({"ns": ns, "via": "unshare", "creator": maker}));
    recording.end(30);
    let shown = recording.file().shown(&["explain", &NS.to_string()]);
    assert!(shown.contains("Kept by     maker[70], whose children start there"), "{shown}");
    assert!(!shown.contains("not seen"), "{shown}");
}

#[test]
fn a_process_that_shares_a_namespace_keeps_its_own_container() {
    let mut recording = RecordingBuilder::begin();
    recording.container(20, NS, "web", 100);
    let mut side = process(&[101, 7], "side", 21, NS);
    recording.fork(21, &side);
    side["container"] = json!({"runtime": "docker", "id": "side0123", "name": "side"});
    recording.add(22, "process.exec", json!({"process": side, "filename": "/side"}));
    recording.end(30);
    let recording = recording.file();
    let shown = recording.shown(&["ps", "side", "--fields", "pid,container", "--no-headers"]);
    assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), ["101", "docker/side"]);
    let events = replayed(&recording, "side");
    assert_eq!(events, [("process.fork".to_owned(), Some(101)), ("process.exec".to_owned(), Some(101))]);
    let shown = recording.shown(&["tree", "side"]);
    assert!(shown.contains("docker/web") && shown.contains("also docker/side (1)"), "{shown}");
}
