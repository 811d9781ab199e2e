//! Decodes the holders of namespaces that the iterators' programs write.

use pidns_ebpf::abi::{
    DecodeError,
    holders::{HolderItem, HolderRecord, RootRecord, decode_holder},
};

use super::namespace_part::namespace_of;
use crate::{
    event::identity::{BootNs, HostPid},
    event::snapshot::{Snapshot, SnapshotNamespace},
    procfs::kernel_holders::{KernelHolders, Root, Task},
};

/// Decodes records from pieces of any length.
pub(super) struct HolderReader<'a> {
    snapshot: &'a Snapshot,
    found: KernelHolders,
    /// Start of a record whose end was not read yet.
    begun: Vec<u8>,
}

impl<'a> HolderReader<'a> {
    /// For the processes of a snapshot, without this one.
    pub(super) fn new(own: HostPid, snapshot: &'a Snapshot) -> Self {
        Self { snapshot, found: KernelHolders::of_all_but(own), begun: Vec::new() }
    }

    /// Takes a piece that was read.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let whole;
        let mut rest = if self.begun.is_empty() {
            bytes
        } else {
            whole = [&std::mem::take(&mut self.begun)[..], bytes].concat();
            &whole[..]
        };
        while !rest.is_empty() {
            match decode_holder(rest) {
                Ok((item, behind)) => {
                    self.add(item);
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

    /// Returns everything that was found.
    pub(super) fn finish(self) -> Result<KernelHolders, DecodeError> {
        match decode_holder(&self.begun) {
            Err(error) if !self.begun.is_empty() => Err(error),
            _ => Ok(self.found),
        }
    }

    fn add(&mut self, item: HolderItem) {
        let Self { snapshot, found, begun: _ } = self;
        match item {
            HolderItem::File(record) => {
                let (task, ns) = held(&record);
                found.add_file(task, record.fd, record.table, ns, snapshot);
            }
            HolderItem::Children(record) => {
                let (task, ns) = held(&record);
                found.add_children(task, ns, snapshot);
            }
            HolderItem::Root(record) => {
                let RootRecord { kind: _, tgid, tid, mount_ns, start_boot_ns, mount, folder } = record;
                let task = Task { pid: HostPid(tgid), tid, start_boot_ns: BootNs(start_boot_ns) };
                found.add_root(task, Root { mount_ns, mount, folder }, snapshot);
            }
        }
    }
}

/// The holder and the namespace.
fn held(record: &HolderRecord) -> (Task, SnapshotNamespace) {
    let HolderRecord { kind: _, tgid, tid, fd: _, start_boot_ns, table: _, ns } = *record;
    (Task { pid: HostPid(tgid), tid, start_boot_ns: BootNs(start_boot_ns) }, namespace_of(&ns))
}

#[cfg(test)]
mod tests {
    use pidns_ebpf::abi::{NamespacePart, holders};

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
            pid_max: 0,
            pids_in_use: 0,
            reserved: 0,
        };
        let table = u64::from(kind == holders::KIND_FILE);
        bytes(HolderRecord { kind, tgid: 3, tid: 3, fd, start_boot_ns: 5, table, ns })
    }

    fn root() -> Vec<u8> {
        let kind = holders::KIND_ROOT;
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
        let all = [root(), holder(holders::KIND_CHILDREN, 0, 20), holder(holders::KIND_FILE, 4, 22)].concat();
        let whole = {
            let mut reader = HolderReader::new(HostPid(1), &snapshot);
            reader.take(&all).expect("good records");
            format!("{:?}", reader.finish().expect("whole records"))
        };
        let fd = format!("{:?}", Holder::Fd { pid: HostPid(3), comm: None, fd: 4, tid: None });
        assert!(whole.contains(&fd), "{whole}");
        for size in 1..all.len() {
            let mut reader = HolderReader::new(HostPid(1), &snapshot);
            all.chunks(size).for_each(|part| reader.take(part).expect("good records"));
            // Compare lengths, not contents: sets have no order.
            let found = format!("{:?}", reader.finish().expect("whole records"));
            assert!(found.contains(&fd) && found.len() == whole.len(), "cut at {size}: {found}");
        }
    }

    #[test]
    fn a_record_without_its_end_is_damaged() {
        let snapshot = snapshot();
        for length in 1..root().len() {
            let mut reader = HolderReader::new(HostPid(1), &snapshot);
            reader.take(&root()[..length]).expect("the rest may come");
            assert!(matches!(reader.finish(), Err(DecodeError::Truncated { .. })), "{length}");
        }
        let mut reader = HolderReader::new(HostPid(1), &snapshot);
        assert!(reader.take(&[9, 0, 0, 0, 1, 1]).is_err(), "an unknown kind");
    }
}
