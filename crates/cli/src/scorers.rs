//! Prefix scorers as the command line names them: `DIR`, `DIR#REWARD`, either with `:WEIGHT`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use infalign_backend::Device;
use infalign_decode::guided::ScorerSet;
use infalign_model::{
    CausalLm, LanguageModel, ModelFolder, PrefixValues, ScorerModel, ScorerSpec, Tokenizer,
    moved_with_run,
};
use infalign_record::hash::{sha256_bytes, sha256_file};

use crate::recording::RunInputs;
use crate::{identity, models};

/// A scorer that the command line names: its folder, one of its rewards, and a weight.
#[derive(Clone, Debug, PartialEq)]
struct Named {
    dir: PathBuf,
    reward: Option<String>,
    weight: f64,
}

impl Named {
    fn parse(text: &str) -> Result<Self> {
        let (place, weight) = match text.rsplit_once(':') {
            // A path may hold colons of its own, as that behind the letter of a drive.
            Some((place, weight))
                if !weight.contains(['/', '\\', '#']) && !Path::new(text).is_dir() =>
            {
                let number = weight.parse::<f64>().ok().filter(|weight| weight.is_finite());
                let weight = number.with_context(|| {
                    format!("the weight of the scorer {text} is {weight:?}: give a finite number")
                })?;
                (place, weight)
            }
            _ => (text, 1.0),
        };
        let (dir, reward) = match place.rsplit_once('#') {
            Some((dir, reward)) if !Path::new(place).is_dir() => (dir, Some(reward.to_owned())),
            _ => (place, None),
        };
        Ok(Self { dir: dir.into(), reward, weight })
    }

    /// The index of the reward that it names.
    fn head(&self, spec: &ScorerSpec) -> Result<usize> {
        let names: Vec<&str> = spec.heads.iter().map(|head| head.name.as_str()).collect();
        let dir = self.dir.display();
        match &self.reward {
            None if names.len() == 1 => Ok(0),
            None => bail!(
                "the scorer {dir} has values of {}: name one, as in --scorer {dir}#{}",
                names.join(", "),
                names[0]
            ),
            Some(reward) => names.iter().position(|name| name == reward).with_context(|| {
                format!("the scorer {dir} has no values of {reward:?}, but of {}", names.join(", "))
            }),
        }
    }
}

/// Adds the scorers that the command line names to what a command reads. Those that cannot be are left to the command to complain of.
pub(crate) fn read_by(reads: RunInputs, given: &[String]) -> RunInputs {
    let named = given.iter().filter_map(|text| Named::parse(text).ok());
    named.fold(reads, |reads, Named { dir, .. }| {
        let (name, trunk) = (dir.to_string_lossy().into_owned(), dir.join("trunk"));
        let reads = reads.all_of("--scorer", &name, &dir);
        reads.all_of("--scorer", &format!("{name}/trunk"), &trunk)
    })
}

/// What tells a scorer from others: the hash of its files, the reward and the weight.
///
/// # Errors
/// When the text names none, or a file cannot be read.
pub(crate) fn identity(text: &str) -> Result<String> {
    let Named { dir, reward, weight } = Named::parse(text)?;
    let trunk = Some(dir.join("trunk")).filter(|trunk| trunk.is_dir());
    let mut hashes = sha256_file(&dir.join("scorer.json"))?;
    hashes += &identity::weights(&models::at(dir))?;
    if let Some(trunk) = trunk {
        hashes += &identity::model(&models::at(trunk))?;
    }
    let hash = sha256_bytes(hashes.as_bytes());
    Ok(format!("{hash}#{}:{weight}", reward.unwrap_or_default()))
}

/// Loads the scorers of a command line; rewards of one folder share its trunk.
///
/// - `model`: the folder of the model that generates, and its tokenizer.
///
/// # Errors
/// One sentence that names the scorer and what is wrong with it.
pub(crate) fn load(
    given: &[String],
    model: &ModelFolder,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<ScorerSet> {
    let mut set = ScorerSet::default();
    let mut loaded: Vec<(PathBuf, usize, ScorerSpec)> = Vec::new();
    for text in given {
        let named = Named::parse(text)?;
        let dir = &named.dir;
        ensure!(
            dir.is_dir(),
            "the scorer {} is not a folder: give one that `infalign scorer` has made",
            dir.display()
        );
        let place = match loaded.iter().position(|(known, ..)| known == dir) {
            Some(place) => place,
            None => {
                let (values, trunk) = load_one(dir, model, tokenizer, device)
                    .with_context(|| format!("the scorer {}", dir.display()))?;
                let spec = values.spec().clone();
                loaded.push((dir.clone(), set.add(values, trunk), spec));
                loaded.len() - 1
            }
        };
        let (_, scorer, spec) = &loaded[place];
        set.count(*scorer, named.head(spec)?, named.weight)?;
    }
    Ok(set)
}

/// The values of a scorer, and the model whose states they are read from where that is not the one that generates.
fn load_one(
    dir: &Path,
    model: &ModelFolder,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<(PrefixValues, Option<Box<dyn LanguageModel>>)> {
    let scorer = ScorerModel::load(dir, device)?;
    ensure!(
        tokenizer.has_tokens_of(dir)?,
        "its tokenizer is another than that of the model {}: a scorer can guide only models with its own tokenizer",
        model.path().display()
    );
    let (values, own) = scorer.for_inference();
    let trunk = match own {
        Some(own) => Some(own),
        None => {
            let mut spec = values.spec().clone();
            if !spec.base.exists()
                && let Some(base) = moved_with_run(&spec.base, dir)
            {
                spec.base = base;
            }
            base_states(&spec, model, device)?
        }
    };
    Ok((values, trunk))
}

/// The base whose states a scorer reads; `None` where it is the model that generates.
fn base_states(
    spec: &ScorerSpec,
    model: &ModelFolder,
    device: &Device,
) -> Result<Option<Box<dyn LanguageModel>>> {
    if identity::is_model(model, &spec.base_sha256)? {
        return Ok(None);
    }
    let folder = models::folder(&spec.base)?;
    let base = spec.base.display();
    let is_base = identity::is_model(&folder, &spec.base_sha256).map_err(|error| {
        anyhow!("it reads the states of its base {base}, which is not there any more: {error:#}")
    })?;
    ensure!(
        is_base,
        "it reads the states of its base, but {base} holds another model by now: its weights or its config.json are others"
    );
    Ok(Some(CausalLm::load(&folder, device)?.for_states()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_rewards_and_weights_are_told_apart() {
        let parse = |text: &str| Named::parse(text).unwrap();
        let named = |dir: &str, reward: Option<&str>, weight| Named {
            dir: dir.into(),
            reward: reward.map(str::to_owned),
            weight,
        };
        assert_eq!(parse("runs/a/scorer"), named("runs/a/scorer", None, 1.0));
        assert_eq!(parse("runs/a/scorer:0.5"), named("runs/a/scorer", None, 0.5));
        assert_eq!(parse("s#length:-2"), named("s", Some("length"), -2.0));
        assert_eq!(parse("s#length"), named("s", Some("length"), 1.0));
        for text in ["s:", "s:heavy", "s:inf", "s:NaN"] {
            assert!(
                Named::parse(text).unwrap_err().to_string().contains("finite number"),
                "{text}"
            );
        }
        assert_eq!(parse(r"C:\dir"), named(r"C:\dir", None, 1.0));
        assert_eq!(parse(r"C:\dir#length"), named(r"C:\dir", Some("length"), 1.0));
        assert_eq!(parse(r"C:\dir#length:-2"), named(r"C:\dir", Some("length"), -2.0));
        assert_eq!(parse("C:/a:b/s:0.5"), named("C:/a:b/s", None, 0.5));
    }

    #[test]
    fn a_scorer_is_what_its_files_hold_wherever_they_lie() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let of = |name: &str| identity(&dir.path().join(name).display().to_string()).unwrap();
        let files = ["scorer.json", "head.safetensors", "trunk/model.safetensors"];
        let config = std::fs::read_to_string(quickstart().join("config.json")).unwrap();
        for folder in ["own", "copy", "other"] {
            files.iter().for_each(|file| write(&format!("{folder}/{file}"), file));
            write(&format!("{folder}/trunk/config.json"), &config);
        }
        let own = of("own");
        assert_eq!(of("copy"), own);
        for file in files {
            write(&format!("other/{file}"), "another");
            assert_ne!(of("other"), own, "{file}");
            write(&format!("other/{file}"), file);
        }
        write("other/trunk/config.json", &turned(&config));
        assert_ne!(of("other"), own);
        for more in ["#length", ":0.5"] {
            assert_ne!(of(&format!("own{more}")), own, "{more}");
        }
        std::fs::remove_dir_all(dir.path().join("copy/trunk")).unwrap();
        assert_ne!(of("copy"), own);
    }

    fn quickstart() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/quickstart/model")
    }

    /// A configuration with other rotations.
    fn turned(config: &str) -> String {
        let other = config.replace("\"rope_theta\": 10000.0", "\"rope_theta\": 500.0");
        assert_ne!(other, config);
        other
    }

    #[test]
    fn the_base_of_a_scorer_has_its_weights_and_its_configuration() {
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(quickstart()).unwrap().flatten() {
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        let (folder, config) = (models::at(dir.path().into()), dir.path().join("config.json"));
        let device = infalign_backend::device(None).unwrap();
        let states = |base_sha256: &str| {
            let spec = ScorerSpec {
                heads: Vec::new(),
                vocabulary: 89,
                hidden: 48,
                width: 1,
                own_trunk: false,
                soft: None,
                base: dir.path().into(),
                base_sha256: base_sha256.to_owned(),
            };
            base_states(&spec, &folder, &device).map(|states| states.is_none())
        };
        let (model, weights) =
            (identity::model(&folder).unwrap(), identity::weights(&folder).unwrap());
        assert!(states(&model).unwrap() && states(&weights).unwrap());
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, turned(&text)).unwrap();
        let error = states(&model).unwrap_err().to_string();
        assert!(error.contains("holds another model by now"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_may_have_colons_and_hashes_in_its_name() {
        let parse = |text: &str| Named::parse(text).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a:b#c");
        std::fs::create_dir(&odd).unwrap();
        let text = odd.display().to_string();
        assert_eq!(parse(&text), Named { dir: odd, reward: None, weight: 1.0 });
        assert_eq!(parse(&format!("{text}:2")).weight, 2.0);
    }
}
