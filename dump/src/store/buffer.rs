//! Buffers that are used again: the memory of a transfer is a few of them, allocated once.

use tokio::sync::mpsc;

/// A buffer that goes back to its pool when its last user drops it. Large blocks that are allocated for each part would not be given
/// back to the system in time.
pub(super) struct Buffer {
    pub(super) content: Vec<u8>,
    pub(super) home: mpsc::UnboundedSender<Vec<u8>>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // The pool may be gone with the transfer; then the memory is simply freed.
        let _ = self.home.send(std::mem::take(&mut self.content));
    }
}
