//! The trapezoid rule in log s for integrals ∫₀^∞ (…)·e^{−s·a} ds.

/// Step in log s: the trapezoid error is about e^{−π²/step} = 7e-18.
pub(crate) const STEP: f64 = 0.25;
/// e^{−x} counts as 0 above this x.
pub(crate) const VANISHES: f64 = 50.0;
/// e^{−x} counts as 1 below this x.
pub(crate) const NEGLIGIBLE: f64 = 1e-18;
