//! Reads the anchors, links and fenced blocks of a Markdown page.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use pulldown_cmark::{BrokenLink, CodeBlockKind, Event, LinkType, Options, Parser, Tag, TagEnd};

/// The target of a link as the page writes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) line: usize,
    pub(super) target: String,
}

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) line: usize,
    /// The text after the opening fence.
    pub(super) info: String,
    /// The position of the block's text in the page.
    pub(super) text: Range<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Page {
    /// The anchors that `#…` can name.
    pub(super) anchors: HashSet<String>,
    pub(super) links: Vec<Link>,
    pub(super) blocks: Vec<Block>,
    /// References `[text][name]` to an undefined name: the line and the name.
    pub(super) undefined: Vec<(usize, String)>,
}

impl Page {
    pub(super) fn read(markdown: &str) -> Self {
        let line = |at: usize| markdown[..at].matches('\n').count() + 1;
        let mut page = Self::default();
        let mut undefined = Vec::new();
        let mut note_undefined = |link: BrokenLink<'_>| {
            // `[text]` alone is almost never meant as a link.
            if matches!(link.link_type, LinkType::Reference | LinkType::Collapsed) {
                undefined.push((line(link.span.start), link.reference.to_string()));
            }
            None
        };
        let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_FOOTNOTES;
        let parser = Parser::new_with_broken_link_callback(markdown, options, Some(&mut note_undefined));

        let mut heading: Option<String> = None;
        let mut block: Option<Block> = None;
        let mut headings = HashMap::new();
        for (event, range) in parser.into_offset_iter() {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    page.anchors.extend(heading.take().map(|text| anchor(&text, &mut headings)));
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(Link { line: line(range.start), target: dest_url.to_string() });
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) => {
                    let (line, info) = (line(range.start), info.to_string());
                    block = Some(Block { line, info, text: range.end..range.end });
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Text(_) if block.is_some() => {
                    if let Some(block) = &mut block {
                        let start = if block.text.is_empty() { range.start } else { block.text.start };
                        block.text = start..range.end;
                    }
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::Html(html) | Event::InlineHtml(html) => {
                    page.anchors.extend(attributes(&html, &["id", "name"]).map(str::to_owned));
                    let line = line(range.start);
                    page.links.extend(
                        attributes(&html, &["href", "src"])
                            .map(|target| Link { line, target: target.to_owned() }),
                    );
                }
                _ => {}
            }
        }
        page.undefined = undefined;
        page
    }
}

/// The anchor that GitHub gives a heading: lower case, without punctuation, a hyphen for each space. A repeated
/// anchor gets a number.
fn anchor(heading: &str, seen: &mut HashMap<String, usize>) -> String {
    let plain: String = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect();
    let count = seen.entry(plain.clone()).or_default();
    *count += 1;
    if *count == 1 { plain } else { format!("{plain}-{}", *count - 1) }
}

/// The values of double-quoted attributes in a piece of HTML.
fn attributes<'a>(html: &'a str, names: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let is_tag = html.starts_with('<') && !html.starts_with("<!--");
    names.iter().filter(move |_| is_tag).flat_map(|name| {
        html.match_indices(name).filter_map(|(at, name)| {
            let before = html[..at].chars().next_back()?;
            let value = html[at + name.len()..].strip_prefix("=\"")?;
            before.is_whitespace().then(|| value.split('"').next())?
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_follow_githubs_rules() {
        let page = Page::read(
            "# What it needs, and kernels\n\n## `--from FILE`\n\n### Two  blanks_and-signs: é!\n\n## Again\n\n## Again\n\n\
             ## A [link](x.md) *inside*\n\nText <a id=\"by-hand\"></a>\n\n```\n# no heading\n```\n",
        );
        let mut anchors: Vec<_> = page.anchors.iter().map(String::as_str).collect();
        anchors.sort_unstable();
        assert_eq!(
            anchors,
            [
                "--from-file",
                "a-link-inside",
                "again",
                "again-1",
                "by-hand",
                "two--blanks_and-signs-é",
                "what-it-needs-and-kernels"
            ]
        );
    }

    #[test]
    fn links_of_every_form_are_found() {
        let page = Page::read(
            "[a](one.md#x) and `[no](link.md)`\n![b](two.svg)\n[c][name]\n\n<img src=\"three.svg\" alt=\"\">\n\n\
             [name]: four.md\n[d][missing]\n",
        );
        let links: Vec<_> = page.links.iter().map(|link| (link.line, link.target.as_str())).collect();
        assert_eq!(links, [(1, "one.md#x"), (2, "two.svg"), (3, "four.md"), (5, "three.svg")]);
        assert_eq!(page.undefined, [(8, "missing".to_owned())]);
    }

    #[test]
    fn blocks_are_read_with_their_text_and_position() {
        let markdown = "Text\n```console\n$ one\nout\n```\n\n```\n```\n";
        let page = Page::read(markdown);
        assert_eq!(page.blocks.len(), 2);
        assert_eq!((page.blocks[0].line, page.blocks[0].info.as_str()), (2, "console"));
        assert_eq!(&markdown[page.blocks[0].text.clone()], "$ one\nout\n");
        assert_eq!(&markdown[page.blocks[1].text.clone()], "");
    }
}
