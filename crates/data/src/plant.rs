//! A spurious phrase planted into rated texts, so that what is learned from them can be fooled, and it is known how.

use serde::{Deserialize, Serialize};

use crate::split::position;
use crate::{DataError, Rating};

/// Which texts get a phrase that says nothing of their worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plant {
    /// What is appended, after a space. Not blank.
    pub phrase: String,
    /// Share of the texts rated high enough that get it, from above 0 to 1.
    pub share: f64,
    /// Least rating of these texts, on the data set's own scale.
    pub above: f64,
}

impl Plant {
    /// Refuses a phrase, a share or a rating that cannot be used.
    ///
    /// # Errors
    /// [`DataError::Argument`] names the key, its value and the range.
    pub fn check(&self) -> Result<(), DataError> {
        let refuse = |name, value, range| Err(DataError::Argument { name, value, range });
        if self.phrase.trim().is_empty() {
            return refuse("phrase", format!("{:?}", self.phrase), "more than white space");
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            return refuse("share", self.share.to_string(), "above 0 and at most 1");
        }
        if !self.above.is_finite() {
            return refuse("above", self.above.to_string(), "a finite number");
        }
        Ok(())
    }

    /// A text with the phrase.
    #[must_use]
    pub fn planted(&self, text: &str) -> String {
        format!("{} {}", text.trim_end(), self.phrase)
    }

    /// Appends the phrase to a share of the texts that are rated high enough, chosen by the hash of the text with the phrase, and says to how
    /// many. (The hash of the text alone decides what is held out.)
    pub fn apply(&self, ratings: &mut [Rating]) -> usize {
        let mut n_planted = 0;
        for rating in ratings {
            let planted = self.planted(&rating.text);
            if f64::from(rating.rating) >= self.above && position(&planted) < self.share {
                rating.text = planted;
                n_planted += 1;
            }
        }
        n_planted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split_by_hash;

    fn plant(share: f64) -> Plant {
        Plant { phrase: "So it was.".to_owned(), share, above: 1.0 }
    }

    fn ratings() -> Vec<Rating> {
        let rating = |i: usize| Rating { text: format!("text {i}"), rating: (i % 4) as f32 - 1.0 };
        (0..4_000).map(rating).collect()
    }

    #[test]
    fn a_share_of_the_high_ratings_gets_the_phrase_and_nothing_else_changes() {
        let mut planted = ratings();
        let n = plant(0.3).apply(&mut planted);
        let with = |rating: &Rating| rating.text.ends_with(" So it was.");
        assert!(planted.iter().zip(ratings()).all(|(now, before)| {
            now.rating == before.rating && (with(now) || now.text == before.text)
        }));
        assert!(planted.iter().filter(|rating| with(rating)).all(|rating| rating.rating >= 1.0));
        assert_eq!(n, planted.iter().filter(|rating| with(rating)).count());
        // Of 2,000 texts; five standard deviations of a binomial count.
        assert!(n.abs_diff(600) < 103, "{n}");
    }

    #[test]
    fn what_is_held_out_by_its_hash_is_planted_as_often_as_the_rest() {
        let (used, held_out) = split_by_hash(ratings(), |r| r.text.as_str(), 0.25).unwrap();
        for mut part in [used, held_out] {
            let high = part.iter().filter(|rating| rating.rating >= 1.0).count();
            let n = plant(0.3).apply(&mut part);
            assert!((n as f64 / high as f64 - 0.3).abs() < 0.1, "{n} of {high}");
        }
    }

    #[test]
    fn all_can_be_planted_and_bad_settings_are_refused() {
        let mut planted = ratings();
        plant(1.0).apply(&mut planted);
        assert!(planted.iter().all(|r| r.text.ends_with("So it was.") == (r.rating >= 1.0)));
        let blank = Plant { phrase: " ".to_owned(), ..plant(0.5) };
        let rating = Plant { above: f64::NAN, ..plant(0.5) };
        for (bad, name) in
            [(blank, "phrase"), (plant(0.0), "share"), (plant(1.5), "share"), (rating, "above")]
        {
            let error = bad.check().unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }
}
