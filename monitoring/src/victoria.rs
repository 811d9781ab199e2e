//! Starts a private VictoriaMetrics, which stores the samples that Prometheus sends, and a vmalert, which evaluates
//! rules on it.

use std::{
    fs,
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Client, Error, http,
    process::{Process, free_address, of_file},
};

/// Debian's package of both programs.
const PACKAGE: &str = "victoria-metrics";

/// A running VictoriaMetrics. Dereferences to its [`Client`]: it answers PromQL as Prometheus does. Stopped on drop or
/// when the thread that started it ends.
#[derive(Debug)]
pub struct VictoriaMetrics {
    process: Process,
    client: Client,
}

impl Deref for VictoriaMetrics {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl VictoriaMetrics {
    /// Starts VictoriaMetrics with these options on a free loopback port, and waits until it is ready. Data and log are
    /// written to `folder`.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Start`], [`Error::File`], and [`Error::EndedEarly`] or [`Error::NotReady`]
    /// with the end of its log.
    pub fn start(folder: &Path, options: &[String]) -> Result<Self, Error> {
        const PROGRAM: &str = "victoria-metrics";
        fs::create_dir_all(folder).map_err(of_file("create the directory", folder))?;
        let address = free_address().map_err(|error| Error::Start { program: PROGRAM, error })?;
        let mut arguments = options.to_vec();
        // If an option is given twice, the last one counts.
        arguments.extend([
            format!("-storageDataPath={}", folder.join("data").display()),
            format!("-httpListenAddr={address}"),
        ]);
        let log = folder.join("victoria-metrics.log");
        let mut process = Process::start_of(PACKAGE, PROGRAM, &arguments, &log)?;
        let client = Client::new(address);
        process.wait_until(|| matches!(client.is_ready(), Ok(true)))?;
        Ok(Self { process, client })
    }

    /// The URL to which Prometheus sends samples.
    pub fn write_url(&self) -> String {
        format!("http://{}/api/v1/write", self.address())
    }

    /// The process's PID.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// The rules of a vmalert.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// Rule files.
    pub files: Vec<PathBuf>,
    /// Other options, such as the address to which alerts are sent.
    pub options: &'a [String],
}

/// A running vmalert. Dereferences to its [`Client`], which reads the errors of its rules. Stopped like a
/// [`VictoriaMetrics`].
#[derive(Debug)]
pub struct Vmalert {
    _process: Process,
    client: Client,
}

impl Deref for Vmalert {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Vmalert {
    /// Starts a vmalert that evaluates rules on a VictoriaMetrics and writes the results back there, and waits until it
    /// answers. Its log is written to `folder`.
    ///
    /// # Errors
    /// The same as [`VictoriaMetrics::start`].
    pub fn start(folder: &Path, victoria: SocketAddr, rules: &Rules<'_>) -> Result<Self, Error> {
        const PROGRAM: &str = "vmalert";
        fs::create_dir_all(folder).map_err(of_file("create the directory", folder))?;
        let address = free_address().map_err(|error| Error::Start { program: PROGRAM, error })?;
        let mut arguments = rules.options.to_vec();
        arguments.extend(rules.files.iter().map(|file| format!("-rule={}", file.display())));
        arguments.extend(
            ["datasource", "remoteWrite", "remoteRead"]
                .map(|service| format!("-{service}.url=http://{victoria}")),
        );
        arguments.push(format!("-httpListenAddr={address}"));
        let mut process = Process::start_of(PACKAGE, PROGRAM, &arguments, &folder.join("vmalert.log"))?;
        let answers = || {
            let answer = http::get(address, "/health", Duration::from_secs(2));
            answer.is_ok_and(|response| response.status == 200)
        };
        process.wait_until(answers)?;
        Ok(Self { _process: process, client: Client::new(address) })
    }
}
