//! The page at `/`.

use std::fmt::Write as _;

use super::{Landing, paths};

/// Makes the HTML of the page.
pub(super) fn page(landing: &Landing, telemetry_path: &str) -> String {
    let title = escaped(&landing.title);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>body {{ font-family: sans-serif; max-width: 40em; margin: 2em auto; padding: 0 1em }}</style>\n\
         </head>\n<body>\n<h1>{title}</h1>\n"
    );
    // Writing to a String cannot fail.
    let mut add = |line: String| {
        let _ = writeln!(html, "{line}");
    };
    if !landing.version.is_empty() {
        add(format!("<p>Version {}</p>", escaped(&landing.version)));
    }
    for paragraph in &landing.paragraphs {
        add(format!("<p>{}</p>", escaped(paragraph)));
    }
    let own = [
        (telemetry_path, "Metrics"),
        (paths::STATUS, "Status"),
        (paths::HEALTH, "Health"),
        (paths::READINESS, "Readiness"),
    ];
    let links = landing.links.iter().map(|link| (link.address.as_str(), link.text.as_str()));
    add("<ul>".to_owned());
    for (address, text) in own.into_iter().chain(links) {
        add(format!("<li><a href=\"{}\">{}</a></li>", escaped(address), escaped(text)));
    }
    add("</ul>\n</body>\n</html>".to_owned());
    html
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{super::Link, *};

    #[test]
    fn the_page_has_title_version_text_and_links_and_escapes_them() {
        let landing = Landing {
            title: "a<b".into(),
            version: "1.2".into(),
            paragraphs: vec!["one & two".into()],
            links: vec![Link { address: "/x?\"y\"".into(), text: "it's".into() }],
        };
        let page = page(&landing, "/m");
        for part in [
            "<title>a&lt;b</title>",
            "<p>Version 1.2</p>",
            "<p>one &amp; two</p>",
            "<a href=\"/m\">Metrics</a>",
            "<a href=\"/healthz\">",
            "<a href=\"/x?&quot;y&quot;\">it&#39;s</a>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }
}
