//! Chooses between emulation and KVM: a trial boot shows whether KVM works here.

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

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Choice {
    /// KVM if a trial boot under it works, else emulation
    Auto,
    /// Emulation
    Tcg,
    /// KVM
    Kvm,
}

/// How long a trial may take: a kernel that boots under KVM does so in two seconds.
const TRIAL: Duration = Duration::from_secs(20);

/// How long the answer of a trial holds: the machine's hypervisor may be changed.
const HOLDS: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a trial showed.
#[derive(Serialize, Deserialize)]
struct Answer {
    works: bool,
    tried: SystemTime,
}

/// Which to use. A trial is made once, with this kernel.
pub(super) fn choose(
    choice: Choice,
    qemu: &Qemu,
    cache: &Path,
    vmlinuz: &Path,
    initramfs: &Path,
) -> Result<Accel> {
    match choice {
        Choice::Tcg => Ok(Accel::Tcg),
        Choice::Auto if !is_there() => Ok(Accel::Tcg),
        Choice::Kvm if !is_there() => bail!("/dev/kvm is not there, or not for this user"),
        Choice::Auto | Choice::Kvm => {
            let file = cache.join("kvm.json");
            let answer = read(&file).filter(|_| choice == Choice::Auto);
            let works = match answer {
                Some(answer) => answer.works,
                None => {
                    let works = boots(qemu, cache, vmlinuz, initramfs)?;
                    let answer = Answer { works, tried: SystemTime::now() };
                    // Without it the trial is made again, which costs some seconds and nothing else.
                    let _kept = serde_json::to_vec(&answer).map(|answer| fs::write(&file, answer));
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

fn is_there() -> bool {
    OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

fn read(file: &Path) -> Option<Answer> {
    let answer: Answer = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    answer.tried.elapsed().is_ok_and(|age| age < HOLDS).then_some(answer)
}

fn trial_log(cache: &Path) -> PathBuf {
    cache.join("kvm-trial.log")
}

/// A machine may have /dev/kvm and no kernel that boots under it, nested as it is.
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
