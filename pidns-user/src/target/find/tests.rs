use std::collections::BTreeMap;

use super::*;
use crate::{event::container::Runtime, event::identity::BootNs, event::snapshot::Unread, text::Name};

const HOST: NsInum = NsInum(4026531836);
const WEB: NsInum = NsInum(4026532001);
const IN_WEB: NsInum = NsInum(4026532002);
const OTHER: NsInum = NsInum(4026532003);

fn container(id: &str, name: &str) -> Arc<Container> {
    let (id, name) = (Some(Name::from(id)), Some(Name::from(name)));
    Arc::new(Container { runtime: Some(Runtime::Docker), id, name, ..Container::default() })
}

/// The host, container `web` with a namespace that it created itself, and container `job`.
fn snapshot(source: SnapshotSource) -> Snapshot {
    let ns = |inum, level, parent, container| {
        (inum, SnapshotNamespace { parent, container, ..SnapshotNamespace::bare(inum, level) })
    };
    let web = container(&"c0ff".repeat(16), "web");
    Snapshot {
        source,
        boot_ns: BootNs(0),
        processes: vec![SnapshotProcess {
            pid: HostPid(7),
            pids: vec![7, 1],
            comm: Some(Name::from("x")),
            start_boot_ns: Some(BootNs(1)),
            ppid: None,
            uid: Some(0),
            ns: Some(WEB),
            state: None,
            threads: None,
            ..SnapshotProcess::bare(HostPid(7))
        }],
        namespaces: BTreeMap::from([
            ns(HOST, 0, None, None),
            ns(WEB, 1, Some(HOST), Some(Arc::clone(&web))),
            ns(IN_WEB, 2, Some(WEB), Some(web)),
            ns(OTHER, 1, Some(HOST), Some(container(&"cafe".repeat(16), "job"))),
        ]),
        holders: Vec::new(),
        holders_left_out: BTreeMap::new(),
        unnamed: Vec::new(),
        unread: Unread::default(),
    }
}

#[test]
fn a_container_is_found_by_its_name_and_its_own_namespaces_do_not_make_it_two() {
    for source in [SnapshotSource::Iterator, SnapshotSource::Recording] {
        let snapshot = snapshot(source);
        for text in ["web", "docker/web", "c0ff"] {
            assert_eq!(name(text, &snapshot, &[]).unwrap(), Target::Container(WEB), "{text}");
        }
        assert_eq!(name("7", &snapshot, &[]).unwrap(), Target::Process(HostPid(7)));
        let forest = Forest::new(&snapshot);
        assert_eq!(namespace("7", &snapshot, &forest).unwrap(), WEB);
        assert_eq!(namespace("job", &snapshot, &forest).unwrap(), OTHER);
    }
}

#[test]
fn a_cgroup_that_is_called_like_a_container_does_not_make_its_name_ambiguous() {
    let mut snapshot = snapshot(SnapshotSource::Iterator);
    let impostor = Container { by_cgroup_alone: true, ..(*container(&"beef".repeat(16), "web")).clone() };
    let ns = snapshot.namespaces.get_mut(&OTHER).expect("the snapshot has it");
    ns.container = Some(Arc::new(impostor));
    assert_eq!(name("web", &snapshot, &[]).unwrap(), Target::Container(WEB));
    assert_eq!(name("beef", &snapshot, &[]).unwrap(), Target::Container(OTHER), "its id is not ambiguous");
    snapshot.namespaces.remove(&WEB);
    snapshot.namespaces.remove(&IN_WEB);
    let gone = [SnapshotNamespace {
        container: Some(container(&"c0ff".repeat(16), "web")),
        ..SnapshotNamespace::bare(WEB, 1)
    }];
    let found = name("web", &snapshot, &gone).unwrap();
    assert_eq!(
        found,
        Target::GoneContainer(NamespaceKey { inum: WEB, born: None }),
        "not the existing cgroup with the same name"
    );
}

#[test]
fn a_container_that_is_gone_is_found_by_its_name_where_none_of_that_name_exists() {
    let snapshot = snapshot(SnapshotSource::Recording);
    let was = |inum, level, name| SnapshotNamespace {
        born_boot_ns: Some(BootNs(5)),
        container: Some(container("dead", name)),
        ..SnapshotNamespace::bare(inum, level)
    };
    let gone = [was(NsInum(9), 2, "db"), was(NsInum(8), 1, "db"), was(NsInum(7), 1, "web")];
    let found = Target::GoneContainer(NamespaceKey { inum: NsInum(8), born: Some(BootNs(5)) });
    assert_eq!(name("db", &snapshot, &gone).unwrap(), found, "not the nested namespace");
    assert_eq!(name("web", &snapshot, &gone).unwrap(), Target::Container(WEB));
    assert!(matches!(name("nobody", &snapshot, &gone), Err(TargetError::NoMatch(_))));
}

#[test]
fn a_name_goes_before_the_beginning_of_an_id() {
    let mut snapshot = snapshot(SnapshotSource::Recording);
    const DB: NsInum = NsInum(4026532009);
    const NEXT: NsInum = NsInum(DB.0 + 1);
    let db = SnapshotNamespace { container: Some(container("ab", "db")), ..SnapshotNamespace::bare(DB, 1) };
    let other = SnapshotNamespace {
        container: Some(container(&"db".repeat(32), "x")),
        ..SnapshotNamespace::bare(NEXT, 1)
    };
    snapshot.namespaces.insert(NEXT, other.clone());
    assert_eq!(name("db", &snapshot, &[]).unwrap(), Target::Container(NEXT), "the beginning of an id");
    let gone = Target::GoneContainer(NamespaceKey { inum: DB, born: None });
    assert_eq!(
        name("db", &snapshot, &[other, db.clone()]).unwrap(),
        gone,
        "the name of a container that is gone"
    );
    snapshot.namespaces.insert(DB, db);
    assert_eq!(name("db", &snapshot, &[]).unwrap(), Target::Container(DB));
}

#[test]
fn a_container_that_shares_a_namespace_is_found_with_its_own_processes() {
    let mut snapshot = snapshot(SnapshotSource::Iterator);
    let side = container(&"51de".repeat(16), "side");
    let shares = SnapshotProcess {
        pid: HostPid(8),
        pids: vec![8, 2],
        container: Some(Arc::clone(&side)),
        ..snapshot.processes[0].clone()
    };
    snapshot.processes.push(shares);
    let found = Found { ns: WEB, container: side, is_home: false };
    for text in ["side", "docker/side", "51de51"] {
        assert_eq!(name(text, &snapshot, &[]).unwrap(), Target::Sharing(found.clone()), "{text}");
    }
    let forest = Forest::new(&snapshot);
    let of = |text: &str| {
        let scope = scope(text, &snapshot, &forest).unwrap();
        let processes = scope.processes(&snapshot, &forest);
        (scope.roots(&forest), processes.iter().map(|process| process.pid.0).collect::<Vec<_>>())
    };
    assert_eq!(of("side"), (vec![WEB], vec![8]));
    assert_eq!(of("web"), (vec![WEB], vec![7, 8]), "all processes of its namespace");
    assert_eq!(namespace("side", &snapshot, &forest).unwrap(), WEB);
}

#[test]
fn a_pod_is_all_of_its_containers_and_which_one_is_asked_where_one_is_needed() {
    let mut snapshot = snapshot(SnapshotSource::Iterator);
    let of_pod = |id: &str, name: &str, pod_namespace: &str| {
        Some(Arc::new(Container {
            pod: Some(Name::from("api")),
            pod_namespace: Some(Name::from(pod_namespace)),
            ..(*container(id, name)).clone()
        }))
    };
    let mut put = |inum, container| {
        snapshot.namespaces.get_mut(&inum).expect("the snapshot has it").container = container;
    };
    put(WEB, of_pod("a", "app", "default"));
    put(IN_WEB, None);
    put(OTHER, of_pod("b", "sidecar", "default"));
    let forest = Forest::new(&snapshot);
    for text in ["api", "default/api", "k8s default/api"] {
        let scope = scope(text, &snapshot, &forest).unwrap();
        assert_eq!(scope.roots(&forest), [WEB, OTHER], "{text}");
        let error = namespace(text, &snapshot, &forest).unwrap_err();
        assert!(matches!(error, TargetError::Usage(_)), "{error}");
        for label in ["k8s default/api/app", "k8s default/api/sidecar"] {
            assert!(error.to_string().contains(label), "{label}: {error}");
        }
    }
    assert_eq!(namespace("default/api/app", &snapshot, &forest).unwrap(), WEB);
    let mut two = snapshot.clone();
    two.namespaces.get_mut(&OTHER).expect("the snapshot has it").container = of_pod("b", "app", "test");
    let error = name("api", &two, &[]).unwrap_err();
    assert!(matches!(error, TargetError::Usage(_)), "two pods have this name: {error}");
}

#[test]
fn an_ambiguous_name_is_refused_with_the_list() {
    let error = name("c", &snapshot(SnapshotSource::Recording), &[]).unwrap_err();
    assert!(matches!(error, TargetError::Usage(_)));
    let text = error.to_string();
    for part in [WEB.to_string(), OTHER.to_string(), format!("docker/web, id {}", "c0ff".repeat(16))] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    assert!(!text.contains(&IN_WEB.to_string()), "{text}");
}

#[test]
fn missing_targets_exit_with_1_and_bad_ones_with_2() {
    let (live, recorded) = (snapshot(SnapshotSource::Iterator), snapshot(SnapshotSource::Recording));
    let code = |target: &str, snapshot: &Snapshot| {
        let error = namespace(target, snapshot, &Forest::new(snapshot)).unwrap_err();
        let code = match error {
            TargetError::NoMatch(_) => 1,
            TargetError::Usage(_) => 2,
        };
        (code, error.to_string())
    };
    for (target, expected, part) in [
        ("8", 1, "as far as the recording shows"),
        ("4026539999", 1, "as far as the recording shows"),
        ("nobody", 1, "as far as the recording shows: there are docker/job, docker/web. A TARGET is"),
        ("default/nobody", 1, "no container is called \"default/nobody\""),
        ("", 2, "a TARGET is"),
        ("/proc/self/ns/pid", 2, "names nothing in the recording"),
        ("pid:[3]", 2, "small"),
    ] {
        let (code, text) = code(target, &recorded);
        assert!(code == expected && text.contains(part), "{target}: {code}: {text}");
    }
    let (_, text) = code("pid:[3]", &live);
    assert!(!text.contains("container was"), "this can be no container: {text}");
    let (misspelt, text) = code("docker/wbe", &live);
    assert!(misspelt == 1 && text.contains("docker/web") && !text.contains("No such file"), "{text}");
    assert_eq!(code("4194303", &live).0, 1);
    assert_eq!(code("4026539999", &live).0, 1);
    assert_eq!(code("nobody", &live).0, 1);
}
