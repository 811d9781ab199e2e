//! What each runtime says about its containers, and for which processes that is trusted.

use std::{fs, sync::Arc};

use pidns_user::{
    container::{Api, ContainerCache, Roots},
    event::container::{Container, Runtime},
    event::identity::ProcessKey,
    text::Name,
};
use serde_json::json;

use crate::{
    daemon::server,
    world::{DOCKER, INIT, START, World, docker, docker_config, id, of, stored},
};

#[test]
fn docker_gives_name_and_image() {
    let world = World::new();
    docker(&world);
    let expected = json!({"runtime": "docker", "id": id(), "name": "web", "image": "registry.example/web:2"});
    world.expect(DOCKER, expected.clone());
    world.expect("/batch/$ID", expected);
}

#[test]
fn docker_below_kubernetes_names_the_pod() {
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
fn pod_labels_of_an_image_are_not_believed() {
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
    let record = ["io.container.manager=libpod", "io.kubernetes.pod.name=coredns", "nerdctl/name=coredns"];
    world.runc("run/runc/$ID", &record);
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
    let mut cache = ContainerCache::with_api(roots.clone(), Api::new(&roots));
    let found = of(&mut cache, INIT, DOCKER).expect("a container");
    assert_eq!((&found.name, &found.pod), (&Some(Name::from("web")), &None), "{:?}", found.doubts);
}

#[test]
fn containerd_names_pods_only_by_annotations() {
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
fn a_user_chosen_id_needs_the_confirmation_of_a_runtime() {
    let world = World::new();
    assert_eq!(world.container("/default/web"), None);
    world.runc("run/containerd/runc/default/web", &["nerdctl/name=front"]);
    let expected =
        json!({"runtime": "containerd", "id": "web", "name": "front", "runtime_namespace": "default"});
    world.expect("/default/web", expected.clone());
    world.expect("/default/web/a/b", expected);
    let another = world.process(4712, START + 1, "/other/web");
    assert_eq!(of(&mut world.cache(), another, "/other/web"), None, "another namespace of containerd");

    world.runc("run/runc/job", &["org.opencontainers.image.ref.name=1.2"]);
    world.expect("/job", json!({"runtime": "runc", "id": "job", "image": "1.2"}));
    world.expect("/system.slice/runc-job.scope", json!({"runtime": "runc", "id": "job", "image": "1.2"}));
}

#[test]
fn a_container_without_runc_and_crun_is_found_by_its_shim() {
    let world = World::new();
    let bundle = "run/containerd/io.containerd.runtime.v2.task/default/$ID";
    world.write(&format!("{bundle}/config.json"), &json!({"annotations": {"nerdctl/name": "kata"}}));
    world.expect_doubt("/system.slice/nerdctl-$ID.scope", "it names no process");
    fs::write(world.path(&format!("{bundle}/init.pid")), INIT.pid.to_string()).expect("write the file");
    world.expect(
        "/system.slice/nerdctl-$ID.scope",
        json!({"runtime": "containerd", "id": id(), "name": "kata", "runtime_namespace": "default"}),
    );
}

#[test]
fn podman_gives_name_and_image_from_its_list() {
    let world = World::new();
    world.runc("run/runc/$ID", &["io.container.manager=libpod"]);
    world.write("var/lib/containers/storage/overlay-containers/containers.json", &stored("job"));
    let expected = json!({"runtime": "podman", "id": id(), "name": "job", "image": "localhost/web:2"});
    world.expect("/machine.slice/libpod-$ID.scope/container", expected.clone());
    world.expect("/libpod_parent/libpod-$ID", expected.clone());
    world.expect("/batch/$ID", expected);
}

#[test]
fn rootless_podman_is_found_in_its_users_directory() {
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
    world.expect_doubt(&cgroup(1001), "no runtime has a file about");
}

#[test]
fn crio_names_the_pod_of_kubernetes() {
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
fn a_container_named_by_its_path_needs_no_file() {
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
fn the_outer_container_is_kept() {
    let world = World::new();
    let inner = world.container("/lxc.payload.ci/docker/$ID").expect("a container");
    assert_eq!((inner.runtime, inner.id.clone()), (Some(Runtime::Docker), Some(Name::from(&*id()))));
    let outer = inner.outer.as_ref().expect("it has an outer container");
    assert_eq!((outer.runtime, outer.name.clone()), (Some(Runtime::Lxc), Some(Name::from("ci"))));
}

#[test]
fn a_main_process_cannot_rename_its_container_by_a_nested_cgroup() {
    let world = World::new();
    docker(&world);
    world.runc("run/containerd/runc/default/mine", &["nerdctl/name=mine"]);
    let other = "fedcba9876543210".repeat(4);
    for (outer, name) in [(DOCKER, "web"), ("/default/mine", "mine")] {
        for inner in ["/lxc.payload.db".to_owned(), format!("/docker/{other}"), format!("/libpod-{other}")] {
            let found = world.container(&format!("{outer}{inner}")).expect("a container");
            assert_eq!(found.name, Some(Name::from(name)), "{outer}{inner}: {:?}", found.doubts);
            assert!(found.is_confirmed() && found.outer.is_none());
            assert!(
                found.doubts.iter().any(|doubt| doubt.contains("the name of another container")),
                "{:?}",
                found.doubts
            );
        }
    }
    // Another process may be in a nested container.
    world.process(INIT.pid.0, START, DOCKER);
    let inner = format!("{DOCKER}/lxc.payload.db");
    let member = world.process(4800, 900, &inner);
    let found = of(&mut world.cache(), member, &inner).expect("a container");
    assert_eq!((&found.name, found.is_confirmed()), (&Some(Name::from("db")), false));
}

#[test]
fn a_file_about_another_process_is_not_believed() {
    let world = World::new();
    docker(&world);
    let later = ProcessKey { start: INIT.start.saturating_add(10_000_000), ..INIT };
    let found = of(&mut world.cache(), later, DOCKER).expect("the cgroup names a container");
    assert_eq!(found.name, None);
    assert!(found.doubts[0].contains("it is about another process with PID 4711"), "{:?}", found.doubts);
}

#[test]
fn a_daemon_that_names_another_process_is_not_believed() {
    let world = World::new();
    docker(&world);
    docker_config(&world, "var/lib/docker/containers/$ID/config.v2.json", 4712);
    world.expect_doubt(DOCKER, "docker says that its first process is PID 4712, not 4711");
}

#[test]
fn a_daemon_that_has_not_stored_the_pid_yet_is_believed() {
    let world = World::new();
    docker(&world);
    docker_config(&world, "var/lib/docker/containers/$ID/config.v2.json", 0);
    assert_eq!(world.container(DOCKER).and_then(|found| found.name.clone()), Some(Name::from("web")));
}

#[test]
fn other_processes_share_the_name_while_the_main_process_lives_in_their_cgroup() {
    let world = World::new();
    docker(&world);
    world.process(INIT.pid.0, START, DOCKER);
    let member = world.process(4800, 900, DOCKER);
    let mut cache = world.cache();
    let of_member = of(&mut cache, member, DOCKER).expect("a container");
    assert_eq!(of_member.name, Some(Name::from("web")), "{:?}", of_member.doubts);
    let of_init = of(&mut cache, INIT, DOCKER).expect("a container");
    assert!(Arc::ptr_eq(&of_member, &of_init), "the files are read once");
    // Any process that may create cgroups can create one with this name elsewhere.
    let copy = format!("/user.slice/user-1000.slice/user@1000.service/app.slice{DOCKER}");
    let impostor = world.process(4900, 950, &copy);
    let found = of(&mut cache, impostor, &copy).expect("the cgroup names a container");
    assert_eq!(found.name, None);
    assert!(
        found.doubts[0].contains("its first process, PID 4711, is not in this cgroup"),
        "{:?}",
        found.doubts
    );
}

#[test]
fn a_name_outlives_its_container() {
    let world = World::new();
    docker(&world);
    let mut cache = world.cache();
    assert!(of(&mut cache, INIT, DOCKER).is_some_and(|found| found.name.is_some()));
    fs::remove_dir_all(world.base.path()).expect("remove the directory");
    for cgroup in [DOCKER, "/"] {
        let found = of(&mut cache, INIT, cgroup).expect("the container is remembered");
        assert_eq!(found.name, Some(Name::from("web")), "in {cgroup}");
    }
    assert_eq!(cache.last_known(INIT).and_then(|found| found.name.clone()), Some(Name::from("web")));
}

#[test]
fn a_later_container_with_the_same_id_is_another_one() {
    let world = World::new();
    let mut cache = world.cache();
    world.runc("run/runc/job", &["nerdctl/name=first"]);
    let name = |found: Option<Arc<Container>>| found.and_then(|found| found.name.clone());
    assert_eq!(name(of(&mut cache, INIT, "/job")), Some(Name::from("first")));
    let second = world.process(4712, 800, "/job");
    let state = json!({
        "init_process_pid": 4712, "init_process_start": 800, "config": {"labels": ["nerdctl/name=second"]},
    });
    world.write("run/runc/job/state.json", &state);
    assert_eq!(name(of(&mut cache, second, "/job")), Some(Name::from("second")));
    assert_eq!(name(of(&mut cache, INIT, "/job")), Some(Name::from("first")), "the first is remembered");
}
