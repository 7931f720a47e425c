//! What is drawn: from the model's distribution, with its log-probabilities, whatever the batch, the order and the number of threads.

use std::collections::BTreeMap;

use infalign_decode::{
    DecodeError, Decoder, EncodedPrompt, Generator, ProcedureDecoder, Response, Sampler, Sampling,
};
use infalign_model::{LanguageModel, Sequence};
use infalign_reward::{Lexicon, Reward};

use super::fixture::fixture;

#[test]
fn responses_do_not_depend_on_batch_order_or_threads() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let expected = fixture.generator(1).generate(&prompts, 0..9).unwrap();
    let tokens =
        |all: &[Vec<Response>]| all.iter().flatten().map(|r| r.tokens.clone()).collect::<Vec<_>>();
    for batch in [2, 7, 54, 1000] {
        assert_eq!(
            tokens(&fixture.generator(batch).generate(&prompts, 0..9).unwrap()),
            tokens(&expected),
            "batch {batch}"
        );
    }
    let reversed: Vec<EncodedPrompt> = prompts.iter().rev().cloned().collect();
    let mut backwards = fixture.generator(20).generate(&reversed, 0..9).unwrap();
    backwards.reverse();
    assert_eq!(tokens(&backwards), tokens(&expected), "another order");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let alone = pool.install(|| fixture.generator(7).generate(&prompts, 0..9).unwrap());
    assert_eq!(
        alone,
        fixture.generator(7).generate(&prompts, 0..9).unwrap(),
        "one thread: equal bit for bit"
    );
    let halves = [0..4, 4..9].map(|part| fixture.generator(7).generate(&prompts, part).unwrap());
    let whole: Vec<Vec<Response>> =
        halves[0].iter().zip(&halves[1]).map(|(a, b)| [a.as_slice(), b].concat()).collect();
    assert_eq!(tokens(&whole), tokens(&expected), "in two parts");
}

#[test]
fn log_probs_are_those_that_scoring_computes() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let responses = fixture.generator(10).generate(&prompts, 0..5).unwrap();
    for (prompt, responses) in prompts.iter().zip(&responses) {
        let sequences: Vec<_> = responses.iter().map(|r| r.sequence(prompt)).collect();
        for (response, scored) in responses.iter().zip(fixture.model.log_probs(&sequences).unwrap())
        {
            assert_eq!(response.tokens.len(), scored.len());
            assert!(response.log_probs.iter().zip(&scored).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}

#[test]
fn responses_end_at_a_stop_or_at_the_limit() {
    let fixture = fixture();
    let stops = fixture.tokenizer.stops();
    let responses = fixture.generator(64).generate(&fixture.prompts(), 0..40).unwrap();
    let (mut stopped, mut cut) = (0, 0);
    for response in responses.iter().flatten() {
        let (last, before) = response.tokens.split_last().unwrap();
        assert!(before.iter().all(|token| !stops.contains(token)), "nothing follows a stop");
        if stops.contains(last) {
            stopped += 1;
        } else {
            cut += 1;
            assert_eq!(response.tokens.len(), 12);
        }
    }
    assert!(stopped > 0 && cut > 0, "the test must see both: {stopped} stopped, {cut} cut");
}

#[test]
fn samples_follow_the_models_distribution() {
    let fixture = fixture();
    let prompt = fixture.prompts().swap_remove(0);
    let n = 4_000;
    let one = Generator {
        sampling: Sampling { max_tokens: 1, ..Sampling::default() },
        ..fixture.generator(500)
    };
    let responses = one.generate(std::slice::from_ref(&prompt), 0..n).unwrap().swap_remove(0);
    let mut counts: BTreeMap<u32, f64> = BTreeMap::new();
    for response in &responses {
        *counts.entry(response.tokens[0]).or_default() += 1.0;
    }
    let session = fixture.model.start(&[&prompt.tokens], 1).unwrap();
    let total: f64 = session.logits().iter().map(|l| f64::from(*l).exp()).sum();
    // Pearson's statistic over the tokens that are expected at least five times.
    let expected = session
        .logits()
        .iter()
        .enumerate()
        .map(|(token, l)| (token as u32, n as f64 * f64::from(*l).exp() / total));
    let likely: Vec<(u32, f64)> = expected.filter(|(_, count)| *count >= 5.0).collect();
    let statistic: f64 = likely
        .iter()
        .map(|(token, count)| (counts.get(token).copied().unwrap_or(0.0) - count).powi(2) / count)
        .sum();
    assert!(likely.len() > 3 && statistic < 40.0, "{statistic} over {} tokens", likely.len());
}

#[test]
fn best_and_worst_of_n_select_among_the_same_samples() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let lexicon = Lexicon::new(&[("a".to_owned(), 1.0), ("h".to_owned(), -0.5)].into()).unwrap();
    let decode = |procedure: &str| {
        let reward: &dyn Reward = &lexicon;
        let generator = fixture.generator(11);
        let decoder = ProcedureDecoder::new(
            procedure.parse().unwrap(),
            &generator,
            &fixture.tokenizer,
            Some(reward),
        )
        .unwrap();
        decoder.decode(&prompts).unwrap()
    };
    let candidates = fixture.generator(11).generate(&prompts, 0..6).unwrap();
    for (index, (best, worst)) in
        decode("best-of:6").into_iter().zip(decode("worst-of:6")).enumerate()
    {
        let texts: Vec<String> = candidates[index]
            .iter()
            .map(|r| fixture.tokenizer.decode_response(&prompts[index].tokens, &r.tokens).unwrap())
            .collect();
        let pairs: Vec<(&str, &str)> = texts.iter().map(|t| ("", t.as_str())).collect();
        let scores = lexicon.score(&pairs).unwrap();
        assert_eq!(best.score, scores.iter().copied().reduce(f32::max));
        assert_eq!(worst.score, scores.iter().copied().reduce(f32::min));
        assert!(candidates[index].contains(&best.response) && texts.contains(&best.text));
        assert_eq!(
            best.cost.model_tokens,
            candidates[index].iter().map(|r| r.tokens.len()).sum::<usize>()
        );
        assert_eq!(best.cost.scorer_calls, 6);
    }
}

#[test]
fn what_cannot_be_decoded_is_refused() {
    let fixture = fixture();
    let decoder = |procedure: &str| {
        ProcedureDecoder::new(
            procedure.parse().unwrap(),
            &fixture.generator(1),
            &fixture.tokenizer,
            None,
        )
        .err()
        .unwrap()
        .to_string()
    };
    assert!(decoder("best-of:2").contains("reward"));
    assert!(decoder("cd-token:lambda=1").contains("cd-token"));
    let long = Generator {
        sampling: Sampling { max_tokens: 62, ..Sampling::default() },
        ..fixture.generator(1)
    };
    let error = long.generate(&fixture.prompts(), 0..1).unwrap_err();
    assert!(
        matches!(error, DecodeError::Prompt { .. }) && error.to_string().contains("64"),
        "{error}"
    );
    // By its first words, too, since a file may leave the id to a hash.
    let long_winded = fixture.prompts().remove(0);
    let words = "the rain in Spain stays mainly in the plin";
    let text = EncodedPrompt { text: words.into(), ..long_winded };
    let error = long.generate(&[text], 0..1).unwrap_err().to_string();
    assert!(error.contains("(\"the rain in Spain stays mainly in the pl\" …): "), "{error}");
    let empty = EncodedPrompt { id: "none".into(), text: String::new(), tokens: Vec::new() };
    assert!(
        fixture.generator(1).generate(&[empty], 0..1).unwrap_err().to_string().contains("none")
    );
}

#[test]
fn packed_responses_are_the_same_bits_in_any_batch_on_any_number_of_threads() {
    let fixture = fixture();
    let packed = fixture.model.clone().for_inference();
    let of = |batch: usize, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let generator = Generator { model: packed.as_ref(), ..fixture.generator(batch) };
        pool.install(|| generator.generate(&fixture.prompts(), 0..9).unwrap())
    };
    let expected = of(1, 1);
    for (batch, threads) in [(3, 1), (54, 1), (7, 2), (54, 3), (1000, 8)] {
        assert_eq!(of(batch, threads), expected, "batch {batch}, {threads} threads");
    }
    let sequences: Vec<Sequence> = fixture
        .prompts()
        .iter()
        .zip(&expected)
        .flat_map(|(prompt, responses)| responses.iter().map(|r| r.sequence(prompt)))
        .collect();
    let scored = packed.log_probs(&sequences).unwrap();
    let drawn: Vec<Vec<f32>> = expected.into_iter().flatten().map(|r| r.log_probs).collect();
    assert_eq!(scored, drawn, "what is drawn has the log-probabilities that scoring gives it");
}
