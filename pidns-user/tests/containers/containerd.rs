//! containerd with ctr. The tests of Docker use it too.

use std::{fs, process::Command};

use pidns_user::container::{ContainerCache, Roots};
use pidns_user::event::container::Runtime;

use crate::{
    daemon::Daemon,
    scratch::{
        SLEEP, Scratch, assert_another_start_is_not_believed, name, output, process, run, sure_container_of,
        wait_until,
    },
};

/// containerd with separate directories and a separate socket for the test.
pub(crate) struct Containerd {
    _daemon: Daemon,
}

impl Containerd {
    pub(crate) fn start(scratch: &Scratch) -> Self {
        let config = scratch.path("containerd.toml");
        // Kubernetes' plugin is disabled, because it needs a network.
        fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")
            .expect("write the file");
        let mut containerd = Command::new("containerd");
        containerd.arg("--config").arg(config);
        for (option, name) in
            [("--root", "containerd-root"), ("--state", "containerd"), ("--address", "containerd.sock")]
        {
            containerd.arg(option).arg(scratch.path(name));
        }
        Self { _daemon: Daemon::start(scratch, &mut containerd, || ctr(scratch, "default", &["version"])) }
    }
}

/// The directories of this containerd's state, and of the state that ctr's shim has runc keep.
pub(crate) fn roots(scratch: &Scratch) -> Roots {
    Roots {
        containerd_tasks: scratch.path("containerd/io.containerd.runtime.v2.task"),
        containerd_runc: scratch.path("containerd-runc"),
        ..Roots::host()
    }
}

pub(crate) fn ctr(scratch: &Scratch, namespace: &str, args: &[&str]) -> Command {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(scratch.path("containerd.sock")).args(["--namespace", namespace]).args(args);
    ctr
}

/// A container started with ctr. Stopped on drop.
pub(crate) struct Running<'a> {
    scratch: &'a Scratch,
    namespace: &'a str,
    id: &'a str,
    pub(crate) pid: u32,
}

impl<'a> Running<'a> {
    fn start(scratch: &'a Scratch, namespace: &'a str, id: &'a str, annotations: &[&str]) -> Self {
        let options: Vec<&str> = annotations.iter().flat_map(|pair| ["--annotation", pair]).collect();
        Self::start_program(scratch, namespace, id, &options, &SLEEP)
    }

    /// Starts a container with these options of `ctr run` and this program.
    pub(crate) fn start_program(
        scratch: &'a Scratch,
        namespace: &'a str,
        id: &'a str,
        options: &[&str],
        program: &[&str],
    ) -> Self {
        let rootfs = scratch.rootfs();
        let rootfs = rootfs.to_str().expect("a plain name");
        let runc_root = scratch.arg("containerd-runc");
        let args = [
            &["run", "--detach", "--null-io", "--runc-root", &runc_root, "--rootfs"],
            options,
            &[rootfs, id],
            program,
        ]
        .concat();
        run(&mut ctr(scratch, namespace, &args));
        let tasks = run(&mut ctr(scratch, namespace, &["tasks", "list"]));
        let line = tasks.lines().find(|line| line.split_whitespace().next() == Some(id));
        let pid = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        Self { scratch, namespace, id, pid: pid.unwrap_or_else(|| panic!("no task {id}: {tasks}")) }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        output(&mut ctr(self.scratch, self.namespace, &["tasks", "kill", "--signal", "SIGKILL", self.id]));
        output(&mut ctr(self.scratch, self.namespace, &["tasks", "delete", "--force", self.id]));
        output(&mut ctr(self.scratch, self.namespace, &["containers", "delete", self.id]));
    }
}

#[test]
fn containerd_containers_have_their_namespace_and_annotations() {
    let scratch = Scratch::new();
    let _containerd = Containerd::start(&scratch);
    let id = format!("pidns-{}", std::process::id());
    let annotations = [
        "io.kubernetes.cri.container-name=api",
        "io.kubernetes.cri.sandbox-name=api-7f",
        "io.kubernetes.cri.sandbox-namespace=default",
        "io.kubernetes.cri.image-name=registry.example/api:2",
        "nerdctl/name=front",
        "org.opencontainers.image.ref.name=busybox:1",
    ];
    let plain = Running::start(&scratch, "default", &id, &[]);
    let named = Running::start(&scratch, "pidns-team", &id, &annotations);

    let mut cache = ContainerCache::new(roots(&scratch));
    let container = sure_container_of(&mut cache, plain.pid);
    assert_eq!((container.runtime, &container.id), (Some(Runtime::Containerd), &name(&id)));
    assert_eq!((&container.runtime_namespace, &container.name), (&name("default"), &None));
    let container = sure_container_of(&mut cache, named.pid);
    assert_eq!((container.runtime, &container.id), (Some(Runtime::Containerd), &name(&id)));
    assert_eq!((&container.runtime_namespace, &container.name), (&name("pidns-team"), &name("front")));
    assert_eq!(container.image, name("busybox:1"));
    assert_eq!(container.pod, None, "the kubelet did not make its cgroup");
    assert_another_start_is_not_believed(ContainerCache::new(roots(&scratch)), named.pid);

    let first = process(named.pid);
    drop(named);
    wait_until("the container's end", || !std::path::Path::new(&format!("/proc/{}", first.pid)).exists());
    assert_eq!(cache.last_known(first).and_then(|found| found.name.clone()), name("front"));
}

#[test]
fn containerds_bundle_names_the_container_if_runc_has_no_state() {
    let scratch = Scratch::new();
    let _containerd = Containerd::start(&scratch);
    let id = format!("pidns-shim-{}", std::process::id());
    let running = Running::start(&scratch, "default", &id, &["nerdctl/name=front"]);
    // A shim may run something other than runc.
    let roots = Roots { containerd_runc: scratch.path("nowhere"), ..roots(&scratch) };
    let container = sure_container_of(&mut ContainerCache::new(roots), running.pid);
    assert_eq!((container.runtime, &container.name), (Some(Runtime::Containerd), &name("front")));
}

#[test]
fn a_container_in_a_user_named_cgroup_is_found_by_its_state() {
    let scratch = Scratch::new();
    let _containerd = Containerd::start(&scratch);
    let id = format!("pidns-own-{}", std::process::id());
    let cgroup = format!("/chosen-by-the-user-{}", std::process::id());
    let running = Running::start_program(&scratch, "default", &id, &["--cgroup", &cgroup], &SLEEP);
    let text = fs::read_to_string(format!("/proc/{}/cgroup", running.pid)).expect("the process lives");
    assert!(text.contains(&cgroup) && !text.contains(&id), "the cgroup must not contain the id: {text}");
    let container = sure_container_of(&mut ContainerCache::new(roots(&scratch)), running.pid);
    assert_eq!((container.runtime, &container.id), (Some(Runtime::Containerd), &name(&id)), "{container:?}");
    assert_eq!(container.runtime_namespace, name("default"));
}
