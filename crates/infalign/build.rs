//! Makes documentation of the book's paper map, in which every function is a link that rustdoc checks.

#![allow(clippy::print_stdout, reason = "it is how cargo is told")]

use std::path::Path;

const PAGE: &str = "../../docs/src/paper-map.md";

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed={PAGE}");
    // A source archive may come without the book.
    let page = std::fs::read_to_string(PAGE).unwrap_or_else(|error| {
        println!("cargo:warning={PAGE} is left out of the documentation: {error}");
        String::new()
    });
    let out = std::env::var_os("OUT_DIR").unwrap_or_default();
    std::fs::write(Path::new(&out).join("paper_map.md"), linked(&page))
}

/// The page with `infalign::PATH` as links. Links to other pages of the book, which has them, become text.
fn linked(page: &str) -> String {
    let mut linked = String::new();
    for (at, part) in page.split('`').enumerate() {
        match part.strip_prefix("infalign::").filter(|_| at % 2 == 1) {
            Some(path) => linked += &format!("[`{path}`](crate::{path})"),
            None if at % 2 == 1 => linked += &format!("`{part}`"),
            None => linked += part,
        }
    }
    linked
}
