//! Takes facts about a container from OCI annotations and from Docker's labels.

use std::collections::HashMap;

use crate::{
    event::container::{Container, Role, Runtime},
    text::Name,
};

/// Annotations, or labels.
pub(super) type Annotations = HashMap<String, String>;

/// Longest accepted name in bytes. Kubernetes allows 253, and image references stay below 1,024.
const LONGEST_NAME: usize = 1024;

/// A name as found; `None` if it is empty or too long.
pub(super) fn name(text: &str) -> Option<Name> {
    (!text.is_empty() && text.len() <= LONGEST_NAME).then(|| Name::from(text))
}

/// Annotations that contain the name of a container, the best first. The other facts have such a list too.
const NAME: &[&str] = &[
    // containerd's CRI: internal/cri/annotations/annotations.go
    "io.kubernetes.cri.container-name",
    // The kubelet's labels, which CRI-O and cri-dockerd pass on: pkg/kubelet/types/labels.go
    "io.kubernetes.container.name",
];
const IMAGE: &[&str] = &[
    "io.kubernetes.cri.image-name",
    "io.kubernetes.cri.podsandbox.image-name",
    // CRI-O, internal/annotations/annotations.go: a name of the image, and the requested image, which is often an id.
    "io.kubernetes.cri-o.ImageName",
    "io.kubernetes.cri-o.Image",
];
const POD: &[&str] =
    &["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name", "io.kubernetes.cri-o.KubeName"];
const POD_NAMESPACE: &[&str] =
    &["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace", "io.kubernetes.cri-o.Namespace"];
const POD_UID: &[&str] = &["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"];
/// The kind of a pod's container, according to containerd's CRI, CRI-O (internal/annotations/annotations.go) and
/// cri-dockerd (core/helpers.go).
const ROLE: &[&str] =
    &["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType", "io.kubernetes.docker.type"];
/// Values of [`ROLE`] that mean a pod's sandbox.
const SANDBOX: &[&str] = &["sandbox", "podsandbox"];
/// nerdctl: pkg/labels/labels.go
const NERDCTL_NAME: &[&str] = &["nerdctl/name"];
const NERDCTL_NAMESPACE: &[&str] = &["nerdctl/namespace"];
/// Name of the image (the OCI's image-spec, annotations.md). If the image was unpacked by hand, it is only the tag.
const REF_NAME: &[&str] = &["org.opencontainers.image.ref.name"];

/// The programs that manage the container. They decide which annotations can be trusted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Managers {
    pub(super) runtime: Option<Runtime>,
    /// Whether the container's cgroup is inside the cgroup of a pod, which the kubelet creates.
    pub(super) in_pod: bool,
}

/// Adds facts that are still unknown. An image's author chooses labels of Docker containers and annotations of Podman
/// containers. So Kubernetes' annotations only count inside a kubelet's pod. Other annotations do not count for Docker,
/// Podman and CRI-O, which store these facts elsewhere.
pub(super) fn fill(container: &mut Container, annotations: &Annotations, managers: Managers) {
    let is_sandbox =
        ROLE.iter().filter_map(|key| annotations.get(*key)).any(|role| SANDBOX.contains(&&**role));
    if managers.in_pod && is_sandbox {
        container.role = Some(Role::Sandbox);
    }
    let find = |keys: &[&str]| keys.iter().find_map(|key| name(annotations.get(*key)?));
    let add = |fact: &mut Option<Name>, keys| {
        if fact.is_none() {
            *fact = find(keys);
        }
    };
    if managers.in_pod {
        add(&mut container.name, NAME);
        add(&mut container.image, IMAGE);
        add(&mut container.pod, POD);
        add(&mut container.pod_namespace, POD_NAMESPACE);
        add(&mut container.pod_uid, POD_UID);
    }
    if !matches!(managers.runtime, Some(Runtime::Docker | Runtime::Podman | Runtime::Crio)) {
        add(&mut container.name, NERDCTL_NAME);
        add(&mut container.image, REF_NAME);
        add(&mut container.runtime_namespace, NERDCTL_NAMESPACE);
    }
}

/// The program that started runc or crun. Podman and CRI-O write their name into an annotation
/// (libpod/container_internal_common.go; internal/lib/constants/constants.go). containerd's CRI is recognized by its
/// other annotations.
pub(super) fn manager(annotations: &Annotations) -> Option<Runtime> {
    match annotations.get("io.container.manager").map(String::as_str) {
        Some("libpod") => Some(Runtime::Podman),
        Some("cri-o") => Some(Runtime::Crio),
        _ => annotations.contains_key("io.kubernetes.cri.container-type").then_some(Runtime::Containerd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pairs: &[(&str, &str)]) -> Container {
        filled_of(pairs, Managers { runtime: Some(Runtime::Containerd), in_pod: true })
    }

    fn filled_of(pairs: &[(&str, &str)], managers: Managers) -> Container {
        let mut container = Container::default();
        let annotations = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        fill(&mut container, &annotations, managers);
        container
    }

    #[test]
    fn kubernetes_names_come_from_each_of_its_runtimes() {
        let expected = Container {
            name: Some(Name::from("api")),
            image: Some(Name::from("registry.example/api:2")),
            pod: Some(Name::from("api-7f")),
            pod_namespace: Some(Name::from("default")),
            pod_uid: Some(Name::from("2b801b7a-5266-4386-864e-45ed71136371")),
            ..Container::default()
        };
        let containerd = filled(&[
            ("io.kubernetes.cri.container-type", "container"),
            ("io.kubernetes.cri.container-name", "api"),
            ("io.kubernetes.cri.image-name", "registry.example/api:2"),
            ("io.kubernetes.cri.sandbox-name", "api-7f"),
            ("io.kubernetes.cri.sandbox-namespace", "default"),
            ("io.kubernetes.cri.sandbox-uid", "2b801b7a-5266-4386-864e-45ed71136371"),
        ]);
        assert_eq!(containerd, expected);
        let crio = filled(&[
            ("io.kubernetes.container.name", "api"),
            ("io.kubernetes.cri-o.ImageName", "registry.example/api:2"),
            ("io.kubernetes.cri-o.Image", "sha256:0123"),
            ("io.kubernetes.pod.name", "api-7f"),
            ("io.kubernetes.pod.namespace", "default"),
            ("io.kubernetes.pod.uid", "2b801b7a-5266-4386-864e-45ed71136371"),
        ]);
        assert_eq!(crio, expected);
    }

    #[test]
    fn the_sandbox_of_a_pod_is_recognised_for_each_runtime() {
        for (key, value) in [
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("io.kubernetes.cri-o.ContainerType", "sandbox"),
            ("io.kubernetes.docker.type", "podsandbox"),
        ] {
            assert_eq!(filled(&[(key, value)]).role, Some(Role::Sandbox), "{key}");
            assert_eq!(filled(&[(key, "container")]).role, None, "{key}");
            let managers = Managers { runtime: Some(Runtime::Docker), in_pod: false };
            assert_eq!(filled_of(&[(key, value)], managers).role, None, "an image's label");
        }
    }

    #[test]
    fn labels_of_an_image_are_not_taken_for_kubernetes_annotations() {
        let image = [
            ("io.kubernetes.container.name", "coredns"),
            ("io.kubernetes.cri.image-name", "registry.example/coredns:1"),
            ("io.kubernetes.pod.name", "coredns"),
            ("io.kubernetes.pod.namespace", "kube-system"),
            ("io.kubernetes.pod.uid", "2b801b7a-5266-4386-864e-45ed71136371"),
            ("nerdctl/name", "web"),
            ("org.opencontainers.image.ref.name", "1.2"),
        ];
        for runtime in [Runtime::Docker, Runtime::Podman, Runtime::Crio] {
            let found = filled_of(&image, Managers { runtime: Some(runtime), in_pod: false });
            assert_eq!(found, Container::default(), "{runtime:?}");
        }
        let found = filled_of(&image, Managers { runtime: Some(Runtime::Containerd), in_pod: false });
        assert_eq!((found.name, found.image, found.pod), (name("web"), name("1.2"), None));
    }

    #[test]
    fn empty_and_overlong_names_are_ignored() {
        let long = "x".repeat(LONGEST_NAME + 1);
        assert_eq!(filled(&[("nerdctl/name", "")]), Container::default());
        assert_eq!(filled(&[("nerdctl/name", &long)]), Container::default());
        assert_eq!(filled(&[("nerdctl/name", &long[1..])]).name, name(&long[1..]));
        let second =
            filled(&[("io.kubernetes.cri-o.ImageName", ""), ("io.kubernetes.cri-o.Image", "sha256:01")]);
        assert_eq!(second.image, Some(Name::from("sha256:01")), "the next best");
    }
}
