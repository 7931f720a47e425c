//! One-line forms: procedures, transforms, devices and names of models. What is read has to be written as it can be read again.
#![no_main]

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use infalign_backend::DeviceName;
use infalign_model::HubModel;
use infalign_transform::{Procedure, Transform};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    round_trip::<Procedure>(text);
    round_trip::<DeviceName>(text);
    if let Some(model) = HubModel::parse(Path::new(text)) {
        assert_eq!(HubModel::parse(Path::new(&model.to_string())), Some(model));
    }
    // The other target `table` reads tables; here the text could name any file of this machine.
    if text.starts_with("table:") {
        return;
    }
    if let Some(transform) = round_trip::<Transform>(text) {
        let values = [0.1, 0.5, 0.9, 1.0].map(|u| transform.apply(u));
        assert!(values.is_sorted(), "{transform}: {values:?}");
    }
});

fn round_trip<T: FromStr + Display + PartialEq>(text: &str) -> Option<T> {
    let read: T = text.parse().ok()?;
    let written = read.to_string();
    assert!(written.parse().ok().as_ref() == Some(&read), "{text} is written as {written}");
    Some(read)
}
