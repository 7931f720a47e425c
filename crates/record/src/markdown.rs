//! Tables in Markdown.

/// A table.
///
/// - `rows`: as many cells each as the head.
#[must_use]
pub fn markdown_table(head: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(head.iter().map(|text| cell(text)).collect());
    text += &line(vec!["---".to_owned(); head.len()]);
    for row in rows {
        text += &line(row.iter().map(|text| cell(text)).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_break_a_table() {
        let table = markdown_table(&["a", "b"], &[vec!["x|y".to_owned(), "one\ntwo".to_owned()]]);
        assert_eq!(table, "| a | b |\n| --- | --- |\n| x\\|y | one two |\n");
    }
}
