//! Files that the tests write, in every format.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::basic::Compression as ParquetCompression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde_json::{Map, Value};
use tempfile::TempDir;

/// Writes `bytes` to a file of that name in `folder`.
pub(crate) fn file(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

pub(crate) fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The rows as JSON Lines.
pub(crate) fn jsonl(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// The rows, which all have the keys of the first and no lists, as CSV in which all is quoted.
pub(crate) fn csv(rows: &[Value]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let cell = |value: &Value| quoted(value.as_str().unwrap_or(&value.to_string()));
    let header: Vec<_> = object(&rows[0]).keys().map(|key| quoted(key)).collect();
    let lines = rows.iter().map(|row| object(row).values().map(cell).collect::<Vec<_>>());
    std::iter::once(header).chain(lines).map(|cells| cells.join(",") + "\n").collect()
}

/// The rows, which all have the keys and kinds of the first, as a Parquet file packed with Snappy,
/// which pandas and Hugging Face `datasets` write by default.
pub(crate) fn write_parquet(path: &Path, rows: &[Value]) {
    let fields = object(&rows[0]).iter().map(|(key, value)| match value {
        Value::Bool(_) => format!("optional boolean {key};"),
        Value::Number(number) if number.is_i64() => format!("optional int64 {key};"),
        Value::Number(_) => format!("optional double {key};"),
        Value::Array(_) => format!(
            "optional group {key} (LIST) {{ repeated group list {{ optional group element {{
                optional binary role (STRING); optional binary content (STRING); }} }} }}"
        ),
        _ => format!("optional binary {key} (STRING);"),
    });
    let schema = format!("message rows {{ {} }}", fields.collect::<String>());
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let properties =
        WriterProperties::builder().set_compression(ParquetCompression::SNAPPY).build();
    let out = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(out, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for (key, kind) in object(&rows[0]) {
        let values: Vec<&Value> = rows.iter().map(|row| &row[key]).collect();
        match kind {
            Value::Bool(_) => flat::<BoolType>(&mut group, &values, Value::as_bool),
            Value::Number(number) if number.is_i64() => {
                flat::<Int64Type>(&mut group, &values, Value::as_i64);
            }
            Value::Number(_) => flat::<DoubleType>(&mut group, &values, Value::as_f64),
            Value::Array(_) => {
                messages(&mut group, &values, "role");
                messages(&mut group, &values, "content");
            }
            _ => flat::<ByteArrayType>(&mut group, &values, |v| v.as_str().map(ByteArray::from)),
        }
    }
    group.close().unwrap();
    writer.close().unwrap();
}

/// An optional column: the level is 1 where there is a value.
fn flat<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, std::fs::File>,
    values: &[&Value],
    get: impl Fn(&Value) -> Option<T::T>,
) {
    let levels: Vec<i16> = values.iter().map(|value| i16::from(!value.is_null())).collect();
    let present: Vec<T::T> = values.iter().filter_map(|value| get(value)).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(&present, Some(&levels), None).unwrap();
    column.close().unwrap();
}

/// One leaf of the lists of messages: each of their four levels is there, and the first message
/// of a row begins a new list.
fn messages(
    group: &mut SerializedRowGroupWriter<'_, std::fs::File>,
    values: &[&Value],
    leaf: &str,
) {
    let (mut texts, mut repetition) = (Vec::new(), Vec::new());
    for value in values {
        for (index, message) in value.as_array().unwrap().iter().enumerate() {
            texts.push(ByteArray::from(message[leaf].as_str().unwrap()));
            repetition.push(i16::from(index > 0));
        }
    }
    let definition = vec![4; texts.len()];
    let mut column = group.next_column().unwrap().unwrap();
    let leaf = column.typed::<ByteArrayType>();
    leaf.write_batch(&texts, Some(&definition), Some(&repetition)).unwrap();
    column.close().unwrap();
}

fn object(row: &Value) -> &Map<String, Value> {
    row.as_object().unwrap()
}
