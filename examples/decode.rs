//! Responses under a procedure: `cargo run -p infalign --example decode -- best-of:4`
//!
//! Continues a prompt with the quickstart's model; the reward that a procedure selects by counts words.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::Path;

use infalign::decode::{Decoder, EncodedPrompt, Generator, ProcedureDecoder, Sampling};
use infalign::model::{CausalLm, Tokenizer};
use infalign::reward::Lexicon;
use infalign::transform::Procedure;

fn main() -> anyhow::Result<()> {
    let procedure: Procedure = std::env::args().nth(1).as_deref().unwrap_or("best-of:4").parse()?;
    let folder = Path::new("recipes/quickstart/model");
    let model = CausalLm::load(folder, &infalign::backend::device(None)?)?;
    let tokenizer = Tokenizer::load(folder, model.config())?;
    let model = model.for_inference();
    let sampling = Sampling { max_tokens: 32, ..Sampling::default() };
    let sampler = Generator::new(model.as_ref(), tokenizer.stops(), &sampling, 1, "generate", 16);
    let weights = [("lovely", 2.0), ("good", 1.0), ("dirty", -2.0)];
    let reward = Lexicon::new(&weights.map(|(word, weight)| (word.to_owned(), weight)).into())?;
    let decoder = ProcedureDecoder::new(procedure, &sampler, &tokenizer, Some(&reward))?;
    let prompt = EncodedPrompt::new("p1", "late on friday at the library :", &tokenizer)?;
    for decoded in decoder.decode(&[prompt])? {
        println!("{}", decoded.text);
        println!("reward {:?}, {} tokens drawn", decoded.score, decoded.cost.model_tokens);
    }
    Ok(())
}
