//! Rewards that are kept by the content of what was scored, so that nothing is scored twice.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::{Reward, RewardError, cache_file};

/// SHA-256 of a reward's identity, a prompt and a response.
pub(crate) type Key = [u8; 32];

/// A reward that is asked once for each pair, and in batches: what a batch brought is kept before the next is asked, so that a failure or a
/// panic loses no batch before it. It takes some 50 bytes of memory a pair.
pub struct Cached {
    reward: Box<dyn Reward>,
    identity: String,
    batch: NonZeroUsize,
    /// Whether each pair of a batch is asked for by itself.
    apart: bool,
    known: Mutex<HashMap<Key, f32>>,
    file: Option<PathBuf>,
}

impl Cached {
    /// Keeps rewards in memory.
    ///
    /// - `identity`: tells the reward from all others that share a file with it, or may one day.
    /// - `batch`: the most pairs that the reward is asked for together.
    pub fn new(reward: Box<dyn Reward>, identity: &str, batch: NonZeroUsize) -> Self {
        let (identity, known) = (identity.to_owned(), Mutex::default());
        Self { reward, identity, batch, apart: false, known, file: None }
    }

    /// Asks for each pair of a batch by itself, for all at the same time, and keeps what comes as it comes.
    pub(crate) fn apart(self) -> Self {
        Self { apart: true, ..self }
    }

    /// Keeps rewards in a file, too, where one is given, and takes those that it holds from there. It is made where it is not there, and is
    /// JSON Lines of `key`, the SHA-256 of identity, prompt and response, and `reward`. Rewards and processes may share it.
    ///
    /// # Errors
    /// [`RewardError::CacheFile`] when the file cannot be read, [`RewardError::CacheLine`] for a line that is damaged. A last line that was
    /// cut off does not count as such: its pair is scored again.
    pub fn with_file(mut self, path: Option<&Path>) -> Result<Self, RewardError> {
        if let Some(path) = path {
            self.known = Mutex::new(cache_file::read(path)?);
            self.file = Some(path.to_path_buf());
        }
        Ok(self)
    }

    /// How many of the pairs, each content counted once, the reward would have to be asked for.
    pub fn unknown(&self, pairs: &[(&str, &str)]) -> usize {
        let keys: Vec<Key> = pairs.iter().map(|pair| self.key(pair)).collect();
        self.missing(&keys).len()
    }

    fn key(&self, (prompt, response): &(&str, &str)) -> Key {
        let mut hasher = Sha256::new();
        for text in [self.identity.as_str(), prompt, response] {
            // With their lengths, or the end of one could be the beginning of the next.
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        hasher.finalize().into()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, f32>> {
        // A panic elsewhere does not harm the map, which is whole between any two insertions.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the pairs stand that have to be scored, each content once.
    fn missing(&self, keys: &[Key]) -> Vec<usize> {
        let (known, mut seen) = (self.known(), HashSet::new());
        let mut new = |key: &Key| !known.contains_key(key) && seen.insert(*key);
        (0..keys.len()).filter(|&idx| new(&keys[idx])).collect()
    }

    /// Asks for some pairs, and keeps their rewards.
    fn ask(&self, keys: &[Key], pairs: &[(&str, &str)]) -> Result<(), RewardError> {
        let rewards = self.reward.score(pairs)?;
        self.keep(&keys.iter().copied().zip(rewards).collect::<Vec<_>>())
    }

    /// The same, of each pair on a thread of its own; what has come is kept together. A failure is told once all others have their answers.
    fn ask_apart(&self, keys: &[Key], pairs: &[(&str, &str)]) -> Result<(), RewardError> {
        std::thread::scope(|scope| {
            let (sender, answers) = channel();
            let each = keys.iter().zip(pairs).map(|(&key, &pair)| {
                let sender = sender.clone();
                scope.spawn(move || -> Result<(), RewardError> {
                    if let Some(&reward) = self.reward.score(&[pair])?.first() {
                        // It is listened to until all have ended.
                        let _ = sender.send((key, reward));
                    }
                    Ok(())
                })
            });
            let asking: Vec<_> = each.collect();
            drop(sender);
            let mut kept = Ok(());
            while let Ok(first) = answers.recv() {
                let scored: Vec<_> = std::iter::once(first).chain(answers.try_iter()).collect();
                kept = kept.and(self.keep(&scored));
            }
            let joined = asking
                .into_iter()
                .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect::<Result<(), RewardError>>().and(kept)
        })
    }

    fn keep(&self, scored: &[(Key, f32)]) -> Result<(), RewardError> {
        let mut known = self.known();
        for (key, reward) in scored {
            // The first one stays, here as in the file, if two threads asked at the same time.
            known.entry(*key).or_insert(*reward);
        }
        self.file.as_ref().map_or(Ok(()), |path| cache_file::append(path, scored))
    }
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity, batch, file, .. } = self;
        let mut all = f.debug_struct("Cached");
        all.field("identity", identity).field("batch", batch).field("file", file);
        all.finish_non_exhaustive()
    }
}

impl Reward for Cached {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let keys: Vec<Key> = pairs.iter().map(|pair| self.key(pair)).collect();
        for batch in self.missing(&keys).chunks(self.batch.get()) {
            let keys: Vec<Key> = batch.iter().map(|&idx| keys[idx]).collect();
            let asked: Vec<_> = batch.iter().map(|&idx| pairs[idx]).collect();
            match self.apart {
                true => self.ask_apart(&keys, &asked)?,
                false => self.ask(&keys, &asked)?,
            }
        }
        let known = self.known();
        let reward = |(key, (_, response)): (&Key, &(&str, &str))| {
            known
                .get(key)
                .copied()
                .ok_or_else(|| RewardError::NotScored { response: (*response).to_owned() })
        };
        keys.iter().zip(pairs).map(reward).collect()
    }

    fn answer<'t>(&self, response: &'t str) -> Option<&'t str> {
        self.reward.answer(response)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// What a reward was asked, call by call.
    type Calls = Arc<Mutex<Vec<Vec<String>>>>;

    /// Rewards a response by its length, and fails or panics where it is asked to.
    struct Counted(Calls);

    impl Reward for Counted {
        fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
            let told = pairs.iter().map(|(prompt, response)| format!("{prompt}|{response}"));
            self.0.lock().unwrap().push(told.collect());
            assert!(pairs.iter().all(|(prompt, _)| *prompt != "panic"));
            if let Some((prompt, _)) = pairs.iter().find(|(prompt, _)| *prompt == "fail") {
                return Err(RewardError::NoAnswer { prompt: (*prompt).to_owned() });
            }
            Ok(pairs.iter().map(|(_, response)| response.len() as f32 / 3.0).collect())
        }

        fn answer<'t>(&self, response: &'t str) -> Option<&'t str> {
            response.get(..1)
        }
    }

    fn cached(batch: usize) -> (Cached, Calls) {
        let calls = Calls::default();
        let reward = Box::new(Counted(calls.clone()));
        (Cached::new(reward, "counted", NonZeroUsize::new(batch).unwrap()), calls)
    }

    fn taken(calls: &Calls) -> Vec<Vec<String>> {
        std::mem::take(&mut *calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[test]
    fn each_pair_is_asked_once_and_in_batches() {
        let (cached, calls) = cached(2);
        let pairs = [("a", "x"), ("a", "yy"), ("a", "x"), ("b", "x"), ("ax", "")];
        let expected: [f32; 5] = [1.0, 2.0, 1.0, 1.0, 0.0].map(|length| length / 3.0);
        assert_eq!(cached.score(&pairs).unwrap(), expected);
        assert_eq!(taken(&calls), [vec!["a|x", "a|yy"], vec!["b|x", "ax|"]]);
        assert_eq!(cached.score(&pairs[1..]).unwrap(), expected[1..]);
        assert!(taken(&calls).is_empty());
        assert!(cached.score(&[]).unwrap().is_empty());
        assert_eq!((cached.answer("yy"), cached.answer("")), (Some("y"), None));
    }

    #[test]
    fn what_was_scored_before_a_failure_or_a_panic_stays() {
        for end in ["fail", "panic"] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("cache.jsonl");
            let (first, calls) = cached(1);
            let first = first.with_file(Some(&file)).unwrap();
            let pairs = [("a", "x"), (end, ""), ("b", "x")];
            let call = std::panic::AssertUnwindSafe(|| first.score(&pairs));
            assert!(!matches!(std::panic::catch_unwind(call), Ok(Ok(_))));
            assert_eq!(taken(&calls).len(), 2);
            let rest = [("b", "x"), ("a", "x")];
            assert_eq!(first.score(&rest).unwrap(), [1.0 / 3.0; 2]);
            assert_eq!(taken(&calls), [["b|x"]]);
            let (second, calls) = cached(1);
            let second = second.with_file(Some(&file)).unwrap();
            assert_eq!(second.score(&rest).unwrap(), [1.0 / 3.0; 2]);
            assert!(taken(&calls).is_empty(), "the file has both");
        }
    }

    #[test]
    fn of_pairs_that_are_asked_for_apart_a_failure_or_a_panic_costs_none_of_the_others() {
        for end in ["fail", "panic"] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("cache.jsonl");
            let first = cached(3).0.apart().with_file(Some(&file)).unwrap();
            let pairs = [("a", "x"), (end, ""), ("b", "yy")];
            let call = std::panic::AssertUnwindSafe(|| first.score(&pairs));
            assert!(!matches!(std::panic::catch_unwind(call), Ok(Ok(_))));
            let (second, calls) = cached(3);
            let second = second.apart().with_file(Some(&file)).unwrap();
            for cached in [first, second] {
                assert_eq!(cached.score(&[pairs[2], pairs[0]]).unwrap(), [2.0 / 3.0, 1.0 / 3.0]);
                assert_eq!(cached.unknown(&pairs), 1);
            }
            assert!(taken(&calls).is_empty(), "the file has both");
        }
    }

    #[test]
    fn rewards_that_share_a_file_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cache.jsonl");
        let calls = Calls::default();
        for (identity, n_calls) in [("one", 1), ("other", 1), ("one", 0)] {
            let reward = Box::new(Counted(calls.clone()));
            let cached =
                Cached::new(reward, identity, NonZeroUsize::MIN).with_file(Some(&file)).unwrap();
            cached.score(&[("a", "x")]).unwrap();
            assert_eq!(taken(&calls).len(), n_calls, "{identity}");
        }
    }

    #[test]
    fn a_reward_that_leaves_pairs_out_is_an_error() {
        struct Silent;
        impl Reward for Silent {
            fn score(&self, _: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
                Ok(Vec::new())
            }
        }
        let cached = Cached::new(Box::new(Silent), "silent", NonZeroUsize::MIN);
        assert!(cached.score(&[("a", "x")]).unwrap_err().to_string().contains("\"x\""));
    }
}
