//! Chooses the package with the wanted kernel from the list of a suite.

use std::cmp::Reverse;

use super::wanted::KernelName;

/// A package that may hold the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) package: String,
    /// Debian's version, in the form that `apt-get download PACKAGE=VERSION` takes.
    pub(super) version: String,
}

/// Since 6.19, linux-image-* is an empty package that names the package with the kernel.
const SMALLEST_KERNEL: u64 = 1 << 20;

/// The packages with this kernel, the best first: newest version, then the flavour for virtual machines (smaller, and
/// boots faster), then the signed one. The others are fallbacks, because a mirror may lack the best one.
pub(super) fn candidates(packages: &str, kernel: &KernelName) -> Vec<Candidate> {
    let mut found: Vec<_> = packages
        .split("\n\n")
        .filter_map(|stanza| {
            let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
            let (package, version) = (field("Package: ")?, field("Version: ")?);
            let size: u64 = field("Size: ")?.parse().ok()?;
            let image = Image::of(package).filter(|image| image.is(kernel) && size >= SMALLEST_KERNEL)?;
            let rank = (Reverse(numbers(version)), !image.cloud, image.unsigned, package.to_owned());
            Some((rank, Candidate { package: package.to_owned(), version: version.to_owned() }))
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// The facts in the name of a package.
struct Image<'a> {
    /// A version such as `6.12.117+deb13`.
    abi: &'a str,
    cloud: bool,
    unsigned: bool,
}

impl<'a> Image<'a> {
    fn of(package: &'a str) -> Option<Self> {
        let name = package.strip_prefix("linux-image-").or_else(|| package.strip_prefix("linux-binary-"))?;
        let (name, unsigned) = match name.strip_suffix("-unsigned") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let name = name.strip_suffix("-amd64")?;
        let (abi, cloud) = match name.strip_suffix("-cloud") {
            Some(abi) => (abi, true),
            None => (name, false),
        };
        (!abi.ends_with("-rt")).then_some(Self { abi, cloud, unsigned })
    }

    fn is(&self, kernel: &KernelName) -> bool {
        // Require a third number: a name without one belongs to a package without a kernel.
        let version = self.abi.match_indices('.').nth(1).map(|(end, _)| &self.abi[..end]);
        version.is_some_and(|version| kernel.as_str() == KernelName::NEWEST || version == kernel.as_str())
    }
}

/// The numbers in a version, for sorting.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(packages: &[(&str, &str, u64)]) -> String {
        let stanza = |(package, version, size): &(&str, &str, u64)| {
            format!("Package: {package}\nSource: linux\nVersion: {version}\nSize: {size}\n")
        };
        packages.iter().map(stanza).collect::<Vec<_>>().join("\n")
    }

    fn chosen(packages: &str, kernel: &str) -> Vec<String> {
        let kernel = kernel.parse().expect("a kernel");
        candidates(packages, &kernel).into_iter().map(|candidate| candidate.package).collect()
    }

    #[test]
    fn the_newest_comes_first_and_the_rest_are_fallbacks() {
        let packages = list(&[
            ("linux-image-6.1.0-9-cloud-amd64", "6.1.99-1", 27 << 20),
            ("linux-image-6.1.0-56-amd64", "6.1.192-1", 70 << 20),
            ("linux-image-6.1.0-56-cloud-amd64-unsigned", "6.1.192-1", 27 << 20),
            ("linux-image-6.1.0-56-cloud-amd64", "6.1.192-1", 27 << 20),
        ]);
        let expected = [
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
        ];
        assert_eq!(chosen(&packages, "6.1"), expected);
    }

    #[test]
    fn other_kernels_and_packages_without_a_kernel_are_skipped() {
        let packages = list(&[
            ("linux-image-6.1-cloud-amd64", "6.1.192-1", 27 << 20),
            ("linux-image-6.12.117+deb13-cloud-amd64", "6.12.117-1", 35 << 20),
            ("linux-image-6.1.0-56-rt-amd64", "6.1.192-1", 70 << 20),
            ("linux-image-7.2.13+deb14-cloud-amd64", "7.2.13-1", 2000),
            ("linux-binary-7.2.13+deb14-cloud-amd64", "7.2.13-1", 14 << 20),
            ("linux-headers-6.1.0-56-cloud-amd64", "6.1.192-1", 2 << 20),
            ("linux-image-6.1.0-56-cloud-amd64-dbg", "6.1.192-1", 900 << 20),
        ]);
        assert!(chosen(&packages, "6.1").is_empty(), "{:?}", chosen(&packages, "6.1"));
        assert_eq!(chosen(&packages, "7.2"), ["linux-binary-7.2.13+deb14-cloud-amd64"]);
    }

    #[test]
    fn newest_is_the_highest_version_of_all() {
        let packages = list(&[
            ("linux-image-6.12.117+deb13-cloud-amd64", "6.12.117-1", 35 << 20),
            ("linux-binary-7.10.1+deb14-cloud-amd64", "7.10.1-1", 14 << 20),
            ("linux-binary-7.2.13+deb14-cloud-amd64", "7.2.13-1", 14 << 20),
        ]);
        assert_eq!(chosen(&packages, "newest")[0], "linux-binary-7.10.1+deb14-cloud-amd64");
    }
}
