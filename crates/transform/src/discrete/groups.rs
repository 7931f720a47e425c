//! Tie groups: outcomes of equal reward, which every procedure on ranks treats alike.

/// The distinct rewards of a list of outcomes, and which outcome has which.
#[derive(Clone, Debug)]
pub(super) struct TieGroups {
    /// Distinct rewards, ascending.
    pub(super) rewards: Vec<f64>,
    /// The group of each outcome.
    of: Vec<usize>,
}

impl TieGroups {
    /// Groups finite `rewards`, one an outcome.
    pub(super) fn new(rewards: &[f64]) -> Self {
        let mut order: Vec<usize> = (0..rewards.len()).collect();
        order.sort_by(|&a, &b| rewards[a].total_cmp(&rewards[b]));
        let mut groups = TieGroups { rewards: Vec::new(), of: vec![0; rewards.len()] };
        for outcome in order {
            if groups.rewards.last() != Some(&rewards[outcome]) {
                groups.rewards.push(rewards[outcome]);
            }
            groups.of[outcome] = groups.rewards.len() - 1;
        }
        groups
    }

    /// The group of one outcome.
    pub(super) fn of(&self, outcome: usize) -> usize {
        self.of[outcome]
    }

    /// Sums of a value per outcome over each group.
    pub(super) fn sums(&self, per_outcome: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.rewards.len()];
        for (&group, value) in self.of.iter().zip(per_outcome) {
            sums[group] += value;
        }
        sums
    }

    /// A value per group, given to each of its outcomes.
    pub(super) fn spread(&self, per_group: &[f64]) -> Vec<f64> {
        self.of.iter().map(|&group| per_group[group]).collect()
    }
}

/// p_< + ½p_= of each group: the probability to beat a draw from `masses`, ties counted half.
pub(super) fn midpoints(masses: &[f64]) -> Vec<f64> {
    let mut below = 0.0;
    let midpoint = |mass: &f64| {
        let middle = below + 0.5 * mass;
        below += mass;
        middle
    };
    masses.iter().map(midpoint).collect()
}

/// e^{logs}/Σe^{logs}; logs of −∞ are 0.
pub(super) fn normalised(logs: &[f64]) -> Vec<f64> {
    let greatest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logs.iter().map(|log| (log - greatest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}
