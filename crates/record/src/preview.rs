//! `ro-crate-preview.html`: a run as a page that needs nothing beside its folder.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::address::encoded;
use crate::record::Record;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#111}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td{padding:.2rem .9rem .2rem 0;text-align:left;vertical-align:top;border-bottom:1px solid #ddd}td span,td a,code{overflow-wrap:anywhere}\
code{font-size:.85em}img{max-width:100%}";
/// Longer words, such as paths and digests, may be broken; numbers are shorter.
const LONGEST: usize = 24;
/// More numbers are in results.json.
const MAX_NUMBERS: usize = 60;

/// The page.
pub(crate) fn html(record: &Record) -> String {
    let title = format!("infalign {} {}", record.command, record.start);
    let mut body = format!("<h1>{}</h1>\n<p>{}</p>\n", escaped(&title), escaped(&summary(record)));
    for output in record.outputs.iter().filter(|output| output.path.ends_with(".svg")) {
        let (source, name) = (escaped(&encoded(&output.path)), escaped(&output.path));
        let _ = writeln!(body, "<p><img src=\"{source}\" alt=\"{name}\"></p>");
    }
    section(&mut body, "How it was run", run(record).into_iter());
    let numbers = numbers(&record.metrics);
    section(&mut body, "Numbers", numbers.iter().take(MAX_NUMBERS).cloned());
    if numbers.len() > MAX_NUMBERS {
        body += "<p>More are in <a href=\"results.json\">results.json</a>.</p>\n";
    }
    let inputs = record.inputs.iter();
    let inputs = inputs.map(|input| {
        (escaped(&input.role), file(&breakable(&input.path), &input.sha256, input.bytes))
    });
    section(&mut body, "Inputs", inputs);
    let models = record.models.iter().map(|model| {
        let what = format!("{} parameters in {} tensors", model.parameters, model.tensors);
        (escaped(&model.role), format!("{what} <code>{}</code>", escaped(&model.sha256)))
    });
    section(&mut body, "Models, whatever their files", models);
    let outputs = record.outputs.iter().map(|output| {
        let (address, name) = (escaped(&encoded(&output.path)), escaped(&output.path));
        (format!("<a href=\"{address}\">{name}</a>"), file("", &output.sha256, output.bytes))
    });
    section(&mut body, "Outputs", outputs);
    let build = record.build.rows().into_iter();
    let build = build.map(|(name, value)| (escaped(name), breakable(&value)));
    section(&mut body, "The program", build);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n{body}</body>\n</html>\n",
        escaped(&title)
    )
}

fn summary(record: &Record) -> String {
    let seconds = record.seconds.map_or(String::new(), |s| format!(" after {s:.1} seconds"));
    let error = record.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
    format!(
        "{}{seconds}{error}. Check this folder with `infalign verify` or `sha256sum -c manifest-sha256.txt`, and run it again with \
         `infalign replicate`.",
        record.status.word()
    )
}

/// What stands before others: what was measured of trained methods, then of the reference, then other numbers; comparisons come last.
fn rank(name: &str) -> usize {
    let Some(row) = name.strip_prefix("rows[") else {
        return if name.starts_with("comparisons[") { 3 } else { 2 };
    };
    let texts = row.split(']').next().unwrap_or_default();
    usize::from(texts.split(' ').any(|text| text == "base"))
}

/// Estimates with their intervals, and other numbers by themselves.
fn numbers(metrics: &BTreeMap<String, f64>) -> Vec<(String, String)> {
    let beside = |name: &str, last: &str| {
        let place = name.strip_suffix("estimate")?;
        metrics.get(&format!("{place}{last}")).copied()
    };
    let of_interval = |name: &&String| {
        let place = name.rsplit_once('.').map_or("", |(place, _)| place);
        !name.ends_with(".estimate") && metrics.contains_key(&format!("{place}.estimate"))
    };
    let shown = metrics.iter().filter(|(name, _)| !of_interval(name));
    let mut shown: Vec<(&String, &f64)> = shown.collect();
    shown.sort_by_key(|(name, _)| rank(name));
    shown
        .into_iter()
        .map(|(name, value)| {
            let interval = match (beside(name, "low"), beside(name, "high")) {
                (Some(low), Some(high)) => format!(" [{low:.4}, {high:.4}]"),
                _ => beside(name, "standard_error").map_or(String::new(), |e| format!(" ± {e:.4}")),
            };
            let value =
                if name.ends_with(".estimate") { format!("{value:.4}") } else { value.to_string() };
            (breakable(name.trim_end_matches(".estimate")), format!("{value}{interval}"))
        })
        .collect()
}

fn run(record: &Record) -> Vec<(String, String)> {
    let host = &record.host;
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    let rows = [
        ("command", Some(format!("infalign {}", record.argv.join(" ")))),
        ("seed", record.seed.as_ref().map(|seed| seed.master.to_string())),
        (
            "device",
            record.device.as_ref().map(|device| format!("{}, {}", device.name, device.dtype)),
        ),
        ("threads", Some(record.threads.to_string())),
        ("processor", host.cpu.model.clone()),
        ("system", Some(format!("{} {}", host.os, host.architecture))),
        ("memory", host.memory_bytes.map(gib)),
        ("greatest use of memory", record.peak_memory_bytes.map(gib)),
        ("job", record.scheduler.as_ref().map(|job| format!("{} {}", job.kind, job.job))),
        ("exit code", record.exit.map(|code| code.to_string())),
        ("steps", record.steps.map(|steps| steps.to_string())),
        ("recording took", record.overhead_seconds.map(|seconds| format!("{seconds:.3} s"))),
    ];
    let known = rows.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.map(|(name, value)| (name.to_owned(), breakable(&value))).collect()
}

fn file(name: &str, sha256: &str, bytes: u64) -> String {
    format!("{name} {bytes} bytes <code>{}</code>", escaped(sha256))
}

/// A table of two columns under a heading, unless it would be empty; its cells are escaped already.
fn section(body: &mut String, heading: &str, rows: impl Iterator<Item = (String, String)>) {
    let rows: String =
        rows.map(|(name, value)| format!("<tr><td>{name}</td><td>{value}</td></tr>\n")).collect();
    if !rows.is_empty() {
        let _ = write!(body, "<h2>{heading}</h2>\n<table>\n{rows}</table>\n");
    }
}

/// A text of which long words alone may be broken.
fn breakable(text: &str) -> String {
    let word = |word: &str| match word.chars().count() {
        0..=LONGEST => escaped(word),
        _ => format!("<span>{}</span>", escaped(word)),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::tests::finished_run;

    #[test]
    fn an_estimate_is_shown_with_its_interval() {
        let metrics =
            [("a.estimate", 0.5), ("a.high", 0.6), ("a.level", 0.95), ("a.low", 0.4), ("n", 3.0)];
        let metrics = metrics.map(|(name, value)| (name.to_owned(), value)).into();
        let shown = [("a", "0.5000 [0.4000, 0.6000]"), ("n", "3")];
        assert_eq!(numbers(&metrics), shown.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn what_was_measured_of_trained_methods_comes_first() {
        let names = ["comparisons[a].x", "rows[reward base].x", "rows[reward raw].x", "n"];
        let metrics = names.map(|name| (name.to_owned(), 1.0)).into();
        let shown: Vec<String> = numbers(&metrics).into_iter().map(|(name, _)| name).collect();
        assert_eq!(shown, [names[2], names[1], names[3], names[0]]);
    }

    #[test]
    fn addresses_of_files_are_encoded() {
        let root = tempfile::tempdir().unwrap();
        let mut record = crate::folder::record(&finished_run(root.path(), "run")).unwrap();
        record.outputs[0].path = "a b#1?.svg".to_owned();
        let page = html(&record);
        assert!(page.contains("<img src=\"a%20b%231%3F.svg\" alt=\"a b#1?.svg\">"), "{page}");
        assert!(page.contains("<a href=\"a%20b%231%3F.svg\">a b#1?.svg</a>"), "{page}");
    }

    #[test]
    fn long_words_may_be_broken_and_numbers_may_not() {
        let digest = "ab".repeat(32);
        assert_eq!(
            breakable(&format!("0.8 <{digest}>")),
            format!("0.8 <span>&lt;{digest}&gt;</span>")
        );
        assert!(STYLE.contains("td span,td a,code{overflow-wrap:anywhere}"));
        assert_eq!(STYLE.matches("overflow-wrap").count(), 1);
    }

    #[test]
    fn texts_of_the_run_cannot_become_markup() {
        let root = tempfile::tempdir().unwrap();
        let mut record = crate::folder::record(&finished_run(root.path(), "run")).unwrap();
        record.argv = vec!["<script>".to_owned()];
        record.outputs[0].path = "\"><b>.svg".to_owned();
        let page = html(&record);
        assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("rows[a].kl"));
    }
}
