//! Numbers of things, as sentences have them.

use std::fmt::{self, Display};

/// "1 event", "2 events": the number, what one is called, and what more are.
#[derive(Clone, Copy, Debug)]
pub struct Count(pub u64, pub &'static str, pub &'static str);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, one, more) = *self;
        write!(f, "{number} {}", if number == 1 { one } else { more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        let events = [0, 1, 2].map(|number| Count(number, "event", "events").to_string());
        assert_eq!(events, ["0 events", "1 event", "2 events"]);
    }
}
