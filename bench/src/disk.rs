//! How long the disk takes to make a small write durable: it decides what is fast here.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Instant;

use crate::Result;
use crate::latency::Latency;

/// fdatasync of one page that is written over and over, as a log's is.
pub(crate) fn fdatasync(folder: &Path) -> Result<Latency> {
    let path = folder.join("fdatasync");
    let mut file = File::create(&path)?;
    file.write_all(&[0; 1 << 20])?;
    file.sync_all()?;
    let mut times = Vec::new();
    for n in 0..200u8 {
        file.seek(SeekFrom::Start(u64::from(n) * 4096))?;
        file.write_all(&[n; 4096])?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(Latency::of(&times))
}
