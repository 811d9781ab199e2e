//! Starts a private Alertmanager that passes all alerts on to one webhook.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use crate::{
    Error, http,
    process::{Process, free_address, of_file},
};

/// A running Alertmanager. Stopped on drop, or when the thread that started it ends.
#[derive(Debug)]
pub struct Alertmanager {
    /// Held so that the process is stopped on drop.
    _process: Process,
    address: SocketAddr,
}

impl Alertmanager {
    /// Starts an Alertmanager that joins no cluster, and returns when it is ready. It listens on a free port of the
    /// loopback interface. Configuration, data and log go to `folder`. It groups alerts as dashboards/README.md recommends, and waits a
    /// second before it sends a group.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Start`], [`Error::File`], and [`Error::EndedEarly`] or [`Error::NotReady`]
    /// with the end of its log.
    pub fn start(folder: &Path, webhook: SocketAddr) -> Result<Self, Error> {
        const PROGRAM: &str = "prometheus-alertmanager";
        fs::create_dir_all(folder).map_err(of_file("create the directory", folder))?;
        let file = folder.join("alertmanager.yml");
        fs::write(&file, configuration(webhook)).map_err(of_file("write", &file))?;
        let address = free_address().map_err(|error| Error::Start { program: PROGRAM, error })?;
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.path={}", folder.join("alertmanager").display()),
            format!("--web.listen-address={address}"),
            "--cluster.listen-address=".to_owned(),
        ];
        let mut process = Process::start(PROGRAM, &arguments, &folder.join("alertmanager.log"))?;
        let is_ready = || {
            let answer = http::get(address, "/-/ready", Duration::from_secs(2));
            answer.is_ok_and(|response| response.status == 200)
        };
        process.wait_until(is_ready)?;
        Ok(Self { _process: process, address })
    }

    /// The address that takes alerts.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The text of alertmanager.yml.
fn configuration(webhook: SocketAddr) -> String {
    format!(
        "route:\n  receiver: webhook\n  group_by: [alertname, instance]\n  group_wait: 1s\n  group_interval: 1s\n  \
         repeat_interval: 1h\nreceivers:\n  - name: webhook\n    webhook_configs:\n      - url: http://{webhook}/\n        \
         send_resolved: true\n"
    )
}
