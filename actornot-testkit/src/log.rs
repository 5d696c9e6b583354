//! What a program logs, kept to be searched.

use std::io::{Result, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// A place to log to; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Everything that was written.
    ///
    /// # Panics
    /// If that is nothing: whoever searches it for what must not be there would prove nothing.
    pub fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!bytes.is_empty(), "nothing was logged");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether a text was written.
    pub fn has(&self, text: &str) -> bool {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).contains(text)
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
