//! Studies of networks through the command line: killed and resumed, on a full disk, with files and
//! settings that cannot be.

use peftml_linalg::Seed;
use peftml_peft::device::values;
use peftml_peft::exchange::load_adapter;
use peftml_peft::models::{Encoder, EncoderConfig, EncoderForm};
use peftml_peft::pretrained::{Head, Pretrained, Tokenizer};
use peftml_peft::store::save_parameters;
use peftml_peft::{Input, Network as _, Pass, Place, Precision, Sequences};
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

/// A small BERT with random weights and a word a token, and a folder of three tasks.
fn model_and_tasks(root: &Path) -> (PathBuf, PathBuf) {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "a", "film", "day"];
    let sizes = EncoderConfig {
        vocabulary: words.len(),
        width: 8,
        layers: 1,
        heads: 2,
        hidden: 8,
        positions: 16,
        segments: 2,
        classes: 0,
        dropout: 0.1,
        form: EncoderForm::default(),
    };
    let encoder = Encoder::new(sizes).unwrap();
    let place = Place::cpu(Precision::F32);
    let weights = encoder.sites().initial(&Seed::root(1), &place).unwrap();
    let [model, tasks] = ["model", "tasks"].map(|name| root.join(name));
    std::fs::create_dir(&model).unwrap();
    std::fs::create_dir(&tasks).unwrap();
    save_parameters(&model.join("model.safetensors"), &weights, Precision::F32).unwrap();
    std::fs::write(model.join("vocab.txt"), words.join("\n")).unwrap();
    let description = "{\"model_type\": \"bert\", \"architectures\": [\"BertModel\"], \"vocab_size\": 10, \
        \"hidden_size\": 8, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"intermediate_size\": 8, \
        \"max_position_embeddings\": 16, \"type_vocab_size\": 2}";
    std::fs::write(model.join("config.json"), description).unwrap();
    for (task, noun) in [("one", "film"), ("two", "day"), ("three", "film day")] {
        let row = |number: usize| match number % 2 {
            0 => format!("a good {noun} {},yes\n", "a ".repeat(number / 2)),
            _ => format!("bad {noun} {},no\n", "a ".repeat(number / 2)),
        };
        let rows: String = (0..12).map(row).collect();
        std::fs::write(tasks.join(format!("{task}.csv")), format!("text,label\n{rows}")).unwrap();
    }
    (model, tasks)
}

#[test]
fn adapting_that_was_killed_goes_on_and_the_adapter_opens_again() {
    if !has_methods() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (model, tasks) = model_and_tasks(root.path());
    let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let (model, tasks) = (model.to_str().unwrap(), tasks.to_str().unwrap());
    let retrain = |out: &str| {
        let mut command = peftml(&["adapt", "--model", model, "--tasks", tasks]);
        command.args(["--algorithm", "peft-ml", "--settings", "rank = 2", "--batch", "6"]);
        command.args(["--epochs", "30", "--validation", "0.25", "--save-every", "0"]);
        command.args(["--step-size", "0.003", "--threads", "1", "--out", out]);
        command
    };
    let whole = output(&mut retrain(&path("undisturbed")));
    assert!(whole.status.success(), "{}", error_text(&whole));

    let checkpoint = root.path().join("resumed.checkpoint");
    let mut child =
        retrain(&path("resumed")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !checkpoint.is_file() {
        std::thread::sleep(Duration::from_millis(2));
        assert!(child.try_wait().unwrap().is_none(), "it ended without a checkpoint");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!root.path().join("resumed").exists());

    // Of other texts nothing goes on.
    let one = Path::new(tasks).join("one.csv");
    let text = std::fs::read_to_string(&one).unwrap();
    std::fs::write(&one, text.replacen("good", "bad", 1)).unwrap();
    let refused = output(&mut retrain(&path("resumed")));
    assert_eq!(refused.status.code(), Some(2));
    assert!(error_text(&refused).contains("its data"), "{}", error_text(&refused));
    std::fs::write(&one, text).unwrap();

    let resumed = output(&mut retrain(&path("resumed")));
    assert!(resumed.status.success(), "{}", error_text(&resumed));
    let weights =
        |name: &str| std::fs::read(root.path().join(name).join("model.safetensors")).unwrap();
    assert_eq!(weights("resumed"), weights("undisturbed"));
    assert_ne!(
        weights("resumed"),
        std::fs::read(Path::new(model).join("model.safetensors")).unwrap()
    );
    assert!(!checkpoint.exists());
    let figures = |output: &Output| -> serde_json::Value {
        let mut value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        value["out"] = serde_json::Value::Null;
        value
    };
    assert_eq!(figures(&resumed), figures(&whole));

    // An adapter with its head: the logits of the file are those of the training's own model.
    let data = one.to_str().unwrap();
    let tune = |out: &str| {
        let base = path("resumed");
        let mut command = peftml(&["adapt", "--model", &base, "--data", data]);
        command.args(["--algorithm", "fine-tune", "--epochs", "20", "--step-size", "0.01"]);
        command.args(["--validation", "0", "--settings", "rank = 2", "--out", out]);
        let output = output(&mut command);
        assert!(output.status.success(), "{}", error_text(&output));
    };
    tune(&path("adapter"));
    tune(&path("again"));
    let file = "adapter_model.safetensors";
    let bytes = |name: &str| std::fs::read(root.path().join(name).join(file)).unwrap();
    assert_eq!(bytes("adapter"), bytes("again"));
    let place = Place::cpu(Precision::F32);
    let base = PathBuf::from(path("resumed"));
    let opened = Pretrained::load(&base, &Head::New(2, Seed::root(0)), &place).unwrap();
    let sites = opened.encoder.sites();
    let (adapter, theta) = load_adapter(Path::new(&path("adapter")), sites, &place).unwrap();
    let tokenizer = Tokenizer::from_folder(&base).unwrap();
    let logits = |pass: Pass<'_>| -> Vec<f64> {
        let rows = ["a good film", "bad film"].map(|text| tokenizer.encode(text).unwrap());
        let rows = Sequences { rows: rows.to_vec(), padding: 0, place: place.clone() };
        values(&opened.encoder.forward(&pass, &Input::Sequences(rows)).unwrap()).unwrap()
    };
    let found = logits(Pass::new(&opened.base).with_adapter(&adapter, &theta));
    // It has learnt what the file says, labels in their order: no before yes.
    assert!(found[1] > found[0] && found[2] > found[3], "{found:?}");
    // Merged into the base and its head it says the same: both files hold all of the model.
    let merged = adapter.merged(&opened.base, &theta).unwrap();
    let again = logits(Pass::new(&merged));
    let distance = found.iter().zip(&again).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(distance < 1e-5, "{found:?} {again:?}");
    // Control: the base alone does not.
    assert_ne!(logits(Pass::new(&opened.base)), found);
}
