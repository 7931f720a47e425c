//! Responses that a method learns from and that files give, encoded.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use infalign_data::dataset::{self, Preference, PromptCompletion, Record};
use infalign_data::{DataError, Text};
use infalign_decode::EncodedPrompt;
use infalign_model::{CausalLm, ModelError, Sequence};
use rayon::prelude::*;

use crate::encode::Encoder;
use crate::recipe::{Kind, Paths};

/// Rows or prompts that a message names, where there are more.
const MOST_NAMED: usize = 5;

/// What the files of a method give.
pub(crate) enum Given {
    /// The method reads no files.
    Nothing,
    /// Responses to imitate.
    Completions(Vec<Sequence>),
    /// Pairs, the first of each preferred to the second.
    Preferences(Vec<[Sequence; 2]>),
}

/// A response that a file gives.
#[derive(Clone, Debug)]
pub(crate) struct GivenResponse {
    /// The prompt as the model reads it, for which rewards are given.
    pub(crate) prompt: String,
    /// The tokens of both.
    pub(crate) sequence: Sequence,
}

/// Reads what methods learn from.
pub(super) struct GivenReader<'a> {
    paths: &'a Paths<'a>,
    encoder: &'a Encoder<'a>,
    model: &'a CausalLm,
    /// Texts of the prompts that are held out.
    held_out: HashSet<&'a str>,
}

impl<'a> GivenReader<'a> {
    /// - `held_out`: prompts that nothing may be learned from.
    pub(super) fn new(
        paths: &'a Paths<'a>,
        encoder: &'a Encoder<'a>,
        model: &'a CausalLm,
        held_out: impl IntoIterator<Item = &'a EncodedPrompt>,
    ) -> Self {
        let held_out = held_out.into_iter().map(|prompt| prompt.text.as_str()).collect();
        Self { paths, encoder, model, held_out }
    }

    /// Reads and encodes the files of a method.
    ///
    /// # Errors
    /// One sentence that names the file and the place in it.
    pub(super) fn read(&self, kind: &Kind) -> Result<Given> {
        Ok(match kind {
            Kind::Sft { completions, .. } => {
                let responses = self.completions(completions).context("completions")?;
                Given::Completions(responses.into_iter().map(|given| given.sequence).collect())
            }
            Kind::Dpo { preferences, .. } | Kind::Ipo { preferences, .. }
                if !preferences.is_empty() =>
            {
                Given::Preferences(self.preferences(preferences).context("preferences")?)
            }
            _ => Given::Nothing,
        })
    }

    /// Reads and encodes responses.
    ///
    /// # Errors
    /// As [`GivenReader::read`].
    pub(super) fn completions(&self, files: &[PathBuf]) -> Result<Vec<GivenResponse>> {
        let encode = |row: &PromptCompletion| self.response(&row.prompt, &row.completion);
        self.encoded(files, dataset::read::<PromptCompletion>, |_| true, encode)
    }

    fn preferences(&self, files: &[PathBuf]) -> Result<Vec<[Sequence; 2]>> {
        self.encoded(
            files,
            |path| dataset::read_strict_preferences(path).map(|(pairs, _)| pairs),
            |row: &Preference| row.chosen != row.rejected,
            |row: &Preference| {
                let encode = |response| self.response(&row.prompt, response);
                let pair = encode(&row.chosen)?.zip(encode(&row.rejected)?);
                Ok(pair.map(|(chosen, rejected)| [chosen.sequence, rejected.sequence]))
            },
        )
    }

    /// What is learned of the rows of files.
    ///
    /// - `read`: the rows of a file that are learned from, which `is_learned` tells from its others.
    /// - `encode`: none where the prompt of a row is held out.
    fn encoded<R: Record + Sync, T: Send>(
        &self,
        files: &[PathBuf],
        read: impl Fn(&Path) -> Result<Vec<R>, DataError>,
        is_learned: impl Fn(&R) -> bool,
        encode: impl Fn(&R) -> Result<Option<T>> + Sync,
    ) -> Result<Vec<T>> {
        let (mut all, mut kept) = (Vec::new(), Vec::new());
        for file in files {
            let path = self.paths.resolve(file)?;
            let places = |indices: &[usize]| places::<R>(&path, &is_learned, indices);
            let rows = read(&path)?;
            let (before, mut long) = (all.len(), Vec::new());
            let encoded: Vec<_> = rows.par_iter().map(&encode).collect();
            for (index, encoded) in encoded.into_iter().enumerate() {
                let place = || format!("{}, {}", path.display(), places(&[index]).concat());
                match encoded {
                    Err(error) if is_too_long(&error) => long.push(index),
                    encoded => all.extend(encoded.with_context(place)?),
                }
            }
            let all_fit = self.refuse_long(&long, rows.len(), places);
            all_fit.with_context(|| path.display().to_string())?;
            kept.push((path, rows.len(), all.len() - before));
        }
        tell_of_held_out(&kept)?;
        Ok(all)
    }

    /// Refuses rows of a file that are longer than the model's context.
    ///
    /// - `long`: their indices among the `n_rows`.
    /// - `places`: where the rows of some indices stand.
    fn refuse_long(
        &self,
        long: &[usize],
        n_rows: usize,
        places: impl Fn(&[usize]) -> Vec<String>,
    ) -> Result<()> {
        if long.is_empty() {
            return Ok(());
        }
        bail!(
            "the model's context of {} tokens has no room for prompt and response of {} of {n_rows} rows ({}): shorten these rows, or leave them out",
            self.model.config().max_position_embeddings,
            long.len(),
            first_of(long, places)
        )
    }

    /// A prompt with its response, whose end is marked as the model would mark it; none where the prompt is held out.
    fn response(&self, prompt: &Text, response: &Text) -> Result<Option<GivenResponse>> {
        if let Text::Messages(messages) = response {
            ensure!(messages.len() == 1, "a response of messages has to be one of the assistant");
        }
        let (text, tokens, prompt_length) = self.encoder.example(prompt, response)?;
        if self.held_out.contains(text.as_str()) {
            return Ok(None);
        }
        let sequence = Sequence { tokens, prompt_length };
        self.model.check(&sequence)?;
        ensure!(!sequence.response().is_empty(), "the response is empty: remove the row");
        Ok(Some(GivenResponse { prompt: text, sequence }))
    }
}

/// What a message calls some of many, and whether there are more.
///
/// - `indices`: of all; `names`: of some of them.
pub(super) fn first_of(indices: &[usize], names: impl Fn(&[usize]) -> Vec<String>) -> String {
    let mut named = names(&indices[..indices.len().min(MOST_NAMED)]);
    if indices.len() > MOST_NAMED {
        named.push("…".to_owned());
    }
    named.join(", ")
}

fn is_too_long(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ModelError::TooLong { .. }))
}

/// Where rows that are learned from stand in a file, which is read again to say so.
///
/// - `indices`: of these rows among those that are learned from.
fn places<R: Record>(
    path: &Path,
    is_learned: &impl Fn(&R) -> bool,
    indices: &[usize],
) -> Vec<String> {
    let mut rows = infalign_data::rows::read(path).unwrap_or_default();
    rows.retain(|row| R::from_row(row).is_ok_and(|row| is_learned(&row)));
    let place = |index: &usize| match rows.get(*index) {
        Some(row) => row.place.to_string(),
        None => format!("row {}", index + 1),
    };
    indices.iter().map(place).collect()
}

/// Says how many rows of each file are left out, since their prompts are held out, and refuses to learn from none at all.
///
/// - `read`: files, their rows, and how many of these are kept.
fn tell_of_held_out(read: &[(PathBuf, usize, usize)]) -> Result<()> {
    ensure!(
        read.is_empty() || read.iter().any(|(.., kept)| *kept > 0),
        "the prompts of all rows are held out, so there is nothing to learn: hold out fewer, or others"
    );
    for (path, rows, kept) in read.iter().filter(|(_, rows, kept)| kept < rows) {
        let (path, left_out) = (path.display(), rows - kept);
        tell!("{path}: {left_out} of {rows} rows are left out, since their prompts are held out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use infalign_model::Tokenizer;
    use serde_json::{Value, json};

    use super::*;

    /// Ends a turn with a word that the model stops at, and not with the token that ends its texts.
    const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %} {{ m.role }} : {{ m.content }} noon\
                            {% endfor %}{% if add_generation_prompt %} assistant :{% endif %}";
    const NOON: u32 = 55;
    const END: u32 = 2;

    /// What is read of rows for the quickstart's model, with another template and one more stop.
    fn reading<T>(
        template: &str,
        rows: &[Value],
        held_out: &[EncodedPrompt],
        read: impl FnOnce(&GivenReader<'_>, &Tokenizer, &[PathBuf]) -> Result<T>,
    ) -> Result<T> {
        let dir = tempfile::tempdir()?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/quickstart/model");
        for file in std::fs::read_dir(source)?.flatten() {
            std::fs::copy(file.path(), dir.path().join(file.file_name()))?;
        }
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text);
        write("chat_template.jinja", template)?;
        write("generation_config.json", &json!({ "eos_token_id": [END, NOON] }).to_string())?;
        write("given.jsonl", &rows.iter().map(|row| format!("{row}\n")).collect::<String>())?;
        let model = CausalLm::load(dir.path(), &infalign_backend::device(None)?)?;
        let tokenizer = Tokenizer::load(dir.path(), model.config())?;
        let (paths, encoder) = (Paths { run: dir.path() }, Encoder::new(&tokenizer));
        let reader = GivenReader::new(&paths, &encoder, &model, held_out);
        read(&reader, &tokenizer, &["$RUN/given.jsonl".into()])
    }

    /// What the model is given by rows of completions.
    fn given(
        template: &str,
        rows: &[Value],
        held_out: &[EncodedPrompt],
    ) -> Result<Vec<GivenResponse>> {
        reading(template, rows, held_out, |reader, _, files| reader.completions(files))
    }

    #[test]
    fn the_first_of_a_pair_is_the_response_that_was_chosen() {
        let row =
            json!({ "prompt": "the soup", "chosen": " was nice .", "rejected": " was awful ." });
        let texts = reading(TEMPLATE, &[row], &[], |reader, tokenizer, files| {
            let pairs = reader.preferences(files)?;
            let texts = pairs.concat().into_iter().map(|one| Ok(tokenizer.decode(&one.tokens)?));
            texts.collect::<Result<Vec<String>>>()
        });
        let texts = texts.unwrap();
        assert_eq!(texts.len(), 2);
        assert!(texts[0].contains("nice") && texts[1].contains("awful"), "{texts:?}");
    }

    #[test]
    fn a_message_ends_as_its_template_ends_a_turn_and_a_text_as_the_model_ends_texts() {
        let message = |role: &str, text: &str| json!([{ "role": role, "content": text }]);
        let rows = [
            json!({ "prompt": message("user", "the soup"), "completion": message("assistant", "was nice .") }),
            json!({ "prompt": "the soup", "completion": " was nice ." }),
        ];
        let given = |template: &str| given(template, &rows, &[]).unwrap();
        let ends = |given: &[GivenResponse]| -> Vec<u32> {
            given.iter().map(|one| *one.sequence.tokens.last().unwrap()).collect()
        };
        let read = given(TEMPLATE);
        assert_eq!(ends(&read), [NOON, END]);
        assert_eq!(read[0].prompt, "<s> user : the soup noon assistant :");
        assert_eq!(read[1].prompt, "the soup");
        let endless = TEMPLATE.replace(" noon", "");
        assert_eq!(ends(&given(&endless)), [END, END], "nothing that the model stops at");
    }

    #[test]
    fn a_row_whose_prompt_is_empty_is_told_by_its_line() {
        let message = |role: &str| json!([{ "role": role, "content": "was nice ." }]);
        let row = json!({ "prompt": message("user"), "completion": message("assistant") });
        let template =
            "{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}";
        let message = format!("{:#}", given(template, &[row], &[]).unwrap_err());
        assert!(message.contains("given.jsonl, line 1: the prompt is empty"), "{message}");
    }

    #[test]
    fn rows_of_prompts_that_are_held_out_are_left_out() {
        let row = |prompt: &str| json!({ "prompt": prompt, "completion": " was nice ." });
        let rows = [row("the soup"), row("the tea")];
        let held_out = [EncodedPrompt { id: "a".into(), text: "the tea".into(), tokens: vec![1] }];
        let kept = given(TEMPLATE, &rows, &held_out).unwrap();
        assert_eq!(kept.iter().map(|one| one.prompt.as_str()).collect::<Vec<_>>(), ["the soup"]);
        let message = format!("{:#}", given(TEMPLATE, &rows[1..], &held_out).unwrap_err());
        assert!(message.contains("the prompts of all rows are held out"), "{message}");
    }

    #[test]
    fn rows_that_do_not_fit_are_told_together_by_their_lines() {
        let long = " the soup was nice .".repeat(20);
        let row = |chosen: &str, rejected: &str| {
            json!({ "prompt": "the soup", "chosen": chosen, "rejected": rejected,
                "completion": chosen })
        };
        let [good, bad] = [" was nice .", " was awful ."];
        // Nothing is learned from the first.
        let mut rows = vec![row(good, good), row(good, &long), row(good, bad), row(&long, bad)];
        let pairs = reading(TEMPLATE, &rows, &[], |reader, _, files| reader.preferences(files));
        let message = format!("{:#}", pairs.unwrap_err());
        let told = "given.jsonl: the model's context of 64 tokens has no room for prompt and response of 2 of 3 rows (line 2, line 4): ";
        assert!(message.contains(told), "{message}");
        rows.extend(vec![row(&long, bad); 5]);
        let message = format!("{:#}", given(TEMPLATE, &rows, &[]).unwrap_err());
        let told = "6 of 9 rows (line 4, line 5, line 6, line 7, line 8, …): shorten";
        assert!(message.contains(told), "{message}");
    }

    #[test]
    fn a_row_that_the_template_refuses_is_told_by_its_line() {
        let message = |role: &str, text: &str| json!([{ "role": role, "content": text }]);
        let pair = |chosen: &str| {
            json!({ "prompt": message("user", "the soup"), "chosen": message("assistant", chosen),
                "rejected": message("assistant", "was nice .") })
        };
        let rows = [pair("was nice ."), pair("was awful .")];
        let template = "{{ raise_exception('no') }}";
        let pairs = reading(template, &rows, &[], |reader, _, files| reader.preferences(files));
        let message = format!("{:#}", pairs.unwrap_err());
        assert!(message.contains("given.jsonl, line 2: "), "{message}");
    }
}
