//! `--slurm FILE`: a job script in place of running, for Slurm and for a plain shell alike.
//!
//! With `--array N`, the command is run N times, and `{i}` in its words is the number of the job, from 1: of a shard, of a seed, of a
//! folder. `train`, `scorer` and `evaluate` into a folder are run with `--resume`, so that a job that is queued again goes on. What is recorded of each run has the job's numbers in it ([`infalign_record::capture::Scheduler`]).

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use infalign_record::shell_word;

use crate::build_record::build_record;
use crate::output::take_option;
use crate::{destination, files};

/// What every script begins with.
const HEAD: &str = "#!/bin/bash\n# Written by infalign ";
/// What is added for a command that goes on where it was stopped.
const AGAIN: &str = "\
# Two minutes before its time is over the job is asked to stop; queued again, it goes on, with the same log.
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
";
/// Runs the job of a number, and waits for it until it has ended, since a signal ends a wait before it ends the job.
const IN_TURN: &str = r#"    job "$i" &
    running=$!
    trap 'kill -TERM "$running"' TERM INT HUP
    code=0
    wait "$running" || code=$?
    while kill -0 "$running" 2> /dev/null; do code=0; wait "$running" || code=$?; done
    if [[ $code -ne 0 ]]; then exit "$code"; fi
"#;
/// Stands for the job's number.
const NUMBER: &str = "{i}";

/// A command line that asks for a script.
#[derive(Debug, PartialEq)]
pub(crate) struct Script {
    path: PathBuf,
    jobs: Option<u32>,
    /// The words of the command, without the program.
    words: Vec<String>,
}

impl Script {
    /// Takes `--slurm` and `--array` out of a command line; none where there is no `--slurm`.
    ///
    /// # Errors
    /// When a value is missing or no number of jobs, or the two do not fit together.
    pub(crate) fn of(words: &[OsString]) -> Result<Option<Self>> {
        let plain: Option<Vec<String>> =
            words.iter().skip(1).map(|w| w.to_str().map(str::to_owned)).collect();
        let Some(mut words) = plain else { return Ok(None) };
        if !words.iter().any(|word| word == "--slurm" || word.starts_with("--slurm=")) {
            return Ok(None);
        }
        let path =
            take_option(&mut words, "--slurm")?.context("--slurm needs the name of a file")?;
        let jobs = take_option(&mut words, "--array")?;
        let jobs = jobs.map(|jobs| jobs.parse::<u32>().ok().filter(|jobs| *jobs > 0));
        let jobs = match jobs {
            Some(None) => bail!("--array is the number of jobs, 1 or more"),
            Some(jobs) => jobs,
            None => None,
        };
        let numbered = words.iter().any(|word| word.contains(NUMBER));
        ensure!(
            numbered || jobs.is_none_or(|jobs| jobs == 1),
            "--array runs the same command several times: tell its runs apart by {NUMBER}, as in --out runs/seed-{NUMBER} --set seed={NUMBER}"
        );
        ensure!(jobs.is_some() || !numbered, "{NUMBER} is a number of --array");
        Ok(Some(Self { path: path.into(), jobs, words }))
    }

    /// The command line of the first job, to be checked as if it were run.
    pub(crate) fn first(&self) -> Vec<OsString> {
        let words = self.words.iter().map(|word| word.replace(NUMBER, "1").into());
        std::iter::once("infalign".into()).chain(words).collect()
    }

    /// Refuses a place where it cannot be written, and one where something else than a script is.
    ///
    /// # Errors
    /// One sentence that names the file.
    pub(crate) fn check(&self) -> Result<()> {
        destination::file(&self.path)?;
        ensure!(
            !self.path.exists() || is_script(&self.path),
            "{} is there already, and is no job script: give another --slurm",
            self.path.display()
        );
        Ok(())
    }

    /// Writes the script, and says how it is run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self) -> Result<String> {
        let program = std::env::current_exe().context("this program cannot be found")?;
        let command = crate::command_name(self.first().into_iter());
        let resumes = crate::can_resume(self.first().into_iter());
        let text = self.text(&program.to_string_lossy(), &command, resumes);
        files::write(&self.path, &text)?;
        let word = shell_word(&self.path.to_string_lossy());
        let path = self.path.display();
        Ok(format!("{path}: submit it by sbatch {word}, or run it here by bash {word}"))
    }

    /// Whether `--device` names something else than the CPU.
    fn on_gpu(&self) -> bool {
        let device = take_option(&mut self.words.clone(), "--device").ok().flatten();
        device.is_some_and(|device| !device.starts_with("cpu"))
    }

    /// - resumes: whether the command begins its work by `--resume` as well.
    fn text(&self, program: &str, command: &str, resumes: bool) -> String {
        let (version, body) = (build_record().full_version(), self.body(program, resumes));
        let array = self.jobs.map_or(String::new(), |jobs| format!("#SBATCH --array=1-{jobs}\n"));
        let log = if self.jobs.is_some() { "%A-%a" } else { "%j" };
        let gpu = if self.on_gpu() { "#SBATCH --gpus=1\n" } else { "" };
        let again = if resumes { AGAIN } else { "" };
        format!(
            "{HEAD}{version}. By sbatch it runs as a job; by bash, here, one job after the other.\n\
             # Time, memory and partition are the cluster's own: add them below, or give them to sbatch.\n\
             #SBATCH --job-name=infalign-{command}\n\
             #SBATCH --ntasks=1\n{array}{gpu}\
             #SBATCH --output=infalign-{command}-{log}.log\n{again}\
             set -euo pipefail\n\
             # As many threads as the job has processors.\n\
             if [[ -n \"${{SLURM_CPUS_PER_TASK:-}}\" ]]; then export RAYON_NUM_THREADS=\"$SLURM_CPUS_PER_TASK\"; fi\n\n\
             {body}"
        )
    }

    /// What the script runs: the command in place of the shell, so that a signal reaches it; of several jobs in a plain shell, which passes on
    /// to the one that runs what it is told.
    fn body(&self, program: &str, resumes: bool) -> String {
        let mut words: Vec<String> = self.words.iter().map(|word| quoted(word)).collect();
        if resumes {
            // Behind `--` it would be no option.
            let options = self.words.iter().take_while(|word| *word != "--").count();
            words.insert(options, "--resume".to_owned());
        }
        let run = format!("exec {} {}", quoted(program), words.join(" "));
        let Some(jobs) = self.jobs else { return format!("{run}\n") };
        format!(
            "job() {{\n    local i=\"$1\"\n    {run}\n}}\n\n\
             if [[ -n \"${{SLURM_ARRAY_TASK_ID:-}}\" ]]; then job \"$SLURM_ARRAY_TASK_ID\"; fi\n\
             for i in $(seq 1 {jobs}); do\n{IN_TURN}done\n"
        )
    }
}

/// Whether a file begins as scripts of this program do. Of a pipe or a device nothing is read.
fn is_script(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    let mut head = [0_u8; HEAD.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head.as_slice() == HEAD.as_bytes()
}

/// A word as the shell reads it back, with the job's number where it stands.
fn quoted(word: &str) -> String {
    word.split(NUMBER).map(shell_word).collect::<Vec<_>>().join("\"$i\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(line: &str) -> Result<Option<Script>> {
        Script::of(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_script_is_made_where_it_is_asked_for() {
        assert_eq!(script("infalign train r.toml").unwrap(), None);
        let script =
            script("infalign train --slurm=j.sh --set seed={i} --array 3").unwrap().unwrap();
        assert_eq!(script.words, ["train", "--set", "seed={i}"]);
        assert_eq!(script.first(), ["infalign", "train", "--set", "seed=1"]);
        let text = script.text("/opt/in'f", "train", false);
        assert!(text.contains("#SBATCH --array=1-3\n") && text.contains("seq 1 3"), "{text}");
        assert!(text.contains("'/opt/in'\\''f' train --set seed=\"$i\"''"), "{text}");
        assert!(!text.contains("gpus") && !text.contains("requeue"));
    }

    #[test]
    fn a_gpu_is_asked_for_where_the_device_is_one() {
        let asks = |words: &str| {
            let script = script(&format!("infalign train --slurm j.sh {words}")).unwrap().unwrap();
            script.text("infalign", "train", false).contains("#SBATCH --gpus=1\n")
        };
        assert!(asks("--device cuda") && asks("--device=cuda:1") && asks("--device wgpu"));
        assert!(!asks("--out runs/cuda-12") && !asks("--device cpu --out cuda"));
    }

    #[test]
    fn a_single_job_is_the_command_itself_and_goes_on_when_it_is_queued_again() {
        let script = script("infalign train r.toml --out x --slurm j.sh").unwrap().unwrap();
        let text = script.text("infalign", "train", true);
        assert!(text.ends_with("\n\nexec infalign train r.toml --out x --resume\n"), "{text}");
        assert!(text.contains("\n#SBATCH --requeue\n#SBATCH --open-mode=append\nset -"), "{text}");
        let behind =
            self::script("infalign train --out x --slurm j.sh -- r.toml").unwrap().unwrap();
        let text = behind.text("infalign", "train", true);
        assert!(text.ends_with("--out x --resume -- r.toml\n"), "{text}");
    }

    #[test]
    fn the_way_to_run_a_script_is_told_as_a_shell_reads_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("my job.sh");
        let script = Script { path: path.clone(), jobs: None, words: vec!["doctor".to_owned()] };
        let told = script.write().unwrap();
        assert!(told.ends_with(&format!("by bash '{}'", path.display())), "{told}");
    }

    #[test]
    fn only_what_begins_like_a_script_is_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        for (text, is) in [(format!("{HEAD}1"), true), (HEAD[..9].to_owned(), false)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(is_script(&path), is);
        }
        assert!(!is_script(root.path()) && !is_script(&root.path().join("absent")));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let error = |line: &str| script(line).unwrap_err().to_string();
        assert!(error("infalign train --slurm").contains("needs a value"));
        assert!(error("infalign train --slurm j.sh --array 0").contains("1 or more"));
        assert!(error("infalign train --slurm j.sh --array 2").contains("tell its runs apart"));
        assert!(error("infalign train --slurm j.sh --out {i}").contains("a number of --array"));
    }
}
