//! Rows of JSON Lines and CSV, packed or not, through every reader of data sets.
#![no_main]

use std::path::Path;

use infalign_data::dataset::{self, LanguageModeling, Preference, PromptCompletion, Unpaired};
use infalign_data::{answers, given, prompts, rewarded, rows};
use infalign_fuzz::Folder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((format, data)) = data.split_first() else { return };
    let names = ["rows.jsonl", "rows.csv", "rows.jsonl.gz", "rows.csv.gz"];
    let folder = Folder::new();
    read(&folder.write(names[usize::from(format % 4)], data));
});

fn read(path: &Path) {
    if rows::read(path).is_err() {
        return;
    }
    let _ = prompts::read(path);
    let _ = given::read(path);
    let _ = answers::read(path);
    let _ = rewarded::read(path);
    let _ = dataset::read::<LanguageModeling>(path);
    let _ = dataset::read::<PromptCompletion>(path);
    let _ = dataset::read::<Unpaired>(path);
    let _ = dataset::read::<Preference>(path);
    let _ = dataset::read_strict_preferences(path);
}
