//! Where this machine has the files that backends need.

use std::path::{Path, PathBuf};

/// Where libraries lie that no variable names.
const LIBRARIES: [&str; 7] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/lib",
];

/// Whether this program is linked statically, which musl's are unless `-crt-static` is asked for.
pub(crate) const IS_STATIC: bool = cfg!(all(target_env = "musl", target_feature = "crt-static"));

/// Why such a program has no use for what the machine has.
pub(crate) const LOADS_NONE: &str = "this program is linked statically, with musl, so that it loads no drivers: take one that is built for \
     glibc, whose target ends in -linux-gnu";

/// A shared library, by the name that it is loaded by.
pub(crate) fn library(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let toolkit = toolkits().map(|folder| folder.join("lib64"));
    let folders = std::env::split_paths(&named).chain(LIBRARIES.map(PathBuf::from)).chain(toolkit);
    folders.map(|folder| folder.join(name)).find(|path| path.exists())
}

/// A file of the CUDA toolkit.
#[cfg(feature = "cuda")]
pub(crate) fn cuda_file(path: &str) -> Option<PathBuf> {
    toolkits().map(|folder| folder.join(path)).find(|path| path.exists())
}

/// Where CUDA's toolkit may lie, as burn looks for it.
fn toolkits() -> impl Iterator<Item = PathBuf> {
    let named = std::env::var_os("CUDA_PATH").map(PathBuf::from);
    let usual = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"].map(PathBuf::from);
    named.into_iter().chain(usual)
}

/// Says whether a file was found.
pub(crate) fn told(name: &str, found: Option<&Path>) -> String {
    match found {
        Some(path) => format!("found: {}", path.display()),
        None => format!("{name} was not found"),
    }
}
