//! Where responses end, and what is handed over where generation is broken off or fails.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Mutex;

use infalign_decode::{
    EncodedPrompt, Event, Finish, Generator, ProcedureDecoder, Response, Sampler, Sampling,
    StopTexts,
};
use infalign_reward::{Reward, RewardError};
use infalign_transform::Procedure;

use super::fixture::fixture;

#[test]
fn a_stop_text_ends_a_response_and_is_no_part_of_it() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let plain = fixture.generator(50).generate(&prompts, 0..9).unwrap();
    let texts = ["c".to_owned(), "a b".to_owned(), String::new()];
    let stop_texts = Some(StopTexts { tokenizer: &fixture.tokenizer, texts: &texts });
    let generator = Generator { stop_texts, ..fixture.generator(50) };
    let decoder =
        ProcedureDecoder::new(Procedure::Sample, &generator, &fixture.tokenizer, None).unwrap();
    let decoded = decoder.decode_samples(&prompts, 9).unwrap();
    let mut stopped = 0;
    for (prompt, (decoded, plain)) in prompts.iter().zip(decoded.iter().zip(&plain)) {
        for (decoded, plain) in decoded.iter().zip(plain) {
            let text = fixture.tokenizer.decode_response(&prompt.tokens, &plain.tokens).unwrap();
            let end = ["c", "a b"].iter().filter_map(|stop| text.find(stop)).min();
            assert_eq!(decoded.text, text[..end.unwrap_or(text.len())]);
            assert!(plain.tokens.starts_with(&decoded.response.tokens));
            if end.is_some() {
                assert_eq!(decoded.response.finish, Finish::Stop);
                stopped += 1;
            }
        }
    }
    assert!(stopped > 5, "{stopped}");
}

#[test]
fn a_stop_token_ends_a_response_and_is_its_last() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let plain = fixture.generator(50).generate(&prompts, 0..9).unwrap();
    let long = plain.iter().flatten().find(|response| response.tokens.len() > 3).unwrap();
    let stop = long.tokens[1];
    let stop_token_ids = BTreeSet::from([stop]);
    let own = fixture.generator(50);
    let generator =
        Generator { sampling: Sampling { stop_token_ids, ..own.sampling.clone() }, ..own };
    let stopped = generator.generate(&prompts, 0..9).unwrap();
    for (stopped, plain) in stopped.iter().flatten().zip(plain.iter().flatten()) {
        let end = plain.tokens.iter().position(|token| *token == stop);
        let length = end.map_or(plain.tokens.len(), |end| end + 1);
        assert_eq!(stopped.tokens, plain.tokens[..length]);
        assert_eq!(stopped.finish, if end.is_some() { Finish::Stop } else { plain.finish });
    }
    let unknown = BTreeSet::from([10_000]);
    let sampling = Sampling { stop_token_ids: unknown, ..Sampling::default() };
    let error = Generator { sampling, ..fixture.generator(50) }.generate(&prompts, 0..1);
    assert!(error.unwrap_err().to_string().contains("stop_token_ids is 10000"));
}

#[test]
fn tokens_are_told_as_they_come_and_a_response_can_be_broken_off() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let packed = fixture.model.clone().for_inference();
    let all = Generator { model: packed.as_ref(), ..fixture.generator(50) };
    let plain = all.generate(&prompts, 0..3).unwrap();
    let told = Mutex::new(vec![vec![Vec::new(); 3]; prompts.len()]);
    let watch = |event: Event| {
        let mut told = told.lock().unwrap();
        let tokens = &mut told[event.prompt][event.sample];
        tokens.push(event.draw.token);
        if event.sample == 1 && tokens.len() == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let generator = Generator { watch: Some(&watch), batch: 4, ..all };
    let broken = generator.generate(&prompts, 0..3).unwrap();
    for (prompt, (broken, plain)) in broken.iter().zip(&plain).enumerate() {
        for (sample, (broken, plain)) in broken.iter().zip(plain).enumerate() {
            assert_eq!(told.lock().unwrap()[prompt][sample], broken.tokens);
            if sample == 1 && plain.tokens.len() > 2 {
                assert_eq!(broken.tokens, plain.tokens[..2]);
                assert_eq!(broken.finish, Finish::Cancelled);
            } else {
                assert_eq!(broken, plain);
            }
        }
    }
}

#[test]
fn prompts_are_handed_over_whole_and_the_rest_can_be_broken_off() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let plain = fixture.generator(7).generate(&prompts, 2..6).unwrap();
    for most in 1..=prompts.len() {
        let handed = Mutex::new(BTreeMap::new());
        let finished = |prompt: usize, responses: Vec<Response>| {
            let mut handed = handed.lock().unwrap();
            assert!(handed.insert(prompt, responses).is_none(), "once");
            if handed.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        fixture.generator(3).generate_each(&prompts, 2..6, &finished).unwrap();
        let handed = handed.into_inner().unwrap();
        assert_eq!(handed.len(), most, "nothing comes after a break");
        for (prompt, responses) in handed {
            let tokens =
                |all: &[Response]| all.iter().map(|r| r.tokens.clone()).collect::<Vec<_>>();
            assert_eq!(tokens(&responses), tokens(&plain[prompt]), "in order");
        }
    }
}

/// A reward that fails at the second prompt.
struct FailsAt<'a>(&'a str);

impl Reward for FailsAt<'_> {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        match pairs.iter().find(|(prompt, _)| *prompt == self.0) {
            Some(_) => Err(RewardError::Deviation),
            None => Ok(vec![0.0; pairs.len()]),
        }
    }
}

#[test]
fn what_was_decoded_before_a_failure_is_handed_over() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let (generator, reward) = (fixture.generator(1), FailsAt("d e f g h"));
    let procedure: Procedure = "best-of:2".parse().unwrap();
    let decoder =
        ProcedureDecoder::new(procedure, &generator, &fixture.tokenizer, Some(&reward)).unwrap();
    let mut handed = Vec::new();
    let mut done = |prompt, decoded: Vec<_>| {
        handed.push((prompt, decoded.len()));
        ControlFlow::Continue(())
    };
    assert!(decoder.decode_each(&prompts, 3, &mut done).is_err());
    assert_eq!(handed, [(0, 3), (1, 3)]);
}

#[test]
fn samples_that_rejection_found_before_a_failure_are_handed_over() {
    let fixture = fixture();
    let [good, bad] = [0, 2].map(|place| fixture.prompts().swap_remove(place));
    let prompt = |n: usize| {
        let EncodedPrompt { text, tokens, .. } = if n == 99 { &bad } else { &good };
        EncodedPrompt { id: n.to_string(), text: text.clone(), tokens: tokens.clone() }
    };
    let prompts: Vec<EncodedPrompt> = (0..100).map(prompt).collect();
    let (generator, reward) = (fixture.generator(50), FailsAt(&bad.text));
    let procedure: Procedure = "rejection:quantile=0.5,draws=3".parse().unwrap();
    let decoder =
        ProcedureDecoder::new(procedure, &generator, &fixture.tokenizer, Some(&reward)).unwrap();
    let ranks = |_: &EncodedPrompt, _: f32| Some(1.0);
    let decoder = decoder.with_ranks(&ranks);
    let mut handed = BTreeMap::new();
    let mut done = |prompt, decoded: Vec<_>| {
        assert!(handed.insert(prompt, decoded).is_none(), "once");
        ControlFlow::Continue(())
    };
    assert!(decoder.decode_each(&prompts, 2, &mut done).is_err());
    assert!(!handed.is_empty(), "all samples of some prompts come before any of the last");
    let alone = decoder.decode_samples(&prompts[..handed.len()], 2).unwrap();
    assert_eq!(handed.into_values().collect::<Vec<_>>(), alone, "the first prompts, and no others");
}
