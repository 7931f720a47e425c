//! Plain files: grammars, story openings, ratings, and prompts a line.
#![no_main]

use infalign_data::{Grammar, prompts, ratings, stories};
use infalign_fuzz::Folder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let folder = Folder::new();
    let path = folder.write("text.txt", data);
    for openings in [stories::openings(&path, 1), stories::openings(&path, 3)].into_iter().flatten()
    {
        assert!(openings.iter().all(|opening| !opening.text.is_blank()));
    }
    for rating in ratings::read_tsv(&path).unwrap_or_default() {
        assert!(rating.rating.is_finite());
    }
    let _ = prompts::read(&path);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(grammar) = text.parse::<Grammar>() else { return };
    for uniform in [0.0, 0.5, 0.999] {
        let (prompt, continuation) = grammar.sample(&mut || uniform);
        let mut words = prompt.split_whitespace().chain(continuation.split_whitespace());
        assert!(words.all(|word| word != "=>"));
    }
});
