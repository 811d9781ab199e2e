//! Chooses between emulation and KVM. A trial boot shows whether KVM works on this machine.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{
    accel::Accel,
    guest::{Clock, Guest},
    qemu::Qemu,
    stream::Progress,
};

/// The user's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Choice {
    /// KVM if a trial boot under it works, else emulation
    Auto,
    /// Emulation
    Tcg,
    /// KVM
    Kvm,
}

/// The time limit of a trial boot. Under KVM a kernel boots in two seconds.
const TRIAL: Duration = Duration::from_secs(20);

/// How long a cached result is valid. It expires because the machine's hypervisor may change.
const VALID_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The result of a trial boot, as it is cached.
#[derive(Serialize, Deserialize)]
struct TrialResult {
    works: bool,
    tried: SystemTime,
}

/// Chooses the accelerator. `auto` uses the cached result of a trial boot if it is valid, else it boots this kernel.
/// `kvm` ignores the cache.
pub(super) fn choose(
    choice: Choice,
    qemu: &Qemu,
    cache: &Path,
    vmlinuz: &Path,
    initramfs: &Path,
) -> Result<Accel> {
    match choice {
        Choice::Tcg => Ok(Accel::Tcg),
        Choice::Auto if !can_open_kvm() => Ok(Accel::Tcg),
        Choice::Kvm if !can_open_kvm() => bail!("/dev/kvm does not exist, or this user may not open it"),
        Choice::Auto | Choice::Kvm => {
            let file = cache.join("kvm.json");
            let cached = read(&file).filter(|_| choice == Choice::Auto);
            let works = match cached {
                Some(result) => result.works,
                None => {
                    let works = boots(qemu, cache, vmlinuz, initramfs)?;
                    let result = TrialResult { works, tried: SystemTime::now() };
                    // If the file cannot be written, the next run repeats the trial, which takes some seconds.
                    let _written = serde_json::to_vec(&result).map(|json| fs::write(&file, json));
                    works
                }
            };
            match (works, choice) {
                (true, _) => Ok(Accel::Kvm),
                (false, Choice::Kvm) => {
                    bail!("no guest boots under KVM here: see {}", trial_log(cache).display())
                }
                (false, _) => Ok(Accel::Tcg),
            }
        }
    }
}

fn can_open_kvm() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

fn read(file: &Path) -> Option<TrialResult> {
    let result: TrialResult = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    result.tried.elapsed().is_ok_and(|age| age < VALID_FOR).then_some(result)
}

fn trial_log(cache: &Path) -> PathBuf {
    cache.join("kvm-trial.log")
}

/// Whether this kernel boots under KVM. It may not, even if /dev/kvm exists: for example if this machine is itself a
/// virtual machine.
fn boots(qemu: &Qemu, cache: &Path, vmlinuz: &Path, initramfs: &Path) -> Result<bool> {
    let guest = Guest {
        qemu,
        accel: Accel::Kvm,
        clock: Clock::Time,
        vmlinuz,
        initramfs,
        environment: Vec::new(),
        console: trial_log(cache),
        boot_limit: TRIAL,
        limit: TRIAL,
    };
    Ok(guest.run(&mut Progress::default())?.boot.is_some())
}
