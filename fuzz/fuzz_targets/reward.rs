//! The `[reward]` table of a recipe, responses scored by its rules, and kept rewards of servers.
#![no_main]

use std::num::NonZeroUsize;
use std::path::Path;

use infalign_fuzz::{Folder, parts};
use infalign_reward::{Cached, Length, LengthUnit, Reward, RewardConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [table, response, kept] = parts(data);
    read_kept(kept);
    let [table, response] = [table, response].map(String::from_utf8_lossy);
    let Ok(mut config) = toml::from_str::<RewardConfig>(&table) else { return };
    let json = serde_json::to_string(&config).expect("a table that was read");
    // Models and files are read by other targets; a server may be any machine.
    if !config.models_mut().is_empty()
        || !config.files_mut().is_empty()
        || json.contains("\"kind\":\"remote\"")
    {
        return;
    }
    let device = infalign_backend::device(None).expect("the CPU");
    let Ok(rule) = config.build(&device, Path::new(""), &|_| None) else { return };
    for prompt in ["", "2,7:10,3"] {
        if let Ok(scores) = rule.score(&[(prompt, &response)]) {
            assert!(scores[0].is_finite(), "{scores:?}");
        }
    }
});

/// Rewards that are read have to be there, and the file has to take another.
fn read_kept(kept: &[u8]) {
    let folder = Folder::new();
    let path = folder.write("kept.jsonl", kept);
    let cached = || {
        let reward = Box::new(Length { unit: LengthUnit::Words });
        Cached::new(reward, "length", NonZeroUsize::MIN).with_file(Some(&path))
    };
    let Ok(reward) = cached() else { return };
    let scores = reward.score(&[("a", "b c")]).expect("a file that was read");
    let again = cached().expect("a file that was written").score(&[("a", "b c")]);
    assert_eq!(again.expect("the same file"), scores);
}
