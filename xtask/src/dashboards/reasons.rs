//! The sentence that a panel without data shows as the reason.

/// Every agent always exports the metric.
pub(crate) const NO_AGENT: &str = "no data: no agent of this selection was scraped in this time";
pub(crate) const NO_NAMESPACE_SERIES: &str =
    "no per-namespace series: the agent exports none (--metrics.namespace-limit 0), or no namespace exists";
pub(crate) const NO_ZOMBIES: &str = "no zombies, or no per-namespace series (--metrics.namespace-limit 0)";
pub(crate) const NO_LIMITS: &str =
    "no limit on PIDs applies, or no per-namespace series (--metrics.namespace-limit 0)";
pub(crate) const NO_FINDINGS: &str = "no findings now (or no agent of this selection was scraped)";
pub(crate) const NO_RULES: &str = "no data: load the recording rules of dashboards/rules.yml into Prometheus";
pub(crate) const NO_DESTRUCTIONS: &str =
    "no namespace was destroyed in this time (with tracepoints alone, the teardown counts as destruction)";
pub(crate) const NO_TEARDOWNS: &str = "no namespace was torn down in this time";
pub(crate) const NO_STATISTICS: &str = "no data: the agent runs without --bpf-stats";
pub(crate) const NO_FAILURES: &str = "no failures in this time";
/// The text of queries that only show values above 0.
pub(crate) const NONE: &str = "none in this time (or no agent of this selection was scraped)";
pub(crate) const NO_REFUSALS: &str =
    "none in this time; with tracepoints alone, the agent needs --syscall-hooks to see refusals";
