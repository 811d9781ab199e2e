//! The few names to index from BTF.

/// A set of names. It compares them with strings in BTF without searching for the ends of those.
#[derive(Debug)]
pub(super) struct WantedNames<'n> {
    /// By first byte: nearly all types can be excluded by that.
    by_first: Vec<Vec<&'n [u8]>>,
}

impl<'n> WantedNames<'n> {
    pub(super) fn new(names: &[&'n str]) -> Self {
        let mut by_first = vec![Vec::new(); 1 << u8::BITS];
        for name in names {
            if let Some(&first) = name.as_bytes().first() {
                by_first[usize::from(first)].push(name.as_bytes());
            }
        }
        Self { by_first }
    }

    /// Whether a wanted name begins at this offset of the strings.
    pub(super) fn begins(&self, strings: &[u8], offset: u32) -> bool {
        let text = strings.get(offset as usize..).unwrap_or(&[]);
        text.first().is_some_and(|&first| {
            let names = &self.by_first[usize::from(first)];
            names.iter().any(|name| text.strip_prefix(*name).is_some_and(|rest| rest.first() == Some(&0)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_are_found() {
        let strings = b"\0pid\0pids\0upid\0pi";
        let wanted = WantedNames::new(&["pid", "pids_", ""]);
        let found: Vec<u32> = (0..20).filter(|&offset| wanted.begins(strings, offset)).collect();
        assert_eq!(found, [1, 11], "the name, and the end of another one, which strings may share");
    }
}
