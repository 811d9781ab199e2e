//! Messages about data that could not be read.

use crate::{
    event::snapshot::{Unnamed, Unread, WhyUnnamed},
    output::forest,
    text::Count,
};

/// Namespaces that were not opened because that could block forever.
pub(super) fn about_servers(unread: &Unread) -> Option<String> {
    let count = Count(unread.behind_server, "mounted namespace was", "mounted namespaces were");
    (unread.behind_server > 0).then(|| {
        format!("{count} not opened: the path leads through a file system whose server may not answer (FUSE, NFS and similar)")
    })
}

/// Data that pidns-trace has no permission to read, and the remedy.
pub(super) fn about(unread: &Unread, root: bool) -> Option<String> {
    let Unread { processes, namespaces, files, mounts, hidden, behind_server: _ } = *unread;
    let of = |count, what| (count > 0).then(|| format!("{what} of {}", Count(count, "process", "processes")));
    let parts = [
        of(processes, "all but the PID"),
        of(namespaces, "the namespace"),
        of(files, "the open files"),
        of(mounts, "the mounts"),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    let remedy = if root {
        "This is root: a security module forbids it, or CAP_SYS_PTRACE is missing in this user namespace"
    } else {
        "Reading needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: run it with sudo"
    };
    let hides = "this /proc does not show the processes of others (its mount option hidepid)";
    match (parts.join(", "), hidden) {
        (parts, false) if parts.is_empty() => None,
        (parts, true) if parts.is_empty() => Some(format!("{hides}. {remedy}")),
        (parts, false) => Some(format!("no permission to read: {parts}. {remedy}")),
        (parts, true) => Some(format!("{hides}. No permission to read: {parts}. {remedy}")),
    }
}

/// Mounted procs that keep an unknown namespace. (Only JSON lists procs that are out of sight: they are normal.)
pub(super) fn about_procs(unnamed: &[Unnamed]) -> Vec<String> {
    let line = |why, one, more| {
        let mounts = unnamed.iter().filter(|unnamed| unnamed.why == why);
        let places: Vec<String> = mounts.map(|unnamed| forest::place(&unnamed.mount)).collect();
        let mounts = Count(places.len() as u64, one, more);
        let named = forest::NAMED.min(places.len());
        let more = match places.len() - named {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (named > 0).then(|| format!("{mounts}: {}{more}", places[..named].join(", ")))
    };
    let text = [
        line(
            WhyUnnamed::NoProcess,
            "mounted proc keeps an unknown namespace without processes",
            "mounted procs keep unknown namespaces without processes",
        ),
        line(
            WhyUnnamed::Unreadable,
            "mounted proc cannot be read, so its namespace is unknown",
            "mounted procs cannot be read, so their namespaces are unknown",
        ),
        line(
            WhyUnnamed::BehindServer,
            "mounted proc was not read, because the path leads through a file system whose server may not answer",
            "mounted procs were not read, because the paths lead through file systems whose servers may not answer",
        ),
    ];
    text.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn unread_data_is_reported_with_a_remedy() {
        assert_eq!(about(&Unread::default(), false), None);
        let text = about(&Unread { namespaces: 1, files: 2, ..Unread::default() }, false).expect("words");
        for part in ["namespace of 1 process,", "files of 2 processes.", "CAP_SYS_PTRACE", "sudo"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("mounts") && !text.contains("hidepid"), "{text}");
        let behind_server = Unread { behind_server: 2, ..Unread::default() };
        assert_eq!(about(&behind_server, false), None, "no privilege would help");
        let text = about_servers(&behind_server).expect("words");
        assert!(text.starts_with("2 mounted namespaces were not opened"), "{text}");
        for processes in [0, 3] {
            let unread = Unread { processes, hidden: true, ..Unread::default() };
            let text = about(&unread, false).expect("words");
            assert_eq!(text.contains("all but the PID of 3 processes"), processes == 3, "{text}");
            assert!(text.contains("hidepid") && text.contains("sudo"), "{text}");
        }
        let text = about(&Unread { mounts: 1, ..Unread::default() }, true).expect("words");
        assert!(!text.contains("sudo") && text.contains("security module"), "{text}");
    }
}
