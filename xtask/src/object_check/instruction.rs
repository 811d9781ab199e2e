//! BPF instructions: decoding them, and where they lead. The instruction set is RFC 9669.

/// Bytes of an instruction.
pub(super) const INSTRUCTION: usize = 8;

/// The parts of an instruction that matter here.
pub(super) struct Instruction {
    pub(super) opcode: u8,
    source: u8,
    pub(super) jump: i16,
    pub(super) immediate: i32,
}

/// Where an instruction may lead, other than on.
pub(super) enum Flow {
    /// Into another function. The distance is in bytes from the instruction or, with a relocation, from its symbol.
    Call { distance: i64 },
    /// A function's address, so many bytes from the relocation's symbol.
    Address { distance: i64 },
    /// Nowhere but here.
    ToItself,
    /// Anywhere else.
    Elsewhere,
}

impl Instruction {
    const LOAD_64: u8 = 0x18;
    const JUMP: u8 = 0x05;
    const JUMP_LONG: u8 = 0x06;
    const CALL: u8 = 0x85;
    /// The source register of a call, if it is not one of the kernel's helpers that is called.
    const PSEUDO_CALL: u8 = 1;

    fn decode(bytes: [u8; INSTRUCTION], little_endian: bool) -> Self {
        let [opcode, registers, j0, j1, i0, i1, i2, i3] = bytes;
        if little_endian {
            Self {
                opcode,
                source: registers >> 4,
                jump: i16::from_le_bytes([j0, j1]),
                immediate: i32::from_le_bytes([i0, i1, i2, i3]),
            }
        } else {
            Self {
                opcode,
                source: registers & 0xf,
                jump: i16::from_be_bytes([j0, j1]),
                immediate: i32::from_be_bytes([i0, i1, i2, i3]),
            }
        }
    }

    /// Instructions of 16 bytes count as two.
    fn size(&self) -> usize {
        if self.opcode == Self::LOAD_64 { 2 * INSTRUCTION } else { INSTRUCTION }
    }

    pub(super) fn flow(&self) -> Flow {
        match *self {
            // Counted in instructions, from the next.
            Self { opcode: Self::CALL, source: Self::PSEUDO_CALL, immediate, .. } => {
                Flow::Call { distance: (i64::from(immediate) + 1) * 8 }
            }
            Self { opcode: Self::LOAD_64, immediate, .. } => Flow::Address { distance: immediate.into() },
            Self { opcode: Self::JUMP, jump: -1, .. }
            | Self { opcode: Self::JUMP_LONG, immediate: -1, .. } => Flow::ToItself,
            _ => Flow::Elsewhere,
        }
    }
}

/// The instructions and their offsets.
pub(super) fn instructions(bytes: &[u8], little_endian: bool) -> impl Iterator<Item = (u64, Instruction)> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let at = offset;
        let instruction = Instruction::decode(*bytes.get(at..)?.first_chunk()?, little_endian);
        offset += instruction.size();
        Some((at as u64, instruction))
    })
}
