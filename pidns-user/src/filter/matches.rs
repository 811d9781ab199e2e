//! Decides whether to show an event.

use super::Filter;
use crate::{
    event::container::Container,
    event::identity::NsInum,
    event::{Body, Process},
    model::World,
};

/// The objects that an event is about.
#[derive(Default)]
struct Subjects<'a> {
    process: Option<&'a Process>,
    /// Another process in the event.
    other: Option<&'a Process>,
    /// Level of its namespace, if the event is about a namespace itself.
    level: Option<u32>,
    /// Inode number of the namespace that the event belongs to.
    ns: Option<NsInum>,
}

impl Filter {
    /// Whether to show an event from a stream that the kernel has already filtered. Checks only the conditions that the
    /// kernel does not check. `container` is that of the event's namespace. A process with its own container matches by
    /// either of them.
    pub fn matches(&self, body: &Body, container: Option<&Container>) -> bool {
        self.is_frame(body).unwrap_or_else(|| self.has(body.name()) && self.wants(&about(body), container))
    }

    /// Whether to show an event from a stream that has all events. Checks all conditions. `world` shows which
    /// namespaces are nested.
    pub fn matches_all(&self, body: &Body, container: Option<&Container>, world: &World) -> bool {
        if let Some(is_shown) = self.is_frame(body) {
            return is_shown;
        }
        let is_existing = matches!(body, Body::SnapshotNamespace { .. } | Body::SnapshotProcess { .. });
        let about = about(body);
        let is_wanted = |inum: NsInum| {
            let args = self.filter.namespaces.iter().enumerate();
            args.into_iter()
                .any(|(index, &top)| self.is_pinned(index, top, body, world) && world.is_within(inum, top))
        };
        (is_existing || self.has(body.name()))
            && self.wants(&about, container)
            && (about.level.is_some()
                || about.process.is_none_or(|process| Self::is_among(self.level_mask, depth(process))))
            && (self.filter.namespaces.is_empty() || about.ns.is_some_and(is_wanted))
    }

    /// Whether the namespace with a requested number is the intended one: the kernel reuses numbers at once.
    fn is_pinned(&self, index: usize, inum: NsInum, body: &Body, world: &World) -> bool {
        let Some(pinned) = self.pinned.as_ref().map(|pinned| &pinned[index]) else { return true };
        match (world.namespace(inum), pinned.get()) {
            (Some(entry), _) => entry.is(pinned.get_or_init(|| entry.namespace.clone())),
            // The intended namespace was seen and is gone, so this creation is about another.
            (None, Some(_)) => !matches!(body, Body::NamespaceCreate { ns, .. } if ns.inum == inum),
            (None, None) => true,
        }
    }

    /// Whether a level is in a mask. Recordings can contain any level.
    fn is_among(mask: u64, level: u32) -> bool {
        1_u64.checked_shl(level).is_some_and(|bit| mask & bit != 0)
    }

    /// Whether the event is always shown (`true`) or never (`false`); `None` if that depends on the filter.
    fn is_frame(&self, body: &Body) -> Option<bool> {
        match body {
            Body::StreamStart { .. }
            | Body::StreamLost { .. }
            | Body::StreamResync { .. }
            | Body::StreamEnd { .. } => Some(true),
            Body::SnapshotNamespace { .. } | Body::SnapshotProcess { .. } if !self.existing => Some(false),
            _ => None,
        }
    }

    fn wants(&self, about: &Subjects<'_>, container: Option<&Container>) -> bool {
        let Subjects { process, other, level, ns: _ } = *about;
        let pids = &self.filter.pids;
        let among = |process: Option<&Process>| process.is_some_and(|process| pids.contains(&process.pid));
        if !pids.is_empty() && !among(process) && !among(other) {
            return false;
        }
        if !self.comms.is_empty()
            && !process.or(other).is_some_and(|process| {
                let comm = process.comm.for_json().to_string();
                self.comms.iter().any(|glob| glob.is_match(&comm))
            })
        {
            return false;
        }
        let containers = &self.filter.containers;
        if !containers.is_empty()
            && ![container, process.and_then(|process| process.container.as_deref())]
                .into_iter()
                .flatten()
                .any(|container| containers.iter().any(|name| container.is_within(name)))
        {
            return false;
        }
        level.is_none_or(|level| Self::is_among(self.namespace_level_mask, level))
    }
}

/// Inode number of the event's namespace; `None` for the host's own, which is in no container.
pub fn inner_namespace(body: &Body) -> Option<NsInum> {
    match body {
        // This is not on the hot path of a stream.
        Body::SnapshotNamespace { ns, .. } => (ns.level > 0).then_some(ns.inum),
        _ => {
            let Subjects { process, level, ns, .. } = about(body);
            let level = level.or(process.map(depth));
            ns.filter(|_| level != Some(0))
        }
    }
}

fn depth(process: &Process) -> u32 {
    process.pids.len().saturating_sub(1) as u32
}

fn about(body: &Body) -> Subjects<'_> {
    let own = body.namespace();
    let of = |process, other| Subjects {
        process: Some(process),
        other,
        level: own.map(|ns| ns.level),
        ns: Some(own.map_or(process.ns, |ns| ns.inum)),
    };
    match body {
        Body::NamespaceCreate { creator: process, .. }
        | Body::NamespaceInit { process, .. }
        | Body::NamespaceJoin { process, .. }
        | Body::NamespaceInitExit { process, .. } => of(process, None),
        Body::NamespaceCreateFailed { creator: process, .. }
        | Body::NamespaceJoinFailed { process, .. }
        | Body::ForkFailed { process, .. } => {
            let about = of(process, None);
            // A refusal counts for the level that the new process or namespace would have had.
            Subjects { level: about.level.or(Some(depth(process))), ..about }
        }
        Body::NamespaceTeardown { ns, .. } | Body::NamespaceDestroy { ns, .. } => {
            Subjects { level: Some(ns.level), ns: Some(ns.inum), ..Subjects::default() }
        }
        Body::SnapshotNamespace { ns, .. } => {
            Subjects { level: Some(ns.level), ns: Some(ns.inum), ..Subjects::default() }
        }
        Body::Finding { finding, .. } => Subjects {
            process: finding.process.as_ref(),
            other: finding.evidence.iter().flat_map(|evidence| evidence.fact.processes()).next(),
            level: finding.ns.as_ref().map(|ns| ns.level),
            ns: finding.ns.as_ref().map(|ns| ns.inum),
        },
        Body::InitSignal { process, sender, .. } => of(process, sender.as_ref()),
        Body::ProcessFork { process, parent, .. } => of(process, Some(parent)),
        Body::ProcessExec { process, .. }
        | Body::ProcessExit { process, .. }
        | Body::ProcessReap { process, .. }
        | Body::SnapshotProcess { process, .. } => of(process, None),
        Body::StreamStart { .. }
        | Body::StreamLost { .. }
        | Body::StreamResync { .. }
        | Body::StreamEnd { .. } => Subjects::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::container::Runtime,
        event::identity::{BootNs, HostPid},
        event::snapshot::SnapshotNamespace,
        filter::FilterArgs,
        text::Name,
    };

    /// Tests request namespaces by number.
    fn number(target: &str) -> Result<NsInum, String> {
        target.parse().map(NsInum).map_err(|_| "no number".to_owned())
    }

    fn filter(args: FilterArgs) -> Filter {
        Filter::of_recording(&args, number).expect("good options")
    }

    fn exec(pids: &[u32], ns: u32) -> Body {
        let process = Process {
            pid: HostPid(pids[0]),
            pids: pids.to_vec(),
            comm: Name::from("x"),
            start_boot_ns: BootNs(1),
            ppid: None,
            uid: 0,
            ns: NsInum(ns),
            container: None,
        };
        Body::ProcessExec { process, filename: Name::from("x"), args: None, args_truncated: false }
    }

    fn docker(name: &str, outer: Option<Container>) -> Container {
        let outer = outer.map(Box::new);
        Container {
            runtime: Some(Runtime::Docker),
            name: Some(Name::from(name)),
            outer,
            ..Container::default()
        }
    }

    #[test]
    fn a_container_filter_shows_events_of_its_processes() {
        let web = filter(FilterArgs { containers: vec!["web".to_owned()], ..FilterArgs::default() });
        let event = exec(&[7, 1], 9);
        let (web_itself, inner) = (docker("web", None), docker("job", Some(docker("web", None))));
        assert!(web.matches(&event, Some(&web_itself)) && web.matches(&event, Some(&inner)));
        assert!(!web.matches(&event, Some(&docker("job", None))) && !web.matches(&event, None));
        let lost = Body::StreamLost { stage: "ring".into(), count: 1 };
        assert!(web.matches(&lost, None), "losses are always shown");
    }

    #[test]
    fn a_process_matches_its_own_container_and_its_namespaces() {
        let own = std::sync::Arc::new(docker("side", None));
        let mut event = exec(&[7, 2], 9);
        event.process_mut().expect("an event about a process").container = Some(own);
        for (name, is_shown) in [("side", true), ("web", true), ("other", false)] {
            let filter = filter(FilterArgs { containers: vec![name.to_owned()], ..FilterArgs::default() });
            assert_eq!(filter.matches(&event, Some(&docker("web", None))), is_shown, "{name}");
        }
    }

    #[test]
    fn a_later_namespace_with_the_same_number_is_not_shown() {
        let of = |kernel_id| SnapshotNamespace {
            kernel_id: Some(kernel_id),
            parent: Some(NsInum(1)),
            ..SnapshotNamespace::bare(NsInum(4026532000), 1)
        };
        let snapshot = |kernel_id| crate::event::Event {
            seq: 1,
            time: jiff::Timestamp::UNIX_EPOCH,
            boot_ns: BootNs(1),
            exact: true,
            body: Body::SnapshotNamespace { ns: of(kernel_id), holders: Vec::new(), holders_left_out: 0 },
        };
        let args = FilterArgs { namespaces: vec!["4026532000".to_owned()], ..FilterArgs::default() };
        let (live, recorded) = (Filter::new(&args, number).expect("a number"), filter(args));
        let event = exec(&[7, 1], 4026532000);
        assert!(
            !recorded.matches_all(&exec(&[7; 70], 4026532000), None, &World::default()),
            "level 69 is too deep"
        );
        let mut world = World::default();
        for (kernel_id, of_live) in [(5, true), (6, false)] {
            world.apply(&snapshot(kernel_id));
            assert_eq!(live.matches_all(&event, None, &world), of_live);
            assert!(
                recorded.matches_all(&event, None, &world),
                "in a recording, all namespaces with the number match"
            );
        }
    }

    #[test]
    fn requested_levels_and_namespaces_are_selected_from_all_events() {
        let mut world = World::default();
        let default = filter(FilterArgs::default());
        assert!(!default.matches_all(&exec(&[7], 4026531836), None, &world), "level 0 is not in the default");
        assert!(default.matches_all(&exec(&[7, 1], 4026532000), None, &world));
        let one = filter(FilterArgs { namespaces: vec!["4026532000".to_owned()], ..FilterArgs::default() });
        let inner = SnapshotNamespace {
            parent: Some(NsInum(4026532000)),
            ..SnapshotNamespace::bare(NsInum(4026532001), 2)
        };
        let body = Body::SnapshotNamespace { ns: inner, holders: Vec::new(), holders_left_out: 0 };
        let event = crate::event::Event {
            seq: 1,
            time: jiff::Timestamp::UNIX_EPOCH,
            boot_ns: BootNs(1),
            exact: true,
            body: body.clone(),
        };
        assert!(
            !one.matches_all(&exec(&[7, 3, 1], 4026532001), None, &world),
            "it is not known to be nested"
        );
        world.apply(&event);
        assert!(one.matches_all(&exec(&[7, 3, 1], 4026532001), None, &world));
        assert!(!one.matches_all(&body, None, &world), "existing objects need --snapshot");
        let with =
            FilterArgs { namespaces: vec!["4026532000".to_owned()], existing: true, ..FilterArgs::default() };
        assert!(filter(with).matches_all(&body, None, &world));
    }
}
