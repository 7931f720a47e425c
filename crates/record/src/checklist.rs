//! Answers to the reproducibility questions that conferences ask, as far as a record gives them.

use crate::Record;
use crate::hash::head;
use crate::shell::command_line;
use crate::verify::Verified;

/// A question with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What is asked.
    pub question: &'static str,
    /// `Yes`, `No`, or `Authors`, where only they can answer.
    pub answer: &'static str,
    /// What the record says.
    pub evidence: String,
}

/// The answers for a verified run.
#[must_use]
pub fn checklist(verified: &Verified) -> Vec<Answer> {
    let record = &verified.record;
    let (verified, settings) = (verified.findings.is_empty(), record.config_sha256.is_some());
    vec![
        answer(
            "Can the result be told from what was changed after it?",
            verified,
            if verified {
                "every file has the digest that was recorded".to_owned()
            } else {
                "the folder does not verify".to_owned()
            },
        ),
        answer(
            "Is the code that made the result identified?",
            code(record).is_some(),
            code(record).unwrap_or_else(|| "the program was built without git".to_owned()),
        ),
        answer(
            "Are all hyperparameters given?",
            settings,
            if settings {
                "config.toml has every setting, defaults included".to_owned()
            } else {
                format!("the command line has them: {}", command_line(&record.argv))
            },
        ),
        answer("Are the data and models identified?", !record.inputs.is_empty(), inputs(record)),
        answer(
            "Are random seeds given?",
            record.seed.is_some(),
            record.seed.as_ref().map_or("no draw was made".to_owned(), |seed| {
                format!("seed {}; {}", seed.master, seed.rule)
            }),
        ),
        answer(
            "Is uncertainty reported?",
            intervals(record) > 0,
            format!(
                "{} numbers in results.json have an interval or a standard error",
                intervals(record)
            ),
        ),
        answer("Is the computing infrastructure described?", true, infrastructure(record)),
        answer("Is the cost told?", record.seconds.is_some(), cost(record)),
        answer(
            "Are software versions given?",
            true,
            format!(
                "infalign {}, burn {}, {}; Cargo.lock {}",
                record.build.full_version(),
                record.build.burn.as_deref().unwrap_or("unknown"),
                record.build.rustc,
                head(&record.build.cargo_lock_sha256)
            ),
        ),
        answer(
            "Is there a licence?",
            record.license.is_some(),
            record.license.clone().unwrap_or_else(|| "none was recorded".to_owned()),
        ),
        authors("How were hyperparameters chosen, and how many runs were made besides?"),
        authors(
            "Are limitations, consent of those whose data it is, and effects on others discussed?",
        ),
    ]
}

fn answer(question: &'static str, yes: bool, evidence: String) -> Answer {
    Answer { question, answer: if yes { "Yes" } else { "No" }, evidence }
}

fn authors(question: &'static str) -> Answer {
    Answer { question, answer: "Authors", evidence: "no record can tell".to_owned() }
}

fn code(record: &Record) -> Option<String> {
    let source = &record.build.source;
    let dirty =
        if source.dirty == Some(true) { ", with changes that are in no commit" } else { "" };
    Some(format!("{}{dirty}", source.revision.as_ref().or(source.commit.as_ref())?))
}

fn inputs(record: &Record) -> String {
    let inputs = record.inputs.iter();
    let each = inputs
        .map(|input| format!("{} {} (SHA-256 {})", input.role, input.path, head(&input.sha256)));
    let each: Vec<String> = each.collect();
    if each.is_empty() { "no input was recorded".to_owned() } else { each.join("; ") }
}

fn intervals(record: &Record) -> usize {
    let spread = |name: &&String| name.ends_with(".low") || name.ends_with(".standard_error");
    record.metrics.keys().filter(spread).count()
}

fn infrastructure(record: &Record) -> String {
    let host = &record.host;
    let memory = host.memory_bytes.map_or(String::new(), |bytes| format!(", {} GiB", bytes >> 30));
    let gpus: String =
        record.gpus.iter().map(|gpu| format!("; {} driver {}", gpu.name, gpu.driver)).collect();
    let job = record
        .scheduler
        .as_ref()
        .map_or(String::new(), |job| format!("; {} job {}", job.kind, job.job));
    format!(
        "{}, {} threads{memory}, {} {}{gpus}{job}",
        host.cpu.model.as_deref().unwrap_or("unknown processor"),
        record.threads,
        host.os,
        host.architecture
    )
}

fn cost(record: &Record) -> String {
    let seconds =
        record.seconds.map_or("unknown time".to_owned(), |seconds| format!("{seconds:.1} s"));
    let memory = record
        .peak_memory_bytes
        .map_or(String::new(), |bytes| format!(", {} MiB at most", bytes >> 20));
    let (of, before) = match record.last_process() {
        Some(last) => (format!("{last}: "), "; in all "),
        None => (String::new(), ", "),
    };
    let steps =
        record.steps.map_or(String::new(), |steps| format!("{before}{steps} training steps"));
    format!("{of}{seconds}{memory}{steps}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;
    use crate::recorder::tests::{finished_run, opening};
    use crate::verify::verify;

    #[test]
    fn answers_come_from_the_record_and_what_it_lacks_is_no() {
        let root = tempfile::tempdir().unwrap();
        let run = finished_run(root.path(), "run");
        let answers = checklist(&verify(&run).unwrap());
        let of = |word: &str| answers.iter().find(|a| a.question.contains(word)).unwrap();
        assert_eq!(of("hyperparameters given").answer, "Yes");
        assert!(of("seeds").evidence.starts_with("seed 7"));
        assert_eq!((of("code").answer, of("licence").answer), ("No", "No"));
        assert!(of("data and models").evidence.contains("data.jsonl"));
        assert_eq!(of("changed after").answer, "Yes");
        std::fs::write(run.join("results.json"), "{}").unwrap();
        assert_eq!(checklist(&verify(&run).unwrap())[0].answer, "No");
    }

    #[test]
    fn time_and_memory_of_a_run_that_went_on_are_those_of_its_last_process() {
        let root = tempfile::tempdir().unwrap();
        let run = finished_run(root.path(), "run");
        let told = cost(&crate::folder::record(&run).unwrap());
        assert!(!told.contains("the last of") && told.ends_with(", 2 training steps"), "{told}");
        let record = Recorder::begin(&run, opening(&[])).unwrap().completed().unwrap();
        let told = cost(&record);
        assert!(told.starts_with("the last of 2 processes: "), "{told}");
        assert!(told.ends_with("; in all 2 training steps"), "{told}");
        let page = crate::preview::html(&record);
        assert!(page.contains(" seconds of the last of 2 processes."), "{page}");
    }
}
