//! The objects for Prometheus' operator and Grafana's sidecar.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    choice::{Choice, EXPRESSION, Form, without_absent},
    metadata,
};
use crate::dashboards;

/// The chart's values for these objects.
pub(super) fn choices() -> Vec<Choice> {
    vec![
        Choice {
            path: "prometheus.enabled",
            default: json!(true),
            comment: "PodMonitor and PrometheusRule. They need the CRDs of the Prometheus Operator.",
        },
        Choice {
            path: "prometheus.interval",
            default: json!("15s"),
            comment: "How often an agent is scraped.",
        },
        Choice {
            path: "prometheus.scheme",
            default: json!("http"),
            comment: "https if web.yml has a certificate.",
        },
        Choice {
            path: "prometheus.tlsConfig",
            default: json!({}),
            comment: "tlsConfig of the PodMonitor's endpoint: which authority signs the agents' certificate, and Prometheus' own.",
        },
        Choice {
            path: "prometheus.basicAuth",
            default: json!({}),
            comment: "basicAuth of the PodMonitor's endpoint: {username: {name: SECRET, key: KEY}, password: {name: SECRET, key: KEY}}.",
        },
        Choice {
            path: "prometheus.labels",
            default: json!({}),
            comment: "Labels by which your Prometheus selects PodMonitors and PrometheusRules.",
        },
        Choice {
            path: "dashboards.enabled",
            default: json!(true),
            comment: "ConfigMaps with dashboards, which Grafana's sidecar loads.",
        },
        Choice {
            path: "dashboards.label",
            default: json!("grafana_dashboard"),
            comment: "The label that the sidecar selects.",
        },
    ]
}

fn chosen(form: Form, path: &str) -> Value {
    choices().iter().find(|choice| choice.path == path).map_or(Value::Null, |choice| form.of(choice))
}

fn if_set(form: Form, path: &str) -> Value {
    choices().iter().find(|choice| choice.path == path).map_or(Value::Null, |choice| form.if_set(choice))
}

/// Metadata with the labels by which Prometheus selects objects.
fn selected(form: Form, name: &str) -> Value {
    let mut metadata = metadata::metadata(form, name);
    if form == Form::Chart {
        // Merge the fixed label and the chosen labels into one mapping.
        metadata["labels"] = json!(format!(
            "{EXPRESSION}{{\"app.kubernetes.io/name\": \"{}\"{{{{ range $name, $value := .Values.prometheus.labels }}}}, \
             {{{{ toJson $name }}}}: {{{{ toJson $value }}}}{{{{ end }}}} }}",
            metadata::NAME
        ));
    }
    metadata
}

pub(super) fn pod_monitor(form: Form) -> Value {
    without_absent(json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": selected(form, metadata::NAME),
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": metadata::NAME}},
            // The alerts select the job pidns-trace, which is the value of this label.
            "jobLabel": "app.kubernetes.io/name",
            "podMetricsEndpoints": [{
                "port": "metrics",
                "interval": chosen(form, "prometheus.interval"),
                "scheme": chosen(form, "prometheus.scheme"),
                "tlsConfig": if_set(form, "prometheus.tlsConfig"),
                "basicAuth": if_set(form, "prometheus.basicAuth"),
                // container, pod and namespace are labels of the observed container (dashboards/README.md).
                "honorLabels": true,
                "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "instance"}],
            }],
        },
    }))
}

pub(super) fn prometheus_rule(form: Form) -> Value {
    let groups = dashboards::rule_groups(&|text| form.literal(text));
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": selected(form, metadata::NAME),
        "spec": {"groups": groups},
    })
}

/// One ConfigMap for each dashboard. One for all would be too large for the annotation in which `kubectl apply` keeps a
/// copy of it.
pub(super) fn config_maps(form: Form) -> Result<Vec<(String, Value)>> {
    dashboards::board_texts()?
        .into_iter()
        .map(|(name, text)| {
            let mut metadata = metadata::metadata(form, &format!("{}-dashboard-{name}", metadata::NAME));
            match form {
                Form::Plain => metadata["labels"]["grafana_dashboard"] = json!("1"),
                Form::Chart => {
                    metadata["labels"] = json!(format!(
                        "{EXPRESSION}{{\"app.kubernetes.io/name\": \"{}\", {{{{ toJson .Values.dashboards.label }}}}: \"1\"}}",
                        metadata::NAME
                    ));
                }
            }
            let mut data = serde_json::Map::new();
            data.insert(format!("{name}.json"), json!(form.literal(&text)));
            Ok((
                format!("dashboard-{name}"),
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}),
            ))
        })
        .collect()
}
