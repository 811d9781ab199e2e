//! Versions in the output of tools.

use std::fmt;

/// A version's numbers. Anything after them (`-nightly`, `+dfsg1-1~deb12u2`) is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub patch: u32,
}

impl Version {
    /// The version of these numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads the numbers at the start of `text`. Absent numbers count as 0.
    pub fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text[..end].split('.').map(|number| number.parse().ok());
        Some(Self {
            major: numbers.next()??,
            minor: numbers.next().flatten().unwrap_or(0),
            patch: numbers.next().flatten().unwrap_or(0),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, patch } = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn text_behind_the_numbers_is_dropped() {
        assert_eq!(Version::parse("1.96.0+dfsg1-1~deb12u2"), Some(Version::new(1, 96, 0)));
        assert_eq!(Version::parse("1.97.0-nightly"), Some(Version::new(1, 97, 0)));
        assert_eq!(Version::parse("22.1.8"), Some(Version::new(22, 1, 8)));
        assert_eq!(Version::parse("23"), Some(Version::new(23, 0, 0)));
    }

    #[test]
    fn text_without_a_leading_number_is_refused() {
        assert_eq!(Version::parse("(none)"), None);
        assert_eq!(Version::parse(""), None);
    }

    #[test]
    fn versions_compare_by_number_not_by_text() {
        assert!(Version::parse("1.100.0") > Version::parse("1.96.0"));
    }
}
