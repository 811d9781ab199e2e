//! `pidns-trace record`: the live stream in a file, behind all that existed at its start.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::ExitCode,
};

use super::{live::Live, look::Eyes};
use crate::{
    cli::{Filters, RecordArgs},
    count::Count,
    failure::Failure,
    kernel::load,
    output::Json,
    resync::Look,
    selection::{Asked, Selection},
    sink::Sink,
    snapshot::Source,
};

/// Records until something ends it.
pub fn run(args: &RecordArgs) -> Result<ExitCode, Failure> {
    let RecordArgs { file, force, stop, kernel } = args;
    let everything = Filters { events: vec!["all".to_owned()], ..Filters::default() };
    let selection = Selection::new(&Asked::of(&everything, kernel.no_syscall_hooks))?;
    // Before anything is written: without the privileges there is nothing to write.
    load::check_privileges()?;
    let cannot = |error| Failure::Write { file: file.clone(), error };
    let look = look()?;
    let to = create(file, *force).map_err(cannot)?;
    let compressed = file.extension().is_some_and(|extension| extension == "zst");
    let sink = if compressed { Sink::compressed(to).map_err(cannot)? } else { Sink::new(to) };
    let live = Live { kernel, selection, stop, view: Box::new(Json), sink, look: Some(look) };
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

/// The means to look at all that exists, tried once: what it cannot do is to be told before anything is written.
fn look() -> Result<Look, Failure> {
    let mut eyes = Eyes::default();
    if eyes.snapshot(false)?.source != Source::Iterator {
        return Err(Failure::Usage(
            "a recording begins with all that exists, as the kernel's task iterator tells it: that takes the host's own \
             PID namespace"
                .to_owned(),
        ));
    }
    Ok(Box::new(move || eyes.snapshot(true)))
}
