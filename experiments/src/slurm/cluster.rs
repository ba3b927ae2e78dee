//! What is asked of Slurm.

use super::SlurmError;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// A cluster: the real one, or one that a test plays.
pub trait Cluster {
    /// Submits a script and returns the job's id.
    ///
    /// # Errors
    /// [`SlurmError::Command`] with Slurm's own words.
    fn submit(&self, script: &Path) -> Result<String, SlurmError>;

    /// One's jobs that wait, run or complete: id (array elements as `17_3`) and why a job waits.
    ///
    /// # Errors
    /// [`SlurmError::Command`] where the controller does not answer.
    fn alive(&self) -> Result<BTreeMap<String, String>, SlurmError>;

    /// Lets a held job go.
    ///
    /// # Errors
    /// [`SlurmError::Command`] with Slurm's own words.
    fn release(&self, job: &str) -> Result<(), SlurmError>;

    /// Largest size of an array: indices are below it.
    ///
    /// # Errors
    /// [`SlurmError::Command`] where the controller does not answer.
    fn max_array_size(&self) -> Result<usize, SlurmError>;
}

/// The cluster that `sbatch`, `squeue` and `scontrol` talk to.
#[derive(Debug, Default)]
pub struct Slurm;

impl Cluster for Slurm {
    fn submit(&self, script: &Path) -> Result<String, SlurmError> {
        let output = ask("sbatch", &["--parsable", &script.to_string_lossy()])?;
        job_id(&output)
            .ok_or_else(|| SlurmError::Command { command: "sbatch", reason: output.clone() })
    }

    fn alive(&self) -> Result<BTreeMap<String, String>, SlurmError> {
        // Asked for all of one's jobs: about a forgotten id `squeue` would fail instead of saying nothing.
        let output = ask("squeue", &["--noheader", "--array", "--me", "--format=%i %r"])?;
        Ok(jobs(&output))
    }

    fn release(&self, job: &str) -> Result<(), SlurmError> {
        ask("scontrol", &["release", job]).map(drop)
    }

    fn max_array_size(&self) -> Result<usize, SlurmError> {
        let output = ask("scontrol", &["show", "config"])?;
        // Slurm's own default, where the site does not say.
        Ok(setting(&output, "MaxArraySize").and_then(|text| text.parse().ok()).unwrap_or(1001))
    }
}

fn ask(command: &'static str, arguments: &[&str]) -> Result<String, SlurmError> {
    let failed = |reason: String| SlurmError::Command { command, reason };
    let output = Command::new(command)
        .args(arguments)
        .output()
        .map_err(|error| failed(format!("{error}; is this a login node of a Slurm cluster?")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
}

/// The id in the answer of `sbatch --parsable`: `id` or `id;cluster`.
fn job_id(output: &str) -> Option<String> {
    let id = output.lines().next_back()?.split(';').next()?.trim();
    (!id.is_empty() && id.chars().all(|c| c.is_ascii_digit())).then(|| id.to_owned())
}

/// Ids and reasons, one job a line.
fn jobs(output: &str) -> BTreeMap<String, String> {
    let lines = output.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
        .map(|(id, reason)| (id.to_owned(), reason.trim().replace('_', " ")))
        .collect()
}

/// The value of `name` in `scontrol show config`.
fn setting<'t>(output: &'t str, name: &str) -> Option<&'t str> {
    output.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_or_without_the_cluster() {
        assert_eq!(job_id("17\n").as_deref(), Some("17"));
        assert_eq!(job_id("17;north\n").as_deref(), Some("17"));
        assert_eq!(job_id("Submitted batch job 17\n"), None);
        assert_eq!(job_id(""), None);
        let config = "MaxArraySize            = 10001\nMaxJobCount = 20000\n";
        assert_eq!(setting(config, "MaxArraySize"), Some("10001"));
        assert_eq!(setting(config, "Max"), None);
        let queue = jobs("12_4 Resources\n 12_1 launch_failed_requeued_held\n13\n\n");
        assert_eq!(queue.len(), 3);
        assert_eq!(queue["12_1"], "launch failed requeued held");
        assert_eq!(queue["13"], "");
    }
}
