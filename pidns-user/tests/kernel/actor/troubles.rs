//! Faults of PID namespaces. Each lasts until the test sends "go".

use std::ffi::c_int;
use std::fs::{self, File};
use std::thread;
use std::time::Duration;

use super::creation::descend;
use super::hanging::HangingServer;
use super::relations::own_place;
use super::release::namespace_of;
use super::states::{children_go_to_namespace_of, wait_until_ended, wait_until_exiting};
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
    ("zombies-fill-a-cgroup", |args| {
        zombies_fill_a_cgroup(&parse::<String>(args, 0, "a cgroup"), parse(args, 1, "zombies"))
    }),
    ("threads-in-a-cgroup", |args| threads_in_a_cgroup(&parse::<String>(args, 0, "a cgroup"))),
    ("grows-threads", |args| grows_threads(parse(args, 0, "threads"))),
    ("file-holds-a-namespace", |_| file_holds_a_namespace()),
    ("mount-holds-a-namespace", |_| mount_holds_a_namespace()),
    ("link-holds-a-namespace", |_| link_holds_a_namespace()),
    ("proc-holds-a-namespace", |_| proc_holds_a_namespace()),
    ("zombie-init-holds-a-namespace", |_| zombie_init_holds_a_namespace()),
    ("session-is-gone", |_| session_is_gone(false)),
    ("session-goes", |_| session_is_gone(true)),
    ("container-without-a-namespace", |args| {
        container_without_a_namespace(&parse::<String>(args, 0, "a cgroup"))
    }),
    ("helper-stays", |_| helper_stays()),
    ("deep-nest", |args| deep_nest(parse(args, 0, "levels"))),
    ("unshares-and-waits", |_| unshares_and_waits()),
    ("ignores-a-signal", |_| ignores_a_signal()),
];

/// PID 1 adopts orphans and does not reap them until "go".
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
            sys::wait(parent).expect("wait for the parent");
        }
        report("ready", true);
        wait_for_go();
        for _ in 0..orphans {
            sys::wait(-1).expect("reap an orphan");
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
            sys::wait(parent).expect("wait for the parent");
            // This reaps the orphan or the own child. The other one is reaped below.
            sys::wait(-1).expect("wait for a child");
        }
        report("ready", true);
        wait_for_go();
        let _it_may_be_reaped_already = sys::wait(own);
    });
    home.dismiss();
    0
}

/// The init is killed while this process traces a member without waiting for it.
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
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", home.pid)).expect("read the children");
    let member: Pid = children.trim().parse().expect("the init has one child");
    sys::seize(member).expect("trace the member");
    report("keeper", Who::myself());
    sys::kill(home.pid, libc::SIGKILL).expect("kill the init");
    wait_until_exiting(home.pid);
    report("ready", true);
    wait_for_go();
    sys::wait(member).expect("wait for the member");
    report_end("end", home.pid);
    0
}

/// The init exits while a member waits for a file system. The server has taken the member's request and does not
/// answer, and no signal ends that wait (`request_wait_answer()`, fs/fuse/dev.c).
fn stuck_in_the_kernel() -> c_int {
    let HangingServer { place, silence, taken, pid: server } = HangingServer::start();
    let folder = place.path().join("folder");
    assert!(fs::metadata(&folder).is_ok(), "the server must answer");
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
    // If the member were killed before the server had its request, it would just end.
    taken.wait();
    home.let_go();
    wait_until_exiting(home.pid);
    report("ready", true);
    wait_for_go();
    sys::kill(server, libc::SIGKILL).expect("kill the server");
    sys::wait(server).expect("wait for the server");
    report_end("end", home.pid);
    0
}

/// A careless unshare: the first child was the init, and this process continues to fork.
fn forks_into_a_dead_namespace() -> c_int {
    report("forker", Who::myself());
    sys::unshare(sys::NEWPID).expect("unshare the PID namespace");
    let init = fork(|| {
        report("init", Who::myself());
        7
    });
    sys::wait(init).expect("wait for the init");
    report_refusal("refused", "clone", &Who::myself(), &sys::fork(|| 0).map(sys::wait));
    report("ready", true);
    wait_for_go();
    0
}

/// An init in this cgroup forks until its limit, after this number of forks.
fn full_cgroup(cgroup: &str, processes: usize) -> c_int {
    let home = Child::init("init", || {
        fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("move this process");
        let mut children = Vec::new();
        for _ in 0..processes {
            children.push(fork(|| sys::pause_forever()));
        }
        report_refusal("refused", "clone", &Who::myself(), &sys::fork(|| 0).map(sys::wait));
        report("ready", true);
        wait_for_go();
        for child in children {
            sys::kill(child, libc::SIGKILL).expect("kill the child");
            sys::wait(child).expect("wait for the child");
        }
    });
    home.dismiss();
    0
}

/// An init in this cgroup does not reap its children, until no fork is possible.
fn zombies_fill_a_cgroup(cgroup: &str, zombies: usize) -> c_int {
    let home = Child::init("init", || {
        fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("move this process");
        for _ in 0..zombies {
            let child = fork(|| {
                sys::set_name(b"worker").expect("set the name");
                0
            });
            sys::wait_without_reaping(child).expect("wait for the child");
        }
        report_refusal("refused", "clone", &Who::myself(), &sys::fork(|| 0).map(sys::wait));
        report("ready", true);
        wait_for_go();
        for _ in 0..zombies {
            sys::wait(-1).expect("reap a child");
        }
    });
    home.dismiss();
    0
}

/// An init in this cgroup has many threads.
fn threads_in_a_cgroup(cgroup: &str) -> c_int {
    let life = |side: &super::Side<'_>| {
        fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("move this process");
        side.ready();
        become_actor(&["grows-threads", "50"])
    };
    let home = Child::clone(sys::NEWPID, life).expect("create a PID namespace");
    let ended = report_end("end", home.pid);
    assert_eq!(ended.code, Some(0), "the init must exit by itself");
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

/// A file holds a namespace whose processes have ended.
fn file_holds_a_namespace() -> c_int {
    let home = Child::init("init", || {});
    let file = File::open(namespace_of(home.pid)).expect("open the namespace file");
    report("keeper", Who::myself());
    home.dismiss();
    report("ready", true);
    wait_for_go();
    drop(file);
    report("mended", true);
    wait_for_go();
    0
}

/// A mount holds the namespace. It is in a separate mount namespace, so that no mount is left on the machine.
fn mount_holds_a_namespace() -> c_int {
    let place = own_place();
    let file = place.path().join("namespace");
    File::create(&file).expect("create the file");
    let home = Child::init("init", || {});
    sys::bind_mount(&namespace_of(home.pid), &file).expect("mount the namespace file");
    home.dismiss();
    report("ready", true);
    wait_for_go();
    sys::unmount(&file).expect("unmount the namespace file");
    report("mended", true);
    wait_for_go();
    0
}

/// A careless unshare: the first child was PID 1 and has ended, and later children would still be born in its namespace
/// (`/proc/PID/ns/pid_for_children`).
fn link_holds_a_namespace() -> c_int {
    let keeper = Child::fork(|side| {
        report("keeper", Who::myself());
        sys::unshare(sys::NEWPID).expect("unshare the PID namespace");
        let init = fork(|| {
            report("init", Who::myself());
            0
        });
        sys::wait(init).expect("wait for the init");
        side.ready();
        side.wait();
        0
    });
    let keeper = keeper.expect("fork");
    keeper.await_ready();
    report("ready", true);
    wait_for_go();
    keeper.dismiss();
    report("mended", true);
    wait_for_go();
    0
}

/// The init has mounted a proc outside of its own mount namespace, and it stays mounted.
fn proc_holds_a_namespace() -> c_int {
    let place = own_place();
    let home = Child::init("init", || {
        sys::mount_proc(place.path(), "").expect("mount proc");
    });
    home.dismiss();
    report("ready", true);
    wait_for_go();
    sys::unmount(place.path()).expect("unmount the proc");
    report("mended", true);
    wait_for_go();
    0
}

/// The init has ended, and its parent does not wait for it.
fn zombie_init_holds_a_namespace() -> c_int {
    let home = Child::init("init", || {});
    report("keeper", Who::myself());
    home.let_go();
    sys::wait_without_reaping(home.pid).expect("wait for the init");
    report("ready", true);
    wait_for_go();
    home.reap();
    report("mended", true);
    wait_for_go();
    0
}

/// A process outside forks a member into the namespace and ends. Now the member's parent is this process, a subreaper
/// that has nothing to do with the namespace. `stays`: the process outside ends only on "go".
fn session_is_gone(stays: bool) -> c_int {
    sys::become_subreaper().expect("become a subreaper");
    // Another process must be the init's parent.
    let keeper = Child::fork(|side| {
        let home = Child::init("init", || {});
        report("home", home.pid);
        side.ready();
        side.wait();
        sys::kill(home.pid, libc::SIGKILL).expect("kill the init");
        sys::wait(home.pid).expect("wait for the init");
        0
    });
    let keeper = keeper.expect("fork");
    keeper.await_ready();
    let home =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", keeper.pid)).expect("read the children");
    let home: Pid = home.trim().parse().expect("the keeper has one child");
    let session = fork(|| {
        children_go_to_namespace_of(home);
        let is_there = Gate::new();
        fork(|| {
            report("member", Who::myself());
            is_there.open();
            sys::pause_forever()
        });
        is_there.wait();
        if stays {
            report("session", Who::myself());
            wait_for_go();
        }
        0
    });
    sys::wait(session).expect("wait for the session");
    report("ready", true);
    wait_for_go();
    keeper.let_go();
    // The keeper waits for the init, and the init waits for the member, which is this process's child.
    for _ in 0..2 {
        sys::wait(-1).expect("wait for a child");
    }
    0
}

/// A container's main process is in this PID namespace. On the first "go" it ends, and a member stays until the second.
fn container_without_a_namespace(cgroup: &str) -> c_int {
    sys::become_subreaper().expect("become a subreaper");
    let main = Child::fork(|side| {
        fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("move this process");
        let main = Who::myself();
        report("main", &main);
        let is_there = Gate::new();
        fork(|| {
            report("member", Who::myself());
            is_there.open();
            // It ends with the actor, but not with the main process.
            while Who::myself().ppid == main.pid {
                thread::sleep(Duration::from_millis(10));
            }
            sys::die_with_parent().expect("set the parent death signal");
            sys::pause_forever()
        });
        is_there.wait();
        side.ready();
        side.wait();
        0
    });
    let main = main.expect("fork");
    main.await_ready();
    report("ready", true);
    wait_for_go();
    main.dismiss();
    report("ended", true);
    wait_for_go();
    let own = Who::myself().pid;
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).expect("read the children");
    let member: Pid = children.trim().parse().expect("the main process left one child");
    sys::kill(member, libc::SIGKILL).expect("kill the member");
    sys::wait(member).expect("wait for the member");
    0
}

/// A process with the name of a runtime's helper created a namespace, and outlives it.
fn helper_stays() -> c_int {
    let helper = Child::fork(|side| {
        sys::set_name(b"containerd-shim").expect("set the name");
        report("helper", Who::myself());
        let home = Child::init("init", || {});
        home.dismiss();
        side.ready();
        side.wait();
        0
    });
    let helper = helper.expect("fork");
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
    sys::unshare(sys::NEWPID).expect("unshare the PID namespace");
    report("ready", true);
    wait_for_go();
    0
}

/// Sends SIGTERM to an init that has no handler for it. On "go", sends SIGKILL.
fn ignores_a_signal() -> c_int {
    let home = Child::init("init", || {});
    report("sender", Who::myself());
    sys::kill(home.pid, libc::SIGTERM).expect("send SIGTERM");
    report("ready", true);
    wait_for_go();
    sys::kill(home.pid, libc::SIGKILL).expect("send SIGKILL");
    wait_until_ended(home.pid);
    report("killed", true);
    wait_for_go();
    report_end("end", home.pid);
    0
}
