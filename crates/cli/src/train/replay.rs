//! A run's table and plots again, from its stored samples alone; exact optima, which need the models, are taken over as stored.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use infalign_evaluate::Sampled;
use infalign_record::folder::{self, CONFIG};

use super::results::{self, Measured};
use crate::recipe::{Recipe, read_resolved};
use crate::sources::{METHODS, REFERENCE, SAMPLES};

/// Computes results.json and the plots of a finished align run into the folder `into`.
///
/// # Errors
/// For a run of another task, whose results need its models, and where samples are missing, too large to be read, or too few for the recipe.
pub(crate) fn replay(run: &Path, into: &Path) -> Result<()> {
    let config = run.join(CONFIG);
    let Recipe::Align(recipe) = read_resolved(&config)? else {
        bail!(
            "{}: only align runs store the samples that their results come from; replicate computes others again",
            config.display()
        )
    };
    let (reference, base): (Sampled, Sampled) = folder::samples(run, REFERENCE)?;
    let mut measured = vec![Measured::base(base)];
    for method in &recipe.method {
        let samples = format!("{METHODS}/{}/{SAMPLES}", method.name);
        ensure!(
            folder::stays_inside(&samples),
            "{}: the method {:?} leads out of the run",
            config.display(),
            method.name
        );
        measured.push(Measured::of(method, run, folder::samples(run, &samples)?)?);
    }
    results::write((recipe.as_ref(), into), &measured, &reference)
        .map(drop)
        .with_context(|| format!("the samples in {}", run.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::RECIPE;

    #[test]
    fn samples_that_are_too_large_or_lie_elsewhere_are_refused() {
        let run = tempfile::tempdir().unwrap();
        let error = || format!("{:#}", replay(run.path(), Path::new("into")).unwrap_err());
        std::fs::write(run.path().join(CONFIG), RECIPE).unwrap();
        let reference = run.path().join(REFERENCE);
        std::fs::File::create(&reference).unwrap().set_len((64 << 30) + 1).unwrap();
        assert!(error().contains("too large"), "{}", error());
        let none = (Sampled::default(), Sampled::default());
        std::fs::write(&reference, serde_json::to_vec(&none).unwrap()).unwrap();
        let away = RECIPE.replace("name = \"raw\"", "name = \"../..\"");
        assert_ne!(away, RECIPE);
        std::fs::write(run.path().join(CONFIG), away).unwrap();
        assert!(error().contains("leads out of the run"), "{}", error());
    }
}
