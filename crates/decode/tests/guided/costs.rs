//! What a response took, and how far it is from the model: counts, bounds and estimates.

use infalign_decode::exact::ExactDecoder;
use infalign_decode::{
    Decoded, Decoder, EncodedPrompt, Generator, Kl, KlKind, ProcedureDecoder, Sampling,
    best_of_kl_bound,
};
use infalign_transform::Procedure;

use super::tables::{Enumerated, pruned};
use super::{Fixture, guided};

#[test]
fn a_selection_may_have_moved_by_what_any_of_its_candidates_lacks() {
    let fixture = Fixture::new();
    // At λ = 0, a token moves as much as the probability of what is left out: after "" and "b" it is $, of 0.2, after "a" $, of 0.25, after
    // "ab" a, of 0.2, and after "ba" b, of 0.3. Elsewhere there are no more than two tokens.
    let left_out = |one: &Decoded| -> f64 {
        match &one.text[..2] {
            "aa" => 0.45,
            "ab" => 0.65,
            "ba" => 0.7,
            _ => 0.4,
        }
    };
    let near = |one: &Decoded, expected: f64| (one.truncation - expected).abs() < 1e-6;
    let procedure = "cd-token:lambda=0,candidates=2";
    let guided = guided(fixture.generator(6, 512), &fixture.scorer, procedure.parse().unwrap());
    let decoder =
        ProcedureDecoder::guided(Procedure::Sample, guided, &fixture.tokenizer, None).unwrap();
    let pairs = decoder.decode_samples(&fixture.prompts(200), 2).unwrap();
    let kept = fixture.decode(&format!("best-of:2 over {procedure}"), 6, 512, 200);
    for (pair, kept) in pairs.iter().zip(&kept) {
        let sum: f64 = pair.iter().map(left_out).sum();
        assert!(pair.iter().all(|one| near(one, left_out(one))), "{pair:?}");
        assert!(near(kept, sum.min(1.0)), "{kept:?}, {sum}");
    }
    assert!(kept.iter().any(|one| one.truncation < 0.95));
    assert!(kept.iter().any(|one| one.truncation == 1.0));
}

#[test]
fn costs_and_kl_are_counted_and_labelled() {
    let fixture = Fixture::new();
    let mean = |all: &[Decoded], of: &dyn Fn(&Decoded) -> f64| {
        all.iter().map(of).sum::<f64>() / all.len() as f64
    };
    let exact = |procedure: &str| {
        ExactDecoder::new(&fixture.problem).decode(procedure.parse().unwrap()).unwrap()
    };
    let tokenwise = fixture.decode("cd-token:lambda=1.5", 1, 512, 20_000);
    assert!(tokenwise.iter().all(|one| one.kl.len() == 1 && one.kl[0].kind == KlKind::Exact));
    let kl = mean(&tokenwise, &|one| one.kl[0].nats);
    assert!((kl - exact("cd-token:lambda=1.5").kl()).abs() < 0.01, "{kl}");
    let letters = |one: &Decoded| one.response.tokens.len();
    assert!(tokenwise.iter().all(|one| one.cost.model_tokens == letters(one)));

    let (length, samples) = (2, 4);
    let procedure = format!("cd-block:length={length},samples={samples}");
    let (blocks, distribution) = (fixture.decode(&procedure, 1, 512, 20_000), exact(&procedure));
    assert!(blocks.iter().all(|one| one.kl[0].kind == KlKind::Bound));
    let bound = mean(&blocks, &|one| one.kl[0].nats);
    let per_block = best_of_kl_bound(samples.try_into().unwrap());
    let expected = distribution.expected_blocks(length.try_into().unwrap()) * per_block;
    assert!((bound - expected).abs() < 0.02 && bound >= distribution.kl(), "{bound}");
    let estimate = mean(&blocks, &|one| one.kl[1].nats);
    assert!(blocks.iter().all(|one| one.kl.len() == 2 && one.kl[1].kind == KlKind::Estimate));
    let [error, slack] = [estimate, bound].map(|kl| (kl - distribution.kl()).abs());
    assert!(error < slack && estimate < bound, "{estimate} against {}", distribution.kl());
    for one in &blocks {
        let n = letters(one).div_ceil(length);
        // The candidates of each block have a value, and the response's reward is asked for, too.
        assert_eq!(one.cost.scorer_calls, n * samples + 1, "{one:?}");
        assert!(one.cost.model_tokens <= n * samples * length);
        assert!((one.value.unwrap() - f64::from(one.score.unwrap())).abs() < 1e-6);
    }

    let best = fixture.decode("best-of:4", 1, 512, 4_000);
    let of_kind =
        |kind| move |one: &Decoded| one.kl.iter().find(|kl| kl.kind == kind).unwrap().nats;
    let kl = exact("best-of:4").kl();
    assert!((mean(&best, &of_kind(KlKind::Bound)) - per_block).abs() < 1e-12 && kl <= per_block);
    assert!(mean(&best, &of_kind(KlKind::Estimate)) < per_block);

    let composed = "best-of:2 over cd-token:lambda=1.5";
    let all = fixture.decode(composed, 1, 512, 4_000);
    let kl = exact("cd-token:lambda=1.5")
        .select(&"best-of:2".parse().unwrap(), fixture.problem.rewards())
        .unwrap()
        .kl();
    let bound = mean(&all, &of_kind(KlKind::Bound));
    assert!(bound >= kl && bound < kl + 0.3, "{bound} against {kl}");
}

#[test]
fn tokenwise_decoding_asks_for_the_value_of_every_possible_token() {
    let all = Fixture::new().decode("cd-token:lambda=1.5", 1, 512, 2_000);
    // The tokens that are possible after each prefix on the way, and the reward of the response.
    for (text, calls) in
        [("", 3 + 1), ("a", 3 + 3 + 1), ("aa", 3 + 3 + 2 + 1), ("bb", 3 + 3 + 1 + 1)]
    {
        let of_text = all.iter().filter(|one| one.text == text);
        let found: Vec<usize> = of_text.map(|one| one.cost.scorer_calls).collect();
        assert!(!found.is_empty(), "{text:?}");
        assert!(found.iter().all(|found| *found == calls), "{text:?}: {found:?}");
    }
}

#[test]
fn beams_that_never_branch_cost_at_most_a_choice_among_them() {
    // One of two paths is kept, however many blocks they have: log 2 + blocks · log 1.
    let bound = Kl { nats: 2.0_f64.ln(), kind: KlKind::Bound };
    for one in Fixture::new().decode("beam:width=2,branch=1,length=1", 1, 512, 50) {
        assert_eq!(one.kl, [bound], "{:?}", one.text);
    }
}

#[test]
fn pruned_candidates_cost_at_most_what_the_best_of_them_does() {
    let fixture = Fixture::new();
    let bound = best_of_kl_bound(3_usize.try_into().unwrap());
    for one in fixture.decode("pruned-best-of:3,length=1,keep=0.5", 1, 512, 50) {
        assert_eq!(one.kl, [Kl { nats: bound, kind: KlKind::Bound }], "{:?}", one.text);
    }
    let base = fixture.exact("sample");
    let law = pruned(&Enumerated::new(&fixture.problem), 3, 1, 0.5);
    let possible = law.iter().filter(|(_, q)| **q > 0.0);
    let kl: f64 = possible.map(|(y, q)| q * (q / base[y]).ln()).sum();
    assert!(kl > 0.0 && kl <= bound, "{kl} against {bound}");
    // Of a selection on top, the ratio of probabilities counts, which is at most 3.
    let nats = best_of_kl_bound(2_usize.try_into().unwrap()) + 3_f64.ln();
    for one in fixture.decode("best-of:2 over pruned-best-of:3,length=1,keep=0.5", 1, 512, 50) {
        assert_eq!(one.kl, [Kl { nats, kind: KlKind::Bound }], "{:?}", one.text);
    }
}

#[test]
fn estimates_are_of_what_is_drawn_from_the_model_itself() {
    let fixture = Fixture::new();
    let (tokenizer, reward) = (&fixture.tokenizer, Some(&fixture.reward as _));
    let kinds = |decoder: ProcedureDecoder<'_>| {
        let decoded = decoder.decode(&fixture.prompts(1)).unwrap();
        decoded[0].kl.iter().map(|kl| kl.kind).collect::<Vec<_>>()
    };
    let best = |sampling: Sampling| {
        let generator = Generator { sampling, ..fixture.generator(1, 8) };
        let four = "best-of:4".parse().unwrap();
        kinds(ProcedureDecoder::new(four, &generator, tokenizer, reward).unwrap())
    };
    let blocks = |sampling: Sampling| {
        let generator = Generator { sampling, ..fixture.generator(1, 8) };
        let inner = "cd-block:length=2,samples=4".parse().unwrap();
        let guided = guided(generator, &fixture.scorer, inner);
        kinds(ProcedureDecoder::guided(Procedure::Sample, guided, tokenizer, reward).unwrap())
    };
    let own = || fixture.generator(1, 8).sampling;
    for kinds in [best(own()), blocks(own())] {
        assert_eq!(kinds, [KlKind::Bound, KlKind::Estimate]);
    }
    for other in [
        Sampling { temperature: 0.7, ..own() },
        Sampling { top_k: 2, ..own() },
        Sampling { top_p: 0.9, ..own() },
    ] {
        for kinds in [best(other.clone()), blocks(other)] {
            assert_eq!(kinds, [KlKind::Bound]);
        }
    }
}

#[test]
fn rejection_says_what_it_accepted_and_what_that_took() {
    let fixture = Fixture::new();
    let exact = |procedure: &str| {
        ExactDecoder::new(&fixture.problem).decode(procedure.parse().unwrap()).unwrap()
    };
    let (quantile, draws) = (0.8, 4);
    let all = fixture.decode(&format!("rejection:quantile={quantile},draws={draws}"), 3, 256, 4000);
    let accepted = all.iter().filter(|one| one.accepted == Some(true)).count() as f64;
    let good = |one: &Decoded| fixture.rank(one.score.unwrap()).unwrap() >= quantile;
    assert!(all.iter().all(|one| one.accepted == Some(good(one))));
    let plain = exact("sample");
    let p = plain.responses().filter(|(text, _)| {
        let response = text.trim_end_matches('$');
        let of_text = all.iter().find(|one| one.text == response);
        of_text.is_some_and(good)
    });
    let p: f64 = p.map(|(_, p)| p).sum();
    let share = 1.0 - (1.0 - p).powi(draws);
    let spread = (share * (1.0 - share) / all.len() as f64).sqrt();
    assert!((accepted / all.len() as f64 - share).abs() < 4.0 * spread, "{accepted}, {share}");
    // A draw costs a score; the rounds are of 1, 2 and the 1 that is left.
    assert!(all.iter().all(|one| [1, 3, 4].contains(&one.cost.scorer_calls)));
    assert!(all.iter().all(|one| one.accepted == Some(true) || one.cost.scorer_calls == 4));
    let kinds: Vec<KlKind> = all[0].kl.iter().map(|kl| kl.kind).collect();
    assert_eq!(kinds, [KlKind::Bound, KlKind::Estimate]);
    let exact = exact("rejection:quantile=0.8,draws=4").kl();
    assert!(exact <= all[0].kl[0].nats && all[0].kl[1].nats <= all[0].kl[0].nats);

    // Numbers of draws belong to a response, whatever others are asked for.
    let reward: &dyn infalign_reward::Reward = &fixture.reward;
    let generator = fixture.generator(3, 16);
    let ranks = |prompt: &EncodedPrompt, reward: f32| {
        fixture.rank(reward).filter(|_| prompt.id != "unknown")
    };
    let procedure: Procedure = "rejection:quantile=0.8,draws=4".parse().unwrap();
    let decoder = |reward| {
        ProcedureDecoder::new(procedure, &generator, &fixture.tokenizer, Some(reward)).unwrap()
    };
    let prompts = fixture.prompts(20);
    let three = decoder(reward).with_ranks(&ranks).decode_samples(&prompts, 3).unwrap();
    let one = decoder(reward).with_ranks(&ranks).decode_samples(&prompts, 1).unwrap();
    assert!(three.iter().zip(&one).all(|(three, one)| three.len() == 3 && three[0] == one[0]));
    assert!(three.iter().any(|three| three[0].response != three[1].response));
    let unknown = EncodedPrompt { id: "unknown".into(), ..prompts[0].clone() };
    let refused = decoder(reward).with_ranks(&ranks).decode(&[unknown]).unwrap_err().to_string();
    assert!(refused.contains("there is no calibration of it"), "{refused}");
    let refused = decoder(reward).decode(&prompts).unwrap_err().to_string();
    assert!(refused.contains("calibration table"), "{refused}");
}
