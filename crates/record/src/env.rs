//! The environment variables that infalign reads, each through one function, and those that runs record.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The folder with the real data sets that some tests and recipes use, from `INFALIGN_DATA`.
///
/// `None` when the variable is unset or empty. The folder need not exist.
#[must_use]
pub fn data_dir() -> Option<PathBuf> {
    folder(std::env::var_os("INFALIGN_DATA"))
}

/// The local cache of the Hugging Face hub, where its own tools put models: `HF_HUB_CACHE`, else `HF_HOME/hub`, else
/// `huggingface/hub` in `XDG_CACHE_HOME` or in `~/.cache`. The folder need not exist.
#[must_use]
pub fn hub_cache() -> PathBuf {
    hub_cache_of(|name| folder(std::env::var_os(name)), std::env::home_dir().as_deref())
}

fn hub_cache_of(variable: impl Fn(&str) -> Option<PathBuf>, home: Option<&Path>) -> PathBuf {
    let caches = || variable("XDG_CACHE_HOME").unwrap_or_else(|| "~/.cache".into());
    let hub_home = || variable("HF_HOME").unwrap_or_else(|| caches().join("huggingface"));
    // The second name is the first one's older form, which the hub's tools still read.
    let own = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
    let cache = own.unwrap_or_else(|| hub_home().join("hub"));
    match (cache.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => cache,
    }
}

/// The only variables whose values a run records: what changes results or speed, and the scheduler's job. There is no way to record
/// others but to add them here.
pub const RECORDED: [&str; 29] = [
    "CUBECL_AUTOTUNE_LEVEL",
    "CUBECL_DEBUG_OPTION",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "LANG",
    "MIMALLOC_PURGE_DELAY",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "PBS_ARRAY_INDEX",
    "PBS_JOBID",
    "PBS_QUEUE",
    "RAYON_NUM_THREADS",
    "RUSTFLAGS",
    "RUST_BACKTRACE",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_CLUSTER_NAME",
    "SLURM_CPUS_PER_TASK",
    "SLURM_GPUS",
    "SLURM_GPUS_ON_NODE",
    "SLURM_JOB_ID",
    "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_PARTITION",
    "SLURM_MEM_PER_NODE",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "TZ",
    "VK_ICD_FILENAMES",
    "WGPU_BACKEND",
];

/// Those of [`RECORDED`] that are set.
#[must_use]
pub fn recorded() -> BTreeMap<String, String> {
    let value = |name: &&str| std::env::var(name).ok().map(|value| ((*name).to_owned(), value));
    RECORDED.iter().filter_map(value).collect()
}

/// Who runs, where they want it recorded: `INFALIGN_AGENT` and `INFALIGN_AGENT_ORCID`.
#[must_use]
pub fn agent() -> (Option<String>, Option<String>) {
    let value = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    (value("INFALIGN_AGENT"), value("INFALIGN_AGENT_ORCID"))
}

/// Address of the licence under which a run's folder is given away, from `INFALIGN_LICENSE`.
#[must_use]
pub fn license() -> Option<String> {
    std::env::var("INFALIGN_LICENSE").ok().filter(|value| !value.is_empty())
}

/// Names the run that this process repeats, by its `uuid`; set by `infalign replicate` for the run that it starts.
pub const BASED_ON: &str = "INFALIGN_BASED_ON";

/// The run that this process repeats.
#[must_use]
pub fn based_on() -> Option<String> {
    let plain = |uuid: &String| uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    std::env::var(BASED_ON).ok().filter(|uuid| !uuid.is_empty()).filter(plain)
}

/// Secrets that tools keep in files: the hub's token, and the passwords of `.netrc`.
pub(crate) fn token_files() -> Vec<(String, String)> {
    let hub = hub_cache().parent().map(|home| home.join("token"));
    let hub = hub.and_then(|path| std::fs::read_to_string(path).ok());
    let netrc = std::env::home_dir().map(|home| home.join(".netrc"));
    let netrc = netrc.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let words: Vec<&str> = netrc.split_whitespace().collect();
    let passwords = words.windows(2).filter(|pair| pair[0] == "password").map(|pair| pair[1]);
    let passwords = passwords.map(|value| (".netrc".to_owned(), value.to_owned()));
    hub.map(|token| ("the hub's token file".to_owned(), token))
        .into_iter()
        .chain(passwords)
        .collect()
}

/// A path as it is recorded: `~` in place of the home folder, which would name a person.
#[must_use]
pub fn without_home(text: &str) -> String {
    match std::env::home_dir().map(|home| home.to_string_lossy().into_owned()) {
        Some(home) if home.len() > 1 => text.replace(&home, "~"),
        _ => text.to_owned(),
    }
}

/// A word of a command line on record with the home folder where [`without_home`] has put `~`: at its beginning, or that of an option's value.
#[must_use]
pub fn with_home(word: &str) -> String {
    let (option, value) = match word.split_once('=') {
        Some((option, value)) if option.starts_with("--") => (format!("{option}="), value),
        _ => (String::new(), word),
    };
    match (value.strip_prefix('~'), std::env::home_dir()) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            format!("{option}{}{rest}", home.display())
        }
        _ => word.to_owned(),
    }
}

fn folder(value: Option<OsString>) -> Option<PathBuf> {
    value.filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_variable_tells_the_cache() {
        let home = Path::new("me");
        let cache = |set: &[(&str, &str)], home| {
            let value =
                |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, v)| v.into());
            hub_cache_of(value, home)
        };
        let is = |set: &[(&str, &str)], expected: &str| {
            assert_eq!(cache(set, Some(home)), Path::new(expected), "{set:?}");
        };
        let (xdg, hf) = (("XDG_CACHE_HOME", "x"), ("HF_HOME", "h"));
        is(&[], "me/.cache/huggingface/hub");
        is(&[xdg], "x/huggingface/hub");
        is(&[xdg, hf], "h/hub");
        is(&[xdg, hf, ("HUGGINGFACE_HUB_CACHE", "old")], "old");
        is(&[xdg, ("HF_HUB_CACHE", "c"), ("HUGGINGFACE_HUB_CACHE", "old")], "c");
        is(&[("HF_HOME", "~/h")], "me/h/hub");
        assert_eq!(cache(&[hf], None), Path::new("h/hub"));
    }

    #[test]
    fn no_recorded_variable_sounds_like_a_secret_and_each_is_named_once() {
        let secret = ["KEY", "TOKEN", "SECRET", "PASSW", "CRED", "AUTH", "COOKIE", "SESSION"];
        for name in RECORDED {
            assert!(secret.iter().all(|word| !name.contains(word)), "{name}");
        }
        assert!(RECORDED.is_sorted(), "sorted, so that none is named twice");
        assert!(recorded().keys().all(|name| RECORDED.contains(&name.as_str())));
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        assert_eq!(folder(None), None);
        assert_eq!(folder(Some(OsString::new())), None);
        assert_eq!(folder(Some("data".into())), Some(PathBuf::from("data")));
    }
}
