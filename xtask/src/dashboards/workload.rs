//! Names of workloads: from the labels of `pidns_namespace_info`, in PromQL.

/// The query's series with the labels of their namespaces, and of those one more label, `workload`: Kubernetes namespace,
/// pod and container with a slash between them, as far as there are any, or "no container".
pub(crate) fn named(query: &str) -> String {
    let joined = format!(
        "({query}) * on (job, instance, pidns) group_left (namespace, pod, container) pidns_namespace_info{{@}}"
    );
    let words = format!(r#"label_join({joined}, "workload", "/", "namespace", "pod", "container")"#);
    // Without a pod there are slashes in front of the container's name; without a container there is nothing else.
    let trimmed = format!(r#"label_replace({words}, "workload", "$1", "workload", "/+(.*)")"#);
    format!(r#"label_replace({trimmed}, "workload", "no container", "workload", "")"#)
}

/// The legend of such series.
pub(crate) const LEGEND: &str = "{{workload}} ({{pidns}}) on {{instance}}";

/// The columns of a table of such series.
pub(crate) const LABELS: &[(&str, &str)] =
    &[("workload", "Workload"), ("pidns", "Namespace"), ("instance", "Machine")];

/// The largest values of such series, by what the columns of a table need.
pub(crate) fn largest(count: u32, query: &str) -> String {
    format!("topk({count}, max by (instance, pidns, workload) ({}))", named(query))
}

/// Such series of the namespaces alone that the other query has.
pub(crate) fn of_those(query: &str, others: &str) -> String {
    format!("max by (instance, pidns, workload) ({}) and on (instance, pidns) {others}", named(query))
}
