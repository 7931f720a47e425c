//! `task = "align"`: train a policy by every method and compare them.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use infalign_decode::Sampling;
use infalign_record::{Claim, Expect};
use infalign_reward::RewardConfig;
use infalign_train::baselines::vbon;
use infalign_train::{CtrlConfig, Objective, SolverConfig};
use infalign_transform::Procedure;
use serde::{Deserialize, Serialize};

use super::{Kind, Method, RewardModelStage};

/// A recipe that aligns one model by several methods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlignRecipe {
    /// `align`.
    pub(crate) task: String,
    /// Name of the recipe, in tables and plots.
    pub(crate) name: String,
    /// Seed of every random draw.
    pub(crate) seed: u64,
    /// Directory of the reference policy π_ref.
    pub(crate) model: PathBuf,
    /// Largest number of responses generated together.
    #[serde(default = "batch")]
    pub(crate) batch: usize,
    /// Where prompts come from.
    pub(crate) prompts: PromptsConfig,
    /// Reward models to train first, into `$RUN/reward-models/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reward_model: Vec<RewardModelStage>,
    /// The reward.
    pub(crate) reward: RewardConfig,
    /// How responses are sampled.
    pub(crate) generation: Sampling,
    /// What rewards are calibrated against; for methods that CTRL trains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) calibration: Option<CalibrationConfig>,
    /// Stored reference responses; for methods that learn from such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rollouts: Option<RolloutsConfig>,
    /// The trainer of all methods that CTRL trains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) train: Option<CtrlConfig>,
    /// The methods to compare.
    pub(crate) method: Vec<Method>,
    /// What is measured.
    pub(crate) evaluation: Evaluation,
    /// What a replication has to reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expect: Option<Expect>,
}

pub(super) fn batch() -> usize {
    128
}

/// Prompts to train on and prompts held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum PromptsConfig {
    /// Two JSONL files with `prompt`.
    Files {
        /// Prompts to train on.
        train: PathBuf,
        /// Prompts held out.
        test: PathBuf,
    },
    /// Openings of the stories of one text.
    StoryOpenings {
        /// The text.
        file: PathBuf,
        /// Words of an opening.
        words: usize,
        /// How many of the stories are held out, from the last.
        test: usize,
    },
    /// Openings of the paragraphs of one text.
    ParagraphOpenings {
        /// The text.
        file: PathBuf,
        /// Words of an opening.
        words: usize,
        /// How many of the openings are held out, from the last.
        test: usize,
    },
    /// Prompts of preferences, whose answers are not read.
    Preferences {
        /// Files with `chosen`, `rejected` and `prompt`, or with a prompt that both begin with.
        files: Vec<PathBuf>,
        /// Longest prompt, in characters; others are left out.
        characters: usize,
        /// How many of the prompts are held out, from the last.
        test: usize,
    },
}

impl PromptsConfig {
    /// The files that they come from.
    pub(super) fn files_mut(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Files { train, test } => vec![train, test],
            Self::StoryOpenings { file, .. } | Self::ParagraphOpenings { file, .. } => vec![file],
            Self::Preferences { files, .. } => files.iter_mut().collect(),
        }
    }
}

impl AlignRecipe {
    /// Whether rewards are calibrated by a table.
    pub(crate) fn has_table(&self) -> bool {
        self.calibration.as_ref().is_some_and(|calibration| !calibration.group)
    }

    /// How CTRL trains a method: `[train]`, but for what the method has of its own. None where CTRL does not train it.
    pub(crate) fn ctrl(&self, kind: &Kind) -> Option<CtrlConfig> {
        let train = self.train.clone()?;
        match kind {
            Kind::Ctrl { solver: Some(solver), .. } => {
                Some(CtrlConfig { solver: solver.clone(), ..train })
            }
            Kind::Ctrl { solver: None, .. } => Some(train),
            Kind::Vbon { n } => {
                Some(CtrlConfig { beta: Some(vbon(*n).1), target_kl: None, ..train })
            }
            _ => None,
        }
    }

    /// How many stored reference responses to a prompt a method takes at least; none where it learns from something else.
    fn rollouts_of(&self, kind: &Kind) -> Option<usize> {
        let of_solver = |train: CtrlConfig| {
            train.solver.learns_from_reference().then_some(train.samples_per_prompt)
        };
        kind.rollouts().or_else(|| self.ctrl(kind).and_then(of_solver))
    }

    /// Refuses methods without what they need, and tables that no method needs.
    ///
    /// # Errors
    /// One sentence that names the method or the table.
    pub(crate) fn check_methods(&self) -> Result<()> {
        self.train.as_ref().map_or(Ok(()), |train| self.check_kl(train)).context("[train]")?;
        for Method { name, kind } in &self.method {
            kind.check().with_context(|| format!("[[method]] {name:?}"))?;
            if kind.is_ctrl() {
                for (table, given) in
                    [("train", self.train.is_some()), ("calibration", self.calibration.is_some())]
                {
                    let kind = kind.name();
                    ensure!(given, "method {name:?} is of kind \"{kind}\", which needs [{table}]");
                }
            }
            let ctrl = self.ctrl(kind);
            if let Some(train) = &ctrl {
                let checked = train.check(&self.generation).and_then(|()| train.check_keep());
                checked.with_context(|| format!("[train] with method {name:?}"))?;
            }
            if let (Some(train), Some(objective)) = (&ctrl, kind.objective()) {
                let checked = self.check_objective(train, objective);
                checked.with_context(|| format!("[train] with method {name:?}"))?;
            }
            if let Some(needed) = self.rollouts_of(kind) {
                let samples = self.rollouts.map_or(0, |rollouts| rollouts.samples);
                ensure!(
                    samples >= needed,
                    "method {name:?} needs {needed} reference responses to a prompt, but rollouts.samples is {samples}"
                );
            }
            let solved_by_table = ctrl.as_ref().is_some_and(|train| train.solver.needs_table());
            ensure!(
                self.has_table() || !(kind.needs_table() || solved_by_table),
                "calibration.group = true leaves no table of reference rewards, which method {name:?} needs: give calibration.samples or calibration.table"
            );
            if let Some(train) = ctrl.filter(|_| !self.has_table()) {
                let checked = train.check_groups();
                checked.with_context(|| format!("[train] with method {name:?}"))?;
            }
        }
        self.check_tables()
    }

    /// Whether CTRL trains methods, and all have a β of their own.
    pub(crate) fn has_no_shared_kl(&self) -> bool {
        let mut trained = self.method.iter().filter(|method| method.kind.is_ctrl()).peekable();
        trained.peek().is_some() && trained.all(|one| matches!(one.kind, Kind::Vbon { .. }))
    }

    /// Refuses a KL out of range, also where methods have a β in its place, and none where one is needed.
    fn check_kl(&self, train: &CtrlConfig) -> Result<()> {
        let has_none = train.target_kl.is_none() && train.beta.is_none();
        if has_none && self.has_no_shared_kl() {
            return Ok(());
        }
        Ok(train.check_kl()?)
    }

    /// Refuses an objective that the numbers of responses do not allow.
    fn check_objective(&self, train: &CtrlConfig, objective: &Objective) -> Result<()> {
        train.check_objective(objective)?;
        let held = self.calibration.as_ref().and_then(|calibration| calibration.samples);
        if let (Objective::WinRate(_), Some(held), Some(choice)) =
            (objective, held, objective.choice()?)
        {
            let needed = choice.samples();
            ensure!(
                held >= needed,
                "calibration.samples is {held}, but objective {objective} looks at {needed} reference responses"
            );
        }
        Ok(())
    }

    /// Refuses what no replication can be held to, and claims about what is not measured.
    ///
    /// # Errors
    /// One sentence that names the key, the method or the procedure.
    pub(crate) fn check_expect(&self) -> Result<()> {
        let Some(expect) = &self.expect else { return Ok(()) };
        expect.check().context("[expect]")?;
        for Claim { better, worse, procedure } in &expect.claims {
            for name in [better, worse] {
                ensure!(
                    self.method.iter().any(|method| method.name == *name),
                    "[[expect.claim]] names the method {name:?}, but no [[method]] has that name"
                );
            }
            let measured = |known: &Procedure| known.to_string() == *procedure;
            ensure!(
                self.evaluation.procedures.iter().any(measured),
                "[[expect.claim]] is about {procedure:?}, which is not in evaluation.procedures"
            );
        }
        Ok(())
    }

    fn check_tables(&self) -> Result<()> {
        let ctrl = self.method.iter().any(|method| method.kind.is_ctrl());
        let stored = self.method.iter().any(|method| self.rollouts_of(&method.kind).is_some());
        for (table, given, used) in [
            ("train", self.train.is_some(), ctrl),
            ("calibration", self.calibration.is_some(), ctrl),
            ("rollouts", self.rollouts.is_some(), stored),
        ] {
            ensure!(used || !given, "[{table}] has no effect: no [[method]] uses it");
        }
        let own = |method: &Method| matches!(&method.kind, Kind::Ctrl { solver: Some(_), .. });
        let mut trained = self.method.iter().filter(|method| method.kind.is_ctrl());
        let given =
            self.train.as_ref().is_some_and(|train| train.solver != SolverConfig::default());
        ensure!(
            !(given && trained.all(own)),
            "[train.solver] has no effect: every [[method]] that CTRL trains has a solver of its own"
        );
        Ok(())
    }
}

/// What rewards are calibrated against: one of three.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CalibrationConfig {
    /// K: reference responses a prompt, sampled by the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) samples: Option<usize>,
    /// A table that `infalign calibrate` has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<PathBuf>,
    /// Whether the other responses of the same step take the place of reference responses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) group: bool,
}

impl CalibrationConfig {
    /// Refuses none or several of the three, and too few samples.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { samples, table, group } = self;
        let given = [samples.is_some(), table.is_some(), *group].into_iter().filter(|given| *given);
        ensure!(
            given.count() == 1,
            "[calibration] needs one of samples = K, table = \"FILE.parquet\" and group = true"
        );
        if let Some(samples) = samples {
            ensure!(*samples >= 2, "calibration.samples is {samples}: at least 2 are needed");
        }
        Ok(())
    }
}

/// Reference responses that are stored for methods that learn from such.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RolloutsConfig {
    /// Responses to each training prompt.
    pub(crate) samples: usize,
}

/// What is measured, on the prompts held out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Evaluation {
    /// Responses a prompt, from the policy and from the reference.
    pub(crate) samples: usize,
    /// Procedures, each on both sides.
    pub(crate) procedures: Vec<Procedure>,
    /// Method that the others are compared with, pair by pair.
    pub(crate) baseline: String,
    /// Another reward that judges the same responses; no policy is trained on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) judge: Option<RewardConfig>,
    /// Whether every policy that CTRL trains is compared with the exact optimum of what it is trained on, over all responses to all training
    /// prompts; for models and responses so small that these can be listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) optimum: bool,
    /// Evaluation of the policies that CTRL trains, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) watch: Option<WatchConfig>,
}

/// Evaluation while a policy is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WatchConfig {
    /// Steps from one time to the next.
    pub(crate) every: usize,
    /// Responses to each held-out prompt.
    #[serde(default = "watch_samples")]
    pub(crate) samples: usize,
}

fn watch_samples() -> usize {
    16
}

#[cfg(test)]
mod tests {
    use infalign_train::Keep;

    use super::*;

    /// A recipe with RLOO in `[train]`; `more` is the rest of it.
    fn recipe(more: &str) -> AlignRecipe {
        let text = format!(
            "task = 'align'\nname = 'a'\nseed = 1\nmodel = 'm'\n\
             prompts = {{ kind = 'files', train = 'a.jsonl', test = 'b.jsonl' }}\n\
             reward = {{ kind = 'length', unit = 'words' }}\ngeneration = {{ max_tokens = 4 }}\n\
             evaluation = {{ samples = 2, procedures = ['sample'], baseline = 'a' }}\n\
             [train]\nsteps = 3\nprompts_per_step = 2\nsamples_per_prompt = 4\ntarget_kl = 0.5\n\
             optimizer = {{ learning_rate = 0.1 }}\n{more}"
        );
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn a_win_rate_needs_more_responses_than_its_decoder_looks_at() {
        let refused = |calibration: &str, procedure: &str, solver: &str| {
            let method = format!("[[method]]\nname = 'a'\nobjective = 'win-rate:{procedure}'\n");
            let checked = recipe(&format!("{calibration}{method}{solver}")).check_methods();
            format!("{:#}", checked.unwrap_err())
        };
        let method = "[[method]]\nname = 'a'\nobjective = 'win-rate:best-of:3'\n";
        recipe(&format!("{SAMPLES}{method}")).check_methods().unwrap();
        assert!(refused(SAMPLES, "best-of:4", "").contains("samples_per_prompt is 4"));
        assert!(refused(GROUP, "best-of:3", "").contains("calibration.group"));
        let few = "[calibration]\nsamples = 2\n";
        assert!(refused(few, "worst-of:3", "").contains("calibration.samples is 2"));
        // Of an expected reward the table is the unit alone.
        let reward = "[[method]]\nname = 'a'\nobjective = 'reward:best-of:3'\n";
        recipe(&format!("{few}{reward}")).check_methods().unwrap();
        let refusal = recipe(&format!("{GROUP}{reward}")).check_methods().unwrap_err();
        assert!(refusal.to_string().contains("calibration.group"), "as of `raw`");
        let regression = "solver = { kind = 'regression' }\n";
        assert!(refused(SAMPLES, "best-of:3", regression).contains("\"regression\""));
    }

    #[test]
    fn claims_are_about_what_is_measured() {
        let method = |name: &str| format!("[[method]]\nname = '{name}'\nobjective = 'log'\n");
        let method = [SAMPLES, &method("a"), &method("b")].concat();
        let claim = |better: &str, procedure: &str| {
            let claim = format!(
                "[[expect.claim]]\nbetter = '{better}'\nworse = 'a'\nprocedure = '{procedure}'\n"
            );
            recipe(&format!("{method}{claim}")).check_expect()
        };
        claim("b", "sample").unwrap();
        assert!(claim("c", "sample").unwrap_err().to_string().contains("\"c\""));
        assert!(claim("b", "best-of:2").unwrap_err().to_string().contains("best-of:2"));
        let itself = format!("{:#}", claim("a", "sample").unwrap_err());
        assert!(itself.starts_with("[expect]: claim.worse is \"a\""), "{itself}");
    }

    const GROUP: &str = "[calibration]\ngroup = true\n";
    const SAMPLES: &str = "[calibration]\nsamples = 4\n";
    const OFFLINE: &str = "[[method]]\nname = 'b'\nobjective = 'log'\n\
                           solver = { kind = 'regression', rollouts = 'reference' }\n";

    #[test]
    fn a_method_may_have_a_solver_of_its_own() {
        let recipe = recipe(&format!(
            "{SAMPLES}[[method]]\nname = 'a'\nobjective = 'log'\n\
             [[method]]\nname = 'b'\nobjective = 'log'\n[method.solver]\nkind = 'ppo'\nepochs = 2\n\
             [[method]]\nname = 'c'\nkind = 'vbon'\nn = 4\n"
        ));
        recipe.check_methods().unwrap();
        let [shared, own, vbon] = [0, 1, 2].map(|i| recipe.ctrl(&recipe.method[i].kind).unwrap());
        assert_eq!(Some(&shared), recipe.train.as_ref());
        let ppo = serde_json::from_str(r#"{"kind": "ppo", "epochs": 2}"#).unwrap();
        assert_eq!(own, CtrlConfig { solver: ppo, ..shared.clone() });
        assert_eq!(vbon, CtrlConfig { beta: Some(1.0 / 3.0), target_kl: None, ..shared });
    }

    #[test]
    fn a_shared_solver_that_no_method_takes_is_refused() {
        let own = "[[method]]\nname = 'a'\nobjective = 'log'\nsolver = { kind = 'reinforce' }\n";
        let mut recipe = recipe(&format!("{SAMPLES}{own}"));
        recipe.check_methods().unwrap();
        recipe.train.as_mut().unwrap().solver =
            serde_json::from_str(r#"{"kind": "ppo", "epochs": 2}"#).unwrap();
        let message = recipe.check_methods().unwrap_err().to_string();
        assert!(message.contains("[train.solver] has no effect"), "{message}");
    }

    #[test]
    fn calibration_within_groups_needs_two_responses_and_chooses_no_policy() {
        let group = recipe(&format!(
            "{GROUP}[[method]]\nname = 'a'\nobjective = 'log'\nsolver = {{ kind = 'reinforce' }}\n"
        ));
        group.check_methods().unwrap();
        let refused = |train: CtrlConfig| {
            let recipe = AlignRecipe { train: Some(train), ..group.clone() };
            format!("{:#}", recipe.check_methods().unwrap_err())
        };
        let train = group.train.clone().unwrap();
        let message = refused(CtrlConfig { samples_per_prompt: 1, ..train.clone() });
        assert!(
            message.contains("samples_per_prompt is 1") && message.contains("\"a\""),
            "{message}"
        );
        let best = CtrlConfig { keep: Keep::Best, checkpoint_every: 2, ..train };
        let message = refused(best.clone());
        assert!(message.contains("keep = \"best\"") && message.contains("\"a\""), "{message}");
        let table = CalibrationConfig { samples: Some(4), ..CalibrationConfig::default() };
        let recipe = AlignRecipe { train: Some(best), calibration: Some(table), ..group };
        recipe.check_methods().unwrap();
    }

    #[test]
    fn the_best_policy_is_one_of_several() {
        let recipe = recipe(&format!("{SAMPLES}[[method]]\nname = 'a'\nobjective = 'log'\n"));
        let kept = |keep: Keep, steps: usize, checkpoint_every: usize| {
            let train = recipe.train.clone().unwrap();
            let train = CtrlConfig { keep, steps, checkpoint_every, ..train };
            AlignRecipe { train: Some(train), ..recipe.clone() }.check_methods()
        };
        for (steps, every) in [(2, 1), (3, 2), (5, 3), (75, 50)] {
            kept(Keep::Best, steps, every).unwrap();
        }
        for (steps, every) in [(1, 1), (3, 50), (50, 50), (74, 50), (4, 3)] {
            kept(Keep::Last, steps, every).unwrap();
            let message = format!("{:#}", kept(Keep::Best, steps, every).unwrap_err());
            let told = format!("checkpoint_every is {every}, but it must be at most two thirds");
            assert!(message.contains(&told) && message.contains("\"a\""), "{message}");
        }
    }

    #[test]
    fn a_solver_of_a_method_needs_what_a_shared_one_does() {
        let refused = |more: &str| format!("{:#}", recipe(more).check_methods().unwrap_err());
        let message = refused(&format!("{SAMPLES}{OFFLINE}"));
        assert!(message.contains("\"b\" needs 4 reference responses"), "{message}");
        let rollouts = "[rollouts]\nsamples = 4\n";
        let message = refused(&format!("{GROUP}{rollouts}{OFFLINE}"));
        assert!(message.contains("calibration.group") && message.contains("\"b\""), "{message}");
        recipe(&format!("{SAMPLES}{rollouts}{OFFLINE}")).check_methods().unwrap();
        let online = OFFLINE.replace("reference", "policy");
        let message = refused(&format!("{SAMPLES}{rollouts}{online}"));
        assert!(message.contains("[rollouts] has no effect"), "{message}");
    }
}
