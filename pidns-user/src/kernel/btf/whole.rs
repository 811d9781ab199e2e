//! Files given as a kernel's BTF: whether one is, and else what it is and what to do.

use super::{Btf, BtfError, MAGIC, Word};

/// Why a file is not a kernel's BTF, or not all of it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unusable {
    /// Nothing is in it.
    #[error("the file is empty")]
    Empty,
    /// A kernel, a module or a program, of which BTF is a section.
    #[error("this is an ELF file, not the BTF in it")]
    Elf,
    /// A kernel as boot loaders take it.
    #[error("this is a compressed kernel, not its BTF")]
    Kernel,
    /// Something compressed.
    #[error("this is a file compressed with {0}")]
    Compressed(&'static str),
    /// Of a big-endian machine.
    #[error("this is the BTF of a machine with another byte order")]
    ByteOrder,
    /// Of a module, built on its kernel's.
    #[error("this is the BTF of a module, which is of no use without its kernel's")]
    Module,
    /// No types at all.
    #[error("this BTF has no types")]
    NoTypes,
    /// It ends too early.
    #[error("{0}")]
    CutShort(BtfError),
    /// Something else.
    #[error("{0}")]
    Damaged(BtfError),
}

impl Unusable {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Elf => {
                "take it out: objcopy --dump-section .BTF=out FILE, of a kernel (vmlinux), not of a module"
            }
            Self::Kernel => {
                "take it out: the kernel's scripts/extract-vmlinux FILE > vmlinux, then objcopy --dump-section .BTF=out \
                 vmlinux; or copy /sys/kernel/btf/vmlinux where the kernel runs"
            }
            Self::Compressed(_) => "decompress it first",
            Self::ByteOrder => "pidns-trace is for x86-64: copy /sys/kernel/btf/vmlinux of such a machine",
            Self::Module => {
                "give it the kernel's: /sys/kernel/btf/vmlinux, and not that of a module beside it"
            }
            Self::Empty | Self::NoTypes | Self::CutShort(_) | Self::Damaged(_) => {
                "copy it anew: /sys/kernel/btf/vmlinux where the kernel runs, all of it"
            }
        }
    }
}

/// What a file is that does not begin as BTF does.
fn other(bytes: &[u8]) -> Option<Unusable> {
    const COMPRESSED: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x04\x22\x4d\x18", "lz4"),
    ];
    if bytes.is_empty() {
        return Some(Unusable::Empty);
    }
    if bytes.starts_with(b"\x7fELF") {
        return Some(Unusable::Elf);
    }
    // The x86 boot protocol, Documentation/arch/x86/boot.rst.
    if bytes.get(0x202..0x206) == Some(b"HdrS") {
        return Some(Unusable::Kernel);
    }
    if bytes.starts_with(&MAGIC.swap_bytes().to_ne_bytes()) {
        return Some(Unusable::ByteOrder);
    }
    COMPRESSED.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, by)| Unusable::Compressed(by))
}

/// A kernel's BTF, all of it: nothing refers to what is not there.
pub fn whole(bytes: &[u8]) -> Result<Btf<'_>, Unusable> {
    if let Some(other) = other(bytes) {
        return Err(other);
    }
    let btf = Btf::parse(bytes).map_err(|error| match error {
        // The names of a module's types are mostly the kernel's.
        BtfError::Truncated { what: "string", .. } if is_of_a_module(bytes) => Unusable::Module,
        BtfError::Truncated { .. } => Unusable::CutShort(error),
        error => Unusable::Damaged(error),
    })?;
    if is_of_a_module(bytes) {
        return Err(Unusable::Module);
    }
    if btf.is_empty() {
        return Err(Unusable::NoTypes);
    }
    btf.check_references().map_err(Unusable::Damaged)?;
    Ok(btf)
}

/// Whether the strings do not begin with the empty one: those of a module follow its kernel's, which do.
fn is_of_a_module(bytes: &[u8]) -> bool {
    Btf::sections(bytes).is_ok_and(|(_, strings)| strings.first() != Some(&0))
}

impl Btf<'_> {
    /// Whether every name and every type that a type refers to is there.
    fn check_references(&self) -> Result<(), BtfError> {
        // A name ends with a NUL: behind the last one none begins.
        let names_end = self.strings.iter().rposition(|&byte| byte == 0).map_or(0, |last| last + 1);
        for id in 1..self.len() as u32 {
            for word in self.words(id)? {
                match word? {
                    (Word::Name, at) if at as usize >= names_end => {
                        return Err(BtfError::Outside { id, what: "string", at, len: names_end });
                    }
                    (Word::Type, at) if at as usize >= self.len() => {
                        return Err(BtfError::Outside { id, what: "type", at, len: self.len() });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
