//! Tests with file systems whose server does not answer. pidns-trace must never wait for such a server.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::actor_handle::{Actor, patience};
use crate::facts::Who;
use crate::forest::{output, still};
use crate::probes;
use crate::{Test, test};

pub(crate) const TESTS: &[Test] =
    &[test!(no_command_waits_for_the_server_of_a_foreign_mount, needs probes::fuse)];

/// Runs pidns-trace. It must not take long.
fn quickly(args: &[&str]) -> (String, String) {
    let began = Instant::now();
    let printed = output(args, 0);
    let took = began.elapsed();
    assert!(took < patience(10), "{args:?} took {took:?}");
    printed
}

fn no_command_waits_for_the_server_of_a_foreign_mount() {
    let mut actor = still("still-behind-a-hanging-server");
    let (shown, bound): (Who, Who) = (actor.hear("shown"), actor.hear("bound"));
    let (place, mount_ns): (String, u64) = (actor.hear("place"), actor.hear("mount namespace"));

    let (stdout, stderr) = quickly(&["tree", "-o", "json"]);
    let tree: Value = serde_json::from_str(&stdout).expect("one document");
    let unnamed = tree["unnamed_proc_mounts"].as_array().expect("a list");
    let proc = unnamed.iter().find(|mount| mount["mount_ns"] == mount_ns).expect("the mounted proc");
    assert_eq!(
        (&proc["path"], &proc["why"]),
        (&format!("{place}/folder").into(), &"behind_server".into()),
        "{tree:#}"
    );
    assert_eq!(tree["unread"]["behind_server"], 1, "{tree:#}");
    for part in ["1 mounted namespace was not opened", "1 mounted proc was not read", &place] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    let all = tree["namespaces"].as_array().expect("namespaces");
    let line = all.iter().find(|line| line["ns"]["inum"] == bound.ns).expect("find the bound namespace");
    assert_eq!(line["holders"][0]["path"], format!("{place}/file"), "{line:#}");

    let target = shown.ns.to_string();
    for args in [
        &["explain", &target][..],
        &["explain", &bound.ns.to_string()],
        &["ps", &target],
        &["pid", "1", "--in", &target],
    ] {
        quickly(args);
    }
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let recording = directory.path().join("recording");
    let recording = recording.to_str().expect("UTF-8");
    quickly(&["record", recording, "--duration", "1s"]);
    let recorded = fs::read_to_string(recording).expect("read the recording");
    assert!(recorded.contains(&format!("{place}/file")), "{recorded}");
    quickly(&["--snapshot", "--duration", "1s"]);

    actor.listen(Duration::from_millis(100));
    // When a descriptor of the mount is closed, the kernel makes requests itself, for which no process waits.
    let unanswered: Vec<u32> = actor.all_heard("unanswered");
    assert!(unanswered.is_empty(), "a process waits for these requests: {unanswered:?}");
    let_go(actor);
}

fn let_go(mut actor: Actor) {
    actor.go();
    actor.finish();
}
