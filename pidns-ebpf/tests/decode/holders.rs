//! Records of the iterators of holders.

use pidns_ebpf::abi::{
    holders::{HolderItem, decode_holder},
    *,
};
use proptest::prelude::*;

use crate::records::*;

fn holder_record(kind: u32) -> Vec<u8> {
    let (fd, table) = if kind == holders::KIND_FILE { (5, 1 << 40) } else { (0, 0) };
    let ns = NamespacePart { level: 1, parent_inum: 4026531836, ..namespace() };
    bytes_of(&holders::HolderRecord { kind, tgid: 10, tid: 11, fd, start_boot_ns: 7, table, ns })
}

fn root_record() -> Vec<u8> {
    let kind = holders::KIND_ROOT;
    bytes_of(&holders::RootRecord {
        kind,
        tgid: 10,
        tid: 11,
        mount_ns: 9,
        start_boot_ns: 7,
        mount: 1,
        folder: 2,
    })
}

#[test]
fn ties_are_record_after_record_of_different_lengths() {
    let kinds = [holders::KIND_FILE, holders::KIND_CHILDREN];
    let bytes = [root_record(), kinds.map(holder_record).concat(), root_record()].concat();
    let (mut rest, mut found) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let (item, next) = decode_holder(rest).expect("a record");
        found.push(item);
        rest = next;
    }
    let [HolderItem::Root(root), HolderItem::File(file), HolderItem::Children(children), HolderItem::Root(_)] =
        found[..]
    else {
        panic!("{found:?}")
    };
    assert_eq!((root.mount_ns, root.mount, root.folder), (9, 1, 2));
    assert_eq!((file.tgid, file.tid, file.fd, file.table), (10, 11, 5, 1 << 40));
    assert_eq!((children.start_boot_ns, children.ns.parent_inum), (7, 4026531836));
}

#[test]
fn damaged_ties_are_refused() {
    for whole in [root_record(), holder_record(holders::KIND_FILE), holder_record(holders::KIND_CHILDREN)] {
        for length in 0..whole.len() {
            let cut = decode_holder(&whole[..length]);
            assert!(matches!(cut, Err(DecodeError::Truncated { .. })), "cut to {length}: {cut:?}");
        }
    }
    let damaged = |whole: Vec<u8>, place: usize, number: u32| {
        let mut bytes = whole;
        bytes[place..place + 4].copy_from_slice(&number.to_ne_bytes());
        decode_holder(&bytes).is_err()
    };
    // Kind, process, thread, then of the namespace its inode number, level, parent and padding.
    for (place, number) in [(0, 0), (0, 4), (4, 0), (8, 0), (48, 0), (52, 33), (52, 0), (56, 0), (76, 1)] {
        assert!(damaged(holder_record(holders::KIND_FILE), place, number), "{number} at {place}");
    }
    for place in [4, 8] {
        assert!(damaged(root_record(), place, 0), "0 at {place}");
    }
    for (place, what) in [(12, "a descriptor"), (24, "a table")] {
        assert!(damaged(holder_record(holders::KIND_CHILDREN), place, 1), "{what} where there is no file");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_tie_or_an_error(
        kind in 0_u32..6, bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [&kind.to_ne_bytes()[..], &bytes].concat();
        let mut rest = &bytes[..];
        while let Ok((_, next)) = decode_holder(rest) {
            prop_assert!(next.len() < rest.len());
            rest = next;
        }
    }
}
