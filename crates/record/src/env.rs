//! The environment variables that infalign reads, each through one function.

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
    fn an_empty_variable_counts_as_unset() {
        assert_eq!(folder(None), None);
        assert_eq!(folder(Some(OsString::new())), None);
        assert_eq!(folder(Some("data".into())), Some(PathBuf::from("data")));
    }
}
