//! From a reward to its rank among responses of the reference policy: `cargo run -p infalign --example calibrate`
//!
//! Samples 32 responses of the quickstart's model to each of two prompts and ranks a new reward among theirs.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::ops::ControlFlow;
use std::path::Path;

use infalign::calibrate::{Calibration, CalibrationMeta, summary::Summary};
use infalign::decode::{EncodedPrompt, Generator, Sampling};
use infalign::model::{CausalLm, Tokenizer};
use infalign::reward::Lexicon;
use infalign::train::ReferenceRewards;

fn main() -> anyhow::Result<()> {
    let folder = Path::new("recipes/quickstart/model");
    let model = CausalLm::load(folder, &infalign::backend::device(None)?)?;
    let tokenizer = Tokenizer::load(folder, model.config())?;
    let texts = ["late on friday at the library :", "on a cold monday at the hostel :"];
    let prompts = texts.map(|text| EncodedPrompt::new(text, text, &tokenizer));
    let prompts = prompts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let weights = [("lovely", 2.0), ("good", 1.0), ("dirty", -2.0)];
    let reward = Lexicon::new(&weights.map(|(word, weight)| (word.to_owned(), weight)).into())?;

    let model = model.for_inference();
    let sampling = Sampling { max_tokens: 32, ..Sampling::default() };
    let sampler =
        Generator::new(model.as_ref(), tokenizer.stops(), &sampling, 1, "calibration", 64);
    let reference = ReferenceRewards {
        sampler: &sampler,
        tokenizer: &tokenizer,
        reward: &reward,
        samples: 32,
        block: 64,
    };
    let meta = CalibrationMeta { reward: "a lexicon".into(), ..CalibrationMeta::default() };
    let mut table = Calibration::new(meta);
    reference.fill(&mut table, &prompts, &mut |_, _| ControlFlow::Continue(()))?;

    println!("{} prompts, {:.2} of pairs tie", table.len(), Summary::of(&table)?.ties);
    for text in texts {
        println!("{text} a reward of 1 has the rank u = {:.3}", table.quantile(text, 1.0)?);
    }
    Ok(())
}
