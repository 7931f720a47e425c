//! What adapters compute, and what of them is trained.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use infalign_model::{CpuModel, ResponseBatch, Sequence, SequenceClassifier};
use serde_json::json;

use super::*;

#[test]
fn logits_are_peft_s_with_the_adapter_and_merged() {
    for name in CAUSAL {
        let (dir, base, reference) = case(name);
        let model = base.with_adapter(&dir).unwrap();
        let merged = model.clone().merge().unwrap();
        assert!(merged.adapter().is_none());
        let packed = CpuModel::new(model.clone());
        for (prompt, expected) in
            prompts(&reference).iter().zip(reference["logits"].as_array().unwrap())
        {
            for (prompt, place) in [(prompt.as_slice(), "last"), (&prompt[..3], "position_2")] {
                let got = logits(&model, prompt);
                let off = difference(&got, &numbers(&expected[place]));
                assert!(off < TOLERANCE, "{name}, {place}: off by {off}");
                let packed = packed.start(&[prompt], 1).unwrap().logits().to_vec();
                let off = difference(&packed, &numbers(&expected[place]));
                assert!(off < TOLERANCE, "{name}, {place}, packed: off by {off}");
                let off = difference(&got, &logits(&merged, prompt)) / largest(&got);
                assert!(off < MERGED, "{name}, {place}, merged: off by {off}");
            }
        }
    }
}

#[test]
fn a_merged_model_is_written_as_a_plain_one() {
    for name in ["lora-llama-saved", "lora-gpt-neox"] {
        let (dir, base, reference) = case(name);
        let merged = base.with_adapter(&dir).unwrap().merge().unwrap();
        let copy = tempfile::tempdir().unwrap();
        merged.save(copy.path()).unwrap();
        let again = CausalLm::load(copy.path(), &device()).unwrap();
        let prompt = &prompts(&reference)[2];
        assert_eq!(logits(&again, prompt), logits(&merged, prompt), "{name}");
    }
}

#[test]
fn scores_of_a_classifier_on_either_kind_of_base() {
    let (dir, reference) =
        (fixture("lora-classifier"), read_json(&fixture("lora-classifier/reference.json")));
    let base = fixture("llama-classifier");
    let expected: Vec<f32> =
        reference["scores"].as_array().unwrap().iter().flat_map(numbers).collect();
    let model = SequenceClassifier::load(&base, &device()).unwrap().with_adapter(&dir).unwrap();
    let scores = model.scores(&prompts(&reference)).unwrap();
    assert!(difference(&scores, &expected) < TOLERANCE, "{scores:?}");
    let merged = model.clone().merge().unwrap().scores(&prompts(&reference)).unwrap();
    assert!(difference(&scores, &merged) < MERGED * largest(&scores), "{merged:?}");
    let copy = tempfile::tempdir().unwrap();
    model.save(copy.path()).unwrap();
    assert!(tensors(copy.path()) == tensors(&dir));
    assert_eq!(
        SequenceClassifier::load(copy.path(), &device())
            .unwrap()
            .scores(&prompts(&reference))
            .unwrap(),
        scores
    );
    // A language model as base: the head is the adapter's.
    let on = changed(&dir, &json!({ "base_model_name_or_path": fixture("llama") }));
    let other = SequenceClassifier::load(on.path(), &device())
        .unwrap()
        .scores(&prompts(&reference))
        .unwrap();
    assert!(other.iter().all(|score| *score != 0.0), "{other:?}");
}

#[test]
fn the_reference_is_the_model_without_the_adapter() {
    for name in CAUSAL {
        let (dir, base, reference) = case(name);
        let model = base.clone().with_adapter(&dir).unwrap();
        let plain = model.without_adapter();
        assert!(plain.adapter().is_none());
        let prompt = &prompts(&reference)[1];
        assert_eq!(logits(&plain, prompt), logits(&base, prompt), "{name}");
        assert!(difference(&logits(&model, prompt), &logits(&base, prompt)) > 0.01, "{name}");
    }
}

/// The ids of a network's parameters, and those among them that have a gradient.
struct Gradients<'a> {
    grads: &'a GradientsParams,
    all: BTreeSet<u64>,
    with: BTreeSet<u64>,
}

impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.all.insert(param.id.val());
        if self.grads.get::<D>(param.id).is_some() {
            self.with.insert(param.id.val());
        }
    }
}

fn gradients(model: CausalLm) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let model = model.train();
    let sequence = Sequence { tokens: vec![3, 9, 4, 7], prompt_length: 1 };
    let batch = ResponseBatch::new(&[sequence], model.config(), &model.device()).unwrap();
    let loss = model.response_log_probs(&batch).mean();
    let grads = GradientsParams::from_grads(loss.backward(), model.net());
    let mut found = Gradients { grads: &grads, all: BTreeSet::new(), with: BTreeSet::new() };
    model.net().visit(&mut found);
    (found.all, found.with)
}

#[test]
fn gradients_reach_the_adapter_and_the_modules_to_save_alone() {
    for name in CAUSAL {
        let n_saved = match name {
            "lora-llama-saved" => 2,
            "lora-gpt-neox-saved" => 1,
            _ => 0,
        };
        let (dir, base, _) = case(name);
        let (plain, trained) = gradients(base.clone());
        assert_eq!(plain, trained, "{name}: without an adapter, everything is trained");
        let model = base.with_adapter(&dir).unwrap();
        let (all, trained) = gradients(model.clone());
        assert_eq!(all.difference(&plain).count() + n_saved, tensors(&dir).len(), "{name}");
        assert!(all.difference(&plain).all(|id| trained.contains(id)), "{name}");
        assert_eq!(trained.intersection(&plain).count(), n_saved, "{name}");
        // Inference between two steps changes nothing about that.
        assert_eq!(gradients(model.clone().train().valid()), (all, trained), "{name}");
        let (merged, trained) = gradients(model.merge().unwrap());
        assert!(merged == plain && trained == plain, "{name}: merged, everything is trained again");
    }
}
