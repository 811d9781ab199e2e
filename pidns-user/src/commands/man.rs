//! `pidns-trace man`: prints or writes the man pages.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::ExitCode,
};

use rustix::fs::OFlags;

use super::view::print;
use crate::{
    cli::{ManArgs, man_pages},
    commands::failure::Failure,
};

/// Prints the page of the program, or writes every page into a directory.
pub fn run(args: &ManArgs) -> Result<ExitCode, Failure> {
    let pages = man_pages().map_err(|error| Failure::Io { what: "write a man page", error })?;
    let Some(folder) = &args.folder else {
        return print(|to| pages.first().map_or(Ok(()), |page| to.write_all(&page.text)));
    };
    let failed = |file: &Path, error| Failure::Write { file: file.to_owned(), error };
    // If it is a file, writing the first page fails: it is not a directory.
    if !folder.exists() {
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    }
    for page in pages {
        let file = folder.join(page.name);
        // NOFOLLOW: root may run this in a directory of another user, who could have put a link there.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let opened = options.open(&file);
        opened.and_then(|mut to| to.write_all(&page.text)).map_err(|error| failed(&file, error))?;
    }
    Ok(ExitCode::SUCCESS)
}
