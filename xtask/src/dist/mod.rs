//! `cargo xtask dist`: makes the published files. They are a static program, an archive, packages, and their
//! checksums.
//!
//! The files have the same bytes for everybody who builds the same commit with the same compilers: `--verify` builds
//! twice.

mod licences;
mod packages;
mod program;
mod stage;
mod system_test;
mod tools;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use crate::{setup, shell, workspace};

/// Make the published files: a static program, a tar.gz of it, .deb, .rpm, SHA256SUMS
///
/// The files are in target/packages afterwards. The program is optimised at link time, which takes minutes longer
/// than `cargo xtask build`. Needed tools are installed: Debian's packages, cargo-deb and cargo-generate-rpm.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Build twice, in two directories, and fail if the results differ
    #[arg(long)]
    verify: bool,
    /// Pack this program instead of building one
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    program: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Action {
    /// Install, use, upgrade and remove the package in a fresh Debian, and run the image next to other containers;
    /// tests the files that `dist` has made
    Test(system_test::Args),
}

/// The paths of the made files.
pub(crate) struct Made {
    pub(crate) program: PathBuf,
    pub(crate) archive: PathBuf,
    pub(crate) deb: PathBuf,
    pub(crate) rpm: PathBuf,
}

impl Made {
    fn all(&self) -> [&Path; 3] {
        [&self.archive, &self.deb, &self.rpm]
    }
}

/// The largest size in bytes of the program and of each published file.
const LARGEST: u64 = 10_000_000;

pub(crate) fn main(args: &Args) -> Result<()> {
    let folder = workspace::target_dir()?.join("packages");
    if let Some(Action::Test(args)) = &args.action {
        return system_test::main(args, &folder);
    }
    let ready = setup::ready_for_packages()?;
    let tools = tools::ready()?;
    let source = Source::read()?;
    let target_dir = workspace::target_dir()?;
    let built = match &args.program {
        Some(program) => {
            program::check_static(program)?;
            program.clone()
        }
        None => program::build(&ready, &target_dir)?,
    };
    let made = make(&source, &built, &tools, &folder)?;
    if args.verify {
        let again = target_dir.join("dist-again");
        if again.exists() {
            fs::remove_dir_all(&again).with_context(|| format!("cannot remove {}", again.display()))?;
        }
        let second = make(&source, &program::build(&ready, &again)?, &tools, &again.join("packages"))?;
        same(&made, &second)?;
        fs::remove_dir_all(&again).with_context(|| format!("cannot remove {}", again.display()))?;
    }
    for file in [made.program.as_path()].into_iter().chain(made.all()) {
        let size = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
        eprintln!("{:>10} bytes  {}", size, file.display());
        // A program that was built elsewhere may contain debug info.
        if size > LARGEST && (args.program.is_none() || file != made.program) {
            bail!("{} is larger than {LARGEST} bytes", file.display());
        }
    }
    Ok(())
}

/// The version of the program, and the time that all files get.
pub(crate) struct Source {
    pub(crate) version: &'static str,
    /// Seconds since 1970: the time of the commit, or SOURCE_DATE_EPOCH.
    pub(crate) epoch: u64,
}

impl Source {
    pub(crate) fn read() -> Result<Self> {
        let given = env::var("SOURCE_DATE_EPOCH").ok();
        let text = given.or_else(|| shell::ask(shell::command("git").args(["log", "-1", "--format=%ct"])));
        let text =
            text.context("no commit is checked out: set SOURCE_DATE_EPOCH to the time of the sources")?;
        let epoch = text.trim().parse().with_context(|| format!("`{}` is not a time", text.trim()))?;
        Ok(Self { version: env!("CARGO_PKG_VERSION"), epoch })
    }

    /// Puts that time into the command's environment, in the variable that reproducible builds agree on.
    pub(crate) fn dated<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("SOURCE_DATE_EPOCH", self.epoch.to_string())
    }
}

fn make(source: &Source, program: &Path, tools: &tools::Tools, folder: &Path) -> Result<Made> {
    let work = folder.join("work");
    if work.exists() {
        // The removal must not take the program with it.
        let paths = program.canonicalize().ok().zip(work.canonicalize().ok());
        if paths.is_some_and(|(program, work)| program.starts_with(work)) {
            bail!("{} is in a directory that is emptied first: copy it to another one", program.display());
        }
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    let stage = stage::fill(source, program, &work)?;
    let made = Made {
        program: stage.join("pidns-trace"),
        archive: stage::archive(source, &work, folder)?,
        deb: packages::deb(source, tools, &work, folder, packages::FIRST, packages::Packing::Small)?,
        rpm: packages::rpm(source, tools, &work, folder, packages::FIRST, packages::Packing::Small)?,
    };
    let mut sums = Command::new("sha256sum");
    for file in made.all() {
        sums.arg(file.file_name().context("a published file has no name")?);
    }
    let sums = shell::ask(sums.current_dir(folder)).context("sha256sum fails")?;
    fs::write(folder.join("SHA256SUMS"), sums).context("cannot write SHA256SUMS")?;
    Ok(made)
}

/// Fails with the first file that differs between the two builds.
fn same(first: &Made, second: &Made) -> Result<()> {
    let files = |made: &Made| [&made.program, &made.archive, &made.deb, &made.rpm].map(Clone::clone);
    for (one, other) in files(first).iter().zip(&files(second)) {
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        if read(one)? != read(other)? {
            bail!(
                "not reproducible: {} and {} differ (`diffoscope` shows where)",
                one.display(),
                other.display()
            );
        }
        eprintln!("same in both builds: {}", one.display());
    }
    Ok(())
}
