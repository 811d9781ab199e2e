//! What a kernel cannot do, no test can ask of it: found out by trying, and said when a test is skipped.

use std::fs;
use std::process::{Command, Stdio};

use pidns_user::kernel::btf;

/// Whether a test can run here.
pub(crate) enum Outcome {
    Run,
    Skip(String),
}

/// For what every kernel since 5.10 can do.
pub(crate) fn nothing() -> Outcome {
    Outcome::Run
}

/// The count limit is set in a user namespace of the test's own.
pub(crate) fn user_namespaces() -> Outcome {
    match fs::read_to_string("/proc/sys/user/max_user_namespaces") {
        Ok(limit) if limit.trim() != "0" => plays("too-many", "user namespaces are refused here"),
        Ok(_) => Outcome::Skip("user.max_user_namespaces is 0".into()),
        Err(error) => Outcome::Skip(format!("/proc/sys/user/max_user_namespaces: {error}")),
    }
}

/// clone3 with set_tid: absent where seccomp hides clone3 or the kernel lacks it.
pub(crate) fn set_tid() -> Outcome {
    plays("restore", "clone3 does not take set_tid here")
}

/// setns with a pidfd, since 5.8.
pub(crate) fn pidfd() -> Outcome {
    plays("join-by-pidfd", "setns does not take a pidfd here")
}

/// Whether an actor can make its situation at all, without anybody watching.
fn plays(situation: &str, otherwise: &str) -> Outcome {
    let this = std::env::current_exe().expect("/proc/self/exe can be read");
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

/// Where cgroup v1 has the pids controller.
pub(crate) const PIDS_CGROUPS: &str = "/sys/fs/cgroup/pids";

pub(crate) fn pids_cgroup() -> Outcome {
    if std::path::Path::new(PIDS_CGROUPS).join("cgroup.procs").exists() {
        Outcome::Run
    } else {
        Outcome::Skip(format!("no pids controller at {PIDS_CGROUPS}"))
    }
}

/// Before 6.14 a namespace has no pid_max of its own: writing it would change the whole machine's.
pub(crate) fn own_pid_max() -> Outcome {
    let bytes = fs::read(btf::PATH).expect("this kernel's BTF");
    match btf::Btf::parse(&bytes).expect("this kernel's BTF").field("pid_namespace", "pid_max") {
        Ok(_) => Outcome::Run,
        Err(error) => Outcome::Skip(error.to_string()),
    }
}
