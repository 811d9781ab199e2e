//! The directories of a machine, with the files that runtimes keep there.

use std::{fs, path::PathBuf, sync::Arc};

use pidns_user::{
    container::{ContainerCache, Roots},
    event::container::Container,
    event::identity::{BootNs, HostPid, ProcessKey},
    text::Name,
};
use serde_json::{Value, json};

/// The directories of a machine, with a proc file system of invented processes.
pub(crate) struct World {
    pub(crate) base: tempfile::TempDir,
}

pub(crate) const INIT: ProcessKey = ProcessKey::new(HostPid(4711), BootNs(5_000_000_000));
/// INIT's start in clock ticks, as runtimes write it.
pub(crate) const START: u64 = 500;

pub(crate) fn id() -> String {
    "0123456789abcdef".repeat(4)
}

impl World {
    pub(crate) fn new() -> Self {
        Self { base: tempfile::tempdir().expect("create a temporary directory") }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        let path = self.base.path().join(path.replace("$ID", &id()));
        fs::create_dir_all(path.parent().expect("the path is below the base")).expect("create the directory");
        path
    }

    pub(crate) fn write(&self, path: &str, contents: &Value) -> &Self {
        fs::write(self.path(path), contents.to_string()).expect("write the file");
        self
    }

    pub(crate) fn process(&self, pid: u32, start_ticks: u64, cgroup: &str) -> ProcessKey {
        let zeros = "0 ".repeat(18);
        fs::write(self.path(&format!("proc/{pid}/stat")), format!("{pid} (a) S {zeros}{start_ticks} 0\n"))
            .expect("write the file");
        let cgroup = format!("0::{}\n", cgroup.replace("$ID", &id()));
        fs::write(self.path(&format!("proc/{pid}/cgroup")), cgroup).expect("write the file");
        ProcessKey { pid: HostPid(pid), start: BootNs::from_ticks(start_ticks) }
    }

    pub(crate) fn runc(&self, folder: &str, labels: &[&str]) -> &Self {
        let state = json!({
            "id": folder, "init_process_pid": INIT.pid, "init_process_start": START,
            "config": {"rootfs": "/x", "labels": labels},
        });
        self.write(&format!("{folder}/state.json"), &state)
    }

    pub(crate) fn cache(&self) -> ContainerCache {
        ContainerCache::new(Roots::below(self.base.path()))
    }

    /// The container of INIT, if it is in this cgroup.
    pub(crate) fn container(&self, cgroup: &str) -> Option<Arc<Container>> {
        of(&mut self.cache(), INIT, cgroup)
    }

    #[track_caller]
    pub(crate) fn expect(&self, cgroup: &str, expected: Value) {
        let found = self.container(cgroup).expect("a container");
        let doubts = &found.doubts;
        assert_eq!(serde_json::to_value(&*found).expect("JSON"), expected, "doubts: {doubts:#?}");
        assert_eq!(doubts, &Vec::<String>::new());
    }

    /// Checks that INIT's container has no name, and gives this reason.
    #[track_caller]
    pub(crate) fn expect_doubt(&self, cgroup: &str, part: &str) {
        let found = self.container(cgroup).expect("the cgroup alone names a container");
        assert_eq!(found.id, Some(Name::from(&*id())));
        assert_eq!(found.name, None, "doubts: {:#?}", found.doubts);
        assert!(found.doubts.iter().any(|doubt| doubt.contains(part)), "{part}: {:#?}", found.doubts);
    }
}

pub(crate) fn of(cache: &mut ContainerCache, process: ProcessKey, cgroup: &str) -> Option<Arc<Container>> {
    cache.find_by_cgroup(process, format!("0::{}\n", cgroup.replace("$ID", &id())).as_bytes())
}

pub(crate) const DOCKER: &str = "/system.slice/docker-$ID.scope";

pub(crate) fn docker(world: &World) -> &World {
    world.runc("run/docker/runtime-runc/moby/$ID", &["bundle=/x"]);
    docker_config(world, "var/lib/docker/containers/$ID/config.v2.json", INIT.pid.0)
}

pub(crate) fn docker_config<'a>(world: &'a World, file: &str, pid: u32) -> &'a World {
    let config = json!({
        "ID": id(), "Name": "/web", "Image": "sha256:01", "State": {"Running": true, "Pid": pid},
        "Config": {"Image": "registry.example/web:2", "Labels": {"a": "b"}},
    });
    world.write(file, &config)
}

pub(crate) fn stored(name: &str) -> Value {
    let metadata = json!({"image-name": "localhost/web:2", "name": name}).to_string();
    json!([{"id": "other", "names": ["no"]}, {"id": id(), "names": [name], "metadata": metadata}])
}
