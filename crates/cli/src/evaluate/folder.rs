//! The folder of an evaluation: what its samples depend on, what was drawn so far, and what came of it.
//!
//! A prompt's responses are written down as soon as they are drawn, and a side's samples once they are scored; an evaluation that was stopped
//! takes up both.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use infalign_evaluate::{Drawn, PromptText, Sampled};
use infalign_record::atomic::clear;
use infalign_record::folder::{SETTINGS, SETTINGS_VERSION, json};
use serde::Serialize;

use super::sides::Place;
use crate::destination;
use crate::files::{self, make_folder, read_json, whole_lines};
use crate::locks::lock;
use crate::recording::{begin_in, is_just_begun, refuse_secrets};
use crate::resume::{Before, Damaged, before};
use crate::sources::{METHODS, REFERENCE, SAMPLES};
use crate::train::RESULTS;

/// Version of what they say of models, rewards and prompts.
pub(super) const VERSION: &str = "2";
/// Those of them that only scores depend on.
const OF_SCORES: [&str; 2] = ["--judge", "--reward"];
/// What was drawn of a side that is not scored yet.
const DRAWN: [&str; 2] = ["drawn.jsonl", "reference-drawn.jsonl"];
/// What servers have answered, where their settings name no other place.
const ANSWERS: &str = "answers.jsonl";

/// What samples depend on: options and what they stand for, files by their digests.
pub(super) type Settings = BTreeMap<&'static str, String>;

/// What responses have to be to have been drawn by an evaluation.
pub(super) struct Limits {
    /// Responses to each prompt.
    pub(super) samples: usize,
    /// Tokens of the model.
    pub(super) vocabulary: usize,
    /// The most tokens of a response.
    pub(super) max_tokens: usize,
}

impl Limits {
    /// Whether the responses to a prompt are as they have to be. A response has a token at least: that which ends it.
    fn admit(&self, drawn: &Drawn) -> bool {
        let fits = |(tokens, made): (&Vec<u32>, &usize)| {
            (1..=self.max_tokens.min(*made)).contains(&tokens.len())
                && tokens.iter().all(|token| (*token as usize) < self.vocabulary)
        };
        [drawn.tokens.len(), drawn.made.len()] == [self.samples; 2]
            && [0, self.samples].contains(&drawn.kl.len())
            && drawn.tokens.iter().zip(&drawn.made).all(fits)
    }
}

/// A folder that this process works on.
pub(super) struct Folder {
    dir: PathBuf,
    /// What the policy is called.
    name: String,
    /// What there was of the evaluation.
    pub(super) before: Before,
    _lock: File,
}

/// What the samples of an evaluation depend on; none of a folder that holds no evaluation.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn settings(dir: &Path) -> Result<Option<BTreeMap<String, String>>> {
    Ok(if is_begun(dir) { Some(json(dir, SETTINGS)?) } else { None })
}

/// Whether a folder holds an evaluation, finished or not.
pub(crate) fn is_begun(dir: &Path) -> bool {
    dir.join(SETTINGS).exists()
}

/// Refuses an evaluation that is there and is not to go on, and a folder that holds something else.
///
/// # Errors
/// One sentence that names the folder.
pub(super) fn check(dir: &Path, resume: bool) -> Result<()> {
    match (is_begun(dir), resume) {
        (true, false) => bail!(
            "{} holds an evaluation already: go on with it by --resume, or give another --out",
            dir.display()
        ),
        (true, true) => return Ok(()),
        (false, _) => {}
    }
    // One that was killed before it had settings is none.
    let used = dir.exists() && !is_just_begun(dir);
    ensure!(!used, "--out {} is not an empty folder: give a new one", dir.display());
    destination::folder(dir)
}

/// Where servers' answers are kept in an evaluation's folder.
pub(super) fn answers(dir: &Path) -> PathBuf {
    dir.join(ANSWERS)
}

/// Takes hold of an evaluation that is there, before anything in its folder is read: what another process has yet to write there would be missed.
///
/// # Errors
/// As [`lock`].
pub(super) fn hold(dir: &Path) -> Result<Option<File>> {
    if is_begun(dir) { lock(dir).map(Some) } else { Ok(None) }
}

impl Folder {
    /// Begins an evaluation, or goes on with one of the same settings. What scores may be another as long as nothing is scored: an address may
    /// have been wrong.
    ///
    /// - held: what [`hold`] gave.
    ///
    /// # Errors
    /// As [`check`], when the settings are others, when another process works on it, when it has ended and a file is another than then, and
    /// when a file cannot be written.
    pub(super) fn open(
        dir: &Path,
        resume: bool,
        name: &str,
        settings: &Settings,
        held: Option<File>,
    ) -> Result<Self> {
        check(dir, resume)?;
        let goes_on = held.is_some();
        let lock = match held {
            Some(lock) => lock,
            None => {
                refuse_secrets("what the samples depend on", &serde_json::to_string(settings)?)?;
                begin_in(dir)?
            }
        };
        // Another process may have begun one in the meantime.
        check(dir, resume)?;
        ensure!(
            goes_on || !is_begun(dir),
            "another process has begun an evaluation in {}: go on with it by --resume",
            dir.display()
        );
        clear(dir)?;
        let before = before(dir)?;
        let folder = Self { dir: dir.to_path_buf(), name: name.to_owned(), before, _lock: lock };
        let path = dir.join(SETTINGS);
        let scored = Place::BOTH.iter().any(|place| folder.samples_path(*place).exists());
        if is_begun(dir) {
            let begun = self::settings(dir).with_context(|| {
                format!("{} is damaged: begin a new evaluation with another --out", path.display())
            })?;
            let begun = begun.unwrap_or_default();
            same(dir, settings, &begun, scored)?;
        }
        if !scored {
            write(&path, settings)?;
        }
        let method = dir.join(METHODS).join(name);
        make_folder(&method)?;
        Ok(folder)
    }

    /// Samples of a side that were scored already, in whose place what was drawn of it is of no use.
    ///
    /// - outline: what they have to be of.
    ///
    /// # Errors
    /// When the file is damaged, or holds other samples.
    pub(super) fn samples(&self, place: Place, outline: &Sampled) -> Result<Option<Sampled>> {
        let path = self.samples_path(place);
        if !path.exists() {
            return Ok(None);
        }
        let sampled: Sampled = read_json(&path)?;
        sampled.check().with_context(|| Damaged::at(&path))?;
        if let Some(what) = other_than(outline, &sampled) {
            return Err(anyhow!("its samples have other {what}").context(Damaged::at(&path)));
        }
        self.forget_drawn(place);
        Ok(Some(sampled))
    }

    /// Keeps the samples of a side, in place of what was drawn of it.
    ///
    /// # Errors
    /// When they hold a secret, or the file cannot be written.
    pub(super) fn keep(&self, place: Place, sampled: &Sampled) -> Result<()> {
        write(&self.samples_path(place), sampled)?;
        self.forget_drawn(place);
        Ok(())
    }

    fn forget_drawn(&self, place: Place) {
        // Best effort: what is left of it is in the samples.
        let _ = std::fs::remove_file(self.drawn_path(place));
    }

    /// Where what is drawn of a side is written down, and what is there already, by prompts. A last line that was cut off is no loss: its
    /// prompt is drawn again.
    ///
    /// # Errors
    /// When the file cannot be read, and when a whole line is damaged, or not within the limits.
    pub(super) fn drawn(&self, place: Place, limits: &Limits) -> Result<(PathBuf, Vec<Drawn>)> {
        let path = self.drawn_path(place);
        let lines = whole_lines(&path)?;
        let lines = lines.split_inclusive(|byte| *byte == b'\n');
        let drawn = lines.zip(1..).map(|(line, number)| -> Result<Drawn> {
            let damaged = || {
                format!(
                    "{}, line {number}, is damaged: take the line out, and its prompt is drawn again",
                    path.display()
                )
            };
            let drawn: Drawn = serde_json::from_slice(line).with_context(damaged)?;
            ensure!(limits.admit(&drawn), damaged());
            Ok(drawn)
        });
        let drawn = drawn.collect::<Result<_>>()?;
        Ok((path, drawn))
    }

    /// Writes the results, which come last.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn finish(&self, results: &impl Serialize) -> Result<()> {
        write(&self.dir.join(RESULTS), results)
    }

    fn samples_path(&self, place: Place) -> PathBuf {
        match place {
            Place::Policy => self.dir.join(METHODS).join(&self.name).join(SAMPLES),
            Place::Reference => self.dir.join(REFERENCE),
        }
    }

    fn drawn_path(&self, place: Place) -> PathBuf {
        self.dir.join(DRAWN[place as usize])
    }
}

/// What samples are of that the evaluation does not ask for, in words.
fn other_than(outline: &Sampled, sampled: &Sampled) -> Option<&'static str> {
    let counts = |one: &Sampled| one.responses.iter().map(Vec::len).collect::<Vec<_>>();
    let same_prompt = |(asked, stored): (&PromptText, &PromptText)| {
        asked.id == stored.id && asked.text == stored.text && asked.may_have(stored.sha256.as_ref())
    };
    let n_prompts = [outline, sampled].map(|one| one.prompts.len());
    let mut prompts = outline.prompts.iter().zip(&sampled.prompts);
    if n_prompts[0] != n_prompts[1] || !prompts.all(same_prompt) {
        Some("prompts")
    } else if counts(sampled) != counts(outline) {
        Some("numbers of responses")
    } else {
        (sampled.procedure != outline.procedure).then_some("procedures")
    }
}

/// What was drawn of each prompt, by its id.
pub(super) fn by_prompt(drawn: Vec<Drawn>) -> HashMap<String, Drawn> {
    drawn.into_iter().map(|one| (one.prompt.clone(), one)).collect()
}

/// Refuses other settings than those that an evaluation was begun with, and those of another version, which say the same in other words.
///
/// - `scored`: whether those of scores count, too.
fn same(
    dir: &Path,
    given: &Settings,
    stored: &BTreeMap<String, String>,
    scored: bool,
) -> Result<()> {
    ensure!(
        stored.get(SETTINGS_VERSION) == given.get(SETTINGS_VERSION),
        "{} was begun by another version of infalign, which says in other words what its samples depend on: go on with that version, or give another --out",
        dir.display()
    );
    let counts = |key: &str| scored || !OF_SCORES.contains(&key);
    // The prompts come first: what a side is depends on them, too.
    let keys = given.keys().copied().chain(stored.keys().map(String::as_str));
    let keys = std::iter::once("--prompts").chain(keys);
    let before = |key: &str| stored.get(key).map_or("nothing", String::as_str);
    let now = |key: &str| given.get(key).map_or("nothing", String::as_str);
    match keys.into_iter().find(|key| counts(key) && before(key) != now(key)) {
        None => Ok(()),
        Some(key) => bail!(
            "{} was begun with another {key}: it was {} and is {}; give another --out",
            dir.display(),
            before(key),
            now(key)
        ),
    }
}

/// Writes a file whole, or not at all.
///
/// # Errors
/// When it would hold a secret, or cannot be written.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    refuse_secrets(&path.display().to_string(), &text)?;
    files::write(path, text)
}

#[cfg(test)]
mod tests {
    use infalign_record::RunDir;
    use infalign_record::folder::LOCK;

    use super::*;

    const LIMITS: Limits = Limits { samples: 2, vocabulary: 9, max_tokens: 3 };

    fn settings(seed: &str) -> Settings {
        [("--seed", seed.to_owned()), ("--policy", "abc".to_owned())].into()
    }

    #[test]
    fn an_evaluation_goes_on_with_the_same_settings_alone_and_when_asked_to() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("e");
        let open = |resume, settings: &Settings| {
            let open = |held| Folder::open(&dir, resume, "a", settings, held);
            hold(&dir).and_then(open).map(drop).map_err(|error| error.to_string())
        };
        // It begins where there is none yet, too, but not where another process began one in the meantime.
        let new = root.path().join("new");
        let begin = || Folder::open(&new, true, "a", &settings("1"), None);
        drop(begin().unwrap());
        let told = begin().map(drop).unwrap_err().to_string();
        assert!(told.contains("another process has begun an evaluation in"), "{told}");
        // What a process left that was killed before it had settings.
        RunDir::at(&dir).unwrap();
        for name in [LOCK, ".part-x1"] {
            std::fs::write(dir.join(name), "").unwrap();
        }
        open(false, &settings("1")).unwrap();
        assert!(open(false, &settings("1")).unwrap_err().contains("--resume"));
        open(true, &settings("1")).unwrap();
        let other = open(true, &settings("2")).unwrap_err();
        assert!(other.contains("another --seed: it was 1 and is 2"), "{other}");
        let fewer: Settings = [("--seed", "1".to_owned())].into();
        assert!(open(true, &fewer).unwrap_err().contains("another --policy"), "a key that is gone");
        let held = hold(&dir).unwrap();
        assert!(open(true, &settings("1")).unwrap_err().contains("another process"));
        drop(held);
        // What scores may be mended as long as nothing is scored.
        let judged = |judge: &str| {
            Settings::from([("--judge", judge.to_owned())])
                .into_iter()
                .chain(settings("1"))
                .collect()
        };
        let mut newer = settings("2");
        newer.insert(SETTINGS_VERSION, VERSION.to_owned());
        let other = open(true, &newer).unwrap_err();
        assert!(other.contains("was begun by another version of infalign"), "{other}");
        open(true, &judged("here")).unwrap();
        open(true, &judged("there")).unwrap();
        std::fs::write(dir.join(REFERENCE), "{}").unwrap();
        let other = open(true, &judged("elsewhere")).unwrap_err();
        assert!(other.contains("another --judge: it was there and is elsewhere"), "{other}");
    }

    #[test]
    fn samples_of_other_prompts_numbers_or_procedures_are_not_gone_on_with() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("e");
        let folder = Folder::open(&dir, false, "a", &settings("1"), None).unwrap();
        let of = |id: &str, samples: usize, procedure: Option<&str>| {
            let sha256 = Some("0a".to_owned());
            let prompt = PromptText { id: id.to_owned(), text: "t".to_owned(), sha256 };
            let procedure = procedure.map(|text| text.parse().unwrap());
            Sampled::outline(vec![prompt], samples, procedure)
        };
        let wanted = of("p", 2, None);
        let scored = Sampled { rewards: vec![vec![0.0; 2]], ..wanted.clone() };
        folder.keep(Place::Policy, &scored).unwrap();
        let drawn = folder.drawn_path(Place::Policy);
        // As if it had been killed before it was removed.
        std::fs::write(&drawn, "{}\n").unwrap();
        for (other, told) in [
            (of("q", 2, None), "its samples have other prompts"),
            (of("p", 3, None), "its samples have other numbers of responses"),
            (of("p", 2, Some("best-of:2")), "its samples have other procedures"),
        ] {
            let error = folder.samples(Place::Policy, &other).unwrap_err();
            assert!(error.is::<Damaged>() && format!("{error:#}").contains(told), "{error:#}");
        }
        assert!(drawn.exists());
        let digest = |sha256: Option<&str>| {
            let mut other = wanted.clone();
            other.prompts[0].sha256 = sha256.map(str::to_owned);
            folder.samples(Place::Policy, &other)
        };
        digest(Some("0b")).unwrap_err();
        assert!(drawn.exists());
        assert_eq!(folder.samples(Place::Policy, &wanted).unwrap(), Some(scored));
        assert!(!drawn.exists());
        // Samples of older versions, or an outline without the prompts as they were given.
        digest(None).unwrap();
    }

    #[test]
    fn lines_that_were_cut_off_are_drawn_again() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("e");
        let folder = Folder::open(&dir, false, "a", &settings("1"), None).unwrap();
        let drawn = Drawn {
            prompt: "p".into(),
            tokens: vec![vec![1, 2], vec![8, 1, 2]],
            made: vec![2, 7],
            kl: vec![],
        };
        let line = serde_json::to_string(&drawn).unwrap();
        let path = dir.join(DRAWN[0]);
        for text in [format!("{line}\n"), format!("{line}\n{}", &line[..9])] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                folder.drawn(Place::Policy, &LIMITS).unwrap().1,
                std::slice::from_ref(&drawn)
            );
        }
        assert_eq!(folder.drawn(Place::Reference, &LIMITS).unwrap().1, []);
        // A prompt's name may be cut off within a letter.
        std::fs::write(&path, [line.as_bytes(), b"\n{\"prompt\":\"\xc3"].concat()).unwrap();
        assert_eq!(folder.drawn(Place::Policy, &LIMITS).unwrap().1, [drawn]);
    }

    #[test]
    fn responses_that_the_evaluation_cannot_have_drawn_are_damage() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("e");
        let folder = Folder::open(&dir, false, "a", &settings("1"), None).unwrap();
        let whole = r#"{"prompt":"p","tokens":[[1,2],[8]],"made":[2,1]}"#;
        let estimate = r#","kl":[{"nats":0.5,"kind":"exact"}]}"#;
        for (from, to) in [
            (r#""made":[2,1]"#, r#""made":[2]"#),
            (r#"[[1,2],[8]],"made":[2,1]"#, r#"[[1,2]],"made":[2]"#),
            ("[8]", "[9]"),
            ("[8]", "[]"),
            (r#"[8]],"made":[2,1]"#, r#"[8,1,1,2]],"made":[2,4]"#),
            (r#""made":[2,1]"#, r#""made":[1,1]"#),
            ("}", estimate),
        ] {
            let other = whole.replacen(from, to, 1);
            std::fs::write(dir.join(DRAWN[0]), format!("{whole}\n{other}\n")).unwrap();
            let error = folder.drawn(Place::Policy, &LIMITS).unwrap_err().to_string();
            assert!(
                error.contains("drawn.jsonl, line 2, is damaged: take the line out"),
                "{other}"
            );
        }
    }

    #[test]
    fn damage_before_the_last_line_is_named_and_nothing_is_thrown_away() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("e");
        let folder = Folder::open(&dir, false, "a", &settings("1"), None).unwrap();
        let path = dir.join(DRAWN[0]);
        std::fs::write(&path, "{\n{}\n").unwrap();
        let error = folder.drawn(Place::Policy, &LIMITS).unwrap_err().to_string();
        assert!(error.contains("drawn.jsonl, line 1, is damaged"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let error = folder.drawn(Place::Policy, &LIMITS).unwrap_err().to_string();
        assert!(error.contains("cannot read"), "{error}");
    }
}
