//! The containers in the paths of cgroups: those of every runtime, and junk.

use std::fs;

use pidns_user::container::cgroup::{Layer, Place, parse};
use pidns_user::container::{ContainerCache, Roots};
use pidns_user::event::container::Container;
use pidns_user::event::identity::{BootNs, HostPid, ProcessKey};
use pidns_user::text::Name;
use proptest::prelude::*;

const CORPUS: &str = include_str!("cgroups/corpus.txt");

fn id(letter: char) -> String {
    letter.to_string().repeat(64)
}

/// `$A` and its like in full.
fn in_full(text: &str) -> String {
    ['A', 'B', 'C'].iter().fold(text.to_owned(), |text, &letter| {
        text.replace(&format!("${letter}"), &id(letter.to_ascii_lowercase()))
    })
}

fn show(name: &Name) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

/// All that was found, as text.
fn summary(place: Option<&Place>) -> String {
    let Some(place) = place else { return "nothing".to_owned() };
    let mut parts = Vec::new();
    let mut add =
        |key: &str, value: Option<String>| parts.extend(value.map(|value| format!("{key}={value}")));
    let runtime = |layer: &Layer| layer.runtime.map(|runtime| runtime.name().to_owned());
    let innermost = place.innermost();
    if let Some(layer) = innermost {
        let Layer { runtime: _, id, runtime_namespace, pod, user: _, path: _ } = layer;
        add("runtime", runtime(layer));
        add("id", Some(show(id)));
        add("namespace", runtime_namespace.as_ref().map(show));
        add("pod", pod.as_ref().map(|pod| show(&pod.uid)));
        let qos = pod.as_ref().and_then(|pod| pod.qos);
        add("qos", qos.map(|qos| format!("{qos:?}").to_lowercase()));
    }
    let Place { containers, unit, user, candidates, around: _ } = place;
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
        let [expected] = expected[..] else { panic!("one expectation, not {expected:?}: {block}") };
        assert_eq!(origin.len() + text.len() + 1, lines().count(), "a line of no kind: {block}");
        let found = summary(parse(in_full(&text.join("\n")).as_bytes()).as_ref());
        if found != in_full(expected) {
            wrong += &format!("\n{block}\nfound: {found}\n");
        }
        blocks += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(blocks > 50, "{blocks} blocks: is the corpus whole?");
}

#[test]
fn the_line_with_most_containers_is_believed() {
    let (a, b) = (id('a'), id('b'));
    let hybrid =
        format!("5:cpu:/docker/{a}/docker/{b}\n1:name=systemd:/docker/{a}\n0::/system.slice/x.service\n");
    let place = parse(hybrid.as_bytes()).expect("a place");
    assert_eq!(summary(Some(&place)), format!("runtime=docker id={b} outer=docker/{a}"));
}

#[test]
fn the_depth_of_nested_containers_is_bounded() {
    let path: String = (0..1000).map(|level| format!("/lxc.payload.{level}")).collect();
    let place = parse(format!("0::{path}\n").as_bytes()).expect("a place");
    assert_eq!(place.containers.len(), 8);
    assert_eq!(place.innermost().map(|layer| show(&layer.id)), Some("999".to_owned()));
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    let place = parse(b"0::/lxc.payload.\xff\x1b[31m\n").expect("a place");
    assert_eq!(place.innermost().map(|layer| layer.id.as_bytes()), Some(&b"\xff\x1b[31m"[..]));
    let place = parse(b"0::/machine.slice/machine-\\xff\\x2f..\\x2fx.scope\n").expect("a place");
    assert_eq!(place.innermost().map(|layer| layer.id.as_bytes()), Some(&b"\xff/../x"[..]));
}

#[test]
fn lines_without_a_hierarchy_are_ignored() {
    for text in ["", "\n", ":", "::", "0::", "0::docker", "0:/docker/x", "::::/", "docker", "0::/\n1:cpu:/\n"]
    {
        assert_eq!(summary(parse(text.as_bytes()).as_ref()), "nothing", "{text:?}");
    }
}

/// A path of the greatest length, of any bytes that the kernel takes in one.
fn junk_of_greatest_length(begin: &str) -> Vec<u8> {
    let bytes = (1..=u8::MAX).filter(|&byte| byte != b'\n' && byte != b'/').cycle();
    begin.bytes().chain(bytes).take(4096).collect()
}

#[test]
fn a_path_of_junk_of_the_greatest_length_does_no_harm() {
    let base = tempfile::tempdir().expect("a temporary directory");
    let folder = base.path().join("proc/7");
    fs::create_dir_all(&folder).expect("a folder");
    let stat = format!("7 (x) S {}500 1 2 3\n", "0 ".repeat(18));
    fs::write(folder.join("stat"), stat).expect("a file");
    for begin in ["", "lxc.payload.", "machine.slice/machine-", "a.service/"] {
        let path = junk_of_greatest_length(begin);
        let text = [b"0::/", &path[..], b"\n"].concat();
        let place = parse(&text).expect("a place");
        fs::write(folder.join("cgroup"), &text).expect("a file");
        let mut names = ContainerCache::new(Roots::below(base.path()));
        let found = names.find(ProcessKey::new(HostPid(7), BootNs(5_000_000_000)));
        assert_eq!(found.is_some(), !place.containers.is_empty() || place.unit.is_some(), "{begin}");
        let Some(found) = found else { continue };
        assert!(found.label().as_bytes().len() <= 131, "{begin}");
        let shown = found.label().for_terminal().to_string();
        assert!(shown.chars().all(|shown| !shown.is_control()), "{shown:?}");
        let json = serde_json::to_string(&*found).expect("JSON");
        assert!(json.len() < 64 << 10 && !json.contains('\n'), "{} bytes", json.len());
        let read: Container = serde_json::from_str(&json).expect("what was written");
        assert_eq!((&read.id, &read.name, read.runtime), (&found.id, &found.name, found.runtime));
    }
}

/// Folders that mean something, and others that nearly do.
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
    fn junk_is_survived(
        hierarchy in prop::sample::select(vec!["0::/", "1:name=systemd:/", "4:memory:/", ""]),
        junk in prop::collection::vec(any::<u8>(), 0..4096),
    ) {
        let text = [hierarchy.as_bytes(), &junk].concat();
        let line = junk.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let is_folder = !hierarchy.is_empty() && line.iter().any(|byte| !b"/.".contains(byte));
        if let Some(place) = parse(&text) {
            prop_assert!(place.containers.len() <= 8 && place.candidates.len() <= 4);
        } else {
            // What is no container and no unit may be a candidate: it is no result only if it is empty.
            prop_assert!(!is_folder, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_path_of_junk_keeps_every_bound(folders in prop::collection::vec(folder(), 0..200), order in 0u8..3) {
        let mut text = [&b"0::"[..], b"1:name=systemd:", b"7:cpu:"][usize::from(order)].to_vec();
        for folder in &folders {
            text.push(b'/');
            text.extend_from_slice(folder);
        }
        if let Some(place) = parse(&text) {
            prop_assert!(place.containers.len() <= 8);
            prop_assert!(place.candidates.len() <= 4);
            prop_assert!(place.around.len() <= 4);
            prop_assert!(place.containers.is_empty() || place.candidates.is_empty());
            prop_assert!(!place.containers.is_empty() || place.around.is_empty());
            for layer in &place.containers {
                prop_assert!(!layer.id.as_bytes().is_empty());
                let path = &layer.path;
                prop_assert!(text.windows(path.len()).any(|part| part == path), "its path is a part of the text");
            }
        }
    }

    #[test]
    fn cgroups_below_that_of_a_container_are_in_it(folders in prop::collection::vec("[a-z]{1,8}", 0..20)) {
        prop_assume!(!folders.iter().any(|folder| folder == "conmon" || folder == "lxc"));
        let own = format!("0::/system.slice/docker-{}.scope", id('a'));
        let below: String = folders.iter().map(|folder| format!("/{folder}")).collect();
        let place = parse(format!("{own}{below}").as_bytes()).expect("a place");
        prop_assert_eq!(place.containers.len(), 1);
        prop_assert_eq!(&place.containers[0].path, &own.as_bytes()[3..]);
    }
}
