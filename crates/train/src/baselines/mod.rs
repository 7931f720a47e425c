//! The methods that CTRL is compared with.
//!
//! | method | learns from | file |
//! |---|---|---|
//! | SFT, best-of-N SFT | responses to imitate | `sft.rs` |
//! | DPO, IPO | pairs of responses | `dpo.rs`, `ipo.rs` |
//! | BoNBoN | the best and the worst of N responses | `bonbon.rs` |
//! | J-BOND | responses of the policy and of a moving anchor | `bond.rs` |
//! | vBoN | what CTRL learns from | `vbon.rs` |
//!
//! All but the last two learn from stored responses: [`OfflineTrainer`] trains them by a loss on the log-probabilities of whole responses.
//! Throughout, h(y, z) = log π(y)/π_ref(y) − log π(z)/π_ref(z), in nats.

mod bonbon;
mod bond;
mod dpo;
mod ipo;
mod offline;
mod reference;
mod sft;
mod stored;
mod vbon;

pub use bonbon::target_gap;
pub use bond::{BondConfig, BondTrainer};
pub use offline::{OfflineConfig, OfflineTrainer, PairLoss, ResponsePair, Stored};
pub use stored::{Labels, best_of_n, best_worst_pairs, pairs};
pub use vbon::vbon;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::bonbon::target_gap;
    use super::dpo::dpo;
    use super::ipo::ipo;
    use super::offline::testing::{close, column};

    /// Each key of a table of the file with its number; they are written as text, with more digits than fit.
    fn rows(table: &Value) -> Vec<(f64, f64)> {
        let number = |text: &str| text.parse().unwrap();
        let rows = table.as_object().unwrap().iter();
        rows.map(|(key, value)| (number(key), number(value.as_str().unwrap()))).collect()
    }

    /// Against values computed with 30 digits, in `reference/losses_micro.json` beside the folder that `INFALIGN_DATA` names.
    #[test]
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn losses_are_those_of_the_reference_file() {
        let Some(data) = infalign_record::env::data_dir() else {
            eprintln!(
                "SKIPPED: set INFALIGN_DATA to the data folder to compare with its reference"
            );
            return;
        };
        let path = data.join("../reference/losses_micro.json");
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let ratio = |key: &str| file["pair"][key].as_str().unwrap().parse::<f64>().unwrap();
        let gap = || column(&[ratio("h_w") - ratio("h_l")]);
        for (beta, loss) in rows(&file["dpo"]) {
            close(dpo(gap(), column(&[1.0]), beta).into_scalar(), loss, 1e-6);
        }
        for (tau, loss) in rows(&file["ipo"]) {
            close(ipo(gap(), column(&[1.0]), tau).into_scalar(), loss, 1e-5);
        }
        for (n, gap) in rows(&file["bonbon_target_gap"]) {
            close(target_gap(n as usize), gap, 1e-12);
        }
        for (n, beta) in rows(&file["bonbon_ipo_target"]) {
            close(0.5 / target_gap(n as usize), beta, 1e-12);
        }
    }
}
