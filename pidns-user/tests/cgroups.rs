//! Finds the containers in paths of cgroups, for every runtime and for junk.

use std::fs;

use pidns_user::container::cgroup::{Layer, ParsedCgroup, parse};
use pidns_user::container::{ContainerCache, Roots};
use pidns_user::event::container::Container;
use pidns_user::event::identity::{BootNs, HostPid, ProcessKey};
use pidns_user::text::Name;
use proptest::prelude::*;

const CORPUS: &str = include_str!("cgroups/corpus.txt");

fn id(letter: char) -> String {
    letter.to_string().repeat(64)
}

/// Replaces `$A`, `$B` and `$C` with full ids.
fn in_full(text: &str) -> String {
    ['A', 'B', 'C'].iter().fold(text.to_owned(), |text, &letter| {
        text.replace(&format!("${letter}"), &id(letter.to_ascii_lowercase()))
    })
}

fn show(name: &Name) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

/// Writes all that was found as text.
fn summary(parsed: Option<&ParsedCgroup>) -> String {
    let Some(parsed) = parsed else { return "nothing".to_owned() };
    let mut parts = Vec::new();
    let mut add =
        |key: &str, value: Option<String>| parts.extend(value.map(|value| format!("{key}={value}")));
    let runtime = |layer: &Layer| layer.runtime.map(|runtime| runtime.name().to_owned());
    let innermost = parsed.innermost();
    if let Some(layer) = innermost {
        let Layer { runtime: _, id, runtime_namespace, pod, user: _, path: _ } = layer;
        add("runtime", runtime(layer));
        add("id", Some(show(id)));
        add("namespace", runtime_namespace.as_ref().map(show));
        add("pod", pod.as_ref().map(|pod| show(&pod.uid)));
        let qos = pod.as_ref().and_then(|pod| pod.qos);
        add("qos", qos.map(|qos| format!("{qos:?}").to_lowercase()));
    }
    let ParsedCgroup { containers, unit, user, candidates, around: _ } = parsed;
    add("unit", unit.as_ref().map(show));
    match innermost {
        Some(layer) => {
            add("user", layer.user.map(|uid| uid.to_string()));
            add("inner_user", user.map(|uid| uid.to_string()));
        }
        None => add("user", user.map(|uid| uid.to_string())),
    }
    let outer: Vec<String> = containers
        .iter()
        .take(containers.len().saturating_sub(1))
        .map(|layer| format!("{}/{}", runtime(layer).unwrap_or_default(), show(&layer.id)))
        .collect();
    add("outer", (!outer.is_empty()).then(|| outer.join(",")));
    let candidates: Vec<String> = candidates
        .iter()
        .map(|candidate| {
            let parent = candidate.parent.as_ref().map_or_else(|| "-".to_owned(), show);
            format!("{}@{parent}", show(&candidate.id))
        })
        .collect();
    add("candidates", (!candidates.is_empty()).then(|| candidates.join(",")));
    parts.join(" ")
}

#[test]
fn every_path_of_the_corpus_gives_its_expected_containers() {
    let mut blocks = 0;
    let mut wrong = String::new();
    for block in CORPUS.split("\n\n") {
        let lines = || block.lines();
        let origin: Vec<&str> = lines().filter(|line| line.starts_with('#')).collect();
        let text: Vec<&str> = lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).collect();
        let expected: Vec<&str> = lines().filter_map(|line| line.strip_prefix("= ")).collect();
        assert!(!origin.is_empty(), "no origin: {block}");
        let [expected] = expected[..] else { panic!("expected one expectation, not {expected:?}: {block}") };
        assert_eq!(origin.len() + text.len() + 1, lines().count(), "an unknown kind of line: {block}");
        let found = summary(parse(in_full(&text.join("\n")).as_bytes()).as_ref());
        if found != in_full(expected) {
            wrong += &format!("\n{block}\nfound: {found}\n");
        }
        blocks += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(blocks > 50, "only {blocks} blocks: is the corpus complete?");
}

#[test]
fn the_line_with_most_containers_is_used() {
    let (a, b) = (id('a'), id('b'));
    let hybrid =
        format!("5:cpu:/docker/{a}/docker/{b}\n1:name=systemd:/docker/{a}\n0::/system.slice/x.service\n");
    let parsed = parse(hybrid.as_bytes()).expect("a container, unit or candidate");
    assert_eq!(summary(Some(&parsed)), format!("runtime=docker id={b} outer=docker/{a}"));
}

#[test]
fn the_depth_of_nested_containers_is_bounded() {
    let path: String = (0..1000).map(|level| format!("/lxc.payload.{level}")).collect();
    let parsed = parse(format!("0::{path}\n").as_bytes()).expect("a container, unit or candidate");
    assert_eq!(parsed.containers.len(), 8);
    assert_eq!(parsed.innermost().map(|layer| show(&layer.id)), Some("999".to_owned()));
}

#[test]
fn non_text_bytes_are_kept() {
    let parsed = parse(b"0::/lxc.payload.\xff\x1b[31m\n").expect("a container, unit or candidate");
    assert_eq!(parsed.innermost().map(|layer| layer.id.as_bytes()), Some(&b"\xff\x1b[31m"[..]));
    let parsed = parse(b"0::/machine.slice/machine-\\xff\\x2f..\\x2fx.scope\n")
        .expect("a container, unit or candidate");
    assert_eq!(parsed.innermost().map(|layer| layer.id.as_bytes()), Some(&b"\xff/../x"[..]));
}

#[test]
fn lines_without_a_hierarchy_are_ignored() {
    for text in ["", "\n", ":", "::", "0::", "0::docker", "0:/docker/x", "::::/", "docker", "0::/\n1:cpu:/\n"]
    {
        assert_eq!(summary(parse(text.as_bytes()).as_ref()), "nothing", "{text:?}");
    }
}

/// A path of the maximum length, with all bytes that the kernel allows.
fn junk_of_greatest_length(begin: &str) -> Vec<u8> {
    let bytes = (1..=u8::MAX).filter(|&byte| byte != b'\n' && byte != b'/').cycle();
    begin.bytes().chain(bytes).take(4096).collect()
}

#[test]
fn a_junk_path_of_maximum_length_does_no_harm() {
    let base = tempfile::tempdir().expect("create a temporary directory");
    let folder = base.path().join("proc/7");
    fs::create_dir_all(&folder).expect("create the directory");
    let stat = format!("7 (x) S {}500 1 2 3\n", "0 ".repeat(18));
    fs::write(folder.join("stat"), stat).expect("write the file");
    for begin in ["", "lxc.payload.", "machine.slice/machine-", "a.service/"] {
        let path = junk_of_greatest_length(begin);
        let text = [b"0::/", &path[..], b"\n"].concat();
        let parsed = parse(&text).expect("a container, unit or candidate");
        fs::write(folder.join("cgroup"), &text).expect("write the file");
        let mut cache = ContainerCache::new(Roots::below(base.path()));
        let found = cache.find(ProcessKey::new(HostPid(7), BootNs(5_000_000_000)));
        assert_eq!(found.is_some(), !parsed.containers.is_empty() || parsed.unit.is_some(), "{begin}");
        let Some(found) = found else { continue };
        assert!(found.label().as_bytes().len() <= 131, "{begin}");
        let shown = found.label().for_terminal().to_string();
        assert!(shown.chars().all(|shown| !shown.is_control()), "{shown:?}");
        let json = serde_json::to_string(&*found).expect("JSON");
        assert!(json.len() < 64 << 10 && !json.contains('\n'), "{} bytes", json.len());
        let read: Container = serde_json::from_str(&json).expect("read the written JSON");
        assert_eq!((&read.id, &read.name, read.runtime), (&found.id, &found.name, found.runtime));
    }
}

/// Directory names with a meaning, and others that look similar.
fn folder() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "docker",
        "kubepods",
        "burstable",
        "lxc",
        "lxc.payload",
        "machine.slice",
        "supervisor",
        "conmon",
        "..",
        "default",
        "pod2b801b7a-5266-4386-864e-45ed71136371",
        "user-1000.slice",
        "user@1000.service",
        "init.scope",
        "a.service",
        "kubepods-pod2b801b7a_5266_4386_864e_45ed71136371.slice",
        "machine-a\\x2db.scope",
        "machine-\\x.scope",
        "docker-.scope",
        "-.slice",
        ".scope",
        "_.service",
        "systemd-nspawn@.service",
        "x.slice:docker:",
        "::",
        "user-.slice",
    ]);
    let with_id = prop::sample::select(vec![
        "docker-$A.scope",
        "cri-containerd-$A.scope",
        "libpod-$A",
        "libpod-conmon-$A.scope",
        "$A",
        "crio-$A",
        "a.slice:cri-containerd:$A",
        "libpod_pod_$A",
        "machine-libpod_pod_$A.slice",
    ]);
    prop_oneof![
        known.prop_map(|text| text.as_bytes().to_vec()),
        with_id.prop_map(|text| in_full(text).into_bytes()),
        prop::collection::vec(any::<u8>(), 0..80),
    ]
}

proptest! {
    #[test]
    fn junk_causes_no_panic(
        hierarchy in prop::sample::select(vec!["0::/", "1:name=systemd:/", "4:memory:/", ""]),
        junk in prop::collection::vec(any::<u8>(), 0..4096),
    ) {
        let text = [hierarchy.as_bytes(), &junk].concat();
        let line = junk.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let is_folder = !hierarchy.is_empty() && line.iter().any(|byte| !b"/.".contains(byte));
        if let Some(parsed) = parse(&text) {
            prop_assert!(parsed.containers.len() <= 8 && parsed.candidates.len() <= 4);
        } else {
            // A path without container and unit may still be a candidate. There is no result only if it is empty.
            prop_assert!(!is_folder, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_junk_path_keeps_every_bound(folders in prop::collection::vec(folder(), 0..200), order in 0u8..3) {
        let mut text = [&b"0::"[..], b"1:name=systemd:", b"7:cpu:"][usize::from(order)].to_vec();
        for folder in &folders {
            text.push(b'/');
            text.extend_from_slice(folder);
        }
        if let Some(parsed) = parse(&text) {
            prop_assert!(parsed.containers.len() <= 8);
            prop_assert!(parsed.candidates.len() <= 4);
            prop_assert!(parsed.around.len() <= 4);
            prop_assert!(parsed.containers.is_empty() || parsed.candidates.is_empty());
            prop_assert!(!parsed.containers.is_empty() || parsed.around.is_empty());
            for layer in &parsed.containers {
                prop_assert!(!layer.id.as_bytes().is_empty());
                let path = &layer.path;
                prop_assert!(text.windows(path.len()).any(|part| part == path), "the path must be a part of the text");
            }
        }
    }

    #[test]
    fn cgroups_below_a_container_belong_to_it(folders in prop::collection::vec("[a-z]{1,8}", 0..20)) {
        prop_assume!(!folders.iter().any(|folder| folder == "conmon" || folder == "lxc"));
        let own = format!("0::/system.slice/docker-{}.scope", id('a'));
        let below: String = folders.iter().map(|folder| format!("/{folder}")).collect();
        let parsed = parse(format!("{own}{below}").as_bytes()).expect("a container, unit or candidate");
        prop_assert_eq!(parsed.containers.len(), 1);
        prop_assert_eq!(&parsed.containers[0].path, &own.as_bytes()[3..]);
    }
}
