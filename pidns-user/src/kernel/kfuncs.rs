//! The object with its calls of kfuncs filled in: aya 0.14 knows none.

use pidns_ebpf::abi::symbols::{PREEMPT_DISABLE_CALL, PREEMPT_ENABLE_CALL, kfunc_call};

use super::btf::{Btf, BtfError, Prototype, Value};

/// BTF numbers of the kfuncs that keep a task on its CPU (6.10 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreemptKfuncs {
    disable: u32,
    enable: u32,
}

/// Their names.
pub const PREEMPT_KFUNCS: [&str; 2] = ["bpf_preempt_disable", "bpf_preempt_enable"];

impl PreemptKfuncs {
    /// Those of this kernel, if it has both as the object calls them: without arguments.
    pub fn find(btf: &Btf<'_>) -> Result<Option<Self>, BtfError> {
        let plain = Prototype { arguments: Vec::new(), returns: Value::Nothing };
        let found = btf.functions(&PREEMPT_KFUNCS)?;
        let number = |name| found.get(name).filter(|(_, prototype)| *prototype == plain).map(|(id, _)| *id);
        let [disable, enable] = PREEMPT_KFUNCS.map(number);
        Ok(disable.zip(enable).map(|(disable, enable)| Self { disable, enable }))
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
    /// A copy of `object` that calls these kfuncs, or none.
    pub(super) fn calling(object: &[u8], kfuncs: Option<PreemptKfuncs>) -> Self {
        let mut copy = Self { words: vec![[0; 4]; object.len().div_ceil(32)], len: object.len() };
        let bytes = copy.bytes_mut();
        bytes.copy_from_slice(object);
        let calls = [
            (kfunc_call(PREEMPT_DISABLE_CALL), kfuncs.map(|kfuncs| kfuncs.disable)),
            (kfunc_call(PREEMPT_ENABLE_CALL), kfuncs.map(|kfuncs| kfuncs.enable)),
        ];
        let (instructions, _) = bytes.as_chunks_mut::<INSTRUCTION>();
        for instruction in instructions {
            if let Some((_, number)) = calls.iter().find(|(placeholder, _)| placeholder == instruction) {
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
        let object = [kfunc_call(PREEMPT_DISABLE_CALL), other, kfunc_call(PREEMPT_ENABLE_CALL)].concat();
        let kfuncs = PreemptKfuncs { disable: 0x1234, enable: 0x1235 };
        let called = Object::calling(&object, Some(kfuncs));
        assert_eq!(called.bytes(), [kfunc_call(0x1234), other, kfunc_call(0x1235)].concat());
        let without = Object::calling(&object, None);
        assert_eq!(without.bytes(), [NOTHING, other, NOTHING].concat());
    }

    #[test]
    fn a_tail_shorter_than_an_instruction_is_kept() {
        assert_eq!(Object::calling(&[1, 2, 3], None).bytes(), [1, 2, 3]);
        assert!(Object::calling(&[], None).bytes().is_empty());
    }
}
