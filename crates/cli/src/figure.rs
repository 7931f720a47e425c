//! Figures as files.

use std::path::{Path, PathBuf};

use anyhow::Result;
use infalign_evaluate::{Figure, draw_png, draw_svg};

use crate::files::{self, make_folder};

/// Writes `NAME.svg` and `NAME.png` into a folder, which is made if need be, and returns their paths.
///
/// # Errors
/// When the figure cannot be drawn or a file not written.
pub(crate) fn write_figure(dir: &Path, name: &str, figure: &Figure) -> Result<[PathBuf; 2]> {
    make_folder(dir)?;
    let (svg, png) = (dir.join(format!("{name}.svg")), dir.join(format!("{name}.png")));
    files::write(&svg, draw_svg(figure)?)?;
    files::write(&png, draw_png(figure)?)?;
    Ok([svg, png])
}
