//! `btf-extract FILE OUT`: writes the extract of a kernel's BTF that the tests use; `cargo xtask btf-extract` calls it.

use std::{env, fs, process::ExitCode};

use anyhow::{Context as _, bail};
use pidns_user::kernel::extract::extract;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If main returned the error, RUST_BACKTRACE would add a backtrace. But the fault is in the file, not in this
            // program.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let [file, out] = &args[..] else { bail!("usage: btf-extract FILE OUT") };
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let small = extract(&bytes).with_context(|| format!("cannot extract from {}", file.display()))?;
    fs::write(out, &small).with_context(|| format!("cannot write {}", out.display()))?;
    eprintln!("wrote {}: {} of {} bytes", out.display(), small.len(), bytes.len());
    Ok(())
}
