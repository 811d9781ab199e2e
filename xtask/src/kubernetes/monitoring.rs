//! What Prometheus' operator and Grafana's sidecar take.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    agent,
    choice::{Choice, EXPRESSION, Form},
};
use crate::dashboards;

/// What the chart lets its user choose of these.
pub(super) fn choices() -> Vec<Choice> {
    vec![
        Choice {
            path: "prometheus.enabled",
            default: json!(true),
            comment: "PodMonitor and PrometheusRule, which take the resource types of Prometheus' operator.",
        },
        Choice {
            path: "prometheus.interval",
            default: json!("15s"),
            comment: "How often an agent is scraped.",
        },
        Choice {
            path: "prometheus.labels",
            default: json!({}),
            comment: "Labels that your Prometheus selects PodMonitors and PrometheusRules by.",
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

/// Metadata with the labels that Prometheus selects by.
fn selected(form: Form, name: &str) -> Value {
    let mut metadata = agent::metadata(form, name);
    if form == Form::Chart {
        // One mapping of both.
        metadata["labels"] = json!(format!(
            "{EXPRESSION}{{\"app.kubernetes.io/name\": \"{}\"{{{{ range $name, $value := .Values.prometheus.labels }}}}, \
             {{{{ toJson $name }}}}: {{{{ toJson $value }}}}{{{{ end }}}} }}",
            agent::NAME
        ));
    }
    metadata
}

pub(super) fn pod_monitor(form: Form) -> Value {
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": selected(form, agent::NAME),
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": agent::NAME}},
            // The alerts select the job pidns-trace, which is the value of this label.
            "jobLabel": "app.kubernetes.io/name",
            "podMetricsEndpoints": [{
                "port": "metrics",
                "interval": chosen(form, "prometheus.interval"),
                // container, pod and namespace are those of the observed container (dashboards/README.md).
                "honorLabels": true,
                "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "instance"}],
            }],
        },
    })
}

pub(super) fn prometheus_rule(form: Form) -> Value {
    let groups = dashboards::rule_groups(&|text| form.literal(text));
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": selected(form, agent::NAME),
        "spec": {"groups": groups},
    })
}

/// A ConfigMap for each dashboard: together they would be too large for what `kubectl apply` keeps of them.
pub(super) fn config_maps(form: Form) -> Result<Vec<(String, Value)>> {
    dashboards::board_texts()?
        .into_iter()
        .map(|(name, text)| {
            let mut metadata = agent::metadata(form, &format!("{}-dashboard-{name}", agent::NAME));
            match form {
                Form::Plain => metadata["labels"]["grafana_dashboard"] = json!("1"),
                Form::Chart => {
                    metadata["labels"] = json!(format!(
                        "{EXPRESSION}{{\"app.kubernetes.io/name\": \"{}\", {{{{ toJson .Values.dashboards.label }}}}: \"1\"}}",
                        agent::NAME
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
