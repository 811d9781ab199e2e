//! Opens a BTF file.

use std::{fs, io, io::Read as _, ops::Deref, os::fd::AsRawFd as _, path::Path, ptr, slice};

/// The contents of a BTF file. The running kernel's own file is mapped if the kernel allows that (6.16 and later). To
/// read it instead takes one system call for every 4 KB of several MB, and twice the memory.
#[derive(Debug)]
pub struct File(Contents);

#[derive(Debug)]
enum Contents {
    Mapped(Mapping),
    Read(Vec<u8>),
}

impl File {
    /// Maps the file if possible, and otherwise reads it.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut file = fs::File::open(path)?;
        if let Some(mapping) = Mapping::of(&file) {
            return Ok(Self(Contents::Mapped(mapping)));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Self(Contents::Read(bytes)))
    }
}

impl Deref for File {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Contents::Mapped(mapping) => mapping.bytes(),
            Contents::Read(bytes) => bytes,
        }
    }
}

/// A mapping of the kernel's own BTF, which never changes. Other files could change.
#[derive(Debug)]
struct Mapping {
    start: *const u8,
    len: usize,
}

impl Mapping {
    /// Returns `None` if the file cannot be mapped, or is not in sysfs: other files may be written or truncated.
    fn of(file: &fs::File) -> Option<Self> {
        /// include/uapi/linux/magic.h
        const SYSFS_MAGIC: i64 = 0x6265_6572;
        if rustix::fs::fstatfs(file).ok()?.f_type as i64 != SYSFS_MAGIC {
            return None;
        }
        let len = usize::try_from(file.metadata().ok()?.len()).ok().filter(|&len| len > 0)?;
        // SAFETY: this creates a new mapping at an address that the kernel chooses, so it touches no existing memory.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        (start != libc::MAP_FAILED).then_some(Self { start: start.cast(), len })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped, with this length, for as long as self lives; the kernel's BTF does not change.
        unsafe { slice::from_raw_parts(self.start, self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `of` made this mapping with this length; no reference to it outlives self.
        unsafe { libc::munmap(self.start.cast_mut().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::btf::PATH;

    #[test]
    fn a_mapped_file_has_the_bytes_of_the_file() {
        let file = File::open(PATH).expect("the running kernel has BTF");
        assert!(*file == *fs::read(PATH).expect("the running kernel has BTF"));
        let Contents::Mapped(_) = file.0 else {
            println!("this kernel does not let its BTF be mapped: only reading is tested");
            return;
        };
    }

    #[test]
    fn other_files_are_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let file = File::open(&path).expect("a file");
        assert!(matches!(&file.0, Contents::Read(_)), "it could change");
        assert_eq!(*file, *fs::read(&path).expect("a file"));
        assert!(File::open("/nowhere/at/all").is_err());
    }
}
