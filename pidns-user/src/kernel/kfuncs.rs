//! The object with its calls of kfuncs filled in: aya 0.14 knows none.

use pidns_ebpf::abi::symbols::{
    IRQ_RESTORE_CALL, IRQ_SAVE_CALL, PREEMPT_DISABLE_CALL, PREEMPT_ENABLE_CALL, kfunc_call,
};

use super::btf::{Btf, BtfError, Prototype, Value};

/// BTF numbers of two kfuncs, of which the second undoes what the first did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    first: u32,
    second: u32,
}

/// The kfuncs that the object calls, as far as a kernel has them. A pair is there as a whole or not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kfuncs {
    /// bpf_preempt_disable and bpf_preempt_enable (6.10 and later).
    pub preempt: Option<Pair>,
    /// bpf_local_irq_save and bpf_local_irq_restore (6.14 and later).
    pub irq: Option<Pair>,
}

/// Turn preemption off and on.
const PREEMPT: [&str; 2] = ["bpf_preempt_disable", "bpf_preempt_enable"];
/// Turn interrupts off, and on if they were.
const IRQ: [&str; 2] = ["bpf_local_irq_save", "bpf_local_irq_restore"];
/// All their names.
pub const NAMES: [&str; 4] = [PREEMPT[0], PREEMPT[1], IRQ[0], IRQ[1]];

impl Kfuncs {
    /// Those of this kernel that take what the object passes.
    pub fn find(btf: &Btf<'_>) -> Result<Self, BtfError> {
        let found = btf.functions(&NAMES)?;
        let pair = |names: [&str; 2], arguments: Vec<Value<'static>>| {
            let wanted = Prototype { arguments, returns: Value::Nothing };
            let number = |name| found.get(name).filter(|(_, prototype)| *prototype == wanted).map(|(id, _)| *id);
            let [first, second] = names.map(number);
            first.zip(second).map(|(first, second)| Pair { first, second })
        };
        Ok(Self { preempt: pair(PREEMPT, Vec::new()), irq: pair(IRQ, vec![Value::Pointer("")]) })
    }
}

/// An instruction is eight bytes, and stands at a multiple of that in the object.
const INSTRUCTION: usize = 8;
/// `r0 = 0`. Kernels that know no kfuncs refuse a call of one even where it is never reached.
const NOTHING: [u8; INSTRUCTION] = [0xb7, 0, 0, 0, 0, 0, 0, 0];

/// An object, aligned as the parser of ELF wants it.
pub(super) struct Object {
    words: Vec<[u64; 4]>,
    len: usize,
}

impl Object {
    /// A copy of `object` that calls these kfuncs and no other.
    pub(super) fn calling(object: &[u8], kfuncs: Kfuncs) -> Self {
        let mut copy = Self { words: vec![[0; 4]; object.len().div_ceil(32)], len: object.len() };
        let bytes = copy.bytes_mut();
        bytes.copy_from_slice(object);
        let calls = [
            (PREEMPT_DISABLE_CALL, kfuncs.preempt.map(|pair| pair.first)),
            (PREEMPT_ENABLE_CALL, kfuncs.preempt.map(|pair| pair.second)),
            (IRQ_SAVE_CALL, kfuncs.irq.map(|pair| pair.first)),
            (IRQ_RESTORE_CALL, kfuncs.irq.map(|pair| pair.second)),
        ];
        let (instructions, _) = bytes.as_chunks_mut::<INSTRUCTION>();
        for instruction in instructions {
            if let Some((_, number)) =
                calls.iter().find(|(placeholder, _)| kfunc_call(*placeholder) == *instruction)
            {
                *instruction = number.map_or(NOTHING, kfunc_call);
            }
        }
        copy
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the vector has at least `len` bytes, all initialized.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and any bytes are integers.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_become_calls_of_the_kernels_own_numbers() {
        let other = [0x85, 0x10, 0, 0, 1, 0x64, 0x69, 0x70];
        let object = [
            kfunc_call(PREEMPT_DISABLE_CALL),
            other,
            kfunc_call(IRQ_SAVE_CALL),
            kfunc_call(PREEMPT_ENABLE_CALL),
            kfunc_call(IRQ_RESTORE_CALL),
        ]
        .concat();
        let preempt = Some(Pair { first: 0x1234, second: 0x1235 });
        let irq = Some(Pair { first: 0x1236, second: 0x1237 });
        let called = [
            kfunc_call(0x1234),
            other,
            kfunc_call(0x1236),
            kfunc_call(0x1235),
            kfunc_call(0x1237),
        ];
        assert_eq!(Object::calling(&object, Kfuncs { preempt, irq }).bytes(), called.concat());
        let some = [kfunc_call(0x1234), other, NOTHING, kfunc_call(0x1235), NOTHING];
        assert_eq!(Object::calling(&object, Kfuncs { preempt, irq: None }).bytes(), some.concat());
        let none = [NOTHING, other, NOTHING, NOTHING, NOTHING];
        assert_eq!(Object::calling(&object, Kfuncs::default()).bytes(), none.concat());
    }

    #[test]
    fn a_tail_shorter_than_an_instruction_is_kept() {
        assert_eq!(Object::calling(&[1, 2, 3], Kfuncs::default()).bytes(), [1, 2, 3]);
        assert!(Object::calling(&[], Kfuncs::default()).bytes().is_empty());
    }
}
