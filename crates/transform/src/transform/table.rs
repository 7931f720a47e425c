//! A transform given by points: Φ is linear between them.

use std::path::Path;

use crate::error::TransformError;
use crate::numerics::piecewise::panel_at;

/// Points (u, Φ(u)) with straight lines between them.
///
/// ```
/// use infalign_transform::{Table, Transform};
/// let table = Table::new(&[0.0, 0.9, 1.0], &[0.0, 0.1, 1.0])?;
/// assert!((Transform::Table(table.into()).apply(0.95) - 0.55).abs() < 1e-12);
/// # Ok::<(), infalign_transform::TransformError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Where it was read from, as it was named.
    file: Option<String>,
    /// Distances from the top, v = 1 − u, ascending from 0 to 1.
    v: Vec<f64>,
    /// Φ(1) − Φ(1 − v).
    shortfall: Vec<f64>,
    /// Φ(1).
    top: f64,
}

impl Table {
    /// A table of calibrated rewards and their Φ.
    ///
    /// - `u`: strictly ascending from 0 to 1.
    /// - `phi`: finite, never falling, and not all equal; any scale.
    ///
    /// # Errors
    /// [`TransformError::Table`] names the first row, counted from 1, at which this fails.
    pub fn new(u: &[f64], phi: &[f64]) -> Result<Self, TransformError> {
        let refuse = |row: usize, reason: String| {
            Err(TransformError::Table { place: format!("row {row} of the table"), reason })
        };
        if u.len() != phi.len() || u.len() < 2 {
            let reason = format!("there are {} values of u and {} of Φ", u.len(), phi.len());
            return refuse(u.len().min(phi.len()) + 1, reason);
        }
        for row in 1..=u.len() {
            if let Some(reason) = problem(u, phi, row - 1) {
                return refuse(row, reason);
            }
        }
        let (end, top) = (u[u.len() - 1], phi[phi.len() - 1]);
        if end != 1.0 {
            return refuse(u.len(), format!("u ends at {end}; it has to end at 1"));
        }
        let v = u.iter().rev().map(|u| 1.0 - u).collect();
        let shortfall: Vec<f64> = phi.iter().rev().map(|phi| top - phi).collect();
        let range = shortfall[shortfall.len() - 1];
        if range <= 0.0 {
            return refuse(u.len(), format!("Φ is {top} everywhere, so that it prefers nothing"));
        }
        if !range.is_normal() {
            let reason = format!("Φ ranges over {range:e}, which is beyond the range of numbers");
            return refuse(u.len(), reason);
        }
        Ok(Table { file: None, v, shortfall, top })
    }

    /// From points by distance from the top, as solvers have them.
    pub(crate) fn from_top(v: Vec<f64>, shortfall: Vec<f64>) -> Self {
        Table { file: None, v, shortfall, top: 0.0 }
    }

    /// Reads a CSV file: a header `u,phi`, then a row a point.
    ///
    /// # Errors
    /// [`TransformError::Table`] names file and line.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TransformError> {
        let name = path.as_ref().display().to_string();
        let refuse = |place: String, reason: String| TransformError::Table { place, reason };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| refuse(name.clone(), format!("it cannot be read: {error}")))?;
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        if lines.next().is_none_or(|(_, header)| {
            header.trim_start_matches('\u{feff}').replace(' ', "") != "u,phi"
        }) {
            let reason = "the header has to be `u,phi`".to_owned();
            return Err(refuse(format!("{name}:1"), reason));
        }
        let (mut places, mut u, mut phi) = (Vec::new(), Vec::new(), Vec::new());
        for (index, line) in lines {
            let place = format!("{name}:{}", index + 1);
            let numbers = line.split_once(',').map(|(a, b)| (a.trim().parse(), b.trim().parse()));
            let Some((Ok(a), Ok(b))) = numbers else {
                return Err(refuse(place, format!("`{line}` is not two numbers, u and Φ(u)")));
            };
            u.push(a);
            phi.push(b);
            if let Some(reason) = problem(&u, &phi, u.len() - 1) {
                return Err(refuse(place, reason));
            }
            places.push(place);
        }
        let table = Self::new(&u, &phi).map_err(|error| match error {
            TransformError::Table { reason, .. } => {
                refuse(places.pop().unwrap_or_else(|| name.clone()), reason)
            }
            other => other,
        })?;
        // Another text would name another file.
        Ok(Table { file: path.as_ref().to_str().map(str::to_owned), ..table })
    }

    /// The file that [`Table::read`] accepts.
    pub fn to_csv(&self) -> String {
        let rows = self.v.iter().zip(&self.shortfall).rev();
        let row = |(v, shortfall)| format!("{},{}\n", 1.0 - v, self.top - shortfall);
        std::iter::once("u,phi\n".to_owned()).chain(rows.map(row)).collect()
    }

    /// The file that it was read from, where its path can be written as text.
    pub(super) fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    pub(super) fn top(&self) -> f64 {
        self.top
    }

    /// Φ(1) − Φ(0), above 0.
    pub(super) fn range(&self) -> f64 {
        self.shortfall[self.shortfall.len() - 1]
    }

    /// Φ(1) − Φ(1 − v); the end pieces go on outside [0, 1].
    pub(super) fn shortfall(&self, v: f64) -> f64 {
        let k = panel_at(&self.v, v) + 1;
        let share = (v - self.v[k - 1]) / (self.v[k] - self.v[k - 1]);
        self.shortfall[k - 1] + share * (self.shortfall[k] - self.shortfall[k - 1])
    }

    /// Distances from the top between which Φ is linear.
    pub(super) fn knots(&self) -> &[f64] {
        &self.v
    }
}

/// What is wrong with one row, given those before it.
fn problem(u: &[f64], phi: &[f64], row: usize) -> Option<String> {
    let (here, value) = (u[row], phi[row]);
    if !(0.0..=1.0).contains(&here) || !value.is_finite() {
        return Some(format!("u = {here} and Φ = {value}; u is in [0, 1], and both are finite"));
    }
    if row == 0 {
        return (here != 0.0).then(|| format!("u begins at {here}; it has to begin at 0"));
    }
    if here <= u[row - 1] {
        return Some(format!("u = {here} follows {}; rows ascend in u", u[row - 1]));
    }
    // Next to 0, two values of u may have one distance from 1: there would be no line between them.
    if 1.0 - here == 1.0 - u[row - 1] {
        return Some(format!("u = {here:e} is too near to {:e} before it", u[row - 1]));
    }
    (value < phi[row - 1])
        .then(|| format!("Φ falls from {} to {value}; it may never fall", phi[row - 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_between_points() {
        let table = Table::new(&[0.0, 0.5, 1.0], &[1.0, 2.0, 5.0]).unwrap();
        let shortfalls = [0.0, 0.25, 0.5, 0.75, 1.0].map(|v| table.shortfall(v));
        assert_eq!(shortfalls, [0.0, 1.5, 3.0, 3.5, 4.0]);
        assert_eq!((table.top(), table.range()), (5.0, 4.0));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let cases: [(&[f64], &[f64], &str); 8] = [
            (&[0.0, 1.0], &[0.0], "row 2 of the table: there are 2 values of u and 1 of Φ"),
            (&[0.1, 1.0], &[0.0, 1.0], "row 1 of the table: u begins at 0.1"),
            (&[0.0, 0.7, 0.6, 1.0], &[0.0; 4], "row 3 of the table: u = 0.6 follows 0.7"),
            (&[0.0, 0.5, 1.0], &[0.0, 1.0, 0.5], "row 3 of the table: Φ falls from 1 to 0.5"),
            (&[0.0, 1.0], &[0.0, f64::INFINITY], "row 2 of the table: u = 1 and Φ = inf"),
            (&[0.0, 0.9], &[0.0, 1.0], "row 2 of the table: u ends at 0.9"),
            (&[0.0, 1.0], &[2.0, 2.0], "row 2 of the table: Φ is 2 everywhere"),
            (
                &[0.0, 1e-17, 1.0],
                &[0.0, 1.0, 2.0],
                "row 2 of the table: u = 1e-17 is too near to 0e0",
            ),
        ];
        for (u, phi, expected) in cases {
            let error = Table::new(u, phi).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn files_are_read_written_and_refused_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("phi.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Table::read(&path)
        };
        let table = read("u,phi\n0,0\n0.25, 1e-3\n\n1,1\n").unwrap();
        assert_eq!(table.file(), Some(path.to_str().unwrap()));
        assert_eq!(read(&table.to_csv()).unwrap(), table);
        for (text, line, reason) in [
            ("0,0\n1,1\n", 1, "the header has to be `u,phi`"),
            ("u,phi\n0,0\n0.5\n1,1\n", 3, "`0.5` is not two numbers"),
            ("u,phi\n0,0\n\n0.5,2\n0.7,1\n1,3\n", 5, "Φ falls from 2 to 1"),
            ("u,phi\n0,0\n1e-17,2\n1,3\n", 3, "u = 1e-17 is too near"),
            ("u,phi\n0,0\n0.5,2\n", 3, "u ends at 0.5"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(&format!("phi.csv:{line}: {reason}")), "{error}");
        }
        assert!(
            Table::read(dir.path().join("none.csv")).unwrap_err().to_string().contains("none.csv")
        );
    }
}
