//! How much the model follows, and what the kernel has to send for it.

use std::time::Duration;

use crate::{
    event::identity::{HostPid, NsInum},
    event::{Body, Event},
    filter::Filter,
    model::World,
    source::kinds,
};

// A filter names no more than the kernel side has room for.
const _: () = assert!(crate::filter::MOST_OF_A_KIND == pidns_ebpf::abi::names::FILTER_ENTRIES);

/// How much the model follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Nothing: the kernel sends what the filter asks for, and there is no model.
    Nothing,
    /// Namespaces and their inits, by the rare events alone. No event of a process crosses from the kernel; the processes,
    /// and with them the members and zombies of a namespace, are those of a snapshot that is taken this often.
    Namespaces {
        /// How often.
        refresh: Duration,
    },
    /// Everything: the kernel sends all events, and they are filtered here.
    Everything,
}

/// What the kernel filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFilter {
    /// Bit mask by record kind.
    pub event_mask: u32,
    /// Bit mask by level.
    pub level_mask: u64,
    /// Namespaces to select, with what is below them; empty: all.
    pub namespaces: Vec<NsInum>,
    /// Processes to select, by their PIDs; empty: all.
    pub pids: Vec<HostPid>,
}

impl Follow {
    /// Whether there is a model.
    pub fn has_model(self) -> bool {
        self != Self::Nothing
    }

    /// What the kernel has to filter, so that this can be followed and the filter has what it lets through.
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

    /// Whether the kernel reports reapings.
    pub fn has_reaps(self, filter: &Filter) -> bool {
        match self {
            Self::Nothing => filter.has("process.reap"),
            Self::Namespaces { .. } => false,
            Self::Everything => true,
        }
    }

    /// How often a snapshot is taken, as no event is about processes.
    pub fn refresh(self) -> Option<Duration> {
        match self {
            Self::Namespaces { refresh } => Some(refresh),
            Self::Nothing | Self::Everything => None,
        }
    }

    /// Has the model know what it will get, whatever of it the stream shows.
    pub(super) fn adapt(self, world: &mut World, event: &Event) {
        let Body::StreamStart { hooks, .. } = &event.body else { return };
        match self {
            // A recording has what its stream.start lists.
            Self::Nothing => {}
            Self::Namespaces { .. } => world.follow_namespaces(hooks),
            Self::Everything => world.follow_everything(hooks),
        }
    }
}

/// Whether an event is one of a namespace or its init: a machine has few of them, however many processes it forks.
fn is_rare(name: &str) -> bool {
    !name.starts_with("process.")
}
