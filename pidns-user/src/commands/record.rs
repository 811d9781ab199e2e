//! `pidns-trace record`: the live stream in a file, behind all that existed at its start.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::ExitCode,
};

use super::live::{self, Live};
use crate::{
    cli::RecordArgs, count::Count, failure::Failure, kernel::load, output::Json, selection::Selection,
    sink::Sink,
};

/// Records until something ends it.
pub fn run(args: &RecordArgs) -> Result<ExitCode, Failure> {
    let RecordArgs { file, force, stop, kernel } = args;
    if file == "-" {
        return Err(Failure::Usage(
            "record writes to a file; `pidns-trace --snapshot -o json -e '*'` writes the same to standard output".to_owned(),
        ));
    }
    let selection = Selection::everything()?;
    // Before anything is written: without the privileges there is nothing to write.
    load::check_privileges()?;
    let cannot = |error| Failure::Write { file: file.clone(), error };
    let existing = live::existing(kernel)?;
    let to = create(file, *force).map_err(cannot)?;
    let compressed = file.extension().is_some_and(|extension| extension == "zst");
    let sink = if compressed { Sink::compressed(to).map_err(cannot)? } else { Sink::new(to) };
    let live = Live { kernel, selection, stop, view: Box::new(Json), sink, existing: Some(existing) };
    let (_, code) = live.run()?;
    if !kernel.quiet {
        let bytes = fs::metadata(file).map_err(cannot)?.len();
        eprintln!("pidns-trace: {}: {}", file.display(), Count(bytes, "byte", "bytes"));
    }
    Ok(code)
}

fn create(file: &Path, force: bool) -> io::Result<File> {
    if force { File::create(file) } else { File::create_new(file) }
}
