//! What becomes of namespaces: they open, are told of, get and lose members, close.

use super::{Change, Domain, Stage, World, domain::as_looked_at};
use crate::{
    event::{Namespace, Process},
    model::past::DeadNamespace,
    snapshot::{self, Holder},
};

impl World {
    /// Its namespace exists, whether or not anybody said so.
    pub(super) fn house(&mut self, process: &Process, changes: &mut Vec<Change>) {
        let domain = self.namespaces.entry(process.ns).or_insert_with(|| {
            changes.push(Change::Opened(process.ns));
            let level = process.pids.len().saturating_sub(1) as u32;
            let namespace = snapshot::Namespace::bare(process.ns, level);
            Domain { namespace, stage: Stage::Alive, init: None, members: 0, holders: Vec::new() }
        });
        domain.members += 1;
        if process.pids.last() == Some(&1) {
            domain.init = Some(process.pid);
        }
    }

    pub(super) fn leave(&mut self, inum: u32, pid: u32) {
        if let Some(domain) = self.namespaces.get_mut(&inum) {
            domain.members = domain.members.saturating_sub(1);
            if domain.init == Some(pid) {
                domain.init = None;
            }
        }
    }

    /// Whether this is the one of its number that is known, as far as can be told.
    pub(super) fn same_namespace(&self, ns: &Namespace) -> bool {
        let Some(domain) = self.namespaces.get(&ns.inum) else { return false };
        let known = &domain.namespace;
        match (known.kernel_id, ns.kernel_id) {
            (Some(known), Some(told)) => known == told,
            _ => match (known.born_boot_ns, ns.born_boot_ns) {
                (Some(known), Some(told)) => known == told || domain.init.is_some(),
                _ => true,
            },
        }
    }

    pub(super) fn opened(&mut self, ns: &Namespace, stage: Stage, changes: &mut Vec<Change>) {
        let mut told = as_looked_at(ns);
        let fresh = stage == Stage::Empty;
        match self.namespaces.get_mut(&ns.inum) {
            Some(domain) if !fresh || domain.namespace.born_boot_ns == ns.born_boot_ns => {
                if told.container.is_none() {
                    told.container = domain.namespace.container.take();
                }
                if domain.namespace != told {
                    domain.namespace = told;
                    changes.push(Change::Told(ns.inum));
                }
                return;
            }
            Some(_) => {
                self.surprises.destructions_unseen += 1;
                self.close(ns.inum, None, changes);
            }
            None => {}
        }
        let domain = Domain { namespace: told, stage, init: None, members: 0, holders: Vec::new() };
        self.namespaces.insert(ns.inum, domain);
        changes.push(Change::Opened(ns.inum));
    }

    pub(super) fn namespace_looked_at(
        &mut self,
        ns: &snapshot::Namespace,
        holders: &[Holder],
        changes: &mut Vec<Change>,
    ) {
        if let Some((_, doubted)) = &mut self.doubted {
            doubted.remove(&ns.inum);
        }
        match self.namespaces.get_mut(&ns.inum) {
            Some(domain) => {
                domain.holders = holders.to_vec();
                if domain.namespace.parent.is_none() && *ns != domain.namespace {
                    domain.namespace = ns.clone();
                    changes.push(Change::Told(ns.inum));
                }
            }
            None => {
                let domain = Domain {
                    namespace: ns.clone(),
                    stage: Stage::Alive,
                    init: None,
                    members: 0,
                    holders: holders.to_vec(),
                };
                self.namespaces.insert(ns.inum, domain);
                changes.push(Change::Opened(ns.inum));
            }
        }
    }

    pub(super) fn close(&mut self, inum: u32, at: Option<u64>, changes: &mut Vec<Change>) {
        if self.namespaces.get(&inum).is_some_and(|domain| domain.members > 0) {
            // Members keep it: they have been reaped, and those that are no zombies ended unseen.
            let members = self.processes.values().filter(|resident| resident.process.ns == inum);
            let members = members.map(|resident| (resident.process.pid, resident.ended.is_none()));
            for (pid, ended_unseen) in members.collect::<Vec<_>>() {
                self.surprises.ends_unseen += u64::from(ended_unseen);
                self.remove(pid, None, changes);
            }
        }
        let Some(domain) = self.namespaces.remove(&inum) else { return };
        self.past.closed(DeadNamespace { domain, gone_boot_ns: at });
        changes.push(Change::Closed(inum));
    }
}
