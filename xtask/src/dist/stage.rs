//! Lays out the published files once for the archive and the packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{Source, licences};
use crate::shell;

const LICENCES: [&str; 3] = ["LICENSE-APACHE", "LICENSE-MIT", "LICENSE-GPL2"];

/// Copies packaging/ to `work`, and puts the built files next to it in `stage/`. Returns that directory.
pub(super) fn fill(source: &Source, program: &Path, work: &Path) -> Result<PathBuf> {
    let root = root()?;
    let stage = work.join("stage");
    for folder in [&stage, &stage.join("man"), &stage.join("completions")] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the directory {}", folder.display()))?;
    }
    for name in ["Cargo.toml", "debian", "default", "rpm", "systemd"] {
        copy_all(&root.join("packaging").join(name), &work.join(name))?;
    }
    copy(program, &stage.join("pidns-trace"))?;
    let ours = stage.join("pidns-trace");

    // bash reads completions from a file with the command's name, zsh from one with an underscore before the name.
    for (shell, file) in [("bash", "pidns-trace.bash"), ("zsh", "_pidns-trace"), ("fish", "pidns-trace.fish")]
    {
        let text = shell::ask(Command::new(&ours).args(["completions", shell]));
        let text = text.with_context(|| format!("the program prints no completions for {shell}"))?;
        write(&stage.join("completions").join(file), &text)?;
    }
    shell::run(source.dated(Command::new(&ours).arg("man").arg(stage.join("man"))))?;

    for name in LICENCES {
        copy(&root.join(name), &stage.join(name))?;
    }
    write(&stage.join("THIRD-PARTY.txt"), &licences::text()?)?;
    write(&stage.join("changelog.Debian"), &debian_changelog(source)?)?;
    Ok(stage)
}

/// The unit in the packages names the program that they install. Who unpacks the archive installs it by hand, below
/// /usr/local.
const PROGRAMS: [&str; 2] = ["/usr/bin/pidns-trace", "/usr/local/bin/pidns-trace"];
/// The section of docs/install.md that the archive has as its README.md.
const SECTION: &str = "\n## The archive\n";

/// Makes the archive in `folder`. The same files give the same bytes.
pub(super) fn archive(source: &Source, work: &Path, folder: &Path) -> Result<PathBuf> {
    let name = format!("pidns-trace-{}-{}-linux", source.version, std::env::consts::ARCH);
    let root = work.join("archive").join(&name);
    copy_all(&work.join("stage"), &root)?;
    copy_all(&work.join("systemd"), &root.join("systemd"))?;
    copy_all(&work.join("default"), &root.join("systemd/default"))?;
    fs::remove_file(root.join("changelog.Debian")).context("cannot remove Debian's changelog")?;
    let unit = root.join("systemd/pidns-trace-agent.service");
    write(&unit, &for_usr_local(&read(&unit)?)?)?;
    let sources = self::root()?;
    write(&root.join("README.md"), &readme(source.version, &read(&sources.join("docs/install.md"))?)?)?;
    write(&root.join("CHANGELOG.md"), &without_links(&read(&sources.join("CHANGELOG.md"))?))?;
    let path = folder.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.args(["--mode=u=rwX,go=rX", &format!("--mtime=@{}", source.epoch)]);
    // `-n` keeps the file name and the time out of gzip's header.
    tar.args(["--use-compress-program=gzip -9n", "-cf"]).arg(&path);
    shell::run(tar.arg("-C").arg(work.join("archive")).arg(&name))?;
    Ok(path)
}

fn for_usr_local(unit: &str) -> Result<String> {
    let [packaged, by_hand] = PROGRAMS;
    if !unit.contains(packaged) {
        bail!("the unit does not start {packaged}");
    }
    Ok(unit.replace(packaged, by_hand))
}

/// README.md of the archive: how to install its files. The archive has no other page that it could link to.
fn readme(version: &str, install: &str) -> Result<String> {
    let section = section(install)?;
    Ok(format!("# pidns-trace {version}\n{}", without_links(section)))
}

/// The section of docs/install.md about the archive.
pub(super) fn section(install: &str) -> Result<&str> {
    let (_, rest) =
        install.split_once(SECTION).context("docs/install.md has no section about the archive")?;
    Ok(rest.split_once("\n## ").map_or(rest, |(section, _)| section))
}

/// Replaces links to other files by their text.
fn without_links(page: &str) -> String {
    let mut out = String::new();
    let mut rest = page;
    while let Some(middle) = rest.find("](") {
        let (before, after) = (&rest[..middle], &rest[middle + 2..]);
        let (Some(open), Some(close)) = (before.rfind('['), after.find(')')) else { break };
        if after.starts_with("https://") {
            out.push_str(&rest[..middle + 2 + close + 1]);
        } else {
            out.push_str(&before[..open]);
            out.push_str(&before[open + 1..]);
        }
        rest = &after[close + 1..];
    }
    out + rest
}

fn debian_changelog(source: &Source) -> Result<String> {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["-u", "-R", &format!("-d@{}", source.epoch)]);
    let date = shell::ask(&mut date).context("`date` fails")?;
    Ok(format!(
        "pidns-trace ({}-{}) unstable; urgency=medium\n\n  * See CHANGELOG.md of the sources for the changes.\n\n \
         -- The pidns-trace authors <maintainers@pidns-trace.example>  {}\n",
        source.version,
        super::packages::FIRST,
        date.trim()
    ))
}

/// The root directory of this repository.
pub(super) fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not in a workspace")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Copies a file, or a directory with all its contents.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    if from.is_file() {
        return copy(from, to);
    }
    fs::create_dir_all(to).with_context(|| format!("cannot create the directory {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let name = entry.context("cannot read a directory to its end")?.file_name();
        copy_all(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    if text.is_empty() {
        bail!("nothing to write into {}", path.display());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_archive_link_to_no_file() {
        let page = "See [the agent](docs/agent.md#privileges), [1.1.0](https://keep.example/1) and\n[it](x.md). [a] (b) a](b\n";
        let expected = "See the agent, [1.1.0](https://keep.example/1) and\nit. [a] (b) a](b\n";
        assert_eq!(without_links(page), expected);
        let sources = root().expect("the workspace");
        let install = read(&sources.join("docs/install.md")).expect("a page");
        let readme = readme("1.2.3", &install).expect("its section");
        let changes = without_links(&read(&sources.join("CHANGELOG.md")).expect("a page"));
        for (page, part) in [(&readme, "systemctl"), (&changes, "### Added")] {
            assert!(page.contains(part), "{page}");
            let links = page.split("](").skip(1).filter(|link| !link.starts_with("https://"));
            assert_eq!(links.count(), 0, "{page}");
        }
    }

    #[test]
    fn the_unit_in_the_archive_starts_the_program_where_it_is_installed() {
        let unit = read(&root().expect("the workspace").join("packaging/systemd/pidns-trace-agent.service"));
        let unit = for_usr_local(&unit.expect("the unit")).expect("it starts the program");
        let starts: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
        assert_eq!(starts, ["/usr/local/bin/pidns-trace agent $ARGS"]);
    }
}
