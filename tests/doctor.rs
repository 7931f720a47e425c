//! `infalign doctor`, as a user runs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::{done, infalign};

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_named() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = infalign(&["doctor"]).stdout(full).output().unwrap();
    let errors = common::stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("cannot write to standard output: No space left"), "{errors}");
}

#[test]
fn the_cpu_works_and_what_is_missing_is_said() {
    let run = |arguments: &[&str]| done(infalign(&[&["doctor"], arguments].concat()));
    let report: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(report["burn"], "0.22.1");
    let memory = |key: &str| report["memory"][key].as_u64().unwrap();
    assert!(
        memory("total_bytes") >= memory("available_bytes") && memory("available_bytes") > 1 << 20
    );
    let backends = report["backends"].as_array().unwrap();
    assert_eq!(backends.len(), 3);
    assert_eq!((&backends[0]["name"], &backends[0]["works"]), (&"cpu".into(), &true.into()));
    assert_eq!(backends[0]["devices"].as_array().unwrap().len(), 1);
    for backend in backends.iter().filter(|backend| backend["works"] == false) {
        assert!(backend["problem"].as_str().unwrap().len() > 10, "{backend}");
    }
    let text = run(&[]);
    assert!(
        text.contains("--device cpu") && text.contains("works on this machine's processor"),
        "{text}"
    );
}
