//! What is unread_notices of what could not be read.

use crate::{
    event::snapshot::{Snapshot, Unnamed, Unread, WhyUnnamed},
    output::forest,
    text::Count,
};

/// What was unread_notices already: of looks that follow each other each kind of thing is unread_notices once, and not with each new number.
#[derive(Debug, Default)]
pub(crate) struct UnreadNotices {
    unread: [bool; 5],
    unnamed: [bool; 2],
}

impl UnreadNotices {
    /// What there is to say of this look.
    pub(crate) fn about(&mut self, snapshot: &Snapshot, root: bool) -> Vec<String> {
        let Unread { processes, namespaces, files, mounts, hidden } = snapshot.unread;
        let are = [processes > 0, namespaces > 0, files > 0, mounts > 0, hidden];
        let mut words = Vec::new();
        if is_new(&mut self.unread, are) {
            words.extend(words_about(&snapshot.unread, root));
        }
        let is_any = |why| snapshot.unnamed.iter().any(|unnamed| unnamed.why == why);
        if is_new(&mut self.unnamed, [is_any(WhyUnnamed::NoProcess), is_any(WhyUnnamed::Unreadable)]) {
            words.extend(words_about_procs(&snapshot.unnamed));
        }
        words
    }
}

/// Whether there is one that was not there before.
fn is_new<const N: usize>(unread_notices: &mut [bool; N], are: [bool; N]) -> bool {
    let before = *unread_notices;
    for (unread_notices, is) in unread_notices.iter_mut().zip(are) {
        *unread_notices |= is;
    }
    *unread_notices != before
}

fn words_about(unread: &Unread, root: bool) -> Option<String> {
    let Unread { processes, namespaces, files, mounts, hidden } = *unread;
    let of = |count, what| (count > 0).then(|| format!("{what} of {}", Count(count, "process", "processes")));
    let parts = [
        of(processes, "all but the PID"),
        of(namespaces, "the namespace"),
        of(files, "the open files"),
        of(mounts, "the mounts"),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    let remedy = if root {
        "This is root: a security module, or the lack of CAP_SYS_PTRACE in this user namespace, keeps them from it"
    } else {
        "That takes CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: run it with sudo"
    };
    let hides = "this /proc does not show the processes of others (its mount option hidepid)";
    match (parts.join(", "), hidden) {
        (parts, false) if parts.is_empty() => None,
        (parts, true) if parts.is_empty() => Some(format!("{hides}. {remedy}")),
        (parts, false) => Some(format!("not known, as it may not be read: {parts}. {remedy}")),
        (parts, true) => Some(format!("{hides}. Not known, as it may not be read: {parts}. {remedy}")),
    }
}

/// What mounted procs keep without showing it. (Of those that are out of sight JSON tells: nothing is wrong with them.)
fn words_about_procs(unnamed: &[Unnamed]) -> Vec<String> {
    let say = |why, one, more| {
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
    let words = [
        say(
            WhyUnnamed::NoProcess,
            "mounted proc keeps a namespace that has no process and that nothing names",
            "mounted procs keep namespaces that have no process and that nothing names",
        ),
        say(
            WhyUnnamed::Unreadable,
            "mounted proc may not be looked into for the namespace that it shows",
            "mounted procs may not be looked into for the namespaces that they show",
        ),
    ];
    words.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::event::snapshot::Source;

    #[test]
    fn of_looks_that_follow_each_other_each_kind_is_told_once() {
        let mut unread_notices = UnreadNotices::default();
        let mut look = |unread| {
            let snapshot = Snapshot { unread, ..Snapshot::empty(Source::Proc, 0) };
            unread_notices.about(&snapshot, false).len()
        };
        let files = |files| Unread { files, ..Unread::default() };
        assert_eq!(look(Unread::default()), 0);
        assert_eq!(look(files(2)), 1);
        assert_eq!(look(files(3)), 0, "another number of the same");
        assert_eq!(look(files(0)), 0);
        assert_eq!(look(files(4)), 0, "as it was unread_notices");
        assert_eq!(look(Unread { mounts: 1, ..files(4) }), 1, "something else");
    }

    #[test]
    fn what_was_not_read_is_told_with_the_way_out() {
        assert_eq!(words_about(&Unread::default(), false), None);
        let words =
            words_about(&Unread { namespaces: 1, files: 2, ..Unread::default() }, false).expect("words");
        for part in ["namespace of 1 process,", "files of 2 processes.", "CAP_SYS_PTRACE", "sudo"] {
            assert!(words.contains(part), "{part}: {words}");
        }
        assert!(!words.contains("mounts") && !words.contains("hidepid"), "{words}");
        for processes in [0, 3] {
            let unread = Unread { processes, hidden: true, ..Unread::default() };
            let words = words_about(&unread, false).expect("words");
            assert_eq!(words.contains("all but the PID of 3 processes"), processes == 3, "{words}");
            assert!(words.contains("hidepid") && words.contains("sudo"), "{words}");
        }
        let words = words_about(&Unread { mounts: 1, ..Unread::default() }, true).expect("words");
        assert!(!words.contains("sudo") && words.contains("security module"), "{words}");
    }
}
