//! The paths of the pages.

use super::WebError;

/// The other pages.
pub(super) const HEALTH: &str = "/healthz";
pub(super) const READINESS: &str = "/readyz";
pub(super) const STATUS: &str = "/status";
pub(super) const LANDING: &str = "/";

/// Refuses a path that no request can have, or that is another page.
pub(super) fn check(path: &str) -> Result<(), WebError> {
    let refuse =
        |reason: &str| Err(WebError::TelemetryPath { path: path.to_owned(), reason: reason.to_owned() });
    if !path.starts_with('/') {
        return refuse("a path begins with /");
    }
    if [LANDING, HEALTH, READINESS, STATUS].contains(&path) {
        return refuse("another page is there");
    }
    if let Some(odd) =
        path.chars().find(|c| !c.is_ascii_graphic() || ['?', '#', '"', '<', '>', '\\'].contains(c))
    {
        return refuse(&format!("a path has no {odd:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_no_other_page_has_is_taken() {
        for path in ["/metrics", "/m", "/pidns/metrics", "/metrics/"] {
            check(path).unwrap();
        }
    }

    #[test]
    fn a_path_that_cannot_be_served_is_refused_with_the_reason() {
        for (path, reason) in [
            ("metrics", "a path begins with /"),
            ("", "a path begins with /"),
            ("/", "another page is there"),
            ("/healthz", "another page is there"),
            ("/status", "another page is there"),
            ("/a b", "a path has no ' '"),
            ("/metrics?x", "a path has no '?'"),
            ("/ä", "a path has no 'ä'"),
        ] {
            let error = check(path).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("--web.telemetry-path"), "{path}: {error}");
        }
    }
}
