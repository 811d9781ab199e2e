//! A namespace of the model: what is known of it, and how far it has come.

use crate::{
    event::{Cause, Namespace},
    snapshot::{self, Holder},
};

/// How far a namespace has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has had no process yet.
    Empty,
    /// Its PID 1 lives, or may.
    Alive,
    /// Its PID 1 has exited: nobody can fork there any more.
    Dying {
        /// When: CLOCK_BOOTTIME, nanoseconds.
        since: u64,
        /// Why.
        cause: Cause,
    },
    /// All its processes are gone, and something still holds it.
    Held {
        /// Since when: CLOCK_BOOTTIME, nanoseconds.
        since: u64,
    },
}

/// A namespace that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// What is known of it.
    pub namespace: snapshot::Namespace,
    /// How far it has come.
    pub stage: Stage,
    /// PID 1, by its PID at level 0.
    pub init: Option<u32>,
    /// Its processes, zombies included; those of the namespaces below not.
    pub members: u32,
    /// What held it when it was looked at.
    pub holders: Vec<Holder>,
}

pub(super) fn as_looked_at(ns: &Namespace) -> snapshot::Namespace {
    let Namespace { inum, level, parent, born_boot_ns, kernel_id, user_ns, owner_uid, ref container } = *ns;
    snapshot::Namespace {
        inum,
        level,
        parent,
        born_boot_ns,
        kernel_id,
        user_ns: Some(user_ns),
        owner_uid: Some(owner_uid),
        container: container.clone(),
    }
}
