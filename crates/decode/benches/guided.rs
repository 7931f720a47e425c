//! What controlled decoding costs, against plain samples: medians of five, with a head on the model's own states.
//!
//! `INFALIGN_DATA=… cargo bench -p infalign-decode --bench guided`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program that prints a table")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use infalign_decode::guided::{GuidedGenerator, LearnedScorer};
use infalign_decode::{
    Decoder, EncodedPrompt, Generator, ProcedureDecoder, Sampler, Sampling, Stream,
};
use infalign_model::{CausalLm, ScoredReward, ScorerModel, ScorerSpec, Tokenizer};
use infalign_transform::Procedure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROMPTS: usize = 16;
const NEW_TOKENS: usize = 128;
const RUNS: usize = 5;

fn main() {
    let Ok(data) = std::env::var("INFALIGN_DATA") else {
        println!("SKIPPED: set INFALIGN_DATA to the data folder");
        return;
    };
    let device = infalign_backend::device(None).unwrap();
    let dir = Path::new(&data).join("stories260K-hf");
    let model = CausalLm::load(&dir, &device).unwrap();
    let tokenizer = Tokenizer::load(&dir, model.config()).unwrap();
    let reward =
        ScoredReward { name: "r".into(), mean: 0.0, scale: 1.0, least: -9.0, greatest: 9.0 };
    let spec = ScorerSpec {
        heads: vec![reward],
        vocabulary: model.config().vocab_size,
        hidden: model.config().hidden_size,
        width: 64,
        own_trunk: false,
        soft: None,
        base: dir.clone(),
        base_sha256: String::new(),
    };
    let mut normal = Stream::new(0, "head", "", 0).normals(1);
    let scorer = ScorerModel::new(spec, None, &mut normal, &device).unwrap();
    let (values, _) = scorer.for_inference();
    let scorer = LearnedScorer::new(&values, None, &[1.0]).unwrap();
    let model = model.for_inference();
    // Nothing ends before its time, so that all draw the same number of tokens.
    let stops = BTreeSet::new();
    let sampling = Sampling { max_tokens: NEW_TOKENS, ..Sampling::default() };
    let generator = Generator::new(model.as_ref(), &stops, &sampling, 0, "bench", 64);
    let prompt = |id: usize| EncodedPrompt::new(&id.to_string(), "Once upon a time", &tokenizer);
    let prompts: Vec<EncodedPrompt> = (0..PROMPTS).map(|id| prompt(id).unwrap()).collect();
    let samples = |n: usize| median(&|| drop(generator.generate(&prompts, 0..n).unwrap()));
    let guided = |procedure: &str| {
        let procedure = procedure.parse().unwrap();
        let guided = GuidedGenerator {
            generator: generator.clone(),
            scorer: &scorer,
            procedure,
            cancelled: None,
        };
        let decoder =
            ProcedureDecoder::guided(Procedure::Sample, guided, &tokenizer, None).unwrap();
        median(&|| drop(decoder.decode(&prompts).unwrap()))
    };
    let (one, four) = (samples(1), samples(4));
    println!("{PROMPTS} prompts, {NEW_TOKENS} tokens: 1 sample {one:.3} s, 4 samples {four:.3} s");
    for (procedure, against, most) in [
        ("cd-block:length=16,samples=4", four, Some(1.25)),
        ("cd-block:length=4,samples=4", four, None),
        ("beam:width=2,branch=2,length=16", four, None),
        ("cd-token:lambda=1,candidates=20", one, Some(2.0)),
        ("cd-token:lambda=1", one, None),
    ] {
        let time = guided(procedure);
        let bar = most.map_or(String::new(), |most| format!(" (at most {most:.2} is asked for)"));
        println!("{procedure:<34} {time:.3} s, {:.2} of as many samples{bar}", time / against);
    }
}

fn median(work: &dyn Fn()) -> f64 {
    work();
    let time = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    let mut times: Vec<f64> = (0..RUNS).map(time).collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}
