//! Reads the arguments of processes.

use std::{fs, io::Read as _};

use super::Procfs;
use crate::{
    event::identity::{BootNs, ProcessKey},
    text::Name,
};

/// Limit in bytes: a process can write anything there.
const LONGEST: usize = 4096;

impl Procfs {
    /// The arguments of this process. Empty for kernel threads and zombies; `None` if the process is gone or another
    /// one has its PID.
    pub fn arguments(&self, process: ProcessKey) -> Option<Vec<Name>> {
        let file = fs::File::open(self.path(process.pid, "cmdline")).ok()?;
        let mut bytes = Vec::new();
        file.take(LONGEST as u64).read_to_end(&mut bytes).ok()?;
        // Check the start after reading: if the PID was reused meanwhile, the start differs.
        let start = BootNs::from_ticks(self.start_ticks(process.pid)?);
        start.is_same(process.start).then(|| parse(&bytes))
    }
}

fn parse(bytes: &[u8]) -> Vec<Name> {
    let kept = &bytes[..bytes.len().min(LONGEST)];
    // A process can replace its arguments by a title, followed by spaces or NULs.
    let end = kept.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if end == 0 { Vec::new() } else { kept[..end].split(|byte| *byte == 0).map(Name::from).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::HostPid;

    #[test]
    fn arguments_are_separated_by_nuls() {
        let names = |list: &[&str]| list.iter().map(|name| Name::from(*name)).collect::<Vec<_>>();
        assert_eq!(parse(b"sh\0-c\0\0sleep 1\0"), names(&["sh", "-c", "", "sleep 1"]));
        assert_eq!(parse(b"nginx: worker process\0\0\0\0"), names(&["nginx: worker process"]));
        assert_eq!(parse(b""), Vec::new());
        assert_eq!(parse(&vec![b'x'; 10_000])[0].as_bytes().len(), LONGEST);
    }

    #[test]
    fn arguments_are_only_read_for_the_same_process() {
        let procfs = Procfs::default();
        let own = HostPid(std::process::id());
        let start = BootNs::from_ticks(procfs.start_ticks(own).expect("own stat"));
        let arguments = procfs.arguments(ProcessKey { pid: own, start }).expect("this process runs");
        let first = std::env::args_os().next().expect("a name");
        assert_eq!(arguments[0].as_bytes(), first.as_encoded_bytes());
        let earlier = ProcessKey { pid: own, start: BootNs::from_ticks(start.ticks() - 1) };
        assert_eq!(procfs.arguments(earlier), None, "an earlier process with this PID");
    }
}
