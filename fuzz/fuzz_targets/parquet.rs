//! Damaged Parquet files of rows.
#![no_main]

use std::sync::{Arc, LazyLock};

use infalign_data::dataset::{self, Preference};
use infalign_data::{prompts, rows};
use infalign_fuzz::{Folder, edited, with_caught_panics};
use libfuzzer_sys::fuzz_target;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

const SCHEMA: &str = "message rows {
    required binary prompt (STRING);
    optional group chosen (LIST) { repeated group list { optional binary element (STRING); } }
    optional double rating;
}";

static FILES: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let zstd = Compression::ZSTD(ZstdLevel::default());
    [Compression::UNCOMPRESSED, Compression::SNAPPY, zstd]
        .map(|compression| whole(compression).expect("a file of three columns"))
});

fuzz_target!(|data: &[u8]| with_caught_panics(|| read(data)));

fn read(data: &[u8]) {
    let Some((file, edits)) = data.split_first() else { return };
    let folder = Folder::new();
    let path = folder.write("rows.parquet", edited(&FILES[usize::from(file % 3)], edits));
    let _ = rows::read(&path);
    let _ = prompts::read(&path);
    let _ = dataset::read::<Preference>(&path);
}

/// Three rows, a text, a list of texts and a number each.
fn whole(compression: Compression) -> Result<Vec<u8>, ParquetError> {
    let text = |text: &str| ByteArray::from(text);
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut bytes = Vec::new();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut file = SerializedFileWriter::new(&mut bytes, schema, properties)?;
    let mut group = file.next_row_group()?;
    if let Some(mut column) = group.next_column()? {
        let prompts = ["a", "b", "a"].map(text);
        column.typed::<ByteArrayType>().write_batch(&prompts, None, None)?;
        column.close()?;
    }
    if let Some(mut column) = group.next_column()? {
        let levels = ([3, 2, 3, 0], [0, 1, 0, 0]);
        let texts = ["x", "y"].map(text);
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&levels.0), Some(&levels.1))?;
        column.close()?;
    }
    if let Some(mut column) = group.next_column()? {
        column.typed::<DoubleType>().write_batch(&[0.5, 2.0], Some(&[1, 0, 1]), None)?;
        column.close()?;
    }
    group.close()?;
    file.close()?;
    Ok(bytes)
}
