//! `cargo xtask bench --vm`: runs the bench in guests, one after the other, so that none disturbs another.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{
    BOOT_LIMIT,
    accel::Accel,
    accel_probe::{self, Choice},
    guest::{self, Clock, Guest},
    initramfs, kernels,
    kernels::Kernel,
    qemu::Qemu,
    stream::Listener,
    wanted::KernelName,
};
use crate::{build, program, setup, workspace};

/// Come before the user's arguments, which override them. An emulated CPU takes at least ten times as long.
const DEFAULTS: [&str; 4] = ["--lives=2000", "--calls=100000", "--rounds=2", "--workers=1"];

/// Runs the bench on each kernel, and prints its reports.
pub(crate) fn main(kernels: &[KernelName], args: &[String], limit: Duration) -> Result<()> {
    super::check_arguments(args)?;
    let cache = workspace::target_dir()?.join("vm");
    let logs = cache.join("logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    kernels::check_tools()?;
    let ready = setup::ready_for_guests()?;
    let qemu = Qemu::find_or_unpack(&cache)?;
    let built = build::build_with(ready)?;
    let bench = super::build_target(
        &built.ready,
        "bench",
        &["--package", "pidns-user", "--bench", "hooks"],
        "hooks",
    )?;
    let initramfs = cache.join("bench.cpio");
    initramfs::write(&initramfs, &[("pidns-trace", &built.binary), ("bench", &bench)])?;
    for name in kernels {
        let kernel = kernels::fetch(&cache, name, false)?;
        let accel = accel_probe::choose(Choice::Auto, &qemu, &cache, &kernel.vmlinuz, &initramfs)?;
        measure(&qemu, &kernel, accel, &initramfs, &logs, args, limit)?;
    }
    Ok(())
}

fn measure(
    qemu: &Qemu,
    kernel: &Kernel,
    accel: Accel,
    initramfs: &Path,
    logs: &Path,
    args: &[String],
    limit: Duration,
) -> Result<()> {
    eprintln!("{}: {} {} starts ({})", kernel.name, kernel.package, kernel.version, accel.name());
    let words: Vec<&str> = DEFAULTS.into_iter().chain(args.iter().map(String::as_str)).collect();
    let clock = match accel {
        Accel::Tcg => Clock::Instructions,
        Accel::Kvm => Clock::Time,
    };
    let guest = Guest {
        qemu,
        accel,
        clock,
        vmlinuz: &kernel.vmlinuz,
        initramfs,
        environment: vec![
            ("PIDNS_VM_JOB", "bench".to_owned()),
            ("PIDNS_BENCH_INSTRUCTIONS", u8::from(clock == Clock::Instructions).to_string()),
            (program::PROGRAM_VAR, "/usr/bin/pidns-trace".to_owned()),
            ("PIDNS_VM_ARGS", words.join(" ")),
        ],
        console: logs.join(format!("bench-{}.log", kernel.name)),
        boot_limit: BOOT_LIMIT,
        limit,
    };
    let mut reporter = Reporter::default();
    let ran = guest.run(&mut reporter).with_context(|| format!("kernel {}", kernel.name))?;
    match (reporter.exit, ran.note) {
        (Some(0), None) => Ok(()),
        (Some(0), Some(note)) => bail!("kernel {}: after the report: {note}", kernel.name),
        (Some(code), _) => bail!("kernel {}: the bench ended with {code}", kernel.name),
        (None, note) => bail!(
            "kernel {}: {}; the end of its console:\n{}",
            kernel.name,
            note.as_deref().unwrap_or("it ended before the bench did"),
            guest::tail(&guest.console)
        ),
    }
}

/// Passes on the output of the bench: the report to stdout, the rest to stderr.
#[derive(Default)]
struct Reporter {
    up: bool,
    reports: bool,
    /// The exit code of the bench.
    exit: Option<i32>,
}

impl Listener for Reporter {
    fn line(&mut self, line: &str) {
        let line = line.trim_end_matches(['\r', '\n']);
        if line.starts_with("@boot ") {
            self.up = true;
        } else if line == "@report" {
            self.reports = true;
        } else if let Some(code) = line.strip_prefix("@exit ") {
            self.exit = code.parse().ok();
        } else if self.reports && self.exit.is_none() {
            println!("{line}");
        } else if self.up {
            eprintln!("{line}");
        }
    }

    fn is_up(&self) -> bool {
        self.up
    }

    fn is_over(&self) -> bool {
        self.exit.is_some()
    }
}
