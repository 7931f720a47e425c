//! Inference-time procedures: how responses are produced from a policy when it is used.
//!
//! One declaration drives the transform, the decoder and the evaluation. The text forms are
//!
//! | form | meaning |
//! |---|---|
//! | `sample` | one response, as sampled |
//! | `best-of:N` | the response of greatest reward among N |
//! | `worst-of:N` | the response of least reward among N (an attacker's choice) |
//! | `soft-best-of:N,temperature=τ` | one of N, drawn with probability ∝ exp(r/τ), r the decoder's reward |
//! | `rejection:quantile=φ,draws=N` | the first response whose calibrated reward is φ or more; the last of N, where none is |
//! | `majority:N` | the first of N that gives the most frequent answer; of equally frequent ones that which comes first |
//! | `pruned-best-of:N,length=M,keep=q` | best-of-N that goes on with a share q of the candidates, by V, every M tokens |
//! | `cd-token:lambda=λ` | controlled decoding, token by token, weights exp(λ·V) |
//! | `cd-token:lambda=λ,candidates=k` | the same among the k most probable tokens |
//! | `cd-block:length=M,samples=K` | controlled decoding, best of K blocks of M tokens by V |
//! | `beam:width=W,branch=B,length=M` | W prefixes kept of W·B blocks of M tokens by V |

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use infalign_stats::{Choice, Selection};

use crate::error::TransformError;
use crate::parse::{Form, Parts, serde_as_text};
use crate::rank::COLDEST;

/// An inference-time procedure T: what stands between the policy and the response that is used.
///
/// Parsed from and written as the text forms of [this module](self); the two round-trip, and serde
/// uses them.
///
/// ```
/// use infalign_transform::Procedure;
/// let procedure: Procedure = "best-of:4".parse()?;
/// assert_eq!(procedure.samples(), 4);
/// assert_eq!(procedure.to_string(), "best-of:4");
/// let error = "best-off:4".parse::<Procedure>().unwrap_err().to_string();
/// assert!(error.ends_with("the nearest valid form is `best-of:N`"));
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Procedure {
    /// One response, as sampled.
    Sample,
    /// The response of greatest reward among N.
    BestOf(NonZeroUsize),
    /// The response of least reward among N.
    WorstOf(NonZeroUsize),
    /// One of `n` responses, drawn with probability proportional to exp(r/temperature).
    SoftBestOf {
        /// Responses to draw from.
        n: NonZeroUsize,
        /// Temperature τ ≥ 0.0001 in units of the reward r that the decoder is given; in the
        /// [`continuous`](crate::continuous) engine that is u, the rank among π_ref's responses, whichever policy draws.
        temperature: f64,
    },
    /// The first response whose calibrated reward u is φ or more, of at most N that are drawn; where none is, the last of them as it is
    /// (rejection sampling, Beirami et al., arXiv 2401.01879, §6, where N is without bound). Calibrated is by the policy that draws.
    Rejection {
        /// φ, the quantile of the policy's own responses to the prompt that has to be reached; at least 0 and below 1.
        quantile: f64,
        /// The most draws, N.
        draws: NonZeroUsize,
    },
    /// The first response among N that gives the most frequent answer, of equally frequent ones that which is given first; where none gives
    /// any, the first (self-consistency, Wang et al., arXiv 2203.11171). What an answer is, the reward says; without one it is the whole text.
    Majority(NonZeroUsize),
    /// The response of greatest reward among those of N that were not given up on the way: every `length` tokens, a share of those that
    /// have not ended goes on, those of greatest V.
    PrunedBestOf {
        /// Responses that are begun.
        n: NonZeroUsize,
        /// Tokens from one pruning to the next, M.
        length: NonZeroUsize,
        /// Share q that goes on, above 0 and at most 1: of k that have not ended, ⌈k·q⌉.
        keep: f64,
    },
    /// Tokenwise controlled decoding: next token ∝ π_ref·exp(λ·V) (CD, arXiv 2310.17022, §2).
    CdToken {
        /// Strength λ ≥ 0, per unit of the prefix score V.
        lambda: f64,
        /// How many of the most probable tokens are considered; all, where it is absent.
        candidates: Option<NonZeroUsize>,
    },
    /// Blockwise controlled decoding: best of `samples` blocks by V (CD, arXiv 2310.17022, §3).
    CdBlock {
        /// Tokens a block, M.
        length: NonZeroUsize,
        /// Blocks to choose from, K.
        samples: NonZeroUsize,
    },
    /// Beam search over blocks by V.
    Beam {
        /// Prefixes kept after each block, W.
        width: NonZeroUsize,
        /// Blocks drawn for each prefix, B.
        branch: NonZeroUsize,
        /// Tokens a block, M.
        length: NonZeroUsize,
    },
}

const FORMS: [Form; 10] = [
    Form { name: "sample", usage: "sample" },
    Form { name: "best-of", usage: "best-of:N" },
    Form { name: "worst-of", usage: "worst-of:N" },
    Form { name: "soft-best-of", usage: "soft-best-of:N,temperature=τ" },
    Form { name: "rejection", usage: "rejection:quantile=φ,draws=N" },
    Form { name: "majority", usage: "majority:N" },
    Form { name: "pruned-best-of", usage: "pruned-best-of:N,length=M,keep=q" },
    Form { name: "cd-token", usage: "cd-token:lambda=λ" },
    Form { name: "cd-block", usage: "cd-block:length=M,samples=K" },
    Form { name: "beam", usage: "beam:width=W,branch=B,length=M" },
];

impl Procedure {
    /// The most candidates that it draws side by side or one after the other for one response: N, K for blocks, W·B for a beam, else 1.
    pub fn samples(&self) -> usize {
        match *self {
            Procedure::Sample | Procedure::CdToken { .. } => 1,
            Procedure::BestOf(n) | Procedure::WorstOf(n) | Procedure::Majority(n) => n.get(),
            Procedure::SoftBestOf { n, .. } | Procedure::PrunedBestOf { n, .. } => n.get(),
            Procedure::Rejection { draws, .. } => draws.get(),
            Procedure::CdBlock { samples, .. } => samples.get(),
            Procedure::Beam { width, branch, .. } => width.get().saturating_mul(branch.get()),
        }
    }

    /// What it keeps of stored responses by their rewards; nothing for a procedure that does more than select.
    ///
    /// ```
    /// use infalign_stats::Selection;
    /// use infalign_transform::Procedure;
    /// assert_eq!("best-of:4".parse::<Procedure>()?.selection(), Some(Selection::Best(4)));
    /// assert_eq!("cd-token:lambda=1".parse::<Procedure>()?.selection(), None);
    /// # Ok::<(), infalign_transform::TransformError>(())
    /// ```
    pub fn selection(&self) -> Option<Selection> {
        match *self {
            Procedure::Sample => Some(Selection::Sample),
            Procedure::BestOf(n) => Some(Selection::Best(n.get())),
            Procedure::WorstOf(n) => Some(Selection::Worst(n.get())),
            Procedure::SoftBestOf { n, temperature } => {
                Some(Selection::SoftBest { samples: n.get(), temperature })
            }
            Procedure::Rejection { .. } | Procedure::Majority(_) => None,
            Procedure::PrunedBestOf { .. } | Procedure::CdToken { .. } => None,
            Procedure::CdBlock { .. } | Procedure::Beam { .. } => None,
        }
    }

    /// What it keeps of stored responses, by their rewards or by their answers; nothing for a procedure that does more than choose.
    pub fn choice(&self) -> Option<Choice> {
        match *self {
            Procedure::Majority(n) => Some(Choice::Majority(n.get())),
            other => other.selection().map(Choice::Ranked),
        }
    }

    /// Whether it looks at prefixes while they are drawn, and needs a prefix scorer for it.
    pub fn is_guided(&self) -> bool {
        match self {
            Procedure::Sample | Procedure::BestOf(_) | Procedure::WorstOf(_) => false,
            Procedure::SoftBestOf { .. } | Procedure::Rejection { .. } => false,
            Procedure::Majority(_) => false,
            Procedure::PrunedBestOf { .. } | Procedure::CdToken { .. } => true,
            Procedure::CdBlock { .. } | Procedure::Beam { .. } => true,
        }
    }

    /// Whether it goes by the reward of complete responses.
    pub fn needs_reward(&self) -> bool {
        match self {
            Procedure::Sample | Procedure::Majority(_) => false,
            Procedure::BestOf(_) | Procedure::WorstOf(_) | Procedure::SoftBestOf { .. } => true,
            Procedure::Rejection { .. } | Procedure::PrunedBestOf { .. } => true,
            Procedure::CdToken { .. } | Procedure::CdBlock { .. } | Procedure::Beam { .. } => false,
        }
    }

    /// Whether it goes by calibrated rewards, and needs a calibration table of its prompts.
    pub fn needs_ranks(&self) -> bool {
        match self {
            Procedure::Sample | Procedure::BestOf(_) | Procedure::WorstOf(_) => false,
            Procedure::SoftBestOf { .. } | Procedure::Majority(_) => false,
            Procedure::Rejection { .. } => true,
            Procedure::PrunedBestOf { .. } | Procedure::CdToken { .. } => false,
            Procedure::CdBlock { .. } | Procedure::Beam { .. } => false,
        }
    }

    /// Whether its choice is a function of ranks alone, for which the continuous limit has a [`RankDensity`](crate::RankDensity): neither of
    /// the rewards themselves, nor of answers or prefixes.
    pub fn has_rank_density(&self) -> bool {
        match self {
            Procedure::Sample | Procedure::BestOf(_) | Procedure::WorstOf(_) => true,
            Procedure::Rejection { .. } => true,
            Procedure::SoftBestOf { .. } | Procedure::Majority(_) => false,
            Procedure::PrunedBestOf { .. } | Procedure::CdToken { .. } => false,
            Procedure::CdBlock { .. } | Procedure::Beam { .. } => false,
        }
    }

    /// Refuses numbers out of range, which a procedure has that was made in code: its text must be one that is read.
    ///
    /// # Errors
    /// [`TransformError::Parse`].
    pub fn check(&self) -> Result<(), TransformError> {
        self.to_string().parse::<Self>().map(drop)
    }
}

impl FromStr for Procedure {
    type Err = TransformError;

    fn from_str(text: &str) -> Result<Self, TransformError> {
        let (name, mut parts) = Parts::split("procedure", text, &FORMS)?;
        let procedure = match name {
            "best-of" => Procedure::BestOf(responses(&mut parts)?),
            "worst-of" => Procedure::WorstOf(responses(&mut parts)?),
            "soft-best-of" => Procedure::SoftBestOf {
                n: responses(&mut parts)?,
                temperature: number(
                    &mut parts,
                    "temperature",
                    "a number of 0.0001 or more",
                    |t| t >= COLDEST,
                )?,
            },
            "rejection" => Procedure::Rejection {
                quantile: number(&mut parts, "quantile", "a number of 0 or more, below 1", |q| {
                    (0.0..1.0).contains(&q)
                })?,
                draws: count(&mut parts, "draws")?,
            },
            "majority" => Procedure::Majority(responses(&mut parts)?),
            "pruned-best-of" => Procedure::PrunedBestOf {
                n: responses(&mut parts)?,
                length: count(&mut parts, "length")?,
                keep: number(&mut parts, "keep", "a number above 0 and at most 1", |q| {
                    q > 0.0 && q <= 1.0
                })?,
            },
            "cd-token" => Procedure::CdToken {
                lambda: number(&mut parts, "lambda", "a finite number of 0 or more", |l| l >= 0.0)?,
                candidates: match parts.has("candidates") {
                    true => Some(count(&mut parts, "candidates")?),
                    false => None,
                },
            },
            "cd-block" => Procedure::CdBlock {
                length: count(&mut parts, "length")?,
                samples: count(&mut parts, "samples")?,
            },
            "beam" => Procedure::Beam {
                width: count(&mut parts, "width")?,
                branch: count(&mut parts, "branch")?,
                length: count(&mut parts, "length")?,
            },
            _ => Procedure::Sample,
        };
        parts.finish()?;
        Ok(procedure)
    }
}

fn responses(parts: &mut Parts) -> Result<NonZeroUsize, TransformError> {
    let text = parts.value("the number of responses N")?;
    parts.count("N", text)
}

fn count(parts: &mut Parts, key: &str) -> Result<NonZeroUsize, TransformError> {
    let text = parts.pair(key)?;
    parts.count(key, text)
}

fn number(
    parts: &mut Parts,
    key: &str,
    range: &str,
    valid: impl Fn(f64) -> bool,
) -> Result<f64, TransformError> {
    let text = parts.pair(key)?;
    parts.number(key, text, range, valid)
}

impl fmt::Display for Procedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Procedure::Sample => write!(f, "sample"),
            Procedure::BestOf(n) => write!(f, "best-of:{n}"),
            Procedure::WorstOf(n) => write!(f, "worst-of:{n}"),
            Procedure::SoftBestOf { n, temperature } => {
                write!(f, "soft-best-of:{n},temperature={temperature}")
            }
            Procedure::Rejection { quantile, draws } => {
                write!(f, "rejection:quantile={quantile},draws={draws}")
            }
            Procedure::Majority(n) => write!(f, "majority:{n}"),
            Procedure::PrunedBestOf { n, length, keep } => {
                write!(f, "pruned-best-of:{n},length={length},keep={keep}")
            }
            Procedure::CdToken { lambda, candidates: None } => {
                write!(f, "cd-token:lambda={lambda}")
            }
            Procedure::CdToken { lambda, candidates: Some(candidates) } => {
                write!(f, "cd-token:lambda={lambda},candidates={candidates}")
            }
            Procedure::CdBlock { length, samples } => {
                write!(f, "cd-block:length={length},samples={samples}")
            }
            Procedure::Beam { width, branch, length } => {
                write!(f, "beam:width={width},branch={branch},length={length}")
            }
        }
    }
}

serde_as_text!(Procedure);

/// Ranks that differ by less are equal: they are shares of counts, which rounding puts on either side of a quantile.
const SAME_RANK: f64 = 1e-9;

/// Whether rejection at a quantile takes a response of this calibrated reward.
pub fn accepts(quantile: f64, rank: f64) -> bool {
    rank >= quantile - SAME_RANK
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_procedure() -> impl Strategy<Value = Procedure> {
        let count = || (1..=usize::MAX).prop_map(|n| NonZeroUsize::new(n).unwrap());
        let positive = || any::<f64>().prop_filter("positive", |x| x.is_finite() && *x > 0.0);
        prop_oneof![
            Just(Procedure::Sample),
            count().prop_map(Procedure::BestOf),
            count().prop_map(Procedure::WorstOf),
            (count(), 1e-4..1e9f64)
                .prop_map(|(n, temperature)| Procedure::SoftBestOf { n, temperature }),
            (0.0..1.0, count())
                .prop_map(|(quantile, draws)| Procedure::Rejection { quantile, draws }),
            count().prop_map(Procedure::Majority),
            (count(), count(), 1e-9..=1.0).prop_map(|(n, length, keep)| Procedure::PrunedBestOf {
                n,
                length,
                keep
            }),
            (positive(), proptest::option::of(count()))
                .prop_map(|(lambda, candidates)| Procedure::CdToken { lambda, candidates }),
            (count(), count()).prop_map(|(length, samples)| Procedure::CdBlock { length, samples }),
            (count(), count(), count()).prop_map(|(width, branch, length)| Procedure::Beam {
                width,
                branch,
                length
            }),
        ]
    }

    proptest! {
        #[test]
        fn text_and_serde_round_trip(procedure in any_procedure()) {
            prop_assert_eq!(procedure.to_string().parse::<Procedure>().unwrap(), procedure);
            let json = serde_json::to_string(&procedure).unwrap();
            prop_assert_eq!(json.clone(), format!("\"{procedure}\""));
            prop_assert_eq!(serde_json::from_str::<Procedure>(&json).unwrap(), procedure);
        }

        #[test]
        fn no_text_makes_the_parser_fail_badly(text in ".{0,40}") {
            let _ = text.parse::<Procedure>();
        }
    }

    #[test]
    fn refuses_with_the_text_the_reason_and_the_nearest_form() {
        let cases = [
            ("best-of:0", "N is `0`, which is not a whole number of 1 or more", "best-of:N"),
            ("best-of", "the number of responses N is missing", "best-of:N"),
            ("best-of:4,5", "`5` is one value too many", "best-of:N"),
            ("bestof:4", "`bestof` is not a known name", "best-of:N"),
            ("sample:3", "`3` has no meaning here", "sample"),
            ("cd-token", "`lambda` is missing", "cd-token:lambda=λ"),
            (
                "cd-token:lambda=-1",
                "lambda is `-1`, which is not a finite number of 0 or more",
                "cd-token:lambda=λ",
            ),
            (
                "cd-block:length=4,length=5",
                "`length` is given twice",
                "cd-block:length=M,samples=K",
            ),
            (
                "beam:width=2,branch=2,length=8,depth=1",
                "`depth` is not a key of this form",
                "beam:width=W,branch=B,length=M",
            ),
            (
                "cd-token:lambda=1,candidates=0",
                "candidates is `0`, which is not a whole number of 1 or more",
                "cd-token:lambda=λ",
            ),
            (
                "pruned-best-of:4,length=2,keep=0",
                "keep is `0`, which is not a number above 0 and at most 1",
                "pruned-best-of:N,length=M,keep=q",
            ),
            (
                "rejection:quantile=1,draws=4",
                "quantile is `1`, which is not a number of 0 or more, below 1",
                "rejection:quantile=φ,draws=N",
            ),
            ("rejection:quantile=0.9", "`draws` is missing", "rejection:quantile=φ,draws=N"),
            (
                "soft-best-of:4,temperature=0",
                "temperature is `0`, which is not a number of 0.0001 or more",
                "soft-best-of:N,temperature=τ",
            ),
        ];
        for (text, reason, nearest) in cases {
            let expected = format!(
                "`{text}` is not a procedure: {reason}; the nearest valid form is `{nearest}`"
            );
            assert_eq!(text.parse::<Procedure>().unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_however_they_came() {
        let three = NonZeroUsize::new(3).unwrap();
        let soft = |temperature| Procedure::SoftBestOf { n: three, temperature };
        let pruned = |keep| Procedure::PrunedBestOf { n: three, length: three, keep };
        let rejection = |quantile| Procedure::Rejection { quantile, draws: three };
        let token = |lambda| Procedure::CdToken { lambda, candidates: None };
        for right in [soft(0.5), pruned(1.0), rejection(0.0), token(1e300)] {
            right.check().unwrap();
        }
        for wrong in [soft(-1.0), soft(f64::NAN), pruned(f64::NAN), pruned(0.0), rejection(2.0)] {
            wrong.check().unwrap_err();
        }
        for lambda in [-1.0, f64::NAN, f64::INFINITY] {
            token(lambda).check().unwrap_err();
        }
    }

    #[test]
    fn every_form_has_its_properties() {
        // Is guided, needs a reward, needs ranks, has a rank density.
        let cases = [
            ("sample", [false, false, false, true]),
            ("best-of:4", [false, true, false, true]),
            ("worst-of:4", [false, true, false, true]),
            ("soft-best-of:4,temperature=1", [false, true, false, false]),
            ("rejection:quantile=0.5,draws=4", [false, true, true, true]),
            ("majority:4", [false, false, false, false]),
            ("pruned-best-of:4,length=2,keep=0.5", [true, true, false, false]),
            ("cd-token:lambda=1", [true, false, false, false]),
            ("cd-block:length=2,samples=4", [true, false, false, false]),
            ("beam:width=2,branch=2,length=2", [true, false, false, false]),
        ];
        let names = cases.map(|(text, _)| text.split(':').next().unwrap());
        assert_eq!(names, FORMS.map(|form| form.name));
        for (text, expected) in cases {
            let one: Procedure = text.parse().unwrap();
            let needs = [one.needs_reward(), one.needs_ranks()];
            let found = [one.is_guided(), needs[0], needs[1], one.has_rank_density()];
            assert_eq!(found, expected, "{text}");
            assert_eq!(one.has_rank_density(), crate::RankDensity::of(&one).is_ok(), "{text}");
        }
    }

    #[test]
    fn keys_come_in_any_order_and_are_written_in_one() {
        let procedure: Procedure = "beam:length=8,width=2,branch=3".parse().unwrap();
        assert_eq!(procedure.to_string(), "beam:width=2,branch=3,length=8");
        assert_eq!(procedure.samples(), 6);
    }
}
