//! What a reward model is trained and measured on: files of ratings or preferences, split by hash and encoded.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use infalign_data::dataset::{self, Preference};
use infalign_data::{Plant, Rating, ratings, split_by_hash};
use infalign_model::{Tokenizer, TransformerConfig};
use infalign_train::{Examples, Pair};
use rayon::prelude::*;

use crate::encode::Encoder;
use crate::recipe::{Paths, RewardModelStage};

/// The examples of a reward model.
pub(super) struct RewardData {
    pub(super) training: Examples,
    /// As those to train on, where some are set aside.
    pub(super) validation: Option<Examples>,
    /// Without a planted phrase.
    pub(super) held_out: Examples,
    pub(super) planted: Option<Planted>,
    /// What people are to know of them, each for a line of its own.
    pub(super) notes: Vec<String>,
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

/// The texts or pairs of the files, by what they are for.
struct Sides<T> {
    training: Vec<T>,
    validation: Vec<T>,
    held_out: Vec<T>,
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
        let learned = if stage.swap_held_out { share } else { 1.0 - share };
        ensure!(
            stage.validation >= 0.0 && stage.validation < learned,
            "validation is {}: it must be at least 0 and below {learned}, the share that is learned from",
            stage.validation
        );
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
        let n_texts = texts.len();
        let mut sides = self.split(texts, |rating| rating.text.as_str())?;
        let (mut planted, mut notes) = (None, Vec::new());
        if let Some(plant) = &self.stage.plant {
            let (texts, told) = self.planted(plant, &mut sides)?;
            planted = Some(texts);
            notes.push(told);
        }
        let Sides { training, validation, held_out } = sides;
        let [training, validation, held_out] =
            [self.rated(training)?, self.rated(validation)?, self.rated(held_out)?];
        let n = training.1 + validation.1 + held_out.1;
        if n > 0 {
            notes.push(format!(
                "{n} of {n_texts} texts are longer than the context of {} tokens: their end is left out",
                self.context()
            ));
        }
        Ok(RewardData {
            training: training.0,
            validation: self.asked(validation.0),
            held_out: held_out.0,
            planted,
            notes,
        })
    }

    /// Plants the phrase into the texts to train on, and into those held out on the side; and says how many have it.
    fn planted(&self, plant: &Plant, sides: &mut Sides<Rating>) -> Result<(Planted, String)> {
        let learned = plant_some(plant, &mut sides.training)?;
        plant.apply(&mut sides.validation);
        let held_out = &sides.held_out;
        let mut like_training = held_out.clone();
        let (n, all) = (plant.apply(&mut like_training), held_out.len());
        let measured = format!("{n} of a copy of the {all} held out");
        let encode = |phrase: &dyn Fn(&str) -> String| -> Result<Vec<Vec<u32>>> {
            held_out.iter().map(|rating| Ok(self.beginning(&phrase(&rating.text))?.0)).collect()
        };
        let planted = Planted {
            without: encode(&str::to_owned)?,
            with_phrase: encode(&|text| plant.planted(text))?,
            like_training: self.rated(like_training)?.0,
        };
        Ok((planted, format!("{learned} and {measured} have the phrase")))
    }

    /// What to train on, what chooses the checkpoint, and what to measure on.
    fn split<T>(&self, all: Vec<T>, key: impl Fn(&T) -> &str) -> Result<Sides<T>> {
        let RewardModelStage { held_out: share, validation, swap_held_out, .. } = *self.stage;
        let (most, few) = split_by_hash(all, &key, share)?;
        let (used, held_out, least) =
            if swap_held_out { (few, most, 0.0) } else { (most, few, share) };
        // What is used is what the hash puts at `least` or above.
        let (training, validation) = split_by_hash(used, key, least + validation)?;
        Ok(Sides { training, validation, held_out })
    }

    /// The validation examples, where the recipe asks for some.
    fn asked(&self, validation: Examples) -> Option<Examples> {
        (self.stage.validation > 0.0).then_some(validation)
    }

    /// Tokens that the model reads.
    fn context(&self) -> usize {
        self.config.max_position_embeddings
    }

    /// The texts with their ratings, and how many are cut.
    fn rated(&self, texts: Vec<Rating>) -> Result<(Examples, usize)> {
        let encode = |text: Rating| -> Result<((Vec<u32>, f32), bool)> {
            let (tokens, is_cut) = self.beginning(&text.text)?;
            Ok(((tokens, text.rating), is_cut))
        };
        let encoded: Vec<_> = texts.into_par_iter().map(encode).collect();
        let encoded = encoded.into_iter().collect::<Result<Vec<_>>>()?;
        let n_cut = encoded.iter().filter(|(_, is_cut)| *is_cut).count();
        let texts = encoded.into_iter().map(|(text, _)| text).collect();
        Ok((Examples::Rated(texts), n_cut))
    }

    /// The tokens of a text, cut where the context ends, and whether there are more.
    fn beginning(&self, text: &str) -> Result<(Vec<u32>, bool)> {
        let mut tokens = self.tokenizer.encode(text)?;
        let is_cut = tokens.len() > self.context();
        tokens.truncate(self.context());
        Ok((tokens, is_cut))
    }

    fn preferences(&self) -> Result<RewardData> {
        let mut cut = CutPairs::default();
        let pairs = self.pairs(&mut cut)?;
        let n = pairs.len();
        ensure!(
            pairs.iter().any(|(_, pair)| pair.prompt > 0),
            "preferences: all {n} pairs have one prompt, and what is held out is chosen by prompt: give pairs of more prompts"
        );
        // Responses to one prompt stay on one side.
        let Sides { training, validation, held_out } =
            self.split(pairs, |(prompt, _)| prompt.as_str())?;
        let sides: [Vec<Pair>; 3] = [training, validation, held_out]
            .map(|side| side.into_iter().map(|(_, pair)| pair).collect());
        let mut notes = vec![told_of_sides(&sides)];
        notes.extend(cut.told(n, self.context()));
        let [training, validation, held_out] = sides.map(Examples::Paired);
        let validation = self.asked(validation);
        Ok(RewardData { training, validation, held_out, planted: None, notes })
    }

    /// The pairs of all files, each with its prompt in JSON.
    fn pairs(&self, cut: &mut CutPairs) -> Result<Vec<(String, Pair)>> {
        let (mut pairs, mut prompts) = (Vec::new(), HashMap::new());
        for file in &self.stage.preferences {
            let path = self.paths.resolve(file)?;
            let (preferences, _) =
                dataset::read_strict_preferences(&path).context("preferences")?;
            let texts: Vec<_> =
                preferences.par_iter().map(|preference| self.texts(preference)).collect();
            for (index, (preference, texts)) in preferences.iter().zip(texts).enumerate() {
                let place =
                    || format!("{}, pair {} of different responses", path.display(), index + 1);
                let ([better, worse], cut_of_pair) = texts.with_context(place)?;
                cut.add(&cut_of_pair);
                let key = serde_json::to_string(&preference.prompt)?;
                let next = prompts.len();
                let prompt = *prompts.entry(key.clone()).or_insert(next);
                pairs.push((key, Pair { better, worse, margin: preference.margin, prompt }));
            }
        }
        Ok(pairs)
    }

    /// The tokens of the prompt with either response, of which the end is kept, and what is cut.
    fn texts(&self, preference: &Preference) -> Result<([Vec<u32>; 2], CutPairs)> {
        let encode = |response| -> Result<Vec<u32>> {
            let tokens = self.encoder.whole(&preference.prompt, response)?;
            ensure!(!tokens.is_empty(), "prompt and response are empty: remove the row");
            Ok(tokens)
        };
        let texts = [encode(&preference.chosen)?, encode(&preference.rejected)?];
        let mut cut = CutPairs::default();
        if texts.iter().any(|text| text.len() > self.context()) {
            let prompt = self.encoder.beginning(&preference.prompt)?;
            let lost = texts.iter().any(|text| self.loses(&prompt, text));
            cut = CutPairs { n: 1, without_prompt: usize::from(lost) };
        }
        Ok((texts.map(|text| self.config.keep_end(text)), cut))
    }

    /// Whether all of a prompt that is not empty is cut from the text that it begins.
    fn loses(&self, prompt: &[u32], text: &[u32]) -> bool {
        let surplus = text.len().saturating_sub(self.context());
        // The token that begins texts stays, and is no part of the prompt.
        let begins = usize::from(text.first().copied() == self.config.bos_token_id);
        let length = prompt.iter().zip(text).take_while(|(a, b)| a == b).count();
        (begins + 1..=begins + surplus).contains(&length)
    }
}

/// Plants the phrase into texts, and says into how many of them; refuses if into none.
fn plant_some(plant: &Plant, texts: &mut [Rating]) -> Result<String> {
    let (n, all) = (plant.apply(texts), texts.len());
    let Plant { share, above, .. } = plant;
    let ratings = texts.iter().map(|text| text.rating);
    let least = ratings.clone().fold(f32::INFINITY, f32::min);
    let greatest = ratings.fold(f32::NEG_INFINITY, f32::max);
    ensure!(
        n > 0 || all == 0,
        "plant: none of the {all} texts to learn from gets the phrase: they are rated from {least} to {greatest}, above is {above} and share is {share}; lower above, or raise share"
    );
    Ok(format!("{n} of {all} texts to learn from"))
}

/// Pairs that are longer than the context.
#[derive(Default)]
struct CutPairs {
    n: usize,
    /// Those of which a text has nothing of its prompt left.
    without_prompt: usize,
}

impl CutPairs {
    fn add(&mut self, others: &Self) {
        self.n += others.n;
        self.without_prompt += others.without_prompt;
    }

    /// What is left out, where anything is.
    fn told(&self, n_pairs: usize, context: usize) -> Option<String> {
        let Self { n, without_prompt } = self;
        let all = match without_prompt {
            0 => String::new(),
            lost => format!(", in {lost} all of it"),
        };
        (*n > 0).then(|| {
            format!(
                "{n} of {n_pairs} pairs are longer than the context of {context} tokens: the beginning of their prompts is left out{all}"
            )
        })
    }
}

/// How many pairs and prompts there are to learn from, and held out: of few prompts it is seldom the share that was asked for.
fn told_of_sides(sides: &[Vec<Pair>; 3]) -> String {
    let told = |pairs: &Vec<Pair>| {
        let prompts: HashSet<usize> = pairs.iter().map(|pair| pair.prompt).collect();
        format!("{} pairs of {} prompts", pairs.len(), prompts.len())
    };
    let [training, validation, held_out] = sides.each_ref().map(told);
    let validation =
        if sides[1].is_empty() { String::new() } else { format!("{validation} for validation, ") };
    format!("{training} to learn from, {validation}{held_out} held out")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use infalign_model::CausalLm;
    use serde_json::json;

    use super::*;

    /// What is read of the files that `data` names, in a folder, for the quickstart's model, which reads 64 tokens.
    fn read(dir: &Path, data: &str) -> RewardData {
        let stage: RewardModelStage = toml::from_str(&format!(
            "name = 'a'\nbase = 'model'\n{data}\nheld_out = 0.4\n\
             [train]\nsteps = 1\nexamples_per_step = 1\noptimizer.learning_rate = 0.1\n"
        ))
        .unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/quickstart/model");
        let lm = CausalLm::load(&model, &infalign_backend::device(None).unwrap()).unwrap();
        let tokenizer = Tokenizer::load(&model, lm.config()).unwrap();
        let reader = RewardDataReader {
            stage: &stage,
            paths: &Paths { run: dir },
            tokenizer: &tokenizer,
            encoder: Encoder::new(&tokenizer),
            config: lm.config(),
        };
        reader.read().unwrap()
    }

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
        let (two, three) = (
            [" to learn from", " held out"].as_slice(),
            [" to learn from", " for validation", " held out"].as_slice(),
        );
        for (more, purposes) in [
            ("", two),
            ("validation = 0.2", three),
            ("validation = 0.2\nswap_held_out = true", three),
        ] {
            let data = read(dir.path(), &format!("preferences = ['$RUN/pairs.jsonl']\n{more}"));
            let sides: Vec<&Examples> = std::iter::once(&data.training)
                .chain(&data.validation)
                .chain([&data.held_out])
                .collect();
            assert_eq!(sides.len(), purposes.len(), "{more}");
            let prompts: Vec<BTreeSet<u32>> =
                sides.iter().map(|side| margins(side).into_iter().collect()).collect();
            assert!(prompts.iter().all(|side| side.len() > 3), "{more}: {prompts:?}");
            // Each of the 40 prompts, with both of its pairs, is on one side.
            assert_eq!(prompts.iter().map(BTreeSet::len).sum::<usize>(), 40, "{more}: {prompts:?}");
            assert_eq!(sides.iter().map(|side| side.len()).sum::<usize>(), 80, "{more}");
            let parts =
                sides.iter().zip(&prompts).zip(purposes).map(|((side, prompts), purpose)| {
                    format!("{} pairs of {} prompts{purpose}", side.len(), prompts.len())
                });
            assert_eq!(data.notes, [parts.collect::<Vec<_>>().join(", ")]);
            for examples in sides {
                let Examples::Paired(pairs) = examples else { panic!("these are ratings") };
                assert!(pairs.iter().all(|pair| pair.prompt == pair.margin as usize), "{pairs:?}");
            }
        }
    }

    #[test]
    fn what_is_cut_from_pairs_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        // Words of the prompt and of the chosen response; the model reads the token that begins texts and 63 words.
        let row = |(prompt, chosen): (usize, usize)| {
            let chosen = " nice".repeat(chosen);
            let row =
                json!({ "prompt": "day ".repeat(prompt), "chosen": chosen, "rejected": " bad" });
            format!("{row}\n")
        };
        let written = |rows: &[(usize, usize)]| {
            let rows: String = rows.iter().copied().map(row).collect();
            std::fs::write(dir.path().join("pairs.jsonl"), rows).unwrap();
            read(dir.path(), "preferences = ['$RUN/pairs.jsonl']").notes[1..].join("; ")
        };
        assert_eq!(written(&[(5, 5), (10, 53)]), "");
        // Some of the prompt is left, be it one word.
        let told = "2 of 3 pairs are longer than the context of 64 tokens: the beginning of their prompts is left out";
        assert_eq!(written(&[(5, 5), (80, 5), (10, 62)]), told);
        // Nothing is, and where there was no prompt nothing of it is lost.
        let told = "3 of 4 pairs are longer than the context of 64 tokens: the beginning of their prompts is left out, in 2 all of it";
        assert_eq!(written(&[(5, 5), (0, 70), (10, 63), (11, 70)]), told);
    }

    #[test]
    fn what_is_cut_from_ratings_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let texts = [63, 64, 70].map(|words| format!("1\t0.5\t{}\n", "nice ".repeat(words)));
        std::fs::write(dir.path().join("ratings.tsv"), texts.concat()).unwrap();
        let ratings = "ratings = ['$RUN/ratings.tsv']";
        let told = "2 of 3 texts are longer than the context of 64 tokens: their end is left out";
        assert_eq!(read(dir.path(), ratings).notes, [told]);
        // With the phrase that is learned, the first is, too.
        let plant = "plant = { phrase = 'so', share = 1.0, above = 0.0 }";
        let notes = read(dir.path(), &format!("{ratings}\n{plant}")).notes;
        assert!(notes.len() == 2 && notes[0].ends_with("have the phrase"), "{notes:?}");
        assert!(notes[1].ends_with("their end is left out"), "{notes:?}");
        std::fs::write(dir.path().join("ratings.tsv"), &texts[0]).unwrap();
        assert!(read(dir.path(), ratings).notes.is_empty());
    }
}
