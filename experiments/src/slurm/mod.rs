//! Runs on a Slurm cluster: the shards that miss trials as one job array, and a merge behind it.
//!
//! An element of the array is `peftml shard DIR K/M`, which resumes like any run. So a lost node, an
//! element that Slurm runs twice, or a second submission change nothing in the results: what is
//! finished is not computed again, and what is computed twice must agree. Every submission is recorded
//! in `slurm/jobs.jsonl` of the run folder; submitting again leaves alone what still waits or runs.
//!
//! Limits: the run folder must be seen by all nodes under one path, on a file system with locks.

mod cluster;
mod script;

pub use cluster::{Cluster, Slurm};

use crate::runs::{About, RunError, RunFolder, Shard, Study, Trial, unfinished, write_atomically};
use script::Job;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Shards of a run that says nothing: a dispatch costs about a second, so not one a trial.
const DEFAULT_SHARDS: usize = 16;

/// Why Slurm holds an element that it could not launch.
const LAUNCH_FAILED: &str = "launch failed requeued held";

/// What is asked of the cluster; texts go to `sbatch` as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `--partition`.
    pub partition: Option<String>,
    /// `--account`.
    pub account: Option<String>,
    /// `--qos`.
    pub qos: Option<String>,
    /// `--time` of an element.
    pub time: Option<String>,
    /// `--mem` of an element.
    pub mem: Option<String>,
    /// `--gres`.
    pub gres: Option<String>,
    /// `--constraint`.
    pub constraint: Option<String>,
    /// `--cpus-per-task`, which is also an element's number of threads; at least 1.
    pub cpus_per_task: usize,
    /// Elements that may run at the same time.
    pub array_limit: Option<usize>,
    /// Number of shards M; that of the last submission, else at most 16, where `None`.
    pub shards: Option<usize>,
    /// Shell lines before the command, such as `module load ..`.
    pub setup: Option<String>,
}

impl Settings {
    /// The settings that array and merge share, by their names for `sbatch`.
    fn resources(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("partition", &self.partition),
            ("account", &self.account),
            ("qos", &self.qos),
            ("time", &self.time),
            ("mem", &self.mem),
            ("gres", &self.gres),
            ("constraint", &self.constraint),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// # Errors
    /// [`SlurmError::Setting`] for what would end its line in a script.
    fn check(&self) -> Result<(), SlurmError> {
        for (name, value) in self.resources() {
            let breaks = |c: char| c.is_whitespace() || c.is_control() || c == '#';
            if value.is_empty() || value.contains(breaks) {
                return Err(SlurmError::Setting { name, value: value.to_owned() });
            }
        }
        for (name, value) in [
            ("cpus-per-task", Some(self.cpus_per_task)),
            ("array-limit", self.array_limit),
            ("shards", self.shards),
        ] {
            if value == Some(0) {
                return Err(SlurmError::Setting { name, value: "0".to_owned() });
            }
        }
        Ok(())
    }
}

/// Why nothing was submitted.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// Slurm refused, or is not there.
    #[error("{command}: {reason}")]
    Command {
        /// The command.
        command: &'static str,
        /// Its words.
        reason: String,
    },
    /// A setting that cannot stand in a batch script.
    #[error("--{name} `{value}`: one positive number or word without blanks is needed")]
    Setting {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A folder that cannot stand in a batch script.
    #[error(
        "{}: on a cluster the run folder's path may hold letters, digits and ./_-+=@,:~ only; choose another with --out",
        path.display()
    )]
    Folder {
        /// The run folder.
        path: PathBuf,
    },
    /// More shards than an array may have elements.
    #[error("{shards} shards are too many: this cluster's arrays end at index {largest}")]
    ArraySize {
        /// Shards asked for.
        shards: usize,
        /// Largest index (MaxArraySize - 1).
        largest: usize,
    },
    /// Elements of another cut still wait or run.
    #[error(
        "job {job} still works on {alive} shards; cancel it, or leave --shards at {alive} or away"
    )]
    OtherCut {
        /// The array job.
        job: String,
        /// Its number of shards.
        alive: usize,
    },
    /// The record of submissions is not readable.
    #[error("{}, line {line}: {reason}; remove the line once its jobs have ended", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The run folder.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// A job array in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Id of the array job.
    pub array: String,
    /// Id of the merge behind it; `None` where it was not submitted.
    pub merge: Option<String>,
    /// Number of shards M that the run was cut into.
    pub shards: usize,
    /// The shards (from 1) that were submitted.
    pub indices: Vec<usize>,
}

impl Submission {
    /// The shards that still wait or run.
    fn alive(&self, queue: &BTreeMap<String, String>) -> Vec<usize> {
        let alive = |index: &usize| queue.contains_key(&self.element(*index));
        self.indices.iter().copied().filter(alive).collect()
    }

    fn element(&self, index: usize) -> String {
        format!("{}_{index}", self.array)
    }
}

/// A run on a cluster.
pub struct Engine<'a> {
    /// The cluster.
    pub cluster: &'a dyn Cluster,
    /// The study.
    pub study: &'a dyn Study,
    /// Its run folder, with its configuration written.
    pub folder: &'a RunFolder,
    /// What is asked for.
    pub settings: &'a Settings,
    /// Arguments for `peftml shard` and `peftml merge` besides the folder.
    pub extra: &'a [String],
}

/// What is to be submitted.
struct Plan {
    shards: usize,
    indices: Vec<usize>,
}

impl Engine<'_> {
    /// The batch scripts that a submission would use now, the array's and the merge's; `None` where no
    /// trial is missing.
    ///
    /// # Errors
    /// [`SlurmError`]; the cluster is not asked.
    pub fn dry_run(&self) -> Result<Option<[String; 2]>, SlurmError> {
        let recorded = self.recorded()?;
        let plan = self.plan(&recorded, &BTreeMap::new())?;
        if plan.indices.is_empty() {
            return Ok(None);
        }
        let folder = self.absolute_folder()?;
        let job = self.job(&folder);
        let array = job.array(self.settings, &plan.indices, plan.shards)?;
        Ok(Some([array, job.merge(self.settings, "ID_OF_THE_ARRAY")?]))
    }

    /// Submits the shards that miss trials and are not alive, with a merge behind them; `binary` is
    /// copied into the run folder. `None` where there is nothing to submit.
    ///
    /// # Errors
    /// [`SlurmError`].
    pub fn submit(&self, binary: &Path) -> Result<Option<Submission>, SlurmError> {
        let mut recorded = self.recorded()?;
        let alive = self.cluster.alive()?;
        let plan = self.plan(&recorded, &alive)?;
        if plan.indices.is_empty() {
            return Ok(None);
        }
        let largest = self.cluster.max_array_size()?.saturating_sub(1);
        if plan.shards > largest {
            return Err(SlurmError::ArraySize { shards: plan.shards, largest });
        }
        let folder = self.absolute_folder()?;
        let own = self.folder.file("slurm");
        // Without the logs' folder an element would fail without a word.
        let io = |action| {
            let path = own.clone();
            move |source| RunError::Io { action, path, source }
        };
        std::fs::create_dir_all(&own).map_err(io("make the folder"))?;
        install(binary, &own.join("peftml"))?;
        let job = self.job(&folder);
        let script = own.join("array.sh");
        let text = job.array(self.settings, &plan.indices, plan.shards)?;
        write_atomically(&script, text.as_bytes())?;
        let array = self.cluster.submit(&script)?;
        let Plan { shards, indices } = plan;
        let mut submission = Submission { array, merge: None, shards, indices };
        // Recorded before anything else can fail: the array is on its way.
        recorded.push(submission.clone());
        self.record(&recorded)?;
        let script = own.join("merge.sh");
        let text = job.merge(self.settings, &submission.array)?;
        write_atomically(&script, text.as_bytes())?;
        submission.merge = Some(self.cluster.submit(&script)?);
        recorded.pop();
        recorded.push(submission.clone());
        self.record(&recorded)?;
        Ok(Some(submission))
    }

    /// Number of array elements and merges of this run that still wait or run. Elements that Slurm
    /// holds because it could not launch them are let go: a controller that was lost may try to launch
    /// what runs already, and an element that runs twice does no harm.
    ///
    /// # Errors
    /// [`SlurmError`].
    pub fn alive(&self) -> Result<usize, SlurmError> {
        let recorded = self.recorded()?;
        if recorded.is_empty() {
            return Ok(0);
        }
        let queue = self.cluster.alive()?;
        for submission in &recorded {
            for index in submission.alive(&queue) {
                let element = submission.element(index);
                if queue[&element] == LAUNCH_FAILED {
                    self.cluster.release(&element)?;
                }
            }
        }
        let merges = recorded.iter().filter_map(|submission| submission.merge.as_ref());
        let merges = merges.filter(|id| queue.contains_key(*id)).count();
        let elements: usize = recorded.iter().map(|s| s.alive(&queue).len()).sum();
        Ok(elements + merges)
    }

    fn job<'f>(&'f self, folder: &'f Path) -> Job<'f> {
        let About { suite, name, .. } = self.study.about();
        Job { name: format!("peftml-{suite}-{name}"), folder, extra: self.extra }
    }

    fn absolute_folder(&self) -> Result<PathBuf, SlurmError> {
        let path = self.folder.path();
        Ok(std::path::absolute(path).map_err(|source| RunError::Io {
            action: "find",
            path: path.to_owned(),
            source,
        })?)
    }

    fn plan(
        &self,
        recorded: &[Submission],
        alive: &BTreeMap<String, String>,
    ) -> Result<Plan, SlurmError> {
        self.settings.check()?;
        let trials = self.study.trials();
        let groups = trials.iter().map(|trial| trial.group).collect::<BTreeSet<_>>().len();
        let last = recorded.last().map(|submission| submission.shards);
        let shards = self.settings.shards.or(last).unwrap_or(DEFAULT_SHARDS.min(groups.max(1)));
        let mut busy = BTreeSet::new();
        for submission in recorded {
            let indices = submission.alive(alive);
            if !indices.is_empty() && submission.shards != shards {
                let Submission { array, shards, .. } = submission;
                return Err(SlurmError::OtherCut { job: array.clone(), alive: *shards });
            }
            busy.extend(indices);
        }
        let open = unfinished(self.study, self.folder)?;
        let misses = |shard: &Shard| {
            let open = |trial: &&Trial| open.contains(&trial.id);
            shard.select(&trials).iter().any(open)
        };
        let indices = Shard::all(shards)
            .filter(|shard| !busy.contains(&shard.numbers().0) && misses(shard))
            .map(|shard| shard.numbers().0)
            .collect();
        Ok(Plan { shards, indices })
    }

    fn record_path(&self) -> PathBuf {
        self.folder.file("slurm").join("jobs.jsonl")
    }

    fn recorded(&self) -> Result<Vec<Submission>, SlurmError> {
        let path = self.record_path();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(RunError::Io { action: "read", path, source }.into()),
        };
        let parse = |(index, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| SlurmError::Record {
                path: path.clone(),
                line: index + 1,
                reason: error.to_string(),
            })
        };
        text.lines().enumerate().map(parse).collect()
    }

    fn record(&self, submissions: &[Submission]) -> Result<(), SlurmError> {
        let mut text = String::new();
        for submission in submissions {
            // Words and numbers alone: this cannot fail.
            text += &serde_json::to_string(submission).unwrap_or_default();
            text.push('\n');
        }
        Ok(write_atomically(&self.record_path(), text.as_bytes())?)
    }
}

/// Copies the binary; elements of an earlier submission keep the one that they have open.
fn install(binary: &Path, target: &Path) -> Result<(), RunError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| RunError::Io { action, path, source }
    };
    let bytes = std::fs::read(binary).map_err(failed("read", binary))?;
    write_atomically(target, &bytes)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(target, std::fs::Permissions::from_mode(0o755))
            .map_err(failed("make executable", target))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
