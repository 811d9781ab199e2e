//! Forks that choose PIDs with set_tid: the PIDs are taken, or the process has no capability to choose them.

use std::ffi::c_int;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use super::{Child, Situation, fork, report, report_refusal};
use crate::facts::Who;
use crate::sys::{self, Birth, Gate, Pid};

pub(super) const SITUATIONS: &[Situation] =
    &[("taken-pids", |_| taken_pids()), ("choose-unprivileged", |_| choose_unprivileged())];

/// Asks clone3 for these PIDs. The kernel must refuse one of them.
fn ask(fact: &str, who: &Who, flags: c_int, set_tid: &[Pid]) {
    let birth = Birth { flags, set_tid: set_tid.to_vec() };
    report_refusal(&format!("{fact} refused"), "clone3", who, &sys::clone3(&birth, || 0).map(sys::wait));
}

fn taken_pids() -> c_int {
    let home = Child::init("asker", || {
        let who = Who::myself();
        let birth = |pid| Birth { flags: 0, set_tid: vec![pid] };
        let holder = Child::clone3(&birth(40), |side| {
            report("process", Who::myself());
            side.ready();
            side.wait();
            0
        });
        let holder = holder.expect("PID 40 is free");
        holder.await_ready();
        ask("process", &who, 0, &[40]);
        ask("outer", &who, 0, &[41, who.pid]);
        outlived_by_a_member("group", 50, || sys::new_group().expect("a process may lead a group"), || {});
        ask("group", &who, 0, &[50]);
        outlived_by_a_member(
            "session",
            60,
            || sys::new_session().expect("a process may lead a session"),
            || sys::new_group().expect("a process may lead a group"),
        );
        ask("session", &who, 0, &[60]);
        let zombie = sys::clone3(&birth(70), || {
            report("zombie", Who::myself());
            0
        });
        let zombie = zombie.expect("PID 70 is free");
        sys::wait_without_reaping(zombie).expect("wait for the zombie");
        ask("zombie", &who, 0, &[70]);
        sys::wait(zombie).expect("reap the zombie");
        ask("no number", &who, 0, &[-1]);
        ask("too many", &who, 0, &[43, 44, 45]);
        ask("creation", &who, sys::NEWPID, &[1, 40]);
        ask_for_own_thread(&who);
        holder.dismiss();
    });
    home.dismiss();
    0
}

/// A process with this PID becomes the leader of a group or session (by `lead`), and its child is in it too. The leader
/// ends and is reaped. The child reports itself and lives until its namespace ends.
fn outlived_by_a_member(fact: &str, pid: Pid, lead: impl Fn(), leave: impl Fn()) {
    let leader = sys::clone3(&Birth { flags: 0, set_tid: vec![pid] }, || {
        lead();
        let gate = Gate::new();
        fork(|| {
            leave();
            report(fact, Who::myself());
            gate.open();
            sys::pause_forever()
        });
        gate.wait();
        0
    });
    let leader = leader.expect("this PID is free");
    assert!(sys::wait(leader).expect("wait for the leader").success(), "the leader of the {fact} failed");
}

/// Must come last, because a process with two threads may not fork.
fn ask_for_own_thread(who: &Who) {
    let barrier = Arc::new(Barrier::new(2));
    let (sender, tid) = mpsc::channel();
    let thread = thread::spawn({
        let barrier = Arc::clone(&barrier);
        move || {
            sender.send(sys::gettid()).expect("send the TID");
            barrier.wait();
        }
    });
    let tid = tid.recv().expect("a thread reports its number");
    report("tid", tid);
    ask("thread", who, 0, &[tid]);
    barrier.wait();
    thread.join().expect("the thread does not panic");
}

/// A process without the capability chooses a PID.
fn choose_unprivileged() -> c_int {
    let home = Child::init("init", || {
        let asker = fork(|| {
            sys::become_uid(54321).expect("become another user");
            report_refusal(
                "refused",
                "clone3",
                &Who::myself(),
                &sys::clone3(&Birth { flags: 0, set_tid: vec![77] }, || 0).map(sys::wait),
            );
            0
        });
        assert!(sys::wait(asker).expect("wait for the asker").success(), "the asker failed");
    });
    home.dismiss();
    0
}
