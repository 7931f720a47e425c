//! The Parquet file of a calibration table.
//!
//! | column | type | content |
//! |---|---|---|
//! | `prompt_id` | string | names the prompt for people; in the order of the table |
//! | `prompt_sha256` | binary | 32 bytes, the SHA-256 of the prompt as the model reads it |
//! | `samples` | 32-bit integer | K, the reference responses that were scored |
//! | `rewards` | list of float | their rewards, ascending, or quantiles of them |
//!
//! The key-value metadata hold every field of [`CalibrationMeta`](crate::CalibrationMeta) under `infalign.` and its name, and
//! `infalign.schema_version`. Pages are compressed with zstd. Equal tables give equal bytes.

mod read;
mod write;

pub use read::read;
pub use write::write_to;

const SCHEMA: &str = "message infalign_calibration {
    required binary prompt_id (STRING);
    required binary prompt_sha256;
    required int32 samples;
    required group rewards (LIST) { repeated group list { required float element; } }
}";

/// Prompts a row group.
const ROW_GROUP: usize = 8192;

/// Prefix of this project's keys in the metadata.
const KEY: &str = "infalign.";
