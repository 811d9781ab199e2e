//! The container in the path of a cgroup. Pure: the text of /proc/PID/cgroup in, a [`Place`] out.
//!
//! The text has a line per hierarchy, `NUMBER:CONTROLLERS:PATH` (cgroups(7)): one of number 0 with cgroup v2,
//! one a mounted hierarchy with v1, both kinds in hybrid. No path has a line feed: cgroup_mkdir
//! (kernel/cgroup/cgroup.c) refuses it. The rest may be any bytes.

mod segment;

use std::{collections::VecDeque, mem};

use self::segment::{Meaning, meaning};
use crate::{
    event::container::{Qos, Runtime},
    text::Name,
};

/// Most of the text that is read, bytes. A path is at most PATH_MAX (4,096), and Linux has 14 controllers.
const LONGEST_TEXT: usize = 128 << 10;
/// Most containers within each other that are reported; of more, the outermost are left out.
const DEEPEST: usize = 8;
/// Most folders of a path that names no container and yet may be a container's.
const MOST_CANDIDATES: usize = 4;

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Kubernetes' uid of it, with dashes; of a Podman pod, Podman's id.
    pub uid: Name,
    /// Absent for a Podman pod.
    pub qos: Option<Qos>,
}

impl Pod {
    /// Whether it is Kubernetes'.
    pub fn is_kubelets(&self) -> bool {
        self.qos.is_some()
    }
}

/// One container that a cgroup is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layer {
    /// Absent where the path does not have it, as with Kubernetes' cgroupfs driver.
    pub runtime: Option<Runtime>,
    /// Its id; of LXC and nspawn its name.
    pub id: Name,
    /// containerd's namespace, where the path has it.
    pub runtime_namespace: Option<Name>,
    /// The pod it is in.
    pub pod: Option<Pod>,
    /// The user whose systemd manager it is under: it is that user's, rootless.
    pub user: Option<u32>,
    /// The path of the container's own cgroup: all its processes are in this or below.
    pub path: Vec<u8>,
}

/// A folder that may be named after a container: what runc and containerd make of an id that they are given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// The folder's name.
    pub id: Name,
    /// The name of the folder it is in: with containerd, its namespace.
    pub parent: Option<Name>,
    /// The path to it.
    pub path: Vec<u8>,
}

/// Where a process is, by its cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// The containers it is in, the outermost first.
    pub containers: VecDeque<Layer>,
    /// The innermost systemd unit, as systemd writes its name, unless it is the container's own scope.
    pub unit: Option<Name>,
    /// The user whose systemd manager it is under, inside the container where that has its own.
    pub user: Option<u32>,
    /// Where no container is named: the innermost folders that are no unit's, the innermost first.
    pub candidates: Vec<Candidate>,
    /// Where one is named: the same of the folders around all of them.
    pub around: Vec<Candidate>,
}

impl Place {
    /// The container it is in.
    pub fn innermost(&self) -> Option<&Layer> {
        self.containers.back()
    }

    fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.unit.is_none() && self.candidates.is_empty()
    }
}

/// The place in the text of a /proc/PID/cgroup; none where the process is in a root.
///
/// Of several hierarchies, the one with most containers is believed, as not every runtime uses all
/// of them; of equals, first v2, then systemd's own, then the others in their order. But where one shows that
/// the process watches over a container, no other makes it a part of that: nspawn has folders of their own
/// for the two in the main hierarchy alone.
pub fn parse(text: &[u8]) -> Option<Place> {
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
    let watches = |place: &Place| place.innermost().is_some_and(|layer| watched.contains(&layer.path));
    let rank = |place: &Place| (place.containers.len(), place.unit.is_some());
    places
        .into_iter()
        .filter(|place| !place.is_empty() && !watches(place))
        // The first of equals, where max_by_key would take the last.
        .reduce(|best, place| if rank(&best) < rank(&place) { place } else { best })
}

/// The path of a line, and the rank of its hierarchy.
fn path_of(line: &[u8]) -> Option<(u8, &[u8])> {
    let mut parts = line.splitn(3, |&byte| byte == b':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let order = match (number, controllers) {
        (b"0", b"") => 0,
        (_, b"name=systemd") => 1,
        _ => 2,
    };
    // v2 shows this for a zombie whose cgroup was removed (Documentation/admin-guide/cgroup-v2.rst, "Processes").
    let path = if order == 0 { path.strip_suffix(b" (deleted)").unwrap_or(path) } else { path };
    path.starts_with(b"/").then_some((order, path))
}

/// The place of one path; adds to `watched` the cgroup of the container that a process there watches over.
fn walk(path: &[u8], watched: &mut Vec<Vec<u8>>) -> Place {
    let mut place = Place::default();
    let mut pod = None;
    let mut candidates = VecDeque::new();
    let mut parent: &[u8] = b"";
    let mut end = 0;
    for segment in path.split(|&byte| byte == b'/') {
        let start = end;
        end = start + segment.len() + 1;
        // A reader in another cgroup namespace sees what is above its own root as `..`.
        if matches!(segment, b"" | b"." | b"..") {
            continue;
        }
        let path = &path[..start + segment.len()];
        match meaning(segment, parent) {
            Meaning::Container { runtime, id, runtime_namespace, pod: own_pod } => {
                if place.containers.len() == DEEPEST {
                    place.containers.pop_front();
                }
                place.containers.push_back(Layer {
                    runtime,
                    id: Name::from(&*id),
                    runtime_namespace: runtime_namespace.map(Name::from),
                    pod: own_pod.or_else(|| pod.take()),
                    user: place.user,
                    path: path.to_vec(),
                });
                // What comes below is the container's own: its units, its users.
                (place.unit, place.user, pod) = (None, None, None);
                if place.containers.len() == 1 {
                    place.around = mem::take(&mut candidates).into();
                }
                candidates.clear();
            }
            Meaning::Monitor => {
                place.unit = segment.ends_with(b".scope").then(|| Name::from(segment)).or(place.unit.take());
                candidates.clear();
            }
            Meaning::MonitorWithin(runtime) => {
                if let Some(left) = place.containers.pop_back_if(|inner| inner.runtime == Some(runtime)) {
                    place.user = left.user;
                    watched.push(left.path);
                }
            }
            Meaning::Pod(found) => pod = Some(found),
            Meaning::User(uid) => place.user = Some(uid),
            Meaning::Unit { name, user } => {
                place.unit = Some(Name::from(name));
                place.user = user.or(place.user);
                candidates.clear();
            }
            Meaning::Slice => {}
            Meaning::Folder => {
                if candidates.len() == MOST_CANDIDATES {
                    candidates.pop_back();
                }
                let parent = (!parent.is_empty()).then(|| Name::from(parent));
                candidates.push_front(Candidate { id: Name::from(segment), parent, path: path.to_vec() });
            }
        }
        parent = segment;
    }
    if place.containers.is_empty() {
        place.candidates = candidates.into();
        place.around.clear();
    }
    place
}
