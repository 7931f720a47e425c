//! Sampling on a server: what comes back is the model's, and every way to fail has its error.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod server;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use infalign_decode::{
    DecodeError, Decoder, EncodedPrompt, Finish, Generator, Patience, ProcedureDecoder,
    RemoteGenerator, Response, Sampler, Sampling, Server, StopTexts, Stream,
};
use infalign_model::{CausalLm, Tokenizer, TransformerConfig, write_word_tokenizer};
use infalign_remote::RemoteError;
use infalign_reward::Lexicon;
use serde_json::{Value, json};

use server::{Completions, Form, Reply, Request, serve};

/// A random model over a few words, with weights large enough that its distributions are far from uniform.
struct Fixture {
    model: CausalLm,
    tokenizer: Tokenizer,
    config: TransformerConfig,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let vocabulary = write_word_tokenizer(dir.path(), ["a b c d e f g h"].into_iter()).unwrap();
    let config = TransformerConfig::llama(vocabulary, 16, 24, 2, 2, 64);
    let tokenizer = Tokenizer::load(dir.path(), &config).unwrap();
    let mut normal = Stream::new(10, "weights", "", 0).normals(1);
    let device = infalign_backend::device(None).unwrap();
    let model = CausalLm::random(config.clone(), &mut || 15.0 * normal(), &device).unwrap();
    Fixture { model, tokenizer, config }
}

impl Fixture {
    fn prompts(&self) -> Vec<EncodedPrompt> {
        let texts = ["a b", "c", "d e f g h", "a", "h h", "b c"];
        texts.iter().map(|text| EncodedPrompt::new(text, text, &self.tokenizer).unwrap()).collect()
    }

    fn remote<'a>(&'a self, server: &'a Server, sampling: Sampling) -> RemoteGenerator<'a> {
        RemoteGenerator {
            server,
            model: "served",
            config: &self.config,
            tokenizer: &self.tokenizer,
            stop_texts: &[],
            sampling,
            seed: 3,
            stage: "test",
            batch: 5,
            interrupted: None,
        }
    }

    fn local(&self, sampling: Sampling) -> Generator<'_> {
        Generator::new(&self.model, self.tokenizer.stops(), &sampling, 3, "test", 5)
    }

    /// A server that has this model.
    fn served(form: Form) -> Server {
        let Self { model, tokenizer, .. } = fixture();
        let completions = Completions { model, tokenizer, form };
        server(&serve(move |request| completions.answer(request)))
    }

    /// The log-probabilities of `score`.
    fn assert_scores(&self, prompts: &[EncodedPrompt], responses: &[Vec<Response>]) {
        for (prompt, responses) in prompts.iter().zip(responses) {
            let sequences: Vec<_> = responses.iter().map(|r| r.sequence(prompt)).collect();
            for (response, scored) in
                responses.iter().zip(self.model.log_probs(&sequences).unwrap())
            {
                assert_eq!(response.log_probs.len(), scored.len());
                assert!(response.log_probs.iter().zip(&scored).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
    }
}

const GREEDY: Sampling = Sampling {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    max_tokens: 12,
    stop_token_ids: BTreeSet::new(),
};
const DRAWN: Sampling = Sampling {
    temperature: 0.7,
    top_k: 5,
    top_p: 0.95,
    max_tokens: 12,
    stop_token_ids: BTreeSet::new(),
};

fn server(url: &str) -> Server {
    let first_wait = Duration::from_millis(2);
    let patience = Patience { tries: 3, first_wait, ..Patience::new(Duration::from_secs(20)) };
    Server::new(url, Some("open sesame"), patience).unwrap()
}

fn tokens(responses: &[Vec<Response>]) -> Vec<&[u32]> {
    responses.iter().flatten().map(|response| response.tokens.as_slice()).collect()
}

#[test]
fn greedy_responses_are_the_models() {
    let fixture = fixture();
    let prompts = fixture.prompts();
    let expected = fixture.local(GREEDY).generate(&prompts, 0..2).unwrap();
    let finishes = expected.iter().flatten().map(|r| r.finish == Finish::Stop);
    assert_eq!(finishes.collect::<BTreeSet<_>>().len(), 2, "the test must see both ends");
    for form in [Form::Beside, Form::Within] {
        let server = Fixture::served(form);
        let responses = fixture.remote(&server, GREEDY).generate(&prompts, 0..2).unwrap();
        assert_eq!(tokens(&responses), tokens(&expected));
        let finish =
            |all: &[Vec<Response>]| all.iter().flatten().map(|r| r.finish).collect::<Vec<_>>();
        assert_eq!(finish(&responses), finish(&expected));
        fixture.assert_scores(&prompts, &responses);
    }
}

#[test]
fn a_response_depends_on_seed_stage_prompt_and_sample_alone() {
    let fixture = fixture();
    let server = Fixture::served(Form::Beside);
    let prompts = fixture.prompts();
    let remote = fixture.remote(&server, DRAWN);
    let responses = remote.generate(&prompts, 0..4).unwrap();
    fixture.assert_scores(&prompts, &responses);
    let reversed: Vec<_> = prompts.iter().rev().cloned().collect();
    let mut again = RemoteGenerator { batch: 1, ..fixture.remote(&server, DRAWN) }
        .generate(&reversed, 0..4)
        .unwrap();
    again.reverse();
    assert_eq!(responses, again, "neither order nor batch matters");
    for other in [
        RemoteGenerator { seed: 4, ..fixture.remote(&server, DRAWN) },
        RemoteGenerator { stage: "other", ..fixture.remote(&server, DRAWN) },
    ] {
        assert_ne!(responses, other.generate(&prompts, 0..4).unwrap());
    }
    let first = &responses[0];
    assert!(first.iter().any(|response| response != &first[0]), "samples differ");
}

#[test]
fn requests_go_out_together_and_connections_are_kept() {
    let fixture = fixture();
    let seen: Arc<Mutex<(BTreeSet<usize>, usize, usize)>> = Arc::default();
    let record = seen.clone();
    let completions = Completions {
        model: fixture.model.clone(),
        tokenizer: self::fixture().tokenizer,
        form: Form::Within,
    };
    let url = serve(move |request| {
        let mut seen = record.lock().unwrap();
        seen.0.insert(request.connection);
        (seen.1, seen.2) = (seen.1 + 1, seen.2.max(seen.1 + 1));
        drop(seen);
        std::thread::sleep(Duration::from_millis(20));
        let reply = completions.answer(request);
        record.lock().unwrap().1 -= 1;
        reply
    });
    let server = server(&url);
    fixture.remote(&server, DRAWN).generate(&fixture.prompts(), 0..10).unwrap();
    let (connections, _, together) = &*seen.lock().unwrap();
    assert!(connections.len() <= 5, "60 requests by {} connections", connections.len());
    assert_eq!(*together, 5);
}

#[test]
fn stop_texts_and_procedures_are_those_of_this_process() {
    let fixture = fixture();
    let server = Fixture::served(Form::Beside);
    let prompts = fixture.prompts();
    // A word within a response.
    let responses = fixture.local(GREEDY).generate(&prompts, 0..1).unwrap();
    let longest = responses.iter().flatten().max_by_key(|response| response.tokens.len()).unwrap();
    let stops = [fixture.tokenizer.decode(&longest.tokens[2..3]).unwrap(), String::new()];
    let remote = RemoteGenerator { stop_texts: &stops, ..fixture.remote(&server, GREEDY) };
    let texts = StopTexts { tokenizer: &fixture.tokenizer, texts: &stops };
    let local = Generator { stop_texts: Some(texts), ..fixture.local(GREEDY) };
    let decode = |sampler: &dyn Sampler| {
        let lexicon = Lexicon::new(&[("a".to_owned(), 1.0)].into()).unwrap();
        let procedure = "best-of:2".parse().unwrap();
        let decoder = ProcedureDecoder::new(procedure, sampler, &fixture.tokenizer, Some(&lexicon));
        decoder.unwrap().decode(&prompts).unwrap()
    };
    let of = |sampler| -> Vec<_> {
        let decoded = decode(sampler).into_iter();
        decoded.map(|one| (one.text, one.response.tokens, one.score, one.cost)).collect()
    };
    let expected = of(&local);
    let ended = |tokens: &[u32]| fixture.tokenizer.stops().contains(tokens.last().unwrap());
    assert!(expected.iter().any(|(_, tokens, ..)| tokens.len() < 12 && !ended(tokens)));
    assert_eq!(of(&remote), expected);
}

#[test]
fn a_server_that_ignores_stop_tokens_is_cut_there() {
    let fixture = fixture();
    let stop = fixture.tokenizer.end().unwrap();
    let ids = [5, stop, 6];
    let choice = json!({ "text": "", "finish_reason": "length", "token_ids": ids,
        "logprobs": { "token_logprobs": [-1.0, -2.0, -3.0] } });
    let response = one(&fixture, move |_| Reply::new(200, json!({ "choices": [choice] }))).unwrap();
    let expected =
        Response { tokens: vec![5, stop], log_probs: vec![-1.0, -2.0], finish: Finish::Stop };
    assert_eq!(response, expected);
}

#[test]
fn a_text_alone_is_encoded_again_where_its_log_probs_fit() {
    let fixture = fixture();
    let with = |n: usize| {
        let log_probs = vec![-1.0; n];
        let choice = json!({ "text": " c d", "finish_reason": "stop", "logprobs": { "token_logprobs": log_probs } });
        one(&fixture, move |_| Reply::new(200, json!({ "choices": [choice] })))
    };
    let whole = fixture.tokenizer.encode("a b c d").unwrap();
    let expected = &whole[fixture.prompts()[0].tokens.len()..];
    assert_eq!(with(2).unwrap().tokens, expected);
    let message = with(3).unwrap_err().to_string();
    assert!(message.contains("3 log-probabilities for the 2 tokens"), "{message}");
    assert!(message.contains("tells no token ids"), "{message}");
}

/// One response from a server of the given behaviour.
fn one(
    fixture: &Fixture,
    answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> Result<Response, DecodeError> {
    let server = server(&serve(answer));
    let prompts = [fixture.prompts().remove(0)];
    let mut responses = fixture.remote(&server, GREEDY).generate(&prompts, 0..1)?;
    Ok(responses.remove(0).remove(0))
}

/// One response from a server that misbehaves at the first requests, and how many requests there were.
fn after(
    misbehaviours: usize,
    misbehave: impl Fn() -> Reply + Send + Sync + 'static,
) -> (Result<Response, DecodeError>, usize) {
    let fixture = fixture();
    let completions = {
        let Fixture { model, tokenizer, .. } = self::fixture();
        Completions { model, tokenizer, form: Form::Beside }
    };
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let response = one(&fixture, move |request| {
        if count.fetch_add(1, Ordering::Relaxed) < misbehaviours {
            misbehave()
        } else {
            completions.answer(request)
        }
    });
    (response, requests.load(Ordering::Relaxed))
}

#[test]
fn passing_failures_are_tried_again() {
    for status in [429, 500, 502, 503, 504] {
        let (response, requests) = after(2, move || Reply::new(status, "out of order"));
        assert!(response.is_ok() && requests == 3, "{status}: {response:?}");
    }
    let (response, requests) = after(2, || Reply::Break);
    assert!(response.is_ok() && requests == 3, "{response:?}");
}

#[test]
fn the_wait_that_a_server_asks_for_is_kept() {
    let begin = Instant::now();
    let wait = || Reply::Answer(429, vec!["Retry-After: 1".into()], "slow down".into());
    let (response, requests) = after(1, wait);
    assert!(response.is_ok() && requests == 2, "{response:?}");
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_server_that_stays_out_of_order_is_given_up() {
    let (response, requests) =
        after(99, || Reply::new(503, json!({ "error": { "message": "loading" } })));
    assert_eq!(requests, 3);
    let error = response.unwrap_err();
    assert!(
        matches!(&error, DecodeError::Remote(RemoteError::NoAnswer { tries: 3, .. })),
        "{error:?}"
    );
    let message = error.to_string();
    assert!(message.contains("/v1/completions gave no answer at 3 tries"), "{message}");
    assert!(message.contains("status 503: loading"), "{message}");
}

#[test]
fn a_wait_for_a_busy_server_can_be_cancelled() {
    static CANCELLED: AtomicBool = AtomicBool::new(false);
    let url = serve(|_| {
        CANCELLED.store(true, Ordering::Relaxed);
        Reply::Answer(503, vec!["Retry-After: 3600".into()], "busy".into())
    });
    let patience = Patience::new(Duration::from_secs(20));
    let patience = Patience { cancelled: Some(&CANCELLED), ..patience };
    let (fixture, server) = (fixture(), Server::new(&url, None, patience).unwrap());
    let begin = Instant::now();
    let error = fixture.remote(&server, GREEDY).generate(&fixture.prompts(), 0..1).unwrap_err();
    assert!(matches!(error, DecodeError::Cancelled { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn a_refusal_is_final_and_quoted() {
    for (status, body, told) in [
        (400, r#"{"error": {"message": "the prompt is too long"}}"#, "the prompt is too long"),
        (401, "", "without a message"),
        (307, "elsewhere", "elsewhere"),
    ] {
        let (response, requests) = after(99, move || Reply::new(status, body));
        let message = response.unwrap_err().to_string();
        assert_eq!(requests, 1, "{message}");
        assert!(message.contains(&format!("status {status}: {told}")), "{message}");
    }
}

#[test]
fn a_hanging_server_runs_into_the_time_out() {
    let fixture = fixture();
    let patience = Patience::new(Duration::from_millis(200));
    let patience = Patience { tries: 2, first_wait: Duration::ZERO, ..patience };
    let server = Server::new(&serve(|_| Reply::Silence), None, patience).unwrap();
    let error = fixture.remote(&server, GREEDY).generate(&fixture.prompts(), 0..1).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("2 tries") && message.contains("within 200ms"), "{message}");
}

#[test]
fn a_dead_server_is_one_sentence() {
    let fixture = fixture();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let server = server(&url);
    let error = fixture.remote(&server, GREEDY).generate(&fixture.prompts(), 0..3).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(&url) && message.contains("at 3 tries"), "{message}");
    assert!(message.contains("refused") && message.contains("that the server runs"), "{message}");
    assert!(server.models().is_err());
}

#[test]
fn answers_that_cannot_be_used_name_their_field() {
    let fixture = fixture();
    let text = fixture.tokenizer.decode(&[4, 5]).unwrap();
    let choice = json!({ "text": text, "finish_reason": "length", "token_ids": [4, 5],
        "logprobs": { "token_logprobs": [-1.0, -2.0] } });
    let with = |key: &str, value: Value| {
        let mut choice = choice.clone();
        choice[key] = value;
        json!({ "choices": [choice] }).to_string()
    };
    let whole = with("index", json!(0));
    assert!(one(&fixture, move |_| Reply::new(200, &whole)).is_ok());
    let cut = with("index", json!(0)).replace("]}]}", "");
    let choice = json!({ "text": "", "finish_reason": "length", "token_ids": vec![4; 13],
        "logprobs": { "token_logprobs": vec![-1.0; 13] } });
    let long = json!({ "choices": [choice] }).to_string();
    for (body, told) in [
        (cut, "`body` is malformed"),
        ("<html>".to_owned(), "`body` is malformed"),
        (json!({ "choices": [] }).to_string(), "`choices` has 0 entries"),
        (with("logprobs", Value::Null), "`choices[0].logprobs` is missing"),
        (with("token_ids", json!([4])), "2 log-probabilities for the 1 tokens"),
        (with("token_ids", json!([4, 9999])), "has the token 9999"),
        (with("logprobs", json!({ "token_logprobs": [-1.0, -1e39] })), "number out of range"),
        (with("logprobs", json!({ "token_logprobs": [-1.0, 0.5] })), "holds 0.5, which is"),
        (with("text", json!("h h")), "the server has to have the tokenizer"),
        (long, "has 13 tokens, but at most 12 were asked for"),
        (with("finish_reason", json!("abort")), "`choices[0].finish_reason` is `abort`"),
    ] {
        let reply = body.clone();
        let error = one(&fixture, move |_| Reply::new(200, &reply)).unwrap_err();
        assert!(
            matches!(&error, DecodeError::Remote(RemoteError::Answer { url, .. }) if url.ends_with("completions"))
        );
        assert!(error.to_string().contains(told), "{body}: {error}");
    }
}

#[test]
fn the_request_says_what_is_meant() {
    let fixture = fixture();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let record = requests.clone();
    let url = serve(move |request| {
        record.lock().unwrap().push((request.authorization.clone(), request.json.clone()));
        Reply::new(400, "enough")
    });
    let server = server(&url);
    let prompts = [fixture.prompts().remove(0)];
    let stops = ["\n".to_owned(), String::new()];
    let remote = RemoteGenerator { stop_texts: &stops, ..fixture.remote(&server, DRAWN) };
    let error = remote.generate(&prompts, 0..1).unwrap_err().to_string();
    assert!(!error.contains("sesame"), "{error}");
    let (authorization, request) = requests.lock().unwrap().remove(0);
    assert_eq!(authorization.as_deref(), Some("Bearer open sesame"));
    for (key, value) in [
        ("model", json!("served")),
        ("prompt", json!(prompts[0].tokens)),
        ("temperature", json!(0.7)),
        ("top_k", json!(5)),
        ("top_p", json!(0.95)),
        ("max_tokens", json!(12)),
        ("stop", json!(["\n"])),
        ("stop_token_ids", json!(fixture.tokenizer.stops())),
    ] {
        assert_eq!(request[key], value, "{key}");
    }
    assert!(request["seed"].as_u64().unwrap() < 1 << 53);
}

#[test]
fn what_does_not_fit_is_refused_before_any_request() {
    let fixture = fixture();
    let server = server("http://127.0.0.1:9");
    let refuse = |sampling| {
        fixture
            .remote(&server, sampling)
            .generate(&fixture.prompts(), 0..1)
            .unwrap_err()
            .to_string()
    };
    assert!(refuse(Sampling { max_tokens: 62, ..GREEDY }).contains("64"));
    assert!(refuse(Sampling { temperature: -1.0, ..GREEDY }).contains("temperature"));
}
