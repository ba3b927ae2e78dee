//! Laws of resumption on a toy study: results are those of an undisturbed run, whatever happened.

use super::toy::Toy;
use super::*;
use std::path::Path;

fn options(threads: usize, shard: Option<Shard>) -> Options {
    let text = |s: &str| s.to_owned();
    let part = PartName { job: text("local"), shard: text("all"), restart: text("0") };
    Options { threads, allowed: Mixtures::default(), part, shard, data: None }
}

fn run(study: &Toy, results: &Path, threads: usize) -> (RunFolder, Execution) {
    let folder = RunFolder::create(results, study).unwrap();
    folder.write_config(study).unwrap();
    let _lock = folder.lock().unwrap();
    let execution = execute(study, &folder, &options(threads, None), &mut Silent).unwrap();
    (folder, execution)
}

fn merged(study: &Toy, folder: &RunFolder) -> Merged {
    merge(study, folder, Mixtures::default(), 1, None).unwrap()
}

/// The files that must not differ.
fn results(folder: &RunFolder) -> Vec<Vec<u8>> {
    let mut all = ["trials.csv", "curves.csv", "figures/sine.svg", "summary.json"]
        .map(|name| std::fs::read(folder.file(name)).unwrap())
        .to_vec();
    for name in instances(folder) {
        all.push(std::fs::read(folder.instances().join(&name).join("value.txt")).unwrap());
        all.push(name.into_bytes());
    }
    all
}

/// Names of the kept instances' folders.
fn instances(folder: &RunFolder) -> Vec<String> {
    let entries = std::fs::read_dir(folder.instances()).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn part_files(folder: &RunFolder) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder.parts()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// What an undisturbed run of `seeds` seeds on one thread gives.
fn undisturbed(seeds: u64) -> Vec<Vec<u8>> {
    let home = tempfile::tempdir().unwrap();
    let study = Toy::new(seeds);
    let (folder, _) = run(&study, home.path(), 1);
    assert!(merged(&study, &folder).is_success());
    results(&folder)
}

#[test]
fn threads_shards_and_order_do_not_matter() {
    let expected = undisturbed(4);
    for threads in [2, 5] {
        let home = tempfile::tempdir().unwrap();
        let study = Toy::new(4);
        let (folder, _) = run(&study, home.path(), threads);
        merged(&study, &folder);
        assert_eq!(results(&folder), expected, "{threads} threads");
    }
    for m in [2, 3, 20] {
        let home = tempfile::tempdir().unwrap();
        let study = Toy::new(4);
        let folder = RunFolder::create(home.path(), &study).unwrap();
        for k in (1..=m).rev() {
            let shard = Shard::parse(&format!("{k}/{m}")).unwrap();
            let _lock = folder.lock_shard(k, m).unwrap();
            execute(&study, &folder, &options(2, Some(shard)), &mut Silent).unwrap();
        }
        assert_eq!(study.ran(), 24, "no trial is run twice");
        merged(&study, &folder);
        assert_eq!(results(&folder), expected, "{m} shards");
    }
}

#[test]
fn a_run_whose_parts_are_cut_anywhere_ends_as_if_undisturbed() {
    let expected = undisturbed(2);
    let home = tempfile::tempdir().unwrap();
    let study = Toy::new(2);
    let (folder, _) = run(&study, home.path(), 1);
    let part = part_files(&folder).pop().unwrap();
    let bytes = std::fs::read(&part).unwrap();
    for cut in (0..bytes.len()).step_by(97) {
        std::fs::write(&part, &bytes[..cut]).unwrap();
        let before = study.ran();
        let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
        let (folder, execution) = run(&study, home.path(), 2);
        assert_eq!(execution.before, whole, "what was written whole is not lost");
        assert_eq!(study.ran() - before, 12 - whole, "and not computed again");
        assert!(merged(&study, &folder).is_success());
        assert_eq!(results(&folder), expected, "cut at {cut}");
        for other in part_files(&folder).into_iter().filter(|path| *path != part) {
            std::fs::remove_file(other).unwrap();
        }
    }
}

#[test]
fn seeds_added_later_are_all_that_is_computed() {
    let home = tempfile::tempdir().unwrap();
    run(&Toy::new(2), home.path(), 1);
    let more = Toy::new(5);
    let (folder, execution) = run(&more, home.path(), 2);
    assert_eq!((execution.before, execution.computed), (12, 18));
    merged(&more, &folder);
    assert_eq!(results(&folder), undisturbed(5));
    // And back: the smaller range gives its own bytes, the other trials stay in the parts.
    let fewer = Toy::new(2);
    let (folder, execution) = run(&fewer, home.path(), 2);
    assert_eq!(execution.computed, 0);
    assert_eq!(merged(&fewer, &folder).outside, 18);
    assert_eq!(results(&folder), undisturbed(2));
}

#[test]
fn a_failing_trial_is_reported_and_tried_again_and_the_others_complete() {
    for how in ["panic", "no memory"] {
        let home = tempfile::tempdir().unwrap();
        let study = Toy::new(2).failing("x=1 seed=0 0", how);
        let (folder, execution) = run(&study, home.path(), 2);
        // A panic takes the rest of its group along: another trial shares its data.
        let lost = if how == "panic" { 2 } else { 1 };
        assert_eq!((execution.computed, execution.failed.len()), (12 - lost, lost));
        let found = merged(&study, &folder);
        assert!(!found.is_success());
        assert_eq!(found.failed.len(), lost);
        let shown = status(&study, &folder).unwrap();
        assert_eq!((shown.finished, shown.missing, shown.failed.len()), (12 - lost, lost, lost));
        assert!(shown.failed[0].reason.contains(if how == "panic" { "as asked" } else { how }));
        let healthy = Toy::new(2);
        let (folder, execution) = run(&healthy, home.path(), 2);
        assert_eq!(execution.computed, lost);
        assert!(merged(&healthy, &folder).is_success());
        assert_eq!(results(&folder), undisturbed(2));
        assert!(status(&healthy, &folder).unwrap().failed.is_empty());
    }
}

#[test]
fn a_refusal_is_a_result_that_stands() {
    let home = tempfile::tempdir().unwrap();
    let study = Toy::new(2).failing("x=1 seed=0 0", "refuse");
    let (folder, execution) = run(&study, home.path(), 1);
    assert_eq!((execution.computed, execution.failed.len()), (12, 0));
    let found = merged(&study, &folder);
    assert_eq!(found.refused, [("x=1 seed=0 0".to_owned(), "no answer".to_owned())]);
    assert!(!found.is_success());
    assert_eq!(run(&study, home.path(), 1).1.computed, 0, "it is not tried again");
}

#[test]
fn a_second_process_is_told_who_holds_the_folder() {
    let home = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(home.path(), &Toy::new(1)).unwrap();
    let held = folder.lock().unwrap();
    // The lock is held by file, not by process: a second file stands for a second process.
    let message = folder.lock().unwrap_err().to_string();
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
    assert!(matches!(folder.lock_shard(1, 2), Err(RunError::Held { .. })));
    drop(held);
    let first = folder.lock_shard(1, 2).unwrap();
    let second = folder.lock_shard(2, 2).unwrap();
    assert!(matches!(folder.lock_shard(2, 2), Err(RunError::Held { .. })));
    let message = folder.lock().unwrap_err().to_string();
    assert!(message.contains("shards"), "{message}");
    drop((first, second));
    folder.lock().unwrap();
}

#[test]
fn two_results_of_one_trial_that_differ_stop_the_merge_and_name_both_files() {
    let home = tempfile::tempdir().unwrap();
    let study = Toy::new(1);
    let (folder, _) = run(&study, home.path(), 1);
    merged(&study, &folder);
    let before = results(&folder);
    let part = part_files(&folder).pop().unwrap();
    let copy = folder.parts().join("copy.jsonl");
    let text = std::fs::read_to_string(&part).unwrap();
    std::fs::write(&copy, &text).unwrap();
    merged(&study, &folder);
    assert_eq!(results(&folder), before, "an equal copy changes nothing");
    std::fs::write(&copy, text.replacen("1,2,", "1,3,", 1)).unwrap();
    let error = merge(&study, &folder, Mixtures::default(), 1, None).unwrap_err().to_string();
    assert!(error.contains("copy.jsonl"), "{error}");
    assert!(error.contains(part.file_name().unwrap().to_str().unwrap()), "{error}");
    assert_eq!(results(&folder), before, "the merged files stay as they were");
}

#[test]
fn results_of_another_revision_are_refused_unless_allowed() {
    let home = tempfile::tempdir().unwrap();
    let study = Toy::new(2);
    let (folder, _) = run(&study, home.path(), 1);
    let part = part_files(&folder).pop().unwrap();
    let text = std::fs::read_to_string(&part).unwrap();
    let lines: Vec<&str> = text.lines().take(5).collect();
    let old = lines.join("\n").replace(provenance::revision(), "0123456789ab") + "\n";
    std::fs::write(&part, old).unwrap();
    let refused = execute(&study, &folder, &options(1, None), &mut Silent).unwrap_err();
    assert!(refused.to_string().contains("--allow-mixed-revisions"));
    let allowed = Mixtures { revisions: true, machines: false };
    let execution =
        execute(&study, &folder, &Options { allowed, ..options(1, None) }, &mut Silent).unwrap();
    assert_eq!((execution.before, execution.computed), (5, 7));
    assert!(merge(&study, &folder, Mixtures::default(), 1, None).is_err());
    merge(&study, &folder, allowed, 1, None).unwrap();
    assert_eq!(results(&folder), undisturbed(2));
    let run = std::fs::read_to_string(folder.file("run.json")).unwrap();
    assert!(run.contains("0123456789ab") && run.contains(provenance::revision()));
}

#[test]
fn a_part_file_that_cannot_be_made_is_an_error_with_its_name() {
    let home = tempfile::tempdir().unwrap();
    let study = Toy::new(1);
    let folder = RunFolder::create(home.path(), &study).unwrap();
    std::fs::remove_dir(folder.parts()).unwrap();
    std::fs::write(folder.parts(), "in the way").unwrap();
    assert!(execute(&study, &folder, &options(1, None), &mut Silent).is_err());
    assert!(matches!(RunFolder::open(home.path()), Err(RunError::NotARun { .. })));
}

#[test]
fn atomic_writing_leaves_the_old_file_or_the_new_one_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("file");
    write_atomically(&path, b"old").unwrap();
    write_atomically(&path, b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    // A folder in the way cannot be replaced by a file.
    let blocked = home.path().join("blocked");
    std::fs::create_dir_all(blocked.join("inner")).unwrap();
    assert!(write_atomically(&blocked, b"new").is_err());
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "no temporary file stays behind");
}

#[test]
fn instances_are_those_of_the_trials_whatever_stood_in_their_folder() {
    let home = tempfile::tempdir().unwrap();
    let study = Toy::new(3);
    let (folder, _) = run(&study, home.path(), 1);
    merged(&study, &folder);
    let (expected, names) = (results(&folder), instances(&folder));
    assert!(!names.is_empty() && names.len() < 18, "some trials keep one: {names:?}");
    // A folder of another configuration, one that a killed process left, and one with other bytes.
    let path = folder.instances();
    for name in ["other", ".unfinished-x"] {
        std::fs::create_dir(path.join(name)).unwrap();
        std::fs::write(path.join(name).join("value.txt"), "1").unwrap();
    }
    std::fs::write(path.join(&names[0]).join("value.txt"), "0").unwrap();
    assert_ne!(results(&folder), expected, "the damage is seen");
    merged(&study, &folder);
    assert_eq!(results(&folder), expected);
}
