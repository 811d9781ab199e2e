//! A container as events have it: its runtime, id, name, image and pod, and what it may be called.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::Name;

/// What runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// Docker: the daemon dockerd.
    Docker,
    /// containerd by itself: through Kubernetes, nerdctl or ctr.
    Containerd,
    /// CRI-O.
    Crio,
    /// Podman.
    Podman,
    /// LXC, and LXD and Incus, which use it.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
    /// A systemd unit: no container, but a PID namespace of its own is one setting away.
    Systemd,
    /// runc with nothing above it that is known.
    Runc,
    /// crun with nothing above it that is known.
    Crun,
}

impl Runtime {
    const ALL: [Self; 9] = [
        Self::Docker,
        Self::Containerd,
        Self::Crio,
        Self::Podman,
        Self::Lxc,
        Self::Nspawn,
        Self::Systemd,
        Self::Runc,
        Self::Crun,
    ];

    /// Its name in events and views.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Podman => "podman",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::Systemd => "systemd",
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }
}

impl Serialize for Runtime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One that only a later version knows is as good as unknown.
fn read_runtime<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Runtime>, D::Error> {
    let name = Cow::<str>::deserialize(deserializer)?;
    Ok(Runtime::ALL.into_iter().find(|runtime| runtime.name() == name))
}

fn read_qos<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Qos>, D::Error> {
    let name = Cow::<str>::deserialize(deserializer)?;
    Ok(Qos::ALL.into_iter().find(|qos| qos.name() == name))
}

/// The quality of service that Kubernetes gives a pod, as its cgroup says (kubelet's
/// `pod_container_manager_linux.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Qos {
    /// Every container has limits that equal its requests.
    Guaranteed,
    /// Some have requests or limits.
    Burstable,
    /// None has any.
    BestEffort,
}

impl Qos {
    const ALL: [Self; 3] = [Self::Guaranteed, Self::Burstable, Self::BestEffort];

    /// Its name in events.
    fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "guaranteed",
            Self::Burstable => "burstable",
            Self::BestEffort => "besteffort",
        }
    }
}

impl Serialize for Qos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// It holds a pod's namespaces together, and runs nothing but `pause`.
    Sandbox,
}

impl Role {
    const ALL: [Self; 1] = [Self::Sandbox];

    /// Its name in events.
    fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
        }
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

fn read_role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Role>, D::Error> {
    let name = Cow::<str>::deserialize(deserializer)?;
    Ok(Role::ALL.into_iter().find(|role| role.name() == name))
}

/// How a name matches a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// They are its name, id or label: in full or cut as it is shown, and of a rootless one with its user or without.
    So,
    /// They are the name of its pod, `namespace/pod`, or the pod's id.
    ByPod,
    /// Its id, which a daemon has made up, begins with them.
    Beginning,
}

/// A container, as far as it is known: `container` of the events. An absent fact is an absent field.
///
/// The names are chosen by the user who started it: bytes to be escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Absent where the cgroup names a container but not whose, and no file names one.
    #[serde(default, deserialize_with = "read_runtime", skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// The runtime's own id of it; of LXC and nspawn, its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Name>,
    /// What its user calls it; of a container in a pod, its name in the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The image it was made from, as it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Name>,
    /// Name of its Kubernetes pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Name>,
    /// Kubernetes namespace of that pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<Name>,
    /// Kubernetes' id of the pod, with dashes as it writes them; of a Podman pod, Podman's id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<Name>,
    /// What it is for, where it is not what its user wants to run.
    #[serde(default, deserialize_with = "read_role", skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// What the pod's cgroup says of its quality of service.
    #[serde(default, deserialize_with = "read_qos", skip_serializing_if = "Option::is_none")]
    pub qos: Option<Qos>,
    /// containerd's namespace, such as "default" or "k8s.io".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_namespace: Option<Name>,
    /// The innermost systemd unit, inside the container where that runs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Name>,
    /// The user whose systemd manager it is under: that of a rootless container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// Whether only its cgroup names it, which any process that may make cgroups can forge: no runtime's file and no daemon
    /// has confirmed it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_cgroup_alone: bool,
    /// The container that this one runs in, known by its cgroup alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer: Option<Box<Container>>,
    /// What could not be read or was not believed, each with the reason, for `explain`: no part of an event.
    #[serde(skip)]
    pub doubts: Vec<String>,
}

impl Container {
    /// Whether a runtime's file, or a daemon, has confirmed it.
    pub fn is_vouched(&self) -> bool {
        !self.by_cgroup_alone
    }

    /// Whether the two are one container, though more may be known of the one: they have the same id, or without ids the same
    /// name.
    pub fn is_same(&self, other: &Self) -> bool {
        let identity = |container: &Self| match &container.id {
            Some(id) => (container.runtime, Some(id.clone()), None),
            None => (container.runtime, container.name.clone(), container.user),
        };
        identity(self) == identity(other)
    }

    /// Whether it is a systemd unit, which is no container.
    pub fn is_unit(&self) -> bool {
        self.runtime == Some(Runtime::Systemd)
    }

    /// This as what a process runs in by its own cgroup, where the PID 1 of its namespace runs in `home`: `None` where that is
    /// the same. On the host, and where nothing is known of the PID 1, units are left out.
    pub fn beside(own: Arc<Self>, home: Option<&Self>) -> Option<Arc<Self>> {
        let is_other = match home {
            Some(home) => !own.is_same(home),
            None => !own.is_unit(),
        };
        is_other.then_some(own)
    }

    /// As views show it: `docker/web`, `k8s default/api-7f/app`, `k8s default/api-7f (sandbox)`, of a user's `podman(uid 1000)/web`, or with the beginning of
    /// the id where there is no name. Bytes to be escaped. A long one is cut.
    pub fn label(&self) -> Name {
        /// Longest label, bytes: it stands in a column.
        const LONGEST: usize = 128;
        let mut label = self.label_bytes(true);
        if label.len() > LONGEST {
            // Not within a character.
            let is_within = |byte: &u8| byte & 0xc0 == 0x80;
            let end = (LONGEST - 4..=LONGEST).rev().find(|&end| !is_within(&label[end])).unwrap_or(LONGEST);
            label.truncate(end);
            label.extend_from_slice("…".as_bytes());
        }
        Name::from(&label[..])
    }

    /// The label in full, with the user of a rootless one or without.
    fn label_bytes(&self, with_user: bool) -> Vec<u8> {
        /// As Docker and Podman shorten ids.
        const SHORT_ID: usize = 12;
        let mut label = Vec::new();
        let user = self.user.filter(|_| with_user).map(|uid| format!("(uid {uid})")).unwrap_or_default();
        if let Some(pod) = &self.pod {
            label.extend_from_slice(b"k8s");
            label.extend_from_slice(user.as_bytes());
            label.push(b' ');
            label.extend_from_slice(&self.pod_path(pod));
            match (self.role, &self.name) {
                (Some(Role::Sandbox), _) => label.extend_from_slice(b" (sandbox)"),
                (None, Some(name)) => {
                    label.push(b'/');
                    label.extend_from_slice(name.as_bytes());
                }
                (None, None) => {}
            }
            return label;
        }
        label.extend_from_slice(self.runtime.map_or("container", Runtime::name).as_bytes());
        label.extend_from_slice(user.as_bytes());
        label.push(b'/');
        match (&self.name, &self.id) {
            (Some(name), _) => label.extend_from_slice(name.as_bytes()),
            (None, Some(id)) if is_long_id(id.as_bytes()) => {
                label.extend_from_slice(&id.as_bytes()[..SHORT_ID])
            }
            (None, Some(id)) => label.extend_from_slice(id.as_bytes()),
            (None, None) => label.push(b'-'),
        }
        label
    }

    /// `namespace/pod`, or the pod alone where its namespace is not known.
    fn pod_path(&self, pod: &Name) -> Vec<u8> {
        let namespace = self.pod_namespace.as_ref();
        let namespace = namespace.map(|namespace| [namespace.as_bytes(), b"/"].concat()).unwrap_or_default();
        [&namespace, pod.as_bytes()].concat()
    }

    /// Its pod, as views show it: `k8s default/api-7f`, of Podman the pod's id. Bytes to be escaped.
    pub fn pod_label(&self) -> Option<Name> {
        let kubernetes = self.pod.as_ref().map(|pod| [b"k8s ", &*self.pod_path(pod)].concat());
        kubernetes.map(|label| Name::from(&label[..])).or_else(|| self.pod_uid.clone())
    }

    /// How a user who writes this means this container, if at all.
    pub fn called(&self, text: &str) -> Option<Called> {
        let text = text.as_bytes();
        if text.is_empty() {
            return None;
        }
        let is = |name: &Option<Name>| name.as_ref().is_some_and(|name| name.as_bytes() == text);
        let is_label = |label: &[u8]| label == text || label.strip_prefix(b"k8s ") == Some(text);
        let is_so = [&self.name, &self.id].into_iter().any(is)
            || is_label(self.label().as_bytes())
            || is_label(&self.label_bytes(true))
            || is_label(&self.label_bytes(false));
        if is_so {
            return Some(Called::So);
        }
        let is_pod = |pod: &Name| is_label(&[b"k8s ", &*self.pod_path(pod)].concat());
        if is(&self.pod) || is(&self.pod_uid) || self.pod.as_ref().is_some_and(is_pod) {
            return Some(Called::ByPod);
        }
        // An id that its user chose is a name, and no name is meant by its beginning.
        let is_made_up = |id: &&Name| is_long_id(id.as_bytes());
        let begins = self.id.as_ref().filter(is_made_up).is_some_and(|id| id.as_bytes().starts_with(text));
        begins.then_some(Called::Beginning)
    }

    /// Whether a user who writes this means this container.
    pub fn is_called(&self, text: &str) -> bool {
        self.called(text).is_some()
    }

    /// Whether it is called so, or runs in one that is.
    pub fn is_within(&self, target: &str) -> bool {
        self.is_called(target) || self.outer.as_ref().is_some_and(|outer| outer.is_within(target))
    }
}

/// Whether this is such an id as Docker, containerd's CRI, CRI-O and Podman make up: 64 hexadecimal digits.
pub(crate) fn is_long_id(id: &[u8]) -> bool {
    id.len() == 64 && is_hex(id)
}

pub(crate) fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docker(name: Option<&str>) -> Container {
        Container {
            runtime: Some(Runtime::Docker),
            id: Some(Name::from(&*"0123456789abcdef".repeat(4))),
            name: name.map(Name::from),
            ..Container::default()
        }
    }

    #[test]
    fn a_label_is_the_name_or_the_short_id_or_the_pod() {
        assert_eq!(docker(Some("web")).label(), Name::from("docker/web"));
        assert_eq!(docker(None).label(), Name::from("docker/0123456789ab"));
        let lxc = Container {
            runtime: Some(Runtime::Lxc),
            id: Some(Name::from("a-long-name")),
            ..Container::default()
        };
        assert_eq!(lxc.label(), Name::from("lxc/a-long-name"));
        let pod = Container {
            pod: Some(Name::from("api-7f")),
            pod_namespace: Some(Name::from("default")),
            ..docker(Some("api"))
        };
        assert_eq!(pod.label(), Name::from("k8s default/api-7f/api"));
        let sandbox = Container { role: Some(Role::Sandbox), name: Some(Name::from("POD")), ..pod.clone() };
        assert_eq!(sandbox.label(), Name::from("k8s default/api-7f (sandbox)"));
        assert_eq!(pod.pod_label(), Some(Name::from("k8s default/api-7f")));
        assert_eq!(Container::default().label(), Name::from("container/-"));
        let pod = Container { user: Some(1000), ..pod };
        assert_eq!(pod.label(), Name::from("k8s(uid 1000) default/api-7f/api"));
    }

    #[test]
    fn a_long_label_is_cut_and_finds_its_container_all_the_same() {
        let long = docker(Some(&"é".repeat(500)));
        let label = long.label();
        assert!((120..=131).contains(&label.as_bytes().len()), "{label:?}");
        let shown = str::from_utf8(label.as_bytes()).expect("no half of a character");
        assert!(shown.ends_with("é…"));
        for label in [shown, &format!("docker/{}", "é".repeat(500))] {
            assert_eq!(long.called(label), Some(Called::So), "{label}");
        }
        let bytes = Container { name: Some(Name::from(&[0xbf; 999][..])), ..docker(None) };
        assert_eq!(bytes.label().as_bytes().len(), 128 + 3);
    }

    #[test]
    fn the_label_of_a_users_container_has_its_user() {
        let own = docker(Some("web"));
        let users = Container { user: Some(1000), ..own.clone() };
        assert_eq!(users.label(), Name::from("docker(uid 1000)/web"));
        for label in ["docker(uid 1000)/web", "docker/web"] {
            assert_eq!(users.called(label), Some(Called::So), "{label}");
        }
        assert!(!own.is_called("docker(uid 1000)/web"));
    }

    #[test]
    fn a_claim_of_a_cgroup_is_known_as_such_from_a_recording_too() {
        let claim = Container { by_cgroup_alone: true, ..docker(None) };
        let read = |container| serde_json::from_str::<Container>(&serde_json::to_string(container).unwrap());
        assert!(!read(&claim).unwrap().is_vouched());
        assert!(read(&docker(None)).unwrap().is_vouched());
    }

    #[test]
    fn a_container_answers_to_its_name_its_label_and_the_beginning_of_its_id() {
        let web = docker(Some("web"));
        for name in ["web", "docker/web", &"0123456789abcdef".repeat(4)] {
            assert_eq!(web.called(name), Some(Called::So), "{name}");
        }
        for name in ["0123", "0123456789ab"] {
            assert_eq!(web.called(name), Some(Called::Beginning), "{name}");
            assert!(web.is_called(name), "{name}");
        }
        for name in ["", "we", "webs", "1234", "podman/web"] {
            assert_eq!(web.called(name), None, "{name}");
            assert!(!web.is_called(name), "{name}");
        }
        let pod = Container {
            pod: Some(Name::from("api-7f")),
            pod_namespace: Some(Name::from("default")),
            ..docker(Some("api"))
        };
        for name in ["api", "default/api-7f/api", "k8s default/api-7f/api"] {
            assert_eq!(pod.called(name), Some(Called::So), "{name}");
        }
        for name in ["api-7f", "default/api-7f", "k8s default/api-7f"] {
            assert_eq!(pod.called(name), Some(Called::ByPod), "{name}");
        }
        assert_eq!(pod.called("default/api"), None);
    }

    #[test]
    fn an_id_that_its_user_chose_is_not_meant_by_its_beginning() {
        for runtime in [Runtime::Lxc, Runtime::Runc] {
            let chosen =
                Container { runtime: Some(runtime), id: Some(Name::from("web-1")), ..Container::default() };
            assert_eq!((chosen.called("web"), chosen.called("web-1")), (None, Some(Called::So)));
        }
    }

    #[test]
    fn json_has_the_fields_of_the_contract_and_no_absent_ones() {
        let container = Container { doubts: vec!["never shown".to_owned()], ..docker(Some("web\u{1b}")) };
        let expected =
            format!(r#"{{"runtime":"docker","id":"{}","name":"web\u001b"}}"#, "0123456789abcdef".repeat(4));
        assert_eq!(serde_json::to_string(&container).unwrap(), expected);
        let pod =
            Container { qos: Some(Qos::BestEffort), runtime: Some(Runtime::Crio), ..Container::default() };
        assert_eq!(serde_json::to_string(&pod).unwrap(), r#"{"runtime":"crio","qos":"besteffort"}"#);
    }
}
