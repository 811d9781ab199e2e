//! Text: bytes that somebody else chose (comm, argv, file names), kept as they are and escaped once, here; and counts.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

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

/// Text that may have something from elsewhere in it: what a terminal would obey is escaped. All else stays, so that what was
/// escaped before ([`Name::for_terminal`]) is as it was.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
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

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        unescape(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("a backslash in {text:?} begins no escape")))
    }
}

/// The bytes that [`Name::for_json`] wrote so.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    while let Some(part) = parts.next() {
        if part.is_empty() {
            // Two in a row: the next part is as it is.
            bytes.push(b'\\');
            bytes.extend_from_slice(parts.next()?.as_bytes());
        } else {
            let byte = part.strip_prefix('x')?.get(..2)?;
            if !byte.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(byte, 16).ok()?);
            bytes.extend_from_slice(&part.as_bytes()[3..]);
        }
    }
    Some(bytes)
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
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// "1 event", "2 events": the number, what one is called, and what more are.
#[derive(Clone, Copy, Debug)]
pub struct Count(pub u64, pub &'static str, pub &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, one, more) = *self;
        write!(f, "{number} {}", if number == 1 { one } else { more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn what_no_name_is_written_as_is_no_name() {
        for text in ["\\", "a\\x", "\\x4", "\\x+1", "\\u0041", "\\xé"] {
            assert_eq!(unescape(text), None, "{text}");
        }
        assert_eq!(unescape("\\\\x41\\x41é"), Some("\\x41Aé".as_bytes().to_vec()));
    }

    /// What terminals obey: control characters, marks that change the direction of what is around them (the `Bidi_Control`
    /// of Unicode's PropList.txt), ends of lines and paragraphs, and the mark of a byte order.
    const OBEYED: [std::ops::RangeInclusive<char>; 8] = [
        '\0'..='\u{1f}',
        '\u{7f}'..='\u{9f}',
        '\u{61c}'..='\u{61c}',
        '\u{200e}'..='\u{200f}',
        '\u{2028}'..='\u{2029}',
        '\u{202a}'..='\u{202e}',
        '\u{2066}'..='\u{2069}',
        '\u{feff}'..='\u{feff}',
    ];

    fn is_obeyed(c: char) -> bool {
        OBEYED.iter().any(|range| range.contains(&c))
    }

    #[test]
    fn of_all_characters_those_that_terminals_obey_are_escaped_and_no_others() {
        for c in ('\0'..=char::MAX).filter(|&c| c != '\\') {
            let text = c.to_string();
            let shown = Name::from(&*text).for_terminal().to_string();
            assert_eq!(shown == text, !is_obeyed(c), "{c:?} is shown as {shown:?}");
            assert_eq!(printable(&text), shown, "{c:?}");
        }
        assert_eq!(printable("a\\u{1b}\u{1b}\u{61c}é"), "a\\u{1b}\\u{1b}\\u{61c}é");
    }

    proptest! {
        #[test]
        fn any_bytes_survive_json(bytes: Vec<u8>) {
            let json = serde_json::to_string(&Name::from(&bytes[..])).unwrap();
            let name: Name = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(name.as_bytes(), bytes);
        }

        #[test]
        fn any_bytes_are_safe_on_a_terminal(bytes: Vec<u8>) {
            let text = Name::from(&bytes[..]).for_terminal().to_string();
            prop_assert!(!text.chars().any(is_obeyed));
        }
    }

    #[test]
    fn one_is_no_plural() {
        let events = [0, 1, 2].map(|number| Count(number, "event", "events").to_string());
        assert_eq!(events, ["0 events", "1 event", "2 events"]);
    }
}
