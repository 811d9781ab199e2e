//! Translates the kernel's records into events.

mod namespaces;
mod refusals;
mod signals;

use std::collections::{HashMap, VecDeque};

use pidns_ebpf::abi::{
    Creation, Dying, FLAG_ARGS, FLAG_ARGS_CUT, FLAG_INEXACT, FLAG_RESTORED, FLAG_THREAD, Header,
    InitExitBody, NamespacePart, Namespaced, Origin, ProcessPart, Reason, Record, SignalBody, Via, decode,
};

use self::{
    namespaces::KnownNamespaces,
    signals::{SeenSignal, Signals},
};
use crate::{
    event::identity::{BootNs, HostPid, NsInum, ProcessKey},
    event::{Body, Cause, Exit, Process, Token},
    kernel::{sweep::Swept, zombies::Unreaped},
    signals::{errno_name, signal_name},
    text::Name,
};

/// Maximum number of causes of inits' ends to remember. Each one is for the exit record of the init. Those whose record
/// never comes stay until they are pushed out.
const INIT_CAUSES: usize = 64;
/// Limit for processes whose first parent is remembered.
const PARENTS: usize = 65_536;

/// An event without its number and wall-clock time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// When the hook ran.
    pub boot_ns: BootNs,
    /// Whether the hook knows this time exactly.
    pub exact: bool,
    /// The event's content.
    pub body: Body,
}

/// Translates records. It remembers the facts that it needs to translate later records.
#[derive(Debug)]
pub struct Translator {
    namespaces: KnownNamespaces,
    signals: Signals,
    /// Causes of inits' ends whose exit record has not come yet. It is the hook's next record on that CPU.
    init_causes: VecDeque<(ProcessKey, Cause)>,
    /// First parent of each process. Its start is 0 if unknown.
    parents: HashMap<ProcessKey, ProcessKey>,
    /// Processes that started before this time were not observed from their start.
    since_boot_ns: BootNs,
    /// Whether the thread counts of all processes with several threads were kept.
    peaks_complete: bool,
}

impl Translator {
    /// A translator for a kernel side that has been observing since this time.
    pub fn new(since_boot_ns: BootNs) -> Self {
        Self {
            namespaces: KnownNamespaces::default(),
            signals: Signals::default(),
            init_causes: VecDeque::new(),
            parents: HashMap::new(),
            since_boot_ns,
            peaks_complete: true,
        }
    }

    /// Notes that a process's thread count was not kept. From now on, a missing count means unknown.
    pub fn peaks_are_incomplete(&mut self) {
        self.peaks_complete = false;
    }

    /// Passes the events of a record to `each`, in order.
    pub fn translate(&mut self, header: Header, record: Record<'_>, mut each: impl FnMut(Translated)) {
        let Header { boot_ns, flags, .. } = header;
        let boot_ns = BootNs(boot_ns);
        let exact = flags & FLAG_INEXACT == 0;
        let mut put = |exact, body| each(Translated { boot_ns, exact, body });
        match record {
            Record::NamespaceCreate(Namespaced { ns: Some(ns), process: Some(creator), body, .. }) => {
                let ns = self.namespaces.created(&ns, boot_ns);
                put(exact, Body::NamespaceCreate { ns, via: via(body.via), creator: process(&creator) });
            }
            Record::NamespaceInit(Namespaced {
                ns: Some(part),
                process: Some(init),
                other: Some(parent),
                body,
            }) => {
                let ns = match Creation::from_number(body.creation) {
                    Some(Creation::Earlier) | None => self.namespaces.describe(&part),
                    Some(Creation::WithInit | Creation::Unobserved) => {
                        let ns = self.namespaces.created(&part, boot_ns);
                        let creator = process(&parent);
                        put(exact, Body::NamespaceCreate { ns: ns.clone(), via: via(body.via), creator });
                        ns
                    }
                };
                put(true, Body::NamespaceInit { ns, process: process(&init) });
            }
            Record::NamespaceJoin(Namespaced { ns: Some(ns), process: Some(child), other, body }) => {
                let ns = self.namespaces.describe(&ns);
                // If a fork revealed the join, `other` (the parent) has joined.
                let process = process(&other.unwrap_or(child));
                put(exact, Body::NamespaceJoin { ns, process, from: NsInum::known(body.from_inum) });
            }
            Record::NamespaceInitExit(Namespaced { ns: Some(part), process: Some(init), body, .. }) => {
                let InitExitBody { wait_status, members, cascade_inum, .. } = body;
                let ns = self.namespaces.describe(&part);
                let cause = self.cause(&init, &body);
                if let Some(outer) = NsInum::known(cascade_inum) {
                    self.namespaces.went_down_with(outer, NsInum(part.inum));
                }
                let exit = exit(wait_status);
                put(exact, Body::NamespaceInitExit { ns, process: process(&init), exit, cause, members });
            }
            Record::NamespaceTeardown(Namespaced { ns: Some(part), body, .. }) => {
                put(
                    exact,
                    self.teardown(&part, body.killed, boot_ns.saturating_since(BootNs(body.began_boot_ns))),
                );
            }
            Record::NamespaceDestroy(Namespaced { ns: Some(part), .. }) => {
                let ns = self.namespaces.describe(&part);
                self.namespaces.destroyed(&part);
                let lived_ns = ns.born_boot_ns.map(|born| boot_ns.saturating_since(born));
                put(exact, Body::NamespaceDestroy { ns, lived_ns });
            }
            Record::InitSignal(Namespaced { ns: Some(part), process: Some(init), other, body }) => {
                let ns = self.namespaces.describe(&part);
                put(exact, self.init_signal(ns, &init, other.as_ref(), body));
            }
            Record::ProcessSignal(Namespaced { process: Some(subject), other, body, .. }) => {
                self.signals.signalled(key(&subject), SeenSignal::of(&subject, other.as_ref(), body));
            }
            Record::NamespaceCreateFailed(refused) => {
                if let Some(body) = refusals::creation(&refused) {
                    put(exact, body);
                }
            }
            Record::NamespaceJoinFailed(Namespaced { ns, process: Some(caller), body, .. }) => {
                let ns = ns.map(|part| self.namespaces.describe(&part));
                let user_ns = match Reason::from_number(body.reason) {
                    Some(Reason::Permission) => known(body.place),
                    _ => None,
                };
                put(
                    exact,
                    Body::NamespaceJoinFailed {
                        ns,
                        process: process(&caller),
                        errno: errno_name(body.errno),
                        reason: refusals::reason(&body),
                        capability: user_ns.map(|_| "CAP_SYS_ADMIN".into()),
                        user_ns,
                    },
                );
            }
            Record::ForkFailed(refused) => {
                let ns = refused.record.ns.map(|part| self.namespaces.describe(&part));
                if let Some(body) = refusals::fork(&refused, ns, flags & FLAG_THREAD != 0) {
                    put(exact, body);
                }
            }
            Record::ProcessFork { process: child, parent } => {
                self.forked(&child, &parent);
                put(
                    exact,
                    Body::ProcessFork {
                        crosses: child.part.ns_inum != parent.part.ns_inum,
                        process: process(&child),
                        parent: process(&parent),
                        restored: flags & FLAG_RESTORED != 0,
                    },
                );
            }
            Record::ProcessExec { process: subject, filename, args } => {
                put(
                    exact,
                    Body::ProcessExec {
                        process: process(&subject),
                        filename: Name::from(filename),
                        args: (flags & FLAG_ARGS != 0).then(|| arguments(args)),
                        args_truncated: flags & FLAG_ARGS_CUT != 0,
                    },
                );
            }
            Record::ProcessExit {
                process: subject,
                parent_start_boot_ns,
                wait_status,
                peak_threads,
                cascade_inum,
                oom,
            } => {
                let start = BootNs(subject.part.start_boot_ns);
                let threads = match peak_threads {
                    0 if start >= self.since_boot_ns && self.peaks_complete => Some(1),
                    peak => known(peak),
                };
                let cause = self.exit_cause(&subject, wait_status, cascade_inum, oom != 0);
                put(
                    exact,
                    Body::ProcessExit {
                        process: process(&subject),
                        exit: exit(wait_status),
                        ran_ns: boot_ns.saturating_since(start),
                        threads,
                        cause,
                        cascade: NsInum::known(cascade_inum),
                        orphaned: self.take_orphaned(&subject, parent_start_boot_ns),
                    },
                );
            }
            // The decoder rejects records about a namespace that lack the parts required above.
            Record::NamespaceCreate(_)
            | Record::NamespaceInit(_)
            | Record::NamespaceJoin(_)
            | Record::NamespaceJoinFailed(_)
            | Record::NamespaceInitExit(_)
            | Record::NamespaceTeardown(_)
            | Record::NamespaceDestroy(_)
            | Record::InitSignal(_)
            | Record::ProcessSignal(_)
            // `reaped` translates these, with the record of the exit.
            | Record::ProcessReap { .. }
            | Record::ProcessFree(_) => {}
        }
    }

    /// The event for an end that no hook reported. `boot_ns` is the time of the sweep that found it.
    pub fn swept(&mut self, boot_ns: BootNs, swept: Swept) -> Translated {
        let body = match swept {
            Swept::Reaped(process) => return Self::reaped(boot_ns, false, process),
            Swept::TornDown(Dying { ns, began_boot_ns, killed, .. }) => {
                self.teardown(&ns, killed, boot_ns.saturating_since(BootNs(began_boot_ns)))
            }
        };
        Translated { boot_ns, exact: false, body }
    }

    /// The event for a reaped process. `exact`: whether `boot_ns` is the time of the reaping.
    pub fn reaped(boot_ns: BootNs, exact: bool, reaped: Unreaped) -> Translated {
        let Unreaped { process, exit_boot_ns, pids } = reaped;
        let body = Body::ProcessReap {
            process: process_of(&process, pids.into_vec()),
            zombie_ns: BootNs::known(exit_boot_ns).map(|exit| boot_ns.saturating_since(exit)),
        };
        Translated { boot_ns, exact, body }
    }

    fn teardown(&mut self, part: &NamespacePart, killed: u32, duration_ns: u64) -> Body {
        let ns = self.namespaces.describe(part);
        Body::NamespaceTeardown {
            ns,
            killed,
            nested: self.namespaces.take_nested(NsInum(part.inum)),
            duration_ns,
        }
    }

    fn init_signal(
        &mut self,
        ns: crate::event::Namespace,
        init: &decode::Process<'_>,
        sender: Option<&decode::Process<'_>>,
        body: SignalBody,
    ) -> Body {
        const FATES: [&str; 5] = ["delivered", "ignored", "already_pending", "queue_full", "info_lost"];
        let SignalBody { signal, code: _, fate, origin } = body;
        let origin = Origin::from_number(origin).unwrap_or(Origin::Kernel);
        if fate == 0 {
            self.signals.signalled(key(init), SeenSignal::of(init, sender, body));
        }
        let sender = sender.map(process);
        Body::InitSignal {
            ns,
            process: process(init),
            signal: signal_name(signal),
            sender,
            from: match origin {
                Origin::Inside => "inside",
                Origin::Ancestor => "ancestor",
                Origin::Kernel => "kernel",
                Origin::ParentDeath => "parent_death",
            }
            .into(),
            fate: FATES.get(fate as usize).copied().unwrap_or("unknown").into(),
        }
    }

    fn cause(&mut self, init: &decode::Process<'_>, body: &InitExitBody) -> Cause {
        let InitExitBody { wait_status, reboot_signal, cascade_inum, reboot_command, oom, members: _ } =
            *body;
        let cause = if reboot_signal != 0 {
            self.signals.forget(key(init));
            Cause::Reboot { command: command(reboot_command, reboot_signal) }
        } else {
            self.cause_of(init, wait_status, cascade_inum, oom != 0)
        };
        // The record of the process's own exit follows, if requested.
        self.init_causes.push_back((key(init), cause.clone()));
        if self.init_causes.len() > INIT_CAUSES {
            self.init_causes.pop_front();
        }
        cause
    }

    fn cause_of(
        &mut self,
        subject: &decode::Process<'_>,
        wait_status: u32,
        cascade_inum: u32,
        oom: bool,
    ) -> Cause {
        let signal = wait_status & 0x7f;
        if cascade_inum != 0 {
            self.signals.forget(key(subject));
            Cause::Cascade { ns: NsInum(cascade_inum) }
        } else if signal == 0 {
            self.signals.forget(key(subject));
            Cause::Exited
        } else {
            match self.signals.died_of(key(subject), signal) {
                // It may have been killed by a process before the kernel chose it.
                Cause::Unknown | Cause::Signal { sender: None, .. }
                    if oom && signal == libc::SIGKILL as u32 =>
                {
                    Cause::Oom { victim: process(subject) }
                }
                cause => cause,
            }
        }
    }

    /// Why a process ended, if that says more than its exit status.
    fn exit_cause(
        &mut self,
        subject: &decode::Process<'_>,
        wait_status: u32,
        cascade_inum: u32,
        oom: bool,
    ) -> Option<Cause> {
        let known = self.init_causes.iter().position(|(init, _)| *init == key(subject));
        let cause = match known.and_then(|at| self.init_causes.remove(at)) {
            Some((_, cause)) => cause,
            None => self.cause_of(subject, wait_status, cascade_inum, oom),
        };
        (!matches!(cause, Cause::Exited | Cause::Unknown)).then_some(cause)
    }

    fn forked(&mut self, child: &decode::Process<'_>, forker: &decode::Process<'_>) {
        if self.parents.len() >= PARENTS {
            // Only processes whose exit record was lost leave entries behind.
            self.parents.clear();
        }
        // With CLONE_PARENT, the real parent is not the forker, and its start is not in the record.
        let parent_pid = child.part.parent_pid;
        let start = if parent_pid == forker.part.pid { forker.part.start_boot_ns } else { 0 };
        self.parents.insert(key(child), ProcessKey::new(HostPid(parent_pid), BootNs(start)));
    }

    fn take_orphaned(&mut self, subject: &decode::Process<'_>, parent_start_boot_ns: u64) -> bool {
        match self.parents.remove(&key(subject)) {
            None => false,
            Some(ProcessKey { pid, start }) => {
                pid.0 != subject.part.parent_pid || (start.0 != 0 && start.0 != parent_start_boot_ns)
            }
        }
    }
}

fn key(process: &decode::Process<'_>) -> ProcessKey {
    ProcessKey::new(HostPid(process.part.pid), BootNs(process.part.start_boot_ns))
}

fn process(process: &decode::Process<'_>) -> Process {
    process_of(&process.part, process.pids().collect())
}

fn process_of(part: &ProcessPart, pids: Vec<u32>) -> Process {
    let ProcessPart { start_boot_ns, pid, parent_pid, uid, ns_inum, comm } = part;
    let name = comm.split(|&byte| byte == 0).next().unwrap_or_default();
    Process {
        pid: HostPid(*pid),
        pids,
        comm: Name::from(name),
        start_boot_ns: BootNs(*start_boot_ns),
        ppid: HostPid::known(*parent_pid),
        uid: *uid,
        ns: NsInum(*ns_inum),
        container: None,
    }
}

/// The command of reboot(2) (include/uapi/linux/reboot.h). If it is unknown, the command for the signal that the
/// namespace stores.
fn command(number: u32, signal: u32) -> Token {
    match number {
        0x0123_4567 => "restart".into(),
        0xa1b2_c3d4 => "restart2".into(),
        0xcdef_0123 => "halt".into(),
        0x4321_fedc => "power_off".into(),
        _ if signal == libc::SIGHUP as u32 => "restart".into(),
        _ => "halt".into(),
    }
}

/// `None` for 0, which means unknown.
fn known(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

/// Decodes a wait status as wait(2) does.
fn exit(status: u32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code { code: (status >> 8) & 0xff },
        signal => Exit::Signal { signal: signal_name(signal), core: status & 0x80 != 0 },
    }
}

fn arguments(bytes: &[u8]) -> Vec<Name> {
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.strip_suffix(b"\0").unwrap_or(bytes).split(|&b| b == 0).map(Name::from).collect()
}

fn via(number: u32) -> Option<Token> {
    match Via::from_number(number)? {
        Via::Unknown => None,
        Via::Clone => Some("clone".into()),
        Via::Clone3 => Some("clone3".into()),
        Via::Unshare => Some("unshare".into()),
        Via::Fork => Some("fork".into()),
        Via::Vfork => Some("vfork".into()),
        Via::Setns => Some("setns".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_are_decoded_like_wait() {
        assert_eq!(exit(0x0700), Exit::Code { code: 7 });
        assert_eq!(exit(9), Exit::Signal { signal: "SIGKILL".to_owned(), core: false });
        assert_eq!(exit(0x8b), Exit::Signal { signal: "SIGSEGV".to_owned(), core: true });
    }

    #[test]
    fn each_argument_ends_with_a_nul() {
        let names = |bytes: &[u8]| arguments(bytes).iter().map(|n| n.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(names(b"sh\0-c\0\0"), [b"sh".to_vec(), b"-c".to_vec(), b"".to_vec()]);
        assert_eq!(names(b"sh\0-c\0cut"), [b"sh".to_vec(), b"-c".to_vec(), b"cut".to_vec()]);
        assert!(names(b"").is_empty());
    }
}
