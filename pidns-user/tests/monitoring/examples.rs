//! The example files of fleet/, changed where a test on one machine must differ: addresses, folders, intervals.

use std::fs;
use std::path::Path;

use crate::rules;

/// A file of fleet/.
pub(crate) fn read(name: &str) -> String {
    let path = rules::folder().with_file_name("fleet").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Replaces a text that occurs exactly once.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} must occur once in:\n{text}");
    text.replace(from, to)
}

/// The configuration of a Prometheus in agent mode that scrapes these targets and sends to this URL.
pub(crate) fn prometheus(targets: &Path, url: &str, interval: &str) -> String {
    let mut text = read("prometheus-agent.yml");
    for (from, to) in [
        ("scrape_interval: 30s", format!("scrape_interval: {interval}")),
        ("scrape_timeout: 10s", format!("scrape_timeout: {interval}")),
        ("/etc/prometheus/pidns-trace/*.yml", targets.display().to_string()),
        ("http://victoria.example:8428/api/v1/write", url.to_owned()),
    ] {
        text = replace(&text, from, &to);
    }
    text
}

/// The same configuration, but it sends its samples after one second instead of five.
pub(crate) fn sending_at_once(configuration: &str) -> String {
    replace(configuration, "max_shards: 10\n", "max_shards: 10\n      batch_send_deadline: 1s\n")
}

/// The configuration without the rules that drop series.
pub(crate) fn without_drops(configuration: &str) -> String {
    let (before, _) = configuration.split_once("    write_relabel_configs:\n").expect("rules are at its end");
    before.to_owned()
}

/// The options in a file for /etc/default, without those that name a folder.
pub(crate) fn options(name: &str) -> Vec<String> {
    let text = read(name);
    let line = text.lines().find_map(|line| line.strip_prefix("ARGS=\"")?.strip_suffix('"'));
    let options = line.expect("a line with ARGS").split(' ');
    options.filter(|option| !option.contains("=/var/lib/")).map(str::to_owned).collect()
}

/// The options of vmalert, without those that name files and addresses, which a test chooses.
pub(crate) fn vmalert_options() -> Vec<String> {
    const CHOSEN: [&str; 6] = [
        "-rule=",
        "-datasource.url=",
        "-remoteWrite.url=",
        "-remoteRead.url=",
        "-notifier.url=",
        "-httpListenAddr=",
    ];
    let text = read("vmalert.service");
    let all: Vec<&str> = text
        .split_whitespace()
        .skip_while(|word| !word.starts_with("ExecStart="))
        .skip(1)
        .take_while(|word| *word == "\\" || word.starts_with('-'))
        .filter(|word| *word != "\\")
        .collect();
    for one in CHOSEN {
        assert!(all.iter().any(|option| option.starts_with(one)), "{one} is among {all:?}");
    }
    let is_chosen = |option: &&str| CHOSEN.iter().any(|one| option.starts_with(one));
    all.into_iter().filter(|option| !is_chosen(option)).map(str::to_owned).collect()
}
