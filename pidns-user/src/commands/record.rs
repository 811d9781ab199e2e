//! `pidns-trace record`: writes the live stream to a file, after a snapshot of the state at its start.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::ExitCode,
};

use super::{
    live::{self, Stream, StreamOutput},
    notices::Notices,
    progress::Progress,
    readings,
};
use crate::{
    cli::RecordArgs, commands::failure::Failure, filter::Filter, findings::FindingsWatch, kernel::load,
    output::Json, output::sink::Sink, pipeline::Follow, text::Count,
};

/// Records until a signal or a limit ends it.
pub fn run(args: &RecordArgs) -> Result<ExitCode, Failure> {
    let RecordArgs { file, force, stop, kernel, thresholds } = args;
    if file == "-" {
        return Err(Failure::Usage(
            "record writes to a file; `pidns-trace --snapshot -o json -e '*'` writes the same to standard output".to_owned(),
        ));
    }
    let filter = Filter::everything()?;
    // Check before creating the file: without privileges there is nothing to write.
    load::check_privileges()?;
    let cannot = |error| Failure::Write { file: file.clone(), error };
    let observer = Some(live::observer(kernel)?);
    let compressed = file.extension().is_some_and(|extension| extension == "zst");
    // Create the file only after the kernel side is loaded, so that a failure leaves no empty file and truncates none.
    let open = || {
        let to = create(file, *force).map_err(cannot)?;
        if compressed { Sink::compressed(to).map_err(cannot) } else { Ok(Sink::new(to)) }
    };
    let open = Box::new(open);
    let follow = Follow::Everything;
    let findings = FindingsWatch::live((*thresholds).into(), readings::reader);
    let stream = Stream {
        kernel,
        filter,
        warnings: Vec::new(),
        follow,
        observer,
        stop,
        with_host_containers: true,
        shows_containers: true,
        findings: Some(findings.alongside_others()),
        output: Some(StreamOutput { view: Box::new(Json), file: Some(file), open }),
        progress: Progress::on_terminal(kernel.quiet),
    };
    let code = stream.run()?.code;
    // If the user has moved the file meanwhile, its size is reported as 0.
    let bytes = fs::metadata(file).map_or(0, |file| file.len());
    Notices::new(kernel.quiet).notify(format_args!("{}: {}", file.display(), Count(bytes, "byte", "bytes")));
    Ok(code)
}

/// Creates the file, readable only by its owner: it contains the processes (and arguments) of all users.
///
/// With `force`, removes an existing file or link first. The result is a new file with its own owner and mode, and a
/// link made by another user is not followed. A device or pipe is opened and written to.
fn create(file: &Path, force: bool) -> io::Result<File> {
    if file.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    if force && let Ok(found) = fs::symlink_metadata(file) {
        if !found.is_file() && !found.is_symlink() {
            return options.open(file);
        }
        fs::remove_file(file)?;
    }
    // Fails if another process has created the file meanwhile.
    options.create_new(true).open(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_the_owner_can_read_a_recording() {
        let directory = tempfile::tempdir().unwrap();
        let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
        for force in [false, true] {
            let file = directory.path().join(format!("{force}"));
            create(&file, force).unwrap();
            assert_eq!(mode(&file), 0o600);
            assert_eq!(create(&file, false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        let shared = directory.path().join("shared");
        fs::write(&shared, "before").unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o644)).unwrap();
        create(&shared, true).unwrap();
        assert_eq!((mode(&shared), fs::read(&shared).unwrap().len()), (0o600, 0), "its mode is not kept");
    }

    #[test]
    fn force_follows_no_link_and_keeps_no_owner() {
        let directory = tempfile::tempdir().unwrap();
        let (precious, link) = (directory.path().join("precious"), directory.path().join("link"));
        fs::write(&precious, "do not lose this").unwrap();
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        create(&link, true).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "do not lose this");
        assert!(fs::symlink_metadata(&link).unwrap().is_file(), "it is a file in the link's place");
        let inode = |file: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(file).unwrap());
        let kept_open = File::open(&precious).unwrap();
        let before = inode(&precious);
        create(&precious, true).unwrap();
        assert_ne!(inode(&precious), before, "the owner of the old one has no access to the new one");
        drop(kept_open);
        assert!(create(Path::new("/dev/null"), true).is_ok(), "a device is written to");
        for force in [false, true] {
            let error = create(directory.path(), force).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::IsADirectory, "an existing file could be replaced");
        }
    }
}
