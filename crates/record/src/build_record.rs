//! What a binary was built from and how, joined to a run's record by [`BuildRecord::build_id`].

use serde::{Deserialize, Serialize};

use crate::hash::head;

/// The build of the program that ran. What could not be found out is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Version of the program.
    pub version: String,
    /// SHA-256 of what was built and how, all that is here but for what git knows: builds with the same id were made from the same source in
    /// the same way, of a clone or of an archive, as far as [`BuildRecord::cargo_lock_sha256`] fixes their dependencies.
    pub build_id: String,
    /// The source.
    pub source: Source,
    /// SHA-256 of Cargo.lock. It fixes every dependency where cargo keeps to it: `cargo build` and `cargo run` do in a clone, and bring it up to
    /// date first if it is not; `cargo install` does only with `--locked`: without it, versions may be others, and the program cannot know.
    pub cargo_lock_sha256: String,
    /// The compiler, as `rustc -vV` tells it: release, commit, host and LLVM.
    pub rustc: String,
    /// Version of cargo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cargo: Option<String>,
    /// The linker, where another than the compiler's own was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linker: Option<String>,
    /// Target triple.
    pub target: String,
    /// `-C target-cpu`, where it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_cpu: Option<String>,
    /// Instruction sets that the compiler was allowed to use everywhere, by commas.
    pub target_features: String,
    /// Flags of the compiler, where there were some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rustflags: Option<String>,
    /// `release` or `debug`.
    pub profile: String,
    /// Variables `CARGO_PROFILE_…` that changed what `Cargo.toml` says of the profile, with their values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_variables: Option<String>,
    /// Optimisation level of the program's own crate.
    pub opt_level: String,
    /// Whether debug assertions are on.
    pub debug_assertions: bool,
    /// Cargo features of the program, by commas.
    pub features: String,
    /// Version of burn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burn: Option<String>,
    /// Version of cubecl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cubecl: Option<String>,
}

/// Where the source is known by. Everything but the digest is absent for a source archive without git.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// SHA-256 over the names and digests of all files that the program is made of; none in its folders begins with a dot.
    pub sha256: String,
    /// The newest commit that changed one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// That commit as a Software Heritage identifier, `swh:1:rev:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Its folder as a Software Heritage identifier, `swh:1:dir:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Whether files differ from the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<bool>,
    /// SHA-256 of `git diff`, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_sha256: Option<String>,
    /// Files that git does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untracked: Option<usize>,
    /// Where it can be cloned from, without user and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
}

impl BuildRecord {
    /// `0.1.0+g1a2b3c4d5e6f`, with `.dirty` for a source that is no commit's; the bare version without git.
    #[must_use]
    pub fn full_version(&self) -> String {
        let Some(commit) = &self.source.commit else { return self.version.clone() };
        let dirty = if self.source.dirty == Some(true) { ".dirty" } else { "" };
        format!("{}+g{}{dirty}", self.version, head(commit))
    }

    /// An absolute URI of the program: the commit at Software Heritage, or else one that leads nowhere and holds the digest of its source.
    #[must_use]
    pub fn uri(&self) -> String {
        match &self.source.revision {
            Some(revision) => format!("https://archive.softwareheritage.org/{revision}"),
            None => format!("https://infalign.invalid/source/{}", self.source.sha256),
        }
    }

    /// Name and value of everything that is known, in the order of the fields.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let source = &self.source;
        let given = |value: &Option<String>| value.clone();
        let rows = [
            ("version", Some(self.full_version())),
            ("build id", Some(self.build_id.clone())),
            ("commit", given(&source.revision).or(given(&source.commit))),
            ("tree", given(&source.directory)),
            ("dirty", source.dirty.map(|dirty| dirty.to_string())),
            ("diff SHA-256", given(&source.diff_sha256)),
            ("untracked files", source.untracked.map(|n| n.to_string())),
            ("remote", given(&source.remote)),
            ("source SHA-256", Some(source.sha256.clone())),
            ("Cargo.lock SHA-256", Some(self.cargo_lock_sha256.clone())),
            ("rustc", Some(self.rustc.clone())),
            ("cargo", given(&self.cargo)),
            ("linker", given(&self.linker)),
            ("target", Some(self.target.clone())),
            ("target CPU", given(&self.target_cpu)),
            ("target features", Some(self.target_features.clone())),
            ("rustflags", given(&self.rustflags)),
            ("profile", Some(format!("{}, opt-level {}", self.profile, self.opt_level))),
            ("variables of the profile", given(&self.profile_variables)),
            ("debug assertions", Some(self.debug_assertions.to_string())),
            ("features", Some(self.features.clone())),
            ("burn", given(&self.burn)),
            ("cubecl", given(&self.cubecl)),
        ];
        rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_tells_commit_and_dirt() {
        let mut build = BuildRecord { version: "0.1.0".into(), ..BuildRecord::default() };
        assert_eq!(build.full_version(), "0.1.0");
        assert!(build.uri().starts_with("https://infalign.invalid/"));
        build.source.commit = Some("0123456789abcdef".into());
        build.source.revision = Some("swh:1:rev:0123456789abcdef".into());
        assert_eq!(build.full_version(), "0.1.0+g0123456789ab");
        build.source.dirty = Some(true);
        assert_eq!(build.full_version(), "0.1.0+g0123456789ab.dirty");
        assert!(build.uri().ends_with("swh:1:rev:0123456789abcdef"));
    }

    #[test]
    fn what_is_unknown_is_absent() {
        let build = BuildRecord::default();
        let text = serde_json::to_string(&build).unwrap();
        assert!(!text.contains("commit") && !text.contains("target_cpu"), "{text}");
        assert_eq!(serde_json::from_str::<BuildRecord>(&text).unwrap(), build);
        assert!(build.rows().iter().all(|(name, _)| *name != "commit"));
    }
}
