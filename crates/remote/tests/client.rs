//! One request to a server, and the ways in which servers fail.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod server;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use infalign_remote::{Client, Patience, RemoteError};
use serde_json::json;

use server::{Reply, serve};

/// Longer than any answer takes, however busy this machine is.
const LONG: Duration = Duration::from_secs(20);

fn client(url: &str) -> Client {
    client_within(url, LONG)
}

fn client_within(url: &str, time_out: Duration) -> Client {
    let first_wait = Duration::from_millis(1);
    let patience = Patience { tries: 3, first_wait, ..Patience::new(time_out) };
    Client::new(url, Some("open sesame"), patience).unwrap()
}

#[test]
fn what_is_posted_arrives_with_the_key() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let url = serve(move |request| {
        record.lock().unwrap().push((request.authorization.clone(), request.json.clone()));
        Reply::new(200, request.path.as_str())
    });
    let ask = |request| client(&url).ask(&format!("{url}/path"), request, |_| Some(0.0)).unwrap();
    assert_eq!((ask(Some(&json!({ "x": 1 }))), ask(None)), ("/path".into(), "/path".into()));
    let key = Some("Bearer open sesame".to_owned());
    assert_eq!(*seen.lock().unwrap(), [(key.clone(), json!({ "x": 1 })), (key, json!(null))]);
}

#[test]
fn the_caller_varies_the_waits_between_tries() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let url = serve(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::new(503, "loading"),
        1 => Reply::Break,
        _ => Reply::new(200, "done"),
    });
    let mut failed = Vec::new();
    let body = client(&url).ask(&url, None, |tries| {
        failed.push(tries);
        Some(0.5)
    });
    assert_eq!((body.unwrap().as_str(), failed), ("done", vec![1, 2]));
}

#[test]
fn failures_that_stay_are_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for (url, time_out, told) in [
        (serve(|_| Reply::new(500, "{\"error\": \"no memory\"}")), LONG, "status 500: no memory"),
        (serve(|_| Reply::Silence), Duration::from_millis(300), "within 300ms"),
        (dead, LONG, "refused"),
    ] {
        let error = client_within(&url, time_out).ask(&url, None, |_| Some(0.0)).unwrap_err();
        assert!(matches!(&error, RemoteError::NoAnswer { tries: 3, .. }), "{error:?}");
        assert!(error.to_string().contains(told), "{error}");
    }
    let url = serve(|_| Reply::new(404, "{\"detail\": \"Not Found\"}"));
    let error = client(&url).ask(&url, None, |_| Some(0.0)).unwrap_err().to_string();
    assert!(error.contains("status 404: Not Found"), "{error}");
}

#[test]
fn a_wait_ends_where_nobody_wants_the_answer_any_more() {
    static CANCELLED: AtomicBool = AtomicBool::new(false);
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let url = serve(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Reply::Answer(503, vec!["Retry-After: 3600".into()], "busy".into())
    });
    let patience = Patience { cancelled: Some(&CANCELLED), ..Patience::new(LONG) };
    let client = Client::new(&url, None, patience).unwrap();
    let start = Instant::now();
    // In the middle of the wait.
    let mut cancel = |_: u32| {
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            CANCELLED.store(true, Ordering::Relaxed);
        });
        Some(0.0)
    };
    for _ in 0..2 {
        let error = client.ask(&url, None, &mut cancel).unwrap_err();
        assert!(matches!(error, RemoteError::Cancelled { .. }), "{error}");
    }
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
    assert_eq!(requests.load(Ordering::Relaxed), 1, "and nothing more is asked");
}

#[test]
fn redirects_are_not_followed() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let other = serve(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Reply::new(200, "elsewhere")
    });
    let url = serve(move |_| Reply::Answer(302, vec![format!("Location: {other}/")], "".into()));
    for request in [None, Some(&json!({ "x": 1 }))] {
        let error = client(&url).ask(&url, request, |_| Some(0.0)).unwrap_err();
        assert!(matches!(&error, RemoteError::Refused { status: 302, .. }), "{error:?}");
    }
    assert_eq!(requests.load(Ordering::Relaxed), 0);
}

#[test]
fn another_server_is_not_asked() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let other = serve(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Reply::new(200, "elsewhere")
    });
    let url = serve(|_| Reply::new(200, "here"));
    let client = client(&format!("{url}/path"));
    for elsewhere in [other, url.replace("http:", "https:"), url.replace("127.0.0.1", "localhost")]
    {
        let error = client.ask(&elsewhere, None, |_| None).unwrap_err();
        assert!(matches!(&error, RemoteError::Server { .. }), "{error:?}");
        assert!(error.to_string().contains("is asked here: begin the address"), "{error}");
    }
    assert_eq!(requests.load(Ordering::Relaxed), 0);
    assert_eq!(client.ask(&format!("{url}/other?limit=5"), None, |_| None).unwrap(), "here");
}

/// Variable that names the server, in a process with a proxy in its environment.
const DIRECT: &str = "INFALIGN_TEST_DIRECT";

#[test]
fn a_proxy_of_the_environment_is_not_used() {
    if let Ok(url) = std::env::var(DIRECT) {
        assert_eq!(client(&url).ask(&url, None, |_| Some(0.0)).unwrap(), "direct");
        return;
    }
    // This test once more, in a process of its own: the environment of this one is that of all its tests.
    let (server, proxy) =
        (serve(|_| Reply::new(200, "direct")), serve(|_| Reply::new(502, "by a proxy")));
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "a_proxy_of_the_environment_is_not_used"]).env(DIRECT, server);
    again.env("ALL_PROXY", proxy).env_remove("NO_PROXY").env_remove("no_proxy");
    let output = again.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}
