//! `ro-crate-metadata.json`: a run's folder as an RO-Crate 1.1 of the Process Run Crate profile 0.5.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::RecordError;
use crate::address::encoded;
use crate::folder::{CONFIG, DIFF, EXPECT, PREVIEW, RECORD};
use crate::hash::sha256_file;
use crate::record::{Input, Output, Record, Status, media_type};
use crate::run_dir::START_FILE;
use crate::shell::command_line;
use crate::workflow::Workflow;

const CONTEXT: &str = "https://w3id.org/ro/crate/1.1/context";
const SPECIFICATION: &str = "https://w3id.org/ro/crate/1.1";
const PROFILE: &str = "https://w3id.org/ro/wfrun/process/0.5";
/// Terms of the profile that the context of RO-Crate 1.1 lacks.
const TERMS: &str = "https://w3id.org/ro/terms/workflow-run#";
/// What a folder without a licence is.
const NO_LICENSE: &str = "https://choosealicense.com/no-permission/";
const MAKER: &str = "#infalign";
const ANONYMOUS: &str = "#agent";

/// The metadata document of a finished run.
///
/// # Errors
/// When a file of the record cannot be read.
pub(crate) fn metadata(run: &Path, record: &Record) -> Result<Value, RecordError> {
    let (settings, inputs) = (own_files(run)?, inputs(record));
    let outputs = outputs(record);
    let is_part = |entity: &&Value| entity["@type"] == "File";
    let parts = settings.iter().chain(&inputs).chain(&outputs).filter(is_part).map(id).collect();
    let is_config = |entity: &&Value| entity["@id"] == CONFIG;
    let objects: Vec<Value> = settings.iter().filter(is_config).chain(&inputs).map(id).collect();
    let results: Vec<Value> = outputs.iter().map(id).collect();
    let properties = properties(record);
    let resources = resources(record);
    let agent = agent(record);
    let license = license(record);
    let program = program(record);
    let action = action(record, objects, results, (&properties, &resources), &agent);
    let mut graph = vec![
        json!({
            "@id": "ro-crate-metadata.json", "@type": "CreativeWork",
            "about": {"@id": "./"}, "conformsTo": {"@id": SPECIFICATION},
        }),
        root(record, parts, &license),
        json!({
            "@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5",
        }),
        json!({
            "@id": PREVIEW, "@type": "CreativeWork", "about": {"@id": "./"},
            "name": "The run as a page", "encodingFormat": "text/html",
        }),
        program.clone(),
        json!({
            "@id": MAKER, "@type": "Organization", "name": "infalign, which wrote this folder",
            "url": record.build.uri(),
        }),
        action.clone(),
        agent,
        license,
    ];
    graph.extend(settings.into_iter().chain(inputs).chain(outputs));
    graph.extend(properties.into_iter().chain(resources));
    if let Some(workflow) = Workflow::read(run)? {
        workflow.describe(&mut graph, (&action, &program));
    }
    Ok(json!({ "@context": [CONTEXT, terms()], "@graph": graph }))
}

/// A reference to an entity.
fn id(entity: &Value) -> Value {
    json!({ "@id": entity["@id"] })
}

fn terms() -> Value {
    let term = |name: &str| format!("{TERMS}{name}");
    json!({
        "sha256": term("sha256"), "environment": term("environment"),
        "containerImage": term("containerImage"), "resourceUsage": term("resourceUsage"),
    })
}

fn root(record: &Record, parts: Vec<Value>, license: &Value) -> Value {
    json!({
        "@id": "./", "@type": "Dataset",
        "name": format!("infalign {} {}", record.command, record.start),
        "description": format!(
            "A run of `infalign {}`, {}: its inputs, settings and results with their digests. {RECORD} has all that was recorded.",
            record.command, record.status.word()
        ),
        "datePublished": offset(record.end.as_ref().unwrap_or(&record.start)),
        "conformsTo": {"@id": PROFILE}, "license": {"@id": license["@id"]},
        "author": {"@id": MAKER}, "publisher": {"@id": MAKER},
        "hasPart": parts, "mentions": {"@id": action_id(record)},
    })
}

fn action(
    record: &Record,
    objects: Vec<Value>,
    results: Vec<Value>,
    (properties, resources): (&[Value], &[Value]),
    agent: &Value,
) -> Value {
    let ids = |values: &[Value]| -> Vec<Value> { values.iter().map(id).collect() };
    let status = match record.status {
        Status::Completed => "http://schema.org/CompletedActionStatus",
        Status::Failed => "http://schema.org/FailedActionStatus",
        Status::Running => "http://schema.org/ActiveActionStatus",
    };
    let mut action = json!({
        "@id": action_id(record), "@type": "CreateAction", "name": format!("infalign {}", record.command),
        "description": command_line(&record.argv),
        "instrument": {"@id": record.build.uri()}, "agent": {"@id": agent["@id"]},
        "startTime": offset(&record.start), "endTime": record.end.as_deref().map(offset), "actionStatus": status,
        "object": objects, "result": results,
        "environment": ids(properties), "resourceUsage": ids(resources),
    });
    if let Some(error) = &record.error {
        action["error"] = json!(error);
    }
    if let Some(fields) = action.as_object_mut() {
        // A list of none or of one thing is written as nothing or as the thing.
        for name in ["object", "result", "environment", "resourceUsage"] {
            match fields.get(name).and_then(Value::as_array).map(Vec::as_slice) {
                Some([]) => drop(fields.remove(name)),
                Some([one]) => drop(fields.insert(name.to_owned(), one.clone())),
                _ => {}
            }
        }
    }
    action
}

fn action_id(record: &Record) -> String {
    format!("#{}", record.uuid)
}

/// The files of the record that are there.
fn own_files(run: &Path) -> Result<Vec<Value>, RecordError> {
    let described = [
        (START_FILE, "When the run began"),
        (CONFIG, "Every setting of the run"),
        (EXPECT, "What a replication has to reach, declared before the run"),
        (DIFF, "Changes to the program's source that are in no commit"),
        (RECORD, "Everything that was recorded of the run, host and devices included"),
    ];
    let mut files = Vec::new();
    for (name, description) in described {
        let path = run.join(name);
        let Ok(metadata) = path.metadata() else { continue };
        let mut entity = file(name, name, &sha256_file(&path)?, metadata.len(), media_type(name));
        entity["description"] = json!(description);
        files.push(entity);
    }
    Ok(files)
}

/// A time as the profile wants it, with its distance from UTC in digits.
pub(crate) fn offset(time: &str) -> String {
    time.replace('Z', "+00:00")
}

/// Each once, however many things it was read for.
fn inputs(record: &Record) -> Vec<Value> {
    let id = |input: &Input| match input.path.strip_prefix("$RUN/") {
        Some(inside) => encoded(inside),
        None => format!("urn:sha256:{}", input.sha256),
    };
    let mut seen = BTreeSet::new();
    let once = record.inputs.iter().filter(|input| seen.insert(id(input)));
    once.map(|input| {
        let mut entity =
            file(&id(input), &input.path, &input.sha256, input.bytes, media_type(&input.path));
        if !input.path.starts_with("$RUN/") {
            // It is no part of the folder, and nobody can fetch it from there.
            entity["@type"] = json!("CreativeWork");
        }
        entity["description"] = json!(format!("input: {}", input.role));
        entity
    })
    .collect()
}

fn outputs(record: &Record) -> Vec<Value> {
    let entity = |output: &Output| {
        let Output { path, sha256, bytes, media_type } = output;
        file(&encoded(path), path, sha256, *bytes, media_type)
    };
    record.outputs.iter().map(entity).collect()
}

fn file(id: &str, name: &str, sha256: &str, bytes: u64, media_type: &str) -> Value {
    json!({
        "@id": id, "@type": "File", "name": name, "sha256": sha256,
        "contentSize": bytes.to_string(), "encodingFormat": media_type,
    })
}

/// The environment and the seed.
fn properties(record: &Record) -> Vec<Value> {
    let seed = record.seed.as_ref().map(|seed| ("seed".to_owned(), seed.master.to_string()));
    let threads = ("threads".to_owned(), record.threads.to_string());
    let variables = record.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
    let all = seed.into_iter().chain([threads]).chain(variables);
    all.map(|(name, value)| {
        json!({ "@id": format!("#environment-{name}"), "@type": "PropertyValue", "name": name, "value": value })
    })
    .collect()
}

/// Memory and time, with the codes of their units in UN/CEFACT.
fn resources(record: &Record) -> Vec<Value> {
    let memory = record.peak_memory_bytes.map(|bytes| ("peak-memory", bytes.to_string(), "AD"));
    let seconds = record.seconds.map(|seconds| ("wall-time", format!("{seconds:.3}"), "SEC"));
    let all = memory.into_iter().chain(seconds);
    all.map(|(name, value, unit)| {
        json!({
            "@id": format!("#usage-{name}"), "@type": "PropertyValue", "name": name.replace('-', " "),
            "propertyID": name, "value": value, "unitCode": unit,
        })
    })
    .collect()
}

fn program(record: &Record) -> Value {
    json!({
        "@id": record.build.uri(), "@type": "SoftwareApplication", "name": "infalign",
        "url": record.build.uri(), "softwareVersion": record.build.full_version(),
        "description": "aligns language models for the decoder they will be used with",
    })
}

fn agent(record: &Record) -> Value {
    match &record.agent {
        Some(agent) => json!({
            "@id": agent.orcid.as_deref().unwrap_or(ANONYMOUS), "@type": "Person", "name": agent.name,
        }),
        None => json!({ "@id": ANONYMOUS, "@type": "Person", "name": "not recorded" }),
    }
}

fn license(record: &Record) -> Value {
    match &record.license {
        Some(license) => json!({ "@id": license, "@type": "CreativeWork", "name": license }),
        None => json!({
            "@id": NO_LICENSE, "@type": "CreativeWork", "name": "No licence was given",
            "description": "Nobody was given the right to use, change or share this folder.",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::tests::finished_run;

    fn document() -> Value {
        let root = tempfile::tempdir().unwrap();
        let run = finished_run(root.path(), "run");
        crate::folder::json(&run, crate::folder::CRATE).unwrap()
    }

    #[test]
    fn every_reference_leads_to_an_entity_or_out_of_the_crate() {
        let document = document();
        let graph = document["@graph"].as_array().unwrap();
        let ids: BTreeSet<&str> = graph.iter().map(|e| e["@id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), graph.len(), "ids are unique");
        let mut stack: Vec<&Value> = graph.iter().collect();
        while let Some(value) = stack.pop() {
            match value {
                Value::Object(fields) if fields.len() == 1 && fields.contains_key("@id") => {
                    let id = fields["@id"].as_str().unwrap();
                    assert!(ids.contains(id) || id == SPECIFICATION, "{id}");
                }
                Value::Object(fields) => stack.extend(fields.values()),
                Value::Array(values) => stack.extend(values),
                _ => {}
            }
        }
    }

    #[test]
    fn the_action_has_the_settings_and_inputs_as_objects_and_the_outputs_as_results() {
        let document = document();
        let graph = document["@graph"].as_array().unwrap();
        let action = graph.iter().find(|entity| entity["@type"] == "CreateAction").unwrap();
        let objects = action["object"].as_array().unwrap();
        assert_eq!(objects[0]["@id"], CONFIG);
        assert!(objects[1]["@id"].as_str().unwrap().starts_with("urn:sha256:"));
        assert_eq!(action["result"].as_array().unwrap().len(), 2);
        assert_eq!(action["actionStatus"], "http://schema.org/CompletedActionStatus");
    }
}
