//! The tests that a kernel may skip, because it lacks a feature.

use super::{stream::Skip, wanted::Hooks};
use crate::version::Version;

/// A feature that came with a version of Linux.
struct Fact {
    /// The part of a skip's reason that names the missing feature.
    text: &'static str,
    since: Version,
}

/// Each feature with the release that brought it. The program detects features by asking the kernel. This list
/// decides by version on purpose: if the program asks wrongly, a test that should run is skipped, and the list shows
/// it.
const FACTS: &[Fact] = &[
    // Each PID namespace has its own limit.
    Fact { text: "no field pid_max in pid_namespace", since: Version::new(6, 14, 0) },
    Fact { text: "no Landlock", since: Version::new(5, 13, 0) },
];

/// The reason of a skip if only tracepoints were requested, which do not see the event.
const WITHOUT_FUNCTIONS: &str = "no function hooks (off: --hooks tracepoint)";

/// Parts of reasons about features that Debian's kernels have as modules, or only with the other cgroup version. A
/// guest has only the kernel, without modules.
const NOT_IN_GUESTS: [&str; 2] = ["no FUSE (/dev/fuse", "this machine has no cgroup v1 freezer"];

/// Whether a kernel of this release may skip this test with these hooks.
pub(super) fn is_allowed(skip: &Skip, release: &str, hooks: Hooks) -> bool {
    if hooks == Hooks::Tracepoint && skip.reason == WITHOUT_FUNCTIONS {
        return true;
    }
    if NOT_IN_GUESTS.iter().any(|text| skip.reason.starts_with(text)) {
        return true;
    }
    let Some(version) = Version::parse(release) else { return false };
    FACTS.iter().any(|fact| skip.reason.contains(fact.text) && version < fact.since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(reason: &str) -> Skip {
        Skip { name: "processes::a".into(), reason: reason.into() }
    }

    #[test]
    fn only_tests_of_missing_kernel_features_may_be_skipped() {
        let pid_max = skip("this kernel's BTF has no field pid_max in pid_namespace");
        let allowed = |skip: &Skip, release: &str| is_allowed(skip, release, Hooks::Auto);
        assert!(allowed(&pid_max, "6.12.117+deb13-cloud-amd64"));
        assert!(!allowed(&pid_max, "7.2.13+deb14-cloud-amd64"), "this kernel has it");
        assert!(!allowed(&skip("no pids controller"), "5.10.0-46-cloud-amd64"), "the guest's init mounts it");
        assert!(!allowed(&pid_max, "unknown"));
        assert!(allowed(&skip("no FUSE (/dev/fuse: No such file or directory (os error 2))"), "5.10.0"));
        assert!(allowed(&skip("this machine has no cgroup v1 freezer"), "7.2.13"));
    }

    #[test]
    fn function_hooks_may_be_missing_only_if_not_requested() {
        let left_out = skip(WITHOUT_FUNCTIONS);
        assert!(is_allowed(&left_out, "6.1.0-56-cloud-amd64", Hooks::Tracepoint));
        assert!(!is_allowed(&left_out, "6.1.0-56-cloud-amd64", Hooks::Auto));
        let refused = skip("no function hooks (off: Operation not permitted (os error 1))");
        assert!(!is_allowed(&refused, "6.1.0-56-cloud-amd64", Hooks::Function));
    }
}
