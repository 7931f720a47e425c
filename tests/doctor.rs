//! `infalign doctor`, as a user runs it.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::process::Command;

#[test]
fn the_cpu_works_and_what_is_missing_is_said() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_infalign"))
            .arg("doctor")
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
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
