//! Reading, refusing, enumerating, generating.

use std::path::Path;

use super::*;
use crate::{LanguageModel, ModelError, Sequence};

const SMALL: &str = r#"{"D": 3, "p": {"": ["1/2", 0.25, "0.25"], "a": [0, "1/4", "3/4"], "b": [0.5, 0.5, 0], "ab": [0, 0, 1]},
    "r": {"$": 0, "a$": "-1/2", "ab$": 2, "ba$": "1e-3", "bb$": 1}, "doc": "other keys are left alone"}"#;

fn parse(text: &str) -> Result<TabularProblem, ModelError> {
    TabularProblem::parse(text, Path::new("small.json"))
}

fn small() -> TabularProblem {
    parse(SMALL).unwrap()
}

#[test]
fn every_possible_response_is_enumerated_with_its_probability() {
    let problem = small();
    let (model, tree) = (problem.model(), problem.model().tree());
    let responses: Vec<(String, f64)> = model
        .responses()
        .map(|(tokens, p)| {
            let (eos, letters) = tokens.split_last().unwrap();
            assert_eq!(*eos, tree.eos());
            (tree.response_text(tree.number(letters).unwrap()), p)
        })
        .collect();
    let expected = [("$", 0.25), ("a$", 0.375), ("ab$", 0.125), ("ba$", 0.125), ("bb$", 0.125)];
    assert_eq!(responses, expected.map(|(text, p)| (text.to_owned(), p)));
    let reward = |text| problem.rewards()[tree.find(text).unwrap()];
    assert_eq!((reward("a"), reward("ab"), reward("ba")), (-0.5, 2.0, 0.001));
    assert!(reward("b").is_nan(), "a response of probability 0 needs no reward");
    assert_eq!(model.next_probabilities(tree.find("aa").unwrap()), Some(&[0.0, 0.0, 1.0][..]));
}

#[test]
fn malformed_files_are_refused_with_key_value_and_remedy() {
    let cases = [
        (r#""D": 3"#, r#""D": 0"#, "`D` is 0, but it must be a whole number"),
        (r#""D": 3"#, r#""D": "3""#, "`D` is \"3\""),
        (r#""D": 3"#, r#""E": 3"#, "the key `D` is missing"),
        (r#""D": 3"#, r#""D": 20"#, "more than 1000000 responses"),
        (r#""D": 3"#, r#""D": 4"#, "the prefix `ba`, which can be reached"),
        (r#""r": {"#, r#""q": {"#, "the key `r` is missing"),
        (
            r#""": ["1/2""#,
            r#""c": ["1/2""#,
            "the prefix ``, with which every response begins, is missing",
        ),
        (
            r#""b": [0.5, 0.5, 0], "#,
            "",
            "no row for the prefix `b`, which can be reached: add its 3",
        ),
        ("[0.5, 0.5, 0]", "[0.5, 0.5]", "is [0.5,0.5]: give a list of 3"),
        ("[0.5, 0.5, 0]", "0.5", "is 0.5: give a list of 3"),
        ("[0.5, 0.5, 0]", "[1.5, -0.5, 0]", "holds -0.5, which is not a probability"),
        ("[0.5, 0.5, 0]", r#"[0.5, 0.5, "inf"]"#, "holds \"inf\""),
        ("[0.5, 0.5, 0]", r#"["1/0", 0.5, 0]"#, "holds \"1/0\""),
        ("[0.5, 0.5, 0]", "[0.5, 0.5, 2e-9]", "prefix `b` sums to 1.000000002"),
        (r#""ab": [0, 0, 1]"#, r#""ab": [0.5, 0, 0.5]"#, "its probability there must be 1"),
        (
            r#""ab": "#,
            r#""abc": "#,
            "`p` has the key `abc`, which is not at most 2 letters from `a` to `b`",
        ),
        (r#""ab$": 2, "#, "", "no reward for `ab$`, whose probability is 0.125: add it"),
        (r#""ab$": 2"#, r#""ab$": "two""#, "the reward `r` of `ab$` is \"two\""),
        (r#""ab$": 2"#, r#""ab$": "NaN""#, "is \"NaN\", which is not a finite number"),
        (r#""ab$": 2"#, r#""ab$": 2, "ab": 2"#, "`r` has the key `ab`"),
        (r#""ab$": 2"#, r#""ab$": 2, "ab$": 2"#, "the key `ab$` is there twice"),
        (r#""D": 3"#, r#""D": 3, "p": 4"#, "invalid type: integer `4`, expected an object"),
    ];
    for (from, to, needle) in cases {
        assert!(SMALL.contains(from), "{from}");
        let message = parse(&SMALL.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(message.contains(needle) && message.contains("small.json"), "{to}: {message}");
    }
    let wide = format!(r#"{{"D": 1, "p": {{"": [{} 1]}}, "r": {{"$": 0}}}}"#, "0, ".repeat(27));
    assert!(parse(&wide).unwrap_err().to_string().contains("27 letters"));
    assert!(parse("{").unwrap_err().to_string().contains("small.json is not valid"));
    let error = TabularProblem::read(Path::new("absent.json")).unwrap_err();
    assert!(error.to_string().contains("cannot read absent.json"), "{error}");
}

#[test]
fn tables_are_made_of_numbers_and_checked_like_files() {
    let tree = PrefixTree::new(2, 3).unwrap();
    // Those of the prefixes of no letter, of `a` and of `b`, and none of the four that only EOS follows.
    let mut rows = vec![f64::NAN; 21];
    rows[..9].copy_from_slice(&[0.5, 0.25, 0.25, 0.0, 0.25, 0.75, 0.5, 0.5, 0.0]);
    assert_eq!(&TabularLm::new(tree, rows.clone()).unwrap(), small().model());
    let refused = |changes: &[(usize, f64)]| {
        let mut rows = rows.clone();
        changes.iter().for_each(|&(place, p)| rows[place] = p);
        TabularLm::new(tree, rows).unwrap_err().to_string()
    };
    for (message, needle) in [
        (refused(&[(0, -0.5)]), "the prefix `` holds -0.5, which is not a probability"),
        (refused(&[(4, f64::NAN)]), "the prefix `a` holds NaN"),
        (refused(&[(6, f64::INFINITY)]), "the prefix `b` holds inf"),
        (refused(&[(5, 0.5)]), "the prefix `a` sums to 0.75"),
        (refused(&[(12, 0.5), (13, 0.0), (14, 0.5)]), "`ab` is [0.5, 0.0, 0.5], but only EOS"),
        (
            refused(&[(6, f64::NAN), (7, f64::NAN), (8, f64::NAN)]),
            "no row for the prefix `b`, which can be reached: add its 3",
        ),
        (TabularLm::new(tree, vec![1.0]).unwrap_err().to_string(), "7 prefixes with 3 tokens"),
    ] {
        assert!(message.contains(needle) && message.contains("of these rows"), "{message}");
    }
}

#[test]
fn rewards_fit_their_model() {
    let model = small().model().clone();
    assert!(
        TabularProblem::new(model.clone(), vec![0.0])
            .unwrap_err()
            .to_string()
            .contains("7 responses")
    );
    for (reward, needle) in [(f64::NAN, "no reward for `$`"), (f64::INFINITY, "of `$` is inf")] {
        let error = TabularProblem::new(model.clone(), vec![reward; 7]).unwrap_err().to_string();
        assert!(error.contains(needle), "{error}");
    }
}

#[test]
fn the_smallest_table_says_nothing() {
    let problem = parse(r#"{"D": 9, "p": {"": [1]}, "r": {"$": "2/3"}}"#).unwrap();
    assert_eq!(problem.model().responses().collect::<Vec<_>>(), [(vec![0], 1.0)]);
}

#[test]
fn tilting_multiplies_and_normalises() {
    let problem = small();
    let (model, tree) = (problem.model(), problem.model().tree());
    let double_b = |_, token| Ok::<_, ()>(if token == 1 { 2_f64.ln() + 900.0 } else { 900.0 });
    let tilted = model.tilted(double_b).unwrap();
    let row = |text| tilted.next_probabilities(tree.find(text).unwrap()).unwrap().to_vec();
    for (got, expected) in [(row(""), [0.4, 0.4, 0.2]), (row("a"), [0.0, 0.4, 0.6])] {
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?}");
    }
    assert_eq!(model.tilted(|_, _| Err("refused")).unwrap_err(), "refused");
}

#[test]
fn sessions_follow_the_table() {
    let problem = small();
    let model = problem.model();
    let logits = |row: [f64; 3]| row.map(|p| p.ln() as f32);
    let mut session = model.start(&[&[2], &[2, 0]], 2).unwrap();
    assert_eq!(session.logits(), [logits([0.5, 0.25, 0.25]), logits([0.0, 0.25, 0.75])].concat());
    session.select(&[1, 0, 0]);
    session.push(&[1, 0, 2]).unwrap();
    let rows = [logits([0.0, 0.0, 1.0]), logits([0.0, 0.25, 0.75]), logits([0.5, 0.25, 0.25])];
    assert_eq!(session.logits(), rows.concat(), "EOS ends a text and opens the next");
    session.select(&[1]);
    session.push(&[2]).unwrap();
    let error = session.push(&[2]).unwrap_err();
    assert!(matches!(error, ModelError::TooLong { limit: 4, .. }), "{error}");
}

#[test]
fn scores_are_log_probabilities() {
    let problem = small();
    let model = problem.model();
    let sequence = |tokens: &[u32]| Sequence { tokens: tokens.to_vec(), prompt_length: 1 };
    let scored = model.log_probs(&[sequence(&[2, 0, 1, 2]), sequence(&[2, 1, 2])]).unwrap();
    let expected = [vec![0.5_f32.ln(), 0.25_f32.ln(), 0.0], vec![0.25_f32.ln(), f32::NEG_INFINITY]];
    assert_eq!(scored, expected);
}

#[test]
fn bad_tokens_are_errors() {
    // Probability 0 for b, and no row for what follows it.
    let text = r#"{"D": 3, "p": {"": [0.5, 0, 0.5], "a": [0, 0, 1]}, "r": {"$": 0, "a$": 1}}"#;
    let problem = parse(text).unwrap();
    let refused = |prompt: &[u32], token: u32| {
        problem
            .model()
            .start(&[prompt], 1)
            .and_then(|mut session| session.push(&[token]))
            .unwrap_err()
            .to_string()
    };
    for (message, needle) in [
        (refused(&[], 0), "sequence 0 of the batch is empty"),
        (refused(&[0], 0), "begins with EOS"),
        (refused(&[9], 0), "token id 9"),
        (refused(&[2], 3), "token id 3 is outside the model's vocabulary of 3"),
        (refused(&[2], 1), "cannot read `b` after the prefix ``"),
        (refused(&[2, 0, 0], 0), "after the prefix `aa`: no response is longer"),
        (refused(&[2, 0, 0, 2], 0), "5 tokens does not fit the model's context of 4"),
    ] {
        assert!(message.contains(needle), "{message}");
    }
    let long = Sequence { tokens: vec![2; 5], prompt_length: 1 };
    assert!(problem.model().log_probs(&[long]).is_err());
}

#[test]
fn the_tokenizer_writes_letters_without_spaces() {
    let problem = small();
    let tokenizer = problem.model().tokenizer().unwrap();
    assert_eq!(tokenizer.encode("").unwrap(), [2]);
    assert_eq!(tokenizer.encode("ab$").unwrap(), [2, 0, 1, 2]);
    assert_eq!(tokenizer.encode_whole("$ab").unwrap(), [2, 0, 1], "a text that begins itself");
    assert_eq!(tokenizer.encode_pair("$a", "b").unwrap(), (vec![2, 0, 1], 2));
    assert_eq!(tokenizer.decode_response(&[2], &[0, 1, 2]).unwrap(), "ab");
    assert_eq!(tokenizer.decode_response(&[2], &[2]).unwrap(), "");
    assert_eq!((tokenizer.end(), tokenizer.pad(), tokenizer.stops().len()), (Some(2), 2, 1));
    assert!(tokenizer.encode("ac").is_err(), "c is no letter of this table");
}
