//! Rewards from a server: what comes back belongs to its pair, and no failure costs what was finished.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../remote/tests/server/mod.rs"]
mod server;

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use infalign_remote::{Patience, RemoteError};
use infalign_reward::{Cached, RemoteReward, Reward, RewardConfig, RewardError};
use serde_json::{Value, json};

use server::{Reply, Request, serve};

const PAIRS: [(&str, &str); 5] =
    [("a ", "b"), ("a ", "bcd"), ("", "a b"), ("a b", ""), ("longer ", "prompt")];

/// As the server scores: the length of the query, and 100 more where a prompt is there alone.
const REWARDS: [f32; 5] = [3.0, 5.0, 3.0, 103.0, 13.0];

fn right(request: &Request) -> Reply {
    assert_eq!(request.path, "/get_reward");
    let texts =
        |key: &str| -> Vec<String> { serde_json::from_value(request.json[key].clone()).unwrap() };
    let (queries, prompts) = (texts("query"), texts("prompts"));
    assert_eq!(request.json["labels"], json!(vec![Value::Null; queries.len()]));
    assert_eq!(prompts.len(), queries.len());
    let score = |(query, prompt): (&String, &String)| {
        assert!(query.starts_with(prompt.as_str()));
        query.len() + if query == prompt { 100 } else { 0 }
    };
    let rewards: Vec<usize> = queries.iter().zip(&prompts).map(score).collect();
    Reply::new(200, json!({ "rewards": rewards }))
}

fn remote(url: &str, time_out: Duration) -> RemoteReward {
    let first_wait = Duration::from_millis(2);
    let patience = Patience { tries: 3, first_wait, ..Patience::new(time_out) };
    RemoteReward::new(&format!("{url}/get_reward"), Some("open sesame"), patience).unwrap()
}

/// A reward that asks in batches of 2.
fn reward(url: &str) -> Cached {
    let remote = remote(url, Duration::from_secs(20));
    Cached::new(Box::new(remote), "test", NonZeroUsize::new(2).unwrap())
}

/// The queries of each request.
type Queries = Arc<Mutex<Vec<Value>>>;

/// A server that answers as `answer` says, which is told the number of the request from 0.
fn recorded(
    answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
) -> (String, Queries) {
    let (requests, queries) = (AtomicUsize::new(0), Queries::default());
    let record = queries.clone();
    let url = serve(move |request| {
        record.lock().unwrap().push(request.json["query"].clone());
        answer(requests.fetch_add(1, Ordering::Relaxed), request)
    });
    (url, queries)
}

#[test]
fn rewards_come_in_the_order_of_the_pairs_and_in_batches() {
    let (url, queries) = recorded(|_, request| right(request));
    let reward = reward(&url);
    assert_eq!(reward.score(&PAIRS).unwrap(), REWARDS);
    let expected = [json!(["a b", "a bcd"]), json!(["a b", "a b"]), json!(["longer prompt"])];
    assert_eq!(*queries.lock().unwrap(), expected);
    let reversed: Vec<_> = PAIRS.into_iter().rev().collect();
    let mut again = reward.score(&reversed).unwrap();
    again.reverse();
    assert_eq!(again, REWARDS, "and none is asked again");
    assert_eq!(queries.lock().unwrap().len(), 3);
}

#[test]
fn the_key_goes_out_and_stays_secret() {
    let url = serve(|request| {
        assert_eq!(request.authorization.as_deref(), Some("Bearer open sesame"));
        Reply::new(401, "who are you?")
    });
    let message = reward(&url).score(&PAIRS).unwrap_err().to_string();
    assert!(message.contains("status 401: who are you?"), "{message}");
    assert!(!message.contains("sesame"), "{message}");
}

#[test]
fn passing_failures_are_tried_again() {
    let (url, queries) = recorded(|number, request| match number {
        0 => Reply::new(503, "loading"),
        2 => Reply::Break,
        _ => right(request),
    });
    assert_eq!(reward(&url).score(&PAIRS).unwrap(), REWARDS);
    assert_eq!(queries.lock().unwrap().len(), 5);
}

#[test]
fn hanging_and_dead_servers_are_one_sentence() {
    let time_out = Duration::from_millis(200);
    let silent = remote(&serve(|_| Reply::Silence), time_out);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for (reward, told) in [(silent, "within 200ms"), (remote(&dead, time_out), "refused")] {
        let error = reward.score(&PAIRS).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, RewardError::Remote(RemoteError::NoAnswer { tries: 3, .. })));
        assert!(message.contains(told) && message.contains("at 3 tries"), "{message}");
    }
}

#[test]
fn answers_that_cannot_be_used_name_address_and_field() {
    for (body, told) in [
        (json!({ "rewards": [1] }), "`rewards` has 1 entries for 2 pairs"),
        (json!({ "rewards": [1, 2, 3] }), "`rewards` has 3 entries for 2 pairs"),
        (json!({ "rewards": [1, null] }), "`rewards` holds null"),
        (json!("fine"), "`rewards` is missing"),
    ] {
        let url = serve(move |_| Reply::new(200, &body));
        let message = reward(&url).score(&PAIRS).unwrap_err().to_string();
        assert!(message.contains(&format!("{url}/get_reward")), "{message}");
        assert!(message.contains(told), "{message}");
    }
}

/// The server dies after its first answer: what that brought is in the file, and a later run asks for the rest alone.
#[test]
fn what_was_answered_before_the_server_died_is_not_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("rewards.jsonl");
    let (dying, _) = recorded(|number, request| match number {
        0 => right(request),
        _ => Reply::Break,
    });
    let first = reward(&dying).with_file(Some(&cache)).unwrap();
    assert!(first.score(&PAIRS).unwrap_err().to_string().contains("at 3 tries"));
    // As if it had been stopped while it wrote one more line.
    let whole = std::fs::read_to_string(&cache).unwrap();
    assert_eq!(whole.lines().count(), 2);
    std::fs::write(&cache, format!("{whole}{{\"key\":\"12")).unwrap();

    let (url, queries) = recorded(|_, request| right(request));
    let second = reward(&url).with_file(Some(&cache)).unwrap();
    assert_eq!(second.score(&PAIRS).unwrap(), REWARDS);
    assert_eq!(*queries.lock().unwrap(), [json!(["a b", "a b"]), json!(["longer prompt"])]);
    let third = reward(&dying).with_file(Some(&cache)).unwrap();
    assert_eq!(third.score(&PAIRS).unwrap(), REWARDS);
    assert!(std::fs::read_to_string(&cache).unwrap().starts_with(&whole));
}

#[test]
fn the_table_of_a_recipe_makes_the_same_reward() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("rewards.jsonl");
    let (url, queries) = recorded(|_, request| {
        assert_eq!(request.authorization.as_deref(), Some("Bearer secret"));
        right(request)
    });
    let table = format!(
        "kind = 'sum'\n[[parts]]\nweight = 0.5\nreward = {{ kind = 'remote', url = '{url}/get_reward', api_key_env = 'KEY', \
         batch = 4, cache = '{}' }}",
        cache.display()
    );
    let config: RewardConfig = toml::from_str(&table).unwrap();
    let device = infalign_backend::device(None).unwrap();
    let key = |name: &str| (name == "KEY").then(|| "secret".to_owned());
    for _ in 0..2 {
        let reward = config.build(&device, Path::new(""), &key).unwrap();
        assert_eq!(reward.score(&PAIRS).unwrap(), REWARDS.map(|reward| reward / 2.0));
    }
    assert_eq!(queries.lock().unwrap().len(), 2, "the second time, all is in the cache");
    assert_eq!(std::fs::read_to_string(&cache).unwrap().lines().count(), PAIRS.len());
}

#[test]
fn servers_that_share_a_cache_do_not_take_each_others_rewards() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("rewards.jsonl");
    let device = infalign_backend::device(None).unwrap();
    for expected in [1.0_f32, 2.0] {
        let url = serve(move |_| Reply::new(200, json!({ "rewards": [expected] })));
        let table = format!("kind = 'remote'\nurl = '{url}'\ncache = '{}'", cache.display());
        let config: RewardConfig = toml::from_str(&table).unwrap();
        let reward = config.build(&device, Path::new(""), &|_| None).unwrap();
        assert_eq!(reward.score(&PAIRS[..1]).unwrap(), [expected]);
    }
}
