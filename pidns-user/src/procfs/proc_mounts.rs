//! Mounts of proc: each shows a PID namespace, to any reader, and keeps that namespace's structure.

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
    mountinfo::{Mount, hides_processes, unescape},
    parse::{inum_of, parse_status},
    reach::{MountPlace, device_at},
};
use crate::{
    event::identity::{HostPid, NsInum},
    event::snapshot::{ProcMount, Unnamed, WhyUnnamed},
    text::Name,
};

/// What was found of all mounts of proc. A file system of that type shows one namespace, so that one mount stands for all
/// that have its device number. (Of one namespace there can be many, since 5.8.)
#[derive(Debug, Default)]
pub(super) struct ProcMounts(BTreeMap<u64, BTreeMap<u32, Places>>);

/// Where one proc is mounted in one mount namespace.
#[derive(Debug, Default)]
struct Places {
    /// The root of proc is, and not only a folder or file in it.
    whole: bool,
    found: Vec<FoundProc>,
    /// How many more there are.
    left_out: u64,
}

/// Most places that are kept of a proc in a mount namespace: who is root in one can mount it 100,000 times.
const MOST_PLACES: usize = 24;
/// Most of its mounts that are read for the namespace that a proc shows.
const MOST_LOOKS: usize = 64;

#[derive(Debug)]
struct FoundProc {
    mount: ProcMount,
    /// The place, as this process reaches it.
    reached: MountPlace,
    /// It does not show processes to who may not trace them.
    hides: bool,
}

/// Which namespace a proc shows.
#[derive(Clone, Copy)]
enum ShownNamespace {
    /// The one of this number.
    Namespace(NsInum),
    /// One that this process's own is within.
    Outside,
    /// One that is not known.
    Unnamed(WhyUnnamed),
}

impl ProcMounts {
    /// Adds a mount of a mountinfo, read of the process `pid`, from whose root it is `reached`. A proc of which parts are
    /// mounted beside the whole (as container runtimes do, to protect them) is covered by the whole.
    pub(super) fn add(&mut self, mount: &Mount<'_>, mount_ns: u32, pid: HostPid, reached: MountPlace) {
        if mount.kind != b"proc" {
            return;
        }
        let places = self.0.entry(mount.device).or_default().entry(mount_ns).or_default();
        match (mount.root == b"/", places.whole) {
            (false, _) if !places.found.is_empty() => return,
            (true, false) => *places = Places { whole: true, ..Places::default() },
            _ => {}
        }
        if places.found.len() == MOST_PLACES {
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

    /// The mounts, each with the number of the namespace that it shows, and those of which that is not known. `own` is the
    /// device of this process's own /proc, and the namespace that it shows; `may_trace`: no process is hidden from this one.
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
                        // Those that are left out are counted at the last one.
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

/// What mounted procs show.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Each with the number of the namespace.
    pub(super) holding: Vec<(NsInum, ProcMount)>,
    /// How many more show a namespace.
    pub(super) left_out: Vec<(NsInum, u64)>,
    /// Those of which it is not known.
    pub(super) unnamed: Vec<Unnamed>,
}

/// The device of a /proc, if it is one.
pub(super) fn device_of(root: &Path) -> Option<u64> {
    let is_proc = statfs(root).is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC);
    if is_proc { stat(root).ok().map(|found| found.st_dev) } else { None }
}

/// What one of these mounts, all of one device, shows. What may not be read of one may be read of another, by which a
/// process gets there.
fn shown<'a>(device: u64, everywhere: impl Iterator<Item = &'a Places>, may_trace: bool) -> ShownNamespace {
    let mut why = WhyUnnamed::OutOfSight;
    let whole = everywhere.filter(|places| places.whole).flat_map(|places| &places.found);
    for found in whole.take(MOST_LOOKS) {
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
        // What is seen there is what was mounted last.
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

/// Opens what is in a proc, and of it: something else may be mounted over any of its files, with a server that does not answer.
fn open(folder: &OwnedFd, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat2(folder, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_XDEV)
}

/// The PID namespace that the link at this path in a proc names.
fn namespace_at(folder: &OwnedFd, path: &str) -> io::Result<NsInum> {
    let link = open(folder, path, OFlags::PATH | OFlags::NOFOLLOW)?;
    let text = readlinkat(&link, "", Vec::new())?;
    inum_of(text.as_bytes()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The PID namespace of its PID 1, whose own it is; `None` where it has none: no other process is left then, or was yet
/// born.
fn init_of(folder: &OwnedFd) -> io::Result<Option<NsInum>> {
    match namespace_at(folder, "1/ns/pid") {
        Ok(inum) => Ok(Some(inum)),
        Err(error) if is_gone(&error) => match open(folder, "1", OFlags::PATH | OFlags::NOFOLLOW) {
            // It is there, and its link is not: it is just being reaped.
            Ok(_) => Err(error),
            Err(Errno::NOENT | Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error),
    }
}

/// This process as that proc shows it, if it does: how many PIDs it has from that namespace inwards, so that with one it is
/// its own; and its own namespace.
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

    use super::{super::reach::Way, *};

    fn line(device: u64, root: &str, place: &str, options: &str) -> String {
        let (major, minor) = (libc::major(device), libc::minor(device));
        format!("80 27 {major}:{minor} {root} {place} rw - proc proc {options}\n")
    }

    fn reached(root: &Path, mount: &Mount<'_>) -> MountPlace {
        // The kernel has in its cache what was walked.
        let place = unescape(mount.place);
        let _ = fs::metadata(root.join(str::from_utf8(&place[1..]).expect("UTF-8")));
        MountPlace::new(root, mount, Way::Local)
    }

    /// The result for these mounts, all seen from where `root` is, but for their places.
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
        let device = fs::metadata(root.path()).expect("a folder").dev();
        fs::create_dir_all(root.path().join("my proc/1/ns")).expect("a folder");
        symlink("pid:[200]", root.path().join("my proc/1/ns/pid")).expect("a link");
        let mount = line(device, "/", "/my\\040proc", "rw");
        expect(found_at(root.path(), &mount, None, true), &[("/my proc", "200")]);
        // Elsewhere too, where something else has been mounted over it.
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
        let device = fs::metadata(root.path()).expect("a folder").dev();
        fs::create_dir(root.path().join("proc")).expect("a folder");
        let mount = |options| line(device, "/", "/proc", options);
        expect(found_at(root.path(), &mount("rw"), None, false), &[("/proc", "NoProcess")]);
        expect(found_at(root.path(), &mount("rw,hidepid=invisible"), None, true), &[("/proc", "NoProcess")]);
        expect(
            found_at(root.path(), &mount("rw,hidepid=invisible"), None, false),
            &[("/proc", "Unreadable")],
        );
        fs::create_dir(root.path().join("proc/1")).expect("a folder");
        expect(found_at(root.path(), &mount("rw"), None, true), &[("/proc", "Unreadable")]);
    }

    #[test]
    fn a_proc_that_keeps_its_pid_1_back_is_known_by_the_reader() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let device = fs::metadata(root.path()).expect("a folder").dev();
        // No link, so that reading it fails.
        fs::create_dir_all(root.path().join("proc/1/ns/pid")).expect("a folder");
        let mount = line(device, "/", "/proc", "rw");
        expect(found_at(root.path(), &mount, None, true), &[("/proc", "Unreadable")]);
        let reader = root.path().join("proc/self");
        fs::create_dir_all(reader.join("ns")).expect("a folder");
        symlink("pid:[300]", reader.join("ns/pid")).expect("a link");
        fs::write(reader.join("status"), "NSpid:\t77\n").expect("a file");
        expect(found_at(root.path(), &mount, None, true), &[("/proc", "300")]);
        fs::write(reader.join("status"), "NSpid:\t77\t1\n").expect("a file");
        expect(found_at(root.path(), &mount, None, true), &[]);
    }

    #[test]
    fn of_thousands_of_mounts_of_a_proc_some_are_kept_and_all_are_counted() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let device = fs::metadata(root.path()).expect("a folder").dev();
        fs::create_dir_all(root.path().join("proc/1/ns")).expect("a folder");
        symlink("pid:[200]", root.path().join("proc/1/ns/pid")).expect("a link");
        let text: String = line(device, "/bus", "/proc/bus", "rw")
            + &(0..100_000).map(|_| line(device, "/", "/proc", "rw")).collect::<String>();
        let mut mounts = ProcMounts::default();
        super::super::mountinfo::mounts(text.as_bytes())
            .for_each(|mount| mounts.add(&mount, 900, HostPid(20), reached(root.path(), &mount)));
        let resolved = mounts.resolve(None, true);
        assert_eq!(
            (resolved.holding.len(), resolved.left_out),
            (MOST_PLACES, vec![(NsInum(200), 100_000 - 24)])
        );
        let mut mounts = ProcMounts::default();
        let gone = text.replace("/proc rw", "/gone rw");
        super::super::mountinfo::mounts(gone.as_bytes())
            .for_each(|mount| mounts.add(&mount, 900, HostPid(20), reached(root.path(), &mount)));
        let unnamed = mounts.resolve(None, true).unnamed;
        let left_out: u64 = unnamed.iter().map(|unnamed| unnamed.left_out).sum();
        assert_eq!((unnamed.len(), left_out), (MOST_PLACES, 100_000 - 24));
    }

    #[test]
    fn a_mounted_part_of_a_proc_counts_as_the_whole() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let device = fs::metadata(root.path()).expect("a folder").dev();
        fs::create_dir(root.path().join("proc")).expect("a folder");
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
