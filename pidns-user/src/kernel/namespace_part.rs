//! Converts the namespaces in the records of snapshots.

use pidns_ebpf::abi::NamespacePart;

use crate::{
    event::identity::{BootNs, NsInum},
    event::snapshot::{PidMax, SnapshotNamespace},
};

/// The largest `pid_max` of a 64-bit kernel (`PID_MAX_LIMIT`, include/linux/threads.h).
const PID_MAX_LIMIT: u32 = 4 << 20;

pub(super) fn namespace_of(part: &NamespacePart) -> SnapshotNamespace {
    let NamespacePart {
        kernel_id,
        init_start_boot_ns,
        inum,
        level,
        parent_inum,
        user_ns_inum,
        owner_uid,
        pid_max,
        pids_in_use,
        reserved: _,
    } = *part;
    // A namespace starts with the largest one, which cannot be reached: the host's is at most as high. The host's own
    // is in /proc.
    let has_lower = level > 0 && (1..PID_MAX_LIMIT).contains(&pid_max);
    SnapshotNamespace {
        inum: NsInum(inum),
        level,
        parent: NsInum::known(parent_inum),
        born_boot_ns: BootNs::known(init_start_boot_ns),
        kernel_id: (kernel_id != 0).then_some(kernel_id),
        user_ns: (user_ns_inum != 0).then_some(user_ns_inum),
        owner_uid: (user_ns_inum != 0).then_some(owner_uid),
        dying: false,
        pid_max: has_lower.then_some(PidMax { value: pid_max, current: pids_in_use }),
        container: None,
    }
}
