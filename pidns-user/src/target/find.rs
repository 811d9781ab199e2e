//! What a TARGET stands for in a snapshot, taken here and now or of a recording.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use crate::{
    event::container::{Called, Container},
    event::identity::{HostPid, NamespaceKey, NsInum},
    event::snapshot::{Snapshot, SnapshotNamespace, SnapshotProcess, SnapshotSource},
    model::Forest,
    target::{self, NotFound, ParsedTarget, TargetError, scope::Scope},
    text::Count,
};

/// What a TARGET names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The namespace of this inode number, if there is one.
    Namespace(NsInum),
    /// The process of this PID on the host, if there is one.
    Process(HostPid),
    /// A container, by the namespace that it is in.
    Container(NsInum),
    /// A container without a PID namespace of its own: its processes share that of others.
    Sharing(Found),
    /// A pod: its containers.
    Pod(Vec<Found>),
    /// A container that is gone, by the namespace that it was in, whose number may be another's by now.
    GoneContainer(NamespaceKey),
}

/// A container, and where its processes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The namespace.
    pub(crate) ns: NsInum,
    /// The container.
    pub(crate) container: Arc<Container>,
    /// Whether the namespace's PID 1 runs in it. Else it shares a namespace.
    pub(crate) is_home: bool,
}

/// What a TARGET names. Of a recording a container may be meant that is gone, with its namespace: these are `gone`, the last
/// to go first.
pub(crate) fn name(
    target: &str,
    snapshot: &Snapshot,
    gone: &[SnapshotNamespace],
) -> Result<Target, TargetError> {
    let refused = |error| refusal(target, error, snapshot);
    match ParsedTarget::of(target).map_err(refused)? {
        ParsedTarget::Namespace(inum) => Ok(Target::Namespace(inum)),
        ParsedTarget::Pid(pid) => Ok(Target::Process(pid)),
        ParsedTarget::Name("") => Err(refused(NotFound::Meaningless("these are no words".to_owned()))),
        ParsedTarget::Name(name) => match container(name, snapshot, gone)? {
            Some(found) => Ok(found),
            // The name of a file in this folder.
            None if snapshot.source != SnapshotSource::Recording && is_file(name) => {
                look_up(target, snapshot).map(Target::Namespace)
            }
            None => Err(no_container(name, snapshot)),
        },
        ParsedTarget::Path(_) => look_up(target, snapshot).map(Target::Namespace),
    }
}

/// All that a TARGET stands for, which exists: of a pod each of its containers, and of a container that shares a namespace its
/// own processes alone.
pub(crate) fn scope(target: &str, snapshot: &Snapshot, forest: &Forest<'_>) -> Result<Scope, TargetError> {
    let found = match name(target, snapshot, &[])? {
        Target::Sharing(found) => vec![found],
        Target::Pod(found) => found,
        other => return namespace_of(target, other, snapshot, forest).map(Scope::of_namespace),
    };
    let mut scope = Scope::default();
    for Found { ns, container, is_home } in &found {
        if *is_home {
            scope.whole.push(*ns);
        } else {
            let is_of_it = |process: &&SnapshotProcess| {
                process.ns == Some(*ns)
                    && process.container.as_ref().is_some_and(|own| own.is_same(container))
            };
            scope.members.extend(snapshot.processes.iter().filter(is_of_it).map(|process| process.pid));
        }
    }
    Ok(scope)
}

/// The namespace that a TARGET stands for, which exists.
pub(crate) fn namespace(
    target: &str,
    snapshot: &Snapshot,
    forest: &Forest<'_>,
) -> Result<NsInum, TargetError> {
    namespace_of(target, name(target, snapshot, &[])?, snapshot, forest)
}

/// The one namespace of a pod's containers, if they share one.
pub(crate) fn one_namespace(target: &str, found: &[Found]) -> Result<NsInum, TargetError> {
    let namespaces: BTreeSet<NsInum> = found.iter().map(|found| found.ns).collect();
    match (namespaces.first(), namespaces.len()) {
        (Some(&inum), 1) => Ok(inum),
        _ => Err(TargetError::Usage(format!(
            "{target:?} is a pod of several containers, each with its own PID namespace: give the number of one, or its \
             name: {}",
            listed(found)
        ))),
    }
}

fn namespace_of(
    target: &str,
    named: Target,
    snapshot: &Snapshot,
    forest: &Forest<'_>,
) -> Result<NsInum, TargetError> {
    let inum = match named {
        Target::Sharing(found) => found.ns,
        Target::Pod(found) => one_namespace(target, &found)?,
        Target::Namespace(inum)
        | Target::Container(inum)
        | Target::GoneContainer(NamespaceKey { inum, .. }) => inum,
        Target::Process(pid) => match (forest.process(pid), snapshot.source) {
            (Some(process), SnapshotSource::Recording) => {
                process.ns.ok_or_else(|| no_process(pid, snapshot))?
            }
            (None, SnapshotSource::Recording) => return Err(no_process(pid, snapshot)),
            // A thread has a namespace too.
            (found, _) => match found.and_then(|process| process.ns) {
                Some(ns) => ns,
                None => look_up(target, snapshot)?,
            },
        },
    };
    match forest.node(inum) {
        Some(_) => Ok(inum),
        None => Err(no_namespace(inum, snapshot)),
    }
}

/// Why nothing is told of a namespace of this number.
pub(crate) fn no_namespace(inum: NsInum, snapshot: &Snapshot) -> TargetError {
    TargetError::NoMatch(match snapshot.source {
        SnapshotSource::Recording => {
            format!("{inum}: there was no such namespace then, as far as the recording tells")
        }
        SnapshotSource::Iterator | SnapshotSource::Proc => format!(
            "{inum}: no PID namespace {inum} with a process, or held by anything, is seen; `pidns-trace tree` lists \
             those that are{}",
            match snapshot.unread.namespaces {
                0 => String::new(),
                unread => format!(
                    ". It may be that of {}, of which that may not be read: run it with sudo",
                    Count(unread, "process", "processes")
                ),
            }
        ),
    })
}

/// Whether a TARGET that is a namespace's number is that of one that is gone.
pub(crate) fn was_there(target: &str, gone: &[SnapshotNamespace]) -> bool {
    matches!(ParsedTarget::of(target), Ok(ParsedTarget::Namespace(inum)) if gone.iter().any(|ns| ns.inum == inum))
}

/// Why nothing is told of a process of this PID.
pub(crate) fn no_process(pid: HostPid, snapshot: &Snapshot) -> TargetError {
    if snapshot.source == SnapshotSource::Recording {
        return TargetError::NoMatch(format!(
            "no process had the PID {pid} there, as far as the recording tells (it has no numbers of threads)"
        ));
    }
    TargetError::NoMatch(format!(
        "there is no process of PID {pid}, and no thread; a PID as a container sees it takes `pid {pid} --in TARGET`"
    ))
}

/// The namespace that words stand for which only this machine can tell the meaning of.
fn look_up(target: &str, snapshot: &Snapshot) -> Result<NsInum, TargetError> {
    let found = match snapshot.source {
        SnapshotSource::Recording => {
            Err(NotFound::Meaningless("this names nothing in the recording".to_owned()))
        }
        SnapshotSource::Iterator | SnapshotSource::Proc => target::look_up_namespace(target),
    };
    found.map_err(|error| refusal(target, error, snapshot))
}

fn refusal(target: &str, error: NotFound, snapshot: &Snapshot) -> TargetError {
    match error {
        NotFound::Nothing(words) => TargetError::NoMatch(format!("{target}: {words}")),
        NotFound::Unreadable(words) => TargetError::Usage(format!("{target}: {words}")),
        NotFound::Meaningless(words) => {
            TargetError::Usage(format!("{target:?}: {words}: a TARGET is {}", forms(snapshot)))
        }
    }
}

fn forms(snapshot: &Snapshot) -> &'static str {
    match snapshot.source {
        SnapshotSource::Recording => target::RECORDED_FORMS,
        SnapshotSource::Iterator | SnapshotSource::Proc => target::FORMS,
    }
}

/// Whether there is such a file; paths that begin with / or . are told from names by that.
fn is_file(name: &str) -> bool {
    name.contains('/') && Path::new(name).symlink_metadata().is_ok()
}

/// The container that is called so, or was: `None` where none is. What somebody is called goes before what an id begins with,
/// of those that are gone too. Who may make a cgroup may call it what he likes: that takes no name from a container that a
/// runtime vouches for, or did.
fn container(
    words: &str,
    snapshot: &Snapshot,
    gone: &[SnapshotNamespace],
) -> Result<Option<Target>, TargetError> {
    for how in [Called::So, Called::ByPod, Called::Beginning] {
        for is_vouched in [true, false] {
            let is_it = |container: &Container| {
                container.is_vouched() == is_vouched && container.called(words) == Some(how)
            };
            if let Some(living) = living_container(words, how, is_it, snapshot)? {
                return Ok(Some(living));
            }
            if let Some(gone) = gone_container(is_it, gone) {
                return Ok(Some(gone));
            }
        }
    }
    Ok(None)
}

fn living_container(
    words: &str,
    how: Called,
    is_it: impl Fn(&Container) -> bool,
    snapshot: &Snapshot,
) -> Result<Option<Target>, TargetError> {
    let home = |(ns, container): (NsInum, &Arc<Container>)| Found {
        ns,
        container: Arc::clone(container),
        is_home: true,
    };
    let mut called: Vec<Found> = snapshot
        .containers()
        .filter(|(_, container)| is_it(container))
        .filter(|&(inum, container)| !is_within_its_own(inum, container, snapshot))
        .map(home)
        .collect();
    for (ns, container) in snapshot.sharing_containers().filter(|(_, container)| is_it(container)) {
        // Whoever was sent into another namespace by a container that has its own is still that one's.
        if !called.iter().any(|known| known.container.is_same(container)) {
            called.push(Found { ns, container: Arc::clone(container), is_home: false });
        }
    }
    let pods: BTreeSet<_> = called.iter().map(|found| found.container.pod_label()).collect();
    match &*called {
        [] => Ok(None),
        [Found { ns, is_home: true, .. }] => Ok(Some(Target::Container(*ns))),
        [found] => Ok(Some(Target::Sharing(found.clone()))),
        _ if how == Called::ByPod && pods.len() == 1 => Ok(Some(Target::Pod(called))),
        _ => Err(TargetError::Usage(format!(
            "{words:?} is the name of several: give the number of one: {}",
            listed(&called)
        ))),
    }
}

/// "4026532178 (docker/web, id 0123…)", for each.
fn listed(found: &[Found]) -> String {
    let line = |Found { ns, container, is_home: _ }: &Found| {
        let id = container.id.as_ref();
        let id = id.map(|id| format!(", id {}", id.for_terminal())).unwrap_or_default();
        format!("{ns} ({}{id})", container.label().for_terminal())
    };
    found.iter().map(line).collect::<Vec<_>>().join(", ")
}

/// The container that was called so and was the last to go.
fn gone_container(is_it: impl Fn(&Container) -> bool, gone: &[SnapshotNamespace]) -> Option<Target> {
    let called = |ns: &&SnapshotNamespace| ns.container.as_ref().is_some_and(|container| is_it(container));
    let last = gone.iter().find(called)?;
    // One that was made in a container has its cgroup too.
    let its_own = gone.iter().filter(|ns| ns.container == last.container).min_by_key(|ns| ns.level);
    its_own.map(|ns| Target::GoneContainer(ns.key()))
}

/// Whether a namespace further out is the same container's: one that was made in a container has its cgroup too.
fn is_within_its_own(inum: NsInum, container: &Container, snapshot: &Snapshot) -> bool {
    let mut next = snapshot.namespaces.get(&inum);
    while let Some(below) = next {
        // A parent that is no level further up would be a circle.
        next = below.parent.and_then(|parent| snapshot.namespaces.get(&parent));
        next = next.filter(|parent| parent.level < below.level);
        if next.and_then(|parent| parent.container.as_ref()).is_some_and(|outer| {
            container.id.is_some() && outer.id == container.id && outer.runtime == container.runtime
        }) {
            return true;
        }
    }
    false
}

/// The containers that there are, some of them.
pub(crate) fn those_there(snapshot: &Snapshot) -> String {
    const NAMED: usize = 5;
    let all = snapshot.containers().chain(snapshot.sharing_containers());
    let labels = all.map(|(_, container)| container.label().for_terminal().to_string());
    let labels: BTreeSet<String> = labels.collect();
    let named: Vec<&str> = labels.iter().take(NAMED).map(String::as_str).collect();
    match (named.is_empty(), labels.len() - named.len()) {
        (true, _) => "no container was found".to_owned(),
        (false, 0) => format!("there are {}", named.join(", ")),
        (false, more) => format!("there are {} and {more} more", named.join(", ")),
    }
}

/// Why nobody is found by this name, with some of those that are there, for who has misspelt one.
fn no_container(name: &str, snapshot: &Snapshot) -> TargetError {
    let found = those_there(snapshot);
    let known = match snapshot.source {
        SnapshotSource::Recording => ", as far as the recording tells",
        SnapshotSource::Iterator | SnapshotSource::Proc => "",
    };
    TargetError::NoMatch(format!(
        "no container is called {name:?}{known}: {found}. A TARGET is {}",
        forms(snapshot)
    ))
}

#[cfg(test)]
mod tests {
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

    /// A container with a namespace of its own making in it, and another of the same name.
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
            for words in ["web", "docker/web", "c0ff"] {
                assert_eq!(name(words, &snapshot, &[]).unwrap(), Target::Container(WEB), "{words}");
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
        let ns = snapshot.namespaces.get_mut(&OTHER).expect("it is there");
        ns.container = Some(Arc::new(impostor));
        assert_eq!(name("web", &snapshot, &[]).unwrap(), Target::Container(WEB));
        assert_eq!(name("beef", &snapshot, &[]).unwrap(), Target::Container(OTHER), "its id is its own");
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
            "not the impostor that lives"
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
        assert_eq!(name("db", &snapshot, &gone).unwrap(), found, "not the one within it");
        assert_eq!(name("web", &snapshot, &gone).unwrap(), Target::Container(WEB));
        assert!(matches!(name("nobody", &snapshot, &gone), Err(TargetError::NoMatch(_))));
    }

    #[test]
    fn a_name_goes_before_the_beginning_of_an_id() {
        let mut snapshot = snapshot(SnapshotSource::Recording);
        const DB: NsInum = NsInum(4026532009);
        const NEXT: NsInum = NsInum(DB.0 + 1);
        let db =
            SnapshotNamespace { container: Some(container("ab", "db")), ..SnapshotNamespace::bare(DB, 1) };
        let other = SnapshotNamespace {
            container: Some(container(&"db".repeat(32), "x")),
            ..SnapshotNamespace::bare(NEXT, 1)
        };
        snapshot.namespaces.insert(NEXT, other.clone());
        assert_eq!(name("db", &snapshot, &[]).unwrap(), Target::Container(NEXT), "it begins an id");
        let gone = Target::GoneContainer(NamespaceKey { inum: DB, born: None });
        assert_eq!(name("db", &snapshot, &[other, db.clone()]).unwrap(), gone, "and was a name");
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
        for words in ["side", "docker/side", "51de51"] {
            assert_eq!(name(words, &snapshot, &[]).unwrap(), Target::Sharing(found.clone()), "{words}");
        }
        let forest = Forest::new(&snapshot);
        let of = |words: &str| {
            let scope = scope(words, &snapshot, &forest).unwrap();
            let processes = scope.processes(&snapshot, &forest);
            (scope.roots(&forest), processes.iter().map(|process| process.pid.0).collect::<Vec<_>>())
        };
        assert_eq!(of("side"), (vec![WEB], vec![8]));
        assert_eq!(of("web"), (vec![WEB], vec![7, 8]), "who shares its namespace is in it");
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
            snapshot.namespaces.get_mut(&inum).expect("it is there").container = container;
        };
        put(WEB, of_pod("a", "app", "default"));
        put(IN_WEB, None);
        put(OTHER, of_pod("b", "sidecar", "default"));
        let forest = Forest::new(&snapshot);
        for words in ["api", "default/api", "k8s default/api"] {
            let scope = scope(words, &snapshot, &forest).unwrap();
            assert_eq!(scope.roots(&forest), [WEB, OTHER], "{words}");
            let error = namespace(words, &snapshot, &forest).unwrap_err();
            assert!(matches!(error, TargetError::Usage(_)), "{error}");
            for label in ["k8s default/api/app", "k8s default/api/sidecar"] {
                assert!(error.to_string().contains(label), "{label}: {error}");
            }
        }
        assert_eq!(namespace("default/api/app", &snapshot, &forest).unwrap(), WEB);
        let mut two = snapshot.clone();
        two.namespaces.get_mut(&OTHER).expect("it is there").container = of_pod("b", "app", "test");
        let error = name("api", &two, &[]).unwrap_err();
        assert!(matches!(error, TargetError::Usage(_)), "of two pods: {error}");
    }

    #[test]
    fn what_several_are_called_is_refused_with_the_list() {
        let error = name("c", &snapshot(SnapshotSource::Recording), &[]).unwrap_err();
        assert!(matches!(error, TargetError::Usage(_)));
        let words = error.to_string();
        for part in [WEB.to_string(), OTHER.to_string(), format!("docker/web, id {}", "c0ff".repeat(16))] {
            assert!(words.contains(&part), "{part}: {words}");
        }
        assert!(!words.contains(&IN_WEB.to_string()), "{words}");
    }

    #[test]
    fn what_does_not_exist_is_1_and_what_means_nothing_is_2() {
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
            ("8", 1, "as far as the recording tells"),
            ("4026539999", 1, "as far as the recording tells"),
            ("nobody", 1, "as far as the recording tells: there are docker/job, docker/web. A TARGET is"),
            ("default/nobody", 1, "no container is called \"default/nobody\""),
            ("", 2, "a TARGET is"),
            ("/proc/self/ns/pid", 2, "names nothing in the recording"),
            ("pid:[3]", 2, "small"),
        ] {
            let (code, words) = code(target, &recorded);
            assert!(code == expected && words.contains(part), "{target}: {code}: {words}");
        }
        let (_, words) = code("pid:[3]", &live);
        assert!(!words.contains("container was"), "none was looked for: {words}");
        let (misspelt, words) = code("docker/wbe", &live);
        assert!(misspelt == 1 && words.contains("docker/web") && !words.contains("No such file"), "{words}");
        assert_eq!(code("4194303", &live).0, 1);
        assert_eq!(code("4026539999", &live).0, 1);
        assert_eq!(code("nobody", &live).0, 1);
    }
}
