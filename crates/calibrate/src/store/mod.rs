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

pub use read::{read, read_from};
pub use write::write_to;

use crate::columns::Format;
use crate::meta::SCHEMA_VERSION;

const FORMAT: Format = Format {
    what: "a calibration table",
    version: SCHEMA_VERSION,
    schema: "message infalign_calibration {
    required binary prompt_id (STRING);
    required binary prompt_sha256;
    required int32 samples;
    required group rewards (LIST) { repeated group list { required float element; } }
}",
    columns: &[
        "prompt_id: BYTE_ARRAY, levels (0, 0)",
        "prompt_sha256: BYTE_ARRAY, levels (0, 0)",
        "samples: INT32, levels (0, 0)",
        "rewards.list.element: FLOAT, levels (1, 1)",
    ],
};
