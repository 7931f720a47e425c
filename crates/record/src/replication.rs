//! What a replication found: an in-toto test result for programs, a table for people.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::expect::Level;
use crate::folder::CONFIG;
use crate::{Difference, Record, markdown_table};

/// Type of the statement.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// Type of what it says.
const PREDICATE: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// [`Replication::extent`] of a run that was run again from its beginning to its end.
pub const WHOLE: &str = "whole";

/// One run, as a replication names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunName {
    /// Its `uuid`.
    pub uuid: String,
    /// When it began.
    pub start: String,
    /// The machine's [`crate::capture::Host::id`].
    pub host: Option<String>,
    /// Who ran it, where that is recorded.
    pub agent: Option<String>,
    /// Version of the program.
    pub version: String,
}

impl RunName {
    /// Of a record.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self {
            uuid: record.uuid.clone(),
            start: record.start.clone(),
            host: record.host.id.clone(),
            agent: record.agent.as_ref().map(|agent| agent.name.clone()),
            version: record.build.full_version(),
        }
    }
}

/// One result of both runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// A file, or a number by its name.
    pub result: String,
    /// How near the runs have to be; [`Level::Differs`] asks for nothing.
    pub required: Level,
    /// How near they are.
    pub reached: Level,
    /// In the original, where that is a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
    /// In the replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// What differs, or the interval of the difference.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Row {
    /// Whether it is as near as it has to be.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.reached >= self.required
    }

    fn cells(&self) -> Vec<String> {
        let required = if self.required == Level::Differs { "-" } else { self.required.word() };
        let failed = if self.holds() { "" } else { " (fails)" };
        vec![
            self.result.clone(),
            required.to_owned(),
            format!("{}{failed}", self.reached.word()),
            self.original.clone().unwrap_or_default(),
            self.replica.clone().unwrap_or_default(),
            self.note.clone(),
        ]
    }
}

/// A claim of the original, tried on the replica alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRow {
    /// In words.
    pub claim: String,
    /// Whether it holds.
    pub holds: bool,
    /// The difference with its interval.
    pub difference: String,
}

/// A replication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replication {
    /// What was run again.
    pub original: RunName,
    /// The new run.
    pub replica: RunName,
    /// What was done: [`WHOLE`], or `spot` with the stages that were done again.
    pub extent: String,
    /// Whether the original's program was used again, or one built from its commit, or another.
    pub program: String,
    /// All results.
    pub results: Vec<Row>,
    /// All claims.
    pub claims: Vec<ClaimRow>,
    /// What differs around the runs, as text.
    pub differences: Vec<String>,
}

impl Replication {
    /// Whether every required level was reached and every claim holds, and there was one: where nothing is asked, nothing is reproduced.
    #[must_use]
    pub fn holds(&self) -> bool {
        let reached = self.results.iter().all(Row::holds);
        self.asks() && reached && self.claims.iter().all(|claim| claim.holds)
    }

    /// Whether a level is required of any result, or a claim is made.
    fn asks(&self) -> bool {
        self.lowest().is_some() || !self.claims.is_empty()
    }

    /// What was found, in words.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.asks(), self.holds()) {
            (true, true) => "reproduced",
            (true, false) => "NOT reproduced",
            (false, _) => {
                "undecided: the circumstances differ, so no result is required of the replica, and nothing is claimed"
            }
        }
    }

    /// `repeat` on the same host, `replicate` on another; where one of them was not recorded, nobody can tell.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (&self.original.host, &self.replica.host) {
            (Some(original), Some(replica)) if original == replica => "repeat",
            (Some(_), Some(_)) => "replicate",
            _ => "repeat or replicate, host not recorded",
        }
    }

    /// The lowest level among the results that something is asked of; none where nothing is.
    fn lowest(&self) -> Option<Level> {
        let required = self.results.iter().filter(|row| row.required > Level::Differs);
        required.map(|row| row.reached).min()
    }

    /// The in-toto statement.
    ///
    /// - `original`: whose outputs it is about.
    #[must_use]
    pub fn statement(&self, original: &Record) -> Value {
        let digest = |sha256: &str| json!({ "sha256": sha256 });
        let subject = original.outputs.iter();
        let subject: Vec<Value> = subject
            .map(|output| json!({ "name": output.path, "digest": digest(&output.sha256) }))
            .collect();
        let config = original.config_sha256.iter();
        let config: Vec<Value> =
            config.map(|sha256| json!({ "name": CONFIG, "digest": digest(sha256) })).collect();
        let named = |holds: bool| -> Vec<&str> {
            let rows = self.results.iter().filter(|row| row.holds() == holds);
            let claims = self.claims.iter().filter(|claim| claim.holds == holds);
            rows.map(|row| row.result.as_str()).chain(claims.map(|c| c.claim.as_str())).collect()
        };
        json!({
            "_type": STATEMENT, "subject": subject, "predicateType": PREDICATE,
            "predicate": {
                "result": if self.holds() { "PASSED" } else { "FAILED" }, "configuration": config,
                "passedTests": named(true), "failedTests": named(false),
                "infalign": self,
            },
        })
    }

    /// Reads a statement. Whether what stands around it says the same, [`crate::badges`] looks at.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_statement(statement: &Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(statement["predicate"]["infalign"].clone())
    }

    /// Why a statement that this was read from is no evidence of a run, a clause each; empty where it is: it is of the type that this program
    /// writes, its result is what its rows come to, and it is about the run's outputs.
    ///
    /// - `original`: the run.
    pub(crate) fn objections(&self, statement: &Value, original: &Record) -> Vec<String> {
        let expected = self.statement(original);
        let own = |name: &str| (statement[name].clone(), expected[name].clone());
        let said = |name: &str| {
            let predicate = |document: &Value| document["predicate"][name].clone();
            (predicate(statement), predicate(&expected))
        };
        let looked_at = [
            ("its type is another", own("_type")),
            ("the type of what it says is another", own("predicateType")),
            ("it is about other outputs than the run's", own("subject")),
            ("it is about other settings than the run's", said("configuration")),
            ("its result is not what its rows come to", said("result")),
            ("its passed tests are not those of its rows", said("passedTests")),
            ("its failed tests are not those of its rows", said("failedTests")),
        ];
        let wrong = looked_at.into_iter().filter(|(_, (stated, expected))| stated != expected);
        wrong.map(|(objection, _)| objection.to_owned()).collect()
    }

    /// Whether the replica is the original itself.
    pub(crate) fn is_of_itself(&self) -> bool {
        self.original.uuid == self.replica.uuid
    }

    /// The table.
    #[must_use]
    pub fn markdown(&self) -> String {
        let head = format!(
            "# {} ({})\n\noriginal {} of {}, infalign {}\nreplica {} of {}, infalign {}\nextent: {}\nprogram: {}\n\n",
            self.verdict(),
            self.word(),
            self.original.uuid,
            self.original.start,
            self.original.version,
            self.replica.uuid,
            self.replica.start,
            self.replica.version,
            self.extent,
            self.program,
        );
        head + &results(&self.results) + &claims(&self.claims) + &differences(&self.differences)
    }
}

/// How many are the same bytes, a row of each other, and the names of those that may differ and do.
fn results(all: &[Row]) -> String {
    let bitwise =
        |row: &&Row| row.reached == Level::Bitwise && row.note.is_empty() && row.original.is_none();
    let free =
        |row: &&Row| [row.required, row.reached] == [Level::Differs; 2] && row.original.is_none();
    let (same, others): (Vec<&Row>, Vec<&Row>) = all.iter().partition(bitwise);
    let (free, others): (Vec<&Row>, Vec<&Row>) = others.into_iter().partition(free);
    let mut text = format!("The same bytes: {} of {} results.\n\n", same.len(), all.len());
    if !others.is_empty() {
        let rows: Vec<Vec<String>> = others.into_iter().map(Row::cells).collect();
        let head = ["result", "required", "reached", "original", "replica", "note"];
        text += &markdown_table(&head, &rows);
    }
    if !free.is_empty() {
        let names: Vec<&str> = free.iter().map(|row| row.result.as_str()).collect();
        text += &format!("\nNothing is required of these, which differ: {}.\n", names.join(", "));
    }
    text
}

fn claims(claims: &[ClaimRow]) -> String {
    if claims.is_empty() {
        return String::new();
    }
    let cells = |ClaimRow { claim, holds, difference }: &ClaimRow| {
        let holds = if *holds { "yes" } else { "NO" };
        vec![claim.clone(), holds.to_owned(), difference.clone()]
    };
    let rows: Vec<Vec<String>> = claims.iter().map(cells).collect();
    format!("\n{}", markdown_table(&["claim", "holds", "difference"], &rows))
}

fn differences(differences: &[String]) -> String {
    if differences.is_empty() {
        return "\nNothing around the runs differs.\n".to_owned();
    }
    let lines: String = differences.iter().map(|one| format!("- {one}\n")).collect();
    format!("\nWhat differs around the runs, what matters most first:\n{lines}")
}

/// A difference as a line of a report.
#[must_use]
pub fn describe(difference: &Difference) -> String {
    let Difference { what, original, replica, effect } = difference;
    format!("{what}: {original} → {replica} ({effect})")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn replication(reached: Level) -> Replication {
        let name = |host: &str| RunName {
            uuid: format!("u-{host}"),
            start: "then".into(),
            host: Some(host.into()),
            agent: Some(host.into()),
            version: "0.1.0".into(),
        };
        let row = Row {
            result: "results.json".into(),
            required: Level::Equivalent,
            reached,
            original: None,
            replica: None,
            note: "kl: 1 and 2".into(),
        };
        let free = Row {
            result: "plot.svg".into(),
            required: Level::Differs,
            reached: Level::Differs,
            ..row.clone()
        };
        let claim = ClaimRow { claim: "a beats b".into(), holds: true, difference: "+0.1".into() };
        Replication {
            original: name("one"),
            replica: name("two"),
            extent: WHOLE.into(),
            program: "the same".into(),
            results: vec![row, free],
            claims: vec![claim],
            differences: vec!["threads: 1 → 2".into()],
        }
    }

    #[test]
    fn a_required_level_decides_and_a_free_result_does_not() {
        assert!(replication(Level::Tolerance).holds());
        assert!(!replication(Level::Differs).holds());
        let mut unasked = replication(Level::Bitwise);
        unasked.claims.clear();
        unasked.results.iter_mut().for_each(|row| row.required = Level::Differs);
        assert!(!unasked.holds(), "where nothing is asked, nothing is reproduced");
        assert!(unasked.markdown().starts_with("# undecided: "), "and nothing has failed");
        assert_eq!(replication(Level::Tolerance).lowest(), Some(Level::Tolerance));
        assert_eq!(replication(Level::Bitwise).word(), "replicate");
        let mut moved = replication(Level::Bitwise);
        moved.replica.host = moved.original.host.clone();
        assert_eq!(moved.word(), "repeat");
        moved.original.host = None;
        assert_eq!(moved.word(), "repeat or replicate, host not recorded");
        moved.replica.host = None;
        assert_eq!(moved.word(), "repeat or replicate, host not recorded", "unknown is not equal");
    }

    #[test]
    fn the_statement_is_in_totos_and_reads_back() {
        let root = tempfile::tempdir().unwrap();
        let record =
            crate::folder::record(&crate::recorder::tests::finished_run(root.path(), "run"))
                .unwrap();
        let whole = replication(Level::Differs);
        let statement = whole.statement(&record);
        assert_eq!(statement["_type"], STATEMENT);
        assert_eq!(statement["predicate"]["result"], "FAILED");
        assert_eq!(statement["predicate"]["failedTests"], json!(["results.json"]));
        assert_eq!(statement["subject"][0]["digest"]["sha256"], record.outputs[0].sha256);
        assert_eq!(Replication::of_statement(&statement).unwrap(), whole);
        assert!(Replication::of_statement(&json!({})).is_err());
    }

    #[test]
    fn a_statement_around_other_rows_or_outputs_is_objected_to() {
        let root = tempfile::tempdir().unwrap();
        let run = crate::recorder::tests::finished_run(root.path(), "run");
        let record = crate::folder::record(&run).unwrap();
        let whole = replication(Level::Tolerance);
        let statement = whole.statement(&record);
        assert_eq!(whole.objections(&statement, &record), Vec::<String>::new());
        for (place, value, about) in [
            ("/_type", json!("x"), "its type"),
            ("/predicateType", json!("x"), "the type of what it says"),
            ("/predicate/result", json!("FAILED"), "its result"),
            ("/predicate/failedTests", json!(["results.json"]), "its failed tests"),
            ("/subject/0/digest/sha256", json!("0".repeat(64)), "other outputs"),
            ("/subject", json!([]), "other outputs"),
        ] {
            let mut other = statement.clone();
            *other.pointer_mut(place).unwrap() = value;
            let found = whole.objections(&other, &record);
            assert!(found.len() == 1 && found[0].contains(about), "{place}: {found:?}");
        }
        // Rows that say more than the result does.
        let found = replication(Level::Differs).objections(&statement, &record);
        assert!(found.iter().any(|objection| objection.contains("its result")), "{found:?}");
    }

    #[test]
    fn the_table_shows_what_fails_and_what_differs() {
        let text = replication(Level::Differs).markdown();
        assert!(text.starts_with("# NOT reproduced (replicate)"));
        assert!(text.contains("| results.json | equivalent | differs (fails) |"), "{text}");
        assert!(text.contains("which differ: plot.svg.\n") && text.contains("- threads: 1 → 2"));
    }
}
