//! `infalign doctor`: what this machine and this build can do, and why not more.

use clap::Args;
use infalign_backend::{ComputeBackend, KNOWN, compiled, try_out};
use infalign_record::env::data_dir;
use serde_json::{Value, json};

use crate::build_record::build_record;
use crate::failure::Failure;
use crate::machine::Memory;
use crate::output;

/// Arguments of `infalign doctor`.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
}

/// One backend on this machine.
struct Backend {
    name: &'static str,
    /// Devices that it finds; none where it is not compiled in.
    devices: Vec<Device>,
    deterministic: bool,
    /// Why its first device cannot be used.
    problem: Option<String>,
}

/// One device of a backend.
struct Device {
    /// What it calls itself.
    name: String,
    /// Its memory in bytes, where it has its own and tells.
    memory: Option<u64>,
}

/// Prints the report.
///
/// # Errors
/// [`Failure::Check`] when no backend works.
pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let memory = Memory::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let backends: Vec<Backend> = KNOWN.iter().map(|name| examine(name)).collect();
    if args.json {
        let backends: Vec<Value> = backends.iter().map(document).collect();
        let memory = json!({ "total_bytes": memory.total, "available_bytes": memory.available });
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"), "burn": burn_version(), "os": std::env::consts::OS,
            "architecture": std::env::consts::ARCH, "cores": cores, "memory": memory,
            "backends": backends, "data": data_dir(),
        });
        output::print(&format!("{report:#}"))?;
    } else {
        output::print_rows(&rows(memory, cores, &backends))?;
    }
    if backends.iter().all(|backend| backend.problem.is_some()) {
        return Err(Failure::Check(anyhow::anyhow!(
            "no backend works: nothing can be computed here"
        )));
    }
    Ok(())
}

fn examine(name: &'static str) -> Backend {
    let Some(backend) = compiled().iter().find(|backend| backend.name() == name) else {
        let problem = format!("not compiled in: build with cargo xtask COMMAND --backend {name}");
        return Backend { name, devices: Vec::new(), deterministic: false, problem: Some(problem) };
    };
    Backend {
        name,
        devices: (0..backend.count()).map(|index| describe(*backend, index)).collect(),
        deterministic: backend.deterministic(),
        problem: try_out(*backend, 0).err().map(|error| error.to_string()),
    }
}

fn describe(backend: &dyn ComputeBackend, index: usize) -> Device {
    let (name, memory) =
        backend.describe(index).unwrap_or_else(|| ("this machine's processor".into(), None));
    Device { name, memory }
}

fn document(backend: &Backend) -> Value {
    let device = |device: &Device| json!({ "name": device.name, "memory_bytes": device.memory });
    let devices: Vec<Value> = backend.devices.iter().map(device).collect();
    json!({
        "name": backend.name, "works": backend.problem.is_none(), "devices": devices,
        "deterministic": backend.deterministic, "problem": backend.problem,
    })
}

fn rows(memory: Memory, cores: usize, backends: &[Backend]) -> Vec<(String, String)> {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let (total, free) = (gib(memory.total), gib(memory.available));
    let data = data_dir().map_or(
        "INFALIGN_DATA is not set; only some recipes need it".to_owned(),
        |data| {
            let there = if data.is_dir() { "" } else { ", which is not there" };
            format!("{}{there}", data.display())
        },
    );
    let versions = format!("{}, burn {}", env!("CARGO_PKG_VERSION"), burn_version());
    let system = format!("{} {}, {cores} cores", std::env::consts::OS, std::env::consts::ARCH);
    let mut rows = vec![
        ("infalign".to_owned(), versions),
        ("system".to_owned(), system),
        ("memory".to_owned(), format!("{total:.1} GiB, {free:.1} GiB of it available")),
        ("data".to_owned(), data),
    ];
    rows.extend(backends.iter().map(|backend| {
        let repeats =
            if backend.deterministic { "repeats bit for bit" } else { "may differ in last bits" };
        let device = |device: &Device| match device.memory {
            Some(bytes) => format!("{}, {:.1} GiB", device.name, gib(bytes)),
            None => device.name.clone(),
        };
        let devices: Vec<String> = backend.devices.iter().map(device).collect();
        let works = format!("works on {}; {repeats}", devices.join(" and "));
        (format!("--device {}", backend.name), backend.problem.clone().unwrap_or(works))
    }));
    rows
}

/// The version of burn that this was built with.
fn burn_version() -> String {
    build_record().burn.unwrap_or_else(|| "unknown".to_owned())
}
