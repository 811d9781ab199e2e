//! `pidns-trace man`: the man pages.

use std::{fs, path::Path, process::ExitCode};

use super::look::print;
use crate::{
    cli::{ManArgs, man_pages},
    commands::failure::Failure,
};

/// Prints the page of the program, or writes every page into a folder.
pub fn run(args: &ManArgs) -> Result<ExitCode, Failure> {
    let pages = man_pages().map_err(|error| Failure::Io { what: "write a man page", error })?;
    let Some(folder) = &args.folder else {
        return print(|to| pages.first().map_or(Ok(()), |page| to.write_all(&page.text)));
    };
    let failed = |file: &Path, error| Failure::Write { file: file.to_owned(), error };
    if !folder.exists() {
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    }
    for page in pages {
        let file = folder.join(page.name);
        fs::write(&file, page.text).map_err(|error| failed(&file, error))?;
    }
    Ok(ExitCode::SUCCESS)
}
