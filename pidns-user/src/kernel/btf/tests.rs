use super::*;
use proptest::prelude::*;

fn running() -> Vec<u8> {
    std::fs::read(PATH).expect("the running kernel has BTF")
}

/// BTF of `struct outer { int a; struct { int b; char c[16]; }; }`.
fn small() -> Vec<u8> {
    let strings = b"\0outer\0a\0b\0c\0int\0char\0";
    let name = |wanted: &str| {
        let needle = [b"\0", wanted.as_bytes(), b"\0"].concat();
        strings.windows(needle.len()).position(|w| w == needle).unwrap() as u32 + 1
    };
    let words: Vec<u32> = [
        vec![name("int"), 1 << 24, 4, 32],
        vec![name("char"), 1 << 24, 1, 8],
        vec![0, 3 << 24, 0, 2, 1, 16],
        vec![0, 4 << 24 | 2, 20, name("b"), 1, 0, name("c"), 3, 32],
        vec![name("outer"), 4 << 24 | 2, 24, name("a"), 1, 0, 0, 4, 32],
    ]
    .concat();
    let types: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    assemble(&types, strings)
}

#[test]
fn fields_are_found_through_anonymous_members() {
    let bytes = small();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.field("outer", "a"), Ok(0));
    assert_eq!(btf.field("outer", "b"), Ok(4));
    assert_eq!(btf.field("outer", "c"), Ok(8));
    assert_eq!(btf.array_len("outer", "c"), Ok(16));
    assert_eq!(btf.size("outer"), Ok(24));
    assert!(matches!(btf.field("outer", "d"), Err(BtfError::NoField { .. })));
    assert_eq!(btf.field("none", "d"), Err(BtfError::NoType("none".to_owned())));
}

#[test]
fn the_running_kernel_has_all_required_types() {
    let bytes = running();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.array_len("task_struct", "comm"), Ok(16));
    assert_eq!(btf.size("upid"), Ok(16));
    assert_eq!(btf.field("upid", "nr"), Ok(0));
    assert_eq!(btf.enumerator("bpf_func_id", "BPF_FUNC_map_lookup_elem"), Ok(1));
    assert!(matches!(btf.enumerator("bpf_func_id", "BPF_FUNC_no_such"), Err(BtfError::NoField { .. })));
}

#[test]
fn an_index_of_a_few_names_answers_the_same() {
    let bytes = running();
    let all = Btf::parse(&bytes).unwrap();
    let few = Btf::parse_for(&bytes, &["task_struct", "upid", "release_task", "no_such"]).unwrap();
    for (structure, field) in [("task_struct", "comm"), ("task_struct", "signal"), ("upid", "ns")] {
        assert_eq!(few.field(structure, field), all.field(structure, field), "{structure}.{field}");
    }
    assert_eq!(few.size("upid"), all.size("upid"));
    assert_eq!(few.len(), all.len(), "their numbers are those of all types");
    assert_eq!(few.size("cred"), Err(BtfError::NoType("cred".to_owned())), "it was not wanted");
    assert_eq!(few.function("release_task"), Ok(all.functions(&["release_task"]).unwrap()["release_task"].0));
    assert_eq!(few.function("no_such"), Err(BtfError::NoType("no_such".to_owned())));
}

#[test]
fn foreign_data_is_distinguished_from_damaged_data() {
    assert!(matches!(Btf::parse(b"\x7fELF and more of it, a lot more"), Err(BtfError::Foreign(_))));
    assert!(matches!(Btf::parse(&[]), Err(BtfError::Foreign(_))));
    let bytes = small();
    let mut swapped = bytes.clone();
    swapped.swap(0, 1);
    assert!(matches!(Btf::parse(&swapped), Err(BtfError::Foreign(_))));
    for len in 2..bytes.len() {
        assert!(Btf::parse(&bytes[..len]).is_err(), "cut to {len} bytes");
    }
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0usize..200, byte: u8, name in "[a-d]") {
        let mut bytes = small();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(btf) = Btf::parse(&bytes) {
            let _ = btf.field("outer", &name);
            let _ = btf.array_len("outer", &name);
            let _ = btf.tracepoint(&name);
            let _ = btf.enumerator("outer", &name);
        }
    }
}
