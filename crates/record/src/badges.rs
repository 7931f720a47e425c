//! Badges after those of the ACM, each given for evidence alone, and withheld with the reason.

use std::path::Path;

use serde_json::Value;

use crate::hash::head;
use crate::manifest::Manifest;
use crate::replication::{Replication, WHOLE};
use crate::verify::{Problem, Verified, verify};
use crate::{Record, RecordError, manifest, run_dir};

/// A badge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Badge {
    /// Its name.
    pub name: &'static str,
    /// What it is given for, or why it is not.
    pub verdict: Result<String, Vec<String>>,
}

/// What is shown beside a run's own folder.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// A persistent identifier of the folder: a DOI, or an identifier of Software Heritage.
    pub identifier: Option<String>,
    /// Statements of replications.
    pub replications: Vec<Statement>,
}

/// A statement of a replication.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The whole of it.
    pub document: Value,
    /// The replication in it.
    pub replication: Replication,
    /// SHA-256 of the file.
    pub sha256: String,
}

impl Statement {
    /// Why it is no evidence of a run, a clause each; empty where it is.
    fn objections(&self, record: &Record) -> Vec<String> {
        let replication = &self.replication;
        let which = format!("the replication of {}", replication.replica.start);
        if replication.original.uuid != record.uuid {
            return vec![format!("{which} is of another run")];
        }
        if replication.is_of_itself() {
            return vec![format!("{which} is the run itself")];
        }
        if replication.extent != WHOLE {
            return vec![format!("{which} did only a part of the run again")];
        }
        let objections = replication.objections(&self.document, record).into_iter();
        objections
            .map(|objection| format!("the statement of {which} does not hold: {objection}"))
            .collect()
    }

    fn name(&self) -> String {
        format!("statement {}", head(&self.sha256))
    }
}

/// The badges of a run.
///
/// # Errors
/// As [`verify`], and when the copy that verification is tried on cannot be written.
pub fn badges(run: &Path, evidence: &Evidence) -> Result<Vec<Badge>, RecordError> {
    let verified = verify(run)?;
    let mut broken: Vec<String> = verified.findings.iter().map(ToString::to_string).collect();
    if broken.is_empty() && !notices_a_change(run)? {
        broken.push("verification does not notice a flipped bit".to_owned());
    }
    let whole = |reasons: Vec<String>| broken.iter().cloned().chain(reasons).collect::<Vec<_>>();
    let (name, available) = available(&verified, evidence);
    Ok(vec![
        badge(name, whole(available), "the folder verifies, its licence, commit and inputs are recorded"),
        functional(&broken, &verified, evidence),
        badge(
            "Artifacts Evaluated: Reusable",
            vec!["a record does not show that documentation and tests were whole at its commit; a reviewer has to say so".to_owned()],
            "",
        ),
        reproduced(&broken, &verified, evidence),
        badge(
            "Results Replicated",
            vec!["it needs artefacts made independently, which no record of this program can show".to_owned()],
            "",
        ),
    ])
}

fn badge(name: &'static str, reasons: Vec<String>, given_for: &str) -> Badge {
    Badge {
        name,
        verdict: if reasons.is_empty() { Ok(given_for.to_owned()) } else { Err(reasons) },
    }
}

fn available(verified: &Verified, evidence: &Evidence) -> (&'static str, Vec<String>) {
    let record = &verified.record;
    let source = &record.build.source;
    let mut reasons = Vec::new();
    if record.license.is_none() {
        reasons.push(
            "no licence was recorded: set INFALIGN_LICENSE to its address before a run".to_owned(),
        );
    }
    match (&source.commit, source.dirty) {
        (None, _) => {
            reasons.push("the program was built without git, so its commit is unknown".to_owned())
        }
        (_, Some(true)) => {
            reasons.push("the program was built from changes that are in no commit".to_owned())
        }
        _ => {}
    }
    let elsewhere = record.inputs.iter().filter(|input| {
        let kept = input.path.starts_with("$RUN/");
        let named = input.path.starts_with("$INFALIGN_DATA/") || input.is_on_hub();
        !kept && !named
    });
    reasons.extend(elsewhere.map(|input| {
        format!(
            "the input {} is a file of one machine: name it below $INFALIGN_DATA or on the hub",
            input.path
        )
    }));
    let persistent = evidence.identifier.as_deref().is_some_and(is_persistent);
    let name = if persistent { "Artifacts Available" } else { "Artifacts Available (local)" };
    (name, reasons)
}

/// Whether an identifier is one of Software Heritage, or a DOI however it is written: by itself, with `doi:`, or as an address.
fn is_persistent(identifier: &str) -> bool {
    let identifier = identifier.trim().to_ascii_lowercase();
    let bare = identifier.trim_start_matches("https://").trim_start_matches("http://");
    let before = ["doi:", "doi.org/", "dx.doi.org/", "www.doi.org/"];
    let doi = before.iter().find_map(|before| bare.strip_prefix(*before)).unwrap_or(bare);
    let is_doi = doi.starts_with("10.") && doi.contains('/');
    identifier.starts_with("swh:1:") || is_doi
}

fn functional(broken: &[String], verified: &Verified, evidence: &Evidence) -> Badge {
    let mut reasons = broken.to_vec();
    let statements = evidence.replications.iter();
    let judged = statements.map(|statement| (statement, statement.objections(&verified.record)));
    let judged: Vec<_> = judged.collect();
    let given_for = match judged.iter().find(|(_, objections)| objections.is_empty()) {
        Some((statement, _)) => format!(
            "it verifies, a flipped bit is noticed, and it ran again to its end ({} of {}, {})",
            statement.replication.word(),
            statement.replication.replica.start,
            statement.name()
        ),
        None => {
            reasons.extend(judged.iter().flat_map(|(_, objections)| objections.clone()));
            reasons.push(
                "no statement was given of a replication that ran the whole to its end: --replication FILE"
                    .to_owned(),
            );
            String::new()
        }
    };
    badge("Artifacts Evaluated: Functional", reasons, &given_for)
}

fn reproduced(broken: &[String], verified: &Verified, evidence: &Evidence) -> Badge {
    let mut reasons = broken.to_vec();
    let mut given_for = None;
    for statement in &evidence.replications {
        let replication = &statement.replication;
        let which = format!("the replication of {}", replication.replica.start);
        let (original, replica) = (&replication.original, &replication.replica);
        let differs = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        let objections = statement.objections(&verified.record);
        if !objections.is_empty() {
            reasons.extend(objections);
        } else if original.host.is_none() || replica.host.is_none() {
            reasons.push(format!("{which} may have been on the same host: host not recorded"));
        } else if original.host == replica.host {
            reasons.push(format!("{which} was on the same host"));
        } else if !differs(&original.agent, &replica.agent) {
            reasons.push(format!(
                "{which} was not by somebody else, or names are not recorded: set INFALIGN_AGENT"
            ));
        } else if !replication.holds() {
            reasons.push(format!("{which} did not reach what was required"));
        } else {
            given_for = Some(format!(
                "{which}, by {}, {}",
                replica.agent.as_deref().unwrap_or(""),
                statement.name()
            ));
        }
    }
    match given_for.filter(|_| broken.is_empty()) {
        Some(given_for) => badge("Results Reproduced", Vec::new(), &given_for),
        None => {
            if evidence.replications.is_empty() {
                reasons
                    .push("no statement of a replication was given: --replication FILE".to_owned());
            }
            badge("Results Reproduced", reasons, "")
        }
    }
}

/// Flips a bit of a copy of the smallest output and sees whether verification notices: the negative control of every badge.
fn notices_a_change(run: &Path) -> Result<bool, RecordError> {
    let copy = tempfile::tempdir().map_err(RecordError::io("write", run))?;
    let manifest: Manifest = manifest::read(run)?;
    let path = copy.path();
    for name in crate::folder::OF_RECORD.iter().filter(|name| run.join(name).exists()) {
        std::fs::copy(run.join(name), path.join(name)).map_err(RecordError::io("copy", path))?;
    }
    let start = path.join(run_dir::START_FILE);
    let mut bytes = std::fs::read(&start).map_err(RecordError::io("read", &start))?;
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
    std::fs::write(&start, bytes).map_err(RecordError::io("write", &start))?;
    let findings = verify(path)?.findings;
    let changed = |finding: &&crate::verify::Finding| finding.problem == Problem::Changed;
    let only_start = findings.iter().filter(changed).all(|f| f.path == run_dir::START_FILE);
    Ok(manifest.contains_key(run_dir::START_FILE)
        && only_start
        && findings.iter().any(|f| changed(&f)))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::expect::Level;
    use crate::recorder::tests::finished_run;
    use crate::replication::tests::replication;

    fn given(run: &Path, evidence: &Evidence) -> Vec<&'static str> {
        let badges = badges(run, evidence).unwrap();
        badges.into_iter().filter(|badge| badge.verdict.is_ok()).map(|badge| badge.name).collect()
    }

    fn run() -> (tempfile::TempDir, PathBuf, Replication) {
        let root = tempfile::tempdir().unwrap();
        let run = finished_run(root.path(), "run");
        let mut replication = replication(Level::Bitwise);
        replication.original.uuid = crate::folder::record(&run).unwrap().uuid;
        (root, run, replication)
    }

    fn with(run: &Path, replication: Replication) -> Evidence {
        let document = replication.statement(&crate::folder::record(run).unwrap());
        shown(replication, document)
    }

    fn shown(replication: Replication, document: Value) -> Evidence {
        let statement = Statement { document, replication, sha256: "f".repeat(64) };
        Evidence { identifier: None, replications: vec![statement] }
    }

    #[test]
    fn nothing_is_given_without_evidence() {
        let (_root, run, _) = run();
        assert_eq!(given(&run, &Evidence::default()), Vec::<&str>::new());
        for badge in badges(&run, &Evidence::default()).unwrap() {
            assert!(!badge.verdict.unwrap_err().is_empty());
        }
    }

    #[test]
    fn a_doi_is_known_however_it_is_written() {
        for identifier in [
            "10.5281/zenodo.1234",
            "doi:10.5281/zenodo.1234",
            "https://doi.org/10.5281/zenodo.1234",
            "http://dx.doi.org/10.5281/zenodo.1234",
            "swh:1:dir:0123",
        ] {
            assert!(is_persistent(identifier), "{identifier}");
        }
        for identifier in ["", "10.5281", "https://example.org/10.5281/x", "doi.org"] {
            assert!(!is_persistent(identifier), "{identifier}");
        }
    }

    #[test]
    fn a_replication_elsewhere_by_somebody_else_reproduces() {
        let (_root, run, replication) = run();
        let both = ["Artifacts Evaluated: Functional", "Results Reproduced"];
        assert_eq!(given(&run, &with(&run, replication.clone())), both);
        std::fs::write(run.join("results.json"), "{}").unwrap();
        assert_eq!(
            given(&run, &with(&run, replication)),
            Vec::<&str>::new(),
            "a changed folder has none"
        );
    }

    #[test]
    fn a_statement_that_contradicts_itself_or_of_the_run_itself_is_no_evidence() {
        let (_root, run, replication) = run();
        let mut document = with(&run, replication.clone()).replications.remove(0).document;
        document["predicate"]["result"] = "FAILED".into();
        let evidence = shown(replication.clone(), document);
        assert_eq!(given(&run, &evidence), Vec::<&str>::new());
        let reasons: Vec<String> = badges(&run, &evidence)
            .unwrap()
            .into_iter()
            .flat_map(|b| b.verdict.unwrap_err())
            .collect();
        let said = |what: &str| reasons.iter().filter(|reason| reason.contains(what)).count();
        assert_eq!(said("its result is not what its rows come to"), 2, "{reasons:?}");
        let mut itself = replication;
        itself.replica.uuid = itself.original.uuid.clone();
        assert_eq!(given(&run, &with(&run, itself)), Vec::<&str>::new());
    }

    #[test]
    fn one_on_an_unknown_host_is_not_said_to_be_on_another_nor_on_the_same() {
        let (_root, run, mut replication) = run();
        replication.replica.host = None;
        let badges = badges(&run, &with(&run, replication)).unwrap();
        let verdict = |name: &str| badges.iter().find(|b| b.name == name).unwrap().verdict.clone();
        let reasons = verdict("Results Reproduced").unwrap_err();
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].ends_with("may have been on the same host: host not recorded"));
        let given_for = verdict("Artifacts Evaluated: Functional").unwrap();
        assert!(given_for.contains("repeat or replicate, host not recorded"), "{given_for}");
    }

    #[test]
    fn one_on_the_same_host_or_by_the_same_person_or_of_a_part_does_not() {
        let (_root, run, replication) = run();
        let functional = ["Artifacts Evaluated: Functional"];
        let mut same_host = replication.clone();
        same_host.replica.host = same_host.original.host.clone();
        let mut same_agent = replication.clone();
        same_agent.replica.agent = same_agent.original.agent.clone();
        let mut part = replication.clone();
        part.extent = "spot: train raw".into();
        let mut failed = replication.clone();
        failed.claims[0].holds = false;
        for replication in [same_host, same_agent, failed] {
            assert_eq!(given(&run, &with(&run, replication)), functional);
        }
        let part = with(&run, part);
        assert_eq!(given(&run, &part), Vec::<&str>::new(), "some stages are not the run");
        let mut of_another = replication;
        of_another.original.uuid = "x".into();
        assert_eq!(given(&run, &with(&run, of_another)), Vec::<&str>::new());
    }
}
