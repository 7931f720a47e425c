//! Recipes of every task, and their settings of the command line.
#![no_main]

use std::path::Path;

use infalign_fuzz::parts;
use libfuzzer_sys::fuzz_target;

// A binary's modules, which no crate can depend on.
#[allow(dead_code)]
#[path = "../../crates/cli/src/bundle.rs"]
mod bundle;
#[allow(dead_code)]
#[path = "../../crates/cli/src/models.rs"]
mod models;
#[allow(dead_code, unused_imports)]
#[path = "../../crates/cli/src/recipe/mod.rs"]
mod recipe;

use recipe::Recipe;

fuzz_target!(|data: &[u8]| {
    let [text, sets] = parts(data).map(|part| std::str::from_utf8(part).unwrap_or_default());
    let sets: Vec<String> = sets.lines().map(str::to_owned).collect();
    let Ok(recipe) = recipe::read_text(text, "recipe.toml", Path::new("/nowhere"), &sets) else {
        return;
    };
    let written = recipe.to_toml().expect("a recipe that can be written");
    let again = recipe::read_text(&written, "config.toml", Path::new("/nowhere"), &[]);
    let again = again.expect("a recipe that was written");
    // Numbers that are none are not equal to themselves.
    assert_eq!(again.to_toml().expect("the same"), written);
    if let Recipe::Align(recipe) = recipe {
        let _ = recipe.check_methods();
        let _ = recipe.generation.check();
    }
});
