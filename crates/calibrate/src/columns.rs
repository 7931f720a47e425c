//! What the Parquet files of this crate have in common: metadata, checked columns, prompts, lists of numbers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, FileReader, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::PromptKey;
use crate::error::CalibrateError;

/// Rows a row group.
pub(crate) const ROW_GROUP: usize = 8192;

/// Prefix of this project's keys in the metadata.
const KEY: &str = "infalign.";

/// One kind of file.
pub(crate) struct Format {
    /// What such a file is, in words.
    pub(crate) what: &'static str,
    /// Version of its layout and of what its metadata cover.
    pub(crate) version: u32,
    pub(crate) schema: &'static str,
    /// Its columns as [`describe`] has them.
    pub(crate) columns: &'static [&'static str],
}

/// A file whose columns and version are those of its format.
pub(crate) struct Opened<'a> {
    format: &'a Format,
    path: &'a Path,
    reader: Box<dyn FileReader>,
    metadata: BTreeMap<String, String>,
}

impl Format {
    /// Opens a file and checks what it says of itself.
    pub(crate) fn open<'a>(&'a self, path: &'a Path) -> Result<Opened<'a>, CalibrateError> {
        let file = File::open(path)
            .map_err(|source| CalibrateError::Open { path: path.to_owned(), source })?;
        self.opened(file, path)
    }

    /// The same with the bytes of a file, which errors call `name`.
    pub(crate) fn open_bytes<'a>(
        &'a self,
        bytes: Vec<u8>,
        name: &'a Path,
    ) -> Result<Opened<'a>, CalibrateError> {
        self.opened(Bytes::from(bytes), name)
    }

    fn opened<'a>(
        &'a self,
        source: impl ChunkReader + 'static,
        path: &'a Path,
    ) -> Result<Opened<'a>, CalibrateError> {
        let damaged = |source| CalibrateError::Damaged { path: path.to_owned(), source };
        let reader = SerializedFileReader::new(source).map_err(damaged)?;
        let pairs = reader.metadata().file_metadata().key_value_metadata().into_iter().flatten();
        let pairs = pairs
            .filter_map(|pair| Some((pair.key.strip_prefix(KEY)?.to_owned(), pair.value.clone()?)));
        let metadata = pairs.collect();
        let opened = Opened { format: self, path, reader: Box::new(reader), metadata };
        opened.check().map_err(|reason| opened.foreign(reason))?;
        Ok(opened)
    }

    /// Writes a file with some metadata; `rows` writes a row group for each of its numbers.
    pub(crate) fn write<W: Write + Send, R>(
        &self,
        writer: W,
        metadata: impl Iterator<Item = (&'static str, String)>,
        groups: impl Iterator<Item = R>,
        write_group: impl Fn(&mut SerializedRowGroupWriter<'_, W>, R) -> Result<(), ParquetError>,
    ) -> Result<(), ParquetError> {
        let version = ("schema_version", self.version.to_string());
        let pairs = std::iter::once(version).chain(metadata);
        let pair = |(name, value)| KeyValue::new(format!("{KEY}{name}"), value);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_key_value_metadata(Some(pairs.map(pair).collect()))
            .build();
        let schema = Arc::new(parse_message_type(self.schema)?);
        let mut file = SerializedFileWriter::new(writer, schema, Arc::new(properties))?;
        for rows in groups {
            let mut group = file.next_row_group()?;
            write_group(&mut group, rows)?;
            group.close()?;
        }
        file.close()?;
        Ok(())
    }
}

impl Opened<'_> {
    /// The file is not what it should be.
    pub(crate) fn foreign(&self, reason: String) -> CalibrateError {
        CalibrateError::Foreign { what: self.format.what, path: self.path.to_owned(), reason }
    }

    /// A value of the metadata.
    pub(crate) fn text(&self, name: &str) -> Result<String, String> {
        let value = self.metadata.get(name).cloned();
        value.ok_or_else(|| format!("the metadata key `{KEY}{name}` is missing"))
    }

    /// What `read` makes of every row group.
    pub(crate) fn groups<T>(
        &self,
        read: impl Fn(&dyn RowGroupReader) -> Result<T, ParquetError>,
    ) -> impl Iterator<Item = Result<T, CalibrateError>> {
        let damaged = |source| CalibrateError::Damaged { path: self.path.to_owned(), source };
        (0..self.reader.num_row_groups()).map(move |group| {
            let group = self.reader.get_row_group(group).map_err(damaged)?;
            // `parquet` takes some bytes on trust and panics where they are damaged.
            let read = AssertUnwindSafe(|| read(group.as_ref()));
            let contradiction =
                || ParquetError::General("its bytes contradict each other".to_owned());
            std::panic::catch_unwind(read).unwrap_or_else(|_| Err(contradiction())).map_err(damaged)
        })
    }

    fn check(&self) -> Result<(), String> {
        self.check_columns()?;
        self.check_extents()?;
        let (version, expected) = (self.text("schema_version")?, self.format.version);
        if version != expected.to_string() {
            let newer = version.parse::<u32>().is_ok_and(|version| version > expected);
            let advice = if newer { "a newer infalign reads it" } else { "make it again" };
            return Err(format!("its schema version is `{version}`, not {expected}; {advice}"));
        }
        Ok(())
    }

    /// Refuses other columns than those of the format.
    fn check_columns(&self) -> Result<(), String> {
        let describe = |column: &parquet::schema::types::ColumnDescriptor| {
            let (name, kind) = (column.path().string(), column.physical_type());
            let levels = (column.max_def_level(), column.max_rep_level());
            format!("{name}: {kind}, levels {levels:?}")
        };
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let found: Vec<String> = schema.columns().iter().map(|column| describe(column)).collect();
        let expected = self.format.columns;
        if found == expected {
            return Ok(());
        }
        Err(format!("its columns are [{}], not [{}]", found.join("; "), expected.join("; ")))
    }

    /// Refuses negative places and lengths, which the Parquet reader takes on trust.
    fn check_extents(&self) -> Result<(), String> {
        let groups = self.reader.metadata().row_groups().iter();
        for column in groups.flat_map(|group| group.columns()) {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let length = column.compressed_size();
            if start < 0 || length < 0 {
                let name = column.column_path().string();
                return Err(format!("its column `{name}` has {length} bytes at byte {start}"));
            }
        }
        Ok(())
    }
}

/// Refuses columns of different lengths.
pub(crate) fn check_lengths(lengths: &[usize]) -> Result<(), String> {
    match lengths.iter().all(|length| *length == lengths[0]) {
        true => Ok(()),
        false => Err(format!("its columns have {lengths:?} rows")),
    }
}

/// The id and the key of a prompt as a row has them.
pub(crate) fn prompt<'a>(
    id: &'a ByteArray,
    key: &ByteArray,
) -> Result<(&'a str, PromptKey), String> {
    let id = id.as_utf8().map_err(|error| error.to_string())?;
    let key = PromptKey::from_bytes(key.data())
        .ok_or_else(|| format!("the `prompt_sha256` of `{id}` has not 32 bytes"))?;
    Ok((id, key))
}

/// Writes the first two columns, the id and the key of each row's prompt.
pub(crate) fn write_prompts<'a, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    prompts: impl Iterator<Item = (&'a str, PromptKey)>,
) -> Result<(), ParquetError> {
    let bytes =
        |(id, key): (&str, PromptKey)| (ByteArray::from(id), ByteArray::from(key.bytes().to_vec()));
    let (ids, keys): (Vec<_>, Vec<_>) = prompts.map(bytes).unzip();
    write_column::<ByteArrayType, W>(group, &ids)?;
    write_column::<ByteArrayType, W>(group, &keys)
}

/// The values of a column without lists.
pub(crate) fn read_column<T: DataType>(
    group: &dyn RowGroupReader,
    index: usize,
) -> Result<Vec<T::T>, ParquetError> {
    Ok(read::<T>(group, index)?.values)
}

/// The lists of a column of lists.
pub(crate) fn read_lists<T: DataType>(
    group: &dyn RowGroupReader,
    index: usize,
) -> Result<Vec<Vec<T::T>>, ParquetError> {
    let Column { values, definition, repetition } = read::<T>(group, index)?;
    let mut values = values.into_iter();
    let mut lists: Vec<Vec<T::T>> = Vec::new();
    for (&defined, &repeated) in definition.iter().zip(&repetition) {
        if repeated == 0 {
            lists.push(Vec::new());
        }
        if let (1, Some(list)) = (defined, lists.last_mut()) {
            list.extend(values.next());
        }
    }
    Ok(lists)
}

/// One column of one row group: its values, and the levels that say to which list each belongs.
struct Column<V> {
    values: Vec<V>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

fn read<T: DataType>(
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

/// Writes the next column, without lists.
pub(crate) fn write_column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
) -> Result<(), ParquetError> {
    write::<T, W>(group, values, None)
}

/// Writes the next column, of lists of which none is empty.
pub(crate) fn write_lists<'a, T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    lists: impl Iterator<Item = &'a [T::T]>,
) -> Result<(), ParquetError> {
    let (mut values, mut repetition) = (Vec::new(), Vec::new());
    for list in lists {
        values.extend_from_slice(list);
        // Repetition level 0 starts a list, 1 goes on with it; definition level 1 is a value.
        repetition.extend((0..list.len()).map(|i| i16::from(i > 0)));
    }
    let definition = vec![1i16; values.len()];
    write::<T, W>(group, &values, Some((&definition, &repetition)))
}

fn write<T: DataType, W: Write + Send>(
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
