//! Phrases for the processes that the end of a namespace waits for.

use super::phrases::who;
use crate::{
    event::identity::HostPid,
    model::{Awaited, Reason},
    text::{Name, or_unknown},
};

/// "sleep[17] (frozen)": short, for tables.
pub(super) fn brief(awaited: &Awaited) -> String {
    match &awaited.why {
        Some(why) => format!("{} ({})", who(&awaited.process), short(why)),
        None => who(&awaited.process),
    }
}

/// Why a process is still there, as a short phrase.
pub(super) fn short(why: &Reason) -> String {
    match why {
        Reason::NotReaped { pid, comm, tracer_unknown } => {
            let parent = match pid {
                Some(pid) => format!("{}, outside,", named(*pid, comm)),
                None => "its parent, outside,".to_owned(),
            };
            match tracer_unknown {
                false => format!("zombie: {parent} has not waited for it"),
                true => format!("zombie: {parent} or a tracer has not waited for it"),
            }
        }
        Reason::Traced { pid, comm } => format!("held by its tracer {}", named(*pid, comm)),
        Reason::Frozen => "frozen".to_owned(),
        Reason::Uninterruptible => "uninterruptible sleep".to_owned(),
        Reason::OwnNamespace => "waits for its own namespace's processes".to_owned(),
        Reason::Ending => "ending".to_owned(),
    }
}

/// Why a process is still there, and what ends the wait.
pub(super) fn long(why: Option<&Reason>) -> String {
    match why {
        Some(Reason::NotReaped { pid, comm, tracer_unknown }) => {
            let of_parent = match pid {
                Some(pid) => {
                    let parent = named(*pid, comm);
                    format!(
                        "a zombie that its parent {parent}, outside, has not waited for: it goes when {parent} waits or ends"
                    )
                }
                None => "a zombie that its parent, outside, has not waited for".to_owned(),
            };
            match tracer_unknown {
                false => of_parent,
                true => format!(
                    "{of_parent} (unless another process traces it, which the recording does not show)"
                ),
            }
        }
        Some(Reason::Traced { pid, comm }) => {
            let tracer = named(*pid, comm);
            format!("{tracer} traces it: it goes when {tracer} waits for it, detaches or ends")
        }
        Some(Reason::Frozen) => {
            "frozen, so that SIGKILL does not reach it: it goes when its cgroup is thawed".to_owned()
        }
        Some(Reason::Uninterruptible) => {
            "in uninterruptible sleep (D): it goes when its wait in the kernel is over".to_owned()
        }
        Some(Reason::OwnNamespace) => {
            "PID 1 of a nested namespace, which waits for the processes there".to_owned()
        }
        Some(Reason::Ending) => "killed and about to end: nothing delays it".to_owned(),
        None => "the recording does not show why it is still there".to_owned(),
    }
}

fn named(pid: HostPid, comm: &Option<Name>) -> String {
    format!("{}[{pid}]", or_unknown(comm.as_ref()))
}
