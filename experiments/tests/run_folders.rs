//! The commands `run`, `shard`, `merge` and `status` as a user meets them: kills, full disks, second
//! processes and shards end with the bytes of an undisturbed run or with one clear sentence.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A study of about a hundred small trials.
const STUDY: [&str; 13] = [
    "run",
    "linear/sweep_n.quick",
    "--seeds",
    "0..12",
    "--set",
    "samples_per_task=300",
    "--set",
    "retraining.rounds=400",
    "--set",
    "fine_tuning.steps=400",
    "--set",
    "sweep.test_samples=[40, 60, 80]",
    "--out",
];

fn peftml() -> Command {
    Command::new(env!("CARGO_BIN_EXE_peftml"))
}

fn study(home: &Path) -> Command {
    let mut command = peftml();
    command.args(STUDY).arg(home);
    command
}

fn finish(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The run folder that `peftml run` names in its last line.
fn folder(output: &Output) -> PathBuf {
    assert!(output.status.success(), "{}", stderr(output));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).lines().last().unwrap())
}

/// Name and bytes of every file that must not depend on what happened to a run.
fn results(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut paths = vec![folder.join("trials.csv"), folder.join("curves.csv")];
    for entry in std::fs::read_dir(folder.join("figures")).unwrap() {
        paths.push(entry.unwrap().path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension != "png"));
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(path).unwrap())
    };
    paths.iter().map(read).collect()
}

fn undisturbed() -> Vec<(String, Vec<u8>)> {
    let home = tempfile::tempdir().unwrap();
    results(&folder(&finish(study(home.path()).args(["--threads", "1"]))))
}

/// Temporary files that a run left behind.
fn unfinished(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let temporary =
        |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(".unfinished");
    entries.filter(temporary).collect()
}

#[test]
fn a_run_killed_again_and_again_ends_with_the_bytes_of_an_undisturbed_one() {
    let expected = undisturbed();
    let home = tempfile::tempdir().unwrap();
    for attempt in 0..12 {
        let mut child = study(home.path())
            .args(["--threads", "2"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Moments spread over start, work and merge; which trials they meet does not matter.
        std::thread::sleep(Duration::from_millis(17 + 41 * attempt));
        // SIGKILL; a run that is done already is no case of this test, and no error.
        let _ = child.kill();
        child.wait().unwrap();
    }
    let folder = folder(&finish(study(home.path()).args(["--threads", "2"])));
    assert!(results(&folder) == expected);
    assert_eq!(unfinished(&folder), Vec::<PathBuf>::new());
}

#[test]
fn shards_by_separate_processes_merge_to_the_same_bytes() {
    let expected = undisturbed();
    let home = tempfile::tempdir().unwrap();
    let folder = folder(&finish(study(home.path()).arg("--prepare")));
    let incomplete = finish(peftml().arg("merge").arg(&folder));
    assert_eq!(incomplete.status.code(), Some(1), "nothing is there yet");
    assert!(
        stderr(&incomplete).contains("180 of 180 trials are missing"),
        "{}",
        stderr(&incomplete)
    );
    let children: Vec<_> = (1..=3)
        .map(|k| {
            peftml()
                .arg("shard")
                .arg(&folder)
                .arg(format!("{k}/3"))
                .args(["--threads", "1"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let status = finish(peftml().args(["status", "--json"]).arg(&folder));
    let shown = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(shown.contains("\"finished\":180") && shown.contains("\"missing\":0"), "{shown}");
    // One shard run twice computes nothing and changes nothing.
    let again = finish(peftml().arg("shard").arg(&folder).arg("2/3"));
    assert!(String::from_utf8_lossy(&again.stdout).contains("\"computed\":0"));
    assert!(finish(peftml().arg("merge").arg(&folder)).status.success());
    assert!(results(&folder) == expected);
}

#[test]
fn a_second_process_on_one_folder_is_told_who_holds_it() {
    let home = tempfile::tempdir().unwrap();
    let mut long = peftml();
    // Long enough to be met at work; ended below.
    long.args(["run", "linear/sweep_n", "--set", "retraining.rounds=100000000", "--out"]);
    let mut child =
        long.arg(home.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let holds = || {
        let suite = std::fs::read_dir(home.path().join("linear")).ok()?;
        let folder = suite.flatten().next()?.path();
        std::fs::read_to_string(folder.join("lock")).ok().filter(|words| !words.is_empty())
    };
    let mut tries = 0;
    while holds().is_none() && tries < 600 {
        std::thread::sleep(Duration::from_millis(50));
        tries += 1;
    }
    let mut second = peftml();
    second.args(["run", "linear/sweep_n", "--set", "retraining.rounds=100000000", "--out"]);
    let second = finish(second.arg(home.path()));
    let holder = format!("process {}", child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains(&holder), "{}", stderr(&second));
}

#[cfg(unix)]
#[test]
fn a_full_disk_stops_a_run_with_one_sentence_and_loses_nothing() {
    let expected = undisturbed();
    let home = tempfile::tempdir().unwrap();
    // A limit on file sizes with its signal ignored fails writes as a full disk does, for root too.
    let limited = |blocks: usize| {
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_peftml")]);
        shell.args(STUDY).arg(home.path());
        finish(&mut shell)
    };
    for blocks in [1, 60, 400] {
        let output = limited(blocks);
        assert_eq!(output.status.code(), Some(1), "{blocks}: {}", stderr(&output));
        assert!(stderr(&output).contains("cannot write"), "{}", stderr(&output));
    }
    let folder = folder(&finish(&mut study(home.path())));
    assert!(results(&folder) == expected);
    assert_eq!(unfinished(&folder), Vec::<PathBuf>::new());
}

#[test]
fn a_refusing_method_keeps_its_rows_and_the_others_complete() {
    let home = tempfile::tempdir().unwrap();
    let mut command = study(home.path());
    // d = 4 and k = 2 is outside of the global solver's conditions.
    command.args(["--set", "dimension=4", "--set", "rank=2", "--json"]);
    let output = finish(&mut command);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("refused"), "{}", stderr(&output));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let folder = shown.split('"').nth(3).unwrap();
    let text = std::fs::read_to_string(Path::new(folder).join("trials.csv")).unwrap();
    let refused: Vec<&str> = text.lines().filter(|line| line.contains(",global,")).collect();
    assert!(!refused.is_empty());
    assert!(refused.iter().all(|line| line.contains("outside the conditions")));
    let finished = text.lines().filter(|line| line.ends_with(",ok")).count();
    assert!(finished > 0);
}

#[test]
fn bad_usage_is_one_sentence_with_status_2() {
    let home = tempfile::tempdir().unwrap();
    let cases: [&[&str]; 9] = [
        &["run", "linear/sweep_x"],
        &["run", "linear/sweep_n", "--set", "nothing=1"],
        &["run", "linear/sweep_n", "--set", "rank"],
        &["run", "linear/sweep_n", "--set", "rank=0"],
        &["run", "linear/sweep_n", "--seeds", "5..1"],
        &["run", "missing.toml"],
        &["merge", "missing"],
        &["status", "missing"],
        &["shard", "missing", "3/2"],
    ];
    for case in cases {
        let output = finish(peftml().args(case).current_dir(home.path()));
        assert_eq!(output.status.code(), Some(2), "{case:?}");
        assert_eq!(stderr(&output).trim_end().lines().count(), 1, "{case:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    let left = std::fs::read_dir(home.path()).unwrap().count();
    assert_eq!(left, 0, "nothing is made before the configuration is right");
}
