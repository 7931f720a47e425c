//! A run of several steps: what makes its crate one of the Provenance Run Crate profile 0.5.
//!
//! The plan is a `ComputationalWorkflow` of steps; each step that was run is an action of the program, which a `ControlAction` ties to its
//! place in the plan; an `OrganizeAction` holds them together. `runcrate` and other readers find the steps in it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::RecordError;
use crate::atomic::write_atomic;
use crate::folder;
use crate::ro_crate::offset;

/// Where a run's steps are noted.
const WORKFLOW: &str = "workflow.json";

/// The profiles that the crate has besides that of a single process.
const PROFILES: [(&str, &str, &str); 3] = [
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/provenance/0.5", "Provenance Run Crate", "0.5"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
];
/// What a workflow entity is.
const TYPES: [&str; 4] = ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"];
const BIOSCHEMAS: &str = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE";
const LANGUAGE: &str = "#plan";
/// A page about the run, where it has one.
const README: &str = "README.md";

/// The steps of a run, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workflow {
    /// The plan's file in the run's folder.
    pub plan: String,
    /// What it is about.
    pub title: String,
    /// The steps that were run.
    pub steps: Vec<WorkflowStep>,
}

/// A step that was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowStep {
    /// Its name, which is no other's.
    pub name: String,
    /// The command line, as [`crate::command_line()`] writes it.
    pub command: String,
    /// UTC, RFC 3339.
    pub start: String,
    /// UTC, RFC 3339.
    pub end: String,
    /// Folder or beginning of the files that it made, in the run's folder.
    pub made: String,
}

impl Workflow {
    /// Notes the steps in the run's folder: they become part of the crate when the record is closed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, run: &Path) -> Result<(), RecordError> {
        write_atomic(&run.join(WORKFLOW), |file| Ok(serde_json::to_writer_pretty(file, self)?))
    }

    /// The steps that a run's folder has noted, if it has.
    pub(crate) fn read(run: &Path) -> Result<Option<Self>, RecordError> {
        if !run.join(WORKFLOW).exists() {
            return Ok(None);
        }
        folder::json(run, WORKFLOW).map(Some)
    }

    /// Adds the workflow to the crate of the run as a single process, the run's action and its program included.
    pub(crate) fn describe(&self, graph: &mut Vec<Value>, (action, program): (&Value, &Value)) {
        let outputs: Vec<String> = graph
            .iter()
            .filter(|entity| entity["@type"] == "File")
            .filter_map(|entity| entity["@id"].as_str().map(str::to_owned))
            .collect();
        let steps = self.steps.iter().zip(1..);
        let added: Vec<Value> = steps
            .flat_map(|(step, position)| step.entities(position, action, program, &outputs))
            .chain([self.organization(action, program), engine(program)])
            .chain([json!({ "@id": LANGUAGE, "@type": "ComputerLanguage", "name": "plan of infalign, in TOML", "url": "https://toml.io" })])
            .chain(PROFILES.map(|(id, name, version)| {
                json!({ "@id": id, "@type": "CreativeWork", "name": name, "version": version })
            }))
            .collect();
        for entity in graph.iter_mut() {
            match entity["@id"].as_str() {
                Some("ro-crate-metadata.json") => self.declare(entity),
                Some("./") => self.root(entity),
                Some(id) if id == self.plan => self.plan(entity, program),
                Some(README) => entity["about"] = json!({ "@id": "./" }),
                Some(id) if action["@id"] == id => {
                    entity["instrument"] = json!({ "@id": self.plan })
                }
                _ => {}
            }
        }
        graph.extend(added);
    }

    fn declare(&self, descriptor: &mut Value) {
        let own = descriptor["conformsTo"].take();
        descriptor["conformsTo"] = json!([own, { "@id": PROFILES[2].0 }]);
    }

    fn root(&self, root: &mut Value) {
        let own = root["conformsTo"].take();
        let profiles = PROFILES.iter().map(|(id, ..)| json!({ "@id": id }));
        root["conformsTo"] = std::iter::once(own).chain(profiles).collect();
        root["mainEntity"] = json!({ "@id": self.plan });
        let run = root["mentions"].take();
        let actions = self.steps.iter().map(|step| json!({ "@id": step.action() }));
        let organization = json!({ "@id": ORGANIZATION });
        root["mentions"] = [run, organization].into_iter().chain(actions).collect();
    }

    fn plan(&self, plan: &mut Value, program: &Value) {
        plan["@type"] = json!(TYPES);
        plan["name"] = json!(self.title);
        plan["programmingLanguage"] = json!({ "@id": LANGUAGE });
        plan["conformsTo"] = json!({ "@id": BIOSCHEMAS });
        plan["hasPart"] = json!({ "@id": program["@id"] });
        plan["url"] = program["url"].clone();
        plan["version"] = program["softwareVersion"].clone();
        plan["step"] = self.steps.iter().map(|step| json!({ "@id": step.place() })).collect();
    }

    fn organization(&self, action: &Value, program: &Value) -> Value {
        let controls = self.steps.iter().map(|step| json!({ "@id": step.control() }));
        json!({
            "@id": ORGANIZATION, "@type": "OrganizeAction", "name": "the steps of the plan, one after the other",
            "instrument": { "@id": engine_id(program) }, "result": { "@id": action["@id"] },
            "object": controls.collect::<Vec<_>>(),
        })
    }
}

const ORGANIZATION: &str = "#organization";

/// What ran the steps: the same program, but readers keep the engine of a workflow apart from its tools.
fn engine(program: &Value) -> Value {
    let mut engine = program.clone();
    engine["@id"] = json!(engine_id(program));
    engine["name"] = json!("infalign reproduce");
    engine["description"] = json!("runs the steps of a plan, one after the other");
    engine
}

fn engine_id(program: &Value) -> String {
    format!("{}#reproduce", program["@id"].as_str().unwrap_or_default())
}

impl WorkflowStep {
    fn action(&self) -> String {
        format!("#action-{}", self.name)
    }

    fn place(&self) -> String {
        format!("#step-{}", self.name)
    }

    fn control(&self) -> String {
        format!("#control-{}", self.name)
    }

    /// Its place in the plan, the action that it was, and what ties the two.
    fn entities(
        &self,
        position: usize,
        run: &Value,
        program: &Value,
        outputs: &[String],
    ) -> [Value; 3] {
        let program = &program["@id"];
        // The folder `steps/a` and the files `steps/a.*`, but not those of a step `a-b`.
        let is_its = |id: &&String| {
            id.strip_prefix(&self.made).is_some_and(|rest| rest.starts_with(['/', '.']))
        };
        let made = outputs.iter().filter(is_its);
        let action = json!({
            "@id": self.action(), "@type": "CreateAction", "name": self.name,
            "description": self.command, "instrument": { "@id": program },
            "agent": run["agent"],
            "startTime": offset(&self.start), "endTime": offset(&self.end),
            "actionStatus": "http://schema.org/CompletedActionStatus",
            "result": made.map(|id| json!({ "@id": id })).collect::<Vec<_>>(),
        });
        let place = json!({
            "@id": self.place(), "@type": "HowToStep", "name": self.name,
            "position": position.to_string(), "workExample": { "@id": program },
        });
        let control = json!({
            "@id": self.control(), "@type": "ControlAction", "name": format!("run of the step {}", self.name),
            "instrument": { "@id": self.place() }, "object": { "@id": self.action() },
        });
        [place, action, control]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::recorder::Recorder;
    use crate::recorder::tests::opening;
    use crate::{RunDir, folder::CRATE};

    #[test]
    fn the_crate_of_a_run_with_steps_ties_each_to_its_place_and_its_files() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        RunDir::at(&run).unwrap();
        let recorder = Recorder::begin(&run, opening(&[])).unwrap();
        std::fs::create_dir_all(run.join("steps/one")).unwrap();
        std::fs::write(run.join("steps/one.json"), "{}").unwrap();
        std::fs::write(run.join("plan.toml"), "title = 'a plan'").unwrap();
        let step = WorkflowStep {
            name: "one".into(),
            command: "infalign doctor".into(),
            start: "2026-11-23T08:00:00Z".into(),
            end: "2026-11-23T08:00:01Z".into(),
            made: "steps/one".into(),
        };
        let workflow =
            Workflow { plan: "plan.toml".into(), title: "a plan".into(), steps: vec![step] };
        workflow.write(&run).unwrap();
        recorder.completed().unwrap();
        let document: Value = folder::json(&run, CRATE).unwrap();
        let graph = document["@graph"].as_array().unwrap();
        let entity = |id: &str| graph.iter().find(|entity| entity["@id"] == id).unwrap();
        let ids: BTreeSet<&str> = graph.iter().map(|e| e["@id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), graph.len(), "ids are unique");
        assert_eq!(entity("./")["mainEntity"]["@id"], "plan.toml");
        assert_eq!(entity("plan.toml")["step"][0]["@id"], "#step-one");
        assert_eq!(entity("#action-one")["result"][0]["@id"], "steps/one.json");
        assert_eq!(entity("#action-one")["description"], "infalign doctor");
        assert_eq!(entity("#control-one")["object"]["@id"], "#action-one");
        let main = graph.iter().find(|entity| entity["instrument"]["@id"] == "plan.toml").unwrap();
        assert_eq!(entity(ORGANIZATION)["result"]["@id"], main["@id"]);
    }
}
