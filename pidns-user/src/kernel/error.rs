//! Why the kernel side does not run.

use std::{error::Error, io};

use aya::maps::MapError;

use super::{
    btf::{self, BtfError},
    capabilities::{self, Capability, NEEDED},
    layout::Missing,
    namespace,
};

/// Why the kernel side does not run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A capability is missing.
    #[error(
        "loading BPF programs needs {}: run it with sudo, or give the binary the capabilities: `{}`",
        list(.0), capabilities::setcap()
    )]
    Privilege(Vec<Capability>),
    /// The capabilities would have to be those of the initial user namespace.
    #[error(
        "loading BPF programs needs {}, both in the initial user namespace: this is another one, whose \
         capabilities do not count: {}", list(&NEEDED), namespace::TO_INITIAL_USER
    )]
    UserNamespace,
    /// There is no BTF.
    #[error(
        "cannot read {path}: {error}: this kernel does not describe its types; pidns-trace needs one built with \
         CONFIG_DEBUG_INFO_BTF=y (every distribution's since about 2021)",
        path = btf::PATH, error = .0
    )]
    NoBtf(#[source] io::Error),
    /// BTF is damaged, or not BTF.
    #[error("cannot use {path}: {error}", path = btf::PATH, error = .0)]
    BadBtf(#[from] BtfError),
    /// BTF lacks what the programs need.
    #[error("this kernel's layout is not known: {0}")]
    Layout(#[from] Missing),
    /// The object is not one: a build without the eBPF toolchain.
    #[error(
        "this binary was built without its kernel side (AYA_BUILD_SKIP): build it with `cargo xtask build`"
    )]
    NoObject,
    /// aya refused the object or a map.
    #[error("cannot create the maps of the kernel side: {}", whole(.0))]
    Object(#[from] aya::EbpfError),
    /// A map of the object is missing, or of another type.
    #[error("cannot use a map of the kernel side: {}", whole(.0))]
    Map(#[from] MapError),
    /// A program that nothing works without was refused.
    #[error(
        "attach {hook}: {error}: this kernel refuses a hook that the live stream cannot do without, or that --hooks function \
         asks for; `pidns-trace check` lists the hooks that it takes"
    )]
    Hook {
        /// The hook.
        hook: &'static str,
        /// The kernel's error.
        error: String,
    },
    /// The task iterator, which takes snapshots, was refused.
    #[error("the kernel's task iterator (iter/task) is not available: {0}")]
    Iterator(String),
    /// Memory or descriptors are used up: that is no property of this kernel.
    #[error("{what}: {error}{}", remedy(error))]
    Exhausted {
        /// What was tried.
        what: String,
        /// What came back.
        error: io::Error,
    },
    /// Something else of the system.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What came back.
        error: io::Error,
    },
}

/// The error of memory or descriptors running out, if that is the cause.
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

/// What to do about it.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => ": allow this process more descriptors (`ulimit -n`, RLIMIT_NOFILE)",
        Some(libc::ENFILE) => ": this machine has no descriptors left (`fs.file-max`)",
        Some(libc::ENOMEM) => ": memory has run out, or its cgroup or RLIMIT_AS allows no more",
        _ => "",
    }
}

impl LoadError {
    /// The same, or that memory or descriptors are used up where that is behind it.
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

/// An error with its causes, of which aya's own message leaves the last, and with it the errno, out.
pub(super) fn whole(error: &dyn Error) -> String {
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
    fn memory_and_descriptors_that_are_used_up_are_no_fault_of_the_kernel() {
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
    fn in_another_user_namespace_the_capabilities_and_the_way_out_are_named() {
        let message = LoadError::UserNamespace.to_string();
        for part in ["CAP_BPF", "CAP_PERFMON", "initial user namespace", "on the host", "--userns=host"] {
            assert!(message.contains(part), "{part:?}: {message}");
        }
    }
}
