//! Which transform suits a decoder? `cargo run -p infalign --example transform -- best-of:4 0.5`
//!
//! Prints, for a decoder and a KL in nats, the win rate of each transform beside that of the best policy there is.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use infalign::transform::{Optimum, Procedure, Tilt, Transform, beta_for_kl};

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let procedure: Procedure = words.next().as_deref().unwrap_or("best-of:4").parse()?;
    let kl: f64 = words.next().as_deref().unwrap_or("0.5").parse()?;
    let best = Optimum::for_kl(&procedure, kl)?;
    println!("optimum   {:.4}", best.win_rate);
    for name in ["identity", "log", "exp:5", "exp:10", "exp:-5", "exp:-10"] {
        let transform: Transform = name.parse()?;
        let beta = beta_for_kl(&transform, kl)?;
        let win_rate = Tilt::new(&transform, beta)?.win_rate(&procedure)?;
        println!("{name:<9} {win_rate:.4}, {:.4} short", best.win_rate - win_rate);
        anyhow::ensure!(win_rate <= best.win_rate + 1e-9, "nothing is above the optimum");
    }
    Ok(())
}
