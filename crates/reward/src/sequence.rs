//! Whether the response goes on with a sequence of numbers, a task whose every response can be checked.

use crate::{Reward, RewardError};

/// 1 for the right continuation of a prompt `a,b:M,n`, else 0.
///
/// Right are the n numbers that follow b in the sequence of constant difference (b − a) mod M, each taken mod M, joined by commas and
/// without zeros before them; white space around the response does not matter. Where n is 0, the right response is empty.
#[derive(Clone, Copy, Debug)]
pub struct Sequence;

/// What a prompt asks for.
struct Task {
    first: u64,
    second: u64,
    modulus: u64,
    n_numbers: u64,
}

impl Task {
    /// The task of a prompt `a,b:M,n` of decimal numbers, M at least 1; `None` for another form.
    fn parse(prompt: &str) -> Option<Self> {
        let (start, rule) = prompt.split_once(':')?;
        let ((first, second), (modulus, n_numbers)) = (pair(start)?, pair(rule)?);
        (modulus > 0).then_some(Self { first, second, modulus, n_numbers })
    }

    /// The right response's numbers, made one by one: a prompt may ask for more than memory holds.
    fn numbers(&self) -> impl Iterator<Item = u64> {
        // Wide enough for sums of two.
        let [first, second, modulus] = [self.first, self.second, self.modulus].map(u128::from);
        let difference = (second % modulus + modulus - first % modulus) % modulus;
        let following = move |number: &u128| Some((number + difference) % modulus);
        let numbers = std::iter::successors(Some(second), following).skip(1);
        // Each is less than the modulus, which is a u64.
        (0..self.n_numbers).zip(numbers).map(|(_, number)| number as u64)
    }

    fn is_solved_by(&self, response: &str) -> bool {
        let response = response.trim();
        if self.n_numbers == 0 {
            // Splitting would find one empty number.
            return response.is_empty();
        }
        let mut given = response.split(',');
        self.numbers().all(|number| given.next() == Some(number.to_string().as_str()))
            && given.next().is_none()
    }
}

/// Two numbers of digits alone, between them a comma.
fn pair(text: &str) -> Option<(u64, u64)> {
    let (one, other) = text.split_once(',')?;
    let number = |digits: &str| {
        // `parse` would take a sign.
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain)
    };
    Some((number(one)?, number(other)?))
}

impl Reward for Sequence {
    fn score(&self, pairs: &[(&str, &str)]) -> Result<Vec<f32>, RewardError> {
        let score = |(prompt, response): &(&str, &str)| {
            let task = Task::parse(prompt)
                .ok_or_else(|| RewardError::NoSequence { prompt: (*prompt).to_owned() })?;
            Ok(f32::from(task.is_solved_by(response)))
        };
        pairs.iter().map(score).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(prompt: &str, response: &str) -> f32 {
        Sequence.score(&[(prompt, response)]).unwrap()[0]
    }

    /// By hand: from 0 and 8 the difference is 8, so that 16 mod 9 = 7 follows, then 15 mod 9 = 6, and so on.
    #[test]
    fn the_right_numbers_are_worth_one() {
        for (prompt, response) in [
            ("0,8:9,7", "7,6,5,4,3,2,1"),
            ("9,8:9,6", "7,6,5,4,3,2"),
            ("0,0:9,1", "0"),
            ("1,2:6,5", " 3,4,5,0,1\n"),
            ("5,1:7,2", "4,0"),
            ("6,4:9,0", " "),
        ] {
            assert_eq!(score(prompt, response), 1.0, "{prompt}");
        }
    }

    #[test]
    fn anything_else_is_worth_nothing() {
        for response in
            ["", "3", "3,4,5", "3,4,", ",3,4", "3, 4", "03,4", "+3,4", "3,5", "three,four"]
        {
            assert_eq!(score("1,2:6,2", response), 0.0, "{response}");
        }
        assert_eq!(score("1,2:6,0", "3"), 0.0);
        assert_eq!(score("1,2:18446744073709551615,18446744073709551615", "3,4"), 0.0);
        let greatest = u64::MAX - 1;
        assert_eq!(
            score(&format!("0,{greatest}:{},1", u64::MAX), &(greatest - 1).to_string()),
            1.0
        );
    }

    #[test]
    fn a_prompt_of_another_form_is_named() {
        for prompt in
            ["", "1,2", "1,2:3", "1,2:0,3", "a,2:3,4", "1,2:3,+4", "1,2,3:4,5", " 1,2:3,4"]
        {
            let error = Sequence.score(&[("1,2:6,1", "3"), (prompt, "1")]).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(&format!("{prompt:?}")), "{message}");
        }
    }

    #[test]
    fn every_prompt_of_the_real_task_has_the_form() {
        let Some(folder) = infalign_record::env::data_dir() else {
            eprintln!("SKIPPED: set INFALIGN_DATA to check the form of digit-completion");
            return;
        };
        for (file, n_rows) in [("train.parquet", 800), ("test.parquet", 200)] {
            let path = folder.join("digit-completion").join(file);
            let rows = infalign_data::rows::read(&path).unwrap();
            assert_eq!(rows.len(), n_rows);
            for row in rows {
                let prompt = row.values["prompt"].as_str().unwrap();
                let task = Task::parse(prompt).unwrap_or_else(|| panic!("{prompt:?}"));
                let right: Vec<_> = task.numbers().map(|number| number.to_string()).collect();
                assert_eq!(score(prompt, &right.join(",")), 1.0);
                assert_eq!(score(prompt, &format!("{},0", right.join(","))), 0.0);
            }
        }
    }
}
