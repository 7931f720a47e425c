//! What differs around two runs: devices, programs, machines.

use std::collections::BTreeSet;

use crate::capture::Gpu;
use crate::hash::head;
use crate::record::Record;

/// Something around the runs that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What.
    pub what: &'static str,
    /// In the first run.
    pub original: String,
    /// In the second.
    pub replica: String,
    /// What it can do to numbers.
    pub effect: &'static str,
}

const OTHER: &str = "another program may compute something else";
const ROUNDING: &str =
    "rounding: the last bits of numbers, and in training whatever follows from them";
const SPEED: &str = "speed alone, by this project's tests";

/// What is looked at, what it can do to numbers, and where it stands in a record; what changes numbers most first.
type Looked = (&'static str, &'static str, fn(&Record) -> Option<String>);

const LOOKED_AT: [Looked; 18] = [
    ("device", ROUNDING, |r| r.device.as_ref().map(|device| device.name.clone())),
    ("GPU", ROUNDING, |r| gpu(r, |gpu| &gpu.name)),
    ("driver", ROUNDING, |r| gpu(r, |gpu| &gpu.driver)),
    ("source", OTHER, |r| Some(head(&r.build.source.sha256).to_owned())),
    ("Cargo.lock", OTHER, |r| Some(head(&r.build.cargo_lock_sha256).to_owned())),
    ("features", OTHER, |r| Some(r.build.features.clone())),
    ("compiler", ROUNDING, |r| Some(r.build.rustc.clone())),
    ("profile", ROUNDING, |r| Some(r.build.profile.clone())),
    ("target", ROUNDING, |r| Some(r.build.target.clone())),
    ("target features", ROUNDING, |r| Some(r.build.target_features.clone())),
    ("instruction sets", ROUNDING, |r| Some(r.host.cpu.flags.join(" "))),
    ("processor", ROUNDING, |r| r.host.cpu.model.clone()),
    ("libm", ROUNDING, |r| library(r, "libm.so")),
    ("libc", SPEED, |r| library(r, "libc.so")),
    ("program", OTHER, |r| r.executable_sha256.as_deref().map(|digest| head(digest).to_owned())),
    ("threads", SPEED, |r| Some(r.threads.to_string())),
    ("kernel", SPEED, |r| r.host.kernel.clone()),
    ("host", SPEED, |r| r.host.id.clone()),
];

/// What differs around two runs, what changes numbers most first.
#[must_use]
pub fn environment(original: &Record, replica: &Record) -> Vec<Difference> {
    let looked = LOOKED_AT
        .iter()
        .filter_map(|(what, effect, of)| difference(what, effect, of(original), of(replica)));
    let names: BTreeSet<&String> =
        original.environment.keys().chain(replica.environment.keys()).collect();
    let variables = names.into_iter().filter_map(|name| {
        let of = |r: &Record| r.environment.get(name).map(|value| format!("{name}={value}"));
        difference("variable", SPEED, of(original), of(replica))
    });
    looked.chain(variables).collect()
}

fn difference(
    what: &'static str,
    effect: &'static str,
    original: Option<String>,
    replica: Option<String>,
) -> Option<Difference> {
    if original == replica {
        return None;
    }
    let [original, replica] = [original, replica].map(|v| v.unwrap_or_else(|| "none".to_owned()));
    Some(Difference { what, original, replica, effect })
}

fn gpu(record: &Record, of: fn(&Gpu) -> &String) -> Option<String> {
    record.gpus.first().map(of).cloned()
}

fn library(record: &Record, name: &str) -> Option<String> {
    let library = record.host.libraries.iter().find(|library| library.name.starts_with(name));
    library.map(|library| head(&library.sha256).to_owned())
}
