//! The paths of the pages.

use super::WebError;

/// Paths of the other pages.
pub(super) const HEALTH: &str = "/healthz";
pub(super) const READINESS: &str = "/readyz";
pub(super) const STATUS: &str = "/status";
pub(super) const LANDING: &str = "/";

/// Rejects a path that no request can have, or that another page has.
pub(super) fn check(path: &str) -> Result<(), WebError> {
    let refuse =
        |reason: &str| Err(WebError::TelemetryPath { path: path.to_owned(), reason: reason.to_owned() });
    if !path.starts_with('/') {
        return refuse("a path must begin with /");
    }
    if [LANDING, HEALTH, READINESS, STATUS].contains(&path) {
        return refuse("another page has this path");
    }
    if let Some(odd) =
        path.chars().find(|c| !c.is_ascii_graphic() || ['?', '#', '"', '<', '>', '\\'].contains(c))
    {
        return refuse(&format!("a path cannot contain {odd:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_another_page_is_accepted() {
        for path in ["/metrics", "/m", "/pidns/metrics", "/metrics/"] {
            check(path).unwrap();
        }
    }

    #[test]
    fn a_path_that_cannot_be_served_is_refused_with_the_reason() {
        for (path, reason) in [
            ("metrics", "a path must begin with /"),
            ("", "a path must begin with /"),
            ("/", "another page has this path"),
            ("/healthz", "another page has this path"),
            ("/status", "another page has this path"),
            ("/a b", "a path cannot contain ' '"),
            ("/metrics?x", "a path cannot contain '?'"),
            ("/ä", "a path cannot contain 'ä'"),
        ] {
            let error = check(path).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("--web.telemetry-path"), "{path}: {error}");
        }
    }
}
