//! Refused calls: the reason, the limit, and the process that has a requested PID.

use pidns_ebpf::abi::{CURRENT_UNKNOWN, MAX_LEVEL, PidUse, Reason, RefusalBody, Refused, Resource};

use super::{known, process, via};
use crate::{
    event::identity::NsInum,
    event::{Body, Namespace, Process, ReachedLimit, TakenPid, Token},
    signals::errno_name,
};

/// The event for a namespace that could not be created.
pub(super) fn creation(refused: &Refused<'_>) -> Option<Body> {
    let body = &refused.record.body;
    let (capability, user_ns) = missing(body);
    Some(Body::NamespaceCreateFailed {
        via: via(body.via).unwrap_or_else(|| "unknown".into()),
        creator: process(&refused.record.process?),
        errno: errno_name(body.errno),
        reason: reason(body),
        limit: limit(body),
        set_tid: refused.chosen().collect(),
        taken: taken(body),
        holder: holder(refused),
        capability,
        user_ns,
    })
}

/// The event for a refused fork into this namespace.
pub(super) fn fork(refused: &Refused<'_>, ns: Option<Namespace>, thread: bool) -> Option<Body> {
    let body = &refused.record.body;
    let (capability, user_ns) = missing(body);
    Some(Body::ForkFailed {
        process: process(&refused.record.process?),
        ns,
        errno: errno_name(body.errno),
        reason: reason(body),
        thread,
        limit: limit(body),
        set_tid: refused.chosen().collect(),
        taken: taken(body),
        holder: holder(refused),
        capability,
        user_ns,
    })
}

pub(super) fn reason(body: &RefusalBody) -> Token {
    match Reason::from_number(body.reason).unwrap_or(Reason::Other) {
        Reason::Other => "other".into(),
        Reason::DepthLimit => "depth_limit".into(),
        Reason::CountLimit => "count_limit".into(),
        Reason::Permission => "permission".into(),
        Reason::AlreadyUnshared => "already_unshared".into(),
        Reason::NoMemory => "no_memory".into(),
        Reason::NotDescendant => "not_descendant".into(),
        Reason::NamespaceDead => "namespace_dead".into(),
        Reason::PidsCgroup => "pids_cgroup".into(),
        Reason::PidMax => "pid_max".into(),
        Reason::NprocLimit => "nproc_limit".into(),
        Reason::Seccomp => "seccomp".into(),
        Reason::ChildrenElsewhere => "children_elsewhere".into(),
        Reason::PidTaken => "pid_taken".into(),
        Reason::WrongType => "wrong_type".into(),
    }
}

/// The limit that was reached. The record does not contain a cgroup's path.
fn limit(body: &RefusalBody) -> Option<ReachedLimit> {
    let RefusalBody { place, limit, current, cgroup, detail, number, .. } = *body;
    let reached = ReachedLimit {
        kind: reason(body),
        value: Some(limit),
        current: (current != CURRENT_UNKNOWN).then_some(current),
        cgroup: None,
        cgroup_id: None,
        uid: None,
        ns: None,
        user_ns: None,
    };
    Some(match Reason::from_number(body.reason)? {
        Reason::PidMax => ReachedLimit { ns: Some(NsInum::known(place)?), ..reached },
        Reason::NprocLimit => ReachedLimit { uid: Some(place), ..reached },
        Reason::PidsCgroup => ReachedLimit { cgroup_id: (cgroup != 0).then_some(cgroup), ..reached },
        Reason::CountLimit => {
            let kind = match Resource::from_number(detail)? {
                Resource::PidNamespaces => "max_pid_namespaces",
                Resource::UserNamespaces => "max_user_namespaces",
            };
            let user_ns = Some(known(place)?);
            ReachedLimit { kind: kind.into(), user_ns, uid: Some(number), ..reached }
        }
        Reason::DepthLimit => {
            let most = Some(u64::from(MAX_LEVEL));
            ReachedLimit { value: most, current: most, ..reached }
        }
        _ => return None,
    })
}

/// The requested PID that is already in use, if known.
fn taken(body: &RefusalBody) -> Option<TakenPid> {
    if Reason::from_number(body.reason) != Some(Reason::PidTaken) {
        return None;
    }
    let used_as = match PidUse::from_number(body.detail)? {
        PidUse::Process => "process",
        PidUse::Thread => "thread",
        PidUse::ProcessGroup => "process_group",
        PidUse::Session => "session",
    };
    Some(TakenPid { pid: known(body.number)?, ns: NsInum::known(body.place)?, used_as: used_as.into() })
}

/// The process that has the requested PID.
fn holder(refused: &Refused<'_>) -> Option<Process> {
    refused.record.other.as_ref().map(process)
}

/// The missing capability, and the user namespace in which it is missing.
fn missing(body: &RefusalBody) -> (Option<Token>, Option<u32>) {
    if Reason::from_number(body.reason) != Some(Reason::Permission) || body.for_chosen == 0 {
        return (None, None);
    }
    (Some("CAP_CHECKPOINT_RESTORE".into()), known(body.place))
}
