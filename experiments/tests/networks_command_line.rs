//! Studies of networks through the command line: killed and resumed, on a full disk, with files and
//! settings that cannot be.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const QUICK: &[&str] = &[
    "run",
    "vision/quick",
    "--seeds",
    "0..1",
    "--threads",
    "2",
    "--set",
    "cells=[[\"lora-ml\",\"lora\"],[\"lora-ml\",\"full\"]]",
    "--set",
    "retraining.validate_every=5",
];

/// A workspace without a method of the study has nothing to run.
fn has_methods() -> bool {
    ["lora", "last-layer", "dora", "bitfit", "full"]
        .iter()
        .all(|name| peftml_peft::methods::entry(name).is_ok())
}

fn peftml(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftml"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn error_text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// The run folder below `out`.
fn folder(out: &Path) -> PathBuf {
    let entry = std::fs::read_dir(out.join("vision")).unwrap().next().unwrap();
    entry.unwrap().path()
}

fn checkpoint(out: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder(out).join("checkpoints")).ok()?;
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "safetensors"))
}

fn results(out: &Path) -> Vec<Vec<u8>> {
    let files = ["trials.csv", "curves.csv", "summary.json", "figures/accuracy.svg"];
    files.iter().map(|name| std::fs::read(folder(out).join(name)).unwrap()).collect()
}

#[test]
fn a_killed_run_and_a_full_disk_leave_a_checkpoint_from_which_it_ends_at_the_same_bits() {
    if !has_methods() {
        return;
    }
    let [undisturbed, out] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let run = |out: &Path| {
        let mut command = peftml(QUICK);
        command.arg("--out").arg(out);
        command
    };
    assert!(output(&mut run(undisturbed.path())).status.success());

    // Killed as soon as there is a checkpoint, which is long before the last step.
    let mut child = run(out.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let found = loop {
        std::thread::sleep(Duration::from_millis(2));
        let there = out.path().join("vision").is_dir().then(|| checkpoint(out.path())).flatten();
        if let Some(path) = there {
            break path;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended without a checkpoint");
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = std::fs::read(&found).unwrap();

    // No file may grow beyond 16 blocks of 512 or 1024 bytes, less than a checkpoint is.
    #[cfg(unix)]
    {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "sh"]);
        shell.arg(env!("CARGO_BIN_EXE_peftml")).args(QUICK).arg("--out").arg(out.path());
        let full = output(&mut shell);
        assert_eq!(full.status.code(), Some(1), "{}", error_text(&full));
        assert!(error_text(&full).contains(".safetensors"), "{}", error_text(&full));
        assert_eq!(std::fs::read(&found).unwrap(), kept, "the checkpoint changed");
    }

    let resumed = output(&mut run(out.path()));
    assert!(resumed.status.success(), "{}", error_text(&resumed));
    assert_eq!(results(out.path()), results(undisturbed.path()));
    // It went on inside: the retraining's own steps are fewer than all.
    let steps = |out: &Path| {
        let text = std::fs::read_to_string(folder(out).join("timings.csv")).unwrap();
        let line =
            text.lines().skip(1).find(|line| line.contains(",retraining,")).unwrap().to_owned();
        line.split(',').rev().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(steps(undisturbed.path()), 120);
    assert!(steps(out.path()) < 120, "{}", steps(out.path()));
}

#[test]
fn a_foreign_checkpoint_is_named_and_not_used() {
    if !has_methods() {
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let mut command = peftml(QUICK);
    command.args(["--set", "retraining.steps=10", "--out"]).arg(out.path());
    assert!(output(&mut command).status.success());
    let path = checkpoint(out.path()).unwrap();
    std::fs::remove_dir_all(folder(out.path()).join("parts")).unwrap();
    for bytes in [&b"no checkpoint"[..], b"", b"\x08\0\0\0\0\0\0\0{}      "] {
        std::fs::write(&path, bytes).unwrap();
        let refused = output(&mut command);
        assert_eq!(refused.status.code(), Some(1));
        let text = error_text(&refused);
        assert!(text.contains(path.file_name().unwrap().to_str().unwrap()), "{text}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(output(&mut command).status.success());
}

#[test]
fn a_loss_that_is_no_number_is_reported_with_its_place() {
    if !has_methods() {
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let mut command = peftml(QUICK);
    command.args(["--set", "fine_tuning.optimiser.step_size=1e30"]);
    command.args(["--set", "retraining.steps=10", "--out"]).arg(out.path());
    let refused = output(&mut command);
    assert_eq!(refused.status.code(), Some(1));
    let text = error_text(&refused);
    assert!(text.contains("step") && text.contains("lora"), "{text}");
    let trials = std::fs::read_to_string(folder(out.path()).join("trials.csv")).unwrap();
    assert_eq!(trials.lines().filter(|line| line.ends_with("not finite")).count(), 2, "{trials}");
}

#[test]
fn corrupt_images_are_refused_by_file_and_image() {
    if !has_methods() {
        return;
    }
    const RECORD: usize = 3073;
    let good: Vec<u8> = (0..20 * RECORD).map(|i| if i % RECORD == 0 { 3 } else { 7 }).collect();
    let mut wrong_label = good.clone();
    wrong_label[5 * RECORD] = 10;
    for (bytes, named) in [
        (good[..RECORD - 1].to_vec(), "data_batch_3.bin"),
        (wrong_label, "image 5"),
        ([&good[..], b"tail"].concat(), "data_batch_3.bin"),
        (Vec::new(), "data_batch_3.bin"),
        (good.clone(), "images"),
    ] {
        let [data, out] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let set = data.path().join("cifar-10-batches-bin");
        std::fs::create_dir(&set).unwrap();
        for number in 1..=5 {
            std::fs::write(set.join(format!("data_batch_{number}.bin")), &good).unwrap();
        }
        std::fs::write(set.join("test_batch.bin"), &good).unwrap();
        std::fs::write(set.join("data_batch_3.bin"), &bytes).unwrap();
        let mut command = peftml(&["run", "vision/cifar10.short", "--seeds", "0..1"]);
        let cells = "cells=[[\"standard\",\"lora\"]]";
        command.args(["--set", cells, "--out"]).arg(out.path());
        let refused = output(command.env("PEFTML_DATA", data.path()));
        let text = error_text(&refused);
        // Files that are too few images make a trial fail; those that are none stop the run.
        assert!(matches!(refused.status.code(), Some(1 | 2)), "{text}");
        assert!(text.contains(named), "{named}: {text}");
    }
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    if !has_methods() {
        return;
    }
    let whole = include_str!("../../configs/vision/quick.toml");
    let adapter = "adapter = { method = \"lora\", rank = 1, alpha = 1.0 }";
    let edited = |new: &str| whole.replacen(adapter, new, 2);
    for (text, named) in [
        (whole.replace("augmentation =", "augmentations = 1\naugmentation ="), "augmentations"),
        (whole.replace("step_size = 0.01,", "step_size = -0.01,"), "step_size"),
        (edited("adapter = { method = \"lora\", ranks = 1 }"), "ranks"),
        (
            edited("adapter = { method = \"lora\", rank = 1, targets = \"blocks.0.tokens.*\" }"),
            "blocks.0.token.up",
        ),
        (edited("adapter = { method = \"lora\", rank_pattern = { \"head\" = 3 } }"), "head"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("study.toml");
        std::fs::write(&path, text).unwrap();
        let mut command = peftml(&["run", path.to_str().unwrap(), "--out"]);
        let refused = output(command.arg(folder.path()));
        assert_eq!(refused.status.code(), Some(2), "{named}");
        assert!(error_text(&refused).contains(named), "{named}: {}", error_text(&refused));
    }
}
