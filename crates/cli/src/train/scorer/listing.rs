//! The rows of a scorer run as a table for people.

use infalign_decode::Kl;
use infalign_evaluate::score_with_interval;
use infalign_stats::Interval;

use super::row::{LEVEL, Mean, Row, all_weights};

/// A line a row: what was run, what it cost, and, of each reward, its mean and how often it wins over plain samples of the base.
///
/// - `rewards`: their names, in the order of the columns.
pub(super) fn table(rows: &[Row], rewards: &[&str]) -> String {
    let by = all_weights(rows);
    let several = by.len() > 1;
    let mut head = vec!["procedure".to_owned()];
    head.extend(several.then(|| "by".to_owned()));
    head.extend(["KL (nats)", "tokens", "scores"].map(str::to_owned));
    head.extend(rewards.iter().flat_map(|name| [(*name).to_owned(), "wins".to_owned()]));
    let lines = rows.iter().map(|row| line(row, several, rewards));
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(lines).collect();
    let by = if several { None } else { by.first() };
    let by = by.map_or(String::new(), |by| format!(" Chosen by {by}."));
    format!(
        "{}\n{}: mean [95 % interval over prompts]; wins: share of responses that have more than a plain one of the base; scores: values and rewards asked for.{by}",
        aligned(&lines),
        rewards.join(", ")
    )
}

fn line(row: &Row, weighted: bool, rewards: &[&str]) -> Vec<String> {
    let mut cells = vec![row.title()];
    cells.extend(weighted.then(|| row.weights()));
    cells.push(kl(row.kl()));
    cells.extend([row.model_tokens, row.scorer_calls].map(|count| format!("{count:.0}")));
    for name in rewards {
        let interval = |Mean { estimate, low, high, .. }: &Mean| Interval {
            estimate: *estimate,
            low: *low,
            high: *high,
            level: LEVEL,
        };
        let mean = row.rewards.get(*name).map(|mean| score_with_interval(&interval(mean)));
        cells.push(mean.unwrap_or_default());
        let wins = row.win_rates.get(*name).map(|wins| format!("{:.3}", wins.estimate));
        cells.push(wins.unwrap_or_default());
    }
    cells
}

fn kl(Kl { nats, kind }: Kl) -> String {
    format!("{}{nats:.3}", kind.sign())
}

/// The cells in columns: the first to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let length = |cell: &String| cell.chars().count();
    let widest = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(length).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    let text = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(text).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use infalign_decode::KlKind;

    use super::super::row::tests::{row, rows};
    use super::*;

    #[test]
    fn columns_are_aligned_and_say_what_kind_of_kl_there_is() {
        let of_one = table(&rows()[..2], &["liking"]);
        let lines: Vec<&str> = of_one.lines().collect();
        let expected = [
            "procedure  KL (nats)  tokens  scores                 liking   wins",
            "sample       ≤ 0.000       1       1  1.000 [-1.484, 3.484]  0.125",
            "best-of:4    ≤ 1.000       1       1  3.333 [-0.461, 7.128]  0.417",
        ];
        assert_eq!(lines[..3], expected);
        assert!(lines[3].ends_with("Chosen by liking:1."), "{of_one}");
        let plain = Row { weights: BTreeMap::new(), ..rows()[0].clone() };
        let of_none = table(&[plain], &["liking"]);
        assert!(of_none.starts_with("procedure  KL (nats)"), "{of_none}");
        assert!(of_none.ends_with("values and rewards asked for."), "{of_none}");

        let estimated = Row {
            kl: vec![
                Kl { nats: 2.0, kind: KlKind::Bound },
                Kl { nats: 1.5, kind: KlKind::Estimate },
            ],
            ..row("best-of:2", 0.5, 2.0, &[1.0, 2.0])
        };
        let exact = Row {
            kl: vec![Kl { nats: 0.25, kind: KlKind::Exact }],
            ..row("sample", 1.0, 0.0, &[1.0, 2.0])
        };
        let of_several = table(&[estimated, exact], &["liking", "wit"]);
        assert!(of_several.contains("liking:0.5    ≈ 1.500 "), "{of_several}");
        assert!(of_several.contains("liking:1      0.250 "), "{of_several}");
        assert!(!of_several.contains("Chosen by"), "{of_several}");
    }
}
