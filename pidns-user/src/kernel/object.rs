//! The eBPF objects that pidns-user's build script made. They are compressed: otherwise they would be a tenth of the
//! program.

use std::io::{self, Read as _};

use flate2::read::ZlibDecoder;

/// A compressed eBPF object.
pub struct Embedded(&'static [u8]);

macro_rules! embedded {
    ($object:literal) => {
        Embedded(include_bytes!(concat!(env!("OUT_DIR"), "/", $object, ".zlib")))
    };
}

/// The programs of the live stream.
pub static TRACE: Embedded = embedded!("pidns-trace-ebpf");

/// The programs for snapshots. They are a separate object, so that a command loads only the programs that it needs.
pub static SNAPSHOT: Embedded = embedded!("pidns-snapshot-ebpf");

/// The baseline programs of `cargo xtask bench`.
#[cfg(feature = "test-tools")]
pub static BENCH: Embedded = embedded!("pidns-bench-ebpf");

impl Embedded {
    /// Whether the program was built without the objects (AYA_BUILD_SKIP).
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decompresses the object.
    ///
    /// # Errors
    /// The build script wrote something else than a compressed object.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        ZlibDecoder::new(self.0).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_that_is_not_compressed_is_an_error() {
        assert!(Embedded(b"\x7fELF").read().is_err());
    }
}
