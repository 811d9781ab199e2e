//! Parses mountinfo: the mounts that the processes of one mount namespace see (proc(5)).

use super::parse::inum_of;
use crate::event::identity::NsInum;

/// A mount. Its paths are escaped: use [`unescape`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mount<'a> {
    /// Its id, unique in all mount namespaces.
    pub(super) id: u32,
    /// The id of the parent mount.
    pub(super) parent: u32,
    /// The device of the file system, as in stat(2) of its files.
    pub(super) device: u64,
    /// The mounted part of the file system, as a path in it; for a namespace its name.
    pub(super) root: &'a [u8],
    /// The mount point.
    pub(super) place: &'a [u8],
    /// The file system's type.
    pub(super) kind: &'a [u8],
    /// The file system's options, separated by commas.
    pub(super) options: &'a [u8],
}

/// The mounts of a mountinfo in its order. If several have the same mount point, the last is visible.
pub(super) fn mounts(text: &[u8]) -> impl DoubleEndedIterator<Item = Mount<'_>> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let parent = str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let device = device(fields.next()?)?;
        let (root, place) = (fields.next()?, fields.next()?);
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let (kind, options) = (rest.next()?, rest.nth(1)?);
        Some(Mount { id, parent, device, root, place, kind, options })
    })
}

/// Parses `0:39`.
fn device(text: &[u8]) -> Option<u64> {
    let (major, minor) = str::from_utf8(text).ok()?.split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The mounted PID namespace, if this is one.
pub(super) fn namespace_of(mount: &Mount<'_>) -> Option<NsInum> {
    inum_of(mount.root).filter(|_| mount.kind == b"nsfs")
}

/// Whether a proc with these options hides processes that the reader may not trace (`hidepid`, proc(5)).
pub(super) fn hides_processes(options: &[u8]) -> bool {
    let hiding: [&[u8]; 4] = [b"hidepid=2", b"hidepid=invisible", b"hidepid=4", b"hidepid=ptraceable"];
    options.split(|&byte| byte == b',').any(|option| hiding.contains(&option))
}

/// Whether the file system that is mounted at `root` hides processes.
pub(super) fn hides_processes_at(mountinfo: &[u8], root: &[u8]) -> bool {
    let seen = mounts(mountinfo).rfind(|mount| unescape(mount.place) == root);
    seen.is_some_and(|mount| hides_processes(mount.options))
}

/// mountinfo writes a space, tab, line feed or backslash as `\` and three octal digits.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
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
    use super::*;

    #[test]
    fn mounted_namespaces_are_distinguished_from_other_mounts() {
        let text = b"22 27 0:21 / /proc rw,relatime shared:12 - proc proc rw\n\
            80 27 0:4 pid:[4026532178] /run/a\\040b\\134c rw shared:3 master:1 - nsfs nsfs rw\n\
            81 27 0:4 mnt:[4026532179] /run/m rw - nsfs nsfs rw\n\
            82 27 0:5 pid:[4026532178] /run/liar rw - tmpfs tmpfs rw\n\
            83 27\n";
        let found =
            mounts(text).filter_map(|mount| Some((mount.id, namespace_of(&mount)?, unescape(mount.place))));
        assert_eq!(found.collect::<Vec<_>>(), [(80, NsInum(4026532178), b"/run/a b\\c".to_vec())]);
    }

    #[test]
    fn a_proc_that_hides_processes_is_known_by_its_options() {
        let mount =
            |place: &str, options: &str| format!("22 27 0:21 / {place} rw shared:12 - proc proc {options}\n");
        for (text, hides) in [
            (mount("/proc", "rw"), false),
            (mount("/proc", "rw,hidepid=1"), false),
            (mount("/proc", "rw,hidepid=noaccess"), false),
            (mount("/proc", "rw,gid=5,hidepid=2"), true),
            (mount("/proc", "rw,hidepid=invisible"), true),
            (mount("/proc", "rw,hidepid=ptraceable"), true),
            (mount("/elsewhere", "rw,hidepid=invisible"), false),
            (mount("/proc", "rw,hidepid=invisible") + &mount("/proc", "rw"), false),
            ("22 27\n".to_owned(), false),
        ] {
            assert_eq!(hides_processes_at(text.as_bytes(), b"/proc"), hides, "{text}");
        }
    }

    #[test]
    fn invalid_escapes_stay_unchanged() {
        for (text, bytes) in [(&b"a\\04"[..], &b"a\\04"[..]), (b"\\999", b"\\999"), (b"\\011\\012", b"\t\n")]
        {
            assert_eq!(unescape(text), bytes);
        }
    }
}
