//! The environment variables that infalign reads, each through one function, and those that runs record.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::RecordError;
use crate::record::Agent;

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
    // The second name is the first one's older form, which the hub's tools still read.
    let own = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
    let own = own.map(|cache| from_home(cache, home));
    own.unwrap_or_else(|| hub_home_of(variable, home).join("hub"))
}

/// Where the hub's tools keep what is theirs.
fn hub_home_of(variable: impl Fn(&str) -> Option<PathBuf>, home: Option<&Path>) -> PathBuf {
    let caches = || variable("XDG_CACHE_HOME").unwrap_or_else(|| "~/.cache".into());
    from_home(variable("HF_HOME").unwrap_or_else(|| caches().join("huggingface")), home)
}

/// Where the hub's tools may have put its token, the cache's neighbour included.
fn hub_tokens_of(variable: impl Fn(&str) -> Option<PathBuf>, home: Option<&Path>) -> Vec<PathBuf> {
    let own = variable("HF_TOKEN_PATH").map(|path| from_home(path, home));
    let (kept, cache) = (hub_home_of(&variable, home), hub_cache_of(&variable, home));
    let beside = cache.parent().map(Path::to_path_buf).filter(|folder| *folder != kept);
    let folders = std::iter::once(kept).chain(beside);
    own.into_iter().chain(folders.map(|folder| folder.join("token"))).collect()
}

/// A path with the home folder in place of a `~` that it begins with.
fn from_home(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
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

const AGENT: &str = "INFALIGN_AGENT";
const ORCID: &str = "INFALIGN_AGENT_ORCID";
const LICENSE: &str = "INFALIGN_LICENSE";

/// Who runs, where they want it recorded: `INFALIGN_AGENT`, a name, and `INFALIGN_AGENT_ORCID`, the digits or the address.
///
/// # Errors
/// [`RecordError::Variable`] for what is neither.
pub(crate) fn agent() -> Result<Option<Agent>, RecordError> {
    let Some(name) = given(AGENT) else { return Ok(None) };
    if name.contains(char::is_control) {
        return Err(RecordError::Variable { variable: AGENT, wanted: "a name on one line" });
    }
    let wanted = "an ORCID, such as 0000-0002-1825-0097 or https://orcid.org/0000-0002-1825-0097";
    let unknown = || RecordError::Variable { variable: ORCID, wanted };
    let orcid = given(ORCID).map(|text| orcid_of(&text).ok_or_else(unknown)).transpose()?;
    Ok(Some(Agent { name, orcid }))
}

/// Address of the licence under which a run's folder is given away, from `INFALIGN_LICENSE`: that address, or its identifier of SPDX.
///
/// # Errors
/// [`RecordError::Variable`] for what is neither.
pub(crate) fn license() -> Result<Option<String>, RecordError> {
    let wanted = "the address of a licence, or one identifier of SPDX, such as MIT";
    let unknown = || RecordError::Variable { variable: LICENSE, wanted };
    given(LICENSE).map(|text| license_of(&text).ok_or_else(unknown)).transpose()
}

/// The value of a variable, without white space around it; none where nothing is left.
fn given(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().map(|value| value.trim().to_owned());
    value.filter(|value| !value.is_empty())
}

/// The address that a text gives of a licence.
fn license_of(text: &str) -> Option<String> {
    if is_address(text) {
        return Some(text.to_owned());
    }
    let name = text.strip_prefix("spdx:").or_else(|| text.strip_prefix("SPDX:")).unwrap_or(text);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+".contains(&byte);
    let is_name = name.bytes().all(plain) && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    is_name.then(|| format!("https://spdx.org/licenses/{name}"))
}

/// The address that a text gives of an ORCID.
fn orcid_of(text: &str) -> Option<String> {
    let digits = ["https://orcid.org/", "http://orcid.org/", "orcid.org/"];
    let digits = digits.iter().find_map(|before| text.strip_prefix(before)).unwrap_or(text);
    let groups: Vec<&str> = digits.split('-').collect();
    let is_group = |(place, group): (usize, &&str)| {
        let is_digit = |(at, byte): (usize, u8)| {
            byte.is_ascii_digit() || (place, at) == (3, 3) && byte == b'X'
        };
        group.len() == 4 && group.bytes().enumerate().all(is_digit)
    };
    let is_orcid = groups.len() == 4 && groups.iter().enumerate().all(is_group);
    is_orcid.then(|| format!("https://orcid.org/{digits}"))
}

/// Whether a text is an address on the web.
fn is_address(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let unfit = |c: char| c.is_whitespace() || c.is_control() || "\"<>\\^`{|}".contains(c);
    host.is_some_and(|host| !host.is_empty() && !host.starts_with('/')) && !text.contains(unfit)
}

/// The computer's name, as Windows tells it: recorded is a digest of it.
pub(crate) fn computer() -> Option<String> {
    given("COMPUTERNAME")
}

/// The processor's family, model and maker, as Windows tells them.
pub(crate) fn processor() -> Option<String> {
    given("PROCESSOR_IDENTIFIER")
}

/// Names the run that this process repeats, by its `uuid`; set by `infalign replicate` for the run that it starts.
pub const BASED_ON: &str = "INFALIGN_BASED_ON";

/// The run that this process repeats.
pub(crate) fn based_on() -> Option<String> {
    let plain = |uuid: &String| uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    std::env::var(BASED_ON).ok().filter(|uuid| !uuid.is_empty()).filter(plain)
}

/// Secrets that tools keep in files: the hub's token, and the passwords of `.netrc`.
pub(crate) fn token_files() -> Vec<(String, String)> {
    let home = std::env::home_dir();
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let tokens = hub_tokens_of(|name| folder(std::env::var_os(name)), home.as_deref());
    let tokens = tokens.into_iter().filter_map(read);
    let tokens = tokens.map(|token| ("the hub's token file".to_owned(), token));
    let netrc = home.as_ref().map(|home| home.join(".netrc")).and_then(read).unwrap_or_default();
    let words: Vec<&str> = netrc.split_whitespace().collect();
    let passwords = words.windows(2).filter(|pair| pair[0] == "password").map(|pair| pair[1]);
    let passwords = passwords.map(|value| (".netrc".to_owned(), value.to_owned()));
    tokens.chain(passwords).collect()
}

/// A text as it is recorded: `~` in place of the home folder, which would name a person, wherever a path begins with it.
#[must_use]
pub fn without_home(text: &str) -> String {
    let Some(home) = std::env::home_dir() else { return text.to_owned() };
    // It may be a link: paths that were resolved begin with what it leads to.
    let homes = [home.canonicalize().unwrap_or_else(|_| home.clone()), home];
    let forms = homes.iter().flat_map(|home| forms(&home.to_string_lossy(), cfg!(windows)));
    forms.fold(text.to_owned(), |text, home| without(&home, &text, cfg!(windows)))
}

/// How resolved paths begin on Windows.
const VERBATIM: &str = r"\\?\";

/// How texts write a folder, those first that hold others; none for that of all. On Windows with the beginning of resolved paths and without it,
/// and as texts in quotes have either.
fn forms(folder: &str, windows: bool) -> Vec<String> {
    let folder = folder.trim_end_matches(['/', '\\']);
    let plain = folder.strip_prefix(VERBATIM).filter(|_| windows).unwrap_or(folder);
    if plain.is_empty() {
        return Vec::new();
    }
    if !windows {
        return vec![plain.to_owned()];
    }
    let bare = [format!("{VERBATIM}{plain}"), plain.to_owned()];
    let quoted = bare.each_ref().map(|form| form.replace('\\', r"\\"));
    quoted.into_iter().chain(bare).collect()
}

/// Puts `~` in place of the folder where a path begins with it: not within another path, nor before the rest of a longer name.
///
/// - `windows`: whether letters of either case are the same in paths, and so are `/` and `\`.
fn without(folder: &str, text: &str, windows: bool) -> String {
    // As long as the text, byte by byte.
    let comparable = |text: &str| {
        if windows { text.to_ascii_lowercase().replace('/', r"\") } else { text.to_owned() }
    };
    let (mut kept, mut done) = (String::with_capacity(text.len()), 0);
    for (start, _) in comparable(text).match_indices(&comparable(folder)) {
        let end = start + folder.len();
        if !goes_on_before(&text[..start], windows) && !goes_on_after(&text[end..]) {
            kept += &text[done..start];
            kept.push('~');
            done = end;
        }
    }
    kept + &text[done..]
}

/// Whether a character may belong to a name in a path, as names mostly are.
fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || "_-.+~@%".contains(c)
}

/// Whether what stands before a path belongs to it; the scheme of an address does not, with one `/` more before the letter of a drive.
fn goes_on_before(text: &str, windows: bool) -> bool {
    let within = |c: char| is_of_name(c) || c == '/' || c == '\\';
    text.ends_with(within) && !text.ends_with("://") && !(windows && text.ends_with(":///"))
}

/// Whether what stands after a name belongs to it; the full stop of a sentence does not.
fn goes_on_after(text: &str) -> bool {
    let after = text.strip_prefix('.').unwrap_or(text);
    let ends = after.is_empty() || after.starts_with(char::is_whitespace);
    text.starts_with(is_of_name) && !ends
}

/// A word of a command line on record with the home folder where [`without_home`] has put `~`: at its beginning, or that of an option's value.
/// What was recorded on Windows, `~\…`, leads to the same place elsewhere.
#[must_use]
pub fn with_home(word: &str) -> String {
    let (option, value) = match word.split_once('=') {
        Some((option, value)) if option.starts_with("--") => (format!("{option}="), value),
        _ => (String::new(), word),
    };
    match (below_home(value), std::env::home_dir()) {
        (Some(rest), Some(home)) => format!("{option}{}{rest}", home.display()),
        _ => word.to_owned(),
    }
}

/// What follows `~` in a path that begins with it, separators as this system has them.
fn below_home(path: &str) -> Option<String> {
    let rest = path.strip_prefix('~')?;
    match rest.chars().next() {
        None | Some('/') => Some(rest.to_owned()),
        Some('\\') if cfg!(windows) => Some(rest.to_owned()),
        Some('\\') => Some(rest.replace('\\', "/")),
        Some(_) => None,
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
    fn the_hubs_token_is_looked_for_wherever_its_tools_may_keep_it() {
        let is = |set: &[(&str, &str)], expected: &[&str]| {
            let value =
                |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, v)| v.into());
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(hub_tokens_of(value, Some(Path::new("me"))), expected, "{set:?}");
        };
        let (home, cache) = (("HF_HOME", "h"), ("HF_HUB_CACHE", "c/hub"));
        is(&[], &["me/.cache/huggingface/token"]);
        is(&[home], &["h/token"]);
        is(&[cache], &["me/.cache/huggingface/token", "c/token"]);
        is(&[home, cache], &["h/token", "c/token"]);
        is(&[home, ("HF_TOKEN_PATH", "~/t")], &["me/t", "h/token"]);
    }

    #[test]
    fn the_home_folder_is_taken_out_of_paths_that_begin_with_it_alone() {
        let is = |home: &str, text: &str, expected: &str| {
            assert_eq!(without(home, text, false), expected);
        };
        let al = "/people/al";
        for text in [
            "/people/alice/x",
            "/people/al.bak/x",
            "/people/al-2",
            "/mnt/people/al/x",
            "x/people/al",
        ] {
            is(al, text, text);
        }
        is("/root", "/mnt/root/p and ./root/p", "/mnt/root/p and ./root/p");
        is(al, "/people/al", "~");
        is(al, "--out=/people/al/x", "--out=~/x");
        is(al, "table:/people/al/x.csv", "table:~/x.csv");
        is(al, "cannot read /people/al/x, nor '/people/al'.", "cannot read ~/x, nor '~'.");
        is(al, "it is in /people/al. So is /people/alice", "it is in ~. So is /people/alice");
        is(al, "file:///people/al/x", "file://~/x");
    }

    #[test]
    fn the_home_folder_is_taken_out_however_windows_writes_it() {
        let is = |text: &str, expected: &str| {
            let forms = forms(r"C:\People\al", true).into_iter();
            let found = forms.fold(text.to_owned(), |text, home| without(&home, &text, true));
            assert_eq!(found, expected);
        };
        is(r"C:\People\al\x", r"~\x");
        is(r"cannot read \\?\C:\People\al\x, nor 'c:/people/Al'.", r"cannot read ~\x, nor '~'.");
        is(r#"path: "\\\\?\\C:\\People\\al\\x""#, r#"path: "~\\x""#);
        is(r#"path: "C:\\People\\al\\x""#, r#"path: "~\\x""#);
        is("file:///C:/People/al/ä", "file:///~/ä");
        for text in [r"C:\People\alice\x", r"D:\mnt\C:\People\al", r"C:\People", "C:/People/al.bak"]
        {
            is(text, text);
        }
        assert_eq!(forms(r"\\?\C:\People\al", true), forms(r"C:\People\al\", true));
        assert_eq!(forms("/people/al/", false), ["/people/al"]);
        assert!(forms("/", false).is_empty());
    }

    #[cfg(not(windows))]
    #[test]
    fn the_home_folder_is_put_back_whichever_system_left_it_out() {
        let home = std::env::home_dir().unwrap().display().to_string();
        assert_eq!(with_home("~/a/b"), format!("{home}/a/b"));
        assert_eq!(with_home(r"--out=~\a\b"), format!("--out={home}/a/b"));
        assert_eq!(with_home("~"), home);
        for word in ["~al/x", "a~/b", r"a\b", "x=~/a"] {
            assert_eq!(with_home(word), word);
        }
    }

    #[test]
    fn licences_and_orcids_become_addresses_or_are_refused() {
        let license = |text: &str| license_of(text);
        let mit = Some("https://spdx.org/licenses/MIT".to_owned());
        assert_eq!([license("MIT"), license("spdx:MIT")], [mit.clone(), mit]);
        assert_eq!(license("https://a.b/c"), Some("https://a.b/c".to_owned()));
        for text in ["../x", "..", "MIT OR Apache-2.0", "https://", "https://a b", "a/b", "urn:x"] {
            assert_eq!(license(text), None, "{text}");
        }
        let orcid = Some("https://orcid.org/0000-0002-1694-233X".to_owned());
        assert_eq!(orcid_of("0000-0002-1694-233X"), orcid);
        assert_eq!(orcid_of("https://orcid.org/0000-0002-1694-233X"), orcid);
        for text in ["0000-0002-1694-23", "X000-0002-1694-2330", "../x", "https://a.b/c", ""] {
            assert_eq!(orcid_of(text), None, "{text}");
        }
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
