//! Files as an attacker may have made them, or as a crash left them.

use std::{fs, os::unix::fs::symlink, path::Path};

use pidns_user::text::Name;

use crate::world::{DOCKER, INIT, World, docker, docker_config, stored};

/// The cgroup of a container in a user's rootless Docker.
const ROOTLESS: &str = "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-$ID.scope";

#[test]
fn reading_a_users_directory_is_bounded() {
    let world = World::new();
    for (runtime, namespace) in (0..20).flat_map(|runtime| (0..20).map(move |namespace| (runtime, namespace)))
    {
        let file = world.path(&format!("run/user/1000/docker/runtime-{runtime}/{namespace}/$ID/state.json"));
        fs::File::create(file).and_then(|file| file.set_len(3 << 20)).expect("a sparse file");
    }
    let found = world.container(ROOTLESS).expect("the cgroup names a container");
    assert!(found.doubts.len() <= 17, "{} doubts", found.doubts.len());
    assert!(found.doubts.iter().any(|doubt| doubt.contains("the rest was not read")), "{:#?}", found.doubts);
    assert!(found.doubts.iter().all(|doubt| doubt.len() < 600));
}

#[test]
fn links_in_a_users_directories_are_not_followed() {
    for link in ["run/user/1000/docker", "run/user/1000/docker/data", "run/containerd/runc/default"] {
        let world = World::new();
        let elsewhere = world.path("elsewhere/x");
        let elsewhere = elsewhere.parent().expect("a folder");
        let [runc, name] = ["runtime-runc/moby/$ID", "containers/$ID/config.v2.json"];
        let cgroup = if link.contains("containerd") { "/default/$ID" } else { ROOTLESS };
        if link.ends_with("docker") {
            world.runc(&format!("elsewhere/{runc}"), &[]);
            docker_config(&world, &format!("elsewhere/data/{name}"), INIT.pid.0);
        } else if link.ends_with("data") {
            world.runc(&format!("run/user/1000/docker/{runc}"), &[]);
            docker_config(&world, &format!("elsewhere/{name}"), INIT.pid.0);
        } else {
            world.runc("elsewhere/$ID", &["nerdctl/name=web"]);
        }
        symlink(elsewhere, world.path(link)).expect("a link");
        world.expect_doubt(cgroup, "symbolic link");
    }
}

/// Every file that is read for a container of Docker, and for one of Podman.
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

/// Damages each of the files in turn. The container must lose its name, and give the reason.
fn spoil(part: &str, spoil: impl Fn(&Path)) {
    for (cgroup, file) in FILES {
        let world = both();
        spoil(&world.path(file));
        world.expect_doubt(cgroup, part);
        world.expect_doubt(cgroup, file.rsplit('/').next().expect("a name"));
    }
}

#[test]
fn a_truncated_file_loses_only_the_name() {
    spoil("EOF while parsing", |file| {
        let whole = fs::read(file).expect("read the file");
        fs::write(file, &whole[..whole.len() / 2]).expect("write the file");
    });
    spoil("EOF while parsing", |file| fs::write(file, "").expect("write the file"));
}

#[test]
fn a_file_of_another_shape_loses_only_the_name() {
    spoil("invalid", |file| fs::write(file, "7").expect("write the file"));
    // Nested more deeply than any stack allows.
    spoil("EOF while parsing", |file| {
        let list = if file.ends_with("containers.json") { "[" } else { "" };
        fs::write(file, format!("{list}{{\"x\":{}", "[".repeat(1 << 20))).expect("write the file");
    });
    spoil("expected value", |file| fs::write(file, b"\xff\xfe{}").expect("write the file"));
}

#[test]
fn a_huge_file_loses_only_the_name() {
    spoil("larger than 4 MiB", |file| {
        let file = fs::OpenOptions::new().write(true).open(file).expect("open the file");
        file.set_len(1 << 40).expect("a sparse file");
    });
}

#[test]
fn a_link_elsewhere_loses_only_the_name() {
    spoil("symbolic link", |file| {
        let elsewhere = file.with_extension("elsewhere");
        fs::rename(file, &elsewhere).expect("rename the file");
        symlink(&elsewhere, file).expect("a link");
    });
}

#[test]
fn a_fifo_loses_only_the_name() {
    spoil("not a regular file", |file| {
        fs::remove_file(file).expect("remove the file");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, file, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
    });
}

#[test]
fn an_unreadable_directory_is_reported() {
    for (cgroup, folder) in [(DOCKER, "run/docker"), ("/libpod_parent/libpod-$ID", "run/containers/storage")]
    {
        let world = World::new();
        // A link loop cannot be read even by root, which may run the tests.
        let path = world.path(folder);
        symlink(&path, &path).expect("a link to itself");
        world.expect_doubt(cgroup, folder);
    }
}

#[test]
fn an_id_that_is_not_a_file_name_never_becomes_a_path() {
    let world = World::new();
    world.runc("run/runc/job", &[]);
    for (cgroup, id) in [
        (r"/system.slice/runc-\x2e\x2e\x2frunc\x2fjob.scope", "../runc/job"),
        ("/system.slice/runc-...scope", ".."),
        ("/system.slice/runc-a b.scope", "a b"),
    ] {
        let found = world.container(cgroup).expect("the cgroup names a container");
        assert_eq!(found.id, Some(Name::from(id)));
        assert_eq!(found.doubts, [format!("its id is not a valid file name: {id}")]);
    }
}
