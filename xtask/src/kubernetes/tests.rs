//! Renders the chart with gtmpl, which is Go's template language in Rust, because helm itself is in no registry that
//! the tests reach. The templates use only `.Values`, `.Release`, `if`, `range` with one and with two variables, and
//! helm's function `toJson`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{chart, choice::Form, files};

/// Helm's toJson.
fn to_json(args: &[gtmpl::Value]) -> Result<gtmpl::Value, gtmpl::FuncError> {
    let value = args.first().ok_or_else(|| gtmpl::FuncError::AtLeastXArgs("toJson".to_owned(), 1))?;
    Ok(gtmpl::Value::from(json_of(value).to_string()))
}

fn json_of(value: &gtmpl::Value) -> Value {
    match value {
        gtmpl::Value::String(text) => json!(text),
        gtmpl::Value::Bool(is) => json!(is),
        gtmpl::Value::Number(number) => {
            number.as_i64().map_or_else(|| json!(number.as_f64()), |whole| json!(whole))
        }
        gtmpl::Value::Array(values) => values.iter().map(json_of).collect(),
        gtmpl::Value::Object(fields) | gtmpl::Value::Map(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), json_of(value))).collect())
        }
        _ => Value::Null,
    }
}

fn value_of(json: &Value) -> gtmpl::Value {
    match json {
        Value::String(text) => gtmpl::Value::from(text.clone()),
        Value::Bool(is) => gtmpl::Value::from(*is),
        Value::Number(number) => {
            gtmpl::Value::from(number.as_i64().expect("values.yaml has whole numbers only"))
        }
        Value::Array(values) => gtmpl::Value::Array(values.iter().map(value_of).collect()),
        // A map has no value for an absent key, as in Go. gtmpl's Object is an error there.
        Value::Object(fields) => {
            gtmpl::Value::Map(fields.iter().map(|(key, value)| (key.clone(), value_of(value))).collect())
        }
        Value::Null => gtmpl::Value::Nil,
    }
}

fn read(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"))
}

/// Renders the chart with these values. Returns the manifests by the names of their templates.
fn rendered(values: &Value, namespace: &str) -> BTreeMap<String, Value> {
    let context = value_of(&json!({"Values": values, "Release": {"Namespace": namespace}}));
    let mut found = BTreeMap::new();
    for file in files::make().expect("the source is consistent") {
        let Some(name) = file.path.strip_prefix("chart/templates/") else { continue };
        let mut template = gtmpl::Template::default();
        template.add_func("toJson", to_json);
        template.parse(&file.text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let text = template.render(&gtmpl::Context::from(context.clone()));
        let text = text.unwrap_or_else(|error| panic!("{name}: {error}"));
        if text.lines().any(|line| !line.is_empty() && !line.starts_with('#')) {
            found.insert(name.to_owned(), read(&text));
        }
    }
    found
}

fn plain() -> BTreeMap<String, Value> {
    let files = files::make().expect("the source is consistent");
    let manifests =
        files.iter().filter_map(|file| Some((file.path.strip_prefix("kubernetes/")?, &file.text)));
    manifests.map(|(name, text)| (name.to_owned(), read(text))).collect()
}

fn defaults() -> Value {
    read(&chart::values())
}

#[test]
fn the_committed_files_are_up_to_date() {
    files::check().expect("packaging/ is up to date");
}

#[test]
fn the_chart_with_defaults_renders_the_plain_manifests() {
    let mut plain = plain();
    assert!(
        plain.remove("namespace.yaml").is_some(),
        "the plain manifests have a namespace, which the chart leaves to helm"
    );
    let policy =
        plain.remove("networkpolicy.yaml").expect("who applies the plain manifests chooses this one");
    let mut values = defaults();
    assert!(!rendered(&values, "pidns-trace").contains_key("networkpolicy.yaml"));
    values["networkPolicy"]["enabled"] = json!(true);
    assert_eq!(rendered(&values, "pidns-trace")["networkpolicy.yaml"], policy);
    let rendered = rendered(&defaults(), "pidns-trace");
    assert_eq!(rendered.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
    for (name, manifest) in &plain {
        assert_eq!(&rendered[name], manifest, "{name}");
    }
}

#[test]
fn values_of_the_chart_reach_the_manifests() {
    let mut values = defaults();
    values["image"] = json!("registry.example/pidns-trace@sha256:0");
    values["resources"] = json!({"limits": {"memory": "1Gi"}});
    values["tolerations"] = json!([]);
    values["stateFolders"] = json!([{"name": "tasks", "path": "/run/tasks", "hostPath": "/run/k3s/tasks"}]);
    values["prometheus"]["interval"] = json!("60s");
    values["prometheus"]["labels"] = json!({"release": "kube-prometheus-stack"});
    values["dashboards"]["enabled"] = json!(false);
    let rendered = rendered(&values, "observability");
    assert!(!rendered.keys().any(|name| name.starts_with("dashboard-")), "{:?}", rendered.keys());

    let set = &rendered["daemonset.yaml"];
    assert_eq!(set["metadata"]["namespace"], "observability");
    let pod = &set["spec"]["template"]["spec"];
    let agent = &pod["containers"][0];
    assert_eq!(agent["image"], "registry.example/pidns-trace@sha256:0");
    assert_eq!(agent["resources"], json!({"limits": {"memory": "1Gi"}}));
    assert_eq!(pod["tolerations"], json!([]));
    assert_eq!(pod["volumes"][0]["hostPath"]["path"], "/run/k3s/tasks");
    assert_eq!(agent["volumeMounts"][0]["mountPath"], "/run/tasks");
    let monitor = &rendered["podmonitor.yaml"];
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["interval"], "60s");
    assert_eq!(monitor["metadata"]["labels"]["release"], "kube-prometheus-stack");
    assert_eq!(monitor["metadata"]["labels"]["app.kubernetes.io/name"], "pidns-trace");
}

#[test]
fn a_field_whose_value_is_empty_is_absent_and_is_there_if_it_is_set() {
    let annotations = json!({"team": "platform"});
    let secrets = json!([{"name": "registry"}]);
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}});
    let of_pod = "/spec/template/spec";
    for (value, set, place) in [
        ("imagePullPolicy", json!("Always"), "/containers/0/imagePullPolicy"),
        ("imagePullSecrets", secrets, "/imagePullSecrets"),
        ("affinity", affinity, "/affinity"),
        ("priorityClassName", json!("system-node-critical"), "/priorityClassName"),
        ("seLinuxOptions", json!({"type": "spc_t"}), "/containers/0/securityContext/seLinuxOptions"),
        ("podAnnotations", annotations, "/../metadata/annotations"),
    ] {
        let place = format!("{of_pod}{place}").replace("/spec/..", "");
        let mut values = defaults();
        assert!(values.get(value).is_some(), "values.yaml has no {value}");
        assert_eq!(rendered(&values, "x")["daemonset.yaml"].pointer(&place), None, "{place}");
        values[value] = set.clone();
        assert_eq!(rendered(&values, "x")["daemonset.yaml"].pointer(&place), Some(&set), "{place}");
    }
}

#[test]
fn tls_and_passwords_reach_the_agent_the_probes_and_prometheus() {
    let values = shown_values("webConfigSecret");
    let rendered = rendered(&values, "x");
    let pod = &rendered["daemonset.yaml"]["spec"]["template"]["spec"];
    let agent = &pod["containers"][0];
    let last = agent["args"].as_array().and_then(|args| args.last()).expect("arguments");
    assert_eq!(last, "--web.config.file=/etc/pidns-trace/web.yml");
    let volumes = pod["volumes"].as_array().expect("volumes");
    let secret = json!({"secretName": values["webConfigSecret"], "defaultMode": 0o400});
    assert_eq!(volumes.last(), Some(&json!({"name": "web-config", "secret": secret})));
    let mount = json!({"name": "web-config", "mountPath": "/etc/pidns-trace", "readOnly": true});
    assert_eq!(agent["volumeMounts"].as_array().expect("mounts").last(), Some(&mount));
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let get = &agent[probe]["httpGet"];
        assert_eq!((&get["scheme"], &get["port"]), (&json!("HTTPS"), &json!("metrics")), "{probe}");
        assert_eq!(get["httpHeaders"], values["probes"]["httpHeaders"], "{probe}");
        assert!(get["httpHeaders"][0]["value"].as_str().is_some_and(|value| value.starts_with("Basic ")));
    }
    let endpoint = &rendered["podmonitor.yaml"]["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["scheme"], "https");
    for field in ["tlsConfig", "basicAuth"] {
        assert!(endpoint[field].is_object(), "{field}: {endpoint:#}");
        assert_eq!(endpoint[field], values["prometheus"][field]);
    }
}

/// A page of docs/.
fn page(name: &str) -> String {
    let path = files::packaging().with_file_name("docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The values that docs/kubernetes.md shows in YAML and that set this one.
fn shown_values(key: &str) -> Value {
    let page = page("kubernetes.md");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let shown = blocks.map(read).find(|values| values.get(key).is_some());
    let shown = shown.unwrap_or_else(|| panic!("docs/kubernetes.md shows no {key}"));
    let mut values = defaults();
    for (key, value) in shown.as_object().expect("a mapping") {
        let known = values.get(key).is_some();
        assert!(known, "docs/kubernetes.md shows {key}, which is no value of the chart");
        match (&mut values[key], value) {
            // A section keeps its other values, as with helm.
            (Value::Object(section), Value::Object(shown)) => section.extend(shown.clone()),
            (place, value) => *place = value.clone(),
        }
    }
    values
}

#[test]
fn the_memory_in_values_yaml_is_the_measured_one() {
    let values = chart::values();
    let (_, figure) = values.split_once("(docs/agent.md): ").expect("a comment names the page");
    let (figure, _) = figure.split_once(" with 1,000").expect("a figure");
    let row = format!("| memory with these | {figure};");
    assert!(page("agent.md").contains(&row), "docs/agent.md has no row {row}");
}

#[test]
fn folders_are_mounted_where_the_program_looks() {
    // The test of the image reads the same table, and runs the program with these mounts.
    let install = page("install.md");
    let first_cells = install.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let known: Vec<&str> = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let k3s = rendered(&shown_values("stateFolders"), "pidns-trace");
    for (what, set) in
        [("default", &plain()["daemonset.yaml"]), ("docs/kubernetes.md", &k3s["daemonset.yaml"])]
    {
        let pod = &set["spec"]["template"]["spec"];
        let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
        for mount in mounts {
            let path = mount["mountPath"].as_str().expect("a path");
            assert!(known.contains(&path), "{what}: nothing reads {path}, only {known:?}");
            let volumes = pod["volumes"].as_array().expect("volumes");
            assert!(
                volumes.iter().any(|volume| volume["name"] == mount["name"]),
                "{what}: {path} has no volume"
            );
        }
    }
    let pod = &k3s["daemonset.yaml"]["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][0]["hostPath"]["path"], "/run/k3s/containerd/io.containerd.runtime.v2.task");
}

#[test]
fn the_agent_has_the_four_capabilities_and_is_not_privileged() {
    let manifests = plain();
    let pod = &manifests["daemonset.yaml"]["spec"]["template"]["spec"];
    assert_eq!(pod["hostPID"], true);
    assert!(pod.get("hostNetwork").is_none() && pod.get("hostIPC").is_none(), "{pod:#}");
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    let capabilities = json!({"drop": ["ALL"], "add": ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"]});
    assert_eq!(security["capabilities"], capabilities);
    let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
    assert!(mounts.len() == 4 && mounts.iter().all(|mount| mount["readOnly"] == true), "{mounts:#?}");
    // The API refuses recursiveReadOnly with it, so docs/kubernetes.md states what stays writable.
    assert!(mounts.iter().all(|mount| mount["mountPropagation"] == "HostToContainer"), "{mounts:#?}");
}

#[test]
fn rules_and_dashboards_match_the_committed_files() {
    let manifests = plain();
    let groups = manifests["prometheusrule.yaml"]["spec"]["groups"].as_array().expect("groups");
    let rules = |file: &str| {
        let path = files::packaging().with_file_name("dashboards").join(file);
        let text = std::fs::read_to_string(path).expect("read the committed rules");
        read(&text)["groups"].as_array().expect("groups").clone()
    };
    assert_eq!(groups, &[rules("rules.yml"), rules("alerts.yml")].concat());
    for name in ["fleet", "node", "namespace", "agent"] {
        let map = &manifests[&format!("dashboard-{name}.yaml")];
        let text = map["data"][format!("{name}.json")].as_str().expect("a dashboard");
        let path = files::packaging().with_file_name("dashboards").join(format!("{name}.json"));
        let committed = std::fs::read_to_string(path).expect("read the committed dashboard");
        let of = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert!(of(text) == of(&committed), "{name}");
        // Limits of the annotation of `kubectl apply`, and of an object in etcd.
        assert!(text.len() < 250_000, "{name}: {} bytes", text.len());
    }
}

#[test]
fn braces_of_literals_pass_through_a_template() {
    let text = "{{ $labels.instance }} and {{instance}}: {} {{{}}} {a:{b:{}}} }}}";
    let literal = Form::Chart.literal(text);
    assert_eq!(gtmpl::template(&literal, 0).expect("a template"), text);
    assert_eq!(Form::Plain.literal(text), text);
}
