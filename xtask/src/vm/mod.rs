//! `cargo xtask vm`: runs the kernel tests on other kernels in virtual machines. `bench --vm` uses the same code.

mod accel;
mod accel_probe;
mod archive;
pub(crate) mod bench;
mod candidates;
mod cpio;
mod guest;
mod image;
mod initramfs;
mod kernels;
mod qemu;
mod report;
mod skips;
mod stream;
mod wanted;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

pub(crate) use self::wanted::KernelName;
use self::{
    accel::Accel,
    guest::{Clock, Guest, Ran},
    kernels::Kernel,
    qemu::Qemu,
    report::Outcome,
    stream::Progress,
    wanted::{Hooks, Wanted},
};
use crate::{build, program, setup, setup::Ready, shell, workspace};

/// Run the kernel tests on Debian's kernels, each in a qemu guest, set-up included.
///
/// Prints a table: kernel, hooks and their form, tests passed, skipped and failed, seconds to boot and to test. A
/// test may only be skipped for a feature that the kernel lacks. A kernel that cannot be downloaded, crashes or hangs
/// counts as failed; the others still run.
///
/// Kernels are downloaded with apt from this machine's archive into target/vm/kernels. A downloaded kernel is reused
/// for a week without a check, or longer if the archive is unreachable. If qemu is not on PATH, its package is
/// unpacked next to the kernels; nothing is installed. Consoles and the output of the tests are logged in
/// target/vm/logs.
#[derive(clap::Args)]
#[command(after_help = "\
A KERNEL is `newest` (of Debian's sid) or two numbers of a version that Debian has: 5.10, 6.1, 6.12, or one
of the backports. KERNEL:HOOKS tests with this set of hooks instead of the tracer's own choice.

Examples:
  cargo xtask vm                                     5.10 6.1 6.12 newest
  cargo xtask vm 5.10 6.1 6.1:tracepoint newest      both sets of hooks on 6.1, as in CI
  cargo xtask vm 6.12 -- killed_init                 only the tests with this in their names
  cargo xtask vm --fetch-only                        no guest: download, and print each kernel and BTF file")]
pub(crate) struct Args {
    /// Kernels to test on
    #[arg(value_name = "KERNEL[:HOOKS]")]
    kernels: Vec<Wanted>,

    /// The hooks to test with, unless KERNEL selects them
    #[arg(long, value_enum, default_value = "auto")]
    hooks: Hooks,

    /// Accelerator for guests
    #[arg(long, value_enum, default_value = "auto")]
    accel: accel_probe::Choice,

    /// Number of guests to run in parallel, each with one CPU [default: number of CPUs]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// Minutes before a guest counts as hung
    #[arg(long, value_name = "MINUTES", default_value_t = 30)]
    timeout: u64,

    /// Check for newer kernels now
    #[arg(long)]
    refresh: bool,

    /// Only download the kernels, and print their paths and those of their BTF
    #[arg(long)]
    fetch_only: bool,

    /// Arguments of the tests, such as a test's name
    #[arg(last = true)]
    args: Vec<String>,
}

/// The time limit for booting. A guest needs about a hundredth of it under KVM, and a tenth when emulated.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn main(args: Args) -> Result<()> {
    check_arguments(&args.args)?;
    let mut wanted = if args.kernels.is_empty() { wanted::default_set() } else { args.kernels.clone() };
    wanted.iter_mut().for_each(|wanted| {
        wanted.hooks.get_or_insert(args.hooks);
    });
    let cache = workspace::target_dir()?.join("vm");
    let logs = cache.join("logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;

    kernels::check_tools()?;
    let ready = setup::ready_for_guests()?;
    if args.fetch_only {
        return fetch_only(&cache, &wanted, args.refresh);
    }
    let qemu = Qemu::find_or_unpack(&cache)?;
    let built = build::build_with(ready)?;
    // The tests are built as `cargo xtask test` builds them.
    let tests = build_target(&built.ready, "test", &["--workspace", "--test", "kernel"], "kernel")?;
    let initramfs = cache.join("initramfs.cpio");
    initramfs::write(&initramfs, &[("pidns-trace", &built.binary), ("kernel-tests", &tests)])?;

    let (kernels, mut failed) = fetch(&cache, &wanted, args.refresh);
    let mut outcomes = Vec::new();
    if let Some((_, first)) = kernels.first() {
        let accel = accel_probe::choose(args.accel, &qemu, &cache, &first.vmlinuz, &initramfs)?;
        let plan = Plan { args: &args, qemu: &qemu, accel, initramfs: &initramfs, logs: &logs };
        outcomes = plan.run(&kernels);
    }
    print!("{}", report::report(&outcomes));
    failed.extend(outcomes.iter().filter(|outcome| !outcome.is_good()).map(|outcome| outcome.label.clone()));
    if !failed.is_empty() {
        bail!("not every test passed on every kernel: {}", failed.join(", "));
    }
    Ok(())
}

fn fetch_only(cache: &Path, wanted: &[Wanted], refresh: bool) -> Result<()> {
    let (kernels, missing) = fetch(cache, wanted, refresh);
    for (_, kernel) in &kernels {
        let btf = kernel.btf()?;
        println!("{} {} {} {}", kernel.name, kernel.version, kernel.vmlinuz.display(), btf.display());
    }
    if !missing.is_empty() {
        bail!("could not download: {}", missing.join(", "));
    }
    Ok(())
}

/// Downloads the kernels. Returns them, and the names of those that failed, whose errors are already printed.
fn fetch<'a>(cache: &Path, wanted: &'a [Wanted], refresh: bool) -> (Vec<(&'a Wanted, Kernel)>, Vec<String>) {
    let (mut kernels, mut missing) = (Vec::<(&Wanted, Kernel)>::new(), Vec::new());
    for wanted in wanted {
        // A kernel that is tested twice is downloaded once.
        let fetched_before = kernels.iter().any(|(_, kernel)| kernel.name == wanted.kernel);
        match kernels::fetch(cache, &wanted.kernel, refresh && !fetched_before) {
            Ok(kernel) => kernels.push((wanted, kernel)),
            Err(error) => {
                eprintln!("{error:#}");
                missing.push(wanted.kernel.to_string());
            }
        }
    }
    (kernels, missing)
}

/// Arguments are passed on the guest kernel's command line, which takes no quotes or spaces.
fn check_arguments(args: &[String]) -> Result<()> {
    match args.iter().find(|arg| arg.contains(['"', ' '])) {
        Some(odd) => {
            bail!("{odd:?} goes through the guest kernel's command line, which takes no quotes or spaces")
        }
        None => Ok(()),
    }
}

/// Builds the target that a cargo subcommand would run. Returns the path of its executable.
fn build_target(ready: &Ready, subcommand: &str, args: &[&str], target: &str) -> Result<PathBuf> {
    let mut cargo = ready.cargo(subcommand);
    cargo.args(args).arg("--no-run");
    cargo.args(["--message-format", "json-render-diagnostics"]).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = cargo.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shell::describe(&cargo), output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let executable = message.get("executable")?.as_str()?.to_owned();
        (message["target"]["name"] == target).then_some(executable)
    });
    Ok(PathBuf::from(executable.with_context(|| format!("cargo does not name an executable of {target}"))?))
}

/// The settings for running guests.
struct Plan<'a> {
    args: &'a Args,
    qemu: &'a Qemu,
    accel: Accel,
    initramfs: &'a Path,
    logs: &'a Path,
}

impl Plan<'_> {
    /// Runs all kernels, some in parallel. The outcomes are in the order of the kernels.
    fn run(&self, kernels: &[(&Wanted, Kernel)]) -> Vec<Outcome> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.args.jobs.unwrap_or(cpus).clamp(1, kernels.len());
        eprintln!("guests: {}, {jobs} at a time ({})", kernels.len(), self.accel.name());
        let next = Mutex::new(kernels.iter().enumerate());
        let done = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    loop {
                        let taken = next.lock().expect("no thread panics while it holds the lock").next();
                        let Some((place, (wanted, kernel))) = taken else { return };
                        let outcome = self.run_one(wanted, kernel);
                        done.lock().expect("no thread panics while it holds the lock").push((place, outcome));
                    }
                });
            }
        });
        let mut done = done.into_inner().expect("no thread panics while it holds the lock");
        done.sort_by_key(|(place, _)| *place);
        done.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn run_one(&self, wanted: &Wanted, kernel: &Kernel) -> Outcome {
        let hooks = wanted.hooks.unwrap_or_default();
        let label = match hooks {
            Hooks::Auto => kernel.name.to_string(),
            forced => format!("{}:{}", kernel.name, forced.name()),
        };
        eprintln!("{label}: {} {} starts", kernel.package, kernel.version);
        let guest = Guest {
            qemu: self.qemu,
            accel: self.accel,
            clock: Clock::Time,
            vmlinuz: &kernel.vmlinuz,
            initramfs: self.initramfs,
            environment: vec![
                ("PIDNS_VM_JOB", "tests".to_owned()),
                ("PIDNS_TEST_HOOKS", hooks.name().to_owned()),
                (program::PROGRAM_VAR, "/usr/bin/pidns-trace".to_owned()),
                ("PIDNS_TEST_PATIENCE", self.accel.patience().to_string()),
                ("PIDNS_TEST_OWN_MACHINE", "1".to_owned()),
                ("PIDNS_TEST_LIVES", self.accel.lives().to_string()),
                ("PIDNS_TEST_CHURN", (self.accel.lives() / 10).to_string()),
                ("PIDNS_VM_ARGS", self.args.args.join(" ")),
            ],
            console: self.logs.join(format!("{}.log", label.replace(':', "-"))),
            boot_limit: BOOT_LIMIT,
            limit: Duration::from_secs(self.args.timeout * 60),
        };
        let begin = Instant::now();
        let mut progress = Progress::default();
        // A guest that fails to start counts only against its own kernel.
        let ran = guest.run(&mut progress).unwrap_or_else(|error| Ran::failed_to_start(&error));
        let outcome = Outcome {
            label,
            version: kernel.version.clone(),
            hooks,
            progress,
            boot: ran.boot,
            tests: ran.work,
            note: ran.note,
            console: guest::tail(&guest.console),
        };
        eprint!("{}", outcome.failure_details());
        let verdict = if outcome.is_good() { "good" } else { "FAILED" };
        eprintln!(
            "{}: {verdict} after {:.0} s; its console is in {}",
            outcome.label,
            begin.elapsed().as_secs_f64(),
            guest.console.display()
        );
        outcome
    }
}
