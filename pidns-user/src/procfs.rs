//! Readers of /proc, under a root that a test can replace. A process that vanishes while it is read was never there; what
//! may not be read is counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use crate::{
    snapshot::{Holder, Namespace, Process, Snapshot, Source, Unread},
    text::Name,
};

/// A /proc.
#[derive(Clone, Debug)]
pub struct Procfs {
    root: PathBuf,
}

impl Default for Procfs {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl Procfs {
    /// The one that is mounted there.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its processes and their namespaces.
    pub fn snapshot(&self, boot_ns: u64) -> io::Result<Snapshot> {
        let mut unread = Unread::default();
        let mut namespaces = BTreeMap::new();
        let mut processes = Vec::new();
        for pid in self.pids()? {
            let Some(mut process) = self.process(pid) else { continue };
            match self.link(pid, "ns/pid") {
                Ok(inum) => {
                    process.ns = inum;
                    if let Some(inum) = inum
                        && !namespaces.contains_key(&inum)
                    {
                        self.describe(&self.path(pid, "ns/pid"), inum, process.level(), &mut namespaces);
                    }
                }
                Err(error) if is_denied(&error) => {}
                Err(_) => continue,
            }
            processes.push(process);
        }
        processes.sort_by_key(|process| process.pid);
        // Whoever has one PID only is in the namespace of this /proc, be its link readable or not.
        let outermost =
            processes.iter().filter(|process| process.level() == 0).find_map(|process| process.ns);
        for process in &mut processes {
            if process.ns.is_none() && process.level() == 0 {
                process.ns = outermost;
            }
            match process.ns {
                None => unread.namespaces += 1,
                Some(inum) if process.is_init() && !process.is_zombie() => {
                    if let Some(ns) = namespaces.get_mut(&inum) {
                        ns.born_boot_ns = Some(process.start_boot_ns);
                    }
                }
                Some(_) => {}
            }
        }
        Ok(Snapshot { source: Source::Proc, boot_ns, processes, namespaces, holders: Vec::new(), unread })
    }

    /// Adds the processes that the task iterator left out: kernels have been met that keep the machine's PID 1 from BPF
    /// programs. (And with them who was forked meanwhile.)
    pub fn add_left_out(&self, snapshot: &mut Snapshot) -> io::Result<()> {
        let known: BTreeSet<u32> = snapshot.processes.iter().map(|process| process.pid).collect();
        let outermost = snapshot.namespaces.values().find(|ns| ns.level == 0).map(|ns| ns.inum);
        for pid in self.pids()? {
            let Some(mut process) = (!known.contains(&pid)).then(|| self.process(pid)).flatten() else {
                continue;
            };
            match self.link(pid, "ns/pid") {
                Ok(inum) => process.ns = inum,
                Err(error) if is_denied(&error) => {}
                Err(_) => continue,
            }
            process.ns = process.ns.or(outermost.filter(|_| process.level() == 0));
            match process.ns {
                Some(inum) if !snapshot.namespaces.contains_key(&inum) => {
                    let file = self.path(pid, "ns/pid");
                    self.describe(&file, inum, process.level(), &mut snapshot.namespaces);
                }
                Some(_) => {}
                None => snapshot.unread.namespaces += 1,
            }
            snapshot.processes.push(process);
        }
        snapshot.processes.sort_by_key(|process| process.pid);
        Ok(())
    }

    /// Adds to the snapshot what holds namespaces, and those that exist by that alone. What this process itself holds
    /// it has from who started it.
    pub fn add_holders(&self, snapshot: &mut Snapshot) {
        let own = fs::read_link(self.root.join("self")).ok();
        let own = own.and_then(|link| link.to_str()?.parse::<u32>().ok());
        let mut mount_namespaces = BTreeSet::new();
        let mut found: Vec<(u32, Holder, PathBuf)> = Vec::new();
        for process in &snapshot.processes {
            let Process { pid, comm, ns, .. } = process;
            if process.is_zombie() || Some(*pid) == own {
                // A zombie has let go of all.
                continue;
            }
            let mut denied = false;
            match self.link(*pid, "ns/pid_for_children") {
                Ok(Some(inum)) if Some(inum) != *ns => {
                    let holder = Holder::PidForChildren { pid: *pid, comm: comm.clone() };
                    found.push((inum, holder, self.path(*pid, "ns/pid_for_children")));
                }
                Ok(_) => {}
                Err(error) => denied |= is_denied(&error),
            }
            match self.files(*pid) {
                Ok(files) => found.extend(files.into_iter().map(|(fd, inum)| {
                    let holder = Holder::Fd { pid: *pid, comm: comm.clone(), fd };
                    (inum, holder, self.path(*pid, &format!("fd/{fd}")))
                })),
                Err(error) => denied |= is_denied(&error),
            }
            snapshot.unread.files += u64::from(denied);
            match self.namespace_link(*pid, "ns/mnt", "mnt:[") {
                Ok(Some(mount_ns)) => {
                    if mount_namespaces.contains(&mount_ns) {
                        continue;
                    }
                    match fs::read(self.path(*pid, "mountinfo")) {
                        Ok(text) => {
                            mount_namespaces.insert(mount_ns);
                            found.extend(namespace_mounts(&text).into_iter().map(|(inum, path)| {
                                let inside = Path::new(OsStr::from_bytes(&path));
                                let inside = inside.strip_prefix("/").unwrap_or(inside);
                                let file = self.path(*pid, "root").join(inside);
                                (
                                    inum,
                                    Holder::Mount { path: Name::from(&path[..]), mount_ns, pid: *pid },
                                    file,
                                )
                            }));
                        }
                        Err(error) => snapshot.unread.mounts += u64::from(is_denied(&error)),
                    }
                }
                Ok(None) => {}
                Err(error) => snapshot.unread.mounts += u64::from(is_denied(&error)),
            }
        }
        for (inum, holder, file) in found {
            let known = snapshot.namespaces.get(&inum).is_some_and(|ns| ns.user_ns.is_some());
            if !known {
                self.describe(&file, inum, 1, &mut snapshot.namespaces);
            }
            snapshot.holders.push((inum, holder));
        }
        let children = snapshot.namespaces.values().filter_map(|ns| Some((ns.parent?, ns.inum)));
        snapshot.holders.extend(children.map(|(parent, ns)| (parent, Holder::Child { ns })));
        snapshot.holders.sort();
    }

    /// The thread group id of a thread, if there is such a thread.
    pub fn process_of_thread(&self, tid: u32) -> Option<u32> {
        let status = fs::read(self.path(tid, "status")).ok()?;
        number(line(&status, b"Tgid:")?)
    }

    fn path(&self, pid: u32, file: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(file)
    }

    fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(pids)
    }

    /// The process, but for its namespace; `None` where it is gone.
    fn process(&self, pid: u32) -> Option<Process> {
        let status = parse_status(&fs::read(self.path(pid, "status")).ok()?)?;
        let stat = parse_stat(&fs::read(self.path(pid, "stat")).ok()?)?;
        let Status { pids, uid, threads } = status;
        let Stat { comm, state, ppid, start_ticks } = stat;
        let ticks = u64::from(rustix::param::clock_ticks_per_second() as u32).max(1);
        Some(Process {
            pid,
            pids,
            comm: Name::from(&comm[..]),
            start_boot_ns: start_ticks.saturating_mul(1_000_000_000 / ticks),
            ppid: (ppid != 0).then_some(ppid),
            uid,
            ns: None,
            state,
            threads,
        })
    }

    /// The PID namespace that a link names; `None` where it names none, or the process is past having one.
    fn link(&self, pid: u32, file: &str) -> io::Result<Option<u32>> {
        self.namespace_link(pid, file, "pid:[")
    }

    fn namespace_link(&self, pid: u32, file: &str, kind: &str) -> io::Result<Option<u32>> {
        match fs::read_link(self.path(pid, file)) {
            Ok(link) => Ok(inum_of(link.as_os_str().as_bytes(), kind.as_bytes())),
            // A zombie's children go nowhere; and a namespace without an init yet is not shown.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.path(pid, "").exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The descriptors that are PID namespaces.
    fn files(&self, pid: u32) -> io::Result<Vec<(u32, u32)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.path(pid, "fd"))? {
            let entry = entry?;
            let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match fs::read_link(entry.path()) {
                Ok(link) => {
                    files.extend(inum_of(link.as_os_str().as_bytes(), b"pid:[").map(|inum| (fd, inum)));
                }
                Err(error) if is_denied(&error) => return Err(error),
                // Closed meanwhile.
                Err(_) => {}
            }
        }
        Ok(files)
    }

    /// Adds what the file of this namespace tells about it and those above it. `level` stands where it does not tell.
    fn describe(&self, file: &Path, inum: u32, level: u32, namespaces: &mut BTreeMap<u32, Namespace>) {
        let mut chain = Vec::new();
        let mut next = File::open(file).ok().map(OwnedFd::from);
        while let Some(fd) = next {
            let Some(found) = inode(&fd) else { break };
            if chain.is_empty() && found != inum {
                // The process is another one by now.
                break;
            }
            next = nsfs::parent(&fd);
            let owner = nsfs::owner(&fd);
            let user_ns = owner.as_ref().and_then(inode);
            chain.push(Namespace {
                kernel_id: nsfs::id(&fd),
                user_ns,
                owner_uid: owner.as_ref().and_then(nsfs::owner_uid),
                ..Namespace::bare(found, 0)
            });
        }
        if chain.is_empty() {
            namespaces.entry(inum).or_insert_with(|| Namespace::bare(inum, level));
            return;
        }
        // What is no namespace file (a test's) tells neither parents nor levels.
        let is_alone = chain.len() == 1 && chain[0].user_ns.is_none();
        let parents: Vec<Option<u32>> = chain.iter().skip(1).map(|ns| Some(ns.inum)).chain([None]).collect();
        let levels = (0..chain.len() as u32).rev();
        for ((mut ns, parent), depth) in chain.into_iter().zip(parents).zip(levels) {
            ns.parent = parent;
            ns.level = if is_alone { level } else { depth };
            match namespaces.get_mut(&ns.inum) {
                // Known by its number alone.
                Some(known) if known.user_ns.is_none() => {
                    ns.born_boot_ns = known.born_boot_ns;
                    *known = ns;
                }
                Some(_) => {}
                None => drop(namespaces.insert(ns.inum, ns)),
            }
        }
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn inode(fd: &OwnedFd) -> Option<u32> {
    let file = File::from(fd.try_clone().ok()?);
    u32::try_from(file.metadata().ok()?.ino()).ok()
}

/// The ioctls of namespace files (include/uapi/linux/nsfs.h).
mod nsfs {
    use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
    const NS_GET_ID: libc::Ioctl = 0x8008_b70d;

    fn file(fd: &OwnedFd, request: libc::Ioctl) -> Option<OwnedFd> {
        // SAFETY: a request without an argument, on a file that is open.
        let found = unsafe { libc::ioctl(fd.as_raw_fd(), request) };
        // SAFETY: the kernel just returned this descriptor, and nobody else has it.
        (found >= 0).then(|| unsafe { OwnedFd::from_raw_fd(found) })
    }

    fn value<T: Default>(fd: &OwnedFd, request: libc::Ioctl) -> Option<T> {
        let mut value = T::default();
        // SAFETY: an integer of the size that the request names, on a file that is open.
        (unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut value) } == 0).then_some(value)
    }

    /// `None` for the caller's own namespace, and for one that is not below it.
    pub(super) fn parent(fd: &OwnedFd) -> Option<OwnedFd> {
        file(fd, NS_GET_PARENT)
    }

    pub(super) fn owner(fd: &OwnedFd) -> Option<OwnedFd> {
        file(fd, NS_GET_USERNS)
    }

    pub(super) fn owner_uid(fd: &OwnedFd) -> Option<u32> {
        value(fd, NS_GET_OWNER_UID)
    }

    /// Since 6.18.
    pub(super) fn id(fd: &OwnedFd) -> Option<u64> {
        value(fd, NS_GET_ID)
    }
}

/// What is taken from /proc/PID/status.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    pids: Vec<u32>,
    uid: u32,
    threads: u32,
}

/// The rest of the first line that begins so. (`Name:` is escaped by the kernel: no name begins a line.)
fn line<'a>(text: &'a [u8], label: &[u8]) -> Option<&'a [u8]> {
    text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(label))
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    str::from_utf8(text).ok()?.split_whitespace().next()?.parse().ok()
}

/// `None` where it is being reaped: it has no PIDs any more.
fn parse_status(text: &[u8]) -> Option<Status> {
    let pids = str::from_utf8(line(text, b"NSpid:")?).ok()?;
    let pids: Vec<u32> = pids.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    if pids.is_empty() || pids.contains(&0) {
        return None;
    }
    Some(Status {
        pids,
        uid: number(line(text, b"Uid:")?)?,
        threads: line(text, b"Threads:").and_then(number).unwrap_or(0),
    })
}

/// What is taken from /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    comm: Vec<u8>,
    state: char,
    ppid: u32,
    start_ticks: u64,
}

/// The name stands in brackets, and may hold brackets, blanks and line ends: it goes to the last `)`.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let begin = text.iter().position(|&byte| byte == b'(')? + 1;
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let comm = text.get(begin..end)?.to_vec();
    let fields: Vec<&str> = str::from_utf8(&text[end + 1..]).ok()?.split_whitespace().collect();
    Some(Stat {
        comm,
        state: fields.first()?.chars().next()?,
        ppid: fields.get(1)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// `4026531836` of `pid:[4026531836]`.
fn inum_of(link: &[u8], kind: &[u8]) -> Option<u32> {
    let digits = link.strip_prefix(kind)?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// The PID namespaces that a mountinfo has mounted, and where.
fn namespace_mounts(text: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mounts = text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        // Of the file system its root, which is the namespace, then the place.
        let inum = inum_of(fields.nth(3)?, b"pid:[")?;
        let place = unescape(fields.next()?);
        let mut rest = fields.skip_while(|field| *field != b"-");
        (rest.nth(1)? == b"nsfs").then_some((inum, place))
    });
    mounts.collect()
}

/// A blank, tab, line end or backslash is `\` and three octal digits in mountinfo.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const NUMBERS: &str = "S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4567 8 9";

    #[test]
    fn a_name_may_hold_anything() {
        for comm in [&b"sh"[..], b") S 1 (", b"a b", b"x\ny", b"((", b"\xff\xfe", b""] {
            let text = [b"12 (", comm, b") ", NUMBERS.as_bytes()].concat();
            let stat = parse_stat(&text).expect("a stat");
            assert_eq!(stat, Stat { comm: comm.to_vec(), state: 'S', ppid: 7, start_ticks: 4567 });
        }
        for bad in [&b""[..], b"12 sh S 1", b"12 (sh", b")(", b"12 (sh) S", b"12 (sh) S x"] {
            assert_eq!(parse_stat(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_status_without_pids_is_of_nobody() {
        let status =
            |pids: &str| format!("Name:\tx\\nUid:\t7\nUid:\t1000\t0\t0\t0\nNSpid:\t{pids}\nThreads:\t3\n");
        let found = parse_status(status("48121\t7\t1").as_bytes()).expect("a status");
        assert_eq!(found, Status { pids: vec![48121, 7, 1], uid: 1000, threads: 3 });
        for gone in ["", "0", "12\t0", "x"] {
            assert_eq!(parse_status(status(gone).as_bytes()), None, "{gone:?}");
        }
        assert_eq!(parse_status(b"Name:\t\xff\n"), None);
    }

    #[test]
    fn mounted_namespaces_are_told_from_other_mounts() {
        let text = b"22 27 0:21 / /proc rw,relatime shared:12 - proc proc rw\n\
            80 27 0:4 pid:[4026532178] /run/a\\040b\\134c rw shared:3 master:1 - nsfs nsfs rw\n\
            81 27 0:4 mnt:[4026532179] /run/m rw - nsfs nsfs rw\n\
            82 27 0:5 pid:[4026532178] /run/liar rw - tmpfs tmpfs rw\n\
            83 27\n";
        assert_eq!(namespace_mounts(text), [(4026532178, b"/run/a b\\c".to_vec())]);
    }

    #[test]
    fn octal_that_is_none_stays() {
        for (text, bytes) in [(&b"a\\04"[..], &b"a\\04"[..]), (b"\\999", b"\\999"), (b"\\011\\012", b"\t\n")]
        {
            assert_eq!(unescape(text), bytes);
        }
    }

    /// A process in a /proc of files and links.
    fn put(root: &Path, pids: &[u32], ppid: u32, ns: Option<u32>) -> PathBuf {
        let folder = root.join(pids[0].to_string());
        fs::create_dir_all(folder.join("ns")).expect("a folder");
        fs::create_dir_all(folder.join("fd")).expect("a folder");
        let list = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join("\t");
        let status = format!("Name:\tx\nUid:\t5\t5\t5\t5\nNSpid:\t{list}\nThreads:\t1\n");
        fs::write(folder.join("status"), status).expect("a file");
        let numbers = NUMBERS.replacen('7', &ppid.to_string(), 1);
        fs::write(folder.join("stat"), format!("{} (x) {numbers}", pids[0])).expect("a file");
        if let Some(ns) = ns {
            symlink(format!("pid:[{ns}]"), folder.join("ns/pid")).expect("a link");
        }
        folder
    }

    #[test]
    fn a_replaced_root_is_read() {
        let root = tempfile::tempdir().expect("a temporary directory");
        put(root.path(), &[1], 0, Some(100));
        let holder = put(root.path(), &[20], 1, Some(100));
        put(root.path(), &[30, 1], 20, Some(200));
        fs::create_dir(root.path().join("40")).expect("a process that is gone");
        fs::write(root.path().join("version"), "x").expect("a file");
        symlink("pid:[300]", holder.join("fd/5")).expect("a link");
        symlink("/dev/null", holder.join("fd/6")).expect("a link");
        symlink("pid:[200]", holder.join("ns/pid_for_children")).expect("a link");
        symlink("mnt:[900]", holder.join("ns/mnt")).expect("a link");
        let mounts = "80 27 0:4 pid:[400] /run/it rw - nsfs nsfs rw\n";
        fs::write(holder.join("mountinfo"), mounts).expect("a file");

        let procfs = Procfs::at(root.path());
        let mut snapshot = procfs.snapshot(9).expect("a /proc");
        let pids: Vec<_> = snapshot.processes.iter().map(|process| (process.pid, process.ns)).collect();
        assert_eq!(pids, [(1, Some(100)), (20, Some(100)), (30, Some(200))]);
        assert_eq!(snapshot.processes[2].pids, [30, 1]);
        assert_eq!(snapshot.namespaces.keys().copied().collect::<Vec<_>>(), [100, 200]);
        assert_eq!(snapshot.namespaces[&200].level, 1);
        assert!(snapshot.unread.is_nothing());

        procfs.add_holders(&mut snapshot);
        let name = || Name::from("x");
        let expected = [
            (200, Holder::PidForChildren { pid: 20, comm: name() }),
            (300, Holder::Fd { pid: 20, comm: name(), fd: 5 }),
            (400, Holder::Mount { path: Name::from("/run/it"), mount_ns: 900, pid: 20 }),
        ];
        assert_eq!(snapshot.holders, expected);
        assert!(snapshot.namespaces.contains_key(&300) && snapshot.namespaces.contains_key(&400));
    }

    #[test]
    fn who_was_left_out_is_added() {
        let root = tempfile::tempdir().expect("a temporary directory");
        put(root.path(), &[1], 0, None);
        put(root.path(), &[20], 1, Some(100));
        put(root.path(), &[30, 1], 20, Some(200));
        put(root.path(), &[40, 1], 20, None);
        let procfs = Procfs::at(root.path());
        let mut snapshot = procfs.snapshot(0).expect("a /proc");
        let whole = snapshot.clone();
        assert_eq!(whole.processes[0].ns, Some(100), "who has one PID is in the outermost namespace");
        snapshot.processes.retain(|process| process.pid == 20);
        snapshot.namespaces.retain(|inum, _| *inum == 100);
        snapshot.unread = Unread::default();
        procfs.add_left_out(&mut snapshot).expect("a /proc");
        assert_eq!(snapshot.processes, whole.processes);
        assert_eq!(snapshot.unread.namespaces, 1);
        assert!(snapshot.namespaces.contains_key(&200));
    }

    #[test]
    fn a_root_that_is_not_there_is_an_error() {
        assert!(Procfs::at("/nowhere").snapshot(0).is_err());
    }
}
