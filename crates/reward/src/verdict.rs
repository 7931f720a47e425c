//! What a chat model's answer says of two responses.

/// Which of two responses is better, as a judge has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first one shown.
    First,
    /// The second one shown.
    Second,
    /// Neither.
    Tie,
    /// The answer names none of these. It counts as a tie, and says nothing of the responses.
    Unusable,
}

/// What stands in a cache for an answer that cannot be used.
const UNUSABLE: f32 = -1.0;

impl Verdict {
    /// How far the first response is preferred: 1, ½ for a tie or an answer that cannot be used, or 0.
    pub fn of_first(self) -> f64 {
        match self {
            Self::First => 1.0,
            Self::Second => 0.0,
            Self::Tie | Self::Unusable => 0.5,
        }
    }

    /// The verdict of an answer: the first word that is A, B or C. A small letter counts alone, and "A" within a sentence only where it is no article.
    pub(crate) fn read(answer: &str) -> Self {
        let words: Vec<&str> = answer.split_whitespace().collect();
        let letters = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
        let found = match words[..] {
            [word] => Self::of_letter(&letters(word).to_uppercase()),
            _ => {
                (0..words.len()).find_map(|place| match Self::of_letter(&letters(words[place]))? {
                    Self::First if is_article(&words, place) => None,
                    verdict => Some(verdict),
                })
            }
        };
        found.unwrap_or(Self::Unusable)
    }

    fn of_letter(letter: &str) -> Option<Self> {
        match letter {
            "A" => Some(Self::First),
            "B" => Some(Self::Second),
            "C" => Some(Self::Tie),
            _ => None,
        }
    }

    /// As a number of a cache, which holds no other things.
    pub(crate) fn to_number(self) -> f32 {
        match self {
            Self::Unusable => UNUSABLE,
            other => other.of_first() as f32,
        }
    }

    /// Of a number of a cache.
    pub(crate) fn of_number(number: f32) -> Self {
        match number {
            number if number < 0.0 => Self::Unusable,
            number if number < 0.5 => Self::Second,
            number if number > 0.5 => Self::First,
            _ => Self::Tie,
        }
    }
}

/// Whether an "A" is the article: it has no mark beside it, no word before it that asks for a name, and no verb behind it.
fn is_article(words: &[&str], place: usize) -> bool {
    let named = place > 0
        && ["response", "answer", "verdict", "option", "choice", "is", "choose", "prefer"]
            .contains(&words[place - 1].to_lowercase().trim_end_matches(':'));
    let verb = words.get(place + 1).is_none_or(|next| ["is", "was", "wins"].contains(next));
    words[place].len() == 1 && !named && !verb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_from_what_models_write() {
        for (answer, expected) in [
            ("A", Verdict::First),
            (" b.", Verdict::Second),
            ("**C**", Verdict::Tie),
            ("Response B is better", Verdict::Second),
            ("(A)\n", Verdict::First),
            ("Neither is a better response: C", Verdict::Tie),
            ("A good response stays with the prompt. B is better.", Verdict::Second),
            ("A good response stays with the prompt and does", Verdict::Unusable),
            ("A is better than B", Verdict::First),
            ("I prefer A over B", Verdict::First),
            ("Answer: A", Verdict::First),
            ("A: it is shorter", Verdict::First),
            ("Can you help me write a poem", Verdict::Unusable),
            ("neither", Verdict::Unusable),
            ("Can you help me?", Verdict::Unusable),
            ("", Verdict::Unusable),
        ] {
            assert_eq!(Verdict::read(answer), expected, "{answer}");
        }
    }

    #[test]
    fn what_cannot_be_used_counts_as_a_tie_and_stays_apart_from_one() {
        let all = [Verdict::First, Verdict::Second, Verdict::Tie, Verdict::Unusable];
        assert_eq!(all.map(Verdict::of_first), [1.0, 0.0, 0.5, 0.5]);
        assert_eq!(all.map(Verdict::to_number), [1.0, 0.0, 0.5, -1.0]);
        assert_eq!(all.map(|verdict| Verdict::of_number(verdict.to_number())), all);
    }
}
