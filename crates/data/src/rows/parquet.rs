//! Rows of a Parquet file, compressed with Snappy or Zstandard or not at all.

use std::fs::File;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::Field;
use serde_json::{Map, Value};

use super::Row;
use crate::{DataError, Place};

pub(super) fn read(path: &Path) -> Result<Vec<Row>, DataError> {
    let file =
        File::open(path).map_err(|cause| DataError::Open { path: path.to_path_buf(), cause })?;
    let rows = std::panic::catch_unwind(|| rows(file)).unwrap_or_else(|_| {
        // `parquet` takes some bytes on trust and panics where they are damaged.
        Err(ParquetError::General("its bytes contradict each other".to_owned()))
    });
    rows.map_err(|cause| {
        let path = path.to_path_buf();
        match unsupported_codec(&cause.to_string()) {
            Some(codec) => DataError::Codec { path, codec },
            None => DataError::Parquet { path, cause },
        }
    })
}

/// The compression that the reader says it was built without, or that it does not know.
fn unsupported_codec(told: &str) -> Option<String> {
    if let Some((_, feature)) = told.split_once("Disabled feature at compile time: ") {
        // By the name of the format, not of what unpacks it.
        return Some(if feature == "flate2" { "gzip" } else { feature }.to_owned());
    }
    let (_, rest) = told.split_once("The codec type ")?;
    Some(rest.split(' ').next()?.to_owned())
}

fn rows(file: File) -> Result<Vec<Row>, ParquetError> {
    let reader = SerializedFileReader::new(file)?;
    let rows = reader.get_row_iter(None)?;
    rows.zip(1..)
        .map(|(row, number)| Ok(Row { place: Place::Row(number), values: object(&row?) }))
        .collect()
}

fn object(row: &parquet::record::Row) -> Map<String, Value> {
    row.get_column_iter().map(|(key, field)| (key.clone(), value(field))).collect()
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(text) => text.as_str().into(),
        // Text that its writer did not mark as such, or bytes of a column that nobody may ask for.
        Field::Bytes(bytes) => bytes.as_utf8().map_or_else(|_| bytes.data().into(), Value::from),
        Field::Group(row) => object(row).into(),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_that_cannot_be_read_is_named_with_those_that_can() {
        let told = |told: &str| ParquetError::General(told.to_owned()).to_string();
        let disabled =
            |feature: &str| told(&format!("Disabled feature at compile time: {feature}"));
        for (told, expected) in [
            (disabled("brotli"), Some("brotli")),
            (disabled("flate2"), Some("gzip")),
            (told("The codec type LZO is not supported yet"), Some("LZO")),
            (told("its bytes contradict each other"), None),
        ] {
            assert_eq!(unsupported_codec(&told).as_deref(), expected, "{told}");
        }
        let error = DataError::Codec { path: "a.parquet".into(), codec: "brotli".into() };
        let message = error.to_string();
        assert!(message.contains("a.parquet cannot be read as Parquet: it is"), "{message}");
        assert!(message.contains("compressed with brotli"), "{message}");
        assert!(message.contains("Snappy or Zstandard"), "{message}");
    }
}
