//! Writes an initramfs: a cpio archive in the format `newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

/// An archive that grows by one entry at a time. A directory must come before its contents.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const TRAILER: &str = "TRAILER!!!";

impl Archive {
    pub(super) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER | 0o755, &[]);
    }

    /// Adds a file that all users may read and execute.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE | 0o755, content);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        self.entries += 1;
        let inode = if path == TRAILER { 0 } else { self.entries };
        let size = u32::try_from(content.len()).expect("no file of an initramfs has 4 GiB");
        let name_size = u32::try_from(path.len() + 1).expect("a path is short");
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_equals_the_output_of_cpio() {
        let mut archive = Archive::default();
        archive.folder("/bin");
        archive.file("/bin/x", b"hello");
        let folder = "070701 00000001 000041ed 00000000 00000000 00000001 00000000 00000000 00000000 00000000 \
                      00000000 00000000 00000004 00000000 bin\0";
        let file = "070701 00000002 000081ed 00000000 00000000 00000001 00000000 00000005 00000000 00000000 \
                    00000000 00000000 00000006 00000000 bin/x\0";
        let trailer = "070701 00000000 00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 \
                       00000000 00000000 0000000b 00000000 TRAILER!!!\0";
        // The header of 110 bytes and the name are padded to a multiple of four, and so is the content.
        let expected = [
            &(folder.replace(' ', "") + "\0\0"),
            &file.replace(' ', ""),
            "hello\0\0\0",
            &(trailer.replace(' ', "") + "\0\0\0"),
        ];
        assert_eq!(String::from_utf8_lossy(&archive.finish()), expected.concat());
    }
}
