//! What the program is built from and how, handed to it as environment variables of the compiler (`src/build_record.rs` reads them).
//!
//! Nothing here depends on the time or on where the repository lies, so that builds stay the same bit for bit. The source is what the
//! program is made of, not documents or tests: so only a change of it runs this again. The commit is the newest one that changed the
//! source. While the source is no commit's, the next commit runs this again, too.

#![allow(clippy::print_stdout, reason = "it is how cargo is told")]

#[path = "src/source.rs"]
mod source;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

fn main() {
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")).join("../..");
    let parts = source::parts(&root);
    let mut known = vec![("SOURCE_SHA256", sources_digest(&root, &parts))];
    let lock = std::fs::read(root.join("Cargo.lock")).unwrap_or_default();
    known.push(("LOCK_SHA256", hex(&Sha256::digest(&lock))));
    known.extend(compiler());
    let lock = String::from_utf8_lossy(&lock);
    known.extend(locked(&lock, "burn").map(|version| ("BURN", version)));
    known.extend(locked(&lock, "cubecl").map(|version| ("CUBECL", version)));
    let all = known.iter().map(|(name, value)| format!("{name}={value}\n")).collect::<String>();
    known.push(("ID", hex(&Sha256::digest(all.as_bytes()))));
    // Not part of what is built: an archive of the source has the same id as a clone.
    known.extend(git(&root, &parts));
    for (name, value) in &known {
        println!("cargo:rustc-env=INFALIGN_BUILD_{name}={value}");
    }
    for part in &parts {
        println!("cargo:rerun-if-changed={}", root.join(part).display());
    }
    for name in variables_of_profile() {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let is_dirty = known.iter().any(|(name, value)| *name == "DIRTY" && value == "true");
    let head = is_dirty.then(|| run(&root, &["rev-parse", "--git-path", "logs/HEAD"])).flatten();
    if let Some(head) = head.map(|path| root.join(path)).filter(|path| path.exists()) {
        println!("cargo:rerun-if-changed={}", head.display());
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// SHA-256 over a line for each file: its digest and its name.
fn sources_digest(root: &Path, parts: &[String]) -> String {
    let mut lines = String::new();
    for part in parts {
        let mut files = Vec::new();
        collect(&root.join(part), part, &mut files);
        files.sort();
        for (name, path) in files {
            let bytes = std::fs::read(path).unwrap_or_default();
            let _ = writeln!(lines, "{}  {name}", hex(&Sha256::digest(&bytes)));
        }
    }
    hex(&Sha256::digest(lines.as_bytes()))
}

fn collect(path: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) {
    if !path.is_dir() {
        files.push((name.to_owned(), path.to_path_buf()));
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if !source::is_hidden(&name) {
            collect(&entry.path(), &name, files);
        }
    }
}

/// What git knows, if the root is that of a repository: an archive of the source within another repository is none.
fn git(root: &Path, parts: &[String]) -> Vec<(&'static str, String)> {
    let top = run(root, &["rev-parse", "--show-toplevel"])
        .and_then(|top| Path::new(&top).canonicalize().ok());
    if top.is_none() || top != root.canonicalize().ok() {
        return Vec::new();
    }
    let on_parts = |words: &[&str]| source::of_parts(root, parts, words).map(line);
    let Some(commit) = on_parts(&["log", "-1", "--format=%H"]).filter(|commit| !commit.is_empty())
    else {
        return Vec::new();
    };
    let diff = source::diff(root, parts).unwrap_or_default();
    let untracked = on_parts(&["ls-files", "--others", "--exclude-standard"]).unwrap_or_default();
    let untracked = untracked.lines().count();
    let mut known = vec![
        ("DIRTY", (!diff.is_empty() || untracked > 0).to_string()),
        ("UNTRACKED", untracked.to_string()),
    ];
    if !diff.is_empty() {
        known.push(("DIFF_SHA256", hex(&Sha256::digest(&diff))));
    }
    // Software Heritage's identifiers are those of git where git's are SHA-1.
    if commit.len() == 40 {
        known.push(("REVISION", format!("swh:1:rev:{commit}")));
        let tree = run(root, &["rev-parse", &format!("{commit}^{{tree}}")]);
        known.extend(tree.map(|tree| ("DIRECTORY", format!("swh:1:dir:{tree}"))));
    }
    known.push(("COMMIT", commit));
    let remote = run(root, &["config", "--get", "remote.origin.url"]);
    known.extend(remote.and_then(|url| public(&url)).map(|url| ("REMOTE", url)));
    known
}

/// An address without user and password; none for a folder of this machine.
fn public(url: &str) -> Option<String> {
    if let Some((scheme, rest)) = url.split_once("://") {
        let host = rest.split_once('@').map_or(rest, |(_, host)| host);
        return (scheme != "file").then(|| format!("{scheme}://{host}"));
    }
    let (_, place) = url.split_once('@')?;
    let (host, path) = place.split_once(':')?;
    Some(format!("ssh://{host}/{path}"))
}

/// The output of git as a line, if it succeeds.
fn run(root: &Path, words: &[&str]) -> Option<String> {
    source::git(root, words).map(line)
}

fn line(output: Vec<u8>) -> String {
    String::from_utf8_lossy(&output).trim_end().to_owned()
}

/// What cargo says of the compiler and of what it is asked for.
fn compiler() -> Vec<(&'static str, String)> {
    let flags = variable("CARGO_ENCODED_RUSTFLAGS").replace('\u{1f}', " ");
    let cpu = flags.split("target-cpu=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let mut known = vec![
        ("RUSTC", rustc(&told_by("RUSTC", "-vV").unwrap_or_default())),
        ("TARGET", variable("TARGET")),
        ("TARGET_FEATURES", variable("CARGO_CFG_TARGET_FEATURE")),
        ("PROFILE", variable("PROFILE")),
        ("OPT_LEVEL", variable("OPT_LEVEL")),
        ("FEATURES", features()),
    ];
    known.extend(cpu.map(|cpu| ("TARGET_CPU", cpu.to_owned())));
    known.extend(told_by("CARGO", "-V").map(|version| ("CARGO", version)));
    let optional = [
        ("RUSTFLAGS", flags),
        ("LINKER", variable("RUSTC_LINKER")),
        ("PROFILE_VARIABLES", profile_variables()),
    ];
    known.extend(optional.into_iter().filter(|(_, value)| !value.is_empty()));
    known
}

fn features() -> String {
    let names = std::env::vars().filter_map(|(name, _)| {
        name.strip_prefix("CARGO_FEATURE_").map(|name| name.to_lowercase().replace('_', "-"))
    });
    let mut names: Vec<String> = names.filter(|name| name != "default").collect();
    names.sort();
    names.join(",")
}

/// What a program that cargo names in a variable prints.
fn told_by(name: &str, option: &str) -> Option<String> {
    let output = Command::new(variable(name)).arg(option).output().ok()?;
    output.status.success().then(|| line(output.stdout))
}

/// Release, commit, host and LLVM of the compiler, from what it says of itself.
fn rustc(text: &str) -> String {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map_or("unknown".to_owned(), |value| value.trim().to_owned())
    };
    let (release, commit, host, llvm) =
        (value("release:"), value("commit-hash:"), value("host:"), value("LLVM version:"));
    format!("rustc {release} ({commit}) on {host}, LLVM {llvm}")
}

/// Variables of the environment that change what `Cargo.toml` says of the profile.
fn variables_of_profile() -> impl Iterator<Item = String> {
    let profile = if variable("PROFILE") == "release" { "RELEASE" } else { "DEV" };
    let settings = ["CODEGEN_UNITS", "DEBUG_ASSERTIONS", "LTO", "OPT_LEVEL", "OVERFLOW_CHECKS"];
    settings.into_iter().map(move |setting| format!("CARGO_PROFILE_{profile}_{setting}"))
}

/// Those that are set, with their values.
fn profile_variables() -> String {
    let set = variables_of_profile().map(|name| (variable(&name), name));
    let set = set.filter(|(value, _)| !value.is_empty());
    set.map(|(value, name)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// The version of a package in Cargo.lock.
fn locked(lock: &str, name: &str) -> Option<String> {
    let entry = lock.replace("\r\n", "\n");
    let entry = entry.split(&format!("name = \"{name}\"\nversion = \"")).nth(1)?;
    entry.split('"').next().map(str::to_owned)
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
