//! Tabular language models.
#![no_main]

use std::path::Path;

use infalign_model::TabularProblem;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(problem) = TabularProblem::parse(text, Path::new("problem.json")) else { return };
    let model = problem.model();
    let total: f64 = model.response_probabilities().iter().sum();
    assert!((total - 1.0).abs() < 1e-6, "the responses have the probability {total}");
    let tokenizer = model.tokenizer().expect("a tokenizer of the letters");
    for (tokens, _) in model.responses().take(10) {
        let text = tokenizer.decode(&tokens).expect("a response of the model");
        let again = tokenizer.encode(&text).expect("text of the model's letters");
        assert_eq!(again[1..], tokens[..tokens.len() - 1]);
    }
});
