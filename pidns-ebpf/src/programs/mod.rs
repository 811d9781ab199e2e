//! One kernel hook per file, with the prototype that it relies on.

mod alloc_pid;
mod copy_pid_ns;
mod exec;
mod exit;
mod fork;
mod free;
mod free_inum;
mod kernel_clone;
mod ksys_unshare;
mod pidns_install;
mod reboot;
mod release_task;
mod setns;
mod signal;
mod syscall;
mod victim;
mod zap;
