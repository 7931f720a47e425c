//! Weighted context-free grammars: corpora made from a page of text.
//!
//! A rule a line, `@name: alternative | 3* alternative`: words, and `@names` of other rules; `3*` makes an alternative three times as
//! likely as one without a weight. Several lines of the same name add alternatives; `#` begins a comment. Texts are drawn from `@start`,
//! whose every text holds `=>` once: what stands before it is the prompt, what stands after it the continuation. Rules must not be
//! recursive, so that every text is finite; of at most a million words.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::DataError;

/// A grammar without recursion.
#[derive(Clone, Debug, PartialEq)]
pub struct Grammar {
    rules: BTreeMap<String, Vec<Alternative>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Alternative {
    weight: f64,
    symbols: Vec<String>,
}

/// What a text of a symbol holds.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// How often `=>` stands in it.
    splits: usize,
    /// Its words, at most.
    longest: usize,
}

const START: &str = "@start";
const SPLIT: &str = "=>";

/// Most rules that lie one within the other: looking at a rule takes a part of the stack.
const DEEPEST: usize = 200;
/// Most words of a text. Rules that name others twice double it each time, so that a page could ask for more than any memory holds.
const LONGEST: usize = 1_000_000;

impl Grammar {
    /// Draws a text as (prompt, continuation); `uniform` gives the next number in [0, 1) of the text's random stream.
    pub fn sample(&self, uniform: &mut dyn FnMut() -> f64) -> (String, String) {
        let mut words = Vec::new();
        self.expand(START, uniform, &mut words);
        let split = words.iter().position(|word| *word == SPLIT).unwrap_or(words.len());
        (words[..split].join(" "), words.get(split + 1..).unwrap_or_default().join(" "))
    }

    fn expand<'a>(
        &'a self,
        symbol: &'a str,
        uniform: &mut dyn FnMut() -> f64,
        words: &mut Vec<&'a str>,
    ) {
        let Some(alternatives) = self.rules.get(symbol) else {
            words.push(symbol);
            return;
        };
        let mut left = uniform() * alternatives.iter().map(|a| a.weight).sum::<f64>();
        let drawn = alternatives.iter().find(|alternative| {
            left -= alternative.weight;
            left < 0.0
        });
        for symbol in
            drawn.or(alternatives.last()).into_iter().flat_map(|alternative| &alternative.symbols)
        {
            self.expand(symbol, uniform, words);
        }
    }

    /// Refuses rules that are missing, lead back to themselves, do not split prompt and continuation once, or make texts too long.
    /// Returns what a text of `symbol` holds. Each rule is looked at once, however often it is named.
    fn check<'a>(
        &'a self,
        symbol: &'a str,
        above: &mut Vec<&'a str>,
        known: &mut BTreeMap<&'a str, Extent>,
    ) -> Result<Extent, DataError> {
        let refuse = |what: String| Err(DataError::Grammar(what));
        if !symbol.starts_with('@') {
            return Ok(Extent { splits: usize::from(symbol == SPLIT), longest: 1 });
        }
        if let Some(extent) = known.get(symbol) {
            return Ok(*extent);
        }
        let Some(rule) = self.rules.get(symbol) else {
            return refuse(format!("there is no rule {symbol}"));
        };
        if above.contains(&symbol) {
            return refuse(format!("the rule {symbol} leads back to itself"));
        }
        if above.len() == DEEPEST {
            return refuse(format!("the rule {symbol} is below {DEEPEST} others: nest them less"));
        }
        above.push(symbol);
        let mut extents = Vec::new();
        for alternative in rule {
            let mut sum = Extent { splits: 0, longest: 0 };
            for symbol in &alternative.symbols {
                sum = sum.followed_by(self.check(symbol, above, known)?);
            }
            extents.push(sum);
        }
        above.pop();
        let splits: Vec<usize> = extents.iter().map(|extent| extent.splits).collect();
        if splits.iter().any(|count| *count != splits[0]) {
            return refuse(format!(
                "the alternatives of {symbol} hold {SPLIT} {splits:?} times: it must be the same number"
            ));
        }
        let longest = extents.iter().map(|extent| extent.longest).max().unwrap_or_default();
        if longest > LONGEST {
            return refuse(format!("a text of {symbol} may have more than {LONGEST} words"));
        }
        let extent = Extent { splits: splits[0], longest };
        known.insert(symbol, extent);
        Ok(extent)
    }
}

impl Extent {
    fn followed_by(self, next: Self) -> Self {
        Self {
            splits: self.splits.saturating_add(next.splits),
            longest: self.longest.saturating_add(next.longest),
        }
    }
}

impl FromStr for Grammar {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let mut rules: BTreeMap<String, Vec<Alternative>> = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let refuse = |what: &str| DataError::Grammar(format!("line {}: {what}", index + 1));
            let (name, right) = line
                .split_once(':')
                .ok_or_else(|| refuse("a rule is written `@name: alternative | alternative`"))?;
            if !name.starts_with('@') || name.contains(char::is_whitespace) {
                return Err(refuse("the name of a rule begins with @ and holds no white space"));
            }
            for alternative in right.split('|') {
                rules.entry(name.to_owned()).or_default().push(
                    Alternative::parse(alternative).ok_or_else(|| {
                        refuse("an alternative is empty, or its weight is not above 0")
                    })?,
                );
            }
        }
        let grammar = Self { rules };
        match grammar.check(START, &mut Vec::new(), &mut BTreeMap::new())?.splits {
            1 => Ok(grammar),
            n => Err(DataError::Grammar(format!(
                "every text of {START} must hold {SPLIT} once, not {n} times"
            ))),
        }
    }
}

impl Alternative {
    fn parse(text: &str) -> Option<Self> {
        let mut symbols: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let weight = match symbols.first().and_then(|first| first.strip_suffix('*')) {
            Some(weight) => {
                let weight = weight.parse().ok().filter(|w: &f64| *w > 0.0 && w.is_finite())?;
                symbols.remove(0);
                weight
            }
            None => 1.0,
        };
        (!symbols.is_empty()).then_some(Self { weight, symbols })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_come_by_their_weights() {
        let grammar: Grammar = "@start: a @b => c # comment\n@b: 3* x | y z".parse().unwrap();
        let n = 4000;
        let texts: Vec<(String, String)> =
            (0..n).map(|i| grammar.sample(&mut || f64::from(i) / f64::from(n))).collect();
        assert_eq!(
            texts.iter().filter(|(prompt, rest)| prompt == "a x" && rest == "c").count(),
            3000
        );
        assert_eq!(texts.iter().filter(|(prompt, _)| prompt == "a y z").count(), 1000);
    }

    #[test]
    fn faults_are_named() {
        for (text, needle) in [
            ("start: a", "line 1"),
            ("@start: a => @b", "no rule @b"),
            ("@start: a => @b\n@b: @c\n@c: x | @b", "leads back"),
            ("@start: a", "=> once"),
            ("@start: a => b | c", "[1, 0]"),
            ("@start: 0* a => b", "weight"),
            ("", "no rule @start"),
        ] {
            let message = text.parse::<Grammar>().unwrap_err().to_string();
            assert!(message.contains(needle), "{text}: {message}");
        }
    }

    #[test]
    fn texts_that_double_and_rules_that_nest_without_end_are_refused() {
        let chain = |n: usize, right: &dyn Fn(usize) -> String| {
            let rules = (0..n).map(|i| format!("@r{i}: {}\n", right(i + 1)));
            format!("@start: => @r0\n{}@r{n}: x", rules.collect::<String>())
        };
        let doubling = chain(60, &|next| format!("@r{next} @r{next}"));
        let message = doubling.parse::<Grammar>().unwrap_err().to_string();
        assert!(message.contains("more than 1000000 words"), "{message}");
        let deep = chain(100_000, &|next| format!("@r{next}"));
        let message = deep.parse::<Grammar>().unwrap_err().to_string();
        assert!(message.contains("below 200 others"), "{message}");
        let splits = chain(60, &|next| format!("@r{next} | @r{next}"));
        assert!(splits.parse::<Grammar>().is_ok(), "each rule is looked at once");
    }
}
