//! Parses the files of a process.

use crate::event::identity::NsInum;

/// The used fields of /proc/PID/status. Fields may be missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Empty before Linux 4.1.
    pub(super) pids: Vec<u32>,
    pub(super) uid: Option<u32>,
    pub(super) threads: Option<u32>,
    /// The thread that traces the first one, as a PID in the namespace of this /proc.
    pub(super) tracer: Option<u32>,
}

/// The rest of the first line that begins with `label`. (The kernel escapes `Name:`, so a name cannot begin a line.)
pub(super) fn line<'a>(text: &'a [u8], label: &[u8]) -> Option<&'a [u8]> {
    text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(label))
}

pub(super) fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    str::from_utf8(text).ok()?.split_whitespace().next()?.parse().ok()
}

/// Returns `None` if the process is being reaped, because it has no PIDs any more.
pub(super) fn parse_status(text: &[u8]) -> Option<Status> {
    let pids = line(text, b"NSpid:").and_then(|pids| {
        str::from_utf8(pids).ok()?.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>().ok()
    });
    if pids.as_ref().is_some_and(|pids| pids.is_empty() || pids.contains(&0)) {
        return None;
    }
    Some(Status {
        pids: pids.unwrap_or_default(),
        uid: line(text, b"Uid:").and_then(number),
        threads: line(text, b"Threads:").and_then(number),
        // Without a tracer, or with one outside that namespace, the field is 0.
        tracer: line(text, b"TracerPid:").and_then(number).filter(|&tid| tid != 0),
    })
}

/// The used fields of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) comm: Vec<u8>,
    pub(super) state: char,
    pub(super) ppid: u32,
    /// `PF_*` of its first thread.
    pub(super) flags: u32,
    pub(super) start_ticks: u64,
}

/// The flag of a task that is exiting or has ended (include/linux/sched.h).
pub(super) const PF_EXITING: u32 = 4;

impl Stat {
    /// Whether its first thread is exiting but has not ended yet.
    pub(super) fn is_exiting(&self) -> bool {
        self.flags & PF_EXITING != 0 && !matches!(self.state, 'Z' | 'X')
    }
}

/// The name is in parentheses, and may contain parentheses, spaces and line feeds. So it ends at the last `)`.
pub(super) fn parse_stat(text: &[u8]) -> Option<Stat> {
    let begin = text.iter().position(|&byte| byte == b'(')? + 1;
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let comm = text.get(begin..end)?.to_vec();
    let fields: Vec<&str> = str::from_utf8(&text[end + 1..]).ok()?.split_whitespace().collect();
    Some(Stat {
        comm,
        state: fields.first()?.chars().next()?,
        ppid: fields.get(1)?.parse().ok()?,
        flags: fields.get(6)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// Parses `4026531836` in `pid:[4026531836]`.
pub(super) fn inum_of(link: &[u8]) -> Option<NsInum> {
    inode_of(link, b"pid:[").map(NsInum)
}

/// The same for namespaces of another type; `link` begins with `kind`.
pub(super) fn inode_of(link: &[u8], kind: &[u8]) -> Option<u32> {
    let digits = link.strip_prefix(kind)?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether a process with this status may trace all others (CAP_SYS_PTRACE).
pub(super) fn may_trace(status: &[u8]) -> bool {
    const CAP_SYS_PTRACE: u32 = 19;
    let set = line(status, b"CapEff:").and_then(|set| str::from_utf8(set).ok());
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set & (1 << CAP_SYS_PTRACE) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: &str = "S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4567 8 9";

    #[test]
    fn a_name_may_contain_anything() {
        for comm in [&b"sh"[..], b") S 1 (", b"a b", b"x\ny", b"((", b"\xff\xfe", b""] {
            let text = [b"12 (", comm, b") ", NUMBERS.as_bytes()].concat();
            let stat = parse_stat(&text).expect("a stat");
            let expected =
                Stat { comm: comm.to_vec(), state: 'S', ppid: 7, flags: 4_194_560, start_ticks: 4567 };
            assert_eq!(stat, expected);
        }
        for bad in [&b""[..], b"12 sh S 1", b"12 (sh", b")(", b"12 (sh) S", b"12 (sh) S x"] {
            assert_eq!(parse_stat(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_process_that_is_exiting_has_not_ended_yet() {
        let stat = |state, flags| {
            parse_stat(format!("1 (x) {state} 7 1 1 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 1 0 4567").as_bytes())
        };
        for (state, flags, expected) in
            [('S', 0x0040_0104, true), ('S', 0x0040_0100, false), ('Z', 0x0040_0104, false)]
        {
            assert_eq!(
                stat(state, flags).map(|stat| stat.is_exiting()),
                Some(expected),
                "{state} {flags:#x}"
            );
        }
    }

    #[test]
    fn a_status_without_pids_means_a_gone_process() {
        let status = |pids: &str| {
            format!("Name:\tx\\nUid:\t7\nTracerPid:\t9\nUid:\t1000\t0\t0\t0\nNSpid:\t{pids}\nThreads:\t3\n")
        };
        let found = parse_status(status("48121\t7\t1").as_bytes()).expect("a status");
        let known = Status { pids: vec![48121, 7, 1], uid: Some(1000), threads: Some(3), tracer: Some(9) };
        assert_eq!(found, known);
        for gone in ["", "0", "12\t0"] {
            assert_eq!(parse_status(status(gone).as_bytes()), None, "{gone:?}");
        }
        let known = Status { pids: Vec::new(), ..known };
        assert_eq!(parse_status(status("x").as_bytes()), Some(known), "the rest is known");
        for untraced in [&b"Name:\t\xff\n"[..], b"TracerPid:\t0\n", b"TracerPid:\t-1\n"] {
            assert_eq!(parse_status(untraced), Some(Status::default()));
        }
    }

    #[test]
    fn a_process_that_may_trace_all_has_the_capability() {
        assert!(may_trace(b"Name:\tx\nCapEff:\t000001fffeffffff\n"));
        assert!(!may_trace(b"Name:\tx\nCapEff:\t0000000000000000\n"));
        assert!(!may_trace(b"CapEff:\tx\n"));
    }
}
