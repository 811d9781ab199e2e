//! Runs real servers for the tests and tools of pidns-trace (Prometheus, also in agent mode, Alertmanager,
//! VictoriaMetrics and vmalert), and reads the Grafana dashboards whose queries they answer.
//!
//! ```no_run
//! use std::{path::Path, time::Duration};
//! use pidns_monitoring::{Job, Prometheus, Setup};
//!
//! let folder = Path::new("target/prometheus");
//! let jobs = vec![Job::new("pidns-trace", ["127.0.0.1:10978"])];
//! let prometheus = Prometheus::start(&Setup { jobs, ..Setup::in_folder(folder) })?;
//! prometheus.wait_for("up == 1", Duration::from_secs(10))?;
//! println!("{:?}", prometheus.query("pidns_namespaces", None)?);
//! # Ok::<(), pidns_monitoring::Error>(())
//! ```

pub mod alertmanager;
pub mod client;
pub mod dashboard;
pub mod error;
mod http;
mod process;
mod samples;
pub mod server;
pub mod victoria;
pub mod webhook;

pub use alertmanager::Alertmanager;
pub use client::{Client, Range, Series};
pub use dashboard::{Dashboard, Panel, Target, Variables};
pub use error::Error;
pub use server::{Job, Prometheus, PrometheusAgent, Setup};
pub use victoria::{Rules, VictoriaMetrics, Vmalert};
pub use webhook::{Notification, Webhook};
