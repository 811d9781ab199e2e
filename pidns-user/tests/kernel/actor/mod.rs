//! The actor. It is this program, run as a process with one thread. It creates one situation with real system calls,
//! reports the true facts on stdout, and waits on stdin when the test requires it.
//!
//! `kernel actor NAME [ARGS]` runs one situation by hand (each line on stdin lets it continue). `kernel actor` lists
//! them.

mod chosen;
mod creation;
mod forest;
mod hanging;
mod holders;
mod join;
mod orphans;
mod processes;
mod relations;
mod release;
mod sandbox;
mod signals;
mod states;
mod storm;
mod teardown;
mod troubles;

use std::ffi::c_int;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitStatus;

use serde::Serialize;

pub(crate) use self::processes::STRANGE_NAME;
use crate::facts::{Ended, Refused, Who, errno_name};
use crate::sys::{self, Birth, Gate, Pid, Waiter};

/// The name of a situation, and its function.
type Situation = (&'static str, fn(&[String]) -> c_int);

/// Runs the situation that `args` name. Returns the exit code.
pub(crate) fn main(args: &[String]) -> c_int {
    let groups = [
        chosen::SITUATIONS,
        creation::SITUATIONS,
        forest::SITUATIONS,
        hanging::SITUATIONS,
        holders::SITUATIONS,
        join::SITUATIONS,
        orphans::SITUATIONS,
        processes::SITUATIONS,
        release::SITUATIONS,
        sandbox::SITUATIONS,
        signals::SITUATIONS,
        states::SITUATIONS,
        storm::SITUATIONS,
        teardown::SITUATIONS,
        relations::SITUATIONS,
        troubles::SITUATIONS,
    ];
    let mut situations = groups.into_iter().flatten();
    let Some((name, args)) = args.split_first() else {
        situations.for_each(|(name, _)| println!("{name}"));
        return 0;
    };
    let (_, run) =
        situations.find(|(known, _)| known == name).unwrap_or_else(|| panic!("no situation named {name}"));
    run(args)
}

/// Reports one fact: a JSON object on one line of stdout.
fn report(fact: &str, is: impl Serialize) {
    let line = serde_json::json!({ "fact": fact, "is": is }).to_string() + "\n";
    sys::write_line(io::stdout().as_fd(), &line);
}

/// Waits until the test sends "go". Without a test there is nothing to wait for.
fn wait_for_go() {
    loop {
        match sys::read_byte(io::stdin().as_fd()) {
            Some(b'\n') => return,
            Some(_) => {}
            None => sys::exit_now(3),
        }
    }
}

/// The child's end of the two gates between it and its parent.
struct Side<'a> {
    ready: &'a Gate,
    go: &'a Gate,
}

impl Side<'_> {
    fn ready(&self) {
        self.ready.open();
    }

    fn wait(&self) {
        self.go.wait();
    }
}

/// A child that reports when it is ready, and waits for "go".
struct Child {
    pid: Pid,
    ready: Waiter,
    go: Gate,
}

impl Child {
    /// Makes a child through `how`. It dies with its parent.
    fn spawn(
        how: impl FnOnce(&mut dyn FnMut() -> c_int) -> io::Result<Pid>,
        life: impl FnOnce(&Side<'_>) -> c_int,
    ) -> io::Result<Self> {
        let (ready, go) = (Gate::new(), Gate::new());
        let mut life = Some(life);
        let pid = how(&mut || {
            sys::die_with_parent().expect("set the parent death signal");
            let life = life.take().expect("the child runs once");
            life(&Side { ready: &ready, go: &go })
        })?;
        Ok(Self { pid, ready: ready.into_waiter(), go })
    }

    fn fork(life: impl FnOnce(&Side<'_>) -> c_int) -> io::Result<Self> {
        Self::spawn(|live| sys::fork(live), life)
    }

    fn clone(flags: c_int, life: impl FnOnce(&Side<'_>) -> c_int) -> io::Result<Self> {
        Self::spawn(|live| sys::clone(flags, live), life)
    }

    fn clone3(birth: &Birth, life: impl FnOnce(&Side<'_>) -> c_int) -> io::Result<Self> {
        Self::spawn(|live| sys::clone3(birth, live), life)
    }

    /// The init of a new namespace. It reports itself as `fact`, runs `deed`, waits until it is let go, and exits
    /// with 0.
    fn init(fact: &str, deed: impl FnOnce()) -> Self {
        let life = |side: &Side<'_>| {
            report(fact, Who::myself());
            deed();
            side.ready();
            side.wait();
            0
        };
        let child = Self::clone(sys::NEWPID, life).expect("create a PID namespace");
        child.await_ready();
        child
    }

    fn await_ready(&self) {
        self.ready.wait();
    }

    fn let_go(&self) {
        self.go.open();
    }

    fn reap(self) -> ExitStatus {
        sys::wait(self.pid).expect("wait for the child")
    }

    /// Lets the child go. It must exit with 0.
    fn dismiss(self) {
        self.let_go();
        let status = self.reap();
        assert!(status.success(), "a child ended with {status}");
    }
}

/// Reaps a child, and reports its end.
fn report_end(fact: &str, pid: Pid) -> Ended {
    let ended = Ended::from(sys::wait(pid).expect("wait for the child"));
    report(fact, &ended);
    ended
}

/// Makes a child with a plain fork.
fn fork(life: impl FnOnce() -> c_int) -> Pid {
    sys::fork(life).expect("fork")
}

/// Forks, and waits for the child, which must exit with 0.
fn fork_and_wait(life: impl FnOnce() -> c_int) {
    let status = sys::wait(fork(life)).expect("wait for the child");
    assert!(status.success(), "a child ended with {status}");
}

/// Starts members that sleep forever. Each of them has reported itself when this returns.
fn sleeping_members(count: usize) {
    let gate = Gate::new();
    for _ in 0..count {
        fork(|| {
            report("member", Who::myself());
            gate.open();
            sys::pause_forever()
        });
    }
    (0..count).for_each(|_| gate.wait());
}

/// Reports the kernel's refusal of `via`. If the call succeeded, the errno is "none".
fn report_refusal<T>(fact: &str, via: &str, who: &Who, result: &io::Result<T>) {
    let errno = result.as_ref().err().map_or("none".into(), errno_name);
    report(fact, Refused { via: via.into(), errno, who: who.clone() });
}

/// Tries each way to create a PID namespace, and reports each refusal.
fn try_to_make_namespaces(who: &Who) {
    let make = Birth { flags: sys::NEWPID, ..Birth::default() };
    report_refusal("refused", "clone", who, &sys::clone(sys::NEWPID, || 0).map(sys::wait));
    report_refusal("refused", "clone3", who, &sys::clone3(&make, || 0).map(sys::wait));
    report_refusal("refused", "unshare", who, &sys::unshare(sys::NEWPID));
}

/// The path of this program, for an exec.
fn this_program() -> String {
    let path = std::env::current_exe().expect("find this program");
    path.into_os_string().into_string().expect("a path in UTF-8")
}

/// Replaces this process with the actor of another situation.
fn become_actor(args: &[&str]) -> ! {
    let error = sys::exec(&this_program(), &[&["actor"], args].concat());
    panic!("exec of this program: {error}")
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(args: &[String], index: usize, what: &str) -> T {
    let text = args.get(index).unwrap_or_else(|| panic!("argument {index} is missing: {what}"));
    text.parse().unwrap_or_else(|error| panic!("argument {index} ({what}) is {text:?}: {error}"))
}
