//! The job of a cluster's scheduler that a run belongs to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A job of Slurm or PBS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// `slurm` or `pbs`.
    pub kind: String,
    /// The job's number.
    pub job: String,
    /// Its number within an array of jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array_task: Option<String>,
    /// The cluster's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Partition or queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Machines of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
    /// Processes of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<String>,
    /// GPUs of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<String>,
}

impl Scheduler {
    /// What the recorded environment says of a job.
    #[must_use]
    pub fn of(environment: &BTreeMap<String, String>) -> Option<Self> {
        let value = |name: &str| environment.get(name).cloned();
        if let Some(job) = value("SLURM_ARRAY_JOB_ID").or_else(|| value("SLURM_JOB_ID")) {
            return Some(Self {
                kind: "slurm".to_owned(),
                job,
                array_task: value("SLURM_ARRAY_TASK_ID"),
                cluster: value("SLURM_CLUSTER_NAME"),
                partition: value("SLURM_JOB_PARTITION"),
                nodes: value("SLURM_JOB_NUM_NODES"),
                tasks: value("SLURM_NTASKS"),
                gpus: value("SLURM_GPUS").or_else(|| value("SLURM_GPUS_ON_NODE")),
            });
        }
        value("PBS_JOBID").map(|job| Self {
            kind: "pbs".to_owned(),
            job,
            array_task: value("PBS_ARRAY_INDEX"),
            cluster: None,
            partition: value("PBS_QUEUE"),
            nodes: None,
            tasks: None,
            gpus: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(set: &[(&str, &str)]) -> Option<Scheduler> {
        Scheduler::of(&set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn jobs_of_slurm_and_pbs_are_told_apart() {
        assert_eq!(of(&[("LANG", "C")]), None);
        let array = of(&[
            ("SLURM_JOB_ID", "12"),
            ("SLURM_ARRAY_JOB_ID", "10"),
            ("SLURM_ARRAY_TASK_ID", "2"),
            ("SLURM_GPUS_ON_NODE", "1"),
        ]);
        let array = array.unwrap();
        assert_eq!((array.kind.as_str(), array.job.as_str()), ("slurm", "10"));
        assert_eq!((array.array_task.as_deref(), array.gpus.as_deref()), (Some("2"), Some("1")));
        let pbs = of(&[("PBS_JOBID", "7.head"), ("PBS_QUEUE", "long")]).unwrap();
        assert_eq!((pbs.kind.as_str(), pbs.partition.as_deref()), ("pbs", Some("long")));
    }
}
