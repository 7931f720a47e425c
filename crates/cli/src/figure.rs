//! Figures as files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use infalign_evaluate::{Figure, draw_png, draw_svg};
use infalign_record::atomic::write_atomic;

/// Writes `NAME.svg` and `NAME.png` into a folder, which is made if need be, and returns their paths.
///
/// # Errors
/// When the figure cannot be drawn or a file not written.
pub(crate) fn write_figure(dir: &Path, name: &str, figure: &Figure) -> Result<[PathBuf; 2]> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (svg, png) = (dir.join(format!("{name}.svg")), dir.join(format!("{name}.png")));
    let text = draw_svg(figure)?;
    write_atomic(&svg, |file| file.write_all(text.as_bytes()))?;
    let bytes = draw_png(figure)?;
    write_atomic(&png, |file| file.write_all(&bytes))?;
    Ok([svg, png])
}
