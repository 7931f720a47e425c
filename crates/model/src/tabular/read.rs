//! The file of a tabular model, read and checked.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::rows::not_a_probability;
use super::tree::{EOS, MOST_LETTERS, MOST_PREFIXES};
use super::{PrefixTree, TabularLm, TabularProblem};
use crate::ModelError;

impl TabularProblem {
    /// Reads a JSON file with the keys
    ///
    /// - `D`: most tokens of a response, EOS included;
    /// - `p`: for each prefix of letters, such as `ab`, the probabilities of the tokens a, b, c, … and, last, EOS. Prefixes of D − 1
    ///   letters may be left out, since only EOS follows them, and so may prefixes of probability 0;
    /// - `r`: for each complete response, such as `ab$`, its reward. Responses of probability 0 may be left out.
    ///
    /// Numbers may be written as text, fractions too: `0.5`, `"0.5"`, `"1/2"`. Other keys are left alone.
    ///
    /// # Errors
    /// [`ModelError`] names the file, the key, the value, and what has to be there.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(ModelError::read(path))?;
        Self::parse(&text, path)
    }

    /// The same of a text; `name` stands for the file in errors.
    ///
    /// # Errors
    /// As [`TabularProblem::read`].
    pub fn parse(text: &str, name: &Path) -> Result<Self, ModelError> {
        let document: Document = serde_json::from_str(text)
            .map_err(|source| ModelError::Json { path: name.into(), source })?;
        let refuse = |reason| ModelError::Table { name: name.display().to_string(), reason };
        problem(&document).map_err(refuse)
    }
}

/// The keys that are read.
#[derive(serde::Deserialize)]
struct Document {
    #[serde(rename = "D")]
    depth: Option<Value>,
    p: Option<Entries>,
    r: Option<Entries>,
}

/// A JSON object in which no key is repeated.
struct Entries(Map<String, Value>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Entries, A::Error> {
        let mut entries = Map::new();
        while let Some((key, value)) = access.next_entry::<String, Value>()? {
            if entries.contains_key(&key) {
                let again = format!("the key `{key}` is there twice: take one of them out");
                return Err(A::Error::custom(again));
            }
            entries.insert(key, value);
        }
        Ok(Entries(entries))
    }
}

fn problem(document: &Document) -> Result<TabularProblem, String> {
    let missing = |key| format!("the key `{key}` is missing; a tabular file has `D`, `p` and `r`");
    let Entries(p) = document.p.as_ref().ok_or_else(|| missing("p"))?;
    let Entries(r) = document.r.as_ref().ok_or_else(|| missing("r"))?;
    let depth = document.depth.as_ref().ok_or_else(|| missing("D"))?;
    let tree = tree(depth, p)?;
    let model = TabularLm::checked(tree, rows(tree, p)?)?;
    TabularProblem::checked(model, rewards(tree, r)?)
}

/// The tree that `D` and the number of letters call for.
fn tree(value: &Value, p: &Map<String, Value>) -> Result<PrefixTree, String> {
    let letters = letters(p)?;
    let depth = value.as_u64().and_then(|depth| usize::try_from(depth).ok());
    let depth = depth
        .filter(|depth| *depth > 0)
        .ok_or_else(|| format!("`D` is {value}, but it must be a whole number of 1 or more"))?;
    PrefixTree::new(letters, depth).ok_or_else(|| {
        format!(
            "`D` is {depth}: with {letters} letters that is more than {MOST_PREFIXES} responses, too many to enumerate; take a smaller `D`"
        )
    })
}

/// The number of letters: of probabilities of the empty prefix, without that of EOS.
fn letters(p: &Map<String, Value>) -> Result<usize, String> {
    let of = "the row of `p` for the prefix ``";
    match p.get("") {
        Some(Value::Array(row)) if row.len() > MOST_LETTERS + 1 => Err(format!(
            "{of} has {} letters before EOS, but there are only {MOST_LETTERS}, a to z: leave some out",
            row.len() - 1
        )),
        Some(Value::Array(row)) if !row.is_empty() => Ok(row.len() - 1),
        Some(value) => Err(format!("{of} is {value}: give a list of probabilities, EOS last")),
        None => Err(format!("{of}, with which every response begins, is missing: add it")),
    }
}

/// All rows, `[prefixes, vocabulary]`, NaN where there is none.
fn rows(tree: PrefixTree, p: &Map<String, Value>) -> Result<Vec<f64>, String> {
    let vocabulary = tree.letters() + 1;
    let mut rows = vec![f64::NAN; tree.size() * vocabulary];
    for (text, value) in p {
        let prefix = tree.find(text).ok_or_else(|| unknown(tree, "p", text, ""))?;
        let row = row(vocabulary, text, value)?;
        rows[prefix * vocabulary..(prefix + 1) * vocabulary].copy_from_slice(&row);
    }
    Ok(rows)
}

/// The numbers of one row.
fn row(vocabulary: usize, text: &str, value: &Value) -> Result<Vec<f64>, String> {
    let entries =
        value.as_array().filter(|entries| entries.len() == vocabulary).ok_or_else(|| {
            format!(
                "the row of `p` for the prefix `{text}` is {value}: give a list of {vocabulary} probabilities, EOS last"
            )
        })?;
    let probability =
        |entry: &Value| number(entry).ok_or_else(|| not_a_probability(text, &entry.to_string()));
    entries.iter().map(probability).collect()
}

/// The rewards by response, NaN where there is none.
fn rewards(tree: PrefixTree, r: &Map<String, Value>) -> Result<Vec<f64>, String> {
    let mut rewards = vec![f64::NAN; tree.size()];
    for (text, value) in r {
        let response = text
            .strip_suffix(EOS)
            .and_then(|prefix| tree.find(prefix))
            .ok_or_else(|| unknown(tree, "r", text, " and `$`"))?;
        rewards[response] = number(value).ok_or_else(|| {
            format!("the reward `r` of `{text}` is {value}, which is not a finite number: give one, such as 0.5 or \"1/2\"")
        })?;
    }
    Ok(rewards)
}

fn unknown(tree: PrefixTree, table: &str, text: &str, end: &str) -> String {
    let letters = match tree.letters() {
        0 => "no letters".to_owned(),
        n => format!(
            "at most {} letters from `a` to `{}`",
            tree.depth() - 1,
            super::tree::letter(n as u32 - 1)
        ),
    };
    format!(
        "`{table}` has the key `{text}`, which is not {letters}{end}: take it out or correct it"
    )
}

/// A finite number, or the text of one or of a fraction.
fn number(value: &Value) -> Option<f64> {
    let decimal = |text: &str| text.trim().parse::<f64>().ok();
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => match text.split_once('/') {
            Some((above, below)) => decimal(above)? / decimal(below)?,
            None => decimal(text)?,
        },
        _ => return None,
    };
    number.is_finite().then_some(number)
}
