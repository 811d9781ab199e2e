//! Text: untrusted bytes (comm, argv, file names), which are kept unchanged and escaped only here; counts with a noun;
//! and the similarity of a text to its misspellings.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    io,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use unicode_width::UnicodeWidthChar as _;

/// The longest name that is accepted from JSON, in bytes. Paths and kept arguments have at most 4,096 bytes, so this is
/// twice as much.
const LONGEST_NAME: usize = 8 << 10;

/// A name from the kernel: any bytes except NUL.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Name {
    /// The unescaped bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Escapes backslashes, bytes that are not UTF-8, and characters that a terminal would obey or not show.
    pub fn for_terminal(&self) -> impl fmt::Display + '_ {
        Escaped { bytes: &self.0, for_terminal: true }
    }

    /// Escapes so that the result is UTF-8 and can be converted back: a backslash is doubled; a byte that is not UTF-8,
    /// and each byte of U+007F to U+009F, becomes `\xNN`. Control characters below 0x20 stay, because JSON escapes them
    /// itself.
    pub fn for_json(&self) -> impl fmt::Display + '_ {
        Escaped { bytes: &self.0, for_terminal: false }
    }
}

/// Escapes characters that a terminal would obey or not show, in a text that may contain untrusted parts. Everything
/// else stays, so that text already escaped by [`Name::for_terminal`] does not change.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.is_ascii() && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut visibility = Visibility::default();
    for c in text.chars() {
        if visibility.shows(c) { out.push(c) } else { out.extend(c.escape_unicode()) }
    }
    Cow::Owned(out)
}

/// A name for people; "?" if it is unknown.
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
        let name = unescape(&text).map(Self);
        let name = name
            .ok_or_else(|| D::Error::custom(format!("a backslash in {text:?} does not begin an escape")))?;
        let length = name.0.len();
        if length > LONGEST_NAME {
            return Err(D::Error::custom(format!(
                "a name of {length} bytes is too long: the limit is {LONGEST_NAME}"
            )));
        }
        Ok(name)
    }
}

/// Reverses [`Name::for_json`].
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    while let Some(part) = parts.next() {
        if part.is_empty() {
            // A doubled backslash: the next part needs no unescaping.
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
    for_terminal: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut visibility = Visibility::default();
        for chunk in self.bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => {
                        visibility = Visibility::default();
                        f.write_str("\\\\")?;
                    }
                    c if self.for_terminal && !visibility.shows(c) => write!(f, "{}", c.escape_unicode())?,
                    // JSON itself escapes the characters below 0x20, but not these, which some terminals obey.
                    c @ '\u{7f}'..='\u{9f}' => {
                        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                            write!(f, "\\x{byte:02x}")?;
                        }
                    }
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                visibility = Visibility::default();
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Decides for each character whether a reader can see it.
#[derive(Clone, Copy, Debug, Default)]
struct Visibility {
    /// Whether the last character can carry a mark, such as an accent.
    is_base: bool,
}

impl Visibility {
    /// Whether the character is visible and does not affect others. A mark (such as an accent) is visible on the
    /// character before it; at the start of a name it would change the character before the name.
    fn shows(&mut self, c: char) -> bool {
        // Most text is ASCII: decide that without tables.
        let is_plain = c.is_ascii_graphic() || c == ' ';
        let is_mark = !is_plain && c.width() == Some(0);
        let shows = is_plain || !(is_unsafe(c) || (is_mark && !self.is_base));
        self.is_base = shows && c != ' ';
        shows
    }
}

/// Control characters, characters that change the direction or the lines around them, and invisible ones, which can
/// make two different names look the same (`Default_Ignorable_Code_Point` of Unicode's DerivedCoreProperties.txt, and
/// blanks without width or shape).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        )
}

/// A writer for JSON. Characters that a terminal would obey or not show become JSON escapes (`\u202e`): a person who
/// reads the text is not fooled, and a parser gets the same strings.
///
/// serde_json writes non-ASCII characters only in strings, and never splits a character between two writes. It writes
/// the quotes separately. Each write starts anew, so a mark at the start of a string has no character before it, and is
/// escaped.
#[derive(Debug)]
pub struct JsonText<W>(pub W);

impl<W: io::Write> io::Write for JsonText<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.iter().all(|byte| byte.is_ascii() && *byte != 0x7f) {
            return self.0.write_all(bytes);
        }
        let text =
            str::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let mut visibility = Visibility::default();
        let mut written = 0;
        for (at, c) in text.char_indices() {
            // JSON's own syntax is ASCII.
            if visibility.shows(c) || (c.is_ascii() && c != '\u{7f}') {
                continue;
            }
            self.0.write_all(&bytes[written..at])?;
            written = at + c.len_utf8();
            for half in c.encode_utf16(&mut [0; 2]) {
                write!(self.0, "\\u{half:04x}")?;
            }
        }
        self.0.write_all(&bytes[written..])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// "1 event", "2 events": the number, the singular, and the plural.
#[derive(Clone, Copy, Debug)]
pub struct Count(pub u64, pub &'static str, pub &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, one, more) = *self;
        write!(f, "{number} {}", if number == 1 { one } else { more })
    }
}

/// The number of edits that turn one text into the other. An edit inserts, deletes or replaces a character, or swaps two
/// neighbours.
pub fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let changed = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

/// Whether one text may be a misspelling of the other: at most two fifths of the longer one differ.
pub fn is_similar(one: &str, other: &str) -> bool {
    let longest = one.chars().count().max(other.chars().count());
    distance(one, other) * 5 <= longest * 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_is_similar_to_its_misspellings_only() {
        for (one, other) in
            [("frok", "fork"), ("nss", "ns"), ("name.creat", "namespace.create"), ("agee", "age")]
        {
            assert!(is_similar(one, other) && is_similar(other, one), "{one} {other}");
        }
        for (one, other) in [("", "ns"), ("zzz", "fork"), ("oom", "join"), ("zombie", "join"), ("x", "y")] {
            assert!(!is_similar(one, other) && !is_similar(other, one), "{one} {other}");
        }
    }

    #[test]
    fn the_distance_is_the_number_of_edits() {
        for (one, other, edits) in [
            ("fork", "fork", 0),
            ("frok", "fork", 1),
            ("proces", "process", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!((distance(one, other), distance(other, one)), (edits, edits), "{one} {other}");
        }
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let name = Name::from(&b"\x1b[31m\xff\xfe\"\\x\n\xe2\x80\xae"[..]);
        assert_eq!(name.for_terminal().to_string(), "\\u{1b}[31m\\xff\\xfe\"\\\\x\\u{a}\\u{202e}");
    }

    #[test]
    fn json_text_can_be_converted_back() {
        let name = Name::from(&b"\x1b[31m\xff\"\\x"[..]);
        let json = serde_json::to_string(&name).unwrap();
        assert_eq!(json, r#""\u001b[31m\\xff\"\\\\x""#);
        assert_eq!(serde_json::from_str::<Name>(&json).unwrap(), name);
    }

    #[test]
    fn malformed_escapes_are_refused() {
        for text in ["\\", "a\\x", "\\x4", "\\x+1", "\\u0041", "\\xé"] {
            assert_eq!(unescape(text), None, "{text}");
        }
        assert_eq!(unescape("\\\\x41\\x41é"), Some("\\x41Aé".as_bytes().to_vec()));
    }

    /// Characters that terminals obey: control characters, direction marks (`Bidi_Control` of Unicode's PropList.txt),
    /// line and paragraph separators, and the byte order mark.
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
    fn characters_that_terminals_obey_or_hide_are_escaped() {
        for c in ('\0'..=char::MAX).filter(|&c| c != '\\') {
            let text = c.to_string();
            let shown = Name::from(&*text).for_terminal().to_string();
            assert_eq!(printable(&text), shown, "{c:?}");
            // Each character is alone here, so a zero-width one has no base.
            let is_seen = c.width().is_some_and(|width| width > 0);
            assert!(shown != text || (is_seen && !is_obeyed(c)), "{c:?} is shown as {shown:?}");
            if c.is_alphanumeric()
                && is_seen
                && !('\u{115f}'..='\u{1160}').contains(&c)
                && !['\u{3164}', '\u{ffa0}'].contains(&c)
            {
                assert_eq!(shown, text, "letters and digits stay");
            }
        }
        assert_eq!(printable("a\\u{1b}\u{1b}\u{61c}é"), "a\\u{1b}\\u{1b}\\u{61c}é");
    }

    #[test]
    fn names_that_look_the_same_are_distinguished() {
        for (name, shown) in [
            ("we\u{200b}b", "we\\u{200b}b"),
            ("we\u{2060}b", "we\\u{2060}b"),
            ("we\u{ad}b", "we\\u{ad}b"),
            ("web\u{3164}", "web\\u{3164}"),
            ("e\u{301}", "e\u{301}"),
            ("\u{301}e", "\\u{301}e"),
            (" \u{301}", " \\u{301}"),
            ("\u{1b}\u{301}", "\\u{1b}\\u{301}"),
            ("名前", "名前"),
        ] {
            assert_eq!(Name::from(name).for_terminal().to_string(), shown);
            assert_eq!(printable(name), shown);
        }
        // After an invalid byte, a mark would appear on the digits of its escape.
        assert_eq!(Name::from(&b"\xff\xcc\x81"[..]).for_terminal().to_string(), "\\xff\\u{301}");
    }

    fn json(value: &impl Serialize) -> String {
        let mut to = JsonText(Vec::new());
        serde_json::to_writer_pretty(&mut to, value).unwrap();
        String::from_utf8(to.0).unwrap()
    }

    #[test]
    fn json_escapes_characters_that_terminals_obey_or_hide() {
        for (text, shown) in [
            ("cod\u{202e}gpj.exe", r#""cod\u202egpj.exe""#),
            ("we\u{200b}b", r#""we\u200bb""#),
            ("we\u{2060}b", r#""we\u2060b""#),
            ("\u{7f}\u{9b}31m", r#""\u007f\u009b31m""#),
            ("\u{e0041}", r#""\udb40\udc41""#),
            ("\u{301}e", r#""\u0301e""#),
            ("\n\u{301}e\u{301}", "\"\\n\\u0301e\u{301}\""),
            ("a\"\\é名前", r#""a\"\\é名前""#),
        ] {
            assert_eq!(json(&text), shown);
        }
        assert_eq!(json(&["\u{202e}"]), "[\n  \"\\u202e\"\n]", "the layout is as it was");
    }

    proptest! {
        #[test]
        fn any_text_survives_being_written_as_json(text: String) {
            let shown = json(&text);
            prop_assert!(!shown.chars().any(is_obeyed), "{}", shown);
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }

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
    fn a_count_of_one_has_the_singular() {
        let events = [0, 1, 2].map(|number| Count(number, "event", "events").to_string());
        assert_eq!(events, ["0 events", "1 event", "2 events"]);
    }
}
