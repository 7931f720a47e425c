//! Rollouts as a Parquet file.

use std::io::Write;
use std::path::Path;

use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::reader::RowGroupReader;
use parquet::file::writer::SerializedRowGroupWriter;

use super::{Prompt, ReferenceResponse, Rollouts};
use crate::columns::{
    Format, Opened, ROW_GROUP, check_lengths, prompt, read_column, read_lists, write_column,
    write_lists, write_prompts,
};
use crate::error::CalibrateError;
use crate::{CalibrationMeta, PromptKey};

const FORMAT: Format = Format {
    what: "a file of rollouts",
    version: 2,
    schema: "message infalign_rollouts {
    required binary prompt_id (STRING);
    required binary prompt_sha256;
    required float reward;
    required group tokens (LIST) { repeated group list { required int32 element; } }
    required group log_probs (LIST) { repeated group list { required float element; } }
}",
    columns: &[
        "prompt_id: BYTE_ARRAY, levels (0, 0)",
        "prompt_sha256: BYTE_ARRAY, levels (0, 0)",
        "reward: FLOAT, levels (0, 0)",
        "tokens.list.element: INT32, levels (1, 1)",
        "log_probs.list.element: FLOAT, levels (1, 1)",
    ],
};

/// A response with the prompt that it belongs to, as a row of the file has it.
struct Row {
    id: String,
    key: PromptKey,
    response: ReferenceResponse,
}

/// Reads the rollouts at `path`.
///
/// # Errors
/// All name the path: [`CalibrateError::Open`], [`CalibrateError::Damaged`] for a file that is not whole Parquet,
/// [`CalibrateError::Foreign`] for other columns, missing metadata, another schema version, or rows that contradict each other.
pub fn read(path: impl AsRef<Path>) -> Result<Rollouts, CalibrateError> {
    rollouts(&FORMAT.open(path.as_ref())?)
}

/// Reads rollouts from the bytes of their file.
///
/// - `name`: what errors call it, such as where the bytes come from.
///
/// # Errors
/// As [`read`], but that nothing is opened.
pub fn read_from(bytes: Vec<u8>, name: impl AsRef<Path>) -> Result<Rollouts, CalibrateError> {
    rollouts(&FORMAT.open_bytes(bytes, name.as_ref())?)
}

fn rollouts(file: &Opened<'_>) -> Result<Rollouts, CalibrateError> {
    let foreign = |reason| file.foreign(reason);
    let meta = CalibrationMeta::from_fields(|name| file.text(name)).map_err(foreign)?;
    let samples = file.text("samples").map_err(foreign)?;
    let samples: usize = samples
        .parse()
        .map_err(|_| foreign(format!("its `samples` is `{samples}`, which is no number")))?;
    let mut rows = Vec::new();
    for columns in file.groups(read_columns) {
        rows.extend(columns?.into_rows().map_err(foreign)?);
    }
    let mut rollouts = Rollouts::new(meta, samples);
    for prompt in by_prompt(rows) {
        rollouts.push(prompt).map_err(|error| foreign(error.to_string()))?;
    }
    Ok(rollouts)
}

/// Rows of the same prompt in a row are its responses.
fn by_prompt(rows: Vec<Row>) -> Vec<Prompt> {
    let mut prompts: Vec<Prompt> = Vec::new();
    for Row { id, key, response } in rows {
        match prompts.last_mut() {
            Some(last) if last.key == key => last.responses.push(response),
            _ => prompts.push(Prompt { id, key, responses: vec![response] }),
        }
    }
    prompts
}

/// Writes `rollouts` as one Parquet file to `writer`. Equal ones give equal bytes.
///
/// # Errors
/// [`CalibrateError::Write`] when the writer fails.
pub fn write_to<W: Write + Send>(rollouts: &Rollouts, writer: W) -> Result<(), CalibrateError> {
    let rows: Vec<(&Prompt, &ReferenceResponse)> = rollouts
        .prompts
        .iter()
        .flat_map(|prompt| prompt.responses.iter().map(move |response| (prompt, response)))
        .collect();
    let samples = ("samples", rollouts.samples.to_string());
    let metadata = rollouts.meta.fields().into_iter().chain([samples]);
    let groups = rows.chunks(ROW_GROUP);
    FORMAT.write(writer, metadata, groups, write_rows::<W>).map_err(CalibrateError::Write)
}

fn write_rows<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    rows: &[(&Prompt, &ReferenceResponse)],
) -> Result<(), ParquetError> {
    let rewards: Vec<f32> = rows.iter().map(|(_, response)| response.reward).collect();
    let stored = |token: &u32| token.cast_signed();
    let tokens: Vec<Vec<i32>> =
        rows.iter().map(|(_, response)| response.tokens.iter().map(stored).collect()).collect();
    write_prompts(group, rows.iter().map(|(prompt, _)| (prompt.id.as_str(), prompt.key)))?;
    write_column::<FloatType, W>(group, &rewards)?;
    write_lists::<Int32Type, W>(group, tokens.iter().map(Vec::as_slice))?;
    write_lists::<FloatType, W>(group, rows.iter().map(|(_, r)| r.log_probs.as_slice()))
}

/// One row group, column by column.
struct Columns {
    ids: Vec<ByteArray>,
    keys: Vec<ByteArray>,
    rewards: Vec<f32>,
    tokens: Vec<Vec<i32>>,
    log_probs: Vec<Vec<f32>>,
}

fn read_columns(group: &dyn RowGroupReader) -> Result<Columns, ParquetError> {
    Ok(Columns {
        ids: read_column::<ByteArrayType>(group, 0)?,
        keys: read_column::<ByteArrayType>(group, 1)?,
        rewards: read_column::<FloatType>(group, 2)?,
        tokens: read_lists::<Int32Type>(group, 3)?,
        log_probs: read_lists::<FloatType>(group, 4)?,
    })
}

impl Columns {
    /// The rows, or what is wrong with the first that is none.
    fn into_rows(self) -> Result<Vec<Row>, String> {
        let Self { ids, keys, rewards, tokens, log_probs } = self;
        check_lengths(&[ids.len(), keys.len(), rewards.len(), tokens.len(), log_probs.len()])?;
        let heads = ids.iter().zip(&keys);
        let contents = rewards.into_iter().zip(tokens).zip(log_probs);
        let responses = contents.map(|((reward, tokens), log_probs)| {
            let tokens = tokens.into_iter().map(i32::cast_unsigned).collect();
            ReferenceResponse { tokens, log_probs, reward }
        });
        let row = |((id, key), response)| {
            let (id, key) = prompt(id, key)?;
            Ok(Row { id: id.to_owned(), key, response })
        };
        heads.zip(responses).map(row).collect()
    }
}
