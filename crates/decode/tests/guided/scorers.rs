//! Several scorers at once: their sum, and the greatest value that it can have.

use infalign_decode::exact::Values;
use infalign_decode::guided::{LearnedScorer, PrefixScorer, TabularScorer, WeightedScorers};
use infalign_decode::{Decoder, ProcedureDecoder};
use infalign_model::{ScoredReward, ScorerModel, ScorerSpec, TabularProblem};
use infalign_transform::Procedure;

use super::{Fixture, TABLE, guided};

fn boxed(scorer: &TabularScorer) -> Box<dyn PrefixScorer> {
    Box::new(scorer.clone())
}

#[test]
fn several_scorers_add_up_with_their_weights() {
    let fixture = Fixture::new();
    let other = TABLE.replace("\"$\": 0,", "\"$\": 3,").replace("\"bb$\": 2", "\"bb$\": -2");
    let other = TabularProblem::parse(&other, "other.json".as_ref()).unwrap();
    let second = TabularScorer::new(Values::of(&other));
    let sum =
        WeightedScorers::new(vec![(0.75, boxed(&fixture.scorer)), (0.5, boxed(&second))]).unwrap();
    let values = Values::of(&fixture.problem).scaled(0.75);
    let values = values.plus(&Values::of(&other).scaled(0.5)).unwrap();
    assert!(sum.greatest().unwrap() >= values.greatest());
    let together = TabularScorer::new(values);
    let run = |scorer: &dyn PrefixScorer, procedure: &str| {
        let procedure = procedure.parse().unwrap();
        let guided = guided(fixture.generator(2, 64), scorer, procedure);
        let decoder =
            ProcedureDecoder::guided(Procedure::Sample, guided, &fixture.tokenizer, None).unwrap();
        decoder.decode(&fixture.prompts(200)).unwrap()
    };
    for procedure in ["cd-block:length=2,samples=4", "cd-token:lambda=1"] {
        let texts = |scorer: &dyn PrefixScorer| {
            run(scorer, procedure).into_iter().map(|one| one.text).collect::<Vec<_>>()
        };
        assert_eq!(texts(&sum), texts(&together));
        assert_ne!(texts(&sum), texts(&fixture.scorer));
    }
    assert!(WeightedScorers::new(vec![(f64::NAN, boxed(&fixture.scorer))]).is_err());
    assert!(WeightedScorers::new(Vec::new()).is_err());
}

#[test]
fn the_greatest_value_by_a_negative_weight_is_that_of_the_least_reward() {
    let name = "reward".into();
    let reward = ScoredReward { name, mean: 0.0, scale: 1.0, least: -3.0, greatest: 2.0 };
    let spec = ScorerSpec {
        heads: vec![reward],
        vocabulary: 3,
        hidden: 1,
        width: 1,
        own_trunk: false,
        soft: None,
        base: "base".into(),
        base_sha256: String::new(),
    };
    let device = infalign_backend::device(None).unwrap();
    let (values, _) = ScorerModel::new(spec, None, &mut || 0.0, &device).unwrap().for_inference();
    let learned = |weight: f64| LearnedScorer::new(&values, None, &[weight]).unwrap().greatest();
    assert_eq!([learned(1.0), learned(-1.0)], [Some(2.0), Some(3.0)]);
    // A sum of scorers does not know their least values.
    let fixture = Fixture::new();
    let sum = |weight: f64| {
        WeightedScorers::new(vec![(weight, boxed(&fixture.scorer))]).unwrap().greatest()
    };
    assert!(sum(1.0).is_some());
    assert_eq!(sum(-1.0), None);
}
