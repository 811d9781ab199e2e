//! A file system whose server stops answering, with a proc and a namespace mounted in it.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use tempfile::TempDir;

use super::relations::own_place;
use super::{Child, Situation, fork, report, wait_for_go};
use crate::sys::{self, Gate, Pid};

pub(super) const SITUATIONS: &[Situation] =
    &[("still-behind-a-hanging-server", |_| behind_a_hanging_server())];

/// Request codes from include/uapi/linux/fuse.h, `enum fuse_opcode`.
mod op {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const INIT: u32 = 26;
    pub(super) const BATCH_FORGET: u32 = 42;
}

// Node 1 is the root.
const FOLDER: u64 = 2;
const FILE: u64 = 3;

/// `struct fuse_attr` of a directory or an empty file.
fn attributes(node: u64) -> Vec<u8> {
    let mode: u32 = if node == FILE { 0o100_644 } else { 0o40_755 };
    let mut bytes = node.to_ne_bytes().to_vec();
    bytes.extend([0; 52]);
    bytes.extend(mode.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes());
    bytes.resize(88, 0);
    bytes
}

/// The answer to a request: none, an errno, or bytes. The kernel may not cache it.
fn answer(operation: u32, node: u64, body: &[u8]) -> Option<Result<Vec<u8>, i32>> {
    Some(match operation {
        op::FORGET | op::BATCH_FORGET => return None,
        // `struct fuse_init_out` of version 7.31.
        op::INIT => {
            let mut bytes = [7_u32, 31, 0, 0, 0, 1 << 17, 1].map(u32::to_ne_bytes).concat();
            bytes.resize(64, 0);
            Ok(bytes)
        }
        op::LOOKUP => match body.split(|&byte| byte == 0).next() {
            Some(b"folder") => Ok(entry(FOLDER)),
            Some(b"file") => Ok(entry(FILE)),
            _ => Err(libc::ENOENT),
        },
        // `struct fuse_attr_out`.
        op::GETATTR => Ok([vec![0; 16], attributes(node)].concat()),
        _ => Err(libc::ENOSYS),
    })
}

/// `struct fuse_entry_out`.
fn entry(node: u64) -> Vec<u8> {
    let mut bytes = node.to_ne_bytes().to_vec();
    bytes.resize(40, 0);
    bytes.extend(attributes(node));
    bytes
}

/// Answers requests until `silence` is open. After that it reads requests without answering, and opens `taken` for
/// each request whose process waits for the answer.
fn serve(mut device: File, silence: &Gate, taken: &Gate) -> c_int {
    let mut request = vec![0; (1 << 17) + 4096];
    loop {
        let Ok(length) = device.read(&mut request) else { return 0 };
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().expect("eight bytes"));
        let (operation, unique, node) = (word(4), long(8), long(16));
        if silence.is_open() {
            report("unanswered", operation);
            if !matches!(operation, op::FORGET | op::BATCH_FORGET) {
                taken.open();
            }
            continue;
        }
        let Some(answer) = answer(operation, node, &request[40..length]) else { continue };
        let (error, bytes) = answer.map_or_else(|errno| (-errno, Vec::new()), |bytes| (0, bytes));
        let mut reply = (16 + bytes.len() as u32).to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend(unique.to_ne_bytes());
        reply.extend(bytes);
        // If the process of the request was killed meanwhile, the write fails.
        let _ = device.write(&reply);
    }
}

/// A FUSE file system whose server stops answering.
pub(super) struct HangingServer {
    /// Where it is mounted.
    pub(super) place: TempDir,
    /// From its opening on, the server does not answer.
    pub(super) silence: Gate,
    /// The server opens it when it has taken a request that it does not answer.
    pub(super) taken: Gate,
    /// The server.
    pub(super) pid: Pid,
}

impl HangingServer {
    /// Mounts it in a separate mount namespace. At first the server answers.
    pub(super) fn start() -> Self {
        let place = own_place();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("open /dev/fuse");
        sys::mount_fuse(place.path(), device.as_fd()).expect("mount FUSE");
        let (silence, taken) = (Gate::new(), Gate::new());
        let pid = fork(|| {
            sys::die_with_parent().expect("set the parent death signal");
            serve(device.try_clone().expect("duplicate the descriptor"), &silence, &taken)
        });
        // Our copy of the device is closed here: the file system must end with its server, so that no process waits for
        // it any more.
        Self { place, silence, taken, pid }
    }
}

/// Mounts in a separate mount namespace: a proc that shows one namespace, and the file of another namespace, which
/// has no process.
fn behind_a_hanging_server() -> c_int {
    let HangingServer { place, silence, pid, .. } = HangingServer::start();
    let (folder, file) = (place.path().join("folder"), place.path().join("file"));
    let shown = Child::init("shown", || sys::mount_proc(&folder, "").expect("mount proc"));
    let bound = Child::init("bound", || {
        sys::bind_mount("/proc/self/ns/pid", &file).expect("mount the namespace file");
    });
    bound.dismiss();
    silence.open();
    report("ready", true);
    wait_for_go();
    shown.dismiss();
    sys::kill(pid, libc::SIGKILL).expect("kill the server");
    sys::wait(pid).expect("wait for the server");
    0
}
