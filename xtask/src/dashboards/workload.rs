//! Adds the names of workloads to PromQL queries, from the labels of `pidns_namespace_info`.

/// Adds the labels of the namespaces to the query's series, and a label `workload`: Kubernetes namespace, pod and
/// container, joined by slashes. Missing parts are left out. Without any it is "no container".
pub(crate) fn named(query: &str) -> String {
    let joined = format!(
        "({query}) * on (job, instance, pidns) group_left (namespace, pod, container) pidns_namespace_info{{@}}"
    );
    let words = format!(r#"label_join({joined}, "workload", "/", "namespace", "pod", "container")"#);
    // Without a pod, the container's name has leading slashes. Without a container, the label is empty.
    let trimmed = format!(r#"label_replace({words}, "workload", "$1", "workload", "/+(.*)")"#);
    format!(r#"label_replace({trimmed}, "workload", "no container", "workload", "")"#)
}

/// The legend for series with a workload.
pub(crate) const LEGEND: &str = "{{workload}} ({{pidns}}) on {{instance}}";

/// The table columns for series with a workload.
pub(crate) const LABELS: &[(&str, &str)] =
    &[("workload", "Workload"), ("pidns", "Namespace"), ("instance", "Machine")];

/// The largest values of the query, with the labels that a table needs.
pub(crate) fn largest(count: u32, query: &str) -> String {
    format!("topk({count}, max by (instance, pidns, workload) ({}))", named(query))
}

/// The query's series, limited to the namespaces in `others`.
pub(crate) fn of_those(query: &str, others: &str) -> String {
    format!("max by (instance, pidns, workload) ({}) and on (instance, pidns) {others}", named(query))
}
