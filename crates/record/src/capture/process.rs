//! This process: its program, its threads, its memory.

use super::host::kib;
use crate::hash::sha256_file;

/// SHA-256 of the program that is running; none where its file cannot be read.
#[must_use]
pub fn executable_sha256() -> Option<String> {
    // On Linux this is the file that was started, even if another has taken its name since.
    let running = std::path::Path::new("/proc/self/exe");
    let path = if running.exists() { running.into() } else { std::env::current_exe().ok()? };
    sha256_file(&path).ok()
}

/// Threads that rayon uses: `RAYON_NUM_THREADS`, or all processors that this process may use.
#[must_use]
pub fn threads() -> usize {
    let given = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok());
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    given.filter(|n| *n > 0).unwrap_or_else(all)
}

/// The most memory that this process has held at a time, in bytes; none where the system does not tell.
#[must_use]
pub fn peak_memory_bytes() -> Option<u64> {
    kib(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM").map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_program_and_its_memory_are_known() {
        assert_eq!(executable_sha256().unwrap().len(), 64);
        assert!(peak_memory_bytes().unwrap() > 1 << 20);
        assert!(threads() > 0);
    }
}
