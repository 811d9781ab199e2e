//! The events that the model follows, and the records that the kernel must send for that.

use std::time::Duration;

use crate::{
    event::identity::{HostPid, NsInum},
    event::{Body, Event},
    filter::Filter,
    model::World,
    source::kinds,
};

// A filter may name as many entries as the kernel side has room for.
const _: () = assert!(crate::filter::MAX_PER_KIND == pidns_ebpf::abi::names::FILTER_ENTRIES);

/// The events that the model follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Nothing. The kernel sends the events that the filter selects, and there is no model.
    Nothing,
    /// Namespaces and their inits, by rare events only. If the kernel counts processes, it also reports the members that
    /// it kills because memory runs out. Processes, and so members and zombies of namespaces, come from snapshots taken
    /// at this interval.
    Namespaces {
        /// The interval.
        refresh: Duration,
    },
    /// Everything. The kernel sends all events, and they are filtered here.
    Everything,
}

/// The filter in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFilter {
    /// Wanted records: a bit mask by record kind.
    pub event_mask: u32,
    /// Wanted levels: a bit mask by level.
    pub level_mask: u64,
    /// Namespaces to select, with all nested ones. Empty: all.
    pub namespaces: Vec<NsInum>,
    /// Processes to select, by PID. Empty: all.
    pub pids: Vec<HostPid>,
}

impl Follow {
    /// Whether there is a model.
    pub fn has_model(self) -> bool {
        self != Self::Nothing
    }

    /// The kernel's filter. It lets through everything that the model and the user's filter need.
    pub fn kernel_filter(self, filter: &Filter) -> KernelFilter {
        let everywhere = |event_mask| KernelFilter {
            event_mask,
            level_mask: u64::MAX,
            namespaces: Vec::new(),
            pids: Vec::new(),
        };
        match self {
            Self::Nothing => KernelFilter {
                event_mask: kinds::event_mask(|name| filter.has(name)),
                level_mask: filter.level_mask,
                namespaces: filter.filter.namespaces.clone(),
                pids: filter.filter.pids.clone(),
            },
            Self::Namespaces { .. } => everywhere(kinds::event_mask(is_rare)),
            Self::Everything => everywhere(kinds::event_mask(|_| true)),
        }
    }

    /// Whether the kernel reports reaps.
    pub fn has_reaps(self, filter: &Filter) -> bool {
        match self {
            Self::Nothing => filter.has("process.reap"),
            Self::Namespaces { .. } => false,
            Self::Everything => true,
        }
    }

    /// The interval of snapshots, if no events report processes.
    pub fn refresh(self) -> Option<Duration> {
        match self {
            Self::Namespaces { refresh } => Some(refresh),
            Self::Nothing | Self::Everything => None,
        }
    }

    /// Tells the model which events it will get, even if the stream does not show all of them.
    pub(super) fn adapt(self, world: &mut World, event: &Event) {
        let Body::StreamStart { hooks, .. } = &event.body else { return };
        match self {
            // The model of a recording uses what `stream.start` lists.
            Self::Nothing => {}
            Self::Namespaces { .. } => world.follow_namespaces(hooks),
            Self::Everything => world.follow_everything(hooks),
        }
    }
}

/// Whether an event is about a namespace or its init. A machine has few of these, however many processes it forks.
fn is_rare(name: &str) -> bool {
    !name.starts_with("process.")
}
