//! From a file to its table.

use std::path::Path;

use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::reader::RowGroupReader;

use super::FORMAT;
use crate::columns::{Opened, check_lengths, prompt, read_column, read_lists};
use crate::error::CalibrateError;
use crate::meta::CalibrationMeta;
use crate::table::check_rewards;
use crate::{Calibration, Row};

/// Reads the calibration table at `path`.
///
/// # Errors
/// All name the path: [`CalibrateError::Open`], [`CalibrateError::Damaged`] for a file that is not whole
/// Parquet, [`CalibrateError::Foreign`] for other columns, missing metadata, another schema version, or
/// rows that no table holds.
pub fn read(path: impl AsRef<Path>) -> Result<Calibration, CalibrateError> {
    table(&FORMAT.open(path.as_ref())?)
}

/// Reads a calibration table from the bytes of its file.
///
/// - `name`: what errors call it, such as where the bytes come from.
///
/// # Errors
/// As [`read`], but that nothing is opened.
pub fn read_from(bytes: Vec<u8>, name: impl AsRef<Path>) -> Result<Calibration, CalibrateError> {
    table(&FORMAT.open_bytes(bytes, name.as_ref())?)
}

fn table(file: &Opened<'_>) -> Result<Calibration, CalibrateError> {
    let meta = CalibrationMeta::from_fields(|name| file.text(name));
    let mut calibration = Calibration::new(meta.map_err(|reason| file.foreign(reason))?);
    for columns in file.groups(read_row_group) {
        let rows = columns?.into_rows(calibration.meta());
        for row in rows.map_err(|reason| file.foreign(reason))? {
            calibration.push(row).map_err(|error| file.foreign(error.to_string()))?;
        }
    }
    Ok(calibration)
}

/// One row group, column by column.
struct Columns {
    ids: Vec<ByteArray>,
    keys: Vec<ByteArray>,
    samples: Vec<i32>,
    values: Vec<Vec<f32>>,
}

impl Columns {
    /// The rows, or what is wrong with the first that is none.
    fn into_rows(self, meta: &CalibrationMeta) -> Result<Vec<Row>, String> {
        check_lengths(&[self.ids.len(), self.keys.len(), self.samples.len(), self.values.len()])?;
        let heads = self.ids.iter().zip(&self.keys).zip(self.samples);
        let row = |(((id, key), samples), values)| row(id, key, samples, values, meta.quantiles);
        heads.zip(self.values).map(row).collect()
    }
}

/// Makes a row of what a file says of it.
fn row(
    id: &ByteArray,
    key: &ByteArray,
    samples: i32,
    values: Vec<f32>,
    quantiles: Option<usize>,
) -> Result<Row, String> {
    let (id, key) = prompt(id, key)?;
    check_rewards(id, &values, 2).map_err(|error| error.to_string())?;
    let samples = usize::try_from(samples).unwrap_or(0);
    let expected = quantiles.unwrap_or(samples);
    if values.len() != expected || samples < 2 {
        let found = values.len();
        return Err(format!("prompt `{id}` has {samples} samples, but a list of {found} rewards"));
    }
    if !values.is_sorted() {
        return Err(format!("the rewards of prompt `{id}` do not ascend"));
    }
    Ok(match quantiles {
        Some(_) => Row::of_quantiles(id, key, samples, values),
        None => Row::of_rewards(id, key, values),
    })
}

fn read_row_group(group: &dyn RowGroupReader) -> Result<Columns, ParquetError> {
    Ok(Columns {
        ids: read_column::<ByteArrayType>(group, 0)?,
        keys: read_column::<ByteArrayType>(group, 1)?,
        samples: read_column::<Int32Type>(group, 2)?,
        values: read_lists::<FloatType>(group, 3)?,
    })
}
