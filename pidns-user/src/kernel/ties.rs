//! What the iterators' programs write of holders of namespaces, as it comes.

use pidns_ebpf::abi::{
    DecodeError,
    ties::{HolderRecord, RootRecord, Tie, decode_tie},
};

use super::namespace_part::namespace_of;
use crate::{
    event::identity::{BootNs, HostPid},
    event::snapshot::{Snapshot, SnapshotNamespace},
    procfs::ties::{Root, Task, Ties},
};

/// Takes what is read, however it is cut.
pub(super) struct TieReader<'a> {
    snapshot: &'a Snapshot,
    found: Ties,
    /// The beginning of a record whose end has not been read.
    begun: Vec<u8>,
}

impl<'a> TieReader<'a> {
    /// For the processes of a snapshot, but for this one.
    pub(super) fn new(own: HostPid, snapshot: &'a Snapshot) -> Self {
        Self { snapshot, found: Ties::of_all_but(own), begun: Vec::new() }
    }

    /// Takes what was read.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let whole;
        let mut rest = if self.begun.is_empty() {
            bytes
        } else {
            whole = [&std::mem::take(&mut self.begun)[..], bytes].concat();
            &whole[..]
        };
        while !rest.is_empty() {
            match decode_tie(rest) {
                Ok((tie, behind)) => {
                    self.add(tie);
                    rest = behind;
                }
                Err(DecodeError::Truncated { .. }) => {
                    self.begun = rest.to_vec();
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What was found, all in all.
    pub(super) fn finish(self) -> Result<Ties, DecodeError> {
        match decode_tie(&self.begun) {
            Err(error) if !self.begun.is_empty() => Err(error),
            _ => Ok(self.found),
        }
    }

    fn add(&mut self, tie: Tie) {
        let Self { snapshot, found, begun: _ } = self;
        match tie {
            Tie::File(record) => {
                let (task, ns) = held(&record);
                found.add_file(task, record.fd, record.table, ns, snapshot);
            }
            Tie::Children(record) => {
                let (task, ns) = held(&record);
                found.add_children(task, ns, snapshot);
            }
            Tie::Root(record) => {
                let RootRecord { kind: _, tgid, tid, mount_ns, start_boot_ns, mount, folder } = record;
                let task = Task { pid: HostPid(tgid), tid, start_boot_ns: BootNs(start_boot_ns) };
                found.add_root(task, Root { mount_ns, mount, folder }, snapshot);
            }
        }
    }
}

/// Who holds, and the namespace.
fn held(record: &HolderRecord) -> (Task, SnapshotNamespace) {
    let HolderRecord { kind: _, tgid, tid, fd: _, start_boot_ns, table: _, ns } = *record;
    (Task { pid: HostPid(tgid), tid, start_boot_ns: BootNs(start_boot_ns) }, namespace_of(&ns))
}

#[cfg(test)]
mod tests {
    use pidns_ebpf::abi::{NamespacePart, ties};

    use super::*;
    use crate::event::{
        identity::NsInum,
        snapshot::{Holder, SnapshotProcess, SnapshotSource},
    };

    fn bytes<T: Copy>(record: T) -> Vec<u8> {
        // SAFETY: the records are plain integers without padding.
        unsafe { std::slice::from_raw_parts((&raw const record).cast(), size_of::<T>()) }.to_vec()
    }

    fn holder(kind: u32, fd: u32, inum: u32) -> Vec<u8> {
        let ns = NamespacePart {
            kernel_id: 0,
            init_start_boot_ns: 0,
            inum,
            level: 1,
            parent_inum: 7,
            user_ns_inum: 1,
            owner_uid: 0,
            reserved: 0,
        };
        let table = u64::from(kind == ties::KIND_FILE);
        bytes(HolderRecord { kind, tgid: 3, tid: 3, fd, start_boot_ns: 5, table, ns })
    }

    fn root() -> Vec<u8> {
        let kind = ties::KIND_ROOT;
        bytes(RootRecord { kind, tgid: 3, tid: 3, mount_ns: 9, start_boot_ns: 5, mount: 1, folder: 2 })
    }

    fn snapshot() -> Snapshot {
        let process = SnapshotProcess {
            start_boot_ns: Some(BootNs(5)),
            ns: Some(NsInum(7)),
            ..SnapshotProcess::bare(HostPid(3))
        };
        Snapshot { processes: vec![process], ..Snapshot::empty(SnapshotSource::Iterator, BootNs(0)) }
    }

    #[test]
    fn records_may_be_cut_anywhere() {
        let snapshot = snapshot();
        let all = [root(), holder(ties::KIND_CHILDREN, 0, 20), holder(ties::KIND_FILE, 4, 22)].concat();
        let whole = {
            let mut reader = TieReader::new(HostPid(1), &snapshot);
            reader.take(&all).expect("good records");
            format!("{:?}", reader.finish().expect("whole records"))
        };
        let fd = format!("{:?}", Holder::Fd { pid: HostPid(3), comm: None, fd: 4, tid: None });
        assert!(whole.contains(&fd), "{whole}");
        for size in 1..all.len() {
            let mut reader = TieReader::new(HostPid(1), &snapshot);
            all.chunks(size).for_each(|part| reader.take(part).expect("good records"));
            // Sets have no order: what is kept of holders has.
            let found = format!("{:?}", reader.finish().expect("whole records"));
            assert!(found.contains(&fd) && found.len() == whole.len(), "cut at {size}: {found}");
        }
    }

    #[test]
    fn a_record_without_its_end_is_damaged() {
        let snapshot = snapshot();
        for length in 1..root().len() {
            let mut reader = TieReader::new(HostPid(1), &snapshot);
            reader.take(&root()[..length]).expect("the rest may come");
            assert!(matches!(reader.finish(), Err(DecodeError::Truncated { .. })), "{length}");
        }
        let mut reader = TieReader::new(HostPid(1), &snapshot);
        assert!(reader.take(&[9, 0, 0, 0, 1, 1]).is_err(), "an unknown kind");
    }
}
