//! Who can read the metrics: TLS and passwords of the agent, and which pods reach it.

use serde_json::{Value, json};

use super::{
    choice::{Choice, EXPRESSION, Form},
    metadata,
};

/// Where the pod has the files of the Secret, and the file that the agent reads.
const FOLDER: &str = "/etc/pidns-trace";
const CONFIG: &str = "/etc/pidns-trace/web.yml";
/// The name of the volume.
const VOLUME: &str = "web-config";

/// The choices that the chart offers for them. Those in a section follow those that are in none.
pub(super) fn choices() -> Vec<Choice> {
    vec![
        Choice {
            path: "webConfigSecret",
            default: json!(""),
            comment: "The name of a Secret with `web.yml` (docs/web.md), and the certificates and keys that it names. Then set the \
                      scheme of the probes and of Prometheus below, too.",
        },
        Choice {
            path: "probes.scheme",
            default: json!("HTTP"),
            comment: "HTTPS if web.yml has a certificate. The kubelet does not check it, and has no certificate of its own.",
        },
        Choice {
            path: "probes.httpHeaders",
            default: json!([]),
            comment: "If web.yml has passwords: [{name: Authorization, value: \"Basic …\"}], in base64. Everyone who can read the \
                      DaemonSet can read it.",
        },
        Choice {
            path: "networkPolicy.enabled",
            default: json!(false),
            comment: "A NetworkPolicy that lets only the sources below connect to the agents. Your network plugin must enforce it.",
        },
        Choice {
            path: "networkPolicy.from",
            default: json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]),
            comment: "The sources: the namespace of your Prometheus.",
        },
    ]
}

pub(super) fn chosen(form: Form, path: &str) -> Value {
    choices().iter().find(|choice| choice.path == path).map_or(Value::Null, |choice| form.of(choice))
}

/// The request of a probe.
pub(super) fn request(form: Form, path: &str) -> Value {
    let headers = choices().into_iter().find(|choice| choice.path == "probes.httpHeaders");
    json!({
        "path": path,
        "port": "metrics",
        "scheme": chosen(form, "probes.scheme"),
        "httpHeaders": headers.map_or(Value::Null, |choice| form.if_set(&choice)),
    })
}

/// The arguments of the agent. With a Secret the agent reads its file.
pub(super) fn args(form: Form, args: Value) -> Value {
    match form {
        Form::Plain => args,
        Form::Chart => {
            let given = "{{ range .Values.args }}{{ toJson . }},{{ end }}";
            json!(format!("{EXPRESSION}[{given}{}]", if_secret(&format!("\"--web.config.file={CONFIG}\""))))
        }
    }
}

/// The entries of the Secret's mount and volume, for the lists of them in the chart.
pub(super) fn mount_and_volume() -> [String; 2] {
    let mount = json!({"name": VOLUME, "mountPath": FOLDER, "readOnly": true});
    // Root in the pod owns the files.
    let secret = json!({"secretName": "NAME", "defaultMode": 0o400});
    let volume = json!({"name": VOLUME, "secret": secret}).to_string();
    // Keep the closing braces apart from those of an expression.
    let volume = volume.replace("\"NAME\"", "{{ toJson .Values.webConfigSecret }} ");
    [if_secret(&mount.to_string()), if_secret(&volume)]
}

fn if_secret(entry: &str) -> String {
    format!("{{{{ if .Values.webConfigSecret }}}}{entry},{{{{ end }}}}")
}

pub(super) fn network_policy(form: Form) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata::metadata(form, metadata::NAME),
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": metadata::NAME}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": chosen(form, "networkPolicy.from"),
                "ports": [{"port": "metrics", "protocol": "TCP"}],
            }],
        },
    })
}
