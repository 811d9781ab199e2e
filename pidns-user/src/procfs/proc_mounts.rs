//! Finds the namespaces that mounts of proc show. Such a mount shows its PID namespace to every reader, and keeps the
//! namespace's structure alive.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, openat2, readlinkat, stat, statfs},
    io::Errno,
};

use super::{
    is_gone,
    mount_paths::{MountPoint, device_at},
    mountinfo::{Mount, hides_processes, unescape},
    parse::{inum_of, parse_status},
};
use crate::{
    event::identity::{HostPid, NsInum},
    event::snapshot::{ProcMount, Unnamed, WhyUnnamed},
    text::Name,
};

/// All mounts of proc. A proc file system shows one namespace, so any mount with its device number can be read for it.
/// (Since 5.8, a namespace can have several such file systems.)
#[derive(Debug, Default)]
pub(super) struct ProcMounts(BTreeMap<u64, BTreeMap<u32, Places>>);

/// Mount points of one proc in one mount namespace.
#[derive(Debug, Default)]
struct Places {
    /// Whether the root of proc is mounted, and not only a directory or file in it.
    whole: bool,
    found: Vec<FoundProc>,
    /// Number of omitted mount points.
    left_out: u64,
}

/// Limit for mount points of a proc in one mount namespace. Root in a namespace can mount it 100,000 times.
const MAX_PLACES: usize = 24;
/// Limit for mounts of a proc that are tried to find its namespace.
const MAX_LOOKS: usize = 64;

#[derive(Debug)]
struct FoundProc {
    mount: ProcMount,
    /// The mount point, as this process reaches it.
    reached: MountPoint,
    /// Whether it hides processes that the reader may not trace.
    hides: bool,
}

/// The namespace that a proc shows.
#[derive(Clone, Copy)]
enum ShownNamespace {
    /// The namespace with this number.
    Namespace(NsInum),
    /// A namespace that contains this process's own.
    Outside,
    /// An unknown namespace.
    Unnamed(WhyUnnamed),
}

impl ProcMounts {
    /// Adds a mount of a mountinfo. It was read from the process `pid`, and is `reached` from that process's root. If
    /// parts of a proc are mounted next to the whole (container runtimes do this to protect them), only the whole
    /// counts.
    pub(super) fn add(&mut self, mount: &Mount<'_>, mount_ns: u32, pid: HostPid, reached: MountPoint) {
        if mount.kind != b"proc" {
            return;
        }
        let places = self.0.entry(mount.device).or_default().entry(mount_ns).or_default();
        match (mount.root == b"/", places.whole) {
            (false, _) if !places.found.is_empty() => return,
            (true, false) => *places = Places { whole: true, ..Places::default() },
            _ => {}
        }
        if places.found.len() == MAX_PLACES {
            places.left_out += 1;
            return;
        }
        let place = unescape(mount.place);
        places.found.push(FoundProc {
            reached,
            mount: ProcMount { path: Name::from(&place[..]), mount_ns, pid },
            hides: hides_processes(mount.options),
        });
    }

    /// Returns the mounts with the number of the namespace that each shows, and those whose namespace is unknown. `own`
    /// is the device of this process's /proc and its namespace. `may_trace`: no process is hidden from this one.
    pub(super) fn resolve(self, own: Option<(u64, NsInum)>, may_trace: bool) -> Resolved {
        let mut resolved = Resolved::default();
        for (device, everywhere) in self.0 {
            let shown = match own {
                Some((own, inum)) if own == device => ShownNamespace::Namespace(inum),
                _ => shown(device, everywhere.values(), may_trace),
            };
            for Places { found, left_out, .. } in everywhere.into_values() {
                let mounts = found.into_iter().map(|found| found.mount);
                match shown {
                    ShownNamespace::Namespace(inum) => {
                        resolved.holding.extend(mounts.map(|mount| (inum, mount)));
                        resolved.left_out.extend((left_out > 0).then_some((inum, left_out)));
                    }
                    ShownNamespace::Outside => {}
                    ShownNamespace::Unnamed(why) => {
                        // The last one carries the number of omitted mounts.
                        let of = |mount| Unnamed { mount, why, left_out: 0 };
                        resolved.unnamed.extend(mounts.map(of));
                        if let Some(last) = resolved.unnamed.last_mut() {
                            last.left_out = left_out;
                        }
                    }
                }
            }
        }
        resolved.unnamed.sort();
        resolved
    }
}

/// The result for mounted procs.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Mounts, each with the number of its namespace.
    pub(super) holding: Vec<(NsInum, ProcMount)>,
    /// Number of omitted mounts, by namespace.
    pub(super) left_out: Vec<(NsInum, u64)>,
    /// Mounts whose namespace is unknown.
    pub(super) unnamed: Vec<Unnamed>,
}

/// The device of a /proc, if it is a proc file system.
pub(super) fn device_of(root: &Path) -> Option<u64> {
    let is_proc = statfs(root).is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC);
    if is_proc { stat(root).ok().map(|found| found.st_dev) } else { None }
}

/// Finds the namespace that mounts of one device show. It may be readable through one process only.
fn shown<'a>(device: u64, everywhere: impl Iterator<Item = &'a Places>, may_trace: bool) -> ShownNamespace {
    let mut why = WhyUnnamed::OutOfSight;
    let whole = everywhere.filter(|places| places.whole).flat_map(|places| &places.found);
    for found in whole.take(MAX_LOOKS) {
        let folder = match found.reached.open() {
            Ok(folder) => folder,
            Err(Errno::NOENT) => continue,
            Err(Errno::AGAIN) => {
                why = WhyUnnamed::BehindServer;
                continue;
            }
            Err(_) => {
                why = WhyUnnamed::Unreadable;
                continue;
            }
        };
        // The last mount at a mount point is the visible one.
        if device_at(&folder, Path::new("")) != Ok(device) {
            continue;
        }
        match init_of(&folder) {
            Ok(Some(inum)) => return ShownNamespace::Namespace(inum),
            Ok(None) if may_trace || !found.hides => return ShownNamespace::Unnamed(WhyUnnamed::NoProcess),
            Ok(None) | Err(_) => match reader(&folder) {
                Some((1, inum)) => return ShownNamespace::Namespace(inum),
                Some(_) => return ShownNamespace::Outside,
                None => why = WhyUnnamed::Unreadable,
            },
        }
    }
    ShownNamespace::Unnamed(why)
}

/// Opens a file of a proc itself. Over it may be a mount whose server does not answer.
fn open(folder: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat2(folder, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_XDEV)
}

/// The PID namespace that the link at this path in a proc names.
fn namespace_at(folder: &OwnedFd, path: &str) -> io::Result<NsInum> {
    let link = open(folder, path, OFlags::PATH | OFlags::NOFOLLOW)?;
    let text = readlinkat(&link, "", Vec::new())?;
    inum_of(text.as_bytes()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The PID namespace of the proc's PID 1, which is the proc's own. `None` without a PID 1: then the namespace has no
/// process any more, or not yet.
fn init_of(folder: &OwnedFd) -> io::Result<Option<NsInum>> {
    match namespace_at(folder, "1/ns/pid") {
        Ok(inum) => Ok(Some(inum)),
        Err(error) if is_gone(&error) => match open(folder, "1", OFlags::PATH | OFlags::NOFOLLOW) {
            // PID 1 exists, but its link is gone: it is just being reaped.
            Ok(_) => Err(error),
            Err(Errno::NOENT | Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error),
    }
}

/// How the proc shows this process: with how many PIDs (one for each level from the proc's namespace inwards), and in
/// which namespace. If it has one PID, that is the proc's namespace. `None` if the proc does not show it.
fn reader(folder: &OwnedFd) -> Option<(usize, NsInum)> {
    let inum = namespace_at(folder, "self/ns/pid").ok()?;
    let status = open(folder, "self/status", OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).ok()?;
    let mut text = Vec::new();
    File::from(status).read_to_end(&mut text).ok()?;
    let pids = parse_status(&text)?.pids.len();
    (pids > 0).then_some((pids, inum))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, symlink},
    };

    use super::{super::mount_paths::PathKind, *};

    fn line(device: u64, root: &str, place: &str, options: &str) -> String {
        let (major, minor) = (libc::major(device), libc::minor(device));
        format!("80 27 {major}:{minor} {root} {place} rw - proc proc {options}\n")
    }

    fn reached(root: &Path, mount: &Mount<'_>) -> MountPoint {
        // Walking the path puts it into the kernel's cache.
        let place = unescape(mount.place);
        let _ = fs::metadata(root.join(str::from_utf8(&place[1..]).expect("UTF-8")));
        MountPoint::new(root, mount, PathKind::Local)
    }

    /// The result for these mounts, all seen from `root`.
    fn found_at(
        root: &Path,
        mountinfo: &str,
        own: Option<(u64, NsInum)>,
        may_trace: bool,
    ) -> Vec<(String, String)> {
        let mut mounts = ProcMounts::default();
        super::super::mountinfo::mounts(mountinfo.as_bytes())
            .for_each(|mount| mounts.add(&mount, 900, HostPid(20), reached(root, &mount)));
        let Resolved { holding, unnamed, .. } = mounts.resolve(own, may_trace);
        let place = |mount: &ProcMount| {
            assert_eq!((mount.mount_ns, mount.pid), (900, HostPid(20)));
            mount.path.for_terminal().to_string()
        };
        let holding = holding.iter().map(|(inum, mount)| (place(mount), inum.to_string()));
        let unnamed = unnamed.iter().map(|of| (place(&of.mount), format!("{:?}", of.why)));
        holding.chain(unnamed).collect()
    }

    #[track_caller]
    fn expect(found: Vec<(String, String)>, expected: &[(&str, &str)]) {
        let found: Vec<_> = found.iter().map(|(place, what)| (place.as_str(), what.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_proc_shows_the_namespace_of_its_pid_1() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let device = fs::metadata(root.path()).expect("read metadata").dev();
        fs::create_dir_all(root.path().join("my proc/1/ns")).expect("create a directory");
        symlink("pid:[200]", root.path().join("my proc/1/ns/pid")).expect("create a link");
        let mount = line(device, "/", "/my\\040proc", "rw");
        expect(found_at(root.path(), &mount, None, true), &[("/my proc", "200")]);
        // Another mount of the proc is found, even if something is mounted over this one.
        let more = line(device, "/", "/gone", "rw") + &mount + &line(device, "/", "/again", "rw");
        expect(
            found_at(root.path(), &more, None, true),
            &[("/gone", "200"), ("/my proc", "200"), ("/again", "200")],
        );
        let own = Some((device, NsInum(100)));
        expect(found_at(root.path(), &mount, own, true), &[("/my proc", "100")]);
        let other = line(device + 1, "/", "/my\\040proc", "rw");
        expect(found_at(root.path(), &other, own, true), &[("/my proc", "OutOfSight")]);
    }

    #[test]
    fn a_proc_without_a_pid_1_is_not_given_a_number() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let device = fs::metadata(root.path()).expect("read metadata").dev();
        fs::create_dir(root.path().join("proc")).expect("create a directory");
        let mount = |options| line(device, "/", "/proc", options);
        expect(found_at(root.path(), &mount("rw"), None, false), &[("/proc", "NoProcess")]);
        expect(found_at(root.path(), &mount("rw,hidepid=invisible"), None, true), &[("/proc", "NoProcess")]);
        expect(
            found_at(root.path(), &mount("rw,hidepid=invisible"), None, false),
            &[("/proc", "Unreadable")],
        );
        fs::create_dir(root.path().join("proc/1")).expect("create a directory");
        expect(found_at(root.path(), &mount("rw"), None, true), &[("/proc", "Unreadable")]);
    }

    #[test]
    fn a_proc_with_an_unreadable_pid_1_is_identified_by_the_reader() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let device = fs::metadata(root.path()).expect("read metadata").dev();
        // A directory instead of a link, so that reading it fails.
        fs::create_dir_all(root.path().join("proc/1/ns/pid")).expect("create a directory");
        let mount = line(device, "/", "/proc", "rw");
        expect(found_at(root.path(), &mount, None, true), &[("/proc", "Unreadable")]);
        let reader = root.path().join("proc/self");
        fs::create_dir_all(reader.join("ns")).expect("create a directory");
        symlink("pid:[300]", reader.join("ns/pid")).expect("create a link");
        fs::write(reader.join("status"), "NSpid:\t77\n").expect("write a file");
        expect(found_at(root.path(), &mount, None, true), &[("/proc", "300")]);
        fs::write(reader.join("status"), "NSpid:\t77\t1\n").expect("write a file");
        expect(found_at(root.path(), &mount, None, true), &[]);
    }

    #[test]
    fn some_of_thousands_of_proc_mounts_are_kept_and_all_are_counted() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let device = fs::metadata(root.path()).expect("read metadata").dev();
        fs::create_dir_all(root.path().join("proc/1/ns")).expect("create a directory");
        symlink("pid:[200]", root.path().join("proc/1/ns/pid")).expect("create a link");
        let text: String = line(device, "/bus", "/proc/bus", "rw")
            + &(0..100_000).map(|_| line(device, "/", "/proc", "rw")).collect::<String>();
        let mut mounts = ProcMounts::default();
        super::super::mountinfo::mounts(text.as_bytes())
            .for_each(|mount| mounts.add(&mount, 900, HostPid(20), reached(root.path(), &mount)));
        let resolved = mounts.resolve(None, true);
        assert_eq!(
            (resolved.holding.len(), resolved.left_out),
            (MAX_PLACES, vec![(NsInum(200), 100_000 - 24)])
        );
        let mut mounts = ProcMounts::default();
        let gone = text.replace("/proc rw", "/gone rw");
        super::super::mountinfo::mounts(gone.as_bytes())
            .for_each(|mount| mounts.add(&mount, 900, HostPid(20), reached(root.path(), &mount)));
        let unnamed = mounts.resolve(None, true).unnamed;
        let left_out: u64 = unnamed.iter().map(|unnamed| unnamed.left_out).sum();
        assert_eq!((unnamed.len(), left_out), (MAX_PLACES, 100_000 - 24));
    }

    #[test]
    fn a_mounted_part_of_a_proc_counts_as_the_whole() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let device = fs::metadata(root.path()).expect("read metadata").dev();
        fs::create_dir(root.path().join("proc")).expect("create a directory");
        let [whole, bus, sys] = [("/", "/proc"), ("/bus", "/proc/bus"), ("/sys", "/proc/sys")]
            .map(|(part, place)| line(device, part, place, "rw"));
        for all in [
            [&whole, &bus, &sys].map(String::as_str).concat(),
            [&bus, &whole, &sys].map(String::as_str).concat(),
        ] {
            expect(found_at(root.path(), &all, None, true), &[("/proc", "NoProcess")]);
        }
        expect(found_at(root.path(), &(bus + &sys), None, true), &[("/proc/bus", "OutOfSight")]);
    }
}
