//! The current configuration. Its files are read again after they have changed.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    ConfigError,
    config::{Config, Files},
};

/// Interval of checks of the files. The toolkit reads them at each request, but once a second is enough.
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);

/// The valid configuration and its files.
#[derive(Debug)]
pub(super) struct LiveConfig {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<Config>,
    /// Files of the last attempt to read them. It may have failed; the next attempt follows when they change.
    files: Files,
    checked: Instant,
}

impl LiveConfig {
    pub(super) fn read(path: Option<PathBuf>, now: Instant) -> Result<Self, ConfigError> {
        let mut files = Files::default();
        let config = path
            .as_ref()
            .map_or_else(|| Ok(Config::default()), |path| Config::read(path, &mut files, now))?;
        Ok(Self { path, state: Mutex::new(State { config: Arc::new(config), files, checked: now }) })
    }

    /// Returns the current configuration. Reads the files again if they have changed; if they are invalid, the last
    /// valid configuration stays.
    pub(super) fn current(&self, now: Instant) -> Arc<Config> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.path.is_some() && now.saturating_duration_since(state.checked) >= BETWEEN_CHECKS {
            state.checked = now;
            if state.files.have_changed() {
                match self.replace(&mut state, now) {
                    Ok(()) => tracing::info!("the web configuration has changed and was read again"),
                    Err(error) => {
                        tracing::warn!(%error, "the web configuration has changed and is invalid; the last valid one stays");
                    }
                }
            }
        }
        Arc::clone(&state.config)
    }

    /// Returns the configuration without checking the files.
    pub(super) fn last(&self) -> Arc<Config> {
        Arc::clone(&self.state.lock().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Reads the files again, even if they have not changed.
    pub(super) fn reload(&self, now: Instant) -> Result<(), ConfigError> {
        self.replace(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner), now)
    }

    fn replace(&self, state: &mut State, now: Instant) -> Result<(), ConfigError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut files = Files::default();
        let config = Config::read(path, &mut files, now);
        (state.files, state.checked) = (files, now);
        state.config = Arc::new(config?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_changed_file_takes_effect_after_a_second_and_an_invalid_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yml");
        let header = |value: &str| {
            let text = format!("http_server_config: {{headers: {{X-XSS-Protection: \"{value}\"}}}}");
            fs::write(&path, text).unwrap();
        };
        header("1");
        let start = Instant::now();
        let live = LiveConfig::read(Some(path.clone()), start).unwrap();
        let at = |ms| live.current(start + Duration::from_millis(ms)).headers[0].1.clone();
        assert_eq!(at(0), "1");
        header("two");
        assert_eq!(at(900), "1");
        assert_eq!(at(1000), "two");
        fs::write(&path, "http_server_config: {headerz: {}}").unwrap();
        assert_eq!(at(2500), "two");
        fs::remove_file(&path).unwrap();
        assert_eq!(at(4000), "two");
        let error = live.reload(start).unwrap_err().to_string();
        assert!(error.contains("web.yml: ") && error.contains("No such file"), "{error}");
        header("three");
        assert_eq!(at(5500), "three");
        header("four!");
        live.reload(start).unwrap();
        assert_eq!(at(0), "four!");
    }
}
