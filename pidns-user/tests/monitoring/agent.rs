//! A node: a separate network with an agent in it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pidns_user::kernel::btf;

use crate::alert_tracker::wait_until;
use crate::network::Network;
use crate::{program, sys};

const PORT: u16 = 10978;

/// A node. Its agent is killed on drop.
pub(crate) struct Node {
    network: Network,
    folder: PathBuf,
    agent: Option<Child>,
}

impl Node {
    /// Makes a node with this number, and starts an agent. `args` are added to the common arguments.
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

    /// Starts the agent as if the kernel lacked this tracepoint. The agent finds tracepoints in the kernel's BTF. It
    /// runs in a separate mount namespace, where that file has another name for the tracepoint.
    pub(crate) fn start_agent_without(&mut self, tracepoint: &str, args: &[&str]) {
        let name = format!("btf_trace_{tracepoint}").into_bytes();
        let mut types = fs::read(btf::PATH).expect("read this kernel's BTF");
        let place = types
            .windows(name.len())
            .position(|window| window == name)
            .expect("the kernel has this tracepoint");
        types[place..place + name.len()].fill(b'_');
        let file = self.folder.join("vmlinux.btf");
        fs::write(&file, types).expect("write the changed BTF");
        let mut command = self.network.enter("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\""]);
        command.arg(file).arg(btf::PATH).arg(program::path());
        self.spawn(command, args);
    }

    fn spawn(&mut self, mut command: Command, args: &[&str]) {
        assert!(self.agent.is_none(), "a node has one agent");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("open the log");
        command
            .args(["agent", "--syscall-hooks", "--snapshot-interval", "1s"])
            .args(["--web.listen-address", &self.instance()])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // SAFETY: between fork and exec the closure makes one system call, which takes integers.
        unsafe { command.pre_exec(sys::die_with_parent) };
        self.agent = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join(format!("agent-{}.log", self.network.address))
    }

    /// Panics if the agent has ended.
    pub(crate) fn expect_running(&mut self) {
        let agent = self.agent.as_mut().expect("the node has an agent");
        let ended = agent.try_wait().expect("wait for the agent");
        assert!(ended.is_none(), "an agent ended ({ended:?}); its log:\n{}", self.log());
    }

    /// The log of its agents.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).expect("read the log")
    }

    fn pid(&self) -> sys::Pid {
        self.agent.as_ref().expect("the node has an agent").id() as sys::Pid
    }

    /// Stops the agent while `act` runs. `act` must be shorter than a scrape may take, or the agent counts as down.
    pub(crate) fn while_stopped(&self, act: impl FnOnce()) {
        sys::kill(self.pid(), libc::SIGSTOP).expect("stop the agent");
        act();
        sys::kill(self.pid(), libc::SIGCONT).expect("continue the agent");
    }

    /// Kills the agent.
    pub(crate) fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // If it has ended already, it is only reaped.
            let _ended_already = agent.kill();
            agent.wait().expect("wait for the agent");
        }
    }

    /// Waits until the agent answers scrapes.
    pub(crate) fn wait_until_ready(&mut self) {
        wait_until(|| {
            self.expect_running();
            self.is_ready()
        });
        assert!(self.is_ready(), "the agent is not ready; its log:\n{}", self.log());
    }

    fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    }

    fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.instance())?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Scrapes the agent, and returns the metrics.
    pub(crate) fn scrape(&self) -> String {
        let answer = self.get("/metrics").unwrap_or_else(|error| panic!("{}: {error}", self.instance()));
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer with headers");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        body.to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_agent();
    }
}
