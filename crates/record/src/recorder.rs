//! Opening and closing the record of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde_json::Value;

use crate::atomic::{sync_files, write_atomic};
use crate::build_record::BuildRecord;
use crate::capture::{Gpu, Host, Scheduler, executable_sha256, peak_memory_bytes, threads};
use crate::expect::Expect;
use crate::folder::{
    self, CONFIG, CRATE, DIFF, EXPECT, MANIFEST, OF_RECORD, PREVIEW, RECORD, RESULTS, STEPS,
};
use crate::hash::{sha256_bytes, sha256_file, sha256_input};
use crate::manifest::{self, Manifest};
use crate::record::{
    Agent, Attempt, Device, Input, Output, Record, SCHEMA, Seed, Status, media_type, numbers,
};
use crate::weights::{Weights, weights};
use crate::{RecordError, Secrets, clock, env, preview, ro_crate};

/// The exit code of a run whose files hold a secret: it failed.
const EXIT_OF_LEAK: u8 = 3;

/// What a command says of its run when it begins.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// The command, such as `train`.
    pub command: String,
    /// The command line, without the program.
    pub argv: Vec<String>,
    /// What the program was built from.
    pub build: BuildRecord,
    /// What computes.
    pub device: Option<Device>,
    /// Seed of every random draw.
    pub seed: Option<u64>,
    /// Files that are read.
    pub inputs: Vec<InputFile>,
    /// What a replication has to reach.
    pub expect: Option<Expect>,
    /// The changes that the program was built from, where they are to be kept.
    pub diff: Option<Vec<u8>>,
}

/// A file that a run reads.
#[derive(Clone, Debug)]
pub struct InputFile {
    /// What it is for, such as a key of the recipe or an option.
    pub role: String,
    /// How it was named.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// An open record.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    record: Record,
    secrets: Secrets,
    started: Instant,
    overhead: Duration,
}

impl Recorder {
    /// Writes all that is known before the work begins, brought to the disk: a run that is killed leaves it. So does a recorder that is dropped,
    /// neither [`completed`](Self::completed) nor [`failed`](Self::failed): the status stays [`Status::Running`], without outputs and manifest.
    ///
    /// A record that is there already, of a process that did not finish the run, becomes one of [`Record::earlier`], and what sealed that is
    /// deleted.
    ///
    /// # Errors
    /// When an input cannot be read, or a file cannot be written; [`RecordError::Variable`] where the environment names whoever runs or a licence
    /// by what is none; [`RecordError::Secret`] where that, `config.toml`, the diff or the record would hold one, of which nothing is written
    /// then.
    pub fn begin(run: &Path, opening: Opening) -> Result<Self, RecordError> {
        let started = Instant::now();
        let secrets = Secrets::here();
        let (agent, license) = (env::agent()?, env::license()?);
        refuse_secret_names(&secrets, agent.as_ref(), license.as_deref())?;
        let config_sha256 = digest_of_config(run, &secrets)?;
        keep_papers(run, &opening, &secrets)?;
        let argv = opening.argv.iter().map(|word| env::without_home(&secrets.scrub(word)));
        let environment = env::recorded().into_iter();
        let environment = environment.map(|(name, value)| (name, secrets.scrub(&value))).collect();
        let on_gpu = opening.device.as_ref().is_some_and(|device| !device.name.starts_with("cpu"));
        let inputs =
            inputs(run, &opening.inputs, &secrets).into_iter().collect::<Result<_, _>>()?;
        let expect = run.join(EXPECT);
        let expect_sha256 = expect.exists().then(|| sha256_file(&expect)).transpose()?;
        let start = clock::utc_now();
        let record = Record {
            schema: SCHEMA.to_owned(),
            uuid: uuid(run),
            status: Status::Running,
            command: opening.command,
            argv: argv.collect(),
            cwd: folder_in_repository(&secrets),
            start,
            end: None,
            exit: None,
            seconds: None,
            error: None,
            config_sha256,
            expect_sha256,
            seed: opening.seed.map(Seed::of),
            device: opening.device,
            threads: threads(),
            scheduler: Scheduler::of(&environment),
            environment,
            host: Host::here(),
            gpus: if on_gpu { Gpu::all() } else { Vec::new() },
            build: opening.build,
            executable_sha256: executable_sha256(),
            models: models(&opening.inputs)?,
            inputs,
            outputs: Vec::new(),
            metrics: Default::default(),
            steps: None,
            peak_memory_bytes: None,
            overhead_seconds: None,
            earlier: earlier(run)?,
            based_on: env::based_on(),
            agent,
            license,
        };
        let folder = run.to_path_buf();
        let recorder = Self { folder, record, secrets, started, overhead: started.elapsed() };
        recorder.write()?;
        unseal(run)?;
        Ok(recorder)
    }

    /// Closes the record of a run that did its work: what it wrote, with digests.
    ///
    /// # Errors
    /// [`RecordError::Secret`] where a file of the run holds a secret; the record then says so and that the run failed. As
    /// [`folder::files`], and when a file cannot be read or written.
    pub fn completed(self) -> Result<Record, RecordError> {
        self.end(None)
    }

    /// Closes the record of a run that failed, with what it wrote until then. Whoever stops a run waits for its end: so folders within it that have a
    /// manifest of their own, as checkpoints do, go on record by that, but for files that were changed since, and files of tensors are not searched
    /// for secrets. [`verify`](crate::verify::verify) reads all of them.
    ///
    /// - `error`: what ended it; `exit`: the exit code that says so.
    ///
    /// # Errors
    /// As [`Recorder::completed`].
    pub fn failed(self, error: &str, exit: u8) -> Result<Record, RecordError> {
        self.end(Some((error, exit)))
    }

    fn end(mut self, failure: Option<(&str, u8)>) -> Result<Record, RecordError> {
        let begun = Instant::now();
        let mut outputs = self.outputs(failure.is_some())?;
        let leak = self.leak(&outputs, failure.is_some())?;
        let secrets = &self.secrets;
        let may_be_named = |path: &str| secrets.find(path.as_bytes()).is_none();
        outputs.retain(|output| may_be_named(&output.path));
        // Nothing is on record that a power cut could still take.
        sync_files(&self.folder, outputs.iter().map(|output| output.path.as_str()))
            .map_err(RecordError::io("write", &self.folder))?;
        let error = failure.map(|(text, _)| self.secrets.scrub(text));
        let error = error.or_else(|| leak.as_ref().map(ToString::to_string));
        let results = std::fs::read(self.folder.join(RESULTS)).unwrap_or_default();
        let results: Value = serde_json::from_slice(&results).unwrap_or_default();
        // Numbers are named by the texts beside them, which may be what must not be kept.
        let metrics = if leak.is_none() { numbers(&results) } else { Default::default() };
        self.overhead += begun.elapsed();
        // A word may have become known as a secret since the beginning.
        let argv = self.record.argv.iter().map(|word| self.secrets.scrub(word)).collect();
        let record = &mut self.record;
        record.argv = argv;
        record.status = if error.is_some() { Status::Failed } else { Status::Completed };
        record.error = error.map(|text| env::without_home(&text));
        record.end = Some(clock::utc_now());
        record.exit = Some(match (failure, &leak) {
            (_, Some(_)) => EXIT_OF_LEAK,
            (Some((_, code)), None) => code,
            (None, None) => 0,
        });
        record.seconds = Some(self.started.elapsed().as_secs_f64());
        record.steps = steps(&self.folder, &outputs);
        record.metrics = metrics;
        record.outputs = outputs;
        record.peak_memory_bytes = peak_memory_bytes();
        record.overhead_seconds = Some(self.overhead.as_secs_f64());
        self.write()?;
        seal(&self.folder, &self.record, &self.secrets)?;
        leak.map_or(Ok(self.record), Err)
    }

    /// Writes the record, unless it holds a secret, whichever way that came.
    fn write(&self) -> Result<(), RecordError> {
        let path = self.folder.join(RECORD);
        let text = serde_json::to_vec_pretty(&self.record)
            .map_err(|error| RecordError::io("write", &path)(error.into()))?;
        self.secrets.refuse(&path, &text)?;
        write_atomic(&path, |file| file.write_all(&text))
    }

    /// Every file of the run that is neither an input nor of the record.
    ///
    /// - `failed`: digests that parts of the run have of their own files do.
    fn outputs(&self, failed: bool) -> Result<Vec<Output>, RecordError> {
        let inputs: Vec<&str> = self.inputs_within().collect();
        let ours =
            |path: &String| !OF_RECORD.contains(&path.as_str()) && !inputs.contains(&path.as_str());
        let paths: Vec<String> = folder::files(&self.folder)?.into_iter().filter(ours).collect();
        let known = if failed { manifest::of_parts(&self.folder, &paths) } else { Manifest::new() };
        let digests = manifest::digests(&self.folder, &paths, &known)?;
        let output = |(path, sha256): (String, String)| {
            let bytes = size(&self.folder.join(&path))?;
            Ok(Output { sha256, bytes, media_type: media_type(&path).to_owned(), path })
        };
        paths.into_iter().zip(digests).map(output).collect()
    }

    /// Inputs that lie in the run's own folder, from there.
    fn inputs_within(&self) -> impl Iterator<Item = &str> {
        self.record.inputs.iter().filter_map(|input| input.path.strip_prefix("$RUN/"))
    }

    /// What must not be recorded, in names and in files.
    ///
    /// - `failed`: files of tensors are left out.
    fn leak(&self, outputs: &[Output], failed: bool) -> Result<Option<RecordError>, RecordError> {
        let mut names = outputs.iter().map(|output| output.path.as_str());
        let found = names.find_map(|path| Some((path, self.secrets.find(path.as_bytes())?)));
        if let Some((path, what)) = found {
            let path = self.folder.join(self.secrets.scrub(path));
            return Ok(Some(RecordError::Secret { path, what: format!("in its name {what}") }));
        }
        let own = [CONFIG, EXPECT, DIFF].into_iter().chain(self.inputs_within());
        let own = own.filter(|name| self.folder.join(name).exists());
        let paths = outputs.iter().map(|output| output.path.as_str()).chain(own);
        let paths: Vec<&str> = paths.filter(|path| !(failed && holds_tensors(path))).collect();
        let leak = |path: &&str| {
            let path = self.folder.join(path);
            let found = self.secrets.find_in_file(&path).transpose()?;
            Some(found.map(|what| RecordError::Secret { path, what }))
        };
        paths.par_iter().find_map_first(leak).transpose()
    }
}

/// Writes what is made of a record and its files: the page, the RO-Crate, the manifest. None names a file whose name is a secret.
fn seal(run: &Path, record: &Record, secrets: &Secrets) -> Result<(), RecordError> {
    let digests = record.outputs.iter().map(|output| (output.path.clone(), output.sha256.clone()));
    let known: Manifest = digests.collect();
    let page = preview::html(record);
    write_atomic(&run.join(PREVIEW), |file| file.write_all(page.as_bytes()))?;
    let document = ro_crate::metadata(run, record)?;
    write_atomic(&run.join(CRATE), |file| Ok(serde_json::to_writer_pretty(file, &document)?))?;
    manifest::write_of(run, &known, |path| secrets.find(path.as_bytes()).is_none())
}

/// Deletes what an earlier attempt was sealed with: until this one is, its record is to stand beside none of that.
fn unseal(run: &Path) -> Result<(), RecordError> {
    for path in [MANIFEST, CRATE, PREVIEW].map(|name| run.join(name)) {
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                return Err(RecordError::io("delete", &path)(cause));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Refuses who runs and which licence they give where one of them is a secret, perhaps the value of another variable.
fn refuse_secret_names(
    secrets: &Secrets,
    agent: Option<&Agent>,
    license: Option<&str>,
) -> Result<(), RecordError> {
    let names = agent.into_iter();
    let names = names.flat_map(|agent| [Some(agent.name.as_str()), agent.orcid.as_deref()]);
    let mut names = names.chain([license]).flatten();
    names.try_for_each(|text| secrets.refuse(Path::new("the environment"), text.as_bytes()))
}

/// The digest of the run's settings, where it has a file of them.
fn digest_of_config(run: &Path, secrets: &Secrets) -> Result<Option<String>, RecordError> {
    let config = run.join(CONFIG);
    if !config.exists() {
        return Ok(None);
    }
    secrets.refuse_file(&config)?;
    sha256_file(&config).map(Some)
}

/// Writes what is expected of a replica, unless the run has it, and what the program's source differs in from its commit.
fn keep_papers(run: &Path, opening: &Opening, secrets: &Secrets) -> Result<(), RecordError> {
    if let Some(expect) = opening.expect.as_ref().filter(|_| !run.join(EXPECT).exists()) {
        let text = expect.to_toml();
        write_atomic(&run.join(EXPECT), |file| file.write_all(text.as_bytes()))?;
    }
    let path = run.join(DIFF);
    let Some(diff) = &opening.diff else {
        // That of an earlier attempt, by another program.
        let _ = std::fs::remove_file(path);
        return Ok(());
    };
    secrets.refuse(&path, diff)?;
    write_atomic(&path, |file| file.write_all(diff))
}

/// The first file that a run reads and that is another than when the run was begun, by its role and its name; none where the run has no record.
///
/// # Errors
/// As [`folder::record_if_there`], and when a file cannot be read.
pub fn changed_input(
    run: &Path,
    inputs: &[InputFile],
) -> Result<Option<(String, String)>, RecordError> {
    let Some(last) = folder::record_if_there(run)? else { return Ok(None) };
    let secrets = Secrets::here();
    for now in self::inputs(run, inputs, &secrets) {
        let now = now?;
        let same_name = |then: &&Input| then.role == now.role && then.path == now.path;
        let mut then = last.inputs.iter().filter(same_name).peekable();
        if then.peek().is_some() && then.all(|then| then.sha256 != now.sha256) {
            return Ok(Some((now.role, now.path)));
        }
    }
    Ok(None)
}

/// The models among the files that are read: weights that lie in one folder, for one purpose.
fn models(inputs: &[InputFile]) -> Result<Vec<Weights>, RecordError> {
    let mut files: BTreeMap<(&str, Option<&Path>), Vec<&Path>> = BTreeMap::new();
    for InputFile { role, path, .. } in inputs {
        if folder::is_weights(path) {
            files.entry((role, path.parent())).or_default().push(path);
        }
    }
    let all = files.into_par_iter().map(|((role, _), files)| weights(role, &files));
    let all: Vec<Result<_, _>> = all.collect();
    all.into_iter().filter_map(Result::transpose).collect()
}

/// The working folder, from the root of the git repository that it lies in.
fn folder_in_repository(secrets: &Secrets) -> Option<String> {
    let here = std::env::current_dir().ok()?;
    let root = here.ancestors().find(|folder| folder.join(".git").exists())?;
    let inside = here.strip_prefix(root).ok()?.to_str()?.replace('\\', "/");
    let inside = if inside.is_empty() { ".".to_owned() } else { inside };
    Some(secrets.scrub(&inside))
}

/// Files that are read, as they are recorded, in their order; several are hashed at once, and one of several roles once.
fn inputs(run: &Path, files: &[InputFile], secrets: &Secrets) -> Vec<Result<Input, RecordError>> {
    let paths: BTreeSet<&Path> = files.iter().map(|file| file.path.as_path()).collect();
    let digest = |path: &Path| Some((path.to_path_buf(), sha256_input(path).ok()?));
    let digests: BTreeMap<PathBuf, String> = paths.into_par_iter().filter_map(digest).collect();
    files.iter().map(|file| input(run, file, digests.get(&file.path), secrets)).collect()
}

/// A file that is read, as it is recorded.
///
/// - `digest`: its own; none where it could not be read.
fn input(
    run: &Path,
    file: &InputFile,
    digest: Option<&String>,
    secrets: &Secrets,
) -> Result<Input, RecordError> {
    let InputFile { role, name, path } = file;
    let name = &secrets.scrub(name);
    let name = match path.strip_prefix(run) {
        Ok(inside) => format!("$RUN/{}", inside.to_string_lossy().replace('\\', "/")),
        // Elsewhere it may be part of a name.
        Err(_) if cfg!(windows) => env::without_home(name).replace('\\', "/"),
        Err(_) => env::without_home(name),
    };
    let sha256 = digest.cloned().map_or_else(|| sha256_input(path), Ok)?;
    Ok(Input { role: role.clone(), path: name, sha256, bytes: size(path)? })
}

fn size(path: &Path) -> Result<u64, RecordError> {
    Ok(std::fs::metadata(path).map_err(RecordError::io("read", path))?.len())
}

/// Whether a file holds tensors of a model or of an optimiser, by its name.
fn holds_tensors(path: &str) -> bool {
    folder::is_weights(Path::new(path)) || path.ends_with(".bpk")
}

/// Lines of all files of steps; none where there are none.
pub(crate) fn steps(run: &Path, outputs: &[Output]) -> Option<usize> {
    let of_steps = outputs.iter().filter(|output| output.path.ends_with(STEPS));
    let counted = of_steps.filter_map(|output| lines(&run.join(&output.path)).ok());
    let counted: Vec<usize> = counted.collect();
    (!counted.is_empty()).then(|| counted.iter().sum())
}

/// Lines of a file, the last with or without its end.
fn lines(path: &Path) -> std::io::Result<usize> {
    let mut file = std::fs::File::open(path)?;
    let (mut chunk, mut found, mut last) = (vec![0_u8; 1 << 16], 0, b'\n');
    loop {
        let n = file.read(&mut chunk)?;
        let Some(end) = chunk[..n].last() else { break };
        found += chunk[..n].iter().filter(|byte| **byte == b'\n').count();
        last = *end;
    }
    Ok(found + usize::from(last != b'\n'))
}

/// The processes that worked on a run before, from the record that the last of them left.
fn earlier(run: &Path) -> Result<Vec<Attempt>, RecordError> {
    let Some(last) = folder::record_if_there(run)? else { return Ok(Vec::new()) };
    let mut earlier = last.earlier;
    earlier.push(Attempt {
        start: last.start,
        end: last.end,
        status: last.status,
        threads: last.threads,
        host: last.host.id,
        build_id: last.build.build_id,
    });
    Ok(earlier)
}

/// A UUID of version 8: the digest of what no two runs share.
fn uuid(run: &Path) -> String {
    let what = format!(
        "{} {} {} {:?}",
        clock::now().unix_timestamp_nanos(),
        std::process::id(),
        run.display(),
        crate::capture::line_of("/proc/sys/kernel/random/uuid")
    );
    let digits = sha256_bytes(what.as_bytes());
    let [a, b, c, d, e] =
        [&digits[..8], &digits[8..12], &digits[13..16], &digits[17..20], &digits[20..32]];
    format!("{a}-{b}-8{c}-8{d}-{e}")
}

#[cfg(test)]
pub(crate) mod tests;
