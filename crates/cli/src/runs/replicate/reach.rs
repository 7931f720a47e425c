//! What a run would reach beyond its replica, looked at before anything of it is started: it may be a stranger's.
//!
//! Servers are sent prompts and responses, and the key that a variable of this machine's environment holds, whichever the run names; they are
//! refused unless `--allow-remote` is given. A place to write to that is not below the replica is refused always.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use infalign_record::folder::{self, CONFIG, stays_inside};
use infalign_record::{Record, env};
use toml::Value;

use super::{ReplicateArgs, inside, is_by_settings, own_folder, values_of};
use crate::generate::settings_text;

/// Commands that keep a record.
const COMMANDS: [&str; 9] = [
    "calibrate",
    "compare",
    "evaluate",
    "generate",
    "report",
    "score",
    "scorer",
    "train",
    "transform",
];
/// Keys of settings that name a server, or whose key it is sent.
const REMOTE_KEYS: [&str; 3] = ["api_key_env", "server", "url"];
/// The key of a file that answers of servers are written to.
const CACHE: &str = "cache";
/// Options that do the same as [`REMOTE_KEYS`].
const REMOTE_OPTIONS: [&str; 2] = ["--api-key-env", "--server"];
/// Options that name where something is written.
const OUTPUTS: [&str; 3] = ["--out", "--record", "--slurm"];
/// Options that name a file of settings, or a model.
const SETTINGS: [&str; 3] = ["--judge", "--pairwise", "--reward"];

/// What a run would reach, a clause each.
#[derive(Debug, Default)]
struct Beyond {
    servers: Vec<String>,
    places: Vec<String>,
}

/// Refuses a run that reaches a server without `--allow-remote`, and one that writes outside of its replica.
///
/// # Errors
/// One sentence that names all of it.
pub(super) fn check(args: &ReplicateArgs, original: &Record) -> Result<()> {
    let command = original.command.as_str();
    ensure!(
        COMMANDS.contains(&command),
        "this version has no command {command:?} whose runs it could run again"
    );
    let mut beyond = Beyond::default();
    if args.run.join(CONFIG).exists() {
        let settings: toml::Table = toml::from_str(&folder::text(&args.run, CONFIG)?)?;
        beyond.settings(CONFIG, &settings, &args.sets);
    }
    if !is_by_settings(original) {
        beyond.command_line(original)?;
    }
    beyond.judge(args.allow_remote)
}

impl Beyond {
    /// Looks at every key, at any depth.
    ///
    /// - `sets`: the replicator's own choices, `KEY=VALUE`, which are passed over.
    fn settings(&mut self, file: &str, settings: &toml::Table, sets: &[String]) {
        let chosen = sets.iter().filter_map(|set| set.split('=').next()).map(str::trim);
        let chosen: Vec<&str> = chosen.collect();
        let mut waiting: Vec<(String, &str, &Value)> =
            settings.iter().map(|(name, value)| (name.clone(), name.as_str(), value)).collect();
        while let Some((key, name, value)) = waiting.pop() {
            if chosen.iter().any(|set| is_within(&key, set)) {
                continue;
            }
            if REMOTE_KEYS.contains(&name) {
                self.servers.push(format!("{file} has {key} = {value}"));
            }
            if name == CACHE && !is_in_run(value) {
                self.places.push(format!("{file} has {key} = {value}"));
            }
            match value {
                Value::Table(table) => waiting.extend(
                    table
                        .iter()
                        .map(|(name, value)| (format!("{key}.{name}"), name.as_str(), value)),
                ),
                Value::Array(values) => waiting.extend(
                    values.iter().enumerate().map(|(i, value)| (format!("{key}[{i}]"), "", value)),
                ),
                _ => {}
            }
        }
    }

    /// Looks at a command line that is run again, and at the settings in files that it names.
    ///
    /// # Errors
    /// When it is not that of the run's command, names no folder of the run, or names settings that cannot be looked through.
    fn command_line(&mut self, original: &Record) -> Result<()> {
        let argv: Vec<String> = original.argv.iter().map(|word| env::with_home(word)).collect();
        let words = std::iter::once("infalign").chain(argv.iter().map(String::as_str));
        ensure!(
            crate::command_name(words.map(OsString::from)) == original.command,
            "its command line is none of infalign {} in this version",
            original.command
        );
        for option in REMOTE_OPTIONS {
            let values = values_of(&argv, option).into_iter();
            self.servers
                .extend(values.map(|value| format!("its command line has {option} {value}")));
        }
        let folder = own_folder(original)?;
        for option in OUTPUTS {
            let places = values_of(&argv, option).into_iter();
            let outside =
                places.filter(|place| option == "--slurm" || inside(place, &folder).is_none());
            self.places
                .extend(outside.map(|place| format!("its command line has {option} {place}")));
        }
        let of_figures = argv.iter().any(|word| word == "plot");
        let writes = original.command == "report" || original.command == "transform" && of_figures;
        if writes && values_of(&argv, "--out").is_empty() {
            let what = "its command line has no --out, and it writes beside what it reads, or where it runs";
            self.places.push(what.to_owned());
        }
        for option in SETTINGS {
            values_of(&argv, option).into_iter().try_for_each(|name| self.file(name))?;
        }
        Ok(())
    }

    /// Looks at a file of settings; what is no file names a model.
    ///
    /// # Errors
    /// For one that cannot be looked through, whatever else could be made of it.
    fn file(&mut self, name: &str) -> Result<()> {
        let path = Path::new(name);
        let is_plain = path.is_file() || path.is_dir() || !path.exists();
        ensure!(
            is_plain,
            "{name} cannot be looked through for servers: it is neither a file nor a folder"
        );
        if path.is_file() {
            let settings =
                settings_text(path).and_then(|text| Ok(toml::from_str::<toml::Table>(&text)?));
            let settings =
                settings.with_context(|| format!("{name} cannot be looked through for servers"))?;
            self.settings(name, &settings, &[]);
        }
        Ok(())
    }

    fn judge(&self, allow_remote: bool) -> Result<()> {
        ensure!(
            self.places.is_empty(),
            "the run would write outside of its replica: {}; run it by hand, and compare with --replica",
            self.places.join("; ")
        );
        ensure!(
            allow_remote || self.servers.is_empty(),
            "the run would send prompts, responses and keys of this machine's environment to servers: {}; if you trust them with that, give \
             --allow-remote",
            self.servers.join("; ")
        );
        Ok(())
    }
}

/// Whether a key is the one that is set, or lies within it.
fn is_within(key: &str, set: &str) -> bool {
    key.strip_prefix(set).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether a place lies in the run's folder, wherever that is.
fn is_in_run(place: &Value) -> bool {
    let rest = place.as_str().and_then(|place| place.strip_prefix("$RUN/"));
    rest.is_some_and(stays_inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::MOST_SETTINGS;

    fn of_settings(text: &str, sets: &[&str]) -> Beyond {
        let mut beyond = Beyond::default();
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        beyond.settings("config.toml", &toml::from_str(text).unwrap(), &sets);
        beyond
    }

    #[test]
    fn settings_that_cannot_be_looked_through_are_refused_whatever_their_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let server = "kind = 'remote'\nurl = 'http://h/x'\n";
        // A number that a reward has a place for, and a table of TOML has none.
        let number = format!("{server}batch = {}\n", 1_u64 << 63);
        let padded = format!("#{}\n{server}", "x".repeat(MOST_SETTINGS as usize));
        for (name, text) in [("a.cfg", &number), ("b.cfg", &padded), ("c.toml", &padded)] {
            std::fs::write(path(name), text).unwrap();
            let error = Beyond::default().file(&path(name)).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} cannot be looked through")), "{error}");
        }
        // Models.
        for name in ["absent", ""] {
            Beyond::default().file(&path(name)).unwrap();
        }
    }

    #[test]
    fn servers_are_refused_at_any_depth_unless_they_are_allowed_or_chosen() {
        let text = "seed = 1\n[reward]\nkind = 'sum'\n[[reward.parts]]\nweight = 1\n\
                    reward = { kind = 'remote', url = 'http://h/x', api_key_env = 'MY_KEY' }\n";
        let beyond = of_settings(text, &[]);
        let error = beyond.judge(false).unwrap_err().to_string();
        for said in ["reward.parts[0].reward.url = ", "http://h/x", "MY_KEY", "--allow-remote"] {
            assert!(error.contains(said), "{error}");
        }
        beyond.judge(true).unwrap();
        of_settings(text, &["reward.parts={}"]).judge(false).unwrap();
        of_settings("[train]\nsteps = 1\n", &[]).judge(false).unwrap();
        let error = of_settings(text, &["reward.part=1"]).judge(false).unwrap_err().to_string();
        assert!(error.contains("url"), "{error}");
    }

    #[test]
    fn caches_outside_of_the_run_are_refused_always() {
        for cache in ["/etc/x", "../x", "$RUN/../x", "$RUN", "$INFALIGN_DATA/x"] {
            let beyond = of_settings(&format!("[reward]\ncache = '{cache}'\n"), &[]);
            let error = beyond.judge(true).unwrap_err().to_string();
            assert!(error.contains(cache) && error.contains("--replica"), "{error}");
        }
        of_settings("[reward]\ncache = '$RUN/answers.jsonl'\n", &[]).judge(false).unwrap();
    }

    fn of_words(words: &[&str]) -> Result<Beyond> {
        let mut beyond = Beyond::default();
        beyond.command_line(&record(words))?;
        Ok(beyond)
    }

    /// A record of a command line, as a stranger may have made it up.
    fn record(words: &[&str]) -> Record {
        let root = tempfile::tempdir().unwrap();
        let opening = infalign_record::Opening {
            command: words[0].to_owned(),
            argv: words.iter().map(|word| (*word).to_owned()).collect(),
            ..infalign_record::Opening::default()
        };
        infalign_record::Recorder::begin(root.path(), opening).unwrap().completed().unwrap()
    }

    const CURVE: [&str; 8] =
        ["transform", "curve", "--transform", "identity", "--kl", "1", "--record", "a/run"];

    #[test]
    fn outputs_of_a_command_line_have_to_lie_in_its_folder() {
        let plot = ["transform", "plot", "frontiers", "--record=a/run"];
        let error = |more: &[&str]| {
            let beyond = of_words(&[&plot[..], more].concat()).unwrap();
            beyond.judge(true).unwrap_err().to_string()
        };
        for out in ["a", "/etc", "a/run/../../b", "a/runs/x"] {
            assert!(error(&["--out", out]).contains(out));
        }
        assert!(error(&[]).contains("has no --out"));
        assert!(error(&["--out=a/run/x", "--slurm", "a/run/y"]).contains("--slurm"));
        of_words(&[&plot[..], &["--out", "a/run/x"]].concat()).unwrap().judge(false).unwrap();
        of_words(&CURVE).unwrap().judge(false).unwrap();
        let other = of_words(&["score", "verify", "a/run", "--record", "a/run"]);
        assert!(other.unwrap_err().to_string().contains("none of infalign score"));
    }

    #[test]
    fn servers_of_a_command_line_and_of_files_that_it_names_are_found() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("reward.cfg");
        let padding = "x".repeat(2 << 20);
        let settings = format!("#{padding}\nkind = 'remote'\nurl = 'http://h/x'\n");
        std::fs::write(&file, settings).unwrap();
        let file = file.to_string_lossy().into_owned();
        let (reward, judge) = (format!("--reward={file}"), format!("--judge={file}"));
        let generate: &[&str] = &["generate", "--model", "m", "--record", "a/run"];
        let evaluate: &[&str] =
            &["evaluate", "--policy", "p", "--reference", "r", "--out", "a/run"];
        let cases: [(&[&str], &[&str]); 6] = [
            (generate, &["--server=http://h"]),
            (generate, &["--reward", &file]),
            (generate, &[&reward]),
            (evaluate, &[&judge]),
            (evaluate, &["--judge", "m", "--reward", &file]),
            (evaluate, &["--pairwise", &file]),
        ];
        for (command, more) in cases {
            let beyond = of_words(&[command, more].concat()).unwrap();
            let error = beyond.judge(false).unwrap_err().to_string();
            assert!(error.contains("http://h"), "{error}");
            beyond.judge(true).unwrap();
        }
        of_words(generate).unwrap().judge(false).unwrap();
    }
}
