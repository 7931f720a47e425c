//! The model's chat template, which may ask for the date.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use infalign_data::{ChatTemplate, DataError};
use infalign_record::clock;

/// The chat template in a folder, read anew every day: what it is told of the time is of when it was read.
pub(crate) struct Templates {
    folder: PathBuf,
    /// With the Julian day on which it was read.
    kept: Mutex<Option<(i32, Arc<ChatTemplate>)>>,
}

impl Templates {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, kept: Mutex::default() }
    }

    /// Today's template.
    pub(crate) fn today(&self) -> Result<Arc<ChatTemplate>, DataError> {
        let now = clock::now();
        let today = now.to_julian_day();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((day, template)) = kept.as_ref()
            && *day == today
        {
            return Ok(template.clone());
        }
        let template = Arc::new(ChatTemplate::read(&self.folder, Some(now))?);
        *kept = Some((today, template.clone()));
        Ok(template)
    }
}
