//! TensorBoard's event files.
//!
//! A file is a row of records: the length (u64), its checksum, the bytes, their checksum, all little-endian. The checksum is CRC-32C, masked
//! as TensorFlow does. The bytes are an `Event` of TensorFlow's event.proto, of which three kinds are written: the version of the file, the
//! start of a session, and a summary with one number a metric.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use infalign_record::clock;
use serde_json::{Map, Value};

/// An open event file.
pub(super) struct Events {
    file: File,
}

impl Events {
    /// Begins a file of its own in a folder. Of what earlier files there say of steps that are done again, TensorBoard forgets it all.
    ///
    /// - steps_done: steps that are not done again.
    pub(super) fn begin(dir: &Path, steps_done: usize) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let seconds = clock::now().unix_timestamp();
        // TensorBoard reads files in the order of their names.
        let file =
            File::create(dir.join(format!("events.out.tfevents.{seconds}.{steps_done:06}")))?;
        let mut events = Self { file };
        events.record(&event(0, &bytes(3, b"brain.Event:2")))?;
        let start = number(1, 1);
        events.record(&event(steps_done as u64 + 1, &bytes(7, &start)))?;
        Ok(events)
    }

    /// Appends a step's numbers, each under `prefix` and its key.
    pub(super) fn append(&mut self, prefix: &str, metrics: &Map<String, Value>) -> io::Result<()> {
        let mut summary = Vec::new();
        for (key, value) in metrics.iter().filter(|(key, _)| *key != "step") {
            if let Some(value) = value.as_f64() {
                let tag = format!("{prefix}{key}");
                let value = [bytes(1, tag.as_bytes()), float(2, value as f32)].concat();
                summary.extend(bytes(1, &value));
            }
        }
        let step = metrics.get("step").and_then(Value::as_u64).unwrap_or(0);
        self.record(&event(step, &bytes(5, &summary)))
    }

    fn record(&mut self, event: &[u8]) -> io::Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let record = [&length, &checksum(&length)[..], event, &checksum(event)].concat();
        self.file.write_all(&record)
    }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// An `Event`: the time, the step, and what it says.
fn event(step: u64, said: &[u8]) -> Vec<u8> {
    let seconds = clock::now().unix_timestamp_nanos() as f64 / 1e9;
    [&[1 << 3 | 1][..], &seconds.to_le_bytes(), &number(2, step), said].concat()
}

/// A field that is bytes, text or a message.
fn bytes(field: u8, bytes: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat()
}

/// A field that is a whole number.
fn number(field: u8, value: u64) -> Vec<u8> {
    [&[field << 3][..], &varint(value)].concat()
}

/// A field that is a float.
fn float(field: u8, value: f32) -> Vec<u8> {
    [&[field << 3 | 5][..], &value.to_le_bytes()].concat()
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 128 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_seven_bits_a_byte() {
        assert_eq!(varint(5), [5]);
        assert_eq!(varint(300), [0b1010_1100, 0b10]);
    }

    /// CRC-32C of thirty-two zeros is an example of RFC 3720.
    #[test]
    fn checksums_are_masked() {
        let masked = 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(checksum(&[0; 32]), masked.to_le_bytes());
    }

    #[test]
    fn a_file_has_the_version_the_start_and_a_record_a_step() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = Events::begin(dir.path(), 7).unwrap();
        let step = serde_json::json!({ "step": 8, "kl": 0.5, "solver": "rloo" });
        events.append("a/", step.as_object().unwrap()).unwrap();
        let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let mut rest = &std::fs::read(file).unwrap()[..];
        let mut said = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(checksum(&rest[..8]), rest[8..12]);
            let event = &rest[12..12 + length];
            assert_eq!(checksum(event), rest[12 + length..16 + length]);
            // Behind the time: nine bytes.
            said.push(event[9..].to_vec());
            rest = &rest[16 + length..];
        }
        let summary = [bytes(1, b"a/kl"), float(2, 0.5)].concat();
        let expected = [
            [number(2, 0), bytes(3, b"brain.Event:2")].concat(),
            [number(2, 8), bytes(7, &number(1, 1))].concat(),
            [number(2, 8), bytes(5, &bytes(1, &summary))].concat(),
        ];
        assert_eq!(said, expected, "what is no number is left out");
    }
}
