//! Submission against a played cluster.

use super::*;
use crate::runs::toy::Toy;
use crate::runs::{Mixtures, Options, PartName, Silent, execute};
use std::cell::RefCell;

/// A cluster on which nothing runs; jobs live until they are ended.
#[derive(Default)]
struct Played {
    alive: RefCell<BTreeMap<String, String>>,
    released: RefCell<Vec<String>>,
    scripts: RefCell<Vec<String>>,
    max_array_size: usize,
    down: bool,
}

impl Played {
    fn new() -> Self {
        Self { max_array_size: 1001, ..Self::default() }
    }

    fn answer<T>(&self, value: T) -> Result<T, SlurmError> {
        let reason = "Unable to contact slurm controller".to_owned();
        if self.down { Err(SlurmError::Command { command: "squeue", reason }) } else { Ok(value) }
    }

    fn end(&self, element: &str) {
        self.alive.borrow_mut().remove(element);
    }
}

impl Cluster for Played {
    fn submit(&self, script: &Path) -> Result<String, SlurmError> {
        let text = std::fs::read_to_string(script).unwrap();
        let id = (10 + self.scripts.borrow().len()).to_string();
        if text.contains("--dependency") {
            self.alive.borrow_mut().insert(id.clone(), "Dependency".to_owned());
        }
        let indices = text.lines().find_map(|line| line.strip_prefix("#SBATCH --array="));
        for range in indices.into_iter().flat_map(|text| text.split(',')) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            let elements = (first..=last).map(|i| (format!("{id}_{i}"), String::new()));
            self.alive.borrow_mut().extend(elements);
        }
        self.scripts.borrow_mut().push(text);
        self.answer(id)
    }

    fn alive(&self) -> Result<BTreeMap<String, String>, SlurmError> {
        self.answer(self.alive.borrow().clone())
    }

    fn release(&self, job: &str) -> Result<(), SlurmError> {
        self.released.borrow_mut().push(job.to_owned());
        self.answer(())
    }

    fn max_array_size(&self) -> Result<usize, SlurmError> {
        self.answer(self.max_array_size)
    }
}

struct Bench {
    _place: tempfile::TempDir,
    study: Toy,
    folder: RunFolder,
    binary: PathBuf,
    cluster: Played,
    settings: Settings,
}

impl Bench {
    fn new(shards: usize) -> Self {
        let place = tempfile::tempdir().unwrap();
        let study = Toy::new(4);
        let folder = RunFolder::create(place.path(), &study).unwrap();
        folder.write_config(&study).unwrap();
        let binary = place.path().join("binary");
        std::fs::write(&binary, "the binary").unwrap();
        let settings = Settings { cpus_per_task: 1, shards: Some(shards), ..Settings::default() };
        Self { _place: place, study, folder, binary, cluster: Played::new(), settings }
    }

    fn engine(&self) -> Engine<'_> {
        let Self { study, folder, cluster, settings, .. } = self;
        Engine { cluster, study, folder, settings, extra: &[] }
    }

    fn submit(&self) -> Result<Option<Submission>, SlurmError> {
        self.engine().submit(&self.binary)
    }

    /// What an element of the array does.
    fn work(&self, k: usize, m: usize) {
        let shard = Some(Shard::parse(&format!("{k}/{m}")).unwrap());
        let text = |s: &str| s.to_owned();
        let part = PartName { job: text("10"), shard: k.to_string(), restart: text("0") };
        let options = Options { threads: 1, allowed: Mixtures::default(), part, shard, data: None };
        execute(&self.study, &self.folder, &options, &mut Silent).unwrap();
    }
}

#[test]
fn the_array_and_a_merge_behind_it_are_submitted_and_recorded() {
    let bench = Bench::new(3);
    let submission = bench.submit().unwrap().unwrap();
    let expected = Submission {
        array: "10".into(),
        merge: Some("11".into()),
        shards: 3,
        indices: vec![1, 2, 3],
    };
    assert_eq!(submission, expected);
    let scripts = bench.cluster.scripts.borrow();
    assert_eq!(scripts.len(), 2);
    assert!(scripts[0].contains("$SLURM_ARRAY_TASK_ID/3"));
    assert!(scripts[1].contains("afterany:10"));
    let installed = bench.folder.file("slurm/peftml");
    assert_eq!(std::fs::read_to_string(installed).unwrap(), "the binary");
    assert_eq!(bench.engine().alive().unwrap(), 4, "three elements and the merge");
}

#[test]
fn submitting_again_leaves_alone_what_is_alive_or_finished() {
    let bench = Bench::new(4);
    bench.submit().unwrap();
    assert_eq!(bench.submit().unwrap(), None, "all four wait");
    // The first finishes its trials, the second dies without.
    bench.work(1, 4);
    bench.cluster.end("10_1");
    bench.cluster.end("10_2");
    let again = bench.submit().unwrap().unwrap();
    assert_eq!(again.indices, [2]);
    for k in 2..=4 {
        bench.work(k, 4);
    }
    bench.cluster.alive.borrow_mut().clear();
    assert_eq!(bench.submit().unwrap(), None, "nothing is missing");
    assert_eq!(bench.engine().alive().unwrap(), 0);
}

#[test]
fn another_cut_waits_until_the_first_has_ended() {
    let mut bench = Bench::new(4);
    bench.submit().unwrap();
    bench.settings.shards = Some(2);
    assert!(matches!(bench.submit(), Err(SlurmError::OtherCut { alive: 4, .. })));
    bench.settings.shards = None;
    assert_eq!(bench.submit().unwrap(), None, "the last cut is the default");
    bench.settings.shards = Some(2);
    bench.cluster.alive.borrow_mut().clear();
    assert_eq!(bench.submit().unwrap().unwrap().indices, [1, 2]);
}

#[test]
fn what_the_cluster_does_not_allow_is_refused_before_anything_is_submitted() {
    let mut bench = Bench::new(12);
    bench.cluster.max_array_size = 12;
    assert!(matches!(bench.submit(), Err(SlurmError::ArraySize { shards: 12, largest: 11 })));
    bench.cluster.max_array_size = 13;
    bench.cluster.down = true;
    assert!(matches!(bench.submit(), Err(SlurmError::Command { .. })));
    bench.cluster.down = false;
    bench.settings.mem = Some("4G --wrap".into());
    assert!(matches!(bench.submit(), Err(SlurmError::Setting { name: "mem", .. })));
    assert!(bench.cluster.scripts.borrow().is_empty());
    assert!(!bench.folder.file("slurm/jobs.jsonl").exists());
}

#[test]
fn a_dry_run_shows_the_scripts_and_leaves_no_trace() {
    let mut bench = Bench::new(2);
    bench.cluster.down = true;
    let [array, merge] = bench.engine().dry_run().unwrap().expect("all is missing");
    assert!(array.contains("#SBATCH --array=1-2\n"));
    assert!(merge.contains("--dependency=afterany:"));
    assert!(!bench.folder.file("slurm").exists());
}

#[test]
fn what_could_not_be_launched_is_let_go_and_what_others_hold_is_not() {
    let bench = Bench::new(3);
    bench.submit().unwrap();
    let reasons = [("10_1", LAUNCH_FAILED), ("10_2", "JobHeldUser"), ("99_1", LAUNCH_FAILED)];
    for (element, reason) in reasons {
        bench.cluster.alive.borrow_mut().insert(element.to_owned(), reason.to_owned());
    }
    assert_eq!(bench.engine().alive().unwrap(), 4);
    assert_eq!(*bench.cluster.released.borrow(), ["10_1"]);
}
