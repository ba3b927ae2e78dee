//! The batch scripts.

use super::{Settings, SlurmError};
use std::fmt::Write;
use std::path::Path;

/// What a submission is for.
pub(super) struct Job<'a> {
    /// The job's name.
    pub name: String,
    /// The run folder, absolute.
    pub folder: &'a Path,
    /// Extra arguments of the commands, such as `--allow-mixed-machines`.
    pub extra: &'a [String],
}

impl Job<'_> {
    /// One array element a shard of `indices` (from 1), of `shards` in all.
    ///
    /// # Errors
    /// [`SlurmError::Setting`], [`SlurmError::Folder`].
    pub fn array(
        &self,
        settings: &Settings,
        indices: &[usize],
        shards: usize,
    ) -> Result<String, SlurmError> {
        let limit = settings.array_limit.map(|limit| format!("%{limit}")).unwrap_or_default();
        let mut script = self.head(settings, "%A_%a")?;
        directive(&mut script, "array", &format!("{}{limit}", ranges(indices)));
        // Slurm runs an element again after a node's failure; a failing trial is no reason to.
        script += "#SBATCH --requeue\n";
        directive(&mut script, "cpus-per-task", &settings.cpus_per_task.to_string());
        for (name, value) in settings.resources() {
            directive(&mut script, name, value);
        }
        self.body(&mut script, settings, &["shard"]);
        let threads = settings.cpus_per_task;
        let _ = write!(script, " \"$SLURM_ARRAY_TASK_ID/{shards}\" --threads {threads}");
        self.end(&mut script);
        Ok(script)
    }

    /// The merge, once every element of `array` has ended in whatever way.
    ///
    /// # Errors
    /// As [`Job::array`].
    pub fn merge(&self, settings: &Settings, array: &str) -> Result<String, SlurmError> {
        let mut script = self.head(settings, "%j_merge")?;
        // `afterok` would wait for ever behind one failed element; the merge itself looks what is there.
        directive(&mut script, "dependency", &format!("afterany:{array}"));
        script += "#SBATCH --requeue\n#SBATCH --cpus-per-task=1\n";
        for (name, value) in settings.resources() {
            // A merge needs no device.
            if name != "gres" {
                directive(&mut script, name, value);
            }
        }
        self.body(&mut script, settings, &["merge"]);
        self.end(&mut script);
        Ok(script)
    }

    fn head(&self, settings: &Settings, log: &str) -> Result<String, SlurmError> {
        settings.check()?;
        let folder = self.folder.to_str().filter(|text| is_plain(text));
        let folder = folder.ok_or_else(|| SlurmError::Folder { path: self.folder.to_owned() })?;
        let mut script = String::from("#!/bin/bash\n");
        directive(&mut script, "job-name", &self.name);
        directive(&mut script, "output", &format!("{folder}/slurm/{log}.log"));
        // A requeued element goes on in its log; what stands in the submitter's shell stays there.
        script += "#SBATCH --open-mode=append\n#SBATCH --export=NONE\n#SBATCH --nodes=1\n#SBATCH --ntasks=1\n";
        Ok(script)
    }

    fn body(&self, script: &mut String, settings: &Settings, command: &[&str]) {
        *script += "\n";
        if let Some(setup) = &settings.setup {
            *script += setup.trim_end();
            *script += "\n";
        }
        let folder = self.folder.display();
        let command = command.join(" ");
        // `$0` is a spool copy, and a rebuilt binary must not change elements that wait.
        let _ = write!(script, "exec \"{folder}/slurm/peftml\" {command} \"{folder}\"");
    }

    fn end(&self, script: &mut String) {
        for argument in self.extra {
            let _ = write!(script, " {argument}");
        }
        *script += "\n";
    }
}

fn directive(script: &mut String, name: &str, value: &str) {
    let _ = writeln!(script, "#SBATCH --{name}={value}");
}

/// Whether a path can stand in a directive and between double quotes as it is: `%` would be a pattern,
/// a blank would end it.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || "/._-+=@,:~".contains(c))
}

/// `1-3,5` for 1, 2, 3, 5.
fn ranges(indices: &[usize]) -> String {
    let mut text = String::new();
    let mut rest = indices;
    while let [first, ..] = *rest {
        let length =
            rest.iter().zip(first..).take_while(|(index, expected)| *index == expected).count();
        let last = first + length - 1;
        let comma = if text.is_empty() { "" } else { "," };
        let _ = match length {
            1 => write!(text, "{comma}{first}"),
            _ => write!(text, "{comma}{first}-{last}"),
        };
        rest = &rest[length..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { cpus_per_task: 2, ..Settings::default() }
    }

    fn job(folder: &str) -> Job<'_> {
        Job { name: "peftml-linear-sweep_n".into(), folder: Path::new(folder), extra: &[] }
    }

    #[test]
    fn runs_of_indices_are_folded() {
        assert_eq!(ranges(&[1, 2, 3, 5, 7, 8]), "1-3,5,7-8");
        assert_eq!(ranges(&[4]), "4");
        assert_eq!(ranges(&[]), "");
    }

    #[test]
    fn the_array_asks_for_what_is_set_and_nothing_else() {
        let mut settings = settings();
        settings.partition = Some("short".into());
        settings.time = Some("1-00:00:00".into());
        settings.array_limit = Some(4);
        settings.setup = Some("module load rust\n".into());
        let script = job("/data/run-1").array(&settings, &[1, 2, 5], 8).unwrap();
        assert_eq!(
            script,
            "#!/bin/bash
#SBATCH --job-name=peftml-linear-sweep_n
#SBATCH --output=/data/run-1/slurm/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --export=NONE
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --array=1-2,5%4
#SBATCH --requeue
#SBATCH --cpus-per-task=2
#SBATCH --partition=short
#SBATCH --time=1-00:00:00

module load rust
exec \"/data/run-1/slurm/peftml\" shard \"/data/run-1\" \"$SLURM_ARRAY_TASK_ID/8\" --threads 2
"
        );
    }

    #[test]
    fn the_merge_waits_for_any_end_and_asks_for_no_device() {
        let mut settings = settings();
        settings.gres = Some("gpu:1".into());
        let script = job("/data/run-1").merge(&settings, "17").unwrap();
        assert!(script.contains("#SBATCH --dependency=afterany:17\n"));
        assert!(script.ends_with("exec \"/data/run-1/slurm/peftml\" merge \"/data/run-1\"\n"));
        assert!(!script.contains("gpu"));
    }

    #[test]
    fn what_would_break_out_of_a_directive_is_refused() {
        for folder in ["/data/a b", "/data/%x", "/data/a\"b", "/data/$(x)"] {
            let refused = job(folder).array(&settings(), &[1], 1);
            assert!(matches!(refused, Err(SlurmError::Folder { .. })), "{folder}");
        }
        for value in ["a b", "x\n#SBATCH --wrap=y", ""] {
            let settings = Settings { partition: Some(value.into()), ..settings() };
            let refused = job("/data/a").array(&settings, &[1], 1);
            assert!(matches!(refused, Err(SlurmError::Setting { .. })), "{value}");
        }
    }
}
