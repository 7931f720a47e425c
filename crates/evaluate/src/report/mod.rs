//! A report: everything that a reader needs to decide between methods, as data, as Markdown and as a page.

mod examples;
mod findings;
mod judges;
mod markdown;
mod page;

use std::collections::HashSet;

use infalign_transform::{Composed, Theory};
use serde::{Deserialize, Serialize};

pub use examples::{Example, ExampleResponse};
pub use judges::JudgeAgreement;

use crate::{
    Contest, Entry, EvaluateError, Frontiers, Judge, Judging, Plan, Statistics, Sweep, Table,
    common_kl, frontiers, table,
};

/// The form of `report.json`.
pub const SCHEMA: &str = "report/1";

/// What one judge says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Who.
    pub judge: Judge,
    /// Rows, and every pair of methods.
    #[serde(flatten)]
    pub table: Table,
    /// The KL at which methods are compared, in nats; absent where they have none in common, and where there is one method alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_kl: Option<f64>,
    /// Methods at that KL, and every pair of them.
    pub at_common_kl: Frontiers,
    /// What follows, in sentences.
    pub findings: Vec<String>,
}

/// Where the numbers come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The command that repeats this report.
    pub command: String,
    /// Each run or file that was read.
    pub sources: Vec<Source>,
    /// Version of the program.
    pub version: String,
    /// What speaks against comparing the sources, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A run or a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Where it lies.
    pub path: String,
    /// The command that makes it again, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// When it began, in UTC, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// SHA-256 of the files of it that were read, by their names.
    pub sha256: Vec<(String, String)>,
    /// The resolved recipe, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
}

/// Everything on a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// Its heading.
    pub title: String,
    /// How intervals and tests were made.
    pub statistics: Statistics,
    /// By the reward, and by the judge where there is one.
    pub judged: Vec<Judged>,
    /// How far the two agree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agreement: Vec<JudgeAgreement>,
    /// Responses side by side.
    pub examples: Vec<Example>,
    /// Where all this comes from.
    pub provenance: Provenance,
}

/// A method of a report.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// Its samples, under a name that no other has.
    pub entry: Entry<'a>,
    /// The method that it is a run of: runs of one method are points of its frontier.
    pub sweep: &'a str,
    /// Whether it is compared with others: not the reference itself.
    pub compared: bool,
}

/// What a report is asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Its heading.
    pub title: String,
    /// Procedures of both sides.
    pub contests: &'a [Contest],
    /// Who judges: the reward, and the judge where there is one.
    pub judges: &'a [Judge],
    /// The KL at which methods are compared; none: the greatest that all of them reach.
    pub kl: Option<f64>,
    /// Whether there are win rates at equal lengths.
    pub length_controlled: bool,
    /// How many prompts are shown with responses.
    pub examples: usize,
    /// How intervals and tests are made.
    pub statistics: Statistics,
}

impl Report {
    /// Measures and compares.
    ///
    /// # Errors
    /// [`EvaluateError`] as for [`table()`].
    pub fn new(
        members: &[Member<'_>],
        request: &Request<'_>,
        provenance: Provenance,
    ) -> Result<Self, EvaluateError> {
        let judged = request.judges.iter().map(|&judge| judged(members, request, judge));
        let judged = judged.collect::<Result<_, _>>()?;
        Ok(Self {
            schema: SCHEMA.to_owned(),
            title: request.title.clone(),
            statistics: request.statistics,
            judged,
            agreement: judges::agreement(members, request)?,
            examples: examples::examples(members, request),
            provenance,
        })
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        markdown::text(self)
    }

    /// As Markdown that shows plots.
    ///
    /// - `plots`: path, from where the text lies, and title of each.
    pub fn markdown(&self, plots: &[(String, String)]) -> String {
        markdown::markdown(self, plots)
    }

    /// As one page of HTML that needs nothing beside it.
    ///
    /// - `theories`: of methods, by their names, for plots.
    ///
    /// # Errors
    /// [`EvaluateError::Plot`] and [`EvaluateError::Transform`].
    pub fn html(&self, theories: &[(String, Theory)]) -> Result<String, EvaluateError> {
        page::html(self, theories)
    }

    /// The plots by the names of their files.
    ///
    /// # Errors
    /// As [`Report::html`].
    pub fn figures(
        &self,
        theories: &[(String, Theory)],
    ) -> Result<Vec<(&'static str, crate::Figure)>, EvaluateError> {
        page::figures(self, theories)
    }
}

fn judged(
    members: &[Member<'_>],
    request: &Request<'_>,
    judge: Judge,
) -> Result<Judged, EvaluateError> {
    let entries: Vec<Entry<'_>> = members.iter().map(|member| member.entry).collect();
    let compared: Vec<usize> =
        (0..members.len()).filter(|&place| members[place].compared).collect();
    let pairs = within_runs(members, all_pairs(&compared));
    let Request { statistics, length_controlled, .. } = *request;
    let judging = Judging { judge, length_controlled, statistics };
    let table = table(&entries, &Plan { contests: request.contests, pairs: &pairs, judging })?;
    let sweeps = sweeps(members);
    let common = match request.kl {
        Some(kl) => Some(kl),
        None if sweeps.is_empty() => None,
        None => common_kl(&sweeps)?,
    };
    let mut at_common_kl = match common {
        Some(kl) => at_kl(&sweeps, request, judge, kl)?,
        None => Frontiers::default(),
    };
    // One method alone is told of as it was measured, unless it is asked for at another KL.
    let is_alone = sweeps.len() == 1 && request.kl.is_none();
    if is_alone {
        at_common_kl.rows.clear();
    }
    let common_kl = common.filter(|_| !is_alone);
    let mut judged = Judged { judge, table, common_kl, at_common_kl, findings: Vec::new() };
    judged.findings = if is_alone {
        let runs = compared.iter().map(|&place| members[place].entry.label.method);
        findings::as_measured(&judged, &runs.collect::<Vec<_>>())
    } else {
        findings::findings(&judged, request.statistics.level)
    };
    Ok(judged)
}

/// Methods at a KL under every procedure that is the same on both sides and only selects.
fn at_kl(
    sweeps: &[Sweep<'_>],
    request: &Request<'_>,
    judge: Judge,
    kl: f64,
) -> Result<Frontiers, EvaluateError> {
    let pairs = all_pairs(&(0..sweeps.len()).collect::<Vec<_>>());
    let same = request.contests.iter().filter(|c| c.policy == c.reference);
    let mut all = Frontiers::default();
    for procedure in same.map(|contest| contest.policy).filter(selects) {
        let found = frontiers(sweeps, procedure, judge, kl, &pairs, &request.statistics)?;
        all.rows.extend(found.rows);
        all.comparisons.extend(found.comparisons);
        all.bands.extend(found.bands);
    }
    Ok(all)
}

/// Whether a procedure only selects, so that the policy's KL is what it costs.
fn selects(procedure: &Composed) -> bool {
    procedure.of_ranks().is_some_and(|procedure| procedure.choice().is_some())
}

/// Where a method has several runs, only those pairs that are of one run: methods of different runs are compared at the same KL.
fn within_runs(members: &[Member<'_>], pairs: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    let mut seen = HashSet::new();
    let repeated = members.iter().any(|member| member.compared && !seen.insert(member.sweep));
    let run = |place: usize| {
        let Member { entry, sweep, .. } = &members[place];
        entry.label.method.strip_suffix(sweep)
    };
    pairs.into_iter().filter(|&(a, b)| !repeated || run(a) == run(b)).collect()
}

/// Each with each before it, which is subtracted.
fn all_pairs(places: &[usize]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for (k, &earlier) in places.iter().enumerate() {
        pairs.extend(places[k + 1..].iter().map(|&later| (later, earlier)));
    }
    pairs
}

/// Runs of the same method together, in the order in which methods come, but for those that are not compared.
pub fn sweeps<'a>(members: &'a [Member<'a>]) -> Vec<Sweep<'a>> {
    let mut sweeps: Vec<Sweep<'a>> = Vec::new();
    for member in members.iter().filter(|member| member.compared) {
        match sweeps.iter_mut().find(|sweep| sweep.method == member.sweep) {
            Some(sweep) => sweep.points.push(member.entry),
            None => sweeps.push(Sweep { method: member.sweep, points: vec![member.entry] }),
        }
    }
    sweeps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_samples::samples;
    use crate::{Intervals, Label, Sampled};

    #[test]
    fn a_report_says_who_wins_at_the_same_kl_in_every_form() {
        let judged =
            |shift: f64| Sampled { judged: Some(samples(-shift).rewards), ..samples(shift) };
        let (reference, base, a, b) = (judged(0.0), judged(0.0), judged(1.5), judged(40.0));
        let member = |method, sampled, compared| {
            let entry = Entry { label: Label::named(method), sampled, reference: &reference };
            Member { entry, sweep: method, compared }
        };
        let members =
            [member("base", &base, false), member("plain", &a, true), member("strong", &b, true)];
        let contests =
            [Contest::same("sample".parse().unwrap()), Contest::same("best-of:2".parse().unwrap())];
        let intervals = Intervals::Bca { replicates: 200, seed: 1 };
        let request = Request {
            title: "a test <report>".into(),
            contests: &contests,
            judges: &[Judge::Reward, Judge::Judge],
            kl: None,
            length_controlled: true,
            examples: 1,
            statistics: Statistics { intervals, ..Statistics::new(1) },
        };
        let source = Source {
            path: "runs/x".into(),
            command: Some("infalign train runs/x/config.toml".into()),
            sha256: vec![("results.json".into(), "ab".repeat(32))],
            recipe: Some("seed = 1".into()),
            ..Source::default()
        };
        let provenance = Provenance {
            command: "infalign report runs/x".into(),
            sources: vec![source],
            version: "0".into(),
            warnings: vec!["a and b differ".into()],
        };
        let report = Report::new(&members, &request, provenance).unwrap();
        assert_eq!(report.judged.len(), 2);
        let first = &report.judged[0];
        // The KL's two prompts are 0.4 and 0.6: three standard errors of 0.1 below 0.5.
        assert!((first.common_kl.unwrap() - 0.2).abs() < 1e-12);
        assert_eq!((first.table.rows.len(), first.table.comparisons.len()), (6, 2));
        assert!(first.findings[1].starts_with("Under best-of:2"), "{:?}", first.findings);
        assert!(first.findings[1].contains("strong"), "{:?}", first.findings);
        assert_eq!(report.agreement.len(), 3);
        assert_eq!(report.examples.len(), 1);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        let html = report.html(&[]).unwrap();
        let plots = [("report/win-rate-kl.svg".to_owned(), "win rates [of <all>]".to_owned())];
        let (text, markdown) = (report.text(), report.markdown(&plots));
        for told in ["strong", "best-of:2", "infalign train runs/x/config.toml", "0.200 nats"] {
            assert!(html.contains(told), "{told} in the page");
            assert!(markdown.contains(told), "{told} in Markdown");
        }
        assert!(markdown.contains("![win rates (of <all>)](report/win-rate-kl.svg)"), "{markdown}");
        assert!(!report.markdown(&[]).contains("## Plots"));
        assert!(html.contains("<svg") && !html.contains("<report>") && html.contains("response 0"));
        assert!(!html.contains("http://") || html.contains("www.w3.org"), "nothing is fetched");
        assert!(text.contains("its own KL:\nstrong − plain, sample"), "{text}");
        assert!(text.contains("strong − plain, best-of:2"), "{text}");
        assert!(markdown.starts_with("# a test <report>: report of x\n"), "{markdown}");
        let names: Vec<&str> = report.figures(&[]).unwrap().iter().map(|(name, _)| *name).collect();
        assert!(names.contains(&"win-rate-kl") && names.contains(&"proxy-gold"), "{names:?}");
    }

    #[test]
    fn one_method_alone_is_told_of_as_it_was_measured() {
        let (reference, sampled) = (samples(0.0), samples(1.5));
        let entry =
            Entry { label: Label::named("policy"), sampled: &sampled, reference: &reference };
        let base = Entry { label: Label::named("base"), sampled: &reference, ..entry };
        let members = [
            Member { entry: base, sweep: "base", compared: false },
            Member { entry, sweep: "policy", compared: true },
        ];
        let mut request = Request {
            title: "one".into(),
            contests: &[Contest::same("best-of:2".parse().unwrap())],
            judges: &[Judge::Reward],
            kl: None,
            length_controlled: false,
            examples: 1,
            statistics: Statistics::new(1),
        };
        let report =
            |request: &Request<'_>| Report::new(&members, request, Provenance::default()).unwrap();
        let alone = report(&request);
        let [finding] = &alone.judged[0].findings[..] else { panic!("{:?}", alone.judged) };
        let row = alone.judged[0].table.rows.iter().find(|row| row.method == "policy").unwrap();
        let told = format!(
            "Under best-of:2 at 0.500 nats, policy has a win rate of {}",
            crate::with_interval(&row.win_rate)
        );
        assert!(finding.starts_with(&told), "{finding}");
        let (html, markdown) = (alone.html(&[]).unwrap(), alone.markdown(&[]));
        assert!(!html.contains("At the same KL") && !markdown.contains("At the same KL"));
        assert!(html.contains("<h1>one</h1>") && markdown.starts_with("# one\n"));
        request.kl = Some(0.45);
        assert!(report(&request).markdown(&[]).contains("At the same KL\n\nAt 0.450 nats."));
    }

    #[test]
    fn a_method_that_is_not_near_the_common_kl_is_told_of_at_its_own() {
        let (reference, near, other) = (samples(0.0), samples(1.5), samples(40.0));
        let kl = |exact: f64| crate::kl::KlSample { exact, k1: exact, k3: exact };
        let far = Sampled { kl: Some(vec![kl(4.0), kl(4.2)]), ..samples(60.0) };
        let member = |method, sampled| {
            let entry = Entry { label: Label::named(method), sampled, reference: &reference };
            Member { entry, sweep: method, compared: true }
        };
        let members = [member("near", &near), member("other", &other), member("far", &far)];
        let request = Request {
            title: String::new(),
            contests: &[Contest::same("best-of:2".parse().unwrap())],
            judges: &[Judge::Reward],
            kl: None,
            length_controlled: false,
            examples: 0,
            statistics: Statistics::new(1),
        };
        let report = Report::new(&members, &request, Provenance::default()).unwrap();
        let finding = &report.judged[0].findings[0];
        let begins = "Under best-of:2, of the methods measured near 0.200 nats, other has";
        assert!(finding.starts_with(begins), "{finding}");
        let far = "Not measured near that KL: far, which at 4.100 nats has ";
        assert!(finding.contains(far), "{finding}");
    }

    #[test]
    fn runs_of_a_method_are_one_in_the_plot_and_compared_with_those_of_their_own_run() {
        let shifts = [
            ("x", "plain", 1.5),
            ("x", "strong", 40.0),
            ("y", "plain", 2.5),
            ("y", "strong", 60.0),
        ];
        let reference = samples(0.0);
        let sampled = shifts.map(|(.., shift)| samples(shift));
        let names = shifts.map(|(run, method, _)| format!("{run}/{method}"));
        let members: Vec<Member<'_>> = (0..shifts.len())
            .map(|place| {
                let label = Label::named(&names[place]);
                let entry = Entry { label, sampled: &sampled[place], reference: &reference };
                Member { entry, sweep: shifts[place].1, compared: true }
            })
            .collect();
        let request = Request {
            title: "two runs".into(),
            contests: &[Contest::same("sample".parse().unwrap())],
            judges: &[Judge::Reward],
            kl: None,
            length_controlled: false,
            examples: 0,
            statistics: Statistics {
                intervals: Intervals::Bca { replicates: 200, seed: 1 },
                ..Statistics::new(1)
            },
        };
        let report = Report::new(&members, &request, Provenance::default()).unwrap();
        let judged = &report.judged[0];
        let pairs: Vec<(&str, &str)> = judged
            .table
            .comparisons
            .iter()
            .map(|one| (one.method.as_str(), one.baseline.as_str()))
            .collect();
        assert_eq!(pairs, [("x/strong", "x/plain"), ("y/strong", "y/plain")]);
        assert!(judged.findings[0].contains("above plain"), "{:?}", judged.findings);
        let figures = report.figures(&[]).unwrap();
        let (_, figure) = figures.iter().find(|(name, _)| *name == "win-rate-kl").unwrap();
        assert_eq!(figure.legend[..2], ["plain", "strong"]);
        assert_eq!(figure.panels[0].points.len(), 4);
        assert_eq!(figure.panels[0].bands.len(), 2);
    }
}
