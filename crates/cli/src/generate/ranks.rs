//! `--calibration`: the table by whose ranks rejection accepts.

use std::path::Path;

use anyhow::{Context, Result, bail};
use infalign_calibrate::{Calibration, CalibrationMeta, store};
use infalign_decode::{EncodedPrompt, Sampling};
use infalign_model::{ModelFolder, Tokenizer};

use super::{GenerateArgs, Given, reward_config};
use crate::calibrate::names;
use crate::encode::Encoder;
use crate::identity;

/// Refuses rejection without a table, a table of responses that end otherwise, and one that has nothing to say.
///
/// # Errors
/// One sentence.
pub(super) fn check(args: &GenerateArgs) -> Result<()> {
    let procedure = args.procedure;
    match (procedure.needs_ranks(), &args.calibration) {
        (true, _) if args.remote.server.is_some() => {
            bail!("{procedure} needs the model in this process: leave out --server")
        }
        (true, None) if !args.exact => bail!(
            "{procedure} accepts by calibrated rewards: give --calibration FILE.parquet, which `infalign calibrate` makes of this model"
        ),
        (true, Some(_)) if !args.stop.is_empty() => bail!(
            "{procedure} accepts by the ranks of --calibration, whose responses `infalign calibrate` draws without --stop: leave it out, or end responses in both commands by --stop-token-id"
        ),
        (false, Some(_)) => bail!("--calibration has nothing to say in {procedure}: leave it out"),
        _ => Ok(()),
    }
}

/// Reads the table, which has to be of the model, reward and sampling of the command, and of all its prompts.
///
/// # Errors
/// One sentence that names the first thing that differs, or a prompt that is missing.
pub(super) fn read(
    path: &Path,
    args: &GenerateArgs,
    folder: &ModelFolder,
    tokenizer: &Tokenizer,
    given: &Given<'_>,
    prompts: &[EncodedPrompt],
) -> Result<Calibration> {
    let table = store::read(path)?;
    let expected = expected(args, folder, tokenizer, given, &args.sampling.sampling())?;
    // Whatever it was drawn by, and compressed or not: ranks are the same but for noise.
    let CalibrationMeta { seed, quantiles, .. } = *table.meta();
    table
        .check(&CalibrationMeta { seed, quantiles, ..expected })
        .with_context(|| format!("--calibration {}", path.display()))?;
    table.check_holds(names(prompts))?;
    Ok(table)
}

/// What a table of this command would say that it was made from.
fn expected(
    args: &GenerateArgs,
    folder: &ModelFolder,
    tokenizer: &Tokenizer,
    given: &Given<'_>,
    sampling: &Sampling,
) -> Result<CalibrationMeta> {
    let path = args.reward.as_deref().with_context(|| {
        format!("{} needs the reward of its calibration table: give --reward", args.procedure)
    })?;
    let reward = identity::given_reward(&reward_config(path)?)?;
    let encoder = Encoder::new(tokenizer);
    let template = encoder.template_sha256(&given.prompts)?;
    identity::calibration(folder, tokenizer, reward, template, sampling, 0)
}
