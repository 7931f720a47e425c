//! A run's table and plots again, from its stored samples alone; exact optima, which need the models, are taken over as stored.

use std::path::Path;

use anyhow::{Context, Result, bail};
use infalign_evaluate::Sampled;
use infalign_record::folder::CONFIG;

use super::results::{self, Measured};
use crate::files::read_json;
use crate::recipe::{Recipe, read_resolved};
use crate::sources::{METHODS, REFERENCE, SAMPLES};

/// Computes results.json and the plots of a finished align run into the folder `into`.
///
/// # Errors
/// For a run of another task, whose results need its models, and where samples are missing or are too few for the recipe.
pub(crate) fn replay(run: &Path, into: &Path) -> Result<()> {
    let config = run.join(CONFIG);
    let Recipe::Align(recipe) = read_resolved(&config)? else {
        bail!(
            "{}: only align runs store the samples that their results come from; replicate computes others again",
            config.display()
        )
    };
    let (reference, base): (Sampled, Sampled) = read_json(&run.join(REFERENCE))?;
    let mut measured = vec![Measured::base(base)];
    for method in &recipe.method {
        let path = run.join(METHODS).join(&method.name).join(SAMPLES);
        let sampled = read_json(&path)?;
        measured.push(Measured::of(method, run, sampled)?);
    }
    results::write((recipe.as_ref(), into), &measured, &reference)
        .map(drop)
        .with_context(|| format!("the samples in {}", run.display()))
}
