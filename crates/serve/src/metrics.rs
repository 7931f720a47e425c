//! What a server counts, in Prometheus's text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use infalign_decode::Load;

/// Upper bounds of a histogram's buckets, in seconds.
const BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// What has happened since the start.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Answers by path and status.
    answers: Mutex<BTreeMap<(String, u16), u64>>,
    /// Requests that failed by the server's own fault, by their codes.
    failed: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) prompt_tokens: Counter,
    /// Those of discarded candidates included.
    pub(crate) generated_tokens: Counter,
    pub(crate) scorer_calls: Counter,
    /// Requests that ended without their whole answer: the client went away, the time was over, or they failed.
    pub(crate) abandoned: Counter,
    pub(crate) first_token: Histogram,
    pub(crate) duration: Histogram,
}

/// A number that grows.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations, counted by their size.
#[derive(Default)]
pub(crate) struct Histogram {
    /// How many were within each bound, but not within the one before; the last are beyond all.
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, duration: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < duration.as_secs_f64());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn write(&self, text: &mut String, name: &str, help: &str) {
        head(text, name, help, "histogram");
        let mut below = 0;
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (count, bound) in self.counts.iter().zip(bounds) {
            below += count.load(Ordering::Relaxed);
            line(text, &format!("{name}_bucket{{le=\"{bound}\"}}"), below);
        }
        let seconds = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        line(text, &format!("{name}_sum"), seconds);
        line(text, &format!("{name}_count"), below);
    }
}

/// What a server has in hand at a moment.
pub(crate) struct Now {
    pub(crate) load: Load,
    /// Responses that can be generated together.
    pub(crate) batch: usize,
    /// Places that requests have taken.
    pub(crate) places: usize,
    /// Requests with a reward whose threads have not ended.
    pub(crate) threads: usize,
    /// Connections that are open.
    pub(crate) connections: usize,
    /// Bytes that bodies of requests have taken.
    pub(crate) bodies: usize,
}

impl Metrics {
    pub(crate) fn count(&self, path: &str, status: u16) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry((path.to_owned(), status)).or_default() += 1;
    }

    pub(crate) fn fail(&self, code: &'static str) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        *failed.entry(code).or_default() += 1;
    }

    pub(crate) fn text(&self, now: &Now) -> String {
        let mut text = String::new();
        self.write_labelled(&mut text);
        write_now(&mut text, now);
        self.write_counters(&mut text);
        let first = "infalign_time_to_first_token_seconds";
        let help = "From a request, once it is read, to the first part of its answer.";
        self.first_token.write(&mut text, first, help);
        let whole = "infalign_request_duration_seconds";
        let help = "From a request, once it is read, to the end of its answer.";
        self.duration.write(&mut text, whole, help);
        text
    }

    fn write_labelled(&self, text: &mut String) {
        let name = "infalign_http_responses_total";
        head(text, name, "Answers by path and status.", "counter");
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ((path, status), n) in answers {
            line(text, &format!("{name}{{path=\"{path}\",status=\"{status}\"}}"), n);
        }
        let name = "infalign_failed_requests_total";
        head(text, name, "Requests that failed by the server's fault, by code.", "counter");
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (code, n) in failed {
            line(text, &format!("{name}{{code=\"{code}\"}}"), n);
        }
    }

    fn write_counters(&self, text: &mut String) {
        for (name, help, counter) in [
            ("prompt_tokens", "Tokens of prompts.", &self.prompt_tokens),
            (
                "generated_tokens",
                "Tokens of finished responses, those of discarded candidates included.",
                &self.generated_tokens,
            ),
            (
                "scorer_calls",
                "Rewards of responses and values of prefixes that were asked for.",
                &self.scorer_calls,
            ),
            (
                "abandoned_requests",
                "Requests that ended without their whole answer.",
                &self.abandoned,
            ),
        ] {
            let name = format!("infalign_{name}_total");
            head(text, &name, help, "counter");
            line(text, &name, counter.get());
        }
    }
}

fn write_now(text: &mut String, now: &Now) {
    for (name, help, value) in [
        ("batch_size", "Responses that can be generated together.", now.batch),
        ("responses_running", "Responses that are generated now.", now.load.running),
        ("responses_waiting", "Responses that wait for a place in the batch.", now.load.waiting),
        ("places_taken", "Responses of requests that have not ended.", now.places),
        ("threads", "Requests with a reward that has not ended.", now.threads),
        ("connections", "Connections that are open.", now.connections),
        ("body_bytes", "Bytes of bodies that are received or read.", now.bodies),
    ] {
        let name = format!("infalign_{name}");
        head(text, &name, help, "gauge");
        line(text, &name, value);
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_up_to_each_bound() {
        let metrics = Metrics::default();
        for millis in [5, 6, 99, 700_000] {
            metrics.duration.observe(Duration::from_millis(millis));
        }
        metrics.count("/v1/models", 200);
        metrics.count("/v1/models", 200);
        let load = Load { running: 3, waiting: 4 };
        metrics.fail("timeout");
        let text = metrics.text(&Now {
            load,
            batch: 8,
            places: 9,
            threads: 11,
            connections: 12,
            bodies: 10,
        });
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("missing");
            line.trim().to_owned()
        };
        let bucket =
            |le: &str| value(&format!("infalign_request_duration_seconds_bucket{{le=\"{le}\"}}"));
        assert_eq!(
            [bucket("0.005"), bucket("0.01"), bucket("0.1"), bucket("600"), bucket("+Inf")],
            ["1", "2", "3", "3", "4"]
        );
        assert_eq!(value("infalign_request_duration_seconds_count"), "4");
        assert_eq!(value("infalign_request_duration_seconds_sum"), "700.11");
        assert_eq!(value("infalign_responses_waiting "), "4");
        assert_eq!(value("infalign_places_taken "), "9");
        assert_eq!(value("infalign_body_bytes "), "10");
        assert_eq!(value("infalign_threads "), "11");
        assert_eq!(value("infalign_connections "), "12");
        assert_eq!(value("infalign_failed_requests_total{code=\"timeout\"}"), "1");
        assert_eq!(value("infalign_http_responses_total{path=\"/v1/models\",status=\"200\"}"), "2");
    }
}
