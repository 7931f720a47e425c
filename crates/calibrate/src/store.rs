//! The Parquet file of a calibration table.
//!
//! | column | type | content |
//! |---|---|---|
//! | `prompt_id` | string | the prompt, in the order of the table |
//! | `rewards` | list of float | its reference rewards, ascending |
//!
//! The key-value metadata hold every field of [`CalibrationMeta`] under `infalign.` and its name, the
//! schema version among them. Pages are compressed with zstd. Equal tables give equal bytes.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::error::CalibrateError;
use crate::meta::{CalibrationMeta, SCHEMA_VERSION};
use crate::table::{Calibration, Prompt};

const SCHEMA: &str = "message infalign_calibration {
    required binary prompt_id (STRING);
    required group rewards (LIST) { repeated group list { required float element; } }
}";

/// Prompts a row group.
const ROW_GROUP: usize = 8192;

/// Prefix of this project's keys in the metadata.
const KEY: &str = "infalign.";

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
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_key_value_metadata(Some(calibration.meta().fields().map(pair).to_vec()))
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut file = SerializedFileWriter::new(writer, schema, Arc::new(properties))?;
    for prompts in calibration.prompts().chunks(ROW_GROUP) {
        write_row_group(file.next_row_group()?, prompts)?;
    }
    file.close()?;
    Ok(())
}

fn write_row_group<W: Write + Send>(
    mut group: SerializedRowGroupWriter<'_, W>,
    prompts: &[Prompt],
) -> Result<(), ParquetError> {
    let ids: Vec<ByteArray> = prompts.iter().map(|prompt| prompt.id.as_str().into()).collect();
    let rewards: Vec<f32> = prompts.iter().flat_map(|prompt| prompt.rewards.clone()).collect();
    // Repetition level 0 starts a list, 1 goes on with it; definition level 1 is a value.
    let starts = |prompt: &Prompt| (0..prompt.rewards.len()).map(|i| i16::from(i > 0));
    let repetition: Vec<i16> = prompts.iter().flat_map(starts).collect();
    let definition = vec![1i16; rewards.len()];
    if let Some(mut column) = group.next_column()? {
        column.typed::<ByteArrayType>().write_batch(&ids, None, None)?;
        column.close()?;
    }
    if let Some(mut column) = group.next_column()? {
        let levels = (Some(definition.as_slice()), Some(repetition.as_slice()));
        column.typed::<FloatType>().write_batch(&rewards, levels.0, levels.1)?;
        column.close()?;
    }
    group.close()?;
    Ok(())
}

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
        let Rows { ids, rewards } = read_row_group(group.as_ref()).map_err(damaged)?;
        if ids.len() != rewards.len() {
            let (ids, lists) = (ids.len(), rewards.len());
            return Err(foreign(format!("it has {ids} prompts but {lists} lists of rewards")));
        }
        for (id, rewards) in ids.iter().zip(rewards) {
            let id = id.as_utf8().map_err(damaged)?;
            calibration.insert(id, rewards).map_err(|error| foreign(error.to_string()))?;
        }
    }
    Ok(calibration)
}

/// Refuses a file whose columns are not exactly those of [`SCHEMA`].
fn check_columns(reader: &SerializedFileReader<File>) -> Result<(), String> {
    let describe = |column: &parquet::schema::types::ColumnDescriptor| {
        let (name, kind) = (column.path().string(), column.physical_type());
        let levels = (column.max_def_level(), column.max_rep_level());
        format!("{name}: {kind}, levels {levels:?}")
    };
    let schema = reader.metadata().file_metadata().schema_descr();
    let found: Vec<String> = schema.columns().iter().map(|column| describe(column)).collect();
    let expected =
        ["prompt_id: BYTE_ARRAY, levels (0, 0)", "rewards.list.element: FLOAT, levels (1, 1)"];
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
    let samples = text("samples")?;
    Ok(CalibrationMeta {
        schema_version: SCHEMA_VERSION,
        model_sha256: text("model_sha256")?,
        reward: text("reward")?,
        tokenizer_sha256: text("tokenizer_sha256")?,
        sampling: text("sampling")?,
        samples: samples
            .parse()
            .map_err(|_| format!("`{KEY}samples` is `{samples}`, which is not a count"))?,
    })
}

/// One row group, column by column.
struct Rows {
    ids: Vec<ByteArray>,
    rewards: Vec<Vec<f32>>,
}

fn read_row_group(group: &dyn RowGroupReader) -> Result<Rows, ParquetError> {
    let ids = get_typed_column_reader::<ByteArrayType>(group.get_column_reader(0)?);
    let Column { values: ids, .. } = read_column(ids)?;
    let rewards = get_typed_column_reader::<FloatType>(group.get_column_reader(1)?);
    let Column { values, definition, repetition } = read_column(rewards)?;
    let mut values = values.into_iter();
    let mut rewards: Vec<Vec<f32>> = Vec::new();
    for (&defined, &repeated) in definition.iter().zip(&repetition) {
        if repeated == 0 {
            rewards.push(Vec::new());
        }
        if let (1, Some(list)) = (defined, rewards.last_mut()) {
            list.extend(values.next());
        }
    }
    Ok(Rows { ids, rewards })
}

/// One column of one row group: its values, and the levels that say to which list each belongs.
struct Column<V> {
    values: Vec<V>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

fn read_column<T: DataType>(mut reader: ColumnReaderImpl<T>) -> Result<Column<T::T>, ParquetError> {
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
