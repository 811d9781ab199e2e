//! Names of signal and errno numbers.

/// A signal's name: "SIGKILL", "SIGRTMIN+3".
pub fn signal_name(number: u32) -> String {
    const NAMES: [&str; 32] = [
        "0",
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    // The C library uses 32 and 33 internally, so its real-time signals begin at 34.
    const RTMIN: u32 = 34;
    match (NAMES.get(number as usize), number) {
        (Some(name), _) => (*name).to_owned(),
        (None, RTMIN) => "SIGRTMIN".to_owned(),
        (None, RTMIN..=64) => format!("SIGRTMIN+{}", number - RTMIN),
        (None, _) => format!("SIG{number}"),
    }
}

/// An errno's name, like "ENOMEM". Only the errors that unshare, setns, clone and fork can return have names; others
/// are numbers.
pub fn errno_name(number: u32) -> String {
    let name = match number as i32 {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::EINTR => "EINTR",
        libc::E2BIG => "E2BIG",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::EINVAL => "EINVAL",
        libc::EMFILE => "EMFILE",
        libc::ENOSPC => "ENOSPC",
        libc::ENOSYS => "ENOSYS",
        libc::EUSERS => "EUSERS",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        _ => return format!("errno {number}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_names_and_unknown_ones_their_numbers() {
        assert_eq!(signal_name(libc::SIGKILL as u32), "SIGKILL");
        assert_eq!(signal_name(libc::SIGSYS as u32), "SIGSYS");
        assert_eq!(signal_name(libc::SIGRTMIN() as u32), "SIGRTMIN");
        assert_eq!(signal_name(37), "SIGRTMIN+3");
        assert_eq!(signal_name(65), "SIG65");
    }

    #[test]
    fn errors_have_their_names_and_unknown_ones_their_numbers() {
        assert_eq!(errno_name(libc::EPERM as u32), "EPERM");
        assert_eq!(errno_name(libc::ENOSPC as u32), "ENOSPC");
        assert_eq!(errno_name(libc::EOPNOTSUPP as u32), "EOPNOTSUPP");
        assert_eq!(errno_name(libc::EPIPE as u32), "errno 32");
    }
}
