//! A disk that can be filled.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A file system of a few megabytes. Needs root; there is no other way to fill a disk without filling the machine's.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Of a size such as `6m`.
    pub fn new(size: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("pgrail-disk-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "pgrail-test"])
            .arg(&directory)
            .status()
            .expect("the program mount");
        assert!(mounted.success(), "a small file system needs root: run this test as root");
        Self(directory)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}
