//! Docker, on a separate containerd for the test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use pidns_user::container::{Api, ContainerCache, Roots};
use pidns_user::event::container::Runtime;

use crate::{
    containerd::{self, Containerd},
    daemon::Daemon,
    scratch::{
        SLEEP, Scratch, assert_another_start_is_not_believed, container_of, name, output, process,
        processes_of, run, sure_container_of, wait_until,
    },
};

/// dockerd. The fields are dropped in this order.
pub(crate) struct Docker {
    pub(crate) containers: DockerContainers,
    _docker: Daemon,
    _containerd: Containerd,
    pub(crate) scratch: Scratch,
}

/// The containers of the daemon. Removes them all on drop.
pub(crate) struct DockerContainers {
    socket: String,
}

impl DockerContainers {
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut docker = Command::new("docker");
        docker.args(["--host", &self.socket]).args(args);
        docker
    }
}

impl Drop for DockerContainers {
    fn drop(&mut self) {
        let ids = output(&mut self.command(&["ps", "--all", "--quiet"])).stdout;
        for id in String::from_utf8_lossy(&ids).lines() {
            output(&mut self.command(&["rm", "--force", id]));
        }
    }
}

impl Docker {
    /// Starts Docker with the image that the tests use.
    pub(crate) fn with_image() -> Self {
        let docker = Self::start();
        docker.run(&["import", &docker.scratch.image(), "pidns-busybox:1"]);
        docker
    }

    fn start() -> Self {
        let scratch = Scratch::new();
        let containerd = Containerd::start(&scratch);
        let containers = DockerContainers { socket: format!("unix://{}", scratch.arg("docker.sock")) };
        let mut dockerd = Command::new("dockerd");
        // Leave the machine's network alone.
        dockerd.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        dockerd.args(["--storage-driver=vfs", "--exec-opt=native.cgroupdriver=cgroupfs"]);
        dockerd.args(["--host", &containers.socket]);
        for (option, name) in [
            ("--containerd", "containerd.sock"),
            ("--data-root", "docker-data"),
            ("--exec-root", "docker-run"),
            ("--pidfile", "docker.pid"),
        ] {
            dockerd.arg(option).arg(scratch.path(name));
        }
        let docker = Daemon::start(&scratch, &mut dockerd, || containers.command(&["version"]));
        Self { containers, _docker: docker, _containerd: containerd, scratch }
    }

    pub(crate) fn run(&self, args: &[&str]) -> String {
        run(&mut self.containers.command(args))
    }

    fn roots(&self) -> Roots {
        Roots {
            docker_data: self.scratch.path("docker-data"),
            docker_run: self.scratch.path("docker-run"),
            ..containerd::roots(&self.scratch)
        }
    }

    pub(crate) fn pid(&self, id: &str) -> u32 {
        self.run(&["inspect", "--format", "{{.State.Pid}}", id]).parse().expect("a PID")
    }
}

#[test]
fn docker_containers_have_their_name_and_image() {
    let docker = Docker::start();
    docker.run(&["import", &docker.scratch.image(), "pidns-busybox:1"]);
    let run = ["run", "--detach", "--name", "front", "--network", "none", "pidns-busybox:1"];
    let id = docker.run(&[&run[..], &SLEEP].concat());
    let init = docker.pid(&id);

    let mut cache = ContainerCache::new(docker.roots());
    let container = sure_container_of(&mut cache, init);
    assert_eq!(container.runtime, Some(Runtime::Docker));
    assert_eq!((&container.id, &container.name), (&name(&id), &name("front")));
    assert_eq!(container.image, name("pidns-busybox:1"));
    assert_another_start_is_not_believed(ContainerCache::new(docker.roots()), init);

    docker.run(&[&["exec", "--detach", &id], &SLEEP[..]].concat());
    let others = || processes_of(&id).into_iter().filter(|&pid| pid != init).collect::<Vec<_>>();
    wait_until("the added process", || others().len() == 1);
    assert_eq!(sure_container_of(&mut cache, others()[0]), container);

    let first = process(init);
    docker.run(&["stop", "--time", "0", &id]);
    assert!(!Path::new(&format!("/proc/{init}")).exists(), "the container must have stopped");
    assert_eq!(cache.last_known(first), Some(container), "the name outlives the container");

    docker.run(&["rename", "front", "back"]);
    docker.run(&["start", &id]);
    let again = sure_container_of(&mut cache, docker.pid(&id));
    assert_eq!((&again.id, &again.name), (&name(&id), &name("back")), "the container has its new name");
    assert_eq!(cache.last_known(first).and_then(|found| found.name.clone()), name("front"));
}

/// A bind mount, as a container of the program has it. Unmounted on drop.
struct Mount(PathBuf);

impl Mount {
    fn new(from: &Path, to: PathBuf) -> Self {
        fs::create_dir_all(&to).expect("create the directory");
        run(Command::new("mount").arg("--bind").arg(from).arg(&to));
        Self(to)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        output(Command::new("umount").arg(&self.0));
    }
}

#[test]
fn docker_containers_are_found_if_only_the_runtimes_directory_is_mounted() {
    let docker = Docker::with_image();
    let run = ["run", "--detach", "--name", "front", "--network", "none", "pidns-busybox:1"];
    let id = docker.run(&[&run[..], &SLEEP].concat());
    let init = docker.pid(&id);
    let _mount = Mount::new(
        &docker.scratch.path("docker-run/runtime-runc"),
        docker.scratch.path("mounted-run/runtime-runc"),
    );
    let roots = Roots { docker_run: docker.scratch.path("mounted-run"), ..docker.roots() };

    let container = sure_container_of(&mut ContainerCache::new(roots.clone()), init);
    assert_eq!((container.runtime, &container.name), (Some(Runtime::Docker), &name("front")));
    // By the state alone, when the cgroup names no container.
    let found = ContainerCache::new(roots)
        .find_by_cgroup(process(init), b"0::/\n")
        .expect("the state names the process");
    assert_eq!((&found.id, &found.doubts), (&name(&id), &Vec::new()));
}

#[test]
fn docker_is_asked_if_its_files_have_no_name() {
    let docker = Docker::start();
    docker.run(&["import", &docker.scratch.image(), "pidns-busybox:1"]);
    let run = ["run", "--detach", "--name", "front", "--network", "none", "--cgroup-parent", "/pidns-batch"];
    let id = docker.run(&[&run[..], &["pidns-busybox:1"], &SLEEP].concat());
    let init = docker.pid(&id);

    let nowhere = docker.scratch.path("nowhere");
    let roots = Roots {
        docker_data: nowhere.clone(),
        docker_run: nowhere.clone(),
        containerd_tasks: nowhere,
        ..docker.roots()
    };
    let roots = Roots { docker_socket: docker.scratch.path("docker.sock"), ..roots };
    let silent =
        container_of(&mut ContainerCache::new(roots.clone()), init).expect("its cgroup names a container");
    assert_eq!((silent.runtime, &silent.id, &silent.name), (None, &name(&id), &None));

    let asking = || ContainerCache::with_api(roots.clone(), Api::new(&roots));
    let container = container_of(&mut asking(), init).expect("a container");
    assert_eq!((container.runtime, &container.name), (Some(Runtime::Docker), &name("front")));
    assert_eq!((&container.id, &container.image), (&name(&id), &name("pidns-busybox:1")));

    docker.run(&[&["exec", "--detach", &id], &SLEEP[..]].concat());
    let others = || processes_of(&id).into_iter().filter(|&pid| pid != init).collect::<Vec<_>>();
    wait_until("the added process", || others().len() == 1);
    let of_other = container_of(&mut asking(), others()[0]);
    assert_eq!(of_other.and_then(|found| found.name.clone()), name("front"));
}
