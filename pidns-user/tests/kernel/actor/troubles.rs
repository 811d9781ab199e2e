//! What goes wrong with PID namespaces, each until the test asks to repair it.

use std::ffi::c_int;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd as _;
use std::thread;

use super::creation::descend;
use super::hanging::serve;
use super::release::namespace_of;
use super::states::{children_go_to_namespace_of, wait_until_ended, wait_until_exiting};
use super::ties::own_place;
use super::{Child, Situation, become_actor, fork, parse, report, report_end, report_refusal, wait_for_go};
use crate::facts::Who;
use crate::sys::{self, Gate, Pid};

pub(super) const SITUATIONS: &[Situation] = &[
    ("init-does-not-reap", |args| init_does_not_reap(parse(args, 0, "orphans"))),
    ("init-reaps", |_| init_reaps()),
    ("traced-teardown", |_| traced_teardown()),
    ("stuck-in-the-kernel", |_| stuck_in_the_kernel()),
    ("forks-into-a-dead-namespace", |_| forks_into_a_dead_namespace()),
    ("full-cgroup", |args| full_cgroup(&parse::<String>(args, 0, "a cgroup"), parse(args, 1, "processes"))),
    ("threads-in-a-cgroup", |args| threads_in_a_cgroup(&parse::<String>(args, 0, "a cgroup"))),
    ("grows-threads", |args| grows_threads(parse(args, 0, "threads"))),
    ("file-holds-a-namespace", |_| file_holds_a_namespace()),
    ("mount-holds-a-namespace", |_| mount_holds_a_namespace()),
    ("session-is-gone", |_| session_is_gone()),
    ("helper-stays", |_| helper_stays()),
    ("deep-nest", |args| deep_nest(parse(args, 0, "levels"))),
    ("unshares-and-waits", |_| unshares_and_waits()),
    ("ignores-a-signal", |_| ignores_a_signal()),
];

/// PID 1 takes orphans and does not wait for them, until it is asked to.
fn init_does_not_reap(orphans: usize) -> c_int {
    let home = Child::init("init", || {
        for _ in 0..orphans {
            let parent = fork(|| {
                fork(|| {
                    report("orphan", Who::myself());
                    0
                });
                0
            });
            sys::wait(parent).expect("a child can be waited for");
        }
        report("ready", true);
        wait_for_go();
        for _ in 0..orphans {
            sys::wait(-1).expect("an orphan can be waited for");
        }
        report("reaped", true);
        wait_for_go();
    });
    home.dismiss();
    0
}

/// PID 1 reaps each orphan at once, and its own child late.
fn init_reaps() -> c_int {
    let home = Child::init("init", || {
        let own = fork(|| 0);
        for _ in 0..20 {
            let parent = fork(|| {
                fork(|| 0);
                0
            });
            sys::wait(parent).expect("a child can be waited for");
            // The orphan, or the own child; what is left is waited for below.
            sys::wait(-1).expect("there is a child to wait for");
        }
        report("ready", true);
        wait_for_go();
        let _it_may_be_reaped_already = sys::wait(own);
    });
    home.dismiss();
    0
}

/// The init is killed while this process traces a member, and does not wait for it.
fn traced_teardown() -> c_int {
    let home = Child::init("init", || {
        let is_there = Gate::new();
        fork(|| {
            report("member", Who::myself());
            is_there.open();
            sys::pause_forever()
        });
        is_there.wait();
    });
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", home.pid)).expect("its children");
    let member: Pid = children.trim().parse().expect("it has one");
    sys::seize(member).expect("root can trace it");
    report("keeper", Who::myself());
    sys::kill(home.pid, libc::SIGKILL).expect("an init can be killed from outside");
    wait_until_exiting(home.pid);
    report("ready", true);
    wait_for_go();
    sys::wait(member).expect("a tracer can wait for it");
    report_end("end", home.pid);
    0
}

/// The init exits while a member waits for a file system whose server has taken its request and does not answer: no signal ends
/// that (`request_wait_answer()`, fs/fuse/dev.c).
fn stuck_in_the_kernel() -> c_int {
    let place = own_place();
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("FUSE is there");
    sys::mount_fuse(place.path(), device.as_fd()).expect("root can mount FUSE");
    let (silence, taken) = (Gate::new(), Gate::new());
    let server = fork(|| {
        sys::die_with_parent().expect("PR_SET_PDEATHSIG is allowed");
        serve(device.try_clone().expect("a descriptor is left"), &silence, &taken)
    });
    drop(device);
    let folder = place.path().join("folder");
    assert!(fs::metadata(&folder).is_ok(), "the server answers");
    silence.open();
    let home = Child::init("init", || {
        let is_there = Gate::new();
        fork(|| {
            report("member", Who::myself());
            is_there.open();
            let _never_answered = fs::metadata(&folder);
            0
        });
        is_there.wait();
    });
    // Killed before the server has its request, the member would just end.
    taken.wait();
    home.let_go();
    wait_until_exiting(home.pid);
    report("ready", true);
    wait_for_go();
    sys::kill(server, libc::SIGKILL).expect("the server is there");
    sys::wait(server).expect("a child can be waited for");
    report_end("end", home.pid);
    0
}

/// unshare without care: the first child was the init, and this process goes on.
fn forks_into_a_dead_namespace() -> c_int {
    report("forker", Who::myself());
    sys::unshare(sys::NEWPID).expect("root can unshare its PID namespace");
    let init = fork(|| {
        report("init", Who::myself());
        7
    });
    sys::wait(init).expect("a child can be waited for");
    report_refusal("refused", "clone", &Who::myself(), &sys::fork(|| 0).map(sys::wait));
    report("ready", true);
    wait_for_go();
    0
}

/// An init in this cgroup forks until it may not, after so many.
fn full_cgroup(cgroup: &str, processes: usize) -> c_int {
    let home = Child::init("init", || {
        fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("a process may move itself");
        let mut children = Vec::new();
        for _ in 0..processes {
            children.push(fork(|| sys::pause_forever()));
        }
        report_refusal("refused", "clone", &Who::myself(), &sys::fork(|| 0).map(sys::wait));
        report("ready", true);
        wait_for_go();
        for child in children {
            sys::kill(child, libc::SIGKILL).expect("a child can be killed");
            sys::wait(child).expect("a child can be waited for");
        }
    });
    home.dismiss();
    0
}

/// An init in this cgroup has many threads.
fn threads_in_a_cgroup(cgroup: &str) -> c_int {
    let life = |side: &super::Side<'_>| {
        fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("a process may move itself");
        side.ready();
        become_actor(&["grows-threads", "50"])
    };
    let home = Child::clone(sys::NEWPID, life).expect("root can make a PID namespace");
    let ended = report_end("end", home.pid);
    assert_eq!(ended.code, Some(0), "it ends by itself");
    0
}

fn grows_threads(threads: usize) -> c_int {
    report("init", Who::myself());
    for _ in 0..threads {
        thread::spawn(|| sys::pause_forever());
    }
    report("ready", true);
    wait_for_go();
    sys::exit_now(0)
}

/// A file holds a namespace whose processes are gone.
fn file_holds_a_namespace() -> c_int {
    let home = Child::init("init", || {});
    let file = File::open(namespace_of(home.pid)).expect("a namespace file can be opened");
    report("keeper", Who::myself());
    home.dismiss();
    report("ready", true);
    wait_for_go();
    drop(file);
    report("mended", true);
    wait_for_go();
    0
}

/// A mount does, in a mount namespace of this process's own, so that nothing of it is left on the machine.
fn mount_holds_a_namespace() -> c_int {
    let place = own_place();
    let file = place.path().join("namespace");
    File::create(&file).expect("a temporary file");
    let home = Child::init("init", || {});
    sys::bind_mount(&namespace_of(home.pid), &file).expect("a namespace file can be bound");
    home.dismiss();
    report("ready", true);
    wait_for_go();
    sys::unmount(&file).expect("what was mounted can be unmounted");
    report("mended", true);
    wait_for_go();
    0
}

/// A process outside forks one into the namespace and ends: nothing that has to do with the namespace is its parent now, but this
/// process, which adopts orphans.
fn session_is_gone() -> c_int {
    sys::become_subreaper().expect("a process may adopt orphans");
    // Not the process that has the init as its child.
    let keeper = Child::fork(|side| {
        let home = Child::init("init", || {});
        report("home", home.pid);
        side.ready();
        side.wait();
        sys::kill(home.pid, libc::SIGKILL).expect("an init can be killed from outside");
        sys::wait(home.pid).expect("a child can be waited for");
        0
    });
    let keeper = keeper.expect("a fork works");
    keeper.await_ready();
    let home = fs::read_to_string(format!("/proc/{0}/task/{0}/children", keeper.pid)).expect("its children");
    let home: Pid = home.trim().parse().expect("it has one");
    let session = fork(|| {
        children_go_to_namespace_of(home);
        let is_there = Gate::new();
        fork(|| {
            report("member", Who::myself());
            is_there.open();
            sys::pause_forever()
        });
        is_there.wait();
        0
    });
    sys::wait(session).expect("a child can be waited for");
    report("ready", true);
    wait_for_go();
    keeper.let_go();
    // The keeper waits for the init, and that for the member, which is this process's child.
    for _ in 0..2 {
        sys::wait(-1).expect("a child can be waited for");
    }
    0
}

/// A process with the name of a runtime's helper made a namespace, and stays when that is gone.
fn helper_stays() -> c_int {
    let helper = Child::fork(|side| {
        sys::set_name(b"containerd-shim").expect("a process may choose its name");
        report("helper", Who::myself());
        let home = Child::init("init", || {});
        home.dismiss();
        side.ready();
        side.wait();
        0
    });
    let helper = helper.expect("a fork works");
    helper.await_ready();
    report("ready", true);
    wait_for_go();
    helper.dismiss();
    0
}

fn deep_nest(levels: u32) -> c_int {
    descend(levels, &|| {
        report("init", Who::myself());
        report("ready", true);
        wait_for_go();
    })
}

fn unshares_and_waits() -> c_int {
    report("process", Who::myself());
    sys::unshare(sys::NEWPID).expect("root can unshare its PID namespace");
    report("ready", true);
    wait_for_go();
    0
}

/// An init that has no handler for it gets SIGTERM; on request, SIGKILL.
fn ignores_a_signal() -> c_int {
    let home = Child::init("init", || {});
    report("sender", Who::myself());
    sys::kill(home.pid, libc::SIGTERM).expect("a parent may signal the init");
    report("ready", true);
    wait_for_go();
    sys::kill(home.pid, libc::SIGKILL).expect("a parent may signal the init");
    wait_until_ended(home.pid);
    report("killed", true);
    wait_for_go();
    report_end("end", home.pid);
    0
}
