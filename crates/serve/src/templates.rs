//! The model's chat template, which may ask for the date.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use infalign_data::{ChatTemplate, DataError};
use infalign_record::clock;

/// The chat template in a folder, read anew every day: what it is told of the time is of when it was read.
pub(crate) struct Templates {
    folder: PathBuf,
    /// With the Julian day on which it was read.
    kept: Mutex<Option<(i32, Read)>>,
}

/// What reading it has come to.
type Read = Result<Arc<ChatTemplate>, Arc<DataError>>;

impl Templates {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, kept: Mutex::default() }
    }

    /// Today's template. One that cannot be used may take long to be read, and is not read again.
    pub(crate) fn today(&self) -> Read {
        let now = clock::now();
        let today = now.to_julian_day();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((day, read)) = kept.as_ref()
            && *day == today
        {
            return read.clone();
        }
        let read = ChatTemplate::read(&self.folder, Some(now)).map(Arc::new).map_err(Arc::new);
        // Such as where too many files are open.
        let may_pass = |error: &Arc<DataError>| matches!(**error, DataError::Open { .. });
        if !read.as_ref().is_err_and(may_pass) {
            *kept = Some((today, read.clone()));
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_cannot_be_used_is_read_once() {
        let templates = Templates::new(PathBuf::from("no/such/folder"));
        let [first, second] = [(); 2].map(|()| templates.today().err().unwrap());
        assert!(matches!(*first, DataError::NoChatTemplate { .. }), "{first}");
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_cannot_be_opened_is_tried_again() {
        // No folder, so that there is no file in it.
        let templates = Templates::new(PathBuf::from("Cargo.toml"));
        let [first, second] = [(); 2].map(|()| templates.today().err().unwrap());
        assert!(matches!(*first, DataError::Open { .. }), "{first}");
        assert!(!Arc::ptr_eq(&first, &second));
    }
}
