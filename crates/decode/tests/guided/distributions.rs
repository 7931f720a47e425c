//! Every procedure draws from its distribution, whatever the batch and whatever else is drawn.

use std::collections::BTreeMap;

use infalign_decode::exact::Values;
use infalign_decode::guided::TabularScorer;
use infalign_decode::{Kl, ProcedureDecoder, Sampler};

use super::Fixture;
use super::tables::{Enumerated, beam, majority, pruned};

#[test]
fn enumerable_procedures_draw_from_their_distributions() {
    let fixture = Fixture::new();
    for procedure in [
        "sample",
        "best-of:4",
        "worst-of:3",
        "soft-best-of:4,temperature=0.7",
        "rejection:quantile=0.7,draws=5",
        "rejection:quantile=0.9,draws=40",
        "rejection:quantile=0.99,draws=3",
        "cd-token:lambda=1.5",
        "cd-block:length=1,samples=3",
        "cd-block:length=2,samples=4",
        "cd-block:length=4,samples=2",
        "best-of:2 over cd-block:length=2,samples=2",
        "worst-of:2 over cd-token:lambda=1",
        "soft-best-of:3,temperature=1 over cd-block:length=3,samples=2",
    ] {
        fixture.check(procedure, &fixture.exact(procedure));
    }
}

#[test]
fn searches_draw_from_distributions_that_every_joint_draw_adds_up_to() {
    let fixture = Fixture::new();
    let tree = Enumerated::new(&fixture.problem);
    fixture.check("majority:3", &majority(&tree));
    for (width, branch, length) in [(2, 1, 1), (2, 2, 1), (2, 1, 2), (3, 1, 2)] {
        let procedure = format!("beam:width={width},branch={branch},length={length}");
        fixture.check(&procedure, &beam(&tree, width, branch, length));
    }
    for (n, length, keep) in [(3, 1, 0.5), (2, 2, 0.5), (3, 1, 0.7)] {
        let procedure = format!("pruned-best-of:{n},length={length},keep={keep}");
        fixture.check(&procedure, &pruned(&tree, n, length, keep));
    }
    // Nothing is pruned, and one beam is a block.
    fixture.check("pruned-best-of:4,length=1,keep=1", &fixture.exact("best-of:4"));
    let block = fixture.exact("cd-block:length=2,samples=3");
    fixture.check("beam:width=1,branch=3,length=2", &block);
    let enumerated = beam(&tree, 1, 3, 2);
    assert!(block.iter().all(|(y, p)| (enumerated.get(y).unwrap_or(&0.0) - p).abs() < 1e-12));
}

#[test]
fn searches_among_equals_draw_from_the_model() {
    let fixture = Fixture::new();
    let scorer = TabularScorer::new(Values::of(&fixture.problem).scaled(0.0));
    let fixture = Fixture { scorer, ..fixture };
    let model = fixture.exact("sample");
    for (width, branch, length) in [(2, 1, 1), (4, 1, 1), (2, 2, 1), (3, 2, 2)] {
        let procedure = format!("beam:width={width},branch={branch},length={length}");
        fixture.check(&procedure, &model);
    }
}

#[test]
fn limited_candidates_draw_from_the_limited_tilt_and_the_error_is_bounded() {
    let fixture = Fixture::new();
    let values = Values::of(&fixture.problem);
    let model = fixture.problem.model();
    let limited = |lambda: f64, most: usize| {
        let kept = |prefix: usize, token: u32| {
            let row = model.next_probabilities(prefix).unwrap();
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
            order[..most].contains(&(token as usize))
        };
        let weight = |prefix, token| match kept(prefix, token) {
            true => Ok(lambda * values.after(prefix, token)?),
            false => Ok(f64::NEG_INFINITY),
        };
        let tilted = model.tilted::<infalign_decode::DecodeError>(weight).unwrap();
        let text = |y| model.tree().response_text(y);
        let all = tilted.response_probabilities().into_iter().enumerate();
        all.map(|(y, p)| (text(y), p)).filter(|(_, p)| *p > 0.0).collect::<BTreeMap<_, _>>()
    };
    let procedure = "cd-token:lambda=1.5,candidates=2";
    let expected = limited(1.5, 2);
    fixture.check(procedure, &expected);
    let full = fixture.exact("cd-token:lambda=1.5");
    let moved: f64 =
        full.iter().map(|(y, p)| (p - expected.get(y).copied().unwrap_or(0.0)).abs() / 2.0).sum();
    let bounds: Vec<f64> =
        fixture.decode(procedure, 3, 512, 4_000).iter().map(|one| one.truncation).collect();
    let bound = bounds.iter().sum::<f64>() / bounds.len() as f64;
    assert!(moved > 0.05 && moved <= bound, "{moved} moved, {bound} at most");
    assert!(bounds.iter().all(|bound| (0.0..=1.0).contains(bound)));
    let whole = fixture.decode("cd-token:lambda=1.5", 3, 512, 50);
    assert!(whole.iter().all(|one| one.truncation == 0.0));
}

#[test]
fn the_batch_changes_nothing_and_one_candidate_is_a_plain_sample() {
    let fixture = Fixture::new();
    for procedure in [
        "cd-token:lambda=1.5",
        "cd-block:length=2,samples=4",
        "beam:width=2,branch=2,length=1",
        "pruned-best-of:4,length=1,keep=0.5",
        "best-of:2 over cd-block:length=1,samples=2",
        "rejection:quantile=0.8,draws=7",
    ] {
        let expected = fixture.decode(procedure, 5, 1, 60);
        for batch in [7, 1000] {
            assert_eq!(fixture.decode(procedure, 5, batch, 60), expected, "{procedure}, {batch}");
        }
    }
    let plain = fixture.decode("sample", 5, 64, 60);
    for procedure in ["cd-block:length=2,samples=1", "cd-token:lambda=0"] {
        let guided = fixture.decode(procedure, 5, 64, 60);
        let pairs = plain.iter().zip(&guided);
        assert!(pairs.clone().all(|(a, b)| a.response == b.response), "{procedure}");
        let is_nothing = |kl: &[Kl]| kl.len() == 1 && kl[0].nats.abs() < 1e-12;
        assert!(pairs.clone().all(|(_, b)| is_nothing(&b.kl)), "{procedure}");
    }
}

#[test]
fn responses_to_a_prompt_are_chosen_by_numbers_of_their_own() {
    let fixture = Fixture::new();
    let (generator, prompts) = (fixture.generator(1, 64), fixture.prompts(20));
    // So hot that each of the eight is as likely as the others.
    let procedure = "soft-best-of:8,temperature=1e6".parse().unwrap();
    let reward = Some(&fixture.reward as _);
    let decoder = ProcedureDecoder::new(procedure, &generator, &fixture.tokenizer, reward).unwrap();
    let kept = decoder.decode_samples(&prompts, 4).unwrap();
    let all = generator.generate(&prompts, 0..32).unwrap();
    // With one number for all, every eight would keep the response at the same place.
    let alike = kept.iter().zip(&all).all(|(kept, all)| {
        let at = |place: usize| {
            kept.iter().zip(all.chunks(8)).all(|(kept, eight)| kept.response == eight[place])
        };
        (0..8).any(at)
    });
    assert!(!alike);
}
