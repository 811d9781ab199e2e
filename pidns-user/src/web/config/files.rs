//! Reads the files of a configuration, and notices when they change.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Largest accepted file in bytes. Certificates and keys have a few kilobytes.
const LONGEST: u64 = 1024 * 1024;

/// Attributes that change when a file is written, replaced, or made readable.
type Stamp = [i64; 7];

/// The files that were read, each with its attributes before reading.
#[derive(Debug, Default)]
pub(in crate::web) struct Files {
    read: Vec<(PathBuf, Option<Stamp>)>,
}

impl Files {
    /// Reads a file. Only regular files are accepted: reading a pipe could take forever.
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

    /// Whether any file has changed since it was read.
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
