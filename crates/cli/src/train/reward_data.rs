//! What a reward model is trained and measured on: files of ratings or preferences, split by hash and encoded.

use anyhow::{Context, Result, ensure};
use infalign_data::{Rating, dataset, ratings, split_by_hash};
use infalign_model::{Tokenizer, TransformerConfig};
use infalign_train::{Examples, Pair};

use crate::encode::Encoder;
use crate::recipe::{Paths, RewardModelStage};

/// The examples of a reward model.
pub(super) struct RewardData {
    pub(super) training: Examples,
    /// Without a planted phrase.
    pub(super) held_out: Examples,
    pub(super) planted: Option<Planted>,
}

/// The held-out texts with a planted phrase.
pub(super) struct Planted {
    /// Planted as the texts to train on are.
    pub(super) like_training: Examples,
    /// Tokens of all of them as they are.
    pub(super) without: Vec<Vec<u32>>,
    /// Tokens of all of them, each with the phrase.
    pub(super) with_phrase: Vec<Vec<u32>>,
}

/// Reads the examples of one stage.
pub(super) struct RewardDataReader<'a> {
    pub(super) stage: &'a RewardModelStage,
    pub(super) paths: &'a Paths<'a>,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) encoder: Encoder<'a>,
    /// Of the model.
    pub(super) config: &'a TransformerConfig,
}

impl RewardDataReader<'_> {
    /// Reads, splits and encodes the files of the stage.
    ///
    /// # Errors
    /// One sentence that names the key, or the file and its line.
    pub(super) fn read(&self) -> Result<RewardData> {
        let stage = self.stage;
        let share = stage.held_out;
        ensure!(share > 0.0 && share < 1.0, "held_out is {share}: it must be above 0 and below 1");
        ensure!(
            stage.ratings.is_empty() != stage.preferences.is_empty(),
            "name at least one file under ratings or under preferences, and leave the other out"
        );
        if let Some(plant) = &stage.plant {
            ensure!(
                stage.preferences.is_empty(),
                "plant goes with ratings, not with preferences: it chooses texts by their rating"
            );
            plant.check().context("plant")?;
        }
        if stage.ratings.is_empty() { self.preferences() } else { self.ratings() }
    }

    fn ratings(&self) -> Result<RewardData> {
        let mut texts = Vec::new();
        for file in &self.stage.ratings {
            texts.extend(ratings::read_tsv(&self.paths.resolve(file)?).context("ratings")?);
        }
        let (used, held_out) = self.split(texts, |rating| rating.text.as_str())?;
        let Some(plant) = &self.stage.plant else {
            let (training, held_out) = (self.rated(used)?, self.rated(held_out)?);
            return Ok(RewardData { training, held_out, planted: None });
        };
        let encode = |phrase: &dyn Fn(&str) -> String| -> Result<Vec<Vec<u32>>> {
            held_out.iter().map(|rating| self.beginning(&phrase(&rating.text))).collect()
        };
        let planted = Planted {
            without: encode(&str::to_owned)?,
            with_phrase: encode(&|text| plant.planted(text))?,
            like_training: self.rated(plant.apply(held_out.clone()))?,
        };
        Ok(RewardData {
            training: self.rated(plant.apply(used))?,
            held_out: self.rated(held_out)?,
            planted: Some(planted),
        })
    }

    /// What to train on, and what to measure on.
    fn split<T>(&self, all: Vec<T>, key: impl Fn(&T) -> &str) -> Result<(Vec<T>, Vec<T>)> {
        let (most, share) = split_by_hash(all, key, self.stage.held_out)?;
        Ok(if self.stage.swap_held_out { (share, most) } else { (most, share) })
    }

    fn rated(&self, texts: Vec<Rating>) -> Result<Examples> {
        let encode = |text: Rating| Ok((self.beginning(&text.text)?, text.rating));
        Ok(Examples::Rated(texts.into_iter().map(encode).collect::<Result<_>>()?))
    }

    /// The tokens of a text, cut where the context ends.
    fn beginning(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = self.tokenizer.encode(text)?;
        tokens.truncate(self.config.max_position_embeddings);
        Ok(tokens)
    }

    fn preferences(&self) -> Result<RewardData> {
        let mut pairs = Vec::new();
        for file in &self.stage.preferences {
            let path = self.paths.resolve(file)?;
            let (preferences, _) =
                dataset::read_strict_preferences(&path).context("preferences")?;
            for (index, preference) in preferences.iter().enumerate() {
                let pair = self.pair(preference);
                let place =
                    || format!("{}, pair {} of different responses", path.display(), index + 1);
                // Responses to one prompt stay on one side.
                pairs.push((serde_json::to_string(&preference.prompt)?, pair.with_context(place)?));
            }
        }
        let (used, held_out) = self.split(pairs, |(prompt, _)| prompt.as_str())?;
        let examples = |pairs: Vec<(String, Pair)>| {
            Examples::Paired(pairs.into_iter().map(|(_, pair)| pair).collect())
        };
        Ok(RewardData { training: examples(used), held_out: examples(held_out), planted: None })
    }

    fn pair(&self, preference: &dataset::Preference) -> Result<Pair> {
        let encode = |response| -> Result<Vec<u32>> {
            let tokens = self.encoder.whole(&preference.prompt, response)?;
            ensure!(!tokens.is_empty(), "prompt and response are empty: remove the row");
            Ok(self.config.keep_end(tokens))
        };
        let (better, worse) = (encode(&preference.chosen)?, encode(&preference.rejected)?);
        Ok(Pair { better, worse, margin: preference.margin })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use infalign_model::CausalLm;
    use serde_json::json;

    use super::*;

    /// The margins of pairs, by which a test tells their prompts.
    fn margins(examples: &Examples) -> Vec<u32> {
        match examples {
            Examples::Paired(pairs) => pairs.iter().map(|pair| pair.margin as u32).collect(),
            Examples::Rated(_) => panic!("these are ratings"),
        }
    }

    #[test]
    fn all_pairs_of_a_prompt_are_on_one_side() {
        let dir = tempfile::tempdir().unwrap();
        let row = |k: usize| {
            let [chosen, rejected] = ["nice", "awful"].map(|word| format!(" {word} {k} ."));
            let row = json!({ "prompt": format!("day {} :", k % 40), "chosen": chosen, "rejected": rejected, "margin": k % 40 });
            format!("{row}\n")
        };
        let pairs = dir.path().join("pairs.jsonl");
        std::fs::write(&pairs, (0..80).map(row).collect::<String>()).unwrap();
        let stage: RewardModelStage = toml::from_str(
            "name = 'a'\nbase = 'model'\npreferences = ['$RUN/pairs.jsonl']\nheld_out = 0.5\n\
             [train]\nsteps = 1\nexamples_per_step = 1\noptimizer.learning_rate = 0.1\n",
        )
        .unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/quickstart/model");
        let lm = CausalLm::load(&model, &infalign_backend::device(None).unwrap()).unwrap();
        let tokenizer = Tokenizer::load(&model, lm.config()).unwrap();
        let reader = RewardDataReader {
            stage: &stage,
            paths: &Paths { run: dir.path() },
            tokenizer: &tokenizer,
            encoder: Encoder::new(&tokenizer),
            config: lm.config(),
        };
        let data = reader.read().unwrap();
        let sides = [margins(&data.training), margins(&data.held_out)];
        let prompts = sides.each_ref().map(|side| side.iter().copied().collect::<BTreeSet<u32>>());
        assert!(prompts.iter().all(|side| side.len() > 5), "{prompts:?}");
        assert!(prompts[0].is_disjoint(&prompts[1]), "{prompts:?}");
        assert_eq!(sides[0].len() + sides[1].len(), 80);
    }
}
