//! Texts with a mean human rating: tab-separated id, rating and text, without a header.
//!
//! This is the format of the sentiment data of Hutto and Gilbert (ICWSM 2014), whose ratings lie
//! in [-4, 4]. The id is not kept.

use std::path::Path;

use crate::lines::{at, numbered};
use crate::{DataError, Place};

/// A text and how people rated it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rating {
    /// The text exactly as the file has it.
    pub text: String,
    /// The mean rating, on the data set's own scale. Finite.
    pub rating: f32,
}

/// Reads the ratings of a tab-separated file, in the file's order. A text may hold tabs.
///
/// # Errors
/// [`DataError`] when the file cannot be read, holds no rating, or a line has fewer than three
/// columns, an empty text, or a rating that is no finite number.
pub fn read_tsv(path: &Path) -> Result<Vec<Rating>, DataError> {
    let rows = numbered(path)?;
    if rows.is_empty() {
        return Err(DataError::Empty { path: path.to_path_buf(), what: "rating" });
    }
    rows.iter().map(|(line, row)| parse(row).map_err(at(path, Place::Line(*line)))).collect()
}

fn parse(row: &str) -> Result<Rating, String> {
    let mut columns = row.splitn(3, '\t').skip(1);
    let (Some(rating), Some(text)) = (columns.next(), columns.next()) else {
        return Err("It needs three columns, split by tabs: id, rating, text.".to_owned());
    };
    if text.trim().is_empty() {
        return Err("The text, its third column, is empty. Remove the line.".to_owned());
    }
    match rating.trim().parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(Rating { text: text.to_owned(), rating: value }),
        Ok(value) if value.is_infinite() && rating.contains(|c: char| c.is_ascii_digit()) => {
            Err(format!("The rating `{rating}`, its second column, is too large for 32 bits."))
        }
        _ => Err(format!("The rating `{rating}`, its second column, is no finite number.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files::{plain, real};

    #[test]
    fn rows_are_read_and_tabs_in_the_text_stay() {
        let file = plain("r.txt", "1_1\t-0.9\tno picture\n2\t2.26666666667\ta\tb\n");
        let expected = [("no picture", -0.9), ("a\tb", 2.266_666_7)];
        let expected =
            expected.map(|(text, rating)| Rating { text: text.to_owned(), rating }).to_vec();
        assert_eq!(read_tsv(file.path()).unwrap(), expected);
    }

    #[test]
    fn what_is_no_rating_is_refused_by_file_and_line() {
        for (row, problem) in [
            ("only one column", "three columns"),
            ("2\t0.5", "three columns"),
            ("2\tgood\ttext", "The rating `good`"),
            ("2\tNaN\ttext", "The rating `NaN`, its second column, is no finite number"),
            ("2\t-inf\ttext", "is no finite number"),
            ("2\t1e308\ttext", "The rating `1e308`, its second column, is too large"),
            ("2\t0.5\t ", "third column, is empty"),
        ] {
            let file = plain("r.txt", &format!("1\t0.5\tfine\n{row}\n"));
            let error = read_tsv(file.path()).unwrap_err().to_string();
            assert!(error.contains("r.txt, line 2: ") && error.contains(problem), "{error}");
        }
        let empty = plain("r.txt", "");
        assert!(read_tsv(empty.path()).unwrap_err().to_string().contains("holds no rating"));
    }

    #[test]
    fn the_real_files_are_read_whole() {
        for (name, n_rows, n_positive) in [
            ("sentiment-vader/amazonReviewSnippets_GroundTruth.txt", 3_708, 1_725),
            ("sentiment-vader/movieReviewSnippets_GroundTruth.txt", 10_605, 4_982),
        ] {
            let Some(path) = real(name) else { return };
            let ratings = read_tsv(&path).unwrap();
            assert_eq!(ratings.len(), n_rows);
            assert_eq!(ratings.iter().filter(|row| row.rating > 0.5).count(), n_positive);
            assert!(ratings.iter().all(|row| row.rating.abs() <= 4.0));
        }
    }
}
