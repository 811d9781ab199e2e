//! Notes when the cause of each alert exists, and waits for alerts.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pidns_monitoring::{Notification, Prometheus, Series, Webhook};

use crate::actor_handle::patience;
use crate::agent::Node;

/// The time limit for an alert to fire, in seconds.
const IN_TIME: u64 = 60;

/// An alert, and the time of its cause.
pub(crate) struct Situation {
    pub(crate) alert: &'static str,
    pub(crate) severity: &'static str,
    /// The instances for which it must fire. All nodes see the same kernel.
    pub(crate) instances: Vec<String>,
    /// Further labels that it must have, with their values.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// Start and end of the cause: Unix times in seconds.
    pub(crate) since: f64,
    pub(crate) until: f64,
}

pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

impl Situation {
    /// A query for the alert's series in one state: `pending` or `firing`.
    pub(crate) fn query(&self, state: &str) -> String {
        let Self { alert, severity, .. } = self;
        format!("ALERTS{{alertname=\"{alert}\", severity=\"{severity}\", alertstate=\"{state}\"}}")
    }

    /// Whether this series has the alert's name and severity.
    pub(crate) fn names(&self, series: &Series) -> bool {
        series.label("alertname") == self.alert && series.label("severity") == self.severity
    }

    /// Whether a series of the alert is about this situation.
    pub(crate) fn is_of(&self, series: &Series) -> bool {
        self.labels.iter().all(|(name, value)| series.label(name) == value)
            && self.instances.iter().any(|instance| series.label("instance") == instance)
    }

    /// Whether the notification is about this alert on that node.
    pub(crate) fn is_notified_by(&self, notification: &Notification, instance: &str) -> bool {
        let has = |name: &str, value: &str| notification.labels.get(name).is_some_and(|label| label == value);
        has("alertname", self.alert)
            && has("severity", self.severity)
            && has("instance", instance)
            && self.labels.iter().all(|(name, value)| has(name, value))
    }

    /// Limits the alert to this node.
    pub(crate) fn on(&mut self, node: &Node) -> &mut Self {
        self.instances = vec![node.instance()];
        self
    }

    pub(crate) fn with(&mut self, label: &'static str, value: impl Into<String>) -> &mut Self {
        self.labels.push((label, value.into()));
        self
    }
}

/// Starts situations, waits for their alerts, and notes the times.
pub(crate) struct AlertTracker<'a> {
    pub(crate) prometheus: &'a Prometheus,
    pub(crate) webhook: &'a Webhook,
    /// The instances of all nodes.
    pub(crate) everywhere: Vec<String>,
    pub(crate) situations: Vec<Situation>,
}

impl AlertTracker<'_> {
    /// Notes that this alert must fire from now on, by default on all nodes.
    pub(crate) fn begin(&mut self, alert: &'static str, severity: &'static str) -> &mut Situation {
        self.situations.push(Situation {
            alert,
            severity,
            instances: self.everywhere.clone(),
            labels: Vec::new(),
            since: now(),
            until: f64::INFINITY,
        });
        self.situations.last_mut().expect("a situation was just added")
    }

    /// Whether all current situations of this alert fire and have arrived at the webhook. Alertmanager does not
    /// report an alert that is resolved before it was sent.
    fn has_arrived(&self, alert: &str) -> bool {
        let goes_on = |one: &&Situation| one.alert == alert && one.until.is_infinite();
        let mut all = self.situations.iter().filter(goes_on);
        let received = self.webhook.received();
        all.all(|one| {
            let is_there =
                |instance: &String| received.iter().any(|alert| one.is_notified_by(alert, instance));
            let series = self.ask(&one.query("firing"));
            series.iter().filter(|series| one.is_of(series)).count() >= one.instances.len()
                && one.instances.iter().all(is_there)
        })
    }

    /// Waits until all situations of this alert have arrived, and calls `meanwhile` in between. After the time limit
    /// it returns too: the test of the alert then finds it missing.
    pub(crate) fn await_firing(&self, alert: &str, mut meanwhile: impl FnMut()) {
        wait_until(|| {
            meanwhile();
            self.has_arrived(alert)
        });
    }

    fn ask(&self, query: &str) -> Vec<Series> {
        self.prometheus.query(query, None).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The number of series of a query now.
    pub(crate) fn count(&self, query: &str) -> usize {
        self.ask(query).len()
    }

    /// Notes that the causes of this alert are gone.
    pub(crate) fn over(&mut self, alert: &str) {
        self.situations.iter_mut().filter(|one| one.alert == alert).for_each(|one| one.until = now());
    }

    /// Notes that all other causes are gone too.
    pub(crate) fn all_is_over(&mut self) {
        self.situations.iter_mut().for_each(|one| one.until = one.until.min(now()));
    }
}

/// Waits until the condition is true, or the time limit is reached.
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience(IN_TIME);
    while !condition() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(200));
    }
}
