//! The agent on each node.

use serde_json::{Value, json};

use super::choice::{Choice, EXPRESSION, Form};

pub(super) const NAME: &str = "pidns-trace";
const PORT: u16 = 10978;

/// What the chart lets its user choose of the agent.
pub(super) fn choices() -> Vec<Choice> {
    vec![
        Choice {
            path: "image",
            default: json!(concat!("pidns-trace:", env!("CARGO_PKG_VERSION"))),
            comment: "The image, as packaging/image/Dockerfile makes it: from a registry that your nodes reach.",
        },
        Choice {
            path: "args",
            default: json!(["agent", "--web.listen-address=:10978", "--log-format=json"]),
            comment: "Options of the agent: `pidns-trace agent --help` lists them.",
        },
        Choice {
            path: "resources",
            default: json!({
                "requests": {"cpu": "20m", "memory": "48Mi"},
                "limits": {"memory": "256Mi"},
            }),
            comment: "Measured (docs/agent.md): 22 to 24 MiB with 1,000 namespaces, 42 MiB with 10,000; below 1 % of a CPU in a storm of \
                      forks, 2 % with 20,000 processes. No limit of CPU: an agent that is kept waiting loses events.",
        },
        Choice {
            path: "tolerations",
            default: json!([{"operator": "Exists"}]),
            comment: "On every node, whatever its taints.",
        },
        Choice {
            path: "nodeSelector",
            default: json!({"kubernetes.io/os": "linux"}),
            comment: "On nodes with these labels.",
        },
        Choice {
            path: "stateFolders",
            default: Value::from(
                [
                    "/run/containerd/io.containerd.runtime.v2.task",
                    "/run/containerd/runc",
                    "/run/containers/storage",
                    "/var/lib/containers/storage",
                ]
                .map(folder)
                .to_vec(),
            ),
            comment: "Where containerd and CRI-O keep the state that tells names of containers. They are mounted to be read.",
        },
    ]
}

/// A folder of the node, as a volume. An unmount on the node reaches the pod, so that no container's file system is kept.
fn folder(path: &str) -> Value {
    json!({"name": path.trim_start_matches('/').replace(['/', '.'], "-"), "path": path})
}

fn labels() -> Value {
    json!({"app.kubernetes.io/name": NAME})
}

pub(super) fn namespace() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAME,
            // The host's PID namespace and its folders are what the pod security standards allow no other pod.
            "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
        },
    })
}

/// Metadata of what is in the namespace.
pub(super) fn metadata(form: Form, name: &str) -> Value {
    let namespace = match form {
        Form::Plain => json!(NAME),
        Form::Chart => json!(format!("{EXPRESSION}{{{{ .Release.Namespace }}}}")),
    };
    json!({"name": name, "namespace": namespace, "labels": labels()})
}

pub(super) fn service_account(form: Form) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(form, NAME),
        // The agent asks nothing of Kubernetes.
        "automountServiceAccountToken": false,
    })
}

pub(super) fn daemon_set(form: Form) -> Value {
    let choices = choices();
    let chosen = |path: &str| {
        choices.iter().find(|choice| choice.path == path).map_or(Value::Null, |choice| form.of(choice))
    };
    let (mounts, volumes) = folders(form, &choices);
    let probe = |path: &str, more: Value| {
        let mut probe = json!({"httpGet": {"path": path, "port": "metrics"}, "timeoutSeconds": 3});
        if let (Value::Object(probe), Value::Object(more)) = (&mut probe, more) {
            probe.extend(more);
        }
        probe
    };
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(form, NAME),
        "spec": {
            "selector": {"matchLabels": labels()},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {
                "metadata": {"labels": labels()},
                "spec": {
                    "hostPID": true,
                    "serviceAccountName": NAME,
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 10,
                    "nodeSelector": chosen("nodeSelector"),
                    "tolerations": chosen("tolerations"),
                    "containers": [{
                        "name": "agent",
                        "image": chosen("image"),
                        "args": chosen("args"),
                        "ports": [{"name": "metrics", "containerPort": PORT, "protocol": "TCP"}],
                        "resources": chosen("resources"),
                        "securityContext": security(),
                        // Ready after the first snapshot.
                        "startupProbe": probe("/readyz", json!({"periodSeconds": 2, "failureThreshold": 60})),
                        "readinessProbe": probe("/readyz", json!({"periodSeconds": 15})),
                        "livenessProbe": probe("/healthz", json!({"periodSeconds": 15, "failureThreshold": 4})),
                        "volumeMounts": mounts,
                    }],
                    "volumes": volumes,
                },
            },
        },
    })
}

/// The four capabilities, and nothing beside them. The agent takes a filter of system calls itself, and a narrower one; the
/// runtimes' own refuses bpf() in some versions, and AppArmor's default profile keeps it from /proc of other pods.
fn security() -> Value {
    json!({
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "runAsUser": 0,
        "capabilities": {"drop": ["ALL"], "add": ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"]},
        "seccompProfile": {"type": "Unconfined"},
        "appArmorProfile": {"type": "Unconfined"},
    })
}

/// The mounts and the volumes of the folders; in the chart, loops over them.
fn folders(form: Form, choices: &[Choice]) -> (Value, Value) {
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true, "mountPropagation": "HostToContainer"});
    let volume = |name: &str, path: &str| json!({"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}});
    if form == Form::Chart {
        let each = |entry: Value| {
            let entry = entry.to_string();
            // `{"a":{}}` and the braces of an expression must not meet.
            let entry =
                entry.replace("\"NAME\"", "{{ toJson .name }}").replace("\"PATH\"", "{{ toJson .path }} ");
            json!(format!("{EXPRESSION}[{{{{ range .Values.stateFolders }}}}{entry},{{{{ end }}}}]"))
        };
        return (each(mount("NAME", "PATH")), each(volume("NAME", "PATH")));
    }
    let default = choices.iter().find(|choice| choice.path == "stateFolders").map(|choice| &choice.default);
    let of = |make: &dyn Fn(&str, &str) -> Value| -> Value {
        let folders = default.and_then(Value::as_array).into_iter().flatten();
        let text = |folder: &Value, field: &str| folder[field].as_str().unwrap_or_default().to_owned();
        folders.map(|folder| make(&text(folder, "name"), &text(folder, "path"))).collect()
    };
    (of(&mount), of(&volume))
}
