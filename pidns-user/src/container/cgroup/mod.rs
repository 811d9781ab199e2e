//! Finds the container in the path of a cgroup. Pure: takes the text of /proc/PID/cgroup, returns a [`ParsedCgroup`].
//!
//! The text has a line for each hierarchy, `NUMBER:CONTROLLERS:PATH` (cgroups(7)). cgroup v2 has one line with number
//! 0, v1 has one for each mounted hierarchy, a hybrid setup has both. A path contains no line feed, because
//! cgroup_mkdir (kernel/cgroup/cgroup.c) refuses it. Any other byte is possible.

mod segment;

use std::{collections::VecDeque, mem};

use self::segment::{Meaning, meaning};
use crate::{
    event::container::{Qos, Runtime},
    text::Name,
};

/// Maximum size of the text that is read, in bytes. A path has at most PATH_MAX (4,096), and Linux has 14 controllers.
const LONGEST_TEXT: usize = 128 << 10;
/// Limit for nested containers. Beyond that, the outermost are omitted.
const DEEPEST: usize = 8;
/// Limit for directories of a path that name no container but may belong to one.
const MAX_CANDIDATES: usize = 4;

/// A Kubernetes or Podman pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Kubernetes' uid with dashes, or Podman's id.
    pub uid: Name,
    /// Absent for a Podman pod.
    pub qos: Option<Qos>,
}

impl Pod {
    /// Whether it is a Kubernetes pod.
    pub fn is_kubernetes(&self) -> bool {
        self.qos.is_some()
    }
}

/// A container in the path of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layer {
    /// Absent if the path does not name it, as with Kubernetes' cgroupfs driver.
    pub runtime: Option<Runtime>,
    /// Its id. For LXC and nspawn, its name.
    pub id: Name,
    /// containerd's namespace, if the path names it.
    pub runtime_namespace: Option<Name>,
    /// The pod that it is in.
    pub pod: Option<Pod>,
    /// The user whose systemd manager runs it. Then it is that user's rootless container.
    pub user: Option<u32>,
    /// Path of the container's own cgroup. All its processes are in it or below.
    pub path: Vec<u8>,
}

/// A directory that may be named after a container, because runc and containerd use the given id as a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Name of the directory.
    pub id: Name,
    /// Name of its parent directory. For containerd, that is its namespace.
    pub parent: Option<Name>,
    /// Path of the directory.
    pub path: Vec<u8>,
}

/// The containers, unit and user of a process, according to the path of its cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ParsedCgroup {
    /// The containers that it is in, the outermost first.
    pub containers: VecDeque<Layer>,
    /// The innermost systemd unit, with the name that systemd uses, unless it is the container's own scope.
    pub unit: Option<Name>,
    /// The user whose systemd manager it belongs to. If the container has its own manager, the user inside.
    pub user: Option<u32>,
    /// If no container is named: the innermost directories that are not units, the innermost first.
    pub candidates: Vec<Candidate>,
    /// If a container is named: the same for the directories around all containers.
    pub around: Vec<Candidate>,
}

impl ParsedCgroup {
    /// The innermost container.
    pub fn innermost(&self) -> Option<&Layer> {
        self.containers.back()
    }

    fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.unit.is_none() && self.candidates.is_empty()
    }
}

/// Parses the text of a /proc/PID/cgroup; `None` if the process is in a root cgroup.
///
/// Not every runtime uses all hierarchies, so the hierarchy with the most containers wins. If several have as many, the
/// order is v2, then systemd's own, then the others as listed. But if one shows that the process monitors a container,
/// no other can make it a member of that: nspawn separates the two only in the main hierarchy.
pub fn parse(text: &[u8]) -> Option<ParsedCgroup> {
    let text = &text[..text.len().min(LONGEST_TEXT)];
    let mut paths: Vec<(u8, &[u8])> = text.split(|&byte| byte == b'\n').filter_map(path_of).collect();
    paths.sort_by_key(|&(order, _)| order);
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut places = Vec::new();
    let mut watched = Vec::new();
    for (_, path) in paths {
        if !seen.contains(&path) {
            seen.push(path);
            places.push(walk(path, &mut watched));
        }
    }
    let watches =
        |parsed: &ParsedCgroup| parsed.innermost().is_some_and(|layer| watched.contains(&layer.path));
    let rank = |parsed: &ParsedCgroup| (parsed.containers.len(), parsed.unit.is_some());
    places
        .into_iter()
        .filter(|parsed| !parsed.is_empty() && !watches(parsed))
        // `reduce` keeps the first of equal ones; `max_by_key` would take the last.
        .reduce(|best, parsed| if rank(&best) < rank(&parsed) { parsed } else { best })
}

/// Returns the path of a line and the rank of its hierarchy.
fn path_of(line: &[u8]) -> Option<(u8, &[u8])> {
    let mut parts = line.splitn(3, |&byte| byte == b':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let order = match (number, controllers) {
        (b"0", b"") => 0,
        (_, b"name=systemd") => 1,
        _ => 2,
    };
    // v2 adds this for a zombie whose cgroup was removed (Documentation/admin-guide/cgroup-v2.rst, "Processes").
    let path = if order == 0 { path.strip_suffix(b" (deleted)").unwrap_or(path) } else { path };
    path.starts_with(b"/").then_some((order, path))
}

/// Parses one path. Adds to `watched` the container's cgroup if a process with this path monitors that container.
fn walk(path: &[u8], watched: &mut Vec<Vec<u8>>) -> ParsedCgroup {
    let mut parsed = ParsedCgroup::default();
    let mut pod = None;
    let mut candidates = VecDeque::new();
    let mut parent: &[u8] = b"";
    let mut end = 0;
    for segment in path.split(|&byte| byte == b'/') {
        let start = end;
        end = start + segment.len() + 1;
        // A reader in another cgroup namespace sees `..` for directories above its own root.
        if matches!(segment, b"" | b"." | b"..") {
            continue;
        }
        let path = &path[..start + segment.len()];
        match meaning(segment, parent) {
            Meaning::Container { runtime, id, runtime_namespace, pod: own_pod } => {
                if parsed.containers.len() == DEEPEST {
                    parsed.containers.pop_front();
                }
                parsed.containers.push_back(Layer {
                    runtime,
                    id: Name::from(&*id),
                    runtime_namespace: runtime_namespace.map(Name::from),
                    pod: own_pod.or_else(|| pod.take()),
                    user: parsed.user,
                    path: path.to_vec(),
                });
                // Units and users below belong to the container itself.
                (parsed.unit, parsed.user, pod) = (None, None, None);
                if parsed.containers.len() == 1 {
                    parsed.around = mem::take(&mut candidates).into();
                }
                candidates.clear();
            }
            Meaning::Monitor => {
                parsed.unit =
                    segment.ends_with(b".scope").then(|| Name::from(segment)).or(parsed.unit.take());
                candidates.clear();
            }
            Meaning::MonitorWithin(runtime) => {
                if let Some(left) = parsed.containers.pop_back_if(|inner| inner.runtime == Some(runtime)) {
                    parsed.user = left.user;
                    watched.push(left.path);
                }
            }
            Meaning::Pod(found) => pod = Some(found),
            Meaning::User(uid) => parsed.user = Some(uid),
            Meaning::Unit { name, user } => {
                parsed.unit = Some(Name::from(name));
                parsed.user = user.or(parsed.user);
                candidates.clear();
            }
            Meaning::Slice => {}
            Meaning::Folder => {
                if candidates.len() == MAX_CANDIDATES {
                    candidates.pop_back();
                }
                let parent = (!parent.is_empty()).then(|| Name::from(parent));
                candidates.push_front(Candidate { id: Name::from(segment), parent, path: path.to_vec() });
            }
        }
        parent = segment;
    }
    if parsed.containers.is_empty() {
        parsed.candidates = candidates.into();
        parsed.around.clear();
    }
    parsed
}
