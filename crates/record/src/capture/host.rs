//! The machine: processor, memory, system, and the libraries that numbers go through.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{line_of, printed_by, pseudonym};
use crate::env;
use crate::hash::sha256_file;

/// Instruction sets that decide which code runs, as Linux names them, of x86 and of ARM; others are of no concern.
const FLAGS: [&str; 17] = [
    "sse4_2",
    "avx",
    "fma",
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_bf16",
    "amx_tile",
    "asimd",
    "asimdhp",
    "asimddp",
    "bf16",
    "i8mm",
    "sve",
    "sve2",
    "sme",
];

/// Libraries whose version may change numbers.
const LIBRARIES: [&str; 5] = ["libc.so", "libm.so", "libcuda.so", "libnvrtc.so", "libcublas.so"];

/// A machine. What cannot be found out is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Tells machines apart without naming them: a digest of the host's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `linux`, `macos` or `windows`.
    pub os: String,
    /// Release of the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// `x86_64` or `aarch64`.
    pub architecture: String,
    /// The processor.
    pub cpu: Cpu,
    /// Bytes of main memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Whether it is a container's view of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<bool>,
    /// Shared libraries in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub libraries: Vec<Library>,
}

/// A processor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its maker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Version of its microcode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microcode: Option<String>,
    /// Logical processors that this process may use.
    pub available: usize,
    /// Instruction sets that decide which code runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// A shared library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    /// Name of its file.
    pub name: String,
    /// Of its file.
    pub sha256: String,
}

impl Host {
    /// This machine.
    #[must_use]
    pub fn here() -> Self {
        let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            id: name_of_host().map(|name| pseudonym(&name)),
            os: std::env::consts::OS.to_owned(),
            kernel: line_of("/proc/sys/kernel/osrelease"),
            architecture: std::env::consts::ARCH.to_owned(),
            cpu: cpu(&cpu_info),
            memory_bytes: kib(&memory, "MemTotal").map(|kib| kib * 1024),
            container: in_container(),
            libraries: libraries(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default()),
        }
    }
}

fn name_of_host() -> Option<String> {
    match std::env::consts::OS {
        // Unlike the host's name it does not change with the network.
        "macos" => printed_by("scutil", &["--get", "LocalHostName"]),
        "windows" => env::computer(),
        _ => line_of("/proc/sys/kernel/hostname"),
    }
}

/// The processor's name, of systems that tell it otherwise than by a file.
fn name_of_processor() -> Option<String> {
    match std::env::consts::OS {
        "macos" => printed_by("sysctl", &["-n", "machdep.cpu.brand_string"]),
        "windows" => env::processor(),
        _ => None,
    }
}

/// - `info`: what Linux says of all processors; empty elsewhere.
fn cpu(info: &str) -> Cpu {
    let flags = value(info, "flags").or_else(|| value(info, "Features")).unwrap_or_default();
    let flags: BTreeSet<&str> = flags.split_whitespace().collect();
    let name = value(info, "model name").or_else(|| cores(info)).or_else(name_of_processor);
    Cpu {
        model: name,
        vendor: value(info, "vendor_id"),
        microcode: value(info, "microcode"),
        available: std::thread::available_parallelism().map_or(1, usize::from),
        flags: FLAGS.into_iter().filter(|flag| flags.contains(flag)).map(str::to_owned).collect(),
    }
}

/// What stands behind a key of /proc/cpuinfo, of the first processor that has it.
fn value(info: &str, key: &str) -> Option<String> {
    let line = info.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

/// The kinds of cores of a processor that Linux has no name for, as of ARM's: the numbers of maker and model.
fn cores(info: &str) -> Option<String> {
    let kind = |core: &str| {
        let number = |name: &&str| Some(format!("{name} {}", value(core, &format!("CPU {name}"))?));
        let told = ["implementer", "part", "variant", "revision"];
        let told: Vec<String> = told.iter().filter_map(number).collect();
        (!told.is_empty()).then(|| told.join(" "))
    };
    let kinds: BTreeSet<String> = info.split("\n\n").filter_map(kind).collect();
    let kinds: Vec<String> = kinds.into_iter().collect();
    (!kinds.is_empty()).then(|| kinds.join(", "))
}

/// A line such as `MemTotal:  1024 kB` of the files of /proc.
pub(super) fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn in_container() -> Option<bool> {
    cfg!(target_os = "linux")
        .then(|| ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists()))
}

/// The libraries among those that a process has mapped.
fn libraries(maps: &str) -> Vec<Library> {
    let paths: BTreeSet<&Path> =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).map(Path::new).collect();
    let of_concern = |path: &&Path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| LIBRARIES.iter().any(|library| name.starts_with(library)))
    };
    let library = |path: &Path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        Some(Library { name, sha256: sha256_file(path).ok()? })
    };
    paths.into_iter().filter(of_concern).filter_map(library).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_read_from_what_linux_says_of_it() {
        let cpu = cpu("processor\t: 0\nvendor_id\t: Maker\nmodel name\t: Fast 9\n\
                       microcode\t: 0x2b\nflags\t\t: fpu avx avx2 rdtscp\n");
        assert_eq!(cpu.model.as_deref(), Some("Fast 9"));
        assert_eq!(
            (cpu.vendor.as_deref(), cpu.microcode.as_deref()),
            (Some("Maker"), Some("0x2b"))
        );
        assert_eq!(cpu.flags, ["avx", "avx2"]);
        assert_eq!(kib("MemFree: 7 kB\nMemTotal:    16 kB\n", "MemTotal"), Some(16));
    }

    #[test]
    fn a_processor_without_a_name_is_told_by_the_numbers_of_its_cores() {
        let core = |part: &str| {
            format!(
                "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd aes sve bf16 i8mm\n\
                 CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\n\
                 CPU part\t: {part}\nCPU revision\t: 1\n"
            )
        };
        let alike = cpu(&[core("0xd0c"), core("0xd0c")].join("\n"));
        let expected = "implementer 0x41 part 0xd0c variant 0x3 revision 1";
        assert_eq!(alike.model.as_deref(), Some(expected));
        assert_eq!(alike.flags, ["asimd", "bf16", "i8mm", "sve"]);
        let both = cpu(&[core("0xd0c"), core("0xd05")].join("\n")).model.unwrap();
        assert_eq!(both, format!("{}, {expected}", expected.replace("0xd0c", "0xd05")));
        assert_eq!(cores(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_is_told_without_its_name() {
        let host = Host::here();
        let name = line_of("/proc/sys/kernel/hostname").unwrap();
        let text = serde_json::to_string(&host).unwrap();
        assert!(host.memory_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(host.id, Some(pseudonym(&name)));
        assert!(!text.contains(&format!("\"{name}\"")), "{text}");
        assert_eq!(Host::here(), host);
    }
}
