//! Language models aligned for the decoder they will be used with.
//!
#![doc = include_str!("../README.md")]

pub use infalign_backend as backend;
pub use infalign_calibrate as calibrate;
pub use infalign_data as data;
pub use infalign_decode as decode;
pub use infalign_evaluate as evaluate;
pub use infalign_model as model;
pub use infalign_record as record;
pub use infalign_remote as remote;
pub use infalign_reward as reward;
pub use infalign_serve as serve;
pub use infalign_stats as stats;
pub use infalign_train as train;
pub use infalign_transform as transform;

#[doc = include_str!(concat!(env!("OUT_DIR"), "/paper_map.md"))]
pub mod paper_map {}
