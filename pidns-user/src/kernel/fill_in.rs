//! Patches the eBPF object before it is loaded: replaces placeholders in its instructions by offsets, switches and
//! calls of kfuncs.

use std::collections::HashMap;

use pidns_ebpf::abi::symbols::{kfunc_call, placeholder};

use super::kfuncs::Kfuncs;

/// Size of an instruction in bytes. Instructions are aligned to it in the object.
const INSTRUCTION: usize = 8;
/// `r0 = 0`, in place of a call. A kernel that lacks a kfunc refuses a program that calls it, even in code that never
/// runs.
const NOTHING: [u8; INSTRUCTION] = [0xb7, 0, 0, 0, 0, 0, 0, 0];
/// The first byte of `rN = number` (`BPF_ALU64 | BPF_MOV | BPF_K`, include/uapi/linux/bpf_common.h).
const SET_REGISTER: u8 = 0xb7;

/// An object, aligned as the ELF parser requires.
pub(super) struct Object {
    words: Vec<[u64; 4]>,
    len: usize,
}

impl Object {
    /// Copies `object` and replaces the placeholders by these numbers. Calls of kfuncs that the kernel lacks become
    /// [`NOTHING`].
    pub(super) fn with<'a>(
        object: &[u8],
        kfuncs: Kfuncs,
        numbers: impl IntoIterator<Item = (&'a str, u32)>,
    ) -> Self {
        let mut copy = Self { words: vec![[0; 4]; object.len().div_ceil(32)], len: object.len() };
        let bytes = copy.bytes_mut();
        bytes.copy_from_slice(object);
        let calls = kfuncs
            .numbers()
            .map(|(name, number)| (kfunc_call(placeholder(name)), number.map_or(NOTHING, kfunc_call)));
        let numbers: HashMap<u32, u32> =
            numbers.into_iter().map(|(name, number)| (placeholder(name), number)).collect();
        let (instructions, _) = bytes.as_chunks_mut::<INSTRUCTION>();
        for instruction in instructions {
            let [code, _, _, _, number @ ..] = instruction;
            if *code == SET_REGISTER {
                if let Some(filled_in) = numbers.get(&u32::from_le_bytes(*number)) {
                    *number = filled_in.to_le_bytes();
                }
            } else if let Some((_, call)) = calls.iter().find(|(call, _)| call == instruction) {
                *instruction = *call;
            }
        }
        copy
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the vector has at least `len` bytes, and all are initialized.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; every byte pattern is a valid integer.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use pidns_ebpf::abi::symbols::{
        IRQ_RESTORE, IRQ_SAVE, OFFSETS, PREEMPT_DISABLE, PREEMPT_ENABLE, SNAPSHOT_OFFSETS,
    };

    use super::{super::kfuncs::Pair, *};

    #[test]
    fn kfunc_placeholders_become_calls_by_the_kernels_numbers() {
        let other = [0x85, 0x10, 0, 0, 1, 0x64, 0x69, 0x70];
        let call = |name| kfunc_call(placeholder(name));
        let object =
            [call(PREEMPT_DISABLE), other, call(IRQ_SAVE), call(PREEMPT_ENABLE), call(IRQ_RESTORE)].concat();
        let filled_in = |kfuncs| Object::with(&object, kfuncs, []).bytes().to_vec();
        let preempt = Some(Pair { first: 0x1234, second: 0x1235 });
        let irq = Some(Pair { first: 0x1236, second: 0x1237 });
        let all = [0x1234, 0x1236, 0x1235, 0x1237].map(kfunc_call);
        assert_eq!(filled_in(Kfuncs { preempt, irq }), [all[0], other, all[1], all[2], all[3]].concat());
        let some = [all[0], other, NOTHING, all[2], NOTHING].concat();
        assert_eq!(filled_in(Kfuncs { preempt, irq: None }), some);
        assert_eq!(filled_in(Kfuncs::default()), [NOTHING, other, NOTHING, NOTHING, NOTHING].concat());
    }

    #[test]
    fn placeholders_become_numbers_in_any_register() {
        let set = |register: u8, number: u32| {
            let mut instruction = [SET_REGISTER, register, 0, 0, 0, 0, 0, 0];
            instruction[4..].copy_from_slice(&number.to_le_bytes());
            instruction
        };
        let object =
            [set(1, placeholder("A")), set(2, placeholder("B")), set(9, placeholder("A")), set(1, 7)];
        let filled_in = Object::with(&object.concat(), Kfuncs::default(), [("A", 24), ("B", u32::MAX)]);
        assert_eq!(filled_in.bytes(), [set(1, 24), set(2, u32::MAX), set(9, 24), set(1, 7)].concat());
    }

    #[test]
    fn a_tail_shorter_than_an_instruction_is_kept() {
        assert_eq!(Object::with(&[1, 2, 3], Kfuncs::default(), []).bytes(), [1, 2, 3]);
        assert!(Object::with(&[], Kfuncs::default(), []).bytes().is_empty());
    }

    #[test]
    fn no_two_offsets_have_the_same_placeholder() {
        let names: Vec<_> = OFFSETS.iter().chain(SNAPSHOT_OFFSETS).map(|offset| offset.symbol).collect();
        let distinct: HashSet<u32> = names.iter().map(|name| placeholder(name)).collect();
        assert_eq!(distinct.len(), names.len());
    }
}
