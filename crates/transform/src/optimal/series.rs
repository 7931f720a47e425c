//! One Taylor step of the universal equation Y'' = ±Y'·(xY)^{N−1}.

/// Degree of the Taylor polynomials.
pub(super) const DEGREE: usize = 26;
/// Size, relative to the whole, of the last coefficients that a step may leave.
const TAIL: f64 = 1e-17;

/// A Taylor polynomial in τ, which runs from 0 to 1 along its piece.
pub(super) type Series = [f64; DEGREE + 1];

/// The universal equation for one N and one sign.
#[derive(Clone, Copy, Debug)]
pub(super) struct Equation {
    /// N − 1.
    pub(super) power: f64,
    /// +1 for best-of-N, −1 for worst-of-N.
    pub(super) sign: f64,
}

/// The solution along one step: x from `start` to `start + width`.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) start: f64,
    pub(super) width: f64,
    y: Series,
    /// Y − x, with digits of its own while Y is near x.
    excess: Series,
    /// log Y'.
    log_slope: Series,
}

/// The solution at one point: x, Y, Y − x and log Y'.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) excess: f64,
    pub(super) log_slope: f64,
}

impl State {
    /// log(Y/x), from whichever of Y and Y − x has the digits.
    pub(super) fn log_mean_slope(self) -> f64 {
        let share = self.excess / self.x;
        if share.abs() < 0.5 { share.ln_1p() } else { (self.y / self.x).ln() }
    }
}

impl Equation {
    /// The solution next to 0: log Y' = ±x^{2N−1}/(2N−1) + …, whose next term is beyond `f64` wherever
    /// this one is below 1e-17.
    pub(super) fn near_zero(self, x: f64) -> State {
        let order = 2.0 * self.power + 1.0;
        let log_slope = self.sign * x.powf(order) / order;
        let excess = log_slope * x / (order + 1.0);
        State { x, y: x + excess, excess, log_slope }
    }

    /// The x up to which [`Equation::near_zero`] holds.
    pub(super) fn near_zero_reach(self) -> f64 {
        let order = 2.0 * self.power + 1.0;
        ((TAIL * order).ln() / order).exp()
    }

    /// The Taylor piece from `state`, as wide as it converges; `guess` is a width of about that size.
    pub(super) fn step(self, state: State, guess: f64) -> Piece {
        let (y, log_slope) = self.expand(state, guess);
        let mut excess = y;
        (excess[0], excess[1]) = (state.excess, guess * state.log_slope.exp_m1());
        let reach = reach(&excess).min(reach(&log_slope)) * guess;
        let width = reach.min(0.5 * state.x);
        Piece { start: state.x, width: guess, y, excess, log_slope }.cut(width / guess)
    }

    /// Coefficients of Y and log Y' in τ = (x − start)/scale, each from those before it.
    fn expand(self, state: State, scale: f64) -> (Series, Series) {
        let State { x, log_slope, .. } = state;
        let mut y = [0.0; DEGREE + 1];
        let mut product = [0.0; DEGREE + 1];
        let mut source = [0.0; DEGREE + 1];
        let mut log = [0.0; DEGREE + 1];
        let mut slope = [0.0; DEGREE + 1];
        (y[0], log[0], slope[0]) = (state.y, log_slope, log_slope.exp());
        for k in 0..DEGREE {
            product[k] = x * y[k] + if k > 0 { scale * y[k - 1] } else { 0.0 };
            source[k] = if k == 0 {
                (self.power * product[0].ln()).exp()
            } else {
                next_of_power(self.power, &product, &source, k)
            };
            if k > 0 {
                slope[k] = next_of_exponential(&log, &slope, k);
            }
            let step = scale / (k + 1) as f64;
            log[k + 1] = self.sign * step * source[k];
            y[k + 1] = step * slope[k];
        }
        (y, log)
    }
}

/// Coefficient k of a^power from those of a and the earlier ones of the result.
fn next_of_power(power: f64, a: &Series, result: &Series, k: usize) -> f64 {
    let term = |j: usize| (j as f64 * power - (k - j) as f64) * a[j] * result[k - j];
    (1..=k).map(term).sum::<f64>() / (k as f64 * a[0])
}

/// Coefficient k of e^a from those of a and the earlier ones of the result.
fn next_of_exponential(a: &Series, result: &Series, k: usize) -> f64 {
    (1..=k).map(|j| j as f64 * a[j] * result[k - j]).sum::<f64>() / k as f64
}

/// The τ at which the last coefficients are [`TAIL`] of the leading ones.
fn reach(series: &Series) -> f64 {
    let size = series[0].abs().max(series[1].abs()).max(series[2].abs());
    let last = [DEGREE - 1, DEGREE].map(|k| {
        let share = TAIL * size / series[k].abs();
        if share.is_nan() { 1.0 } else { share.powf(1.0 / k as f64) }
    });
    last[0].min(last[1]).min(4.0)
}

fn rescale(series: &mut Series, factor: f64) {
    let mut power = 1.0;
    for coefficient in series {
        *coefficient *= power;
        power *= factor;
    }
}

impl Piece {
    /// The solution at τ in [0, 1].
    pub(super) fn at(&self, tau: f64) -> State {
        let x = self.start + self.width * tau;
        let [y, excess, log_slope] =
            [&self.y, &self.excess, &self.log_slope].map(|series| value(series, tau));
        State { x, y, excess, log_slope }
    }

    /// The same solution with its end moved to τ.
    pub(super) fn cut(mut self, tau: f64) -> Self {
        self.width *= tau;
        rescale(&mut self.y, tau);
        rescale(&mut self.excess, tau);
        rescale(&mut self.log_slope, tau);
        self
    }
}

fn value(series: &Series, tau: f64) -> f64 {
    series.iter().rev().fold(0.0, |sum, coefficient| sum * tau + coefficient)
}
