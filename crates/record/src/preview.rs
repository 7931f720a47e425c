//! `ro-crate-preview.html`: a run as a page that needs nothing beside its folder.

use std::collections::BTreeMap;

use crate::Page;
use crate::address::encoded;
use crate::page::{breakable, escaped};
use crate::record::Record;
use crate::shell::command_line;

/// Where it looks otherwise than reports, whose tables are wide.
const STYLE: &str = "body{max-width:62rem}td:first-child{white-space:normal}\
.digest{font-size:.7rem;white-space:nowrap;overflow-wrap:normal}";
/// More numbers than these are in results.json.
const MAX_NUMBERS: usize = 60;
/// The same where they are unfolded on demand.
const MAX_FOLDED: usize = 600;
/// More files than these are unfolded on demand.
const MAX_FILES: usize = 12;

/// Numbers by their names.
type Metrics = BTreeMap<String, f64>;

/// The page.
pub(crate) fn html(record: &Record) -> String {
    let title = format!("infalign {} {}", record.command, record.start);
    let mut page = Page::new(&title).styled(STYLE).raw(&summary(record));
    for output in record.outputs.iter().filter(|output| output.path.ends_with(".svg")) {
        let (source, name) = (escaped(&encoded(&output.path)), escaped(drawn(&output.path)));
        page = page.figure(&format!("<img src=\"{source}\" alt=\"Plot: {name}\">"));
    }
    page = section(page, "How it was run", run(record).into_iter());
    page = with_numbers(page, &record.metrics);
    let inputs = record.inputs.iter();
    let inputs = inputs.map(|input| {
        (escaped(&input.role), file(&breakable(&input.path), &input.sha256, input.bytes))
    });
    page = section(page, "Inputs", inputs);
    let models = record.models.iter().map(|model| {
        let what = format!("{} parameters in {} tensors", model.parameters, model.tensors);
        (escaped(&model.role), format!("{what} {}", digest(&model.sha256)))
    });
    page = section(page, "Models, whatever their files", models);
    let outputs = record.outputs.iter().map(|output| {
        let (address, name) = (escaped(&encoded(&output.path)), escaped(&output.path));
        (format!("<a href=\"{address}\">{name}</a>"), file("", &output.sha256, output.bytes))
    });
    page = match record.outputs.len() {
        n if n > MAX_FILES => {
            let page = page.heading("Outputs");
            page.folded(&format!("{n} files"), |page| page.raw_table(outputs.map(pair)))
        }
        _ => section(page, "Outputs", outputs),
    };
    let build = record.build.rows().into_iter();
    let build = build.map(|(name, value)| (escaped(name), breakable(&value)));
    section(page, "The program", build).html()
}

/// What a plot shows, by the name of its file.
fn drawn(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".svg").unwrap_or(name)
}

/// How the run ended, and what to do with its folder, as HTML.
fn summary(record: &Record) -> String {
    let last = record.last_process().map_or(String::new(), |last| format!(" of {last}"));
    let seconds = record.seconds.map_or(String::new(), |s| format!(" after {s:.1} seconds{last}"));
    let error = record.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
    format!(
        "<p>{}. Check this folder with <code>infalign verify</code> or <code>sha256sum -c manifest-sha256.txt</code>, and run it again \
         with <code>infalign replicate</code>.</p>\n",
        escaped(&format!("{}{seconds}{error}", record.status.word()))
    )
}

/// KL and win rate of every method and the comparisons, where there are such results, with everything else unfolded on demand.
fn with_numbers(page: Page, metrics: &Metrics) -> Page {
    let (rows, comparisons) = (rows(metrics), comparisons(metrics));
    let all = numbers(metrics);
    let n = all.len();
    let told = |page: Page, most: usize| {
        let more = "<p>More are in <a href=\"results.json\">results.json</a>.</p>\n";
        if n > most { page.raw(more) } else { page }
    };
    if rows.is_empty() && comparisons.is_empty() {
        return told(section(page, "Numbers", all.into_iter().take(MAX_NUMBERS)), MAX_NUMBERS);
    }
    let page = page
        .heading("Numbers")
        .table(&["method", "procedure", "KL (nats)", "win rate"], &rows)
        .table(&["difference", "procedure", "win rate", "p adjusted"], &comparisons);
    page.folded("All numbers, by their names", |page| {
        told(page.raw_table(all.into_iter().take(MAX_FOLDED).map(pair)), MAX_FOLDED)
    })
}

/// KL and win rate of each row of the results.
fn rows(metrics: &Metrics) -> Vec<Vec<String>> {
    let line = |label: &str| {
        let (method, procedure) = names_of_row(label);
        let of = |what: &str| estimate(metrics, &format!("rows[{label}].{what}"));
        vec![method, procedure, of("kl"), of("win_rate")]
    };
    labels(metrics, "rows[", "].win_rate.estimate").map(line).collect()
}

/// The difference of win rates of each comparison of the results.
fn comparisons(metrics: &Metrics) -> Vec<Vec<String>> {
    let line = |label: &str| {
        let (difference, procedure) = names_of_comparison(label);
        let p = metrics.get(&format!("comparisons[{label}].p_adjusted"));
        let win_rate = estimate(metrics, &format!("comparisons[{label}].difference"));
        vec![difference, procedure, win_rate, p.map_or("–".to_owned(), |p| number(*p))]
    };
    labels(metrics, "comparisons[", "].difference.estimate").map(line).collect()
}

/// The labels between two parts of names.
fn labels<'a>(
    metrics: &'a Metrics,
    before: &'a str,
    after: &'a str,
) -> impl Iterator<Item = &'a str> {
    metrics.keys().filter_map(move |name| name.strip_prefix(before)?.strip_suffix(after))
}

/// Method and procedure by the texts of a row, which are the judge, the method with its kind before it and its objective behind it where these are known,
/// and the procedure; the whole where it is otherwise.
fn names_of_row(label: &str) -> (String, String) {
    let words: Vec<&str> = label.split(' ').collect();
    let procedure = (2..words.len()).find(|&place| is_procedure(words[place]));
    match procedure.filter(|_| is_judge(words[0])) {
        Some(place) => {
            let method = if place == 2 { words[1] } else { words[2] };
            (by(words[0], method), procedures(&words[place..]))
        }
        None => (label.to_owned(), "–".to_owned()),
    }
}

/// The same of a comparison, whose texts are the baseline, the judge, the method and the procedure.
fn names_of_comparison(label: &str) -> (String, String) {
    let words: Vec<&str> = label.split(' ').collect();
    match &words[..] {
        [baseline, judge, method, procedure @ ..] if is_judge(judge) && !procedure.is_empty() => {
            (by(judge, &format!("{method} − {baseline}")), procedures(procedure))
        }
        _ => (label.to_owned(), "–".to_owned()),
    }
}

fn is_judge(word: &str) -> bool {
    ["reward", "judge"].contains(&word)
}

/// Names of methods hold no `:`.
fn is_procedure(word: &str) -> bool {
    const NAMES: [&str; 9] = [
        "best-of:",
        "worst-of:",
        "soft-best-of:",
        "majority:",
        "rejection:",
        "pruned-best-of:",
        "cd-token:",
        "cd-block:",
        "beam:",
    ];
    word == "sample" || NAMES.iter().any(|name| word.starts_with(name))
}

/// The procedure of both sides, or that of the one against that of the other.
fn procedures(words: &[&str]) -> String {
    let mut text = words[0].to_owned();
    for pair in words.windows(2) {
        let of_reference = is_procedure(pair[1]) && pair[0] != "over";
        text += if of_reference { " against " } else { " " };
        text += pair[1];
    }
    text
}

fn by(judge: &str, name: &str) -> String {
    if judge == "judge" { format!("{name}, by the judge") } else { name.to_owned() }
}

/// An estimate with its interval or error, for people; a dash where there is none.
fn estimate(metrics: &Metrics, place: &str) -> String {
    let value = metrics.get(&format!("{place}.estimate"));
    value.map_or("–".to_owned(), |value| {
        Page::with_minus_signs(&format!("{value:.4}{}", spread(metrics, place)))
            .replace(' ', "\u{a0}")
    })
}

/// The interval or error of an estimate.
fn spread(metrics: &Metrics, place: &str) -> String {
    let of = |last: &str| metrics.get(&format!("{place}.{last}"));
    match (of("low"), of("high")) {
        (Some(low), Some(high)) => format!(" [{low:.4}, {high:.4}]"),
        _ => of("standard_error").map_or(String::new(), |error| format!(" ± {error:.4}")),
    }
}

/// A number with four digits, unless it is whole.
fn number(value: f64) -> String {
    if value.fract() == 0.0 {
        return value.to_string();
    }
    if value.abs() < 1e-3 { format!("{value:.3e}") } else { format!("{value:.4}") }
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
fn numbers(metrics: &Metrics) -> Vec<(String, String)> {
    let of_interval = |name: &&String| {
        let place = name.rsplit_once('.').map_or("", |(place, _)| place);
        !name.ends_with(".estimate") && metrics.contains_key(&format!("{place}.estimate"))
    };
    let shown = metrics.iter().filter(|(name, _)| !of_interval(name));
    let mut shown: Vec<(&String, &f64)> = shown.collect();
    shown.sort_by_key(|(name, _)| rank(name));
    let text = |(name, value): (&String, &f64)| match name.strip_suffix(".estimate") {
        Some(place) => (breakable(place), format!("{value:.4}{}", spread(metrics, place))),
        None => (breakable(name), number(*value)),
    };
    shown.into_iter().map(text).collect()
}

fn run(record: &Record) -> Vec<(String, String)> {
    let host = &record.host;
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    let last = record.last_process().map_or(String::new(), |last| format!(", {last}"));
    let rows = [
        ("command", Some(command_line(&record.argv))),
        ("seed", record.seed.as_ref().map(|seed| seed.master.to_string())),
        (
            "device",
            record.device.as_ref().map(|device| format!("{}, {}", device.name, device.dtype)),
        ),
        ("threads", Some(record.threads.to_string())),
        ("processor", host.cpu.model.clone()),
        ("system", Some(format!("{} {}", host.os, host.architecture))),
        ("memory", host.memory_bytes.map(gib)),
        ("greatest use of memory", record.peak_memory_bytes.map(|bytes| gib(bytes) + &last)),
        ("job", record.scheduler.as_ref().map(|job| format!("{} {}", job.kind, job.job))),
        ("exit code", record.exit.map(|code| code.to_string())),
        ("steps", record.steps.map(|steps| steps.to_string())),
        ("recording took", record.overhead_seconds.map(|seconds| format!("{seconds:.3} s"))),
    ];
    let known = rows.into_iter().filter_map(|(name, value)| Some((name, value?)));
    known.map(|(name, value)| (name.to_owned(), breakable(&value))).collect()
}

fn file(name: &str, sha256: &str, bytes: u64) -> String {
    format!("{name} {bytes} bytes {}", digest(sha256))
}

/// A digest, small enough not to be broken.
fn digest(sha256: &str) -> String {
    format!("<code class=\"digest\">{}</code>", escaped(sha256))
}

fn pair((name, value): (String, String)) -> Vec<String> {
    vec![name, value]
}

/// A table of two columns under a heading, unless it would be empty; its cells are HTML.
fn section(page: Page, heading: &str, rows: impl Iterator<Item = (String, String)>) -> Page {
    let mut rows = rows.map(pair).peekable();
    if rows.peek().is_none() { page } else { page.heading(heading).raw_table(rows) }
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
    fn results_are_shown_by_method_and_procedure() {
        let numbers = [
            ("comparisons[raw reward calibrated best-of:4].difference.estimate", -0.25),
            ("comparisons[raw reward calibrated best-of:4].difference.high", 0.5),
            ("comparisons[raw reward calibrated best-of:4].difference.low", -0.5),
            ("comparisons[raw reward calibrated best-of:4].p_adjusted", 2.5e-16),
            (
                "rows[judge ctrl calibrated identity best-of:4 over cd-token:lambda=1].win_rate.estimate",
                0.75,
            ),
            (
                "rows[judge ctrl cd-x identity beam:width=2,branch=2,length=4 sample].win_rate.estimate",
                0.25,
            ),
            ("rows[reward base sample].kl.estimate", 0.125),
            ("rows[reward base sample].kl.standard_error", 0.5),
            ("rows[reward base sample].win_rate.estimate", 0.5),
            ("rows[x].win_rate.estimate", 0.5),
        ];
        let metrics = numbers.map(|(name, value)| (name.to_owned(), value)).into();
        let judged =
            ["calibrated, by the judge", "best-of:4 over cd-token:lambda=1", "–", "0.7500"];
        let base = ["base", "sample", "0.1250\u{a0}±\u{a0}0.5000", "0.5000"];
        let beam = "beam:width=2,branch=2,length=4 against sample";
        let searched = ["cd-x, by the judge", beam, "–", "0.2500"];
        assert_eq!(rows(&metrics), [judged, searched, base, ["x", "–", "–", "0.5000"]]);
        let interval = "−0.2500\u{a0}[−0.5000,\u{a0}0.5000]";
        let compared = ["calibrated − raw", "best-of:4", interval, "2.500e-16"];
        assert_eq!(comparisons(&metrics), [compared]);
        let html = with_numbers(Page::new(""), &metrics).html();
        assert!(html.contains("calibrated − raw") && html.contains("<summary>All numbers"));
        assert_eq!((number(0.123_456), number(3.0)), ("0.1235".to_owned(), "3".to_owned()));
    }

    #[test]
    fn addresses_of_files_are_encoded() {
        let root = tempfile::tempdir().unwrap();
        let mut record = crate::folder::record(&finished_run(root.path(), "run")).unwrap();
        record.outputs[0].path = "a b#1?.svg".to_owned();
        let page = html(&record);
        assert!(page.contains("<img src=\"a%20b%231%3F.svg\" alt=\"Plot: a b#1?\">"), "{page}");
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
        assert!(
            page.contains("infalign '&lt;script&gt;'") && page.contains("rows[a].kl"),
            "{page}"
        );
    }
}
