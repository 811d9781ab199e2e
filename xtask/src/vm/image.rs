//! Extracts the ELF file and its BTF from a compressed x86 kernel.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _};

/// The kernel's BTF, as in /sys/kernel/btf/vmlinux.
pub(super) fn btf(vmlinuz: &Path) -> Result<Vec<u8>> {
    let image = fs::read(vmlinuz).with_context(|| format!("cannot read {}", vmlinuz.display()))?;
    let payload = Payload::of(&image)?;
    // Write a file for the decompressor: a pipe would need another thread to fill it.
    let compressed = vmlinuz.with_file_name("payload");
    fs::write(&compressed, payload.bytes)
        .with_context(|| format!("cannot write {}", compressed.display()))?;
    let vmlinux = decompress(payload.tool, &compressed);
    fs::remove_file(&compressed).with_context(|| format!("cannot remove {}", compressed.display()))?;
    section(&vmlinux?)
}

/// The compressed kernel, and the program that decompresses it.
#[derive(Debug, PartialEq, Eq)]
struct Payload<'a> {
    tool: &'static str,
    bytes: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Finds it with the x86 boot protocol, version 2.08 or newer (Documentation/arch/x86/boot.rst).
    fn of(image: &'a [u8]) -> Result<Self> {
        let word = |at: usize| -> Option<usize> {
            let bytes = image.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(bytes)).ok()
        };
        if image.get(0x202..0x206) != Some(b"HdrS") {
            bail!("not an x86 kernel: no HdrS at 0x202");
        }
        let sectors = match image[0x1f1] {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let place = || Some(((sectors + 1) * 512 + word(0x248)?, word(0x24c)?));
        let payload = place().and_then(|(start, length)| image.get(start..start.checked_add(length)?));
        let payload = payload.context("the kernel is shorter than its header states")?;
        let tool = tool_for(payload)?;
        // The build appends the size, except for gzip, whose format contains it.
        let bytes = if tool == "gzip" { payload } else { &payload[..payload.len().saturating_sub(4)] };
        Ok(Self { tool, bytes })
    }
}

fn tool_for(payload: &[u8]) -> Result<&'static str> {
    // The kernel uses lz4's legacy format.
    let known: [(&[u8], _); 4] = [
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x1f\x8b", "gzip"),
    ];
    let tool = known.iter().find_map(|(magic, tool)| payload.starts_with(magic).then_some(*tool));
    tool.with_context(|| {
        format!("a kernel compressed in an unknown way: {:02x?}", &payload[..payload.len().min(8)])
    })
}

fn decompress(tool: &str, file: &Path) -> Result<Vec<u8>> {
    let input = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let output = Command::new(tool)
        .args(["-d", "-c"])
        .stdin(input)
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot start {tool}"))?;
    if !output.status.success() {
        bail!("{tool}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

fn section(vmlinux: &[u8]) -> Result<Vec<u8>> {
    let file = object::File::parse(vmlinux).context("the decompressed kernel is not an ELF file")?;
    let section = file.section_by_name(".BTF").context("the kernel has no section .BTF")?;
    Ok(section.data().context("cannot read the kernel's section .BTF")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel with one sector of set-up code, and this payload 16 bytes after it.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024 + 16];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248] = 16;
        image[0x24c] = payload.len().try_into().expect("a short payload");
        image.extend_from_slice(payload);
        image.extend_from_slice(b"what comes after");
        image
    }

    #[test]
    fn the_payload_is_found_without_the_appended_size() {
        let image = image(b"\x28\xb5\x2f\xfdzstd\x01\x02\x03\x04");
        let payload = Payload::of(&image).expect("a payload");
        assert_eq!(payload, Payload { tool: "zstd", bytes: b"\x28\xb5\x2f\xfdzstd" });
    }

    #[test]
    fn a_file_that_is_not_a_kernel_is_refused() {
        for wrong in [&b""[..], &[0; 4096], &image(b"\x02\x21\x4c\x18...")[..1040], &image(b"????")] {
            assert!(Payload::of(wrong).is_err());
        }
    }
}
