//! Errors that keep the kernel side from loading.

use std::{error::Error, io};

use aya::maps::MapError;

use super::{
    btf::{self, BtfError},
    capabilities::{self, Capability, NEEDED},
    layout::Missing,
    namespace,
};

/// Why the kernel side cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A capability is missing.
    #[error(
        "loading BPF programs needs {}: run it with sudo, or give the binary the capabilities: `{}`",
        list(.0), capabilities::setcap()
    )]
    Privilege(Vec<Capability>),
    /// The process has the capabilities, but not in the initial user namespace.
    #[error(
        "loading BPF programs needs {}, both in the initial user namespace: this process is in another one, whose \
         capabilities do not count: {}", list(&NEEDED), namespace::TO_INITIAL_USER
    )]
    UserNamespace,
    /// The kernel has no BTF.
    #[error(
        "cannot read {path}: {error}: this kernel does not describe its types; pidns-trace needs one built with \
         CONFIG_DEBUG_INFO_BTF=y (every distribution's since about 2021)",
        path = btf::PATH, error = .0
    )]
    NoBtf(#[source] io::Error),
    /// BTF is damaged, or not BTF.
    #[error("cannot use {path}: {error}", path = btf::PATH, error = .0)]
    BadBtf(#[from] BtfError),
    /// BTF lacks types or fields that the programs need.
    #[error("this kernel's layout is not known: {0}")]
    Layout(#[from] Missing),
    /// The build has no eBPF object, because it skipped the eBPF toolchain.
    #[error(
        "this binary was built without its kernel side (AYA_BUILD_SKIP): build it with `cargo xtask build`"
    )]
    NoObject,
    /// aya refused the object or a map.
    #[error("cannot create the maps of the kernel side: {}", with_causes(.0))]
    Object(#[from] aya::EbpfError),
    /// A map of the object is missing, or has another type.
    #[error("cannot use a map of the kernel side: {}", with_causes(.0))]
    Map(#[from] MapError),
    /// The kernel refused a hook that is indispensable.
    #[error(
        "attach {hook}: {error}: this kernel refuses a hook that the live stream needs, or that --hooks function \
         requires; `pidns-trace check` lists the hooks that this kernel accepts"
    )]
    Hook {
        /// The hook.
        hook: &'static str,
        /// The kernel's error.
        error: String,
    },
    /// The kernel refused the task iterator, which takes snapshots.
    #[error("the kernel's task iterator (iter/task) is not available: {0}")]
    Iterator(String),
    /// Memory or file descriptors are used up. This says nothing about the kernel.
    #[error("{what}: {error}{}", remedy(error))]
    Exhausted {
        /// The step that failed.
        what: String,
        /// Its error.
        error: io::Error,
    },
    /// Another system call failed.
    #[error("{what}: {error}")]
    Io {
        /// The step that failed.
        what: &'static str,
        /// Its error.
        error: io::Error,
    },
}

/// Returns ENOMEM, EMFILE or ENFILE if one of them caused `error`.
pub(super) fn exhausted(error: &(dyn Error + 'static)) -> Option<io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let errno = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if let Some(errno) = errno.filter(|errno| [libc::ENOMEM, libc::EMFILE, libc::ENFILE].contains(errno))
        {
            return Some(io::Error::from_raw_os_error(errno));
        }
        next = error.source();
    }
    None
}

/// Advice for the user.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => ": allow this process more descriptors (`ulimit -n`, RLIMIT_NOFILE)",
        Some(libc::ENFILE) => ": this machine has no descriptors left (`fs.file-max`)",
        Some(libc::ENOMEM) => ": memory has run out, or its cgroup or RLIMIT_AS allows no more",
        _ => "",
    }
}

impl LoadError {
    /// Returns `Exhausted` if memory or file descriptors ran out, and otherwise the error itself.
    #[must_use]
    pub fn or_exhausted(self, what: &str) -> Self {
        match exhausted(&self) {
            Some(error) if !matches!(self, Self::Exhausted { .. }) => {
                Self::Exhausted { what: what.to_owned(), error }
            }
            _ => self,
        }
    }
}

/// Formats an error with its causes. aya's own message omits the last cause, and with it the errno.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

fn list(missing: &[Capability]) -> String {
    missing
        .iter()
        .map(|Capability { name, purpose, .. }| format!("{name} (to {purpose})"))
        .collect::<Vec<_>>()
        .join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_map_is_reported_with_its_errno() {
        let io_error = io::Error::from_raw_os_error(libc::EPERM);
        let refused = MapError::CreateError { name: "EVENTS".to_owned(), io_error };
        let message = LoadError::from(aya::EbpfError::from(refused)).to_string();
        assert!(message.contains("EVENTS") && message.contains("os error 1"), "{message}");
        assert_eq!(message.matches("failed to create").count(), 1, "{message}");
    }

    #[test]
    fn exhausted_memory_and_descriptors_are_not_blamed_on_the_kernel() {
        for (errno, word) in
            [(libc::EMFILE, "ulimit -n"), (libc::ENFILE, "file-max"), (libc::ENOMEM, "memory")]
        {
            let io_error = io::Error::from_raw_os_error(errno);
            let refused = MapError::CreateError { name: "EVENTS".to_owned(), io_error };
            for error in [
                LoadError::from(aya::EbpfError::from(refused)),
                LoadError::NoBtf(io::Error::from_raw_os_error(errno)),
            ] {
                let message = error.or_exhausted("load the kernel side").to_string();
                assert!(message.starts_with("load the kernel side: ") && message.contains(word), "{message}");
            }
        }
        let refused = LoadError::NoBtf(io::Error::from_raw_os_error(libc::ENOENT)).or_exhausted("load");
        assert!(matches!(refused, LoadError::NoBtf(_)));
    }

    #[test]
    fn error_in_another_user_namespace_names_capabilities_and_remedy() {
        let message = LoadError::UserNamespace.to_string();
        for part in ["CAP_BPF", "CAP_PERFMON", "initial user namespace", "on the host", "--userns=host"] {
            assert!(message.contains(part), "{part:?}: {message}");
        }
    }
}
