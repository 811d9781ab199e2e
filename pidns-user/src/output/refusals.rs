//! Phrases for the reasons of refusals.

use super::phrases::{Who, spaced};
use crate::event::{Process, ReachedLimit, TakenPid};

/// The fields of a refusal.
pub(super) struct Refusal<'a> {
    pub(super) reason: &'a str,
    pub(super) limit: Option<&'a ReachedLimit>,
    pub(super) set_tid: &'a [i32],
    pub(super) taken: Option<&'a TakenPid>,
    pub(super) holder: Option<&'a Process>,
    pub(super) capability: Option<&'a str>,
    pub(super) user_ns: Option<u32>,
}

impl<'a> Refusal<'a> {
    /// A refusal of which only the reason is known.
    pub(super) fn of(reason: &'a str) -> Self {
        Self { reason, limit: None, set_tid: &[], taken: None, holder: None, capability: None, user_ns: None }
    }
}

/// The reason for a refusal.
pub(super) fn why(refusal: &Refusal<'_>) -> String {
    let Refusal { reason, limit, set_tid, taken, holder, capability, user_ns } = *refusal;
    let why = match (reason, taken, limit) {
        ("seccomp", ..) => "by a seccomp filter".to_owned(),
        ("children_elsewhere", ..) => "its children already start in another PID namespace".to_owned(),
        ("wrong_type", ..) => {
            "the file is not a PID namespace, or the call requested other types too".to_owned()
        }
        ("pid_taken", Some(taken), _) => return in_use(taken, holder),
        ("pid_taken", None, _) => "a requested PID is taken".to_owned(),
        (_, _, Some(limit)) => reached(limit),
        (reason, ..) => spaced(reason),
    };
    let missing = match (capability, user_ns) {
        (Some(capability), Some(user_ns)) => format!(": no {capability} in user namespace {user_ns}"),
        (Some(capability), None) => format!(": no {capability}"),
        _ => String::new(),
    };
    let asked = match set_tid {
        [] => String::new(),
        [pid] => format!(", requested PID {pid}"),
        pids => {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            format!(", requested PIDs {} (the innermost first)", pids.join(", "))
        }
    };
    format!("{why}{missing}{asked}")
}

/// "PID 12 of 4026532178 is taken, by sh[811]".
fn in_use(taken: &TakenPid, holder: Option<&Process>) -> String {
    let TakenPid { pid, ns, used_as } = taken;
    let as_what = match (&**used_as, holder) {
        ("process", Some(holder)) => format!(", by {}", Who(holder)),
        ("thread", Some(holder)) => format!(", by a thread of {}", Who(holder)),
        ("process_group", Some(holder)) => format!(", by the process group that {} is in", Who(holder)),
        ("session", Some(holder)) => format!(", by the session that {} is in", Who(holder)),
        (_, Some(holder)) => format!(", by {}", Who(holder)),
        (_, None) => String::new(),
    };
    format!("PID {pid} of {ns} is taken{as_what}")
}

/// "pids.max of /pods/a: 12 of 12": a limit and its usage.
pub(super) fn reached(limit: &ReachedLimit) -> String {
    let ReachedLimit { kind, value, current, cgroup, cgroup_id, uid, ns, user_ns } = limit;
    let whose = match (cgroup, cgroup_id, user_ns, uid, ns) {
        (Some(path), ..) => format!("pids.max of {}", path.for_terminal()),
        (_, Some(id), ..) => format!("pids.max of cgroup {id}"),
        (_, _, Some(user_ns), Some(uid), _) => {
            format!("user.{kind} of user namespace {user_ns} for uid {uid}")
        }
        (_, _, Some(user_ns), ..) => format!("user.{kind} of user namespace {user_ns}"),
        (_, _, _, Some(uid), _) => format!("RLIMIT_NPROC of uid {uid}"),
        (.., Some(ns)) => format!("pid_max of {ns}"),
        _ => match &**kind {
            "pid_max" => "kernel.pid_max".to_owned(),
            "threads_max" => "kernel.threads-max".to_owned(),
            kind => spaced(kind),
        },
    };
    match (current, value) {
        (Some(current), Some(value)) => format!("{whose}: {current} of {value}"),
        (None, Some(value)) => format!("{whose}: {value}"),
        _ => whose,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::identity::{BootNs, HostPid, NsInum},
        text::Name,
    };

    fn limit(kind: &'static str) -> ReachedLimit {
        ReachedLimit {
            kind: kind.into(),
            value: Some(12),
            current: Some(12),
            cgroup: None,
            cgroup_id: None,
            uid: None,
            ns: None,
            user_ns: None,
        }
    }

    #[test]
    fn limit_is_shown_with_its_owner_and_usage() {
        for (limit, expected) in [
            (
                ReachedLimit { cgroup: Some(Name::from("/a")), cgroup_id: Some(7), ..limit("pids_cgroup") },
                "pids.max of /a: 12 of 12",
            ),
            (ReachedLimit { cgroup_id: Some(7), ..limit("pids_cgroup") }, "pids.max of cgroup 7: 12 of 12"),
            (ReachedLimit { uid: Some(1000), ..limit("nproc_limit") }, "RLIMIT_NPROC of uid 1000: 12 of 12"),
            (ReachedLimit { ns: Some(NsInum(9)), ..limit("pid_max") }, "pid_max of 9: 12 of 12"),
            (
                ReachedLimit { user_ns: Some(5), uid: Some(0), ..limit("max_pid_namespaces") },
                "user.max_pid_namespaces of user namespace 5 for uid 0: 12 of 12",
            ),
            (
                ReachedLimit { user_ns: Some(5), current: None, ..limit("max_user_namespaces") },
                "user.max_user_namespaces of user namespace 5: 12",
            ),
            (limit("depth_limit"), "depth limit: 12 of 12"),
        ] {
            assert_eq!(why(&Refusal { limit: Some(&limit), ..Refusal::of("count_limit") }), expected);
        }
    }

    #[test]
    fn taken_pid_is_shown_with_its_holder() {
        let sh = Process {
            pid: HostPid(811),
            pids: vec![811, 12],
            comm: Name::from("sh"),
            start_boot_ns: BootNs(5),
            ppid: None,
            uid: 0,
            ns: NsInum(9),
            container: None,
        };
        let taken = |used_as: &'static str| TakenPid { pid: 12, ns: NsInum(9), used_as: used_as.into() };
        for (used_as, expected) in [
            ("process", "PID 12 of 9 is taken, by sh[811]"),
            ("thread", "PID 12 of 9 is taken, by a thread of sh[811]"),
            ("process_group", "PID 12 of 9 is taken, by the process group that sh[811] is in"),
            ("session", "PID 12 of 9 is taken, by the session that sh[811] is in"),
        ] {
            let taken = taken(used_as);
            let refusal = Refusal { taken: Some(&taken), set_tid: &[12], ..Refusal::of("pid_taken") };
            assert_eq!(why(&refusal), "PID 12 of 9 is taken");
            assert_eq!(why(&Refusal { holder: Some(&sh), ..refusal }), expected);
        }
        let unknown = Refusal { set_tid: &[12, 3], ..Refusal::of("pid_taken") };
        assert_eq!(why(&unknown), "a requested PID is taken, requested PIDs 12, 3 (the innermost first)");
        let forbidden = Refusal {
            set_tid: &[12],
            capability: Some("CAP_CHECKPOINT_RESTORE"),
            user_ns: Some(5),
            ..Refusal::of("permission")
        };
        assert_eq!(
            why(&forbidden),
            "permission: no CAP_CHECKPOINT_RESTORE in user namespace 5, requested PID 12"
        );
    }
}
