//! The text of a response in parts is the text of the whole, whatever the tokenizer.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod fixture;

use std::path::Path;

use infalign_decode::{EncodedPrompt, StopTexts, Stream, TextStream};
use infalign_model::{Tokenizer, TransformerConfig};
use serde_json::{Value, json};

fn load(contents: &Value, vocabulary: usize) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), contents.to_string()).unwrap();
    Tokenizer::load(dir.path(), &TransformerConfig::llama(vocabulary, 16, 24, 1, 1, 64)).unwrap()
}

fn tokenizer(vocabulary: &[String], decoder: &Value) -> Tokenizer {
    let ids: serde_json::Map<String, Value> =
        vocabulary.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let contents = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": decoder, "model": { "type": "BPE", "vocab": ids, "merges": [], "byte_fallback": true, "unk_token": null },
    });
    load(&contents, vocabulary.len())
}

/// As Llama's: a token may be a byte, and a word begins with a mark for the space before it.
fn byte_fallback() -> Tokenizer {
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let words = ["▁", "▁a", "▁the", "b", "ing", ".", "é", "日本"].map(str::to_owned);
    let decoder = json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
        { "type": "ByteFallback" }, { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 } ] });
    tokenizer(&bytes.chain(words).collect::<Vec<_>>(), &decoder)
}

/// As GPT-2's: every token is made of bytes, which are written as letters.
fn byte_level() -> Tokenizer {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    // Those that cannot be printed have the letters from 256 on, in their order.
    let spare = |byte: u32| 256 + (0..byte).filter(|before| !printable(before)).count() as u32;
    let letter = |byte: u32| {
        let code = if printable(&byte) { byte } else { spare(byte) };
        char::from_u32(code).unwrap().to_string()
    };
    let mut vocabulary: Vec<String> = (0..256).map(letter).collect();
    vocabulary.extend(["Ġthe", "Ġa", "ing"].map(str::to_owned));
    let decoder = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    tokenizer(&vocabulary, &decoder)
}

/// Random tokens, which make characters in parts and parts that make none, in random portions.
fn check(name: &str, tokenizer: &Tokenizer, vocabulary: u64) {
    let stops = ["ing a".to_owned(), "the".to_owned(), String::new(), "é".to_owned()];
    let mut stopped = 0;
    for trial in 0..200 {
        let mut uniform = Stream::new(trial, name, "", 0).uniforms(1);
        let mut below = |n: u64| (uniform() * n as f64) as u64;
        // Half of the tokens are words, the last ones of the vocabulary.
        let mut token = || match below(2) {
            0 => below(vocabulary) as u32,
            _ => (vocabulary - 1 - below(vocabulary.min(8))) as u32,
        };
        let prompt: Vec<u32> = (0..5).map(|_| token()).collect();
        let mut response: Vec<u32> = (0..40).map(|_| token()).collect();
        let texts = if trial % 2 == 0 { &stops[..] } else { &[] };
        let stop_texts = StopTexts { tokenizer, texts };
        let of = |response: &[u32]| tokenizer.decode_response(&prompt, response).unwrap();
        // A response ends with the token that completes a stop text.
        let cut =
            |n: &usize| stop_texts.cut(&of(&response[..*n])).len() < of(&response[..*n]).len();
        if let Some(end) = (1..=response.len()).find(cut) {
            response.truncate(end);
            stopped += 1;
        }
        let whole = of(&response);
        let whole = stop_texts.cut(&whole);
        let encoded =
            EncodedPrompt { id: String::new(), text: String::new(), tokens: prompt.clone() };
        let mut parts = TextStream::new(tokenizer, texts, &encoded);
        let (mut told, mut rest) = (String::new(), response.as_slice());
        while !rest.is_empty() {
            let (portion, after) = rest.split_at(1 + below(3) as usize % rest.len());
            told += parts.push(portion).unwrap();
            rest = after;
            assert!(whole.starts_with(&told), "{name} {trial}: {told:?} of {whole:?}");
        }
        let told = told + parts.rest(whole);
        assert_eq!(told, whole, "{name} {trial}");
    }
    assert!(stopped > 5, "{name}: {stopped}");
}

#[test]
fn the_parts_of_a_response_are_its_text() {
    check("byte fallback", &byte_fallback(), 264);
    check("byte level", &byte_level(), 259);
}

#[test]
fn words_come_one_by_one() {
    let tokenizer = &fixture::fixture().tokenizer;
    let prompt = EncodedPrompt::new("p", "a b", tokenizer).unwrap();
    let response = tokenizer.encode_chat("c d e c").unwrap();
    let mut parts = TextStream::new(tokenizer, &[], &prompt);
    let told: Vec<String> =
        response.iter().map(|token| parts.push(&[*token]).unwrap().to_owned()).collect();
    assert_eq!(told, [" c", " d", " e", " c"]);
}

#[test]
fn text_is_told_as_soon_as_it_is_sure() {
    let tokenizer = byte_fallback();
    let stops = ["ingb".to_owned()];
    let prompt = EncodedPrompt { id: String::new(), text: String::new(), tokens: vec![257] };
    let mut parts = TextStream::new(&tokenizer, &stops, &prompt);
    let mut push = |token: u32| parts.push(&[token]).unwrap().to_owned();
    assert_eq!(push(258), " the");
    // The three bytes of the sign for the euro.
    // A byte that is none of text, and all beside it are none: bytes are sure once something else follows.
    assert_eq!([push(0xE2), push(0x82), push(0xAC), push(262)], ["", "", "", "€é"]);
    assert_eq!(push(260), "", "`ing` may become the stop text");
    assert_eq!(push(261), "ing.");
    assert_eq!([push(260), push(259)], ["", ""]);
    assert_eq!(parts.rest(" the€éing."), "");
}

#[test]
fn a_prompt_that_ends_in_bytes_breaks_no_character_after_it() {
    let tokenizer = byte_fallback();
    // More bytes than are read of a prompt for a word: the signs for five euros.
    let tokens = [[257].as_slice(), &[0xE2, 0x82, 0xAC].repeat(5)].concat();
    let prompt = EncodedPrompt { id: String::new(), text: String::new(), tokens };
    let mut parts = TextStream::new(&tokenizer, &[], &prompt);
    let mut push = |tokens: &[u32]| parts.push(tokens).unwrap().to_owned();
    assert_eq!([push(&[0xE2, 0x82, 0xAC]), push(&[262])], ["", "€é"]);
}

#[test]
fn the_rest_begins_where_the_whole_is_not_as_it_was_told() {
    let tokenizer = byte_fallback();
    let prompt = EncodedPrompt { id: String::new(), text: String::new(), tokens: vec![257] };
    let mut parts = TextStream::new(&tokenizer, &[], &prompt);
    assert_eq!(parts.push(&[258, 262]).unwrap(), " theé");
    for (whole, rest) in
        [(" theéb", "b"), (" theèb", "èb"), (" then", "n"), ("other", "other"), (" the", "")]
    {
        assert_eq!(parts.rest(whole), rest);
    }
}

#[test]
fn real_stories_come_in_parts_as_they_are() {
    let data = std::env::var_os("INFALIGN_DATA").filter(|data| !data.is_empty());
    let Some(data) = data else {
        eprintln!("SKIPPED: set INFALIGN_DATA to test against the real tokenizer");
        return;
    };
    let dir = Path::new(&data).join("stories260K-hf");
    let config = TransformerConfig::read(&dir, infalign_model::Head::CausalLm).unwrap();
    check("stories260K", &Tokenizer::load(&dir, &config).unwrap(), config.vocab_size as u64);
}
