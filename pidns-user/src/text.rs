//! Bytes that somebody else chose: comm, argv, file names. They are kept as they are, and escaped once, here.

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

/// A name as the kernel holds it: any bytes but NUL.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Name {
    /// The bytes themselves.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Escaped so that nothing in it is a control character: safe on a terminal.
    pub fn for_terminal(&self) -> impl fmt::Display + '_ {
        Escaped { bytes: &self.0, controls: true }
    }

    /// Escaped so that it is UTF-8 and can be turned back into the bytes: a backslash is doubled, and a byte that
    /// is part of no character is `\xNN`. Control characters below 0x20 stay: JSON has its own way to write them.
    pub fn for_json(&self) -> impl fmt::Display + '_ {
        Escaped { bytes: &self.0, controls: false }
    }
}

/// A name for people, which may not be known.
pub fn or_unknown(name: Option<&Name>) -> String {
    name.map_or_else(|| "?".to_owned(), |name| name.for_terminal().to_string())
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.for_terminal())
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(&self.0) {
            Ok(text) if !text.contains(|c| c == '\\' || ('\u{7f}'..='\u{9f}').contains(&c)) => {
                serializer.serialize_str(text)
            }
            _ => serializer.collect_str(&self.for_json()),
        }
    }
}

struct Escaped<'a> {
    bytes: &'a [u8],
    controls: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => f.write_str("\\\\")?,
                    c if self.controls && is_unsafe(c) => write!(f, "{}", c.escape_unicode())?,
                    // JSON writes those below 0x20 in its own way, and these, which some terminals obey, as they are.
                    c @ '\u{7f}'..='\u{9f}' => {
                        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                            write!(f, "\\x{byte:02x}")?;
                        }
                    }
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Control characters, and those that change the direction or the lines of what stands around them.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unescape(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            if c != '\\' {
                bytes.extend_from_slice(c.to_string().as_bytes());
            } else if let Some(tail) = rest.strip_prefix('\\') {
                bytes.push(b'\\');
                rest = tail;
            } else {
                bytes.push(u8::from_str_radix(&rest[1..3], 16).unwrap());
                rest = &rest[3..];
            }
        }
        bytes
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let name = Name::from(&b"\x1b[31m\xff\xfe\"\\x\n\xe2\x80\xae"[..]);
        assert_eq!(name.for_terminal().to_string(), "\\u{1b}[31m\\xff\\xfe\"\\\\x\\u{a}\\u{202e}");
    }

    #[test]
    fn json_gets_text_that_can_be_turned_back() {
        let name = Name::from(&b"\x1b[31m\xff\"\\x"[..]);
        assert_eq!(serde_json::to_string(&name).unwrap(), r#""\u001b[31m\\xff\"\\\\x""#);
    }

    proptest! {
        #[test]
        fn any_bytes_survive_json(bytes: Vec<u8>) {
            let json = serde_json::to_string(&Name::from(&bytes[..])).unwrap();
            let text: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(unescape(&text), bytes);
        }

        #[test]
        fn any_bytes_are_safe_on_a_terminal(bytes: Vec<u8>) {
            let text = Name::from(&bytes[..]).for_terminal().to_string();
            prop_assert!(!text.chars().any(is_unsafe));
        }
    }
}
