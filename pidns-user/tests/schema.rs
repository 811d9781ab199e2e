//! Tests the JSON Schemas in docs/schema. They must accept everything that the program prints about its recordings,
//! refuse anything else, and have the fields of the documentation.

mod program;
mod schemas;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use pidns_user::event::{Body, finding::Diagnosis};
use serde_json::{Deserializer, Map, Value, json};

use self::schemas::{FILES, Schema, source};

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

fn documentation(page: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The JSON values in a text, one after the other.
#[track_caller]
fn values(text: &str, place: &str) -> Vec<Value> {
    let values: Result<Vec<Value>, _> = Deserializer::from_str(text).into_iter().collect();
    let values = values.unwrap_or_else(|error| panic!("{place}: {error}"));
    assert!(!values.is_empty(), "{place} is empty");
    values
}

/// Runs the program with these arguments. Returns its JSON output.
#[track_caller]
fn printed(args: &[&str]) -> Vec<Value> {
    let output =
        Command::new(program::path()).args(args).args(["-o", "json"]).current_dir(recordings()).output();
    let output = output.expect("run the program");
    let stderr = String::from_utf8_lossy(&output.stderr);
    // `findings` exits with 1 if it has findings.
    let has_findings = args[0] == "findings" && output.status.code() == Some(1);
    assert!(output.status.success() || has_findings, "{args:?}: {}: {stderr}", output.status);
    values(&String::from_utf8(output.stdout).expect("the output is UTF-8"), &args.join(" "))
}

#[test]
fn each_file_is_a_schema() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let files = fs::read_dir(folder).expect("list docs/schema");
    let files = files.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8"));
    let files: BTreeSet<String> = files.collect();
    assert_eq!(files, FILES.iter().map(|(name, _)| format!("{name}.schema.json")).collect());
    for (name, _) in FILES {
        Schema::of(name);
        assert_eq!(source(name)["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
    }
}

#[test]
fn each_line_of_the_recordings_is_an_event() {
    let schema = Schema::of("events");
    let mut kinds = BTreeSet::new();
    for name in ["nested.ndjson", "web.ndjson", "nested/replay.json"] {
        let text = fs::read_to_string(recordings().join(name)).expect("read the recording");
        for (index, event) in values(&text, name).iter().enumerate() {
            schema.check(event, &format!("{name}:{}", index + 1));
            kinds.insert(event["event"].as_str().expect("a name").to_owned());
        }
    }
    assert!(kinds.len() >= 16, "the recordings must have most kinds of events: {kinds:?}");
}

#[test]
fn each_golden_document_matches_its_schema() {
    let mut checked = BTreeSet::new();
    for file in fs::read_dir(recordings().join("nested")).expect("list the golden files") {
        let file = file.expect("a file").path();
        let name = file.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        let Some((view, _)) = name.strip_suffix(".json").and_then(|name| name.split_once('-')) else {
            continue;
        };
        let (view, _) = FILES.iter().find(|(schema, _)| *schema == view).expect("each view has a schema");
        let text = fs::read_to_string(&file).expect("read the golden file");
        values(&text, name).iter().for_each(|value| Schema::of(view).check(value, name));
        checked.insert(*view);
    }
    assert_eq!(checked, BTreeSet::from(["explain", "pid", "ps", "tree"]));
}

/// Tests each namespace and each process of the recordings, at several points in time.
#[test]
fn each_document_of_the_recordings_matches_its_schema() {
    let [tree, ps, pid] = ["tree", "ps", "pid"].map(Schema::of);
    let [explain, findings, events] = ["explain", "findings", "events"].map(Schema::of);
    let numbers = |list: &Value, get: fn(&Value) -> &Value| -> BTreeSet<String> {
        list.as_array().expect("a list").iter().map(|line| get(line).to_string()).collect()
    };
    let mut explained = 0;
    for (recording, seconds) in [("nested.ndjson", "+2s"), ("web.ndjson", "+10s")] {
        for moment in [&["--from", recording, "--at", seconds][..], &["--from", recording]] {
            let of = |args: &[&str]| {
                let args = [args, moment].concat();
                (printed(&args), args.join(" "))
            };
            let check = |schema: &Schema, args: &[&str]| {
                let (documents, place) = of(args);
                documents.iter().for_each(|document| schema.check(document, &place));
                documents
            };
            let namespaces = check(&tree, &["tree"]);
            let processes = check(&ps, &["ps"]);
            check(&findings, &["findings"]);
            for inum in numbers(&namespaces[0]["namespaces"], |line| &line["ns"]["inum"]) {
                explained += check(&explain, &["explain", &inum]).len();
            }
            for number in numbers(&processes[0]["processes"], |line| &line["pid"]).iter().take(40) {
                explained += check(&explain, &["explain", number]).len();
                check(&pid, &["pid", number]);
            }
        }
        for event in printed(&["replay", recording, "-e", "all", "--snapshot"]) {
            events.check(&event, recording);
        }
    }
    assert!(explained > 25, "only {explained} explanations");
}

#[test]
fn each_kernels_check_matches_its_schema() {
    let schema = Schema::of("check");
    let kernels = fs::read_dir(recordings().join("../btf")).expect("list the BTF extracts");
    let kernels = kernels.map(|file| file.expect("a file").path());
    let kernels: Vec<_> = kernels.filter(|file| file.extension().is_some_and(|is| is == "btf")).collect();
    assert!(kernels.len() > 8, "{kernels:?}");
    for kernel in &kernels {
        let kernel = kernel.to_str().expect("UTF-8");
        printed(&["check", "--btf", kernel]).iter().for_each(|document| schema.check(document, kernel));
    }
}

/// The JSON pointers of all objects in a value.
fn objects(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.push(place.to_owned());
            members.iter().for_each(|(name, value)| objects(value, &format!("{place}/{name}"), found));
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(at, value)| objects(value, &format!("{place}/{at}"), found));
        }
        _ => {}
    }
}

/// Objects that count by name: their members may have any name.
const COUNTED: &[&str] = &["events", "hooks", "kernel", "lost", "states", "surprises", "swept", "untracked"];

#[test]
fn an_unknown_field_is_refused_in_every_object() {
    let mut tried = 0;
    for (schema, value) in examples() {
        let mut places = Vec::new();
        objects(&value, "", &mut places);
        let is_counted = |place: &String| COUNTED.iter().any(|name| place.ends_with(&format!("/{name}")));
        for place in places.into_iter().filter(|place| !is_counted(place)) {
            let mut changed = value.clone();
            let object = changed.pointer_mut(&place).and_then(Value::as_object_mut).expect("an object");
            object.insert("undocumented".to_owned(), json!(1));
            assert!(schema.problem(&changed).is_some(), "accepted one more field at {place:?} of {value}");
            tried += 1;
        }
    }
    assert!(tried > 100, "only {tried} objects");
}

#[test]
fn a_value_of_another_type_is_refused_everywhere() {
    let mut tried = 0;
    for (schema, value) in examples() {
        let mut places = Vec::new();
        objects(&value, "", &mut places);
        for place in places {
            let object = value.pointer(&place).and_then(Value::as_object).expect("an object");
            for name in object.keys() {
                let mut changed = value.clone();
                let member = &mut changed.pointer_mut(&place).expect("the object")[name];
                *member = if member.is_array() { json!(1.5) } else { json!([1.5]) };
                assert!(
                    schema.problem(&changed).is_some(),
                    "accepted another type at {place}/{name} of {value}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 400, "only {tried} values");
}

#[test]
fn an_event_without_a_required_field_is_refused() {
    let events = source("events");
    let schema = Schema::of("events");
    let text = fs::read_to_string(recordings().join("web.ndjson")).expect("read the recording");
    let mut tried = 0;
    for event in examples_of(&text) {
        let name = event["event"].as_str().expect("a name");
        let fields = [&events["required"], &events["$defs"][name]["required"]];
        for field in fields.iter().flat_map(|list| list.as_array().expect("a list")) {
            let field = field.as_str().expect("a name");
            let mut changed = event.clone();
            assert!(
                changed.as_object_mut().expect("an object").remove(field).is_some(),
                "{field} of {event}"
            );
            assert!(schema.problem(&changed).is_some(), "accepted {name} without {field}");
            tried += 1;
        }
    }
    assert!(tried > 80, "only {tried} fields");
}

#[test]
fn values_that_no_version_prints_are_refused() {
    let schema = Schema::of("events");
    let good = json!({"v": 1, "event": "stream.lost", "seq": 1, "time": "2026-11-29T08:00:00.000000001Z",
        "boot_ns": 5, "stage": "ring", "count": 2});
    schema.check(&good, "the unchanged event");
    for (field, value) in [
        ("v", json!(2)),
        ("event", json!("stream.found")),
        ("seq", json!(0)),
        ("time", json!("2026-11-29T08:00:00Z")),
        ("boot_ns", json!(-1)),
        ("boot_ns", json!("5")),
        ("exact", json!(true)),
        ("stage", json!("elsewhere")),
        ("count", json!(null)),
    ] {
        let mut changed = good.clone();
        changed[field] = value.clone();
        assert!(schema.problem(&changed).is_some(), "{field}: {value}");
    }
}

/// The first event of each kind in a text.
fn examples_of(text: &str) -> Vec<Value> {
    let mut kinds = BTreeSet::new();
    let events = values(text, "a recording").into_iter();
    events.filter(|event| kinds.insert(event["event"].to_string())).collect()
}

/// Valid events and documents, with their schemas.
fn examples() -> Vec<(Schema, Value)> {
    let text = fs::read_to_string(recordings().join("web.ndjson")).expect("read the recording");
    let mut examples: Vec<_> =
        examples_of(&text).into_iter().map(|event| (Schema::of("events"), event)).collect();
    for (view, name) in [
        ("tree", "tree-alive"),
        ("pid", "pid-alive"),
        ("explain", "explain-dead-init"),
        ("explain", "explain-dead-namespace"),
    ] {
        let file = recordings().join("nested").join(format!("{name}.json"));
        let text = fs::read_to_string(file).expect("read the golden file");
        examples.extend(values(&text, name).into_iter().map(|value| (Schema::of(view), value)));
    }
    examples.iter().for_each(|(schema, value)| schema.check(value, "an example"));
    examples
}

/// The names in the first column of the first table after a line with this start.
#[track_caller]
fn table(page: &str, start: &str) -> BTreeSet<String> {
    let text = documentation(page);
    let lines = text.lines().skip_while(|line| !line.starts_with(start));
    let table = lines.skip(1).skip_while(|line| !line.starts_with('|')).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).flat_map(|line| {
        let cell = line.trim_start_matches('|').split('|').next().unwrap_or_default();
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    });
    let names: BTreeSet<String> = rows.collect();
    assert!(!names.is_empty(), "{page} has no table after {start:?}");
    names
}

fn names(object: &Value) -> BTreeSet<String> {
    object.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
}

fn strings(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().expect("a list").iter();
    list.map(|value| value.as_str().expect("a string").to_owned()).collect()
}

#[test]
fn events_match_the_program_and_the_documentation() {
    let events = source("events");
    let known: BTreeSet<String> = Body::NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(strings(&events["properties"]["event"]["enum"]), known);
    let defined = events["oneOf"].as_array().expect("a list").iter();
    let defined =
        defined.map(|one| one["$ref"].as_str().expect("a reference").trim_start_matches("#/$defs/"));
    assert_eq!(defined.map(str::to_owned).collect::<BTreeSet<_>>(), known);
    let documented = table("events.md", "## The events");
    assert_eq!(documented, known);
    assert_eq!(table("events.md", "## Every event"), names(&events["properties"]));
    for name in &known {
        let mut fields = names(&events["$defs"][name]["properties"]);
        assert!(fields.remove("event"), "{name} must have the field event");
        assert_eq!(table("events.md", &format!("### {name}")), fields, "{name}");
    }
    let ids: BTreeSet<String> = Diagnosis::ALL.iter().map(|id| id.id().to_owned()).collect();
    assert_eq!(strings(&source("finding")["$defs"]["finding"]["properties"]["id"]["enum"]), ids);
}

#[test]
fn objects_have_the_documented_fields() {
    let [events, objects] = ["events", "objects"].map(source);
    let of = |file: &Value, name: &str| names(&file["$defs"][name]["properties"]);
    for (start, fields) in [
        ("**process**", of(&objects, "process")),
        ("**ns**", of(&objects, "namespace")),
        ("**container**", of(&objects, "container")),
        ("<a id=\"model\"></a>**model**", of(&events, "model")),
        ("<a id=\"limit\"></a>**limit**", of(&objects, "limit")),
    ] {
        assert_eq!(table("events.md", start), fields, "{start}");
    }
    for (start, values) in [
        (
            "| kind of `surprises` |",
            &events["$defs"]["model"]["properties"]["surprises"]["propertyNames"]["enum"],
        ),
        ("<a id=\"fate\"></a>", &events["$defs"]["signal_fate"]["enum"]),
    ] {
        let documented = match start.strip_prefix('|') {
            Some(_) => table_at("events.md", "", start),
            None => table("events.md", start),
        };
        assert_eq!(documented, strings(values), "{start}");
    }
    for (event, values) in [("namespace.create_failed", "create_reason"), ("fork.failed", "fork_reason")] {
        let documented = table_at("events.md", &format!("### {event}"), "| `reason` | meaning |");
        assert_eq!(documented, strings(&events["$defs"][values]["enum"]), "{event}");
    }
}

/// The same for the table with this heading, after a line with this start.
#[track_caller]
fn table_at(page: &str, start: &str, heading: &str) -> BTreeSet<String> {
    let text = documentation(page);
    let lines = text.lines().skip_while(|line| !line.starts_with(start));
    let table = lines.skip_while(|line| !line.starts_with(heading)).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    let names = rows.flat_map(|line| {
        let cell = line.trim_start_matches('|').split('|').next().unwrap_or_default();
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    });
    names.collect()
}

#[test]
fn documents_have_the_documented_fields() {
    let [objects, explain] = ["objects", "explain"].map(source);
    let [tree, ps] = ["tree", "ps"].map(source);
    let of = |object: &Value| names(&object["properties"]);
    let process = of(&objects["$defs"]["snapshot_process"]);
    // A process in a snapshot also has these fields of an event's process.
    let common = of(&objects["$defs"]["process"]);
    let more: BTreeSet<_> = table("snapshots.md", "**process** has");
    assert_eq!(&common | &more, process);
    assert_eq!(table("snapshots.md", "**unread**"), of(&objects["$defs"]["unread"]));
    assert_eq!(table("snapshots.md", "## tree"), of(&tree["$defs"]["line"]));
    let line = of(&ps["$defs"]["line"]);
    assert_eq!(&table("snapshots.md", "## ps") | &process, line);
    assert_eq!(table("snapshots.md", "**namespace**:"), of(&explain["$defs"]["namespace"]));
    assert_eq!(table("snapshots.md", "**process**:"), of(&explain["$defs"]["process"]));
    assert_eq!(table("snapshots.md", "**history**"), of(&explain["$defs"]["history"]));
}

#[test]
fn every_object_is_closed_and_every_field_has_a_type() {
    /// Checks all subschemas of a schema.
    fn walk(schema: &Map<String, Value>, place: &str) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            let is_part = place.starts_with("events/$defs/") && place.matches('/').count() == 2;
            let is_closed = ["additionalProperties", "unevaluatedProperties"]
                .iter()
                .any(|keyword| schema.get(*keyword) == Some(&json!(false)));
            assert!(is_closed || is_part, "{place} accepts any field");
            for required in schema.get("required").map(strings).unwrap_or_default() {
                let is_of_all = place == "explain" && ["namespace", "process"].contains(&&*required);
                assert!(properties.contains_key(&required) || is_of_all, "{place} requires {required}");
            }
            for (name, property) in properties {
                let says =
                    ["$ref", "type", "const", "enum", "oneOf"].iter().any(|it| property.get(*it).is_some());
                assert!(says, "{place}: {name} accepts anything");
            }
        }
        for (name, value) in schema {
            match value {
                Value::Object(inner) => walk(inner, &format!("{place}/{name}")),
                Value::Array(list) => {
                    for inner in list.iter().filter_map(Value::as_object) {
                        walk(inner, &format!("{place}/{name}"));
                    }
                }
                _ => {}
            }
        }
    }
    for (name, _) in FILES {
        walk(source(name).as_object().expect("an object"), name);
    }
}
