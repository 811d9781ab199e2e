//! `pid --from` with numbers and names that belonged to several namespaces or processes over time.

use serde_json::Value;

use crate::builder::{HOST, Recording, RecordingBuilder, namespace, process};

/// The inode number of an ended container, and after it of another one.
const TWICE: u32 = 4026532001;
const SIDE: u32 = 4026532005;

/// "web" ends, and "db" gets its number. "side" is another container.
fn web_then_db() -> Recording {
    let mut recording = RecordingBuilder::begin();
    recording.container(20, TWICE, "web", 100);
    let worker = process(&[101, 7], "worker", 21, TWICE);
    recording.fork(21, &worker);
    recording.ends(30, &worker);
    let init = process(&[100, 1], "web", 20, TWICE);
    let web = namespace(TWICE, 20, "web");
    recording.ends(31, &init);
    recording.add(32, "namespace.destroy", serde_json::json!({"ns": web, "lived_ns": 12}));
    recording.container(40, TWICE, "db", 200);
    recording.fork(41, &process(&[201, 7], "postgres", 41, TWICE));
    recording.fork(41, &process(&[202, 9], "checker", 41, TWICE));
    recording.container(42, SIDE, "side", 300);
    recording.end(50);
    recording.file()
}

fn first_pid(shown: &str) -> u64 {
    let document: Value = serde_json::from_str(shown).expect("one document");
    document["process"]["pid"].as_u64().expect("a PID")
}

#[test]
fn an_ended_container_is_not_confused_with_the_next_one_of_its_number() {
    let recording = web_then_db();
    let who = |pid, name| first_pid(&recording.shown(&["pid", pid, "--in", name, "-o", "json"]));
    assert_eq!(who("7", "web"), 101);
    assert_eq!(who("1", "web"), 100, "the event of the fork comes after its start");
    assert_eq!(who("7", "db"), 201);
    assert_eq!(who("1", "db"), 200);
    let stderr = recording.refused(1, &["pid", "9", "--in", "web"]);
    assert!(stderr.contains("no process has PID 9 in namespace 4026532001"), "{stderr}");
    assert_eq!(who("7", &TWICE.to_string()), 201, "the number alone means its current namespace");
}

#[test]
fn a_message_says_which_of_several_namespaces_with_one_number_is_meant() {
    let recording = web_then_db();
    let number = TWICE.to_string();
    for args in [["7", "--in", number.as_str()], ["201", "--to", number.as_str()]] {
        let (code, _, words) = recording.run(&[&["pid"], &args[..]].concat());
        assert_eq!(code, 0, "{words}");
        let born = "this is the one born at 1970-01-01T00:17:20.000000Z; others were born at 1970-01-01T00:17:00.000000Z";
        assert!(words.contains(born) && words.contains("--at"), "{words}");
    }
    // At an earlier time the number means the other namespace.
    let args = ["pid", "7", "--in", number.as_str(), "--at", "1970-01-01T00:17:05Z"];
    let (_, shown, words) = recording.run(&args);
    assert!(shown.contains("docker/web") && !words.contains("others"), "{shown}{words}");
    // A name selects only one namespace.
    let (_, _, words) = recording.run(&["pid", "7", "--in", "db"]);
    assert!(!words.contains("others"), "{words}");
}

#[test]
fn each_level_has_its_container_even_after_the_end() {
    let recording = web_then_db();
    let table = recording.shown(&["pid", "7", "--in", "db"]);
    assert_eq!(
        table,
        "LEVEL  NAMESPACE   CONTAINER  PID\n0      4026531836  host       201\n1      4026532001  docker/db    7\n"
    );
    let dead = recording.shown(&["pid", "101"]);
    assert!(dead.contains("1      4026532001  docker/web    7"), "{dead}");
    let document: Value =
        serde_json::from_str(&recording.shown(&["pid", "101", "-o", "json"])).expect("JSON");
    assert_eq!(document["levels"][1]["container"]["name"], "web");
    assert!(document["levels"][0].get("container").is_none(), "the host is not a container");
}

#[test]
fn to_shows_one_level_and_reports_an_invisible_process() {
    let recording = web_then_db();
    let shown = recording.shown(&["pid", "7", "--in", "db", "--to", &HOST.to_string(), "--no-headers"]);
    assert_eq!(shown, "0  4026531836  host  201\n");
    let shown = recording.shown(&["pid", "201", "--to", "db", "--no-headers"]);
    assert_eq!(shown, "1  4026532001  docker/db  7\n");
    let shown = recording.shown(&["pid", "201", "--to", "202", "-o", "json"]);
    let document: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(document["levels"].as_array().map(Vec::len), Some(1), "{document}");
    assert_eq!(document["levels"][0]["pid"], 7, "a PID selects its namespace");

    let stderr = recording.refused(1, &["pid", "7", "--in", "db", "--to", "side"]);
    for part in [
        "7 in 4026532001 is 201 on the host (postgres) and in namespace 4026532001",
        "invisible in 4026532005",
    ] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    let stderr = recording.refused(1, &["pid", "201", "--to", "web"]);
    assert!(
        stderr.contains("201 (postgres) is in namespace 4026532001, but the TARGET is another namespace"),
        "{stderr}"
    );
}

#[test]
fn an_unused_number_is_reported_with_its_processes_elsewhere() {
    let recording = web_then_db();
    let stderr = recording.refused(1, &["pid", "9", "--in", "side"]);
    assert!(stderr.contains("9 is checker[202] in namespace 4026532001"), "{stderr}");
    let stderr = recording.refused(1, &["pid", "201", "--in", "db"]);
    assert!(stderr.contains("201 is the host PID of postgres, which has PID 7 there"), "{stderr}");
    let stderr = recording.refused(1, &["pid", "201", "--in", "side"]);
    assert!(stderr.contains("invisible there"), "{stderr}");
    let stderr = recording.refused(1, &["pid", "9"]);
    assert!(stderr.contains("9 is checker[202] in namespace 4026532001: use --in"), "{stderr}");
}

#[test]
fn the_container_option_shows_containers_of_processes() {
    let recording = web_then_db();
    let shown = recording.shown(&["ps", "db", "--fields", "pid,container", "--no-headers"]);
    assert_eq!(shown, "200  docker/db\n201  docker/db\n202  docker/db\n");
    let listed = |fields: &[&str]| -> Value {
        let shown = recording.shown(&[&["ps", "db", "-o", "json"], fields].concat());
        serde_json::from_str(&shown).expect("JSON")
    };
    assert_eq!(listed(&["--fields", "+container"])["processes"][0]["container"]["name"], "db");
    assert!(listed(&[])["processes"][0].get("container").is_none());
}

#[test]
fn processes_beyond_memory_are_reported_as_forgotten() {
    let recording = web_then_db();
    let stderr = recording.refused(1, &["pid", "101", "--remember", "1"]);
    assert!(
        stderr.contains("only the last 1 gone processes and namespaces are remembered")
            && stderr.contains("--remember"),
        "{stderr}"
    );
    assert_eq!(first_pid(&recording.shown(&["pid", "101", "--remember", "2", "-o", "json"])), 101);
    let stderr = recording.refused(1, &["pid", "9999"]);
    assert!(!stderr.contains("--remember"), "no process was forgotten: {stderr}");
}

#[test]
fn the_error_for_a_target_that_is_not_a_pid_names_the_right_command() {
    let recording = web_then_db();
    let stderr = recording.refused(2, &["pid", &TWICE.to_string()]);
    assert!(stderr.contains(&format!("`pidns-trace ps {TWICE}`")) && stderr.contains("--in"), "{stderr}");
    let stderr = recording.refused(2, &["pid", "web"]);
    assert!(stderr.contains("lists the processes of a container"), "{stderr}");
}

#[test]
fn an_ended_namespace_is_reported_as_ended() {
    let mut recording = RecordingBuilder::begin();
    recording.container(20, TWICE, "web", 100);
    let web = namespace(TWICE, 20, "web");
    recording.add(30, "namespace.destroy", serde_json::json!({"ns": web, "lived_ns": 1}));
    recording.end(40);
    for command in ["ps", "tree"] {
        let stderr = recording.file().refused(1, &[command, &TWICE.to_string()]);
        assert!(stderr.contains("it was gone by then, and `explain` has its history"), "{stderr}");
    }
}
