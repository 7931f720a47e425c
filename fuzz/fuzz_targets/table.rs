//! Tables `u,phi` of a transform.
#![no_main]

use infalign_fuzz::Folder;
use infalign_transform::Table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let folder = Folder::new();
    let path = folder.write("phi.csv", data);
    let Ok(table) = Table::read(&path) else { return };
    // Written from 1 − u and Φ(1) − Φ(u), so that points that nearly coincide may do so when read again.
    folder.write("phi.csv", table.to_csv());
    let _ = Table::read(&path);
    let transform = infalign_transform::Transform::Table(table.into());
    let values: Vec<f64> = (0..=16).map(|step| transform.apply(f64::from(step) / 16.0)).collect();
    assert!(values.iter().all(|value| (-1e-9..=1.0 + 1e-9).contains(value)), "{values:?}");
});
