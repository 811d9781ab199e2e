//! Containers from the files of their runtimes, written here as each runtime writes them, below a folder of
//! the test's own.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use pidns_user::{
    container::{Api, Container, Names, Process, Roots, Runtime},
    text::Name,
};
use serde_json::{Value, json};

/// A machine's folders, with a proc file system of made-up processes.
struct World {
    base: tempfile::TempDir,
}

const INIT: Process = Process { pid: 4711, start_boot_ns: 5_000_000_000 };
/// INIT's start in clock ticks, as the runtimes write it.
const START: u64 = 500;

fn id() -> String {
    "0123456789abcdef".repeat(4)
}

impl World {
    fn new() -> Self {
        Self { base: tempfile::tempdir().expect("a temporary directory") }
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.base.path().join(path.replace("$ID", &id()));
        fs::create_dir_all(path.parent().expect("it is below the base")).expect("a folder");
        path
    }

    fn write(&self, path: &str, contents: &Value) -> &Self {
        fs::write(self.path(path), contents.to_string()).expect("a file");
        self
    }

    fn process(&self, pid: u32, start_ticks: u64, cgroup: &str) -> Process {
        let zeros = "0 ".repeat(18);
        fs::write(self.path(&format!("proc/{pid}/stat")), format!("{pid} (a) S {zeros}{start_ticks} 0\n"))
            .expect("a file");
        let cgroup = format!("0::{}\n", cgroup.replace("$ID", &id()));
        fs::write(self.path(&format!("proc/{pid}/cgroup")), cgroup).expect("a file");
        Process { pid, start_boot_ns: start_ticks * 10_000_000 }
    }

    fn runc(&self, folder: &str, labels: &[&str]) -> &Self {
        let state = json!({
            "id": folder, "init_process_pid": INIT.pid, "init_process_start": START,
            "config": {"rootfs": "/x", "labels": labels},
        });
        self.write(&format!("{folder}/state.json"), &state)
    }

    fn names(&self) -> Names {
        Names::new(Roots::below(self.base.path()))
    }

    /// The container of INIT in this cgroup.
    fn container(&self, cgroup: &str) -> Option<Arc<Container>> {
        of(&mut self.names(), INIT, cgroup)
    }

    #[track_caller]
    fn expect(&self, cgroup: &str, expected: Value) {
        let found = self.container(cgroup).expect("a container");
        let doubts = &found.doubts;
        assert_eq!(serde_json::to_value(&*found).expect("JSON"), expected, "doubts: {doubts:#?}");
        assert_eq!(doubts, &Vec::<String>::new());
    }

    /// INIT's container has no name, and this is why.
    #[track_caller]
    fn expect_doubt(&self, cgroup: &str, words: &str) {
        let found = self.container(cgroup).expect("the cgroup alone tells of a container");
        assert_eq!(found.id, Some(Name::from(&*id())));
        assert_eq!(found.name, None, "doubts: {:#?}", found.doubts);
        assert!(found.doubts.iter().any(|doubt| doubt.contains(words)), "{words}: {:#?}", found.doubts);
    }
}

fn of(names: &mut Names, process: Process, cgroup: &str) -> Option<Arc<Container>> {
    names.of(process, format!("0::{}\n", cgroup.replace("$ID", &id())).as_bytes())
}

const DOCKER: &str = "/system.slice/docker-$ID.scope";

fn docker(world: &World) -> &World {
    world.runc("run/docker/runtime-runc/moby/$ID", &["bundle=/x"]);
    docker_config(world, "var/lib/docker/containers/$ID/config.v2.json", INIT.pid)
}

fn docker_config<'a>(world: &'a World, file: &str, pid: u32) -> &'a World {
    let config = json!({
        "ID": id(), "Name": "/web", "Image": "sha256:01", "State": {"Running": true, "Pid": pid},
        "Config": {"Image": "registry.example/web:2", "Labels": {"a": "b"}},
    });
    world.write(file, &config)
}

#[test]
fn docker_tells_name_and_image() {
    let world = World::new();
    docker(&world);
    let expected = json!({"runtime": "docker", "id": id(), "name": "web", "image": "registry.example/web:2"});
    world.expect(DOCKER, expected.clone());
    world.expect("/batch/$ID", expected);
}

#[test]
fn docker_below_kubernetes_tells_the_pod() {
    let world = World::new();
    world.runc("run/docker/runtime-runc/moby/$ID", &[]);
    let config = json!({
        "Name": "/k8s_api_api-7f_default_2b801b7a_0", "State": {"Pid": INIT.pid},
        "Config": {"Image": "sha256:01", "Labels": {
            "io.kubernetes.container.name": "api", "io.kubernetes.pod.name": "api-7f",
            "io.kubernetes.pod.namespace": "default",
        }},
    });
    world.write("var/lib/docker/containers/$ID/config.v2.json", &config);
    world.expect(
        "/kubepods/burstable/pod2b801b7a-5266-4386-864e-45ed71136371/$ID",
        json!({
            "runtime": "docker", "id": id(), "name": "api", "image": "sha256:01", "pod": "api-7f",
            "pod_namespace": "default", "pod_uid": "2b801b7a-5266-4386-864e-45ed71136371", "qos": "burstable",
        }),
    );
}

#[test]
fn an_image_that_calls_itself_a_pod_is_none() {
    let labels = json!({
        "io.kubernetes.container.name": "coredns", "io.kubernetes.pod.name": "coredns",
        "io.kubernetes.pod.namespace": "kube-system", "nerdctl/name": "coredns",
    });
    let world = World::new();
    docker(&world);
    let config = json!({
        "Name": "/web", "State": {"Pid": INIT.pid}, "Config": {"Image": "evil:1", "Labels": labels},
    });
    world.write("var/lib/docker/containers/$ID/config.v2.json", &config);
    world.expect(DOCKER, json!({"runtime": "docker", "id": id(), "name": "web", "image": "evil:1"}));

    let world = World::new();
    let said = ["io.container.manager=libpod", "io.kubernetes.pod.name=coredns", "nerdctl/name=coredns"];
    world.runc("run/runc/$ID", &said);
    let config = json!({"annotations": labels});
    world.write("run/containers/storage/overlay-containers/$ID/userdata/config.json", &config);
    world.write("var/lib/containers/storage/overlay-containers/containers.json", &stored("job"));
    world.expect(
        "/machine.slice/libpod-$ID.scope",
        json!({"runtime": "podman", "id": id(), "name": "job", "image": "localhost/web:2"}),
    );

    let world = World::new();
    let body = json!({
        "Name": "/web", "State": {"Pid": INIT.pid}, "Config": {"Image": "evil:1", "Labels": labels},
        "ApiVersion": "1.41",
    });
    server(&world.path("run/docker.sock"), "200 OK", body.to_string());
    let roots = Roots::below(world.base.path());
    let mut names = Names::asking(roots.clone(), Api::new(&roots).expect("a thread"));
    let found = of(&mut names, INIT, DOCKER).expect("a container");
    assert_eq!((&found.name, &found.pod), (&Some(Name::from("web")), &None), "{:?}", found.doubts);
}

#[test]
fn containerd_tells_of_kubernetes_by_annotations_alone() {
    let world = World::new();
    let labels = [
        "io.kubernetes.cri.container-type=container",
        "io.kubernetes.cri.container-name=api",
        "io.kubernetes.cri.image-name=registry.example/api:2",
        "io.kubernetes.cri.sandbox-name=api-7f",
        "io.kubernetes.cri.sandbox-namespace=default",
        "no pair",
    ];
    world.runc("run/containerd/runc/k8s.io/$ID", &labels);
    let expected = json!({
        "runtime": "containerd", "id": id(), "name": "api", "image": "registry.example/api:2", "pod": "api-7f",
        "pod_namespace": "default", "pod_uid": "2b801b7a-5266-4386-864e-45ed71136371", "qos": "besteffort",
        "runtime_namespace": "k8s.io",
    });
    world.expect("/kubepods/besteffort/pod2b801b7a-5266-4386-864e-45ed71136371/$ID", expected.clone());
    world.expect(
        "/kubepods.slice/kubepods-besteffort.slice/\
         kubepods-besteffort-pod2b801b7a_5266_4386_864e_45ed71136371.slice/cri-containerd-$ID.scope",
        expected,
    );
}

#[test]
fn an_id_that_a_user_chose_is_a_container_only_if_a_runtime_says_so() {
    let world = World::new();
    assert_eq!(world.container("/default/web"), None);
    world.runc("run/containerd/runc/default/web", &["nerdctl/name=front"]);
    let expected =
        json!({"runtime": "containerd", "id": "web", "name": "front", "runtime_namespace": "default"});
    world.expect("/default/web", expected.clone());
    world.expect("/default/web/a/b", expected);
    assert_eq!(world.container("/other/web"), None, "another namespace of containerd");

    world.runc("run/runc/job", &["org.opencontainers.image.ref.name=1.2"]);
    world.expect("/job", json!({"runtime": "runc", "id": "job", "image": "1.2"}));
    world.expect("/system.slice/runc-job.scope", json!({"runtime": "runc", "id": "job", "image": "1.2"}));
}

#[test]
fn a_container_without_runc_and_crun_is_known_by_its_shim() {
    let world = World::new();
    let bundle = "run/containerd/io.containerd.runtime.v2.task/default/$ID";
    world.write(&format!("{bundle}/config.json"), &json!({"annotations": {"nerdctl/name": "kata"}}));
    world.expect_doubt("/system.slice/nerdctl-$ID.scope", "it names no process");
    fs::write(world.path(&format!("{bundle}/init.pid")), INIT.pid.to_string()).expect("a file");
    world.expect(
        "/system.slice/nerdctl-$ID.scope",
        json!({"runtime": "containerd", "id": id(), "name": "kata", "runtime_namespace": "default"}),
    );
}

fn stored(name: &str) -> Value {
    let metadata = json!({"image-name": "localhost/web:2", "name": name}).to_string();
    json!([{"id": "other", "names": ["no"]}, {"id": id(), "names": [name], "metadata": metadata}])
}

#[test]
fn podman_tells_name_and_image_from_its_list() {
    let world = World::new();
    world.runc("run/runc/$ID", &["io.container.manager=libpod"]);
    world.write("var/lib/containers/storage/overlay-containers/containers.json", &stored("job"));
    let expected = json!({"runtime": "podman", "id": id(), "name": "job", "image": "localhost/web:2"});
    world.expect("/machine.slice/libpod-$ID.scope/container", expected.clone());
    world.expect("/libpod_parent/libpod-$ID", expected.clone());
    world.expect("/batch/$ID", expected);
}

#[test]
fn rootless_podman_is_looked_for_in_its_users_folder() {
    let world = World::new();
    let status = json!({"pid": INIT.pid, "process-start-time": START, "bundle": "/x"});
    world.write("run/user/1000/crun/$ID/status", &status);
    let config = json!({"annotations": {"io.container.manager": "libpod"}});
    world.write("run/user/1000/crun/$ID/config.json", &config);
    world.write("run/user/1000/containers/overlay-containers/volatile-containers.json", &stored("mine"));
    let cgroup = |uid: u32| {
        format!("/user.slice/user-{uid}.slice/user@{uid}.service/user.slice/libpod-$ID.scope/container")
    };
    world.expect(
        &cgroup(1000),
        json!({"runtime": "podman", "id": id(), "name": "mine", "image": "localhost/web:2", "user": 1000}),
    );
    world.expect_doubt(&cgroup(1001), "no runtime's files tell of");
}

/// The cgroup of a container of a user's rootless Docker.
const ROOTLESS: &str = "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-$ID.scope";

#[test]
fn a_users_folder_costs_no_more_than_a_look_may() {
    let world = World::new();
    for (runtime, namespace) in (0..20).flat_map(|runtime| (0..20).map(move |namespace| (runtime, namespace)))
    {
        let file = world.path(&format!("run/user/1000/docker/runtime-{runtime}/{namespace}/$ID/state.json"));
        fs::File::create(file).and_then(|file| file.set_len(3 << 20)).expect("a sparse file");
    }
    let found = world.container(ROOTLESS).expect("what its cgroup claims");
    assert!(found.doubts.len() <= 17, "{} doubts", found.doubts.len());
    assert!(
        found.doubts.iter().any(|doubt| doubt.contains("the rest was not looked at")),
        "{:#?}",
        found.doubts
    );
    assert!(found.doubts.iter().all(|doubt| doubt.len() < 600));
}

#[test]
fn what_a_user_may_have_made_of_a_folder_is_not_followed() {
    for link in ["run/user/1000/docker", "run/user/1000/docker/data", "run/containerd/runc/default"] {
        let world = World::new();
        let elsewhere = world.path("elsewhere/x");
        let elsewhere = elsewhere.parent().expect("a folder");
        let [runc, name] = ["runtime-runc/moby/$ID", "containers/$ID/config.v2.json"];
        let cgroup = if link.contains("containerd") { "/default/$ID" } else { ROOTLESS };
        if link.ends_with("docker") {
            world.runc(&format!("elsewhere/{runc}"), &[]);
            docker_config(&world, &format!("elsewhere/data/{name}"), INIT.pid);
        } else if link.ends_with("data") {
            world.runc(&format!("run/user/1000/docker/{runc}"), &[]);
            docker_config(&world, &format!("elsewhere/{name}"), INIT.pid);
        } else {
            world.runc("elsewhere/$ID", &["nerdctl/name=web"]);
        }
        symlink(elsewhere, world.path(link)).expect("a link");
        world.expect_doubt(cgroup, "symbolic link");
    }
}

#[test]
fn crio_tells_of_kubernetes() {
    let world = World::new();
    world.write("run/crun/$ID/status", &json!({"pid": INIT.pid, "process-start-time": START}));
    let config = json!({"annotations": {
        "io.container.manager": "cri-o", "io.kubernetes.container.name": "api",
        "io.kubernetes.pod.name": "api-7f", "io.kubernetes.pod.namespace": "default",
    }});
    world.write("run/containers/storage/overlay-containers/$ID/userdata/config.json", &config);
    let metadata = json!({"image-name": "registry.example/api:2", "metadata-name": "api"}).to_string();
    let list = json!([{"id": id(), "names": ["k8s_api_api-7f_default_0"], "metadata": metadata}]);
    world.write("var/lib/containers/storage/overlay-containers/containers.json", &list);
    world.expect(
        "/kubepods.slice/kubepods-pod2b801b7a_5266_4386_864e_45ed71136371.slice/crio-$ID.scope/container",
        json!({
            "runtime": "crio", "id": id(), "name": "api", "image": "registry.example/api:2", "pod": "api-7f",
            "pod_namespace": "default", "pod_uid": "2b801b7a-5266-4386-864e-45ed71136371", "qos": "guaranteed",
        }),
    );
}

#[test]
fn what_the_path_alone_tells_needs_no_file() {
    let world = World::new();
    world.expect(
        "/lxc.payload.web",
        json!({"runtime": "lxc", "id": "web", "name": "web", "by_cgroup_alone": true}),
    );
    world.expect(
        "/machine.slice/machine-box.scope/payload/system.slice/cron.service",
        json!({"runtime": "nspawn", "id": "box", "name": "box", "unit": "cron.service",
            "by_cgroup_alone": true}),
    );
    world.expect(
        "/user.slice/user-7.slice/user@7.service/app.slice/a.service",
        json!({"runtime": "systemd", "name": "a.service", "unit": "a.service", "user": 7, "by_cgroup_alone": true}),
    );
    assert_eq!(world.container("/"), None);
}

#[test]
fn the_container_around_is_kept() {
    let world = World::new();
    let inner = world.container("/lxc.payload.ci/docker/$ID").expect("a container");
    assert_eq!((inner.runtime, inner.id.clone()), (Some(Runtime::Docker), Some(Name::from(&*id()))));
    let outer = inner.outer.as_ref().expect("the one around");
    assert_eq!((outer.runtime, outer.name.clone()), (Some(Runtime::Lxc), Some(Name::from("ci"))));
}

#[test]
fn the_first_process_of_a_container_cannot_take_another_name_by_a_cgroup_of_its_own() {
    let world = World::new();
    docker(&world);
    world.runc("run/containerd/runc/default/mine", &["nerdctl/name=mine"]);
    let other = "fedcba9876543210".repeat(4);
    for (outer, name) in [(DOCKER, "web"), ("/default/mine", "mine")] {
        for inner in ["/lxc.payload.db".to_owned(), format!("/docker/{other}"), format!("/libpod-{other}")] {
            let found = world.container(&format!("{outer}{inner}")).expect("a container");
            assert_eq!(found.name, Some(Name::from(name)), "{outer}{inner}: {:?}", found.doubts);
            assert!(found.is_vouched() && found.outer.is_none());
            assert!(
                found.doubts.iter().any(|doubt| doubt.contains("named like another")),
                "{:?}",
                found.doubts
            );
        }
    }
    // Another process may be in a container within.
    world.process(INIT.pid, START, DOCKER);
    let inner = format!("{DOCKER}/lxc.payload.db");
    let member = world.process(4800, 900, &inner);
    let found = of(&mut world.names(), member, &inner).expect("a container");
    assert_eq!((&found.name, found.is_vouched()), (&Some(Name::from("db")), false));
}

#[test]
fn a_file_about_another_process_is_not_believed() {
    let world = World::new();
    docker(&world);
    let later = Process { start_boot_ns: INIT.start_boot_ns + 10_000_000, ..INIT };
    let found = of(&mut world.names(), later, DOCKER).expect("the cgroup alone tells");
    assert_eq!(found.name, None);
    assert!(found.doubts[0].contains("it is about another process of PID 4711"), "{:?}", found.doubts);
}

#[test]
fn a_daemon_that_names_another_process_is_not_believed() {
    let world = World::new();
    docker(&world);
    docker_config(&world, "var/lib/docker/containers/$ID/config.v2.json", 4712);
    world.expect_doubt(DOCKER, "docker takes PID 4712 for its first process, and not 4711");
}

#[test]
fn a_daemon_that_has_not_written_down_the_pid_yet_is_believed() {
    let world = World::new();
    docker(&world);
    docker_config(&world, "var/lib/docker/containers/$ID/config.v2.json", 0);
    assert_eq!(world.container(DOCKER).and_then(|found| found.name.clone()), Some(Name::from("web")));
}

#[test]
fn other_processes_share_the_name_while_the_first_lives_in_the_same_cgroup() {
    let world = World::new();
    docker(&world);
    world.process(INIT.pid, START, DOCKER);
    let member = world.process(4800, 900, DOCKER);
    let mut names = world.names();
    let of_member = of(&mut names, member, DOCKER).expect("a container");
    assert_eq!(of_member.name, Some(Name::from("web")), "{:?}", of_member.doubts);
    let of_init = of(&mut names, INIT, DOCKER).expect("a container");
    assert!(Arc::ptr_eq(&of_member, &of_init), "read once");
    // A cgroup of that name can be made elsewhere, by whoever may make cgroups there.
    let copy = format!("/user.slice/user-1000.slice/user@1000.service/app.slice{DOCKER}");
    let impostor = world.process(4900, 950, &copy);
    let found = of(&mut names, impostor, &copy).expect("what its cgroup claims");
    assert_eq!(found.name, None);
    assert!(
        found.doubts[0].contains("its first process, PID 4711, is not in this cgroup"),
        "{:?}",
        found.doubts
    );
}

#[test]
fn a_name_survives_the_container() {
    let world = World::new();
    docker(&world);
    let mut names = world.names();
    assert!(of(&mut names, INIT, DOCKER).is_some_and(|found| found.name.is_some()));
    fs::remove_dir_all(world.base.path()).expect("our own folder");
    for cgroup in [DOCKER, "/"] {
        let found = of(&mut names, INIT, cgroup).expect("it is remembered");
        assert_eq!(found.name, Some(Name::from("web")), "in {cgroup}");
    }
    assert_eq!(names.remembered(INIT).and_then(|found| found.name.clone()), Some(Name::from("web")));
}

#[test]
fn a_container_of_the_same_id_is_another_one() {
    let world = World::new();
    let mut names = world.names();
    world.runc("run/runc/job", &["nerdctl/name=first"]);
    let name = |found: Option<Arc<Container>>| found.and_then(|found| found.name.clone());
    assert_eq!(name(of(&mut names, INIT, "/job")), Some(Name::from("first")));
    let second = world.process(4712, 800, "/job");
    let state = json!({
        "init_process_pid": 4712, "init_process_start": 800, "config": {"labels": ["nerdctl/name=second"]},
    });
    world.write("run/runc/job/state.json", &state);
    assert_eq!(name(of(&mut names, second, "/job")), Some(Name::from("second")));
    assert_eq!(name(of(&mut names, INIT, "/job")), Some(Name::from("first")), "the first is remembered");
}

/// Every file that is read of a container of Docker, and of one of Podman.
const FILES: [(&str, &str); 4] = [
    (DOCKER, "run/docker/runtime-runc/moby/$ID/state.json"),
    (DOCKER, "var/lib/docker/containers/$ID/config.v2.json"),
    ("/libpod_parent/libpod-$ID", "run/runc/$ID/state.json"),
    ("/libpod_parent/libpod-$ID", "var/lib/containers/storage/overlay-containers/containers.json"),
];

fn both() -> World {
    let world = World::new();
    docker(&world).runc("run/runc/$ID", &["io.container.manager=libpod"]);
    world.write("var/lib/containers/storage/overlay-containers/containers.json", &stored("job"));
    for (cgroup, _) in FILES {
        assert!(world.container(cgroup).is_some_and(|found| found.name.is_some()), "{cgroup}");
    }
    world
}

/// Spoils each of the files in turn; the container loses its name, and says why.
fn spoil(words: &str, spoil: impl Fn(&Path)) {
    for (cgroup, file) in FILES {
        let world = both();
        spoil(&world.path(file));
        world.expect_doubt(cgroup, words);
        world.expect_doubt(cgroup, file.rsplit('/').next().expect("a name"));
    }
}

#[test]
fn a_truncated_file_costs_the_name_alone() {
    spoil("EOF while parsing", |file| {
        let whole = fs::read(file).expect("a file");
        fs::write(file, &whole[..whole.len() / 2]).expect("our own file");
    });
    spoil("EOF while parsing", |file| fs::write(file, "").expect("our own file"));
}

#[test]
fn a_file_of_another_shape_costs_the_name_alone() {
    spoil("invalid", |file| fs::write(file, "7").expect("our own file"));
    // Deeper than any stack.
    spoil("EOF while parsing", |file| {
        let list = if file.ends_with("containers.json") { "[" } else { "" };
        fs::write(file, format!("{list}{{\"x\":{}", "[".repeat(1 << 20))).expect("our own file");
    });
    spoil("expected value", |file| fs::write(file, b"\xff\xfe{}").expect("our own file"));
}

#[test]
fn a_huge_file_costs_the_name_alone() {
    spoil("larger than 4 MiB", |file| {
        let file = fs::OpenOptions::new().write(true).open(file).expect("our own file");
        file.set_len(1 << 40).expect("a sparse file");
    });
}

#[test]
fn a_link_elsewhere_costs_the_name_alone() {
    spoil("symbolic link", |file| {
        let elsewhere = file.with_extension("elsewhere");
        fs::rename(file, &elsewhere).expect("our own file");
        symlink(&elsewhere, file).expect("a link");
    });
}

#[test]
fn a_fifo_costs_the_name_alone() {
    spoil("no regular file", |file| {
        fs::remove_file(file).expect("our own file");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, file, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
    });
}

#[test]
fn a_folder_that_may_not_be_read_is_told_and_not_taken_for_empty() {
    for (cgroup, folder) in [(DOCKER, "run/docker"), ("/libpod_parent/libpod-$ID", "run/containers/storage")]
    {
        let world = World::new();
        // What root may not read: tests run as root too.
        let path = world.path(folder);
        symlink(&path, &path).expect("a link to itself");
        world.expect_doubt(cgroup, folder);
    }
}

#[test]
fn an_id_that_is_no_file_name_is_never_a_path() {
    let world = World::new();
    world.runc("run/runc/job", &[]);
    for (cgroup, id) in [
        (r"/system.slice/runc-\x2e\x2e\x2frunc\x2fjob.scope", "../runc/job"),
        ("/system.slice/runc-...scope", ".."),
        ("/system.slice/runc-a b.scope", "a b"),
    ] {
        let found = world.container(cgroup).expect("what its cgroup claims");
        assert_eq!(found.id, Some(Name::from(id)));
        assert_eq!(found.doubts, [format!("its id is no file name: {id}")]);
    }
}

#[test]
fn a_daemon_that_never_answers_is_asked_once() {
    let world = World::new();
    let socket = world.path("run/docker.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let roots = Roots::below(world.base.path());
    let mut names = Names::asking(roots.clone(), Api::new(&roots).expect("a thread"));
    let before = std::time::Instant::now();
    let found = of(&mut names, INIT, DOCKER).expect("the cgroup alone tells");
    assert!(found.doubts[0].contains("no answer within 2 s: it is not asked again"), "{:?}", found.doubts);
    let other = format!("/docker/{}", "f".repeat(64));
    let found = of(&mut names, Process { pid: 1, ..INIT }, &other).expect("the cgroup alone tells");
    assert_eq!(found.doubts, [format!("no runtime's files tell of {}", "f".repeat(64))]);
    let took = before.elapsed();
    assert!(took.as_secs_f64() < 3.5, "it waited once: {took:?}");
}

/// A daemon that tells its version, and answers everything else with this.
fn server(socket: &Path, status: &'static str, body: String) {
    use std::io::{Read, Write};
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let mut request = [0; 4096];
            let length = connection.read(&mut request).unwrap_or_default();
            let asks_version = request[..length].windows(8).any(|words| words == b"/version");
            let status = if asks_version { "200 OK" } else { status };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nApi-Version: 1.41\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _gone_already = connection.write_all(answer.as_bytes());
        }
    });
}

#[test]
fn what_a_daemon_answers_is_believed_of_its_own_process_alone() {
    for (pid, status, expected, words) in [
        (INIT.pid, "200 OK", Some("web"), ""),
        (4712, "200 OK", None, "its first process, PID 4712, is gone"),
        (0, "200 OK", None, "it does not run"),
        (INIT.pid, "404 Not Found", None, "no runtime's files tell of"),
        (INIT.pid, "500 Internal Server Error", None, "500"),
    ] {
        let world = World::new();
        let body = json!({
            "Id": id(), "Name": "/web", "State": {"Pid": pid}, "Config": {"Image": "web:2"}, "message": "no",
            "ApiVersion": "1.41",
        });
        server(&world.path("run/docker.sock"), status, body.to_string());
        let roots = Roots::below(world.base.path());
        let mut names = Names::asking(roots.clone(), Api::new(&roots).expect("a thread"));
        let found = of(&mut names, INIT, DOCKER).expect("the cgroup alone tells");
        assert_eq!(found.name, expected.map(Name::from), "{pid} {status}: {:?}", found.doubts);
        let doubts = found.doubts.join("\n");
        assert!(doubts.contains(words) && doubts.is_empty() == words.is_empty(), "{pid} {status}: {doubts}");
    }
}
