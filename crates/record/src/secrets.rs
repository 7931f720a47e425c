//! What must not be recorded: values of secret environment variables, and whatever looks like a key.
//!
//! Three walls. The environment is recorded by an allow-list of names ([`crate::env::recorded`]). No text that holds the
//! value of a variable gets through, whichever way it came, if its name sounds secret or its value is sent as an API key
//! ([`Secrets::note`]). And texts that look like well-known keys do not either, which works for runs of others, too.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use regex::bytes::{Regex, RegexBuilder};

use crate::RecordError;

/// Names of variables whose values are secret. `PWD`, `OLDPWD` and `COMPASS` are not among them.
const SECRET_NAMES: &str = concat!(
    "(?i)(?:key|token|secret|passw|passphrase|cred|auth|cookie|session",
    "|(?:^|_)(?:ssh)?pass(?:_|$)|_pwd(?:_|$)|^pwd_)"
);
/// Variables with such names that hold none: git's, with what its commits show to everybody.
const NO_SECRETS: [&str; 3] = ["GIT_AUTHOR_DATE", "GIT_AUTHOR_EMAIL", "GIT_AUTHOR_NAME"];
/// Shorter values, such as `true`, would be found everywhere.
const MIN_LENGTH: usize = 8;

/// Texts that look like keys: what they are, and how they look.
const PATTERNS: [(&str, &str); 9] = [
    ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{20,}"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("a Slack token", r"\bxox[abeprs]-[A-Za-z0-9-]{20,}"),
    ("a Google API key", r"\bAIza[A-Za-z0-9_-]{35,}"),
    ("an AWS key", r"\bA(?:KIA|SIA)[0-9A-Z]{16}\b"),
    ("an API key", r"\bsk-[A-Za-z0-9_-]{20,}"),
    ("a private key", PRIVATE_KEY),
    ("a password in an address", r"://[^/:@\s\x22']*:[^@/\s\x22']+@"),
];

/// With what follows, to its last line or to the end of the text.
const PRIVATE_KEY: &str = concat!(
    r"-----BEGIN [A-Z ]*PRIVATE KEY(?s-u:.*?)",
    r"(?:-----END [A-Z ]*PRIVATE KEY[A-Z ]*-----|\z)"
);

/// Bytes that the forms of a value may take; those of 128 KiB fit, the most that Linux keeps in a variable.
const MAX_FORMS: usize = 1 << 27;
/// Bytes of the longest form of a byte: `\u001f`, as JSON writes some.
const LONGEST: usize = 6;

/// Bytes read at a time, and how many of them are looked at again with the next, or more where a value is longer.
const CHUNK: usize = 1 << 20;
const OVERLAP: usize = 1 << 12;

/// Values that this process sends as API keys.
static KEYS: RwLock<Vec<Arc<Known>>> = RwLock::new(Vec::new());

/// A value that is secret.
#[derive(Debug)]
struct Known {
    /// What it is called.
    name: String,
    /// Its bytes.
    length: usize,
    /// The forms in which it may appear.
    forms: Regex,
}

impl Known {
    /// None where the value is too short to be told from other texts.
    fn new(name: String, value: &str) -> Option<Arc<Self>> {
        let value = Some(value.trim()).filter(|value| value.len() >= MIN_LENGTH)?;
        Some(Arc::new(Self { name, length: value.len(), forms: any_form(value)? }))
    }
}

/// Knows secrets when it sees them.
#[derive(Clone, Debug)]
pub struct Secrets {
    known: Vec<Arc<Known>>,
    patterns: Vec<(&'static str, Regex)>,
}

impl Secrets {
    /// Makes the value of a variable known to every `Secrets` of this process, those included that are there already: for what is sent as an API
    /// key, whatever its variable is called.
    pub fn note(name: &str, value: &str) {
        let mut keys = KEYS.write().unwrap_or_else(PoisonError::into_inner);
        if keys.iter().all(|known| known.name != name) {
            keys.extend(Known::new(name.to_owned(), value));
        }
    }

    /// The values of this process's environment, of the hub's token file and of `.netrc`, and the patterns.
    #[must_use]
    pub fn here() -> Self {
        let secret = Regex::new(SECRET_NAMES).ok();
        let is_secret =
            |name: &str| secret.as_ref().is_some_and(|secret| secret.is_match(name.as_bytes()));
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        // Of a working directory the name sounds so, too.
        let is_folder = |value: &str| value.starts_with('/') && Path::new(value).is_dir();
        let variables = variables.filter(|(name, value)| {
            is_secret(name) && !NO_SECRETS.contains(&name.as_str()) && !is_folder(value)
        });
        Self::new(variables.chain(crate::env::token_files()))
    }

    /// The given values by their names, and the patterns.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = (String, String)>) -> Self {
        let known = values.into_iter().filter_map(|(name, value)| Known::new(name, &value));
        let patterns =
            PATTERNS.iter().filter_map(|(what, pattern)| Some((*what, Regex::new(pattern).ok()?)));
        Self { known: known.collect(), patterns: patterns.collect() }
    }

    /// The values of these secrets and the API keys, longest first: a value may begin with another, without which its rest would not be known.
    fn known(&self) -> Vec<Arc<Known>> {
        let mut known = self.known.clone();
        known.extend(KEYS.read().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        known.sort_by_key(|known| Reverse(known.length));
        known
    }

    /// Bytes of a file that are looked at again with the next: no form of a value is longer.
    fn overlap(&self) -> usize {
        let longest = self.known().first().map_or(0, |known| known.length);
        (LONGEST * longest).max(OVERLAP)
    }

    /// What the bytes give away, if anything: never the secret itself.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<String> {
        let pattern = || self.patterns.iter().find(|(_, pattern)| pattern.is_match(bytes));
        let looks_like = || pattern().map(|(what, _)| format!("what looks like {what}"));
        self.find_known(bytes).or_else(looks_like)
    }

    /// Refuses bytes that give something away.
    ///
    /// - `path`: where they stand, or would.
    pub(crate) fn refuse(&self, path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
        refuse_found(path, self.find(bytes))
    }

    /// Refuses a file that gives something away, as [`Secrets::find_in_file`] finds it.
    pub(crate) fn refuse_file(&self, path: &Path) -> Result<(), RecordError> {
        refuse_found(path, self.find_in_file(path)?)
    }

    /// What a text file gives away; binary files, known by a zero byte near their beginning, are looked through for known values alone.
    ///
    /// # Errors
    /// [`RecordError::Io`] when the file cannot be read.
    pub fn find_in_file(&self, path: &Path) -> Result<Option<String>, RecordError> {
        self.search(path).map_err(RecordError::io("read", path))
    }

    fn search(&self, path: &Path) -> io::Result<Option<String>> {
        let mut file = File::open(path)?;
        let (mut window, mut is_text, mut first) = (Vec::new(), true, true);
        let overlap = self.overlap();
        loop {
            let kept = window.len();
            let n = file.by_ref().take(CHUNK as u64).read_to_end(&mut window)?;
            if std::mem::take(&mut first) {
                is_text = !window[..window.len().min(8192)].contains(&0);
            }
            let found = if is_text { self.find(&window) } else { self.find_known(&window) };
            if found.is_some() || n == 0 {
                return Ok(found);
            }
            let from = (kept + n).saturating_sub(overlap);
            window.drain(..from);
        }
    }

    fn find_known(&self, bytes: &[u8]) -> Option<String> {
        let known = self.known().into_iter().find(|known| known.forms.is_match(bytes));
        known.map(|known| format!("the value of {}", known.name))
    }

    /// The text with `«redacted:NAME»` in place of every secret.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let known = self.known();
        let values = known.iter().map(|known| (known.name.as_str(), &known.forms));
        let patterns = self.patterns.iter().map(|(what, pattern)| (*what, pattern));
        for (name, secret) in values.chain(patterns) {
            let with = format!("«redacted:{name}»");
            bytes =
                secret.replace_all(&bytes, regex::bytes::NoExpand(with.as_bytes())).into_owned();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn refuse_found(path: &Path, found: Option<String>) -> Result<(), RecordError> {
    found.map_or(Ok(()), |what| Err(RecordError::Secret { path: path.to_path_buf(), what }))
}

/// The value as it stands, as JSON and addresses write it, and as it stands within base64.
fn any_form(value: &str) -> Option<Regex> {
    let spelled: String = value.chars().map(spelled).collect::<Option<_>>()?;
    let within = (0..3).filter_map(|before| within_base64(value, before));
    let forms: Vec<String> = std::iter::once(spelled).chain(within).collect();
    RegexBuilder::new(&forms.join("|")).size_limit(MAX_FORMS).build().ok()
}

/// A character as it stands, and as JSON and addresses write it, longer forms first. Writers of addresses differ in which characters they encode,
/// and in the case of the digits; forms have `+` for a space.
fn spelled(c: char) -> Option<String> {
    if c.is_ascii_alphanumeric() {
        return Some(c.to_string());
    }
    let text = c.to_string();
    let encoded = utf8_percent_encode(&text, NON_ALPHANUMERIC);
    let json = serde_json::to_string(&text).ok()?;
    let json = json.strip_prefix('"')?.strip_suffix('"')?;
    let mut ways = vec![format!("(?i:{encoded})"), regex::escape(json), regex::escape(&text)];
    ways.dedup();
    if c == ' ' {
        ways.push(r"\+".to_owned());
    }
    Some(format!("(?:{})", ways.join("|")))
}

/// The digits of base64 that the value alone decides, in the standard alphabet, as it stands and as addresses write it, and in that for addresses.
///
/// - `before`: bytes of something else that precede the value in its first group of three.
fn within_base64(value: &str, before: usize) -> Option<String> {
    let bytes = [&[0, 0][..before], value.as_bytes()].concat();
    let digits = base64(&bytes);
    let own = digits.get((8 * before).div_ceil(6)..8 * bytes.len() / 6)?;
    Some(own.replace('+', "(?:[-+]|%2[Bb])").replace('/', "(?:[/_]|%2[Ff])"))
}

/// Without the padding, so that it is found with and without.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().map(|(i, byte)| u32::from(*byte) << (16 - 8 * i));
        let bits: u32 = bits.sum();
        for digit in 0..=group.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = r#"s3cr3t/va "l\ue+"#;

    fn secrets() -> Secrets {
        Secrets::new([("MY_TOKEN".to_owned(), VALUE.to_owned()), ("A_KEY".into(), "short".into())])
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let encoded = ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes()));
        assert_eq!(encoded, ["", "Zg", "Zm8", "Zm9v", "Zm9vYg"]);
    }

    #[test]
    fn a_value_is_found_in_every_form_and_named_without_being_shown() {
        let secrets = secrets();
        for form in [
            VALUE,
            r#"s3cr3t/va \"l\\ue+"#,
            "s3cr3t%2Fva%20%22l%5Cue%2B",
            "s3cr3t%2fva%20%22l%5cue%2b",
            "s3cr3t%2Fva+%22l%5Cue%2B",
            "s3cr3t/va%20%22l%5Cue+",
        ] {
            let text = format!("https://host/?q={form}&x");
            assert_eq!(secrets.find(text.as_bytes()).unwrap(), "the value of MY_TOKEN");
            assert_eq!(secrets.scrub(&text), "https://host/?q=«redacted:MY_TOKEN»&x");
        }
        for other in [VALUE.replace("3t", "4t"), VALUE.replace(' ', "-"), VALUE[1..].to_owned()] {
            assert_eq!(secrets.find(other.as_bytes()), None, "{other}");
        }
        let error = secrets.refuse(Path::new("a.txt"), VALUE.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("a.txt holds the value of MY_TOKEN"), "{error}");
        secrets.refuse(Path::new("a.txt"), b"short").unwrap();
        assert_eq!(secrets.find(b"short and sweet"), None, "too short to be told from words");
    }

    #[test]
    fn a_value_is_found_within_base64_wherever_it_stands_there() {
        // Of which the encodings have `+` and `/` at every offset.
        let value = "~~~???>>>abc~~~???>>>";
        let secrets = Secrets::new([("MY_TOKEN".to_owned(), value.to_owned())]);
        for (before, after) in [("", ""), ("a", "z"), ("ab", "yz"), ("user:", ":1"), ("", "xyz")] {
            let standard = base64(format!("{before}{value}{after}").as_bytes());
            assert!(standard.contains('+') && standard.contains('/'), "{standard}");
            let for_addresses = standard.replace('+', "-").replace('/', "_");
            let encoded = standard.replace('+', "%2B").replace('/', "%2f");
            for form in [standard, for_addresses, encoded] {
                let text = format!("Basic {form}==");
                assert_eq!(secrets.find(text.as_bytes()).unwrap(), "the value of MY_TOKEN");
                let scrubbed = secrets.scrub(&text);
                let (left, right) = scrubbed.split_once("«redacted:MY_TOKEN»").unwrap();
                // What is left is of the neighbours, but for the digits that they share with the value.
                let (most_left, most_right) = (before.len() * 8 / 6 + 1, after.len() * 8 / 6 + 2);
                assert!(left.len() <= "Basic ".len() + most_left, "{scrubbed}");
                assert!(right.len() <= most_right + "==".len(), "{scrubbed}");
            }
            let other = value.replace("abc", "abd");
            let other = base64(format!("{before}{other}{after}").as_bytes());
            assert_eq!(secrets.find(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn the_shortest_values_leave_enough_of_base64_to_be_told_by() {
        for before in 0..3 {
            assert_eq!(within_base64("abcdefgh", before).unwrap().len(), 10);
        }
        assert_eq!(within_base64("abcdefgh", 0).unwrap(), "YWJjZGVmZ2");
    }

    #[test]
    fn a_value_that_begins_with_another_is_taken_out_as_a_whole() {
        let value = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let secrets = Secrets::new([value("A_KEY", "abcd1234"), value("B_KEY", "abcd1234.efgh")]);
        let scrubbed = secrets.scrub("abcd1234.efgh abcd1234");
        assert_eq!(scrubbed, "«redacted:B_KEY» «redacted:A_KEY»");
    }

    #[test]
    fn what_is_sent_as_an_api_key_is_secret_from_then_on_whatever_it_is_called() {
        let text = "bearer-of-a-known-value";
        let secrets = Secrets::new([("A_KEY".to_owned(), "bearer-of".to_owned())]);
        assert_eq!(secrets.scrub(text), "«redacted:A_KEY»-a-known-value");
        Secrets::note("OPENAI", &format!("{text}\n"));
        Secrets::note("OPENAI", text);
        assert_eq!(secrets.scrub(text), "«redacted:OPENAI»", "as a whole");
        assert_eq!(secrets.find(text.as_bytes()).unwrap(), "the value of OPENAI");
        Secrets::note("SHORT", "sesame");
        assert_eq!(secrets.find(b"sesame"), None);
    }

    #[test]
    fn names_of_variables_sound_secret() {
        let secret = Regex::new(SECRET_NAMES).unwrap();
        for name in ["HF_TOKEN", "MyKey", "PGPASSWORD", "GPG_PASSPHRASE", "SSHPASS", "PASS"]
            .into_iter()
            .chain(["SRV_PASS", "pass_of_db", "DB_PASS_1", "DB_PWD", "db_pwd_1", "PWD_DB"])
        {
            assert!(secret.is_match(name.as_bytes()), "{name}");
        }
        for name in ["PWD", "OLDPWD", "COMPASS", "COMPASS_DIR", "PASSED", "GIT_ASKPASS", "PATH"] {
            assert!(!secret.is_match(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_private_key_is_taken_out_with_all_its_lines() {
        let secrets = Secrets::new([]);
        // In two parts each, or this file would be found itself.
        let begin = concat!("-----BEGIN RSA ", "PRIVATE KEY-----");
        let end = concat!("-----END RSA ", "PRIVATE KEY-----");
        let scrubbed = secrets.scrub(&format!("a {begin}\nMIIE\nowIB\n{end} b"));
        assert_eq!(scrubbed, "a «redacted:a private key» b");
        let scrubbed = secrets.scrub(&format!("a {begin}\nMIIE"));
        assert_eq!(scrubbed, "a «redacted:a private key»");
        let bytes = [begin.as_bytes(), &[0xff], end.as_bytes()].concat();
        assert!(secrets.find(&bytes).is_some(), "in any encoding");
    }

    #[test]
    fn well_known_keys_are_found_by_their_looks_and_ordinary_text_is_not() {
        let secrets = Secrets::new([]);
        // In two parts each, or this file would be found itself.
        for key in [
            concat!("hf", "_abcdefghijklmnopqrstuv"),
            concat!("ghp", "_abcdefghijklmnopqrstuv"),
            concat!("github", "_pat_11ABCDEFG0abcdefghijkl_mnopqrstuv"),
            concat!("glpat", "-abcdefghijklmnopqrs_"),
            concat!("xox", "b-123456789012-abcdefghijkl"),
            concat!("xox", "p-123456789012-abcdefghijkl"),
            concat!("AIza", "SyA-abcdefghijklmnopqrstuvwxyz_0123"),
            concat!("AKIA", "ABCDEFGHIJKLMNOP"),
            concat!("ASIA", "ABCDEFGHIJKLMNOP"),
            concat!("sk", "-abcdefghijklmnopqrstuv"),
            concat!("-----BEGIN RSA ", "PRIVATE KEY-----"),
            concat!("https://me:", "pass@host/x"),
            concat!("redis://:", "pass@host/x"),
        ] {
            assert!(secrets.find(key.as_bytes()).is_some(), "{key}");
            assert!(!secrets.scrub(key).contains(key), "{key}");
        }
        for text in
            ["https://host:8000/v1", "num_memory_tokens = 12", "mail me@host", "risk-averse"]
        {
            assert_eq!(secrets.find(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_value_is_found_across_the_chunks_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.txt");
        for before in [0, CHUNK - 5, 2 * CHUNK - 1, 3 * CHUNK] {
            std::fs::write(&path, format!("{}{VALUE}", "x".repeat(before))).unwrap();
            assert!(secrets().find_in_file(&path).unwrap().is_some(), "{before}");
        }
        let long = "0123456789abcdef/".repeat(OVERLAP / 8);
        let secrets_of_length = Secrets::new([("A_KEY".to_owned(), long.clone())]);
        for form in [&long, &long.replace('/', "%2F"), &base64(long.as_bytes())] {
            std::fs::write(&path, format!("{}{form}", "x".repeat(CHUNK - OVERLAP - 6))).unwrap();
            assert!(secrets_of_length.find_in_file(&path).unwrap().is_some(), "{}", form.len());
        }
        std::fs::write(&path, "x".repeat(3 * CHUNK)).unwrap();
        assert_eq!(secrets().find_in_file(&path).unwrap(), None);
        std::fs::write(&path, concat!("\0 hf", "_abcdefghijklmnopqrstuv")).unwrap();
        assert_eq!(secrets().find_in_file(&path).unwrap(), None, "binary files have no patterns");
    }
}
