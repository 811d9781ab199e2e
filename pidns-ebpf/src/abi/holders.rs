//! Records of the holder iterators, and their checked decoding.

use super::{
    decode::DecodeError,
    record::{MAX_LEVEL, NamespacePart},
};

/// A [`HolderRecord`]: a process has a namespace open as a file.
pub const KIND_FILE: u32 = 1;
/// A [`HolderRecord`]: a process's children will be born in a namespace that is not its own.
pub const KIND_CHILDREN: u32 = 2;
/// A [`RootRecord`].
pub const KIND_ROOT: u32 = 3;

/// A holder of a namespace, and that namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HolderRecord {
    /// `KIND_FILE` or `KIND_CHILDREN`.
    pub kind: u32,
    /// Thread group id of the holder.
    pub tgid: u32,
    /// The thread that holds it.
    pub tid: u32,
    /// The file descriptor; 0 for `KIND_CHILDREN`.
    pub fd: u32,
    /// `start_boottime` of the holder's first thread, nanoseconds.
    pub start_boot_ns: u64,
    /// Opaque id of the file table: threads that share one have the same id. 0 for `KIND_CHILDREN`.
    pub table: u64,
    /// The namespace.
    pub ns: NamespacePart,
}

const _: () = assert!(size_of::<HolderRecord>() == 80);

/// Root directory and mount namespace of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RootRecord {
    /// `KIND_ROOT`.
    pub kind: u32,
    /// Thread group id.
    pub tgid: u32,
    /// One of its threads that has not ended.
    pub tid: u32,
    /// Inode number of its mount namespace.
    pub mount_ns: u32,
    /// `start_boottime` of its first thread, nanoseconds.
    pub start_boot_ns: u64,
    /// Opaque id of the mount that its root directory is on.
    pub mount: u64,
    /// Opaque id of its root directory.
    pub folder: u64,
}

const _: () = assert!(size_of::<RootRecord>() == 40);

/// A decoded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderItem {
    /// A process has this namespace open.
    File(HolderRecord),
    /// A process's children will be born in this namespace.
    Children(HolderRecord),
    /// A process has this root directory and mount namespace.
    Root(RootRecord),
}

/// Decodes the first record of `bytes`; returns it and the remaining bytes.
pub fn decode_holder(bytes: &[u8]) -> Result<(HolderItem, &[u8]), DecodeError> {
    let kind = u32::from_ne_bytes(*bytes.first_chunk().ok_or_else(|| truncated::<u32>(bytes))?);
    match kind {
        KIND_FILE | KIND_CHILDREN => {
            // SAFETY: its fields are integers.
            let (record, rest) = unsafe { take::<HolderRecord>(bytes)? };
            check(&record)?;
            Ok((
                if kind == KIND_FILE { HolderItem::File(record) } else { HolderItem::Children(record) },
                rest,
            ))
        }
        KIND_ROOT => {
            // SAFETY: as above.
            let (record, rest) = unsafe { take::<RootRecord>(bytes)? };
            let RootRecord { kind: _, tgid, tid, mount_ns: _, start_boot_ns: _, mount: _, folder: _ } =
                record;
            if tgid == 0 || tid == 0 {
                return Err(DecodeError::Inconsistent { field: "process" });
            }
            Ok((HolderItem::Root(record), rest))
        }
        number => Err(DecodeError::Unknown { field: "kind", number }),
    }
}

fn check(record: &HolderRecord) -> Result<(), DecodeError> {
    let HolderRecord { kind, tgid, tid, fd, start_boot_ns: _, table, ns } = *record;
    let inconsistent = |field| Err(DecodeError::Inconsistent { field });
    if tgid == 0 || tid == 0 {
        return inconsistent("process");
    }
    if kind != KIND_FILE && (fd != 0 || table != 0) {
        return inconsistent("file");
    }
    if ns.reserved != 0 {
        return inconsistent("padding");
    }
    if ns.inum == 0 || ns.level > MAX_LEVEL || (ns.level == 0) != (ns.parent_inum == 0) {
        return inconsistent("namespace");
    }
    Ok(())
}

fn truncated<T>(bytes: &[u8]) -> DecodeError {
    DecodeError::Truncated { needed: size_of::<T>(), found: bytes.len() }
}

/// # Safety
/// Any bytes must be a valid `T`.
unsafe fn take<T>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    let (record, rest) = bytes.split_at_checked(size_of::<T>()).ok_or_else(|| truncated::<T>(bytes))?;
    // SAFETY: `record` holds size_of::<T>() bytes, any bytes are a T per this function's contract, and read_unaligned
    // needs no alignment.
    Ok((unsafe { record.as_ptr().cast::<T>().read_unaligned() }, rest))
}
