//! A node: a network of its own, and an agent in it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pidns_user::kernel::btf;

use crate::network::Network;
use crate::{program, sys};

const PORT: u16 = 10978;

/// A node. Its agent is killed when this is dropped.
pub(crate) struct Node {
    network: Network,
    folder: PathBuf,
    agent: Option<Child>,
}

impl Node {
    /// A node with this number, and an agent with these arguments besides those that all have.
    pub(crate) fn start(number: u8, folder: &Path, args: &[&str]) -> Self {
        let mut node = Self { network: Network::make(number), folder: folder.to_owned(), agent: None };
        node.start_agent(args);
        node
    }

    /// HOST:PORT, which is the label `instance`.
    pub(crate) fn instance(&self) -> String {
        format!("{}:{PORT}", self.network.address)
    }

    pub(crate) fn start_agent(&mut self, args: &[&str]) {
        let command = self.network.enter(program::path());
        self.spawn(command, args);
    }

    /// Starts the agent as on a kernel that has no tracepoint of this name: in a mount namespace of its own, where the
    /// kernel's type information, by which the agent finds tracepoints, calls it otherwise.
    pub(crate) fn start_agent_without(&mut self, tracepoint: &str, args: &[&str]) {
        let name = format!("btf_trace_{tracepoint}").into_bytes();
        let mut types = fs::read(btf::PATH).expect("this kernel's BTF can be read");
        let place = types.windows(name.len()).position(|window| window == name).expect("it is there");
        types[place..place + name.len()].fill(b'_');
        let file = self.folder.join("vmlinux.btf");
        fs::write(&file, types).expect("a file can be written");
        let mut command = self.network.enter("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\""]);
        command.arg(file).arg(btf::PATH).arg(program::path());
        self.spawn(command, args);
    }

    fn spawn(&mut self, mut command: Command, args: &[&str]) {
        assert!(self.agent.is_none(), "a node has one agent");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log");
        command
            .args(["agent", "--syscall-hooks", "--snapshot-interval", "1s"])
            .args(["--web.listen-address", &self.instance()])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // SAFETY: between fork and exec it makes one system call, which takes integers.
        unsafe { command.pre_exec(sys::die_with_parent) };
        self.agent = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join(format!("agent-{}.log", self.network.address))
    }

    /// Panics if the agent has ended.
    pub(crate) fn expect_running(&mut self) {
        let agent = self.agent.as_mut().expect("it has an agent");
        let ended = agent.try_wait().expect("a child can be waited for");
        assert!(ended.is_none(), "an agent ended ({ended:?}); its log:\n{}", self.log());
    }

    /// What its agents have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).expect("a log")
    }

    fn pid(&self) -> sys::Pid {
        self.agent.as_ref().expect("it has an agent").id() as sys::Pid
    }

    /// Stops the agent, lets something happen, and lets the agent go on. It may take shorter than a scrape may, or the agent
    /// counts as down.
    pub(crate) fn while_stopped(&self, act: impl FnOnce()) {
        sys::kill(self.pid(), libc::SIGSTOP).expect("the agent is there");
        act();
        sys::kill(self.pid(), libc::SIGCONT).expect("the agent is there");
    }

    /// Kills the agent.
    pub(crate) fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // One that has ended by itself is reaped all the same.
            let _ended_already = agent.kill();
            agent.wait().expect("a child can be waited for");
        }
    }

    /// What it answers to a scrape.
    pub(crate) fn scrape(&self) -> String {
        let ask = || -> io::Result<String> {
            let mut stream = TcpStream::connect(self.instance())?;
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().unwrap_or_else(|error| panic!("{}: {error}", self.instance()));
        let (head, body) = answer.split_once("\r\n\r\n").expect("headers");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        body.to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_agent();
    }
}
