//! What cannot be decoded is refused, and what nobody wants any more is broken off.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use infalign_decode::exact::Values;
use infalign_decode::guided::{GuidedGenerator, PrefixScorer, TabularScorer};
use infalign_decode::{DecodeError, Decoder, Event, Generator, ProcedureDecoder, Sampler};
use infalign_model::TabularProblem;
use infalign_transform::{Composed, Procedure};

use super::{Fixture, guided};

#[test]
fn watchers_hear_what_is_certain_and_may_break_off() {
    let fixture = Fixture::new();
    let heard = Mutex::new(BTreeMap::<usize, Vec<u32>>::new());
    let listen = |event: Event| {
        heard.lock().unwrap().entry(event.prompt).or_default().push(event.draw.token);
        ControlFlow::Continue(())
    };
    for procedure in
        ["cd-block:length=2,samples=3", "cd-token:lambda=1", "beam:width=2,branch=2,length=1"]
    {
        heard.lock().unwrap().clear();
        let generator = Generator { watch: Some(&listen), ..fixture.generator(4, 16) };
        let procedure = procedure.parse().unwrap();
        let guided = guided(generator, &fixture.scorer, procedure);
        let decoder =
            ProcedureDecoder::guided(Procedure::Sample, guided, &fixture.tokenizer, None).unwrap();
        let decoded = decoder.decode(&fixture.prompts(40)).unwrap();
        let told = heard.lock().unwrap();
        let tokens = decoded.into_iter().map(|one| one.response.tokens).enumerate();
        assert_eq!(*told, tokens.collect(), "{procedure}");
    }
    let stop = |_: Event| ControlFlow::Break(());
    let generator = Generator { watch: Some(&stop), ..fixture.generator(4, 16) };
    let procedure = "cd-token:lambda=1".parse().unwrap();
    let guided = guided(generator, &fixture.scorer, procedure);
    let decoder =
        ProcedureDecoder::guided(Procedure::Sample, guided, &fixture.tokenizer, None).unwrap();
    let refused = decoder.decode(&fixture.prompts(3)).unwrap_err();
    assert!(matches!(refused, DecodeError::Cancelled { .. }), "{refused}");
}

#[test]
fn what_nobody_wants_any_more_is_not_drawn() {
    let fixture = Fixture::new();
    let (cancelled, heard) = (AtomicBool::new(false), AtomicUsize::new(0));
    // The first token is the last that anybody wants.
    let listen = |_: Event| {
        heard.fetch_add(1, Ordering::Relaxed);
        cancelled.store(true, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let generator = Generator { watch: Some(&listen), ..fixture.generator(4, 1) };
    let procedure = "cd-block:length=1,samples=2".parse().unwrap();
    let guided = guided(generator, &fixture.scorer, procedure);
    let guided = GuidedGenerator { cancelled: Some(&cancelled), ..guided };
    let decoder =
        ProcedureDecoder::guided(Procedure::Sample, guided, &fixture.tokenizer, None).unwrap();
    let refused = decoder.decode(&fixture.prompts(500)).unwrap_err();
    assert!(matches!(refused, DecodeError::Cancelled { .. }), "{refused}");
    assert_eq!(heard.load(Ordering::Relaxed), 1);
}

#[test]
fn what_cannot_be_is_refused() {
    let fixture = Fixture::new();
    let refused = |procedure: &str, scorer: &dyn PrefixScorer, reward: bool| {
        let Composed { selection, inner } = procedure.parse().unwrap();
        let reward = reward.then_some(&fixture.reward as _);
        let guided = guided(fixture.generator(1, 8), scorer, inner);
        let decoder = ProcedureDecoder::guided(selection, guided, &fixture.tokenizer, reward);
        let decoded = decoder.and_then(|decoder| decoder.decode(&fixture.prompts(1)));
        decoded.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let other =
        r#"{"D": 2, "p": {"": [0.5, 0, 0, 0.5], "a": [0, 0, 0, 1]}, "r": {"$": 0, "a$": 1}}"#;
    let other = TabularProblem::parse(other, "three.json".as_ref()).unwrap();
    let other = TabularScorer::new(Values::of(&other));
    for (procedure, scorer, reward, told) in [
        ("cd-token:lambda=1", &other as &dyn PrefixScorer, true, "vocabulary of 4 tokens"),
        ("best-of:2", &fixture.scorer, true, "no prefix scorer"),
        ("best-of:2 over cd-token:lambda=1", &fixture.scorer, false, "needs a reward"),
        ("pruned-best-of:2,length=1,keep=0.5", &fixture.scorer, false, "needs a reward"),
        ("cd-token:lambda=1e308", &fixture.scorer, true, "smaller λ"),
    ] {
        let message = refused(procedure, scorer, reward);
        assert!(message.contains(told), "{procedure}: {message}");
    }
    let generator = fixture.generator(1, 8);
    let needs = ProcedureDecoder::new(
        "cd-token:lambda=1".parse().unwrap(),
        &generator as &dyn Sampler,
        &fixture.tokenizer,
        None,
    );
    assert!(needs.err().unwrap().to_string().contains("needs a prefix scorer"));
}
