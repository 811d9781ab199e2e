//! What stands in a panel that has no data: why, in a sentence.

/// Every agent exports the metric at all times.
pub(crate) const NO_AGENT: &str = "no data: no agent of this selection was scraped in this time";
pub(crate) const NO_NAMESPACE_SERIES: &str =
    "no per-namespace series: the agent exports none (--metrics.namespace-limit 0), or no namespace exists";
pub(crate) const NO_ZOMBIES: &str = "no zombies, or no per-namespace series (--metrics.namespace-limit 0)";
pub(crate) const NO_LIMITS: &str =
    "no limit on PIDs applies, or no per-namespace series (--metrics.namespace-limit 0)";
pub(crate) const NO_FINDINGS: &str =
    "nothing is found to be wrong now (or no agent of this selection was scraped)";
pub(crate) const NO_RULES: &str = "no data: load the recording rules of dashboards/rules.yml into Prometheus";
pub(crate) const NO_DESTRUCTIONS: &str =
    "no namespace was destroyed in this time (tracepoints alone do not see it: there the teardown counts)";
pub(crate) const NO_TEARDOWNS: &str = "no namespace was torn down in this time";
pub(crate) const NO_STATISTICS: &str = "no data: the agent runs without --bpf-stats";
pub(crate) const NO_FAILURES: &str = "no failures in this time";
/// What is shown where it is above 0 alone.
pub(crate) const NONE: &str = "none in this time (or no agent of this selection was scraped)";
pub(crate) const NO_REFUSALS: &str = "none was seen in this time; tracepoints alone do not see refusals, unless the agent runs with --syscall-hooks";
