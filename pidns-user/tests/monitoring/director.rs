//! When the cause of which alert is there, and waiting for alerts.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pidns_monitoring::{Notification, Prometheus, Series, Webhook};

use crate::agent::Node;
use crate::stage::patience;

/// How long an alert may take to fire, in seconds.
const IN_TIME: u64 = 60;

/// An alert, and when its cause was there.
pub(crate) struct Situation {
    pub(crate) alert: &'static str,
    pub(crate) severity: &'static str,
    /// Where it is to fire. All nodes see the same kernel.
    pub(crate) instances: Vec<String>,
    /// Labels that it has besides, and their values.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// From when to when its cause was there: Unix times in seconds.
    pub(crate) since: f64,
    pub(crate) until: f64,
}

pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

impl Situation {
    /// The query for the alert's series, in one of its states: `pending`, `firing`.
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

    /// Whether the notification is of this alert on that node.
    pub(crate) fn is_notified_by(&self, notification: &Notification, instance: &str) -> bool {
        let has = |name: &str, value: &str| notification.labels.get(name).is_some_and(|label| label == value);
        has("alertname", self.alert)
            && has("severity", self.severity)
            && has("instance", instance)
            && self.labels.iter().all(|(name, value)| has(name, value))
    }

    /// Only there.
    pub(crate) fn on(&mut self, node: &Node) -> &mut Self {
        self.instances = vec![node.instance()];
        self
    }

    pub(crate) fn with(&mut self, label: &'static str, value: impl Into<String>) -> &mut Self {
        self.labels.push((label, value.into()));
        self
    }
}

/// Begins situations, waits for their alerts, and notes when.
pub(crate) struct Director<'a> {
    pub(crate) prometheus: &'a Prometheus,
    pub(crate) webhook: &'a Webhook,
    /// All nodes.
    pub(crate) everywhere: Vec<String>,
    pub(crate) situations: Vec<Situation>,
}

impl Director<'_> {
    /// From now on this is to fire, in all places without another expectation.
    pub(crate) fn begin(&mut self, alert: &'static str, severity: &'static str) -> &mut Situation {
        self.situations.push(Situation {
            alert,
            severity,
            instances: self.everywhere.clone(),
            labels: Vec::new(),
            since: now(),
            until: f64::INFINITY,
        });
        self.situations.last_mut().expect("it was just put there")
    }

    /// Whether all that has begun of this alert, and is not over, fires, and has arrived at the webhook: Alertmanager does not report an alert
    /// that is resolved before it has passed it on.
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

    /// Waits until all has arrived that has begun of this alert, and acts in the meantime. What does not come in time is missed by
    /// the test that is about it.
    pub(crate) fn await_firing(&self, alert: &str, mut meanwhile: impl FnMut()) {
        wait_until(|| {
            meanwhile();
            self.has_arrived(alert)
        });
    }

    fn ask(&self, query: &str) -> Vec<Series> {
        self.prometheus.query(query, None).unwrap_or_else(|error| panic!("{error}"))
    }

    /// How many series a query has now.
    pub(crate) fn count(&self, query: &str) -> usize {
        self.ask(query).len()
    }

    /// The causes of this alert are gone.
    pub(crate) fn over(&mut self, alert: &str) {
        self.situations.iter_mut().filter(|one| one.alert == alert).for_each(|one| one.until = now());
    }

    /// The causes of all others are gone too.
    pub(crate) fn all_is_over(&mut self) {
        self.situations.iter_mut().for_each(|one| one.until = one.until.min(now()));
    }
}

/// Waits until something is so, or has not come in time.
pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience(IN_TIME);
    while !is_so() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(200));
    }
}
