//! What a request asks for.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::http::StatusCode;
use infalign_decode::guided::ScorerSet;
use infalign_decode::{Draws, EncodedPrompt, Sampling};
use infalign_transform::{Composed, Procedure};
use serde_json::{Number, Value, json};

use crate::failure::Failure;
use crate::fields::{Fields, shown};
use crate::prompts;
use crate::service::{Service, State};

/// Names the random streams, as for the command `generate`, so that both draw the same responses.
const STAGE: &str = "generate";
/// What OpenAI's protocol has for completions that name no length.
const SHORT: usize = 16;
/// Most alternatives to each token.
const ALTERNATIVES: usize = 20;
/// Most stop texts, and most bytes of one: each token is compared with them.
const STOP_TEXTS: usize = 16;
const STOP_BYTES: usize = 256;

/// The two ways to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Texts or tokens to be continued.
    Completion,
    /// Messages to be answered.
    Chat,
}

/// A request that can be followed.
pub(crate) struct Asked {
    pub(crate) form: Form,
    pub(crate) prompts: Vec<EncodedPrompt>,
    /// Responses of the procedure to each prompt.
    pub(crate) n: usize,
    pub(crate) procedure: Composed,
    /// Of the server's prefix scorers, where they guide.
    pub(crate) weights: Option<Vec<f64>>,
    pub(crate) draws: Arc<Draws>,
    /// The seed as it was sent, which may be negative.
    pub(crate) seed: Number,
    /// Whether log-probabilities are told, and with how many alternatives to each token.
    pub(crate) log_probs: Option<usize>,
    pub(crate) token_ids: bool,
    pub(crate) stream: bool,
    /// Whether a stream ends with what was used.
    pub(crate) usage: bool,
}

impl Asked {
    /// Reads a body.
    ///
    /// - seed: for a request that brings none.
    pub(crate) fn read(form: Form, body: &[u8], state: &State, seed: u64) -> Result<Self, Failure> {
        let service = &state.service;
        let mut fields = Fields::of_body(body)?;
        check_model(&mut fields, service)?;
        let text = match form {
            Form::Completion => fields.take::<Value>("prompt")?,
            Form::Chat => fields.take::<Vec<Value>>("messages")?.map(Value::Array),
        };
        let n = fields.take::<NonZeroUsize>("n")?.map_or(1, NonZeroUsize::get);
        let procedure = procedure(&mut fields, service)?;
        let weights = weights(&mut fields, procedure, &service.scorers)?;
        let log_probs = log_probs(&mut fields, form, procedure)?;
        let (seed, sent) = read_seed(&mut fields)?.unwrap_or_else(|| (seed, Number::from(seed)));
        let (stream, usage) = streaming(&mut fields)?;
        let token_ids = fields.take("return_token_ids")?.unwrap_or(false);
        let longest = longest(&mut fields, service)?;
        let sampling = sampling(&mut fields, service)?;
        let stop_texts = stop_texts(&mut fields)?;
        neutral(&mut fields, form, n)?;
        fields.finish()?;
        let prompts = match form {
            Form::Completion => prompts::of_completion(text, state)?,
            Form::Chat => vec![prompts::of_chat(text, state)?],
        };
        let max_tokens = length(form, longest, &prompts, service)?;
        let sampling = Sampling { max_tokens, ..sampling };
        sampling.check()?;
        sampling.check_choice(procedure)?;
        let tokenizer = service.tokenizer.clone();
        let (stops, stage) = (tokenizer.stops().clone(), STAGE.to_owned());
        let draws = Arc::new(Draws { tokenizer, stops, stop_texts, sampling, seed, stage });
        Ok(Self {
            form,
            prompts,
            n,
            procedure,
            weights,
            draws,
            seed: sent,
            log_probs,
            token_ids,
            stream,
            usage,
        })
    }

    /// Responses that the model has to make for it.
    pub(crate) fn responses(&self) -> usize {
        self.prompts.len().saturating_mul(self.n).saturating_mul(self.candidates())
    }

    /// Responses that the model has to make for one of the procedure.
    pub(crate) fn candidates(&self) -> usize {
        let Composed { selection, inner } = self.procedure;
        selection.samples().saturating_mul(inner.samples())
    }

    /// Tokens of all prompts.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.tokens.len()).sum()
    }

    /// Whether there is something to choose from once responses are complete.
    pub(crate) fn selects(&self) -> bool {
        self.procedure.selection != Procedure::Sample || self.procedure.needs_reward()
    }
}

fn check_model(fields: &mut Fields, service: &Service) -> Result<(), Failure> {
    match fields.take::<String>("model")? {
        Some(model) if model != service.name => Err(no_model(&model, service)),
        _ => Ok(()),
    }
}

/// The error of a request for another model.
pub(crate) fn no_model(model: &str, service: &Service) -> Failure {
    let message = format!("there is no model `{model}`; this server has `{}`", service.name);
    let failure = Failure::new(StatusCode::NOT_FOUND, message);
    failure.in_field("model").with_code("model_not_found")
}

fn procedure(fields: &mut Fields, service: &Service) -> Result<Composed, Failure> {
    let text = fields.take::<String>("procedure")?;
    let Some(text) = text else { return Ok(Procedure::Sample.into()) };
    let procedure: Composed =
        text.parse().map_err(|error| Failure::field("procedure", format!("{error}")))?;
    if procedure.needs_ranks() {
        let message = format!(
            "`{procedure}` needs a calibration table of its prompts, which a server does not know in advance"
        );
        return Err(Failure::field("procedure", message));
    }
    if procedure.needs_reward() && service.reward.is_none() {
        let message =
            format!("`{procedure}` selects by a reward: this server was started without --reward");
        return Err(Failure::field("procedure", message));
    }
    Ok(procedure)
}

/// The weights of the prefix scorers, where the procedure needs them: those that the request names, all others being 0, or else those that
/// the server was started with.
fn weights(
    fields: &mut Fields,
    procedure: Composed,
    scorers: &ScorerSet,
) -> Result<Option<Vec<f64>>, Failure> {
    let given = fields.take::<BTreeMap<String, f64>>("scorers")?;
    if procedure.inner == Procedure::Sample {
        let told = |_| fields.refuse("scorers", format!("have nothing to say in `{procedure}`"));
        return given.map_or(Ok(None), |given| Err(told(given)));
    }
    if scorers.is_empty() {
        let message = format!(
            "`{procedure}` chooses among prefixes, which needs a prefix scorer: this server was started without --scorer"
        );
        return Err(Failure::field("procedure", message));
    }
    let names = scorers.names();
    let weights = match given {
        None => scorers.weights(),
        Some(given) => {
            if let Some(name) = given.keys().find(|name| !names.contains(&name.as_str())) {
                let names = names.join("`, `");
                let what = format!("name `{name}`, but this server has `{names}`");
                return Err(fields.refuse("scorers", what));
            }
            names.iter().map(|name| given.get(*name).copied().unwrap_or(0.0)).collect()
        }
    };
    if weights.iter().all(|weight| *weight == 0.0) {
        return Err(fields.refuse("scorers", "give no scorer a weight other than 0"));
    }
    Ok(Some(weights))
}

fn log_probs(
    fields: &mut Fields,
    form: Form,
    procedure: Composed,
) -> Result<Option<usize>, Failure> {
    let (key, asked) = match form {
        Form::Completion => ("logprobs", fields.take::<usize>("logprobs")?),
        Form::Chat => {
            let told = fields.take::<bool>("logprobs")?.unwrap_or(false);
            let alternatives = fields.take::<usize>("top_logprobs")?;
            if alternatives.is_some_and(|n| n > 0) && !told {
                return Err(fields.refuse("top_logprobs", "needs `logprobs` to be true"));
            }
            ("top_logprobs", told.then(|| alternatives.unwrap_or(0)))
        }
    };
    match asked {
        Some(n) if n > ALTERNATIVES => {
            Err(fields.refuse(key, format!("is {n}, but at most {ALTERNATIVES} are told")))
        }
        // The model's own distributions are not kept for all candidates.
        Some(1..) if procedure != Procedure::Sample.into() => {
            Err(fields.refuse(key, format!("has to be 0 with the procedure `{procedure}`")))
        }
        asked => Ok(asked),
    }
}

/// The seed, and as it was sent.
fn read_seed(fields: &mut Fields) -> Result<Option<(u64, Number)>, Failure> {
    let Some(number) = fields.take::<Number>("seed")? else { return Ok(None) };
    // Negative ones are seeds as well.
    let seed = number.as_u64().or_else(|| number.as_i64().map(|seed| seed as u64));
    let refuse =
        || fields.refuse("seed", format!("is {number}, but has to be a whole number of 64 bits"));
    let seed = seed.ok_or_else(refuse)?;
    Ok(Some((seed, number)))
}

/// `stream`, and whether it ends with what was used.
fn streaming(fields: &mut Fields) -> Result<(bool, bool), Failure> {
    let stream = fields.take("stream")?.unwrap_or(false);
    let Some(options) = fields.take::<Value>("stream_options")? else { return Ok((stream, false)) };
    if !stream {
        return Err(fields.refuse("stream_options", "needs `stream` to be true"));
    }
    let mut options = Fields::of(options, "stream_options")?;
    let usage = options.take("include_usage")?.unwrap_or(false);
    for key in ["include_obfuscation", "continuous_usage_stats"] {
        options.neutral(key, &[json!(false)])?;
    }
    options.finish()?;
    Ok((stream, usage))
}

/// `max_tokens`, or its newer name, with the name that it has in the request.
fn longest(
    fields: &mut Fields,
    service: &Service,
) -> Result<Option<(&'static str, usize)>, Failure> {
    let old = fields.take::<NonZeroUsize>("max_tokens")?;
    let new = fields.take::<NonZeroUsize>("max_completion_tokens")?;
    let (key, longest) = match (old, new) {
        (Some(old), Some(new)) if old != new => {
            let what = format!("is {old}, but `max_completion_tokens` is {new}");
            return Err(fields.refuse("max_tokens", what));
        }
        (_, Some(new)) => ("max_completion_tokens", new.get()),
        (Some(old), None) => ("max_tokens", old.get()),
        (None, None) => return Ok(None),
    };
    let limit = service.limits.max_tokens;
    if longest > limit {
        let what = format!("is {longest}, but this server makes at most {limit}");
        return Err(fields.refuse(key, what));
    }
    Ok(Some((key, longest)))
}

/// How long responses may be: as long as was asked for, or else what the form of the request has, as far as the context has room for it.
fn length(
    form: Form,
    longest: Option<(&str, usize)>,
    prompts: &[EncodedPrompt],
    service: &Service,
) -> Result<usize, Failure> {
    let context = service.engine.model().context();
    let prompt = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
    // Prompts that leave none were refused when they were read.
    let room = context.saturating_sub(prompt);
    match longest {
        Some((key, n)) if n > room => {
            let message = format!(
                "`{key}` is {n}, but after a prompt of {prompt} tokens the model's context of {context} has room for {room}"
            );
            Err(Failure::field(key, message).with_code(prompts::TOO_LONG))
        }
        Some((_, n)) => Ok(n),
        None => {
            let wanted = if form == Form::Chat { context } else { SHORT };
            let wanted = wanted.min(service.limits.max_tokens);
            let shortest = prompts.iter().map(|prompt| prompt.tokens.len()).min().unwrap_or(0);
            // One number has to do for all prompts, and none shortens the responses to another.
            if wanted.min(context.saturating_sub(shortest)) > room {
                return Err(unequal(prompt, context));
            }
            Ok(wanted.min(room))
        }
    }
}

/// The error of prompts of which the longest, of so many tokens, leaves less room than another.
fn unequal(prompt: usize, context: usize) -> Failure {
    let room = context.saturating_sub(prompt);
    let message = format!(
        "`max_tokens` is missing: after the longest prompt, of {prompt} tokens, the model's context of {context} has room for {room}, and \
         after another for more; say how many, or ask for each prompt by itself"
    );
    Failure::field("max_tokens", message)
}

fn sampling(fields: &mut Fields, service: &Service) -> Result<Sampling, Failure> {
    let plain = Sampling::default();
    let top_k = match fields.take::<i64>("top_k")? {
        None | Some(-1) => 0,
        Some(k) => usize::try_from(k)
            .map_err(|_| fields.refuse("top_k", format!("is {k}, but must be -1 or at least 0")))?,
    };
    let asked = Sampling {
        temperature: fields.take("temperature")?.unwrap_or(plain.temperature),
        top_p: fields.take("top_p")?.unwrap_or(plain.top_p),
        top_k,
        stop_token_ids: fields.take("stop_token_ids")?.unwrap_or_default(),
        ..plain
    };
    Ok(asked.of_vocabulary(service.engine.model().vocabulary()))
}

fn stop_texts(fields: &mut Fields) -> Result<Vec<String>, Failure> {
    let texts: Vec<String> = match fields.take::<Value>("stop")? {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text],
        Some(list) => {
            let text = shown(&list);
            let refuse = |_| {
                fields.refuse("stop", format!("is {text}, but has to be text or a list of texts"))
            };
            serde_json::from_value(list).map_err(refuse)?
        }
    };
    if texts.len() > STOP_TEXTS || texts.iter().any(|text| text.len() > STOP_BYTES) {
        let what = format!("may hold at most {STOP_TEXTS} texts of at most {STOP_BYTES} bytes");
        return Err(fields.refuse("stop", what));
    }
    Ok(texts)
}

/// What this server does not do, and what it has no use for.
fn neutral(fields: &mut Fields, form: Form, n: usize) -> Result<(), Failure> {
    fields.take::<String>("user")?;
    fields.take::<Value>("metadata")?;
    let (no, yes) = (json!(false), json!(true));
    let of_form = match form {
        Form::Completion => vec![("suffix", vec![json!("")])],
        Form::Chat => vec![
            ("tools", vec![json!([])]),
            ("tool_choice", vec![json!("none")]),
            ("parallel_tool_calls", vec![no.clone(), yes.clone()]),
            ("response_format", vec![json!({ "type": "text" })]),
            ("modalities", vec![json!(["text"])]),
            ("store", vec![no.clone()]),
        ],
    };
    let of_both = [
        // What chooses among more than are told is a procedure.
        ("best_of", vec![json!(n)]),
        ("echo", vec![no.clone()]),
        ("logit_bias", vec![json!({})]),
        ("service_tier", vec![json!("auto"), json!("default")]),
        ("use_beam_search", vec![no.clone()]),
        ("ignore_eos", vec![no]),
        ("skip_special_tokens", vec![yes]),
    ];
    let zeros = ["presence_penalty", "frequency_penalty", "min_p", "min_tokens"];
    let ones = ["repetition_penalty", "repeat_penalty", "length_penalty"];
    let numbers = zeros.map(|key| (key, vec![json!(0)])).into_iter();
    let numbers = numbers.chain(ones.map(|key| (key, vec![json!(1)])));
    for (key, values) in numbers.chain(of_both).chain(of_form) {
        fields.neutral(key, &values)?;
    }
    Ok(())
}
