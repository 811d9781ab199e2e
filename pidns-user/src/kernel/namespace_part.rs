//! A namespace as the programs of a snapshot describe it.

use pidns_ebpf::abi::NamespacePart;

use crate::{
    event::identity::{BootNs, NsInum},
    event::snapshot::SnapshotNamespace,
};

pub(super) fn namespace_of(part: &NamespacePart) -> SnapshotNamespace {
    let NamespacePart {
        kernel_id,
        init_start_boot_ns,
        inum,
        level,
        parent_inum,
        user_ns_inum,
        owner_uid,
        reserved: _,
    } = *part;
    SnapshotNamespace {
        inum: NsInum(inum),
        level,
        parent: NsInum::known(parent_inum),
        born_boot_ns: BootNs::known(init_start_boot_ns),
        kernel_id: (kernel_id != 0).then_some(kernel_id),
        user_ns: (user_ns_inum != 0).then_some(user_ns_inum),
        owner_uid: (user_ns_inum != 0).then_some(owner_uid),
        dying: false,
        container: None,
    }
}
