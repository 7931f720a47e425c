//! From a file to its table.

use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;

use super::{KEY, ROW_GROUP};
use crate::error::CalibrateError;
use crate::meta::{CalibrationMeta, SCHEMA_VERSION};
use crate::table::check_rewards;
use crate::{Calibration, PromptKey, Row};

/// Reads the calibration table at `path`.
///
/// # Errors
/// All name the path: [`CalibrateError::Open`], [`CalibrateError::Damaged`] for a file that is not whole
/// Parquet, [`CalibrateError::Foreign`] for other columns, missing metadata, another schema version, or
/// rows that no table holds.
pub fn read(path: impl AsRef<Path>) -> Result<Calibration, CalibrateError> {
    let path = path.as_ref();
    let damaged = |source| CalibrateError::Damaged { path: path.to_owned(), source };
    let foreign = |reason| CalibrateError::Foreign { path: path.to_owned(), reason };
    let file = File::open(path)
        .map_err(|source| CalibrateError::Open { path: path.to_owned(), source })?;
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    check_columns(&reader).map_err(foreign)?;
    check_extents(&reader).map_err(foreign)?;
    let mut calibration = Calibration::new(read_meta(&reader).map_err(foreign)?);
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(damaged)?;
        // `parquet` takes some bytes on trust and panics where they are damaged.
        let read = AssertUnwindSafe(|| read_row_group(group.as_ref()));
        let contradiction = || ParquetError::General("its bytes contradict each other".to_owned());
        let columns = std::panic::catch_unwind(read).unwrap_or_else(|_| Err(contradiction()));
        let columns = columns.map_err(damaged)?;
        for row in columns.into_rows(calibration.meta()).map_err(foreign)? {
            calibration.push(row).map_err(|error| foreign(error.to_string()))?;
        }
    }
    Ok(calibration)
}

/// Refuses a file whose columns are not exactly those of a calibration table.
fn check_columns(reader: &SerializedFileReader<File>) -> Result<(), String> {
    let describe = |column: &parquet::schema::types::ColumnDescriptor| {
        let (name, kind) = (column.path().string(), column.physical_type());
        let levels = (column.max_def_level(), column.max_rep_level());
        format!("{name}: {kind}, levels {levels:?}")
    };
    let schema = reader.metadata().file_metadata().schema_descr();
    let found: Vec<String> = schema.columns().iter().map(|column| describe(column)).collect();
    let expected = [
        "prompt_id: BYTE_ARRAY, levels (0, 0)",
        "prompt_sha256: BYTE_ARRAY, levels (0, 0)",
        "samples: INT32, levels (0, 0)",
        "rewards.list.element: FLOAT, levels (1, 1)",
    ];
    if found == expected {
        Ok(())
    } else {
        Err(format!("its columns are [{}], not [{}]", found.join("; "), expected.join("; ")))
    }
}

/// Refuses negative places and lengths, which the Parquet reader takes on trust.
fn check_extents(reader: &SerializedFileReader<File>) -> Result<(), String> {
    for column in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let length = column.compressed_size();
        if start < 0 || length < 0 {
            let name = column.column_path().string();
            return Err(format!("its column `{name}` has {length} bytes at byte {start}"));
        }
    }
    Ok(())
}

fn read_meta(reader: &SerializedFileReader<File>) -> Result<CalibrationMeta, String> {
    let pairs = reader.metadata().file_metadata().key_value_metadata();
    let text = |name: &str| -> Result<String, String> {
        let key = format!("{KEY}{name}");
        let pair = pairs.into_iter().flatten().find(|pair| pair.key == key);
        let value = pair.and_then(|pair| pair.value.clone());
        value.ok_or_else(|| format!("the metadata key `{key}` is missing"))
    };
    let version = text("schema_version")?;
    if version != SCHEMA_VERSION.to_string() {
        return Err(format!("its schema version is `{version}`, not {SCHEMA_VERSION}"));
    }
    CalibrationMeta::from_fields(text)
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
        let lengths = [self.ids.len(), self.keys.len(), self.samples.len(), self.values.len()];
        if lengths.iter().any(|length| *length != lengths[0]) {
            return Err(format!("its columns have {lengths:?} rows"));
        }
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
    let id = id.as_utf8().map_err(|error| error.to_string())?;
    let key = PromptKey::from_bytes(key.data())
        .ok_or_else(|| format!("the `prompt_sha256` of `{id}` has not 32 bytes"))?;
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
    let Column { values: ids, .. } = read_column::<ByteArrayType>(group, 0)?;
    let Column { values: keys, .. } = read_column::<ByteArrayType>(group, 1)?;
    let Column { values: samples, .. } = read_column::<Int32Type>(group, 2)?;
    let Column { values, definition, repetition } = read_column::<FloatType>(group, 3)?;
    let mut values = values.into_iter();
    let mut lists: Vec<Vec<f32>> = Vec::new();
    for (&defined, &repeated) in definition.iter().zip(&repetition) {
        if repeated == 0 {
            lists.push(Vec::new());
        }
        if let (1, Some(list)) = (defined, lists.last_mut()) {
            list.extend(values.next());
        }
    }
    Ok(Columns { ids, keys, samples, values: lists })
}

/// One column of one row group: its values, and the levels that say to which list each belongs.
struct Column<V> {
    values: Vec<V>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

fn read_column<T: DataType>(
    group: &dyn RowGroupReader,
    index: usize,
) -> Result<Column<T::T>, ParquetError> {
    let mut reader: ColumnReaderImpl<T> = get_typed_column_reader(group.get_column_reader(index)?);
    let mut column = Column { values: Vec::new(), definition: Vec::new(), repetition: Vec::new() };
    loop {
        let levels = (Some(&mut column.definition), Some(&mut column.repetition));
        let (records, _, _) =
            reader.read_records(ROW_GROUP, levels.0, levels.1, &mut column.values)?;
        if records == 0 {
            return Ok(column);
        }
    }
}
