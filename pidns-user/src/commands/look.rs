//! What the commands on a snapshot share: taking it, following their TARGET from one to the next, and saying what was not seen.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use crate::{
    container::{self, Api, Container, Names, Roots},
    count::Count,
    failure::Failure,
    kernel::{clock, iterator::TaskIterator, load::LoadError, namespace},
    model::Forest,
    output::forest,
    procfs::Procfs,
    snapshot::{Namespace, Process, Snapshot, Unnamed, Unread, WhyUnnamed},
    target::Words,
};

use super::{find, watch::Look};

/// What snapshots are taken with: the kernel's task iterator, or where that cannot be had /proc.
#[derive(Default)]
pub(super) struct Eyes {
    /// None before the first snapshot; then the iterator, if it can be had.
    iterator: Option<Option<TaskIterator>>,
    /// Whether nothing is to be said of what could not be read.
    quiet: bool,
    /// What was said last to be unread.
    said: Unread,
    /// The mounted procs that were said last to show what nothing tells.
    said_unnamed: Vec<Unnamed>,
    /// The containers that were seen, so that each is looked up once.
    names: Option<Names>,
}

impl Eyes {
    /// Takes a snapshot.
    pub(super) fn snapshot(&mut self, holders: bool) -> Result<Snapshot, Failure> {
        let procfs = Procfs::default();
        let boot_ns = clock::boottime_ns();
        let mut snapshot = match self.iterate(boot_ns) {
            Some(mut snapshot) => {
                if let Err(error) = procfs.add_left_out(&mut snapshot) {
                    eprintln!(
                        "pidns-trace: cannot read /proc: {error}: what the task iterator left out is missing"
                    );
                }
                snapshot
            }
            None => procfs.snapshot(boot_ns).map_err(|error| Failure::Io { what: "read /proc", error })?,
        };
        if holders {
            procfs.add_holders(&mut snapshot);
        }
        if !self.quiet {
            self.say_what_is_unknown(&snapshot);
        }
        Ok(snapshot)
    }

    fn say_what_is_unknown(&mut self, snapshot: &Snapshot) {
        if snapshot.unread != self.said {
            self.said = snapshot.unread;
            if let Some(words) = words_about(&snapshot.unread, rustix::process::geteuid().is_root()) {
                eprintln!("pidns-trace: {words}");
            }
        }
        if snapshot.unnamed != self.said_unnamed {
            self.said_unnamed.clone_from(&snapshot.unnamed);
            words_about_procs(&snapshot.unnamed).iter().for_each(|words| eprintln!("pidns-trace: {words}"));
        }
    }

    /// Those that say nothing of what they could not read, if that is wanted.
    pub(super) fn quiet(quiet: bool) -> Self {
        Self { quiet, ..Self::default() }
    }

    /// Those that name containers with the daemons' help, where that is wanted.
    pub(super) fn new(runtime_api: bool) -> Result<Self, Failure> {
        Ok(Self { names: Some(names(runtime_api)?), ..Self::default() })
    }

    /// Adds the containers: what the PID 1 of each namespace but the host's own runs in.
    pub(super) fn name_containers(&mut self, snapshot: &mut Snapshot) {
        let inits =
            snapshot.processes.iter().filter(|process| process.is_init() && process.level() > Some(0));
        for process in inits {
            let Some(ns) = process.ns else { continue };
            if let Some(namespace) = snapshot.namespaces.get_mut(&ns) {
                namespace.container = self.container_of_init(process);
            }
        }
    }

    /// The container of one namespace: what its PID 1 runs in; of the host's own none.
    pub(super) fn container_of(&mut self, snapshot: &Snapshot, inum: u32) -> Option<Arc<Container>> {
        let is_it =
            |process: &&Process| process.ns == Some(inum) && process.is_init() && process.level() > Some(0);
        self.container_of_init(snapshot.processes.iter().find(is_it)?)
    }

    fn container_of_init(&mut self, init: &Process) -> Option<Arc<Container>> {
        let names = self.names.get_or_insert_with(|| Names::new(Roots::host()));
        names.find(container::Process { pid: init.pid, start_boot_ns: init.start_boot_ns? })
    }

    /// Adds the containers where the TARGET may be the name of one.
    pub(super) fn name_containers_for(&mut self, target: Option<&str>, snapshot: &mut Snapshot) {
        if target.is_some_and(|target| matches!(Words::of(target), Ok(Words::Name(_)))) {
            self.name_containers(snapshot);
        }
    }

    /// What the iterator tells; `None` where there is none, which is said once.
    fn iterate(&mut self, boot_ns: u64) -> Option<Snapshot> {
        let iterator = self.iterator.get_or_insert_with(load);
        let read = iterator.as_mut()?.read().and_then(|records| {
            Snapshot::from_records(boot_ns, &records)
                .map_err(|error| LoadError::Hook { hook: "iter/task", error: error.to_string() })
        });
        match read {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                say_without_iterator(&error);
                *iterator = None;
                None
            }
        }
    }
}

/// What names the containers of this machine; with the daemons' help where that is wanted.
pub(super) fn names(runtime_api: bool) -> Result<Names, Failure> {
    let roots = Roots::host();
    if !runtime_api {
        return Ok(Names::new(roots));
    }
    let api =
        Api::new(&roots).map_err(|error| Failure::Io { what: "start a thread to ask daemons", error })?;
    Ok(Names::asking(roots, api))
}

fn load() -> Option<TaskIterator> {
    if namespace::is_initial() != Some(true) {
        eprintln!(
            "pidns-trace: this is not the host's own PID namespace: PIDs and levels are counted from the namespace of \
             this /proc, and what is outside of it is not seen"
        );
        return None;
    }
    match TaskIterator::load() {
        Ok(iterator) => Some(iterator),
        // Nothing is wrong then: /proc shows the user's own processes, and what it does not is told.
        Err(LoadError::Privilege(_) | LoadError::UserNamespace) => None,
        Err(error) => {
            say_without_iterator(&error);
            None
        }
    }
}

fn say_without_iterator(error: &LoadError) {
    eprintln!("pidns-trace: reading /proc instead of the kernel's task iterator: {error}");
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

/// TARGETs of a stream's filter, with the names of containers turned into the numbers of their namespaces.
pub(super) fn without_names(targets: &[String], runtime_api: bool) -> Result<Vec<String>, Failure> {
    let is_name = |target: &str| matches!(Words::of(target), Ok(Words::Name(_)));
    if !targets.iter().any(|target| is_name(target)) {
        return Ok(targets.to_vec());
    }
    let mut eyes = Eyes::new(runtime_api)?;
    let mut snapshot = eyes.snapshot(false)?;
    eyes.name_containers(&mut snapshot);
    let forest = Forest::new(&snapshot);
    let number = |target: &String| match is_name(target) {
        true => find::namespace(target, &snapshot, &forest).map(|inum| inum.to_string()),
        false => Ok(target.clone()),
    };
    targets.iter().map(number).collect()
}

/// The TARGET of a command that looks again and again: found by its words once, and from then on the same namespace.
pub(super) struct Target<'a> {
    words: Option<&'a str>,
    found: Option<Namespace>,
}

impl<'a> Target<'a> {
    pub(super) fn new(words: Option<&'a str>) -> Self {
        Self { words, found: None }
    }

    /// What `write` writes, from the target down.
    pub(super) fn look(
        &mut self,
        snapshot: &Snapshot,
        forest: &Forest<'_>,
        write: impl FnOnce(Option<u32>, &mut dyn io::Write) -> io::Result<()>,
    ) -> Result<Look, Failure> {
        if let (Some(words), None) = (self.words, &self.found) {
            let inum = find::namespace(words, snapshot, forest)?;
            self.found = forest.node(inum).map(|node| node.namespace.clone());
        }
        if let Some(found) = &self.found
            && !forest.node(found.inum).is_some_and(|node| is_same(found, node.namespace))
        {
            return Ok(Look::Gone(format!("namespace {} is gone", found.inum)));
        }
        let mut text = Vec::new();
        write(self.found.as_ref().map(|found| found.inum), &mut text)
            .map_err(|error| Failure::Io { what: "write to memory", error })?;
        Ok(Look::Seen(text))
    }
}

/// Whether two namespaces of one inode number, which the kernel gives out again at once, are one, as far as it is known.
fn is_same(earlier: &Namespace, later: &Namespace) -> bool {
    let differ = |a: Option<u64>, b: Option<u64>| a.zip(b).is_some_and(|(a, b)| a != b);
    !differ(earlier.kernel_id, later.kernel_id) && !differ(earlier.born_boot_ns, later.born_boot_ns)
}

/// Prints what `write` writes; a reader that has gone is no failure.
pub(super) fn print(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<ExitCode, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Io { what: "write to standard output", error })
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_namespace_of_the_same_number_is_another() {
        let of = |kernel_id, born_boot_ns| Namespace { kernel_id, born_boot_ns, ..Namespace::bare(7, 1) };
        assert!(is_same(&of(Some(1), Some(5)), &of(Some(1), Some(5))));
        assert!(is_same(&of(Some(1), Some(5)), &of(Some(1), None)), "its init has died");
        assert!(is_same(&of(None, None), &of(None, Some(5))), "its init was born");
        assert!(!is_same(&of(Some(1), None), &of(Some(2), None)));
        assert!(!is_same(&of(None, Some(5)), &of(None, Some(6))));
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
