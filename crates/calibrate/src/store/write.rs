//! From a table to its file.

use std::io::Write;

use parquet::data_type::{FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedRowGroupWriter;

use super::FORMAT;
use crate::columns::{ROW_GROUP, write_column, write_lists, write_prompts};
use crate::error::CalibrateError;
use crate::{Calibration, Row};

/// Writes `calibration` as one Parquet file to `writer`.
///
/// # Errors
/// [`CalibrateError::Write`] when the writer fails.
pub fn write_to<W: Write + Send>(
    calibration: &Calibration,
    writer: W,
) -> Result<(), CalibrateError> {
    let groups = calibration.rows().chunks(ROW_GROUP);
    let metadata = calibration.meta().fields().into_iter();
    FORMAT.write(writer, metadata, groups, write_rows::<W>).map_err(CalibrateError::Write)
}

fn write_rows<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[Row],
) -> Result<(), ParquetError> {
    let samples: Vec<i32> = rows.iter().map(|row| row.samples() as i32).collect();
    write_prompts(group, rows.iter().map(|row| (row.id(), row.key())))?;
    write_column::<Int32Type, W>(group, &samples)?;
    write_lists::<FloatType, W>(group, rows.iter().map(Row::values))
}
