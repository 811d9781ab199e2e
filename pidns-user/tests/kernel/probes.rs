//! Probes for features that some kernels lack. A probe tries the feature. If it is missing, the test is skipped with
//! the printed reason.

use std::fs;
use std::process::{Command, Stdio};

use pidns_user::kernel::btf;

use crate::cgroups::{PIDS_CGROUPS, memory_cgroups, pids_controller, unified_cgroups};

/// Whether a test can run here.
pub(crate) enum Outcome {
    Run,
    Skip(String),
}

/// For features that every kernel since 5.10 has.
pub(crate) fn nothing() -> Outcome {
    Outcome::Run
}

/// The test sets the count limit in a separate user namespace.
pub(crate) fn user_namespaces() -> Outcome {
    match fs::read_to_string("/proc/sys/user/max_user_namespaces") {
        Ok(limit) if limit.trim() != "0" => runs("too-many", "user namespaces are refused here"),
        Ok(_) => Outcome::Skip("user.max_user_namespaces is 0".into()),
        Err(error) => Outcome::Skip(format!("/proc/sys/user/max_user_namespaces: {error}")),
    }
}

/// clone3 with set_tid. It is missing if seccomp hides clone3, or if the kernel lacks it.
pub(crate) fn set_tid() -> Outcome {
    runs("restore", "clone3 does not take set_tid here")
}

/// setns with a pidfd (since 5.8).
pub(crate) fn pidfd() -> Outcome {
    runs("join-by-pidfd", "setns does not take a pidfd here")
}

/// Whether an actor can create its situation, without a stream.
fn runs(situation: &str, otherwise: &str) -> Outcome {
    let this = std::env::current_exe().expect("find this program");
    let quiet = Command::new(this)
        .args(["actor", situation])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match quiet {
        Ok(status) if status.success() => Outcome::Run,
        Ok(_) => Outcome::Skip(otherwise.into()),
        Err(error) => Outcome::Skip(format!("{otherwise}: {error}")),
    }
}

/// io_uring whose workers are threads of the process that they work for (since 5.12). It may be off
/// (kernel.io_uring_disabled).
pub(crate) fn io_uring_workers() -> Outcome {
    runs("worker-of-a-ring", "io_uring has no workers that are threads of their process here")
}

pub(crate) fn pids_cgroup() -> Outcome {
    if std::path::Path::new(PIDS_CGROUPS).join("cgroup.procs").exists() {
        Outcome::Run
    } else {
        Outcome::Skip(format!("no pids controller at {PIDS_CGROUPS}"))
    }
}

pub(crate) fn counting_cgroups() -> Outcome {
    pids_controller()
        .map_or_else(|| Outcome::Skip("no pids controller in /sys/fs/cgroup".into()), |_| Outcome::Run)
}

/// FUSE (CONFIG_FUSE_FS). It may be a module that is missing.
pub(crate) fn fuse() -> Outcome {
    match fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Outcome::Run,
        Err(error) => Outcome::Skip(format!("no FUSE (/dev/fuse: {error})")),
    }
}

/// System call filters (CONFIG_SECCOMP_FILTER).
pub(crate) fn seccomp() -> Outcome {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("errno") => Outcome::Run,
        Ok(actions) => Outcome::Skip(format!("no seccomp filters (actions: {})", actions.trim())),
        Err(error) => {
            Outcome::Skip(format!("no seccomp filters (/proc/sys/kernel/seccomp/actions_avail: {error})"))
        }
    }
}

/// Landlock (since 5.13). It may be off.
pub(crate) fn landlock() -> Outcome {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no structure. It returns a number, or fails.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, VERSION) };
    if abi > 0 {
        Outcome::Run
    } else {
        Outcome::Skip(format!("no Landlock ({})", std::io::Error::last_os_error()))
    }
}

/// Before 6.14 a namespace has no pid_max of its own. Writing it would change the whole machine's.
pub(crate) fn own_pid_max() -> Outcome {
    let bytes = fs::read(btf::PATH).expect("this kernel's BTF");
    match btf::Btf::parse(&bytes).expect("this kernel's BTF").field("pid_namespace", "pid_max") {
        Ok(_) => Outcome::Run,
        Err(error) => Outcome::Skip(error.to_string()),
    }
}

/// A machine of which nothing else needs the settings: a guest of `cargo xtask vm`.
pub(crate) fn own_machine() -> Outcome {
    match std::env::var_os("PIDNS_TEST_OWN_MACHINE") {
        Some(_) => Outcome::Run,
        None => Outcome::Skip("it changes a setting of the whole machine, so it runs only in guests".into()),
    }
}

/// Function hooks. Some kernels refuse them, and a test run may exclude them.
pub(crate) fn function_hooks() -> Outcome {
    use std::sync::OnceLock;
    static REFUSED: OnceLock<Option<String>> = OnceLock::new();
    let refused = REFUSED.get_or_init(|| {
        let output = crate::tracer::command(&["check", "-o", "json"]).stdout(Stdio::piped()).output();
        let report: serde_json::Value = serde_json::from_slice(&output.expect("run the program").stdout)
            .expect("parse the output of check");
        let lines = report["lines"].as_array().expect("check has lines");
        let line = lines.iter().find(|line| line["what"] == "copy_pid_ns").expect("check names every hook");
        let detail = line["detail"].as_str().expect("a detail");
        detail.starts_with("off: ").then(|| format!("no function hooks ({detail})"))
    });
    refused.clone().map_or(Outcome::Run, Outcome::Skip)
}

pub(crate) fn memory_cgroup() -> Outcome {
    memory_cgroups()
        .map_or_else(|| Outcome::Skip("no memory controller in /sys/fs/cgroup".into()), |_| Outcome::Run)
}

pub(crate) fn unified_cgroup() -> Outcome {
    let none = || Outcome::Skip("no cgroup v2 in /sys/fs/cgroup".into());
    unified_cgroups().map_or_else(none, |_| Outcome::Run)
}

/// Whether tracepoints allow preemption (7.0 and later), so that the kernel can skip programs.
pub(crate) fn tracepoints_are_preemptible() -> bool {
    let bytes = fs::read(btf::PATH).expect("this kernel's BTF");
    btf::Btf::parse(&bytes)
        .expect("this kernel's BTF")
        .has_guard(pidns_user::kernel::layout::TRACEPOINT_GUARD)
}
