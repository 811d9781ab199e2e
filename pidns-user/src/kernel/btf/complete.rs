//! Checks whether a file is a kernel's BTF. If not, says what it is and what to do.

use super::{Btf, BtfError, MAGIC, Word};

/// Why a file is not a kernel's BTF, or not all of it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unusable {
    /// The file has no contents.
    #[error("the file is empty")]
    Empty,
    /// A kernel, module or program; BTF is one of its sections.
    #[error("this is an ELF file, not the BTF in it")]
    Elf,
    /// A kernel image for boot loaders.
    #[error("this is a compressed kernel, not its BTF")]
    Kernel,
    /// A compressed file.
    #[error("this is a file compressed with {0}")]
    Compressed(&'static str),
    /// BTF of a big-endian machine.
    #[error("this is the BTF of a machine with another byte order")]
    ByteOrder,
    /// BTF of a module. It refers to its kernel's BTF.
    #[error("this is the BTF of a module: it is useless without its kernel's")]
    Module,
    /// BTF without types.
    #[error("this BTF has no types")]
    NoTypes,
    /// BTF that ends too early.
    #[error("{0}")]
    CutShort(BtfError),
    /// BTF with another fault.
    #[error("{0}")]
    Damaged(BtfError),
}

impl Unusable {
    /// Advice for the user.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Elf => {
                "extract it from a kernel (vmlinux), not from a module: objcopy --dump-section .BTF=out FILE"
            }
            Self::Kernel => {
                "extract it: the kernel's scripts/extract-vmlinux FILE > vmlinux, then objcopy --dump-section .BTF=out \
                 vmlinux; or copy /sys/kernel/btf/vmlinux where the kernel runs"
            }
            Self::Compressed(_) => "decompress it first",
            Self::ByteOrder => "pidns-trace runs on x86-64: copy /sys/kernel/btf/vmlinux from such a machine",
            Self::Module => "give the kernel's own: /sys/kernel/btf/vmlinux, not a module's file next to it",
            Self::Empty | Self::NoTypes | Self::CutShort(_) | Self::Damaged(_) => {
                "copy /sys/kernel/btf/vmlinux again, all of it, from a machine that runs the kernel"
            }
        }
    }
}

/// Recognizes a file that does not begin like BTF.
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

/// Parses a kernel's BTF and checks that every reference in it has its target.
pub fn parse_complete(bytes: &[u8]) -> Result<Btf<'_>, Unusable> {
    if let Some(other) = other(bytes) {
        return Err(other);
    }
    let btf = Btf::parse(bytes).map_err(|error| match error {
        // Most names of a module's types are in the kernel's strings.
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

/// Whether these are a module's strings. A kernel's begin with the empty string; a module's continue its kernel's.
fn is_of_a_module(bytes: &[u8]) -> bool {
    Btf::sections(bytes).is_ok_and(|(_, strings)| strings.first() != Some(&0))
}

impl Btf<'_> {
    /// Checks that every name and type that a type refers to exists.
    fn check_references(&self) -> Result<(), BtfError> {
        // Each name ends with a NUL, so no name begins after the last one.
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
