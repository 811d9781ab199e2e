//! `findings` of a recording, for a container that has ended by its end.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::program;

/// A recording of Podman's container `web`, which was killed.
const WEB: &str = "tests/recordings/web.ndjson";

fn found(target: &str) -> Vec<String> {
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join(WEB);
    let mut command = Command::new(program::path());
    command.args(["findings", target, "-o", "json", "--from"]).arg(recording);
    let output = command.output().expect("run the program");
    let text = String::from_utf8(output.stdout).expect("text");
    let document: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let findings = document["findings"].as_array().expect("findings");
    findings.iter().map(|finding| finding["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn an_ended_container_is_found_by_its_name_and_its_number() {
    let expected = ["init-ignored-signal", "init-killed"].map(str::to_owned);
    assert_eq!(found("web"), expected);
    assert_eq!(found("4026532182"), expected);
}
