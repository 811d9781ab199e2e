//! Debian's archive, read through apt with separate lists. The machine's own lists do not change, and need not have
//! the wanted suite. apt takes the address of the archive from the machine's configuration.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Lists of packages in a separate directory.
pub(super) struct Lists {
    /// Where the lists come from, for messages.
    of: String,
    folder: PathBuf,
}

impl Lists {
    /// The lists of one suite of the archive, such as `sid`.
    pub(super) fn of_suite(name: &'static str, folder: PathBuf) -> Result<Self> {
        let lists = Self::new(name.to_owned(), folder)?;
        let site = site_of(name, &configured()?)?;
        write(&lists.folder.join("sources.list"), &format!("deb [arch=amd64] {site} {name} main\n"))?;
        lists.configure(&format!(
            "Dir::Etc::sourcelist \"{}/sources.list\";\n\
             Dir::Etc::sourceparts \"-\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n",
            lists.folder.display()
        ))?;
        Ok(lists)
    }

    /// The lists of the machine's package sources. They are downloaded separately, because only root may update the
    /// machine's own.
    pub(super) fn of_machine(folder: PathBuf) -> Result<Self> {
        let lists = Self::new("this machine's package sources".to_owned(), folder)?;
        lists.configure("")?;
        Ok(lists)
    }

    fn new(of: String, folder: PathBuf) -> Result<Self> {
        let folder = std::path::absolute(&folder).context("the folder of apt's lists")?;
        for part in ["lists/partial", "archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
        }
        Ok(Self { of, folder })
    }

    /// Writes the settings that differ from the machine's configuration. The machine's proxies and keys stay in use.
    fn configure(&self, sources: &str) -> Result<()> {
        let folder = self.folder.display();
        let text = format!(
            "{sources}Dir::State::lists \"{folder}/lists\";\n\
             Dir::Cache::archives \"{folder}/archives\";\n\
             Dir::Cache::pkgcache \"\";\n\
             Dir::Cache::srcpkgcache \"\";\n\
             // apt's own user may not be let into this folder.\n\
             APT::Sandbox::User \"root\";\n\
             APT::Update::Error-Mode \"any\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n"
        );
        write(&self.folder.join("apt.conf"), &text)
    }

    /// Downloads the lists.
    pub(super) fn update(&self) -> Result<()> {
        shell::run(self.apt("apt-get").args(["-q", "update"]))
            .with_context(|| format!("apt has no lists of {}", self.of))
    }

    /// The list of all packages of a suite.
    pub(super) fn packages(&self) -> Result<String> {
        let mut targets = self.apt("apt-get");
        targets.args(["indextargets", "--format", "$(FILENAME)", "Created-By: Packages"]);
        let files = shell::ask(&mut targets).context("`apt-get indextargets` fails")?;
        let file = files.lines().next().context("`apt-get indextargets` names no list of packages")?;
        // apt may compress the list in one of many formats.
        shell::ask(self.apt("/usr/lib/apt/apt-helper").args(["cat-file", file]))
            .with_context(|| format!("apt-helper cannot read {file}"))
    }

    /// The packages that an installation would add, as `package=version`. It removes no package.
    pub(super) fn missing_for(&self, package: &str) -> Result<Vec<String>> {
        let mut install = self.apt("apt-get");
        install.args(["install", "--simulate", "--no-install-recommends", package]);
        let plan = shell::ask(&mut install).with_context(|| {
            format!("apt knows no way to install {package}: `{}` fails", shell::describe(&install))
        })?;
        Ok(plan.lines().filter_map(installed).collect())
    }

    /// Downloads packages, each `package=version`, into an existing directory.
    pub(super) fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        shell::run(self.apt("apt-get").args(["-q", "download"]).args(packages).current_dir(into))
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C.UTF-8");
        apt
    }
}

/// The package that a line of a simulation installs: `Inst seabios (1.16.2-1 Debian:12.15/oldstable [all])`. If an
/// older version is installed, it is in square brackets before that.
fn installed(line: &str) -> Option<String> {
    let (name, versions) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let (_, new) = versions.split_once('(')?;
    Some(format!("{name}={}", new.split_whitespace().next()?))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The archives that this machine takes packages from.
fn configured() -> Result<Vec<Archive>> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", Archive::FORMAT, "Created-By: Packages"]);
    let targets = shell::ask(&mut targets).context("`apt-get indextargets` fails: is this a Debian?")?;
    Ok(targets.lines().filter_map(Archive::parse).collect())
}

/// A configured source of packages.
#[derive(Debug, PartialEq, Eq)]
struct Archive {
    site: String,
    release: String,
    /// The origin in its Release file. `None` before the first `apt-get update`.
    origin: Option<String>,
}

impl Archive {
    const FORMAT: &str = "$(REPO_URI) $(RELEASE) $(ORIGIN)";

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (site, release) = (words.next()?.to_owned(), words.next()?.to_owned());
        // apt prints an unknown field as it was requested.
        let origin = words.next().filter(|origin| !origin.starts_with("$(")).map(str::to_owned);
        Some(Self { site, release, origin })
    }

    fn is_debian(&self) -> bool {
        match &self.origin {
            Some(origin) => origin == "Debian",
            None => self.site.trim_end_matches('/').rsplit('/').next().is_some_and(is_debian_folder),
        }
    }

    fn is_security(&self) -> bool {
        self.release.ends_with("-security") || self.release.ends_with("/updates")
    }
}

fn is_debian_folder(folder: &str) -> bool {
    folder == "debian" || folder == "debian-security"
}

/// The address of a suite. Security suites are in a directory next to the main archive, under another name.
fn site_of(suite: &str, archives: &[Archive]) -> Result<String> {
    let security = suite.ends_with("-security");
    let mut debian = archives.iter().filter(|archive| archive.is_debian());
    if let Some(archive) = debian.clone().find(|archive| archive.is_security() == security) {
        return Ok(archive.site.clone());
    }
    // A mirror of one mostly has the other too.
    if let Some(archive) = debian.next() {
        let site = archive.site.trim_end_matches('/').trim_end_matches("-security");
        return Ok(format!("{site}{}/", if security { "-security" } else { "" }));
    }
    bail!(
        "this machine takes no packages from Debian's archive, which has the kernels to test on: see \
         /etc/apt/sources.list and /etc/apt/sources.list.d/"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archives(lines: &[&str]) -> Vec<Archive> {
        lines.iter().filter_map(|line| Archive::parse(line)).collect()
    }

    #[test]
    fn a_simulation_names_the_packages_to_install() {
        let lines = [
            "Reading package lists...",
            "Remv qemu-utils [1:10.0.2+ds-2]",
            "Inst seabios (1.16.2-1 Debian:12.15/oldstable [all])",
            "Inst passwd [1:4.13-1] (1:4.13-2 Debian:12.15/oldstable [amd64]) []",
            "Conf seabios (1.16.2-1 Debian:12.15/oldstable [all])",
        ];
        let found: Vec<_> = lines.into_iter().filter_map(installed).collect();
        assert_eq!(found, ["seabios=1.16.2-1", "passwd=1:4.13-2"]);
    }

    #[test]
    fn each_suite_is_looked_up_in_the_mirror_of_this_machine() {
        let archives = archives(&[
            "https://other.example/apt stable Vendor",
            "http://main.example/debian/ bookworm Debian",
            "http://main.example/debian/ bookworm-updates Debian",
            "http://security.example/debian-security/ bookworm-security Debian",
        ]);
        assert_eq!(site_of("sid", &archives).expect("main"), "http://main.example/debian/");
        assert_eq!(
            site_of("trixie-security", &archives).expect("security"),
            "http://security.example/debian-security/"
        );
    }

    #[test]
    fn before_the_first_update_debian_is_found_by_its_folder() {
        let archives = archives(&[
            "https://other.example/apt bookworm $(ORIGIN)",
            "http://main.example/debian/ bookworm $(ORIGIN)",
        ]);
        assert_eq!(site_of("sid", &archives).expect("main"), "http://main.example/debian/");
    }

    #[test]
    fn main_and_security_archive_replace_each_other() {
        let main = archives(&["http://main.example/debian bookworm Debian"]);
        assert_eq!(
            site_of("trixie-security", &main).expect("beside main"),
            "http://main.example/debian-security/"
        );
        let security = archives(&["http://main.example/debian-security bookworm-security Debian"]);
        assert_eq!(site_of("sid", &security).expect("beside security"), "http://main.example/debian/");
    }

    #[test]
    fn without_debian_the_error_names_the_configuration_files() {
        let others = archives(&["https://other.example/ubuntu noble Ubuntu", ""]);
        let error = site_of("sid", &others).expect_err("no Debian");
        assert!(error.to_string().contains("sources.list"), "{error}");
    }
}
