//! Podman, with separate storage for the test.

use std::{fs, process::Command};

use pidns_user::container::{Api, ContainerCache, Roots};
use pidns_user::event::container::Runtime;

use crate::daemon::Daemon;
use crate::scratch::{
    SLEEP, Scratch, assert_another_start_is_not_believed, container_of, name, output, process, processes_of,
    run, sure_container_of, wait_until,
};

/// Podman's storage. Emptied on drop.
pub(crate) struct Podman {
    pub(crate) scratch: Scratch,
}

impl Podman {
    /// Prepares Podman with the image that the tests use.
    pub(crate) fn with_image() -> Self {
        let podman = Self::new();
        podman.run(&["import", &podman.scratch.image(), "pidns-busybox:1"]);
        podman
    }

    fn new() -> Self {
        let scratch = Scratch::new();
        // Otherwise the locks would be those of the machine's own containers.
        fs::write(scratch.path("containers.conf"), "[engine]\nlock_type = \"file\"\n")
            .expect("write the file");
        let [data, run] = ["data", "run"].map(|name| scratch.arg(name));
        let storage = format!("[storage]\ndriver = \"vfs\"\nrunroot = \"{run}\"\ngraphroot = \"{data}\"\n");
        fs::write(scratch.path("storage.conf"), storage).expect("write the file");
        Self { scratch }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut podman = Command::new("podman");
        podman
            .env("CONTAINERS_CONF", self.scratch.path("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.scratch.path("storage.conf"))
            .arg("--root")
            .arg(self.scratch.path("data"))
            .arg("--runroot")
            .arg(self.scratch.path("run"))
            .arg("--tmpdir")
            .arg(self.scratch.path("tmp"))
            .args(["--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs"])
            .args(args);
        podman
    }

    pub(crate) fn run(&self, args: &[&str]) -> String {
        run(&mut self.command(args))
    }

    fn roots(&self) -> Roots {
        Roots {
            storage_run: self.scratch.path("run"),
            storage_data: self.scratch.path("data"),
            ..Roots::host()
        }
    }

    /// A PID from Podman's state.
    pub(crate) fn pid(&self, id: &str, field: &str) -> u32 {
        let template = format!("{{{{.State.{field}}}}}");
        self.run(&["inspect", "--format", &template, id]).parse().expect("a PID")
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        output(&mut self.command(&["rm", "--all", "--force", "--time", "0"]));
    }
}

#[test]
fn podman_containers_have_their_name_and_image() {
    let podman = Podman::new();
    podman.run(&["import", &podman.scratch.image(), "pidns-busybox:1"]);
    // Raising a limit needs a capability that not every machine grants.
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
    let run = [&["run", "--detach", "--name", "front", "--network", "none"], &limits[..]].concat();
    let id = podman.run(&[&run[..], &["pidns-busybox:1"], &SLEEP].concat());
    let (init, conmon) = (podman.pid(&id, "Pid"), podman.pid(&id, "ConmonPid"));

    let mut cache = ContainerCache::new(podman.roots());
    let container = sure_container_of(&mut cache, init);
    assert_eq!(container.runtime, Some(Runtime::Podman));
    assert_eq!((&container.id, &container.name), (&name(&id), &name("front")));
    assert_eq!(container.image, name("localhost/pidns-busybox:1"));
    assert_eq!(container.label(), pidns_user::text::Name::from("podman/front"));
    assert_another_start_is_not_believed(ContainerCache::new(podman.roots()), init);
    let watcher = container_of(&mut cache, conmon);
    assert!(watcher.is_none_or(|found| found.id != container.id), "conmon is outside of the container");

    // The files of a rootless Podman are in the user's home, so they are not found here.
    let nowhere = podman.scratch.path("nowhere");
    let roots = Roots {
        storage_run: nowhere.clone(),
        storage_data: nowhere.clone(),
        runc: nowhere,
        ..podman.roots()
    };
    let claim =
        container_of(&mut ContainerCache::new(roots), init).expect("cgroup and conmon name the container");
    assert_eq!((&claim.name, claim.is_confirmed()), (&name("front"), false), "{claim:?}");
    assert!(claim.doubts.iter().any(|doubt| doubt.contains("conmon")), "{claim:?}");

    podman.run(&[&["exec", "--detach", &id], &SLEEP[..]].concat());
    let others =
        || processes_of(&id).into_iter().filter(|pid| ![init, conmon].contains(pid)).collect::<Vec<_>>();
    wait_until("the added process", || others().len() == 1);
    assert_eq!(sure_container_of(&mut cache, others()[0]).name, name("front"));

    let first = process(init);
    podman.run(&["rm", "--force", "--time", "0", &id]);
    assert!(!std::path::Path::new(&format!("/proc/{init}")).exists(), "the process must be gone");
    assert_eq!(cache.last_known(first).and_then(|found| found.name.clone()), name("front"));
}

#[test]
fn podman_is_asked_if_its_files_have_no_name() {
    let podman = Podman::new();
    podman.run(&["import", &podman.scratch.image(), "pidns-busybox:1"]);
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
    let run = [&["run", "--detach", "--name", "front", "--network", "none"], &limits[..]].concat();
    let id = podman.run(&[&run[..], &["pidns-busybox:1"], &SLEEP].concat());
    let init = podman.pid(&id, "Pid");
    let socket = podman.scratch.path("podman.sock");
    let address = format!("unix://{}", podman.scratch.arg("podman.sock"));
    let mut service = podman.command(&["system", "service", "--time", "0", &address]);
    let _service = Daemon::start(&podman.scratch, &mut service, || {
        let mut is_there = Command::new("test");
        is_there.arg("-S").arg(&socket);
        is_there
    });

    let nowhere = podman.scratch.path("nowhere");
    let roots = Roots {
        storage_run: nowhere.clone(),
        storage_data: nowhere,
        podman_socket: socket.clone(),
        ..podman.roots()
    };
    let mut cache = ContainerCache::with_api(roots.clone(), Api::new(&roots));
    let container = sure_container_of(&mut cache, init);
    assert_eq!((container.runtime, &container.name), (Some(Runtime::Podman), &name("front")));
    assert_eq!(container.image, name("localhost/pidns-busybox:1"));
}
