//! From a table to its file.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::{KEY, ROW_GROUP, SCHEMA};
use crate::error::CalibrateError;
use crate::meta::SCHEMA_VERSION;
use crate::{Calibration, Row};

/// Writes `calibration` as one Parquet file to `writer`.
///
/// # Errors
/// [`CalibrateError::Write`] when the writer fails.
pub fn write_to(
    calibration: &Calibration,
    writer: impl Write + Send,
) -> Result<(), CalibrateError> {
    write_file(calibration, writer).map_err(CalibrateError::Write)
}

fn write_file(calibration: &Calibration, writer: impl Write + Send) -> Result<(), ParquetError> {
    let pair = |(name, value)| KeyValue::new(format!("{KEY}{name}"), value);
    let version = ("schema_version", SCHEMA_VERSION.to_string());
    let fields = std::iter::once(version).chain(calibration.meta().fields());
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_key_value_metadata(Some(fields.map(pair).collect()))
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut file = SerializedFileWriter::new(writer, schema, Arc::new(properties))?;
    for rows in calibration.rows().chunks(ROW_GROUP) {
        write_row_group(file.next_row_group()?, rows)?;
    }
    file.close()?;
    Ok(())
}

fn write_row_group<W: Write + Send>(
    mut group: SerializedRowGroupWriter<'_, W>,
    rows: &[Row],
) -> Result<(), ParquetError> {
    let ids: Vec<ByteArray> = rows.iter().map(|row| row.id().into()).collect();
    let keys: Vec<ByteArray> = rows.iter().map(|row| row.key().bytes().to_vec().into()).collect();
    let samples: Vec<i32> = rows.iter().map(|row| row.samples() as i32).collect();
    let values: Vec<f32> = rows.iter().flat_map(|row| row.values().iter().copied()).collect();
    // Repetition level 0 starts a list, 1 goes on with it; definition level 1 is a value.
    let starts = |row: &Row| (0..row.values().len()).map(|i| i16::from(i > 0));
    let repetition: Vec<i16> = rows.iter().flat_map(starts).collect();
    let definition = vec![1i16; values.len()];
    write_column::<ByteArrayType, W>(&mut group, &ids, None)?;
    write_column::<ByteArrayType, W>(&mut group, &keys, None)?;
    write_column::<Int32Type, W>(&mut group, &samples, None)?;
    write_column::<FloatType, W>(&mut group, &values, Some((&definition, &repetition)))?;
    group.close()?;
    Ok(())
}

fn write_column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<(&[i16], &[i16])>,
) -> Result<(), ParquetError> {
    if let Some(mut column) = group.next_column()? {
        let (definition, repetition) = levels.unzip();
        column.typed::<T>().write_batch(values, definition, repetition)?;
        column.close()?;
    }
    Ok(())
}
