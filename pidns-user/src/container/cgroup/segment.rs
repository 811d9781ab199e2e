//! Interprets one directory of a cgroup's path.
//!
//! A comment at each form names the source file that defines it. Ids that a daemon generates are 64 hexadecimal digits,
//! and only those are accepted: `docker-desktop.scope` and `crio-pull-image-7.scope` are not containers.

use std::borrow::Cow;

use super::Pod;
use crate::{
    event::container::{Qos, Runtime, is_hex, is_long_id},
    text::Name,
};

/// Meaning of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// A container's own cgroup.
    Container {
        runtime: Option<Runtime>,
        id: Cow<'a, [u8]>,
        runtime_namespace: Option<&'a [u8]>,
        /// The pod, if the directory itself names it.
        pod: Option<Pod>,
    },
    /// A process that monitors a container from outside.
    Monitor,
    /// A process that monitors a container, in a directory of the container's cgroup.
    MonitorWithin(Runtime),
    /// A pod's cgroup, with the containers below.
    Pod(Pod),
    /// The slice of a user.
    User(u32),
    /// A service, scope or other systemd unit that has processes. `user` is set for a user's manager.
    Unit { name: &'a [u8], user: Option<u32> },
    /// A unit that only contains other units.
    Slice,
    /// Any other directory.
    Folder,
}

/// Interprets a directory with this name in a parent with that name.
pub(super) fn meaning<'a>(segment: &'a [u8], parent: &'a [u8]) -> Meaning<'a> {
    // systemd adds this prefix if a name could be mistaken for a file of the kernel (cg_escape,
    // src/basic/cgroup-util.c).
    let unit = segment.strip_prefix(b"_").unwrap_or(segment);
    if let Some(meaning) = slice_prefix_name(segment) {
        return meaning;
    }
    if let Some(stem) = unit.strip_suffix(b".scope") {
        return scope(unit, stem, parent);
    }
    if let Some(stem) = unit.strip_suffix(b".slice") {
        return slice(stem);
    }
    if let Some(stem) = unit.strip_suffix(b".service") {
        return service(unit, stem);
    }
    if [".socket", ".mount", ".swap"].iter().any(|kind| unit.ends_with(kind.as_bytes())) {
        return Meaning::Unit { name: unit, user: None };
    }
    folder(segment, parent)
}

fn container<'a>(runtime: impl Into<Option<Runtime>>, id: impl Into<Cow<'a, [u8]>>) -> Meaning<'a> {
    Meaning::Container { runtime: runtime.into(), id: id.into(), runtime_namespace: None, pod: None }
}

/// For an OCI runtime with the systemd driver, `SLICE:PREFIX:NAME` denotes a scope. A runtime with the cgroupfs driver
/// creates a directory with exactly that name. containerd causes this if the kubelet uses the systemd driver
/// (getCgroupsPath, internal/cri/server/helpers.go).
fn slice_prefix_name(segment: &[u8]) -> Option<Meaning<'_>> {
    let mut parts = segment.rsplitn(3, |&byte| byte == b':');
    let (id, prefix, slice) = (parts.next()?, parts.next()?, parts.next()?);
    let runtime = scope_prefix(prefix).filter(|_| is_long_id(id))?;
    let pod = slice.strip_suffix(b".slice").and_then(pod_of_slice);
    let runtime_namespace = (prefix == b"cri-containerd").then_some(&b"k8s.io"[..]);
    Some(Meaning::Container { runtime: Some(runtime), id: Cow::Borrowed(id), runtime_namespace, pod })
}

/// Runtimes that create scopes with this prefix: Docker (daemon/oci_linux.go), containerd's CRI (above), nerdctl
/// (pkg/cmd/container/run_cgroup_linux.go), CRI-O (internal/config/cgmgr/cgmgr_linux.go), Podman
/// (libpod/container_internal_linux.go).
fn scope_prefix(prefix: &[u8]) -> Option<Runtime> {
    match prefix {
        b"docker" => Some(Runtime::Docker),
        b"cri-containerd" | b"nerdctl" => Some(Runtime::Containerd),
        b"crio" => Some(Runtime::Crio),
        b"libpod" => Some(Runtime::Podman),
        _ => None,
    }
}

fn scope<'a>(unit: &'a [u8], stem: &'a [u8], parent: &[u8]) -> Meaning<'a> {
    // CRI-O: internal/config/cgmgr/systemd_linux.go; Podman: libpod/oci_conmon_linux.go.
    let conmon = [&b"crio-conmon-"[..], b"libpod-conmon-"];
    if conmon.iter().any(|prefix| stem.strip_prefix(*prefix).is_some_and(is_long_id)) {
        return Meaning::Monitor;
    }
    if let Some(dash) = stem.iter().rposition(|&byte| byte == b'-') {
        let (prefix, id) = (&stem[..dash], &stem[dash + 1..]);
        if let Some(runtime) = scope_prefix(prefix).filter(|_| is_long_id(id)) {
            let runtime_namespace = (prefix == b"cri-containerd").then_some(&b"k8s.io"[..]);
            return Meaning::Container {
                runtime: Some(runtime),
                id: Cow::Borrowed(id),
                runtime_namespace,
                pod: None,
            };
        }
    }
    // runc (libcontainer/specconv/spec_linux.go) and crun (src/libcrun/cgroup-systemd.c) generate these names. The ids
    // come from their users.
    for (prefix, runtime) in [(&b"runc-"[..], Runtime::Runc), (b"crun-", Runtime::Crun)] {
        if let Some(id) = stem.strip_prefix(prefix).filter(|id| !id.is_empty()) {
            return container(runtime, unescape(id));
        }
    }
    // systemd-machined names a machine's scope like this (src/machine/machine.c). libvirt registers its virtual
    // machines there too, as machine-qemu\x2d1\x2dNAME (virSystemdMakeScopeName, src/util/virsystemd.c).
    if let Some(name) = stem.strip_prefix(b"machine-").filter(|_| parent == b"machine.slice") {
        let name = unescape(name);
        if !name.is_empty() && !name.starts_with(b"qemu-") {
            return match name.strip_prefix(b"lxc-") {
                Some(_) => container(Runtime::Lxc, name),
                None => container(Runtime::Nspawn, name),
            };
        }
    }
    Meaning::Unit { name: unit, user: None }
}

fn slice(stem: &[u8]) -> Meaning<'_> {
    if let Some(pod) = pod_of_slice(stem) {
        return Meaning::Pod(pod);
    }
    // systemd-logind makes user-1000.slice, and user-1000-… for its parts.
    let uid = stem.strip_prefix(b"user-").and_then(number);
    uid.map_or(Meaning::Slice, Meaning::User)
}

fn service<'a>(unit: &'a [u8], stem: &'a [u8]) -> Meaning<'a> {
    // units/systemd-nspawn@.service.in
    if let Some(name) = stem.strip_prefix(b"systemd-nspawn@").filter(|name| !name.is_empty()) {
        return container(Runtime::Nspawn, unescape(name));
    }
    Meaning::Unit { name: unit, user: stem.strip_prefix(b"user@").and_then(number) }
}

fn folder<'a>(segment: &'a [u8], parent: &'a [u8]) -> Meaning<'a> {
    // DEFAULT_PAYLOAD_CGROUP_PREFIX and DEFAULT_MONITOR_CGROUP_PREFIX, src/lxc/cgroups/cgroup.h, since LXC 4. LXC 3.1
    // had directories instead of prefixes. Before that, everything was in `lxc`.
    match parent {
        b"lxc.payload" | b"lxc" => return container(Runtime::Lxc, segment),
        b"lxc.monitor" => return Meaning::Monitor,
        _ => {}
    }
    if let Some(name) = segment.strip_prefix(b"lxc.payload.").filter(|name| !name.is_empty()) {
        return container(Runtime::Lxc, name);
    }
    if segment.starts_with(b"lxc.monitor.") || segment == b"lxc.monitor" {
        return Meaning::Monitor;
    }
    match segment {
        // nspawn moves itself here so that the machine can own its scope (src/nspawn/nspawn-cgroup.c).
        b"supervisor" => return Meaning::MonitorWithin(Runtime::Nspawn),
        // Podman's conmon. With the cgroupfs driver it is next to the containers; in old versions it was inside
        // (libpod/oci_conmon_linux.go).
        b"conmon" => return Meaning::MonitorWithin(Runtime::Podman),
        _ => {}
    }
    // Podman with --cgroups=split, and with the cgroupfs driver (libpod/container_internal_linux.go).
    for prefix in [&b"libpod-payload-"[..], b"libpod-"] {
        if let Some(id) = segment.strip_prefix(prefix).filter(|id| is_long_id(id)) {
            return container(Runtime::Podman, id);
        }
    }
    // A Podman pod with the cgroupfs driver (libpod/pod_internal_linux.go).
    if let Some(id) = segment.strip_prefix(b"libpod_pod_").filter(|id| is_long_id(id)) {
        return Meaning::Pod(Pod { uid: Name::from(id), qos: None });
    }
    // CRI-O with the cgroupfs driver (internal/config/cgmgr/cgroupfs_linux.go).
    if segment.strip_prefix(b"crio-conmon-").is_some_and(is_long_id) {
        return Meaning::Monitor;
    }
    if let Some(id) = segment.strip_prefix(b"crio-").filter(|id| is_long_id(id)) {
        return container(Runtime::Crio, id);
    }
    // The kubelet's cgroupfs driver: kubepods/[QOS/]podUID (pkg/kubelet/cm/pod_container_manager_linux.go).
    if let Some(uid) = segment.strip_prefix(b"pod").filter(|uid| is_pod_uid(uid)) {
        let qos = match parent {
            b"burstable" => Some(Qos::Burstable),
            b"besteffort" => Some(Qos::BestEffort),
            b"kubepods" => Some(Qos::Guaranteed),
            _ => None,
        };
        if qos.is_some() {
            return Meaning::Pod(Pod { uid: Name::from(uid), qos });
        }
    }
    if is_long_id(segment) {
        return match parent {
            b"docker" => container(Runtime::Docker, segment),
            // containerd's own default is /NAMESPACE/ID (oci.WithNamespaceCgroup). These are the namespaces of ctr and
            // nerdctl, and of Kubernetes. In other namespaces, only the files can confirm a container.
            b"default" | b"k8s.io" => Meaning::Container {
                runtime: Some(Runtime::Containerd),
                id: Cow::Borrowed(segment),
                runtime_namespace: Some(parent),
                pod: None,
            },
            _ => container(None, segment),
        };
    }
    // Amazon Fargate uses the task's id and a number.
    if let Some((task, number)) = segment.split_at_checked(32)
        && let Some(digits) = number.strip_prefix(b"-")
        && parent == task
        && is_hex(task)
        && (8..=10).contains(&digits.len())
        && digits.iter().all(u8::is_ascii_digit)
    {
        return container(None, segment);
    }
    Meaning::Folder
}

/// Returns the pod of a slice. The kubelet's systemd driver makes `[…-]kubepods[-QOS]-podUID`, with `_` for the dashes
/// of the uid (escapeSystemdCgroupName, pkg/kubelet/cm/cgroup_manager_linux.go). Podman makes `…-libpod_pod_ID`.
fn pod_of_slice(stem: &[u8]) -> Option<Pod> {
    let dash = stem.iter().rposition(|&byte| byte == b'-')?;
    let (above, last) = (&stem[..dash], &stem[dash + 1..]);
    if let Some(id) = last.strip_prefix(b"libpod_pod_").filter(|id| is_long_id(id)) {
        return Some(Pod { uid: Name::from(id), qos: None });
    }
    let uid: Vec<u8> =
        last.strip_prefix(b"pod")?.iter().map(|&byte| if byte == b'_' { b'-' } else { byte }).collect();
    let parts: Vec<&[u8]> = above.split(|&byte| byte == b'-').collect();
    let qos = match parts[..] {
        [.., b"kubepods", b"burstable"] => Qos::Burstable,
        [.., b"kubepods", b"besteffort"] => Qos::BestEffort,
        [.., b"kubepods"] => Qos::Guaranteed,
        _ => return None,
    };
    is_pod_uid(&uid).then(|| Pod { uid: Name::from(&uid[..]), qos: Some(qos) })
}

/// A UUID, or a hash of 32 digits for a pod from a file on the node (pkg/kubelet/config/common.go).
fn is_pod_uid(uid: &[u8]) -> bool {
    match uid.len() {
        32 => is_hex(uid),
        36 => uid.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        }),
        _ => false,
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?.parse().ok()
}

/// Undoes `\xNN` of unit names (systemd.unit(5), "String Escaping for Inclusion in Unit Names"). Other text stays
/// unchanged.
fn unescape(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.contains(&b'\\') {
        return Cow::Borrowed(name);
    }
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        if let [b'\\', b'x', high, low, tail @ ..] = rest
            && let Some(digits) =
                str::from_utf8(&[*high, *low]).ok().filter(|digits| !digits.starts_with('+'))
            && let Ok(byte) = u8::from_str_radix(digits, 16)
        {
            plain.push(byte);
            rest = tail;
        } else {
            plain.push(first);
            rest = tail;
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_other_text_stays() {
        for (escaped, plain) in [
            (&br"a\x2db"[..], &b"a-b"[..]),
            (br"\x2d", b"-"),
            (br"a\x2", br"a\x2"),
            (br"a\xzz\", br"a\xzz\"),
            (br"\x+1", br"\x+1"),
            (br"\\x41", br"\A"),
            (b"plain", b"plain"),
        ] {
            assert_eq!(&*unescape(escaped), plain, "{}", escaped.escape_ascii());
        }
    }

    #[test]
    fn a_pod_uid_is_a_uuid_or_a_hash() {
        assert!(is_pod_uid(b"2b801b7a-5266-4386-864e-45ed71136371"));
        assert!(is_pod_uid(b"0123456789abcdef0123456789abcdef"));
        for no in [
            &b"2b801b7a_5266_4386_864e_45ed71136371"[..],
            b"",
            b"2b801b7a",
            b"0123456789abcdef0123456789abcdeg",
        ] {
            assert!(!is_pod_uid(no), "{}", no.escape_ascii());
        }
    }
}
