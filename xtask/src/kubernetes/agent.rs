//! The manifests of the agent on each node.

use serde_json::{Value, json};

use super::{
    choice::{Choice, EXPRESSION, Form, without_absent},
    metadata::{NAME, labels, metadata},
    web,
};

const PORT: u16 = 10978;

/// The choices that the chart offers for the agent.
pub(super) fn choices() -> Vec<Choice> {
    vec![
        Choice {
            path: "image",
            default: json!(concat!("pidns-trace:", env!("CARGO_PKG_VERSION"))),
            comment: "The image, as packaging/image/Dockerfile makes it: from a registry that your nodes reach.",
        },
        Choice {
            path: "imagePullPolicy",
            default: json!(""),
            comment: "When a node pulls the image: Always, IfNotPresent or Never. If empty, Kubernetes decides by the tag.",
        },
        Choice {
            path: "imagePullSecrets",
            default: json!([]),
            comment: "Secrets with passwords of the registry, as [{name: NAME}].",
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
            comment: "Measured (docs/agent.md): 22 to 25 MiB with 1,000 namespaces, 42 MiB with 10,000; below 1 % of a CPU in a storm of \
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
        Choice { path: "affinity", default: json!({}), comment: "On nodes that match these rules." },
        Choice {
            path: "priorityClassName",
            default: json!(""),
            comment: "Which pods a full node evicts first. `system-node-critical` keeps the agent the longest.",
        },
        Choice { path: "podAnnotations", default: json!({}), comment: "Annotations of each pod." },
        Choice {
            path: "seLinuxOptions",
            default: json!({}),
            comment: "On nodes with SELinux: `{type: spc_t}`, which allows access to /proc of other pods and to the runtimes' folders.",
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
            comment: "Where containerd and CRI-O keep the state that tells names of containers. They are mounted to be read. `path` is \
                      where the program looks (docs/install.md lists all folders); `hostPath` is where the node has the \
                      folder, if that is another place.",
        },
    ]
}

/// A volume for a directory of the node. An unmount on the node reaches the pod, so that the pod keeps no container's
/// file system mounted.
fn folder(path: &str) -> Value {
    json!({"name": path.trim_start_matches('/').replace(['/', '.'], "-"), "path": path})
}

pub(super) fn namespace() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAME,
            // Of the pod security standards, only `privileged` allows the host's PID namespace and its directories.
            "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
        },
    })
}

pub(super) fn service_account(form: Form) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(form, NAME),
        // The agent does not use the Kubernetes API.
        "automountServiceAccountToken": false,
    })
}

pub(super) fn daemon_set(form: Form) -> Value {
    let choices = choices();
    let chosen = |path: &str| {
        choices.iter().find(|choice| choice.path == path).map_or(Value::Null, |choice| form.of(choice))
    };
    let if_set = |path: &str| {
        choices.iter().find(|choice| choice.path == path).map_or(Value::Null, |choice| form.if_set(choice))
    };
    let (mounts, volumes) = folders(form, &choices);
    let probe = |path: &str, more: Value| {
        let mut probe = json!({"httpGet": web::request(form, path), "timeoutSeconds": 3});
        if let (Value::Object(probe), Value::Object(more)) = (&mut probe, more) {
            probe.extend(more);
        }
        probe
    };
    without_absent(json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(form, NAME),
        "spec": {
            "selector": {"matchLabels": labels()},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {
                "metadata": {"labels": labels(), "annotations": if_set("podAnnotations")},
                "spec": {
                    "hostPID": true,
                    "serviceAccountName": NAME,
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 10,
                    "nodeSelector": chosen("nodeSelector"),
                    "tolerations": chosen("tolerations"),
                    "affinity": if_set("affinity"),
                    "priorityClassName": if_set("priorityClassName"),
                    "imagePullSecrets": if_set("imagePullSecrets"),
                    "containers": [{
                        "name": "agent",
                        "image": chosen("image"),
                        "imagePullPolicy": if_set("imagePullPolicy"),
                        "args": web::args(form, chosen("args")),
                        "ports": [{"name": "metrics", "containerPort": PORT, "protocol": "TCP"}],
                        "resources": chosen("resources"),
                        "securityContext": security(if_set("seLinuxOptions")),
                        // The agent is ready after the first snapshot.
                        "startupProbe": probe("/readyz", json!({"periodSeconds": 2, "failureThreshold": 60})),
                        "readinessProbe": probe("/readyz", json!({"periodSeconds": 15})),
                        "livenessProbe": probe("/healthz", json!({"periodSeconds": 15, "failureThreshold": 4})),
                        "volumeMounts": mounts,
                    }],
                    "volumes": volumes,
                },
            },
        },
    }))
}

/// The agent gets only the four capabilities. It installs its own filter of system calls, which is narrower: some
/// versions of the runtimes' filters refuse bpf(). AppArmor's default profile would block /proc of other pods.
/// On nodes without SELinux there is no type to name, so its options are a choice.
fn security(se_linux: Value) -> Value {
    json!({
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "runAsUser": 0,
        "capabilities": {"drop": ["ALL"], "add": ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"]},
        "seccompProfile": {"type": "Unconfined"},
        "appArmorProfile": {"type": "Unconfined"},
        "seLinuxOptions": se_linux,
    })
}

/// The mounts and the volumes of the directories. In the chart they are loops.
fn folders(form: Form, choices: &[Choice]) -> (Value, Value) {
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true, "mountPropagation": "HostToContainer"});
    let volume = |name: &str, path: &str| json!({"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}});
    if form == Form::Chart {
        // The program knows only the usual places, so a folder is mounted there wherever the node has it.
        let [web_mount, web_volume] = web::mount_and_volume();
        let each = |entry: Value, path: &str, more: &str| {
            let entry = entry.to_string();
            // Keep the closing braces of `{"a":{}}` apart from those of an expression.
            let entry = entry
                .replace("\"NAME\"", "{{ toJson .name }}")
                .replace("\"PATH\"", &format!("{{{{ toJson {path} }}}} "));
            json!(format!("{EXPRESSION}[{{{{ range .Values.stateFolders }}}}{entry},{{{{ end }}}}{more}]"))
        };
        return (
            each(mount("NAME", "PATH"), ".path", &web_mount),
            each(volume("NAME", "PATH"), "(or .hostPath .path)", &web_volume),
        );
    }
    let default = choices.iter().find(|choice| choice.path == "stateFolders").map(|choice| &choice.default);
    let of = |make: &dyn Fn(&str, &str) -> Value| -> Value {
        let folders = default.and_then(Value::as_array).into_iter().flatten();
        let text = |folder: &Value, field: &str| folder[field].as_str().unwrap_or_default().to_owned();
        folders.map(|folder| make(&text(folder, "name"), &text(folder, "path"))).collect()
    };
    (of(&mount), of(&volume))
}
