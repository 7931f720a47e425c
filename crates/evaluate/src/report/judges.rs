//! How far the reward and the judge agree about the same pairs of responses.

use infalign_stats::{Agreement, Outcome, agreement as agreement_of};
use serde::{Deserialize, Serialize};

use super::{Member, Request};
use crate::{EvaluateError, Judge};

/// Agreement about one method's responses against the reference's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeAgreement {
    /// The method.
    pub method: String,
    /// The agreement of the reward and the judge.
    #[serde(flatten)]
    pub agreement: Agreement,
}

/// Of every method, where there is a judge besides the reward. The k-th response of the method is paired with the reference's k-th.
pub(super) fn agreement(
    members: &[Member<'_>],
    request: &Request<'_>,
) -> Result<Vec<JudgeAgreement>, EvaluateError> {
    if !request.judges.contains(&Judge::Judge) {
        return Ok(Vec::new());
    }
    let of = |member: &Member<'_>| {
        let (ours, theirs) = (member.entry.sampled, member.entry.reference);
        let judged = (ours.by(Judge::Judge)?, theirs.by(Judge::Judge)?);
        let prompts: Vec<Vec<(Outcome, Outcome)>> = (0..ours.prompts.len())
            .map(|prompt| {
                let rewards = ours.rewards[prompt].iter().zip(&theirs.rewards[prompt]);
                let judged = judged.0[prompt].iter().zip(&judged.1[prompt]);
                let outcome = |(y, z): (&f64, &f64)| Outcome::of(*y, *z);
                rewards.map(outcome).zip(judged.map(outcome)).collect()
            })
            .collect();
        Ok(JudgeAgreement {
            method: member.entry.label.method.to_owned(),
            agreement: agreement_of(&prompts, request.statistics.level)?,
        })
    };
    members.iter().map(of).collect()
}
