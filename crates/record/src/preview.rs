//! `ro-crate-preview.html`: a run as a page that needs nothing beside its folder.

use std::collections::BTreeMap;

use crate::Page;
use crate::address::encoded;
use crate::page::{breakable, escaped};
use crate::record::Record;

/// Where it looks otherwise than reports, whose tables are wide.
const STYLE: &str =
    "body{max-width:62rem}table{font-size:1em;margin:0}td:first-child{white-space:normal}";
/// More numbers are in results.json.
const MAX_NUMBERS: usize = 60;

/// The page.
pub(crate) fn html(record: &Record) -> String {
    let title = format!("infalign {} {}", record.command, record.start);
    let mut page = Page::new(&title).styled(STYLE).paragraph(&summary(record));
    for output in record.outputs.iter().filter(|output| output.path.ends_with(".svg")) {
        let (source, name) = (escaped(&encoded(&output.path)), escaped(&output.path));
        page = page.figure(&format!("<img src=\"{source}\" alt=\"{name}\">"));
    }
    page = section(page, "How it was run", run(record).into_iter());
    let numbers = numbers(&record.metrics);
    let n = numbers.len();
    page = section(page, "Numbers", numbers.into_iter().take(MAX_NUMBERS));
    if n > MAX_NUMBERS {
        page = page.raw("<p>More are in <a href=\"results.json\">results.json</a>.</p>\n");
    }
    let inputs = record.inputs.iter();
    let inputs = inputs.map(|input| {
        (escaped(&input.role), file(&breakable(&input.path), &input.sha256, input.bytes))
    });
    page = section(page, "Inputs", inputs);
    let models = record.models.iter().map(|model| {
        let what = format!("{} parameters in {} tensors", model.parameters, model.tensors);
        (escaped(&model.role), format!("{what} <code>{}</code>", escaped(&model.sha256)))
    });
    page = section(page, "Models, whatever their files", models);
    let outputs = record.outputs.iter().map(|output| {
        let (address, name) = (escaped(&encoded(&output.path)), escaped(&output.path));
        (format!("<a href=\"{address}\">{name}</a>"), file("", &output.sha256, output.bytes))
    });
    page = section(page, "Outputs", outputs);
    let build = record.build.rows().into_iter();
    let build = build.map(|(name, value)| (escaped(name), breakable(&value)));
    section(page, "The program", build).html()
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

/// A table of two columns under a heading, unless it would be empty; its cells are HTML.
fn section(page: Page, heading: &str, rows: impl Iterator<Item = (String, String)>) -> Page {
    let mut rows = rows.map(|(name, value)| vec![name, value]).peekable();
    if rows.peek().is_none() { page } else { page.heading(heading).raw_table(Vec::new(), rows) }
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
