//! The files of a configuration, and whether they have changed.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Certificates and keys are some kilobytes.
const LONGEST: u64 = 1024 * 1024;

/// What changes when a file is written, replaced, or made readable.
type Stamp = [i64; 7];

/// The files that have been read, each with its state before.
#[derive(Debug, Default)]
pub(in crate::web) struct Files {
    read: Vec<(PathBuf, Option<Stamp>)>,
}

impl Files {
    /// Reads a file. It is a regular one: reading a pipe could take forever.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        self.read.push((path.to_owned(), stamp(path)));
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut content = Vec::new();
        File::open(path)?.take(LONGEST + 1).read_to_end(&mut content)?;
        if content.len() as u64 > LONGEST {
            return Err(io::Error::other(format!("it is longer than {LONGEST} bytes")));
        }
        Ok(content)
    }

    /// Whether any differs from when it was read.
    pub(in crate::web) fn have_changed(&self) -> bool {
        self.read.iter().any(|(path, before)| stamp(path) != *before)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let m = fs::metadata(path).ok()?;
    let size = m.size().cast_signed();
    Some([
        m.dev().cast_signed(),
        m.ino().cast_signed(),
        size,
        m.mtime(),
        m.mtime_nsec(),
        m.ctime(),
        m.ctime_nsec(),
    ])
}
