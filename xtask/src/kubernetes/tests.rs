//! The chart, rendered by gtmpl: Go's template language in Rust. helm itself is in no registry that the tests reach. The templates take
//! of that language only `.Values`, `.Release`, `if`, `range` with one and with two variables, and of helm's functions `toJson`.

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
        Value::Object(fields) => {
            gtmpl::Value::Object(fields.iter().map(|(key, value)| (key.clone(), value_of(value))).collect())
        }
        Value::Null => gtmpl::Value::Nil,
    }
}

fn read(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"))
}

/// The manifests that the chart makes of these values, by the names of their templates.
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
fn the_chart_with_its_defaults_is_the_plain_manifests() {
    let mut plain = plain();
    assert!(plain.remove("namespace.yaml").is_some(), "helm has the namespace made");
    let rendered = rendered(&defaults(), "pidns-trace");
    assert_eq!(rendered.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
    for (name, manifest) in &plain {
        assert_eq!(&rendered[name], manifest, "{name}");
    }
}

#[test]
fn values_of_the_chart_are_in_the_manifests() {
    let mut values = defaults();
    values["image"] = json!("registry.example/pidns-trace@sha256:0");
    values["resources"] = json!({"limits": {"memory": "1Gi"}});
    values["tolerations"] = json!([]);
    values["stateFolders"] = json!([{"name": "k3s", "path": "/run/k3s/containerd"}]);
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
    assert_eq!(pod["volumes"][0]["hostPath"]["path"], "/run/k3s/containerd");
    assert_eq!(agent["volumeMounts"][0]["mountPath"], "/run/k3s/containerd");
    let monitor = &rendered["podmonitor.yaml"];
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["interval"], "60s");
    assert_eq!(monitor["metadata"]["labels"]["release"], "kube-prometheus-stack");
    assert_eq!(monitor["metadata"]["labels"]["app.kubernetes.io/name"], "pidns-trace");
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
}

#[test]
fn rules_and_dashboards_are_those_of_the_repository() {
    let manifests = plain();
    let groups = manifests["prometheusrule.yaml"]["spec"]["groups"].as_array().expect("groups");
    let rules = |file: &str| {
        let path = files::packaging().with_file_name("dashboards").join(file);
        let text = std::fs::read_to_string(path).expect("it is committed");
        read(&text)["groups"].as_array().expect("groups").clone()
    };
    assert_eq!(groups, &[rules("rules.yml"), rules("alerts.yml")].concat());
    for name in ["fleet", "node", "namespace", "agent"] {
        let map = &manifests[&format!("dashboard-{name}.yaml")];
        let text = map["data"][format!("{name}.json")].as_str().expect("a dashboard");
        let path = files::packaging().with_file_name("dashboards").join(format!("{name}.json"));
        let committed = std::fs::read_to_string(path).expect("it is committed");
        let of = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert!(of(text) == of(&committed), "{name}");
        // What `kubectl apply` keeps in an annotation, and etcd in an object.
        assert!(text.len() < 250_000, "{name}: {} bytes", text.len());
    }
}

#[test]
fn braces_that_are_no_expression_pass_through_a_template() {
    let text = "{{ $labels.instance }} and {{instance}}: {} {{{}}} {a:{b:{}}} }}}";
    let literal = Form::Chart.literal(text);
    assert_eq!(gtmpl::template(&literal, 0).expect("a template"), text);
    assert_eq!(Form::Plain.literal(text), text);
}
