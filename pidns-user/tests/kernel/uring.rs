//! A minimal io_uring(7), to make the kernel create worker threads.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `struct io_uring_params` (include/uapi/linux/io_uring.h), in words of 4 bytes.
type Params = [u32; 30];

const SQ_ENTRIES: usize = 0;
/// The position of `sq_off` in the parameters. It holds the offsets in the ring's memory.
const SQ_OFF: usize = 10;
const TAIL: usize = SQ_OFF + 1;
const ARRAY: usize = SQ_OFF + 6;

/// Makes a worker thread of the kernel handle one empty request. The thread then waits for more.
pub(crate) fn work_once() -> io::Result<OwnedFd> {
    const NOP_BY_A_WORKER: u16 = 1 << 4 << 8;
    const SQES: libc::off_t = 0x1000_0000;
    const GETEVENTS: u32 = 1;
    let mut params: Params = [0; 30];
    // SAFETY: the parameters live across the call, and have the kernel's size.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and nothing else has it.
    let ring = unsafe { OwnedFd::from_raw_fd(ring as i32) };
    let map = |offset, size| {
        let (protection, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: this makes a new mapping, at an address that the kernel chooses.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), size, protection, kind, ring.as_raw_fd(), offset) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast::<u8>()) }
    };
    let queue = map(0, (params[ARRAY] + params[SQ_ENTRIES] * 4) as usize)?;
    let requests = map(SQES, params[SQ_ENTRIES] as usize * 64)?;
    // SAFETY: both writes are within the mappings, at offsets that the kernel returned. The kernel reads them in the
    // call below.
    unsafe {
        requests.cast::<u16>().write(NOP_BY_A_WORKER);
        queue.add(params[ARRAY] as usize).cast::<u32>().write(0);
        queue.add(params[TAIL] as usize).cast::<u32>().write_volatile(1);
    }
    // SAFETY: no signal mask is passed.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 1, 1, GETEVENTS, 0_usize, 0_usize)
    };
    if done == 1 { Ok(ring) } else { Err(io::Error::last_os_error()) }
}

/// Makes the kernel create a thread that polls for requests (IORING_SETUP_SQPOLL).
pub(crate) fn poll() -> io::Result<OwnedFd> {
    const FLAGS: usize = 2;
    const SQPOLL: u32 = 1 << 1;
    let mut params: Params = [0; 30];
    params[FLAGS] = SQPOLL;
    // SAFETY: as above.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(ring as i32) })
}
