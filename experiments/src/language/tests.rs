use super::config::LanguageConfig;
use super::scene::Scene;
use super::*;
use crate::config::{StudyName, load, names, set};
use crate::networks::config::Staged as _;
use crate::networks::stages::{Stages as _, TrialError, Tuned};
use crate::recut;
use crate::runs::{Site, Study, Tables};
use peftml_peft::Examples as _;
use std::path::Path;

/// A workspace without a method of the studies has nothing to run.
fn has_methods() -> bool {
    ["lora", "last-layer"].iter().all(|name| peftml_peft::methods::entry(name).is_ok())
}

/// A cut of the quick study that takes a second.
fn small(edits: &[&str]) -> LanguageStudy {
    let data = ["data.source.personas=3", "data.source.dialogues=4", "data.source.turns=2"];
    let more = ["data.source.candidates=4", "data.retraining_tasks=2", "data.test_tasks=2"];
    let cheap = ["data.validation_dialogues=1", "data.training_candidates=3", "model.width=8"];
    let model = ["model.layers=1", "model.heads=2", "model.hidden=8", "data.folds.count=2"];
    let stages =
        ["retraining.epochs=2", "fine_tuning.epochs=2", "seeds=0..1", "fine_tuning.batch=2"];
    let edits =
        [&data[..], &more, &cheap, &model, &stages, &["retraining.batch=4"], edits].concat();
    LanguageStudy::new(&recut::table("language/quick", &edits)).unwrap()
}

fn scene<'c>(config: &'c LanguageConfig, folder: Option<&Path>) -> Scene<'c> {
    let site = Site { folder, data: None };
    Scene::new(config, 0, &site, &Default::default()).unwrap()
}

#[test]
fn every_configuration_of_the_suite_is_a_study() {
    if !has_methods() {
        return;
    }
    let mut found = 0;
    for name in names().filter(|name| name.starts_with("language/")) {
        let study = LanguageStudy::new(&load(&StudyName(name.to_owned())).unwrap()).unwrap();
        assert_eq!(format!("{}/{}", study.about().suite, study.about().name), name);
        assert!(!study.trials().is_empty());
        found += 1;
    }
    assert_eq!(found, 3);
}

#[test]
fn values_that_cannot_be_are_refused_by_name() {
    if !has_methods() {
        return;
    }
    for (name, edit, named) in [
        ("quick", "suite=vision", "language"),
        ("quick", "cells=[[\"standard\",\"magic\"]]", "head"),
        ("quick", "data.source.personas=1", "data.source.personas"),
        ("quick", "data.source.turns=1000000", "million"),
        ("quick", "data.test_tasks=7", "data.test_tasks"),
        ("quick", "data.training_candidates=11", "data.training_candidates"),
        ("quick", "data.max_length=5", "data.max_length"),
        ("quick", "data.folds.count=1", "data.folds.count"),
        ("quick", "data.validation_dialogues=0", "retraining.validate"),
        ("quick", "retraining.validate=never", "retraining.keep"),
        ("quick", "retraining.epochs=0", "retraining.epochs"),
        ("quick", "model.heads=5", "heads"),
        ("quick", "fine_tuning.methods.lora.adapter.targets=nowhere", "nowhere"),
        ("quick", "retraining.methods.reptile.algorithm.inner_steps=0", "inner_steps"),
        ("convai2", "model.folder=../elsewhere", "model.folder"),
        ("convai2", "model.folder=/tmp", "model.folder"),
        ("convai2", "data.source.grouping=topic", "persona-map"),
    ] {
        let mut table = load(&StudyName(format!("language/{name}"))).unwrap();
        set(&mut table, edit).unwrap();
        let error =
            LanguageStudy::new(&table).err().unwrap_or_else(|| panic!("{edit}")).to_string();
        assert!(error.contains(named), "{edit}: {error}");
    }
}

#[test]
fn every_leaf_refuses_or_obeys() {
    if !has_methods() {
        return;
    }
    for name in ["language/quick", "language/convai2.small"] {
        recut::every_leaf_refuses_or_obeys(name, LanguageStudy::new);
    }
}

#[test]
fn results_do_not_depend_on_threads_shards_or_interruptions() {
    if !has_methods() {
        return;
    }
    let cells = "cells=[[\"standard\",\"lora\"],[\"lora-ml\",\"head\"],[\"reptile\",\"lora\"],\
                 [\"untrained\",\"lora\"]]";
    recut::independent_of_how_it_is_cut(&small(&[cells]), &small(&[cells, "seeds=1..2"]));
}

/// Everything of a fine-tuned model but the time it took.
fn figures(tuned: &Tuned) -> String {
    let Tuned { last, best, best_validation, history, steps, own, .. } = tuned;
    format!("{last:?} {best:?} {best_validation:?} {history:?} {steps} {own:?}")
}

#[test]
fn a_trial_that_was_killed_goes_on_and_ends_at_the_same_figures() {
    if !has_methods() {
        return;
    }
    let study = small(&[]);
    let (config, names) = (&study.resolved.config, ["standard", "lora"]);
    let folder = tempfile::tempdir().unwrap();
    let kept = scene(config, Some(folder.path()));
    let base = kept.retrain("standard").unwrap();
    let free = scene(config, None);
    let same = free.retrain("standard").unwrap();
    assert!(base.parameters.same_bits(&same.parameters).unwrap());
    // Made once: the second process has nothing to do.
    let again = scene(config, Some(folder.path())).retrain("standard").unwrap();
    assert_eq!((base.spent.0, again.spent.0), (base.steps, 0));
    assert!(base.parameters.same_bits(&again.parameters).unwrap());

    let expected = free.fine_tune(&same, names).unwrap();
    let whole = kept.fine_tune(&base, names).unwrap();
    assert_eq!(figures(&whole), figures(&expected));
    let progress = std::fs::read_dir(folder.path().join("checkpoints")).unwrap();
    let mut paths = progress.map(|entry| entry.unwrap().path());
    let is_progress = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "json");
    let path = paths.find(is_progress).unwrap();
    let mut value: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    value["folds"].as_array_mut().unwrap().truncate(1);
    std::fs::write(&path, value.to_string()).unwrap();
    let resumed = scene(config, Some(folder.path())).fine_tune(&base, names).unwrap();
    assert_eq!(figures(&resumed), figures(&expected));
    assert!(resumed.spent.0 < expected.spent.0 && resumed.spent.0 > 0);
    // Control: what stands in the file is used, and that of other data is not.
    value["folds"][0]["last"]["loss"] = 100.0.into();
    std::fs::write(&path, value.to_string()).unwrap();
    assert_ne!(figures(&kept.fine_tune(&base, names).unwrap()), figures(&expected));
    value["data"] = "other".into();
    std::fs::write(&path, value.to_string()).unwrap();
    assert_eq!(figures(&kept.fine_tune(&base, names).unwrap()), figures(&expected));
    kept.forget(names);
    assert!(!path.exists());
}

#[test]
fn a_run_folder_of_other_sequences_is_refused() {
    if !has_methods() {
        return;
    }
    let study = small(&[]);
    let config = &study.resolved.config;
    let folder = tempfile::tempdir().unwrap();
    scene(config, Some(folder.path()));
    let entry = std::fs::read_dir(folder.path().join("tokens")).unwrap().next().unwrap().unwrap();
    let text = std::fs::read_to_string(entry.path()).unwrap();
    // Two stages of two tasks, four dialogues each, two turns each, below the header.
    assert_eq!(text.lines().count(), 1 + 2 * 2 * 4 * 2);
    assert!(text.lines().nth(1).unwrap().starts_with("retraining,0,0,0,"), "{text}");
    // The same ones again are welcome.
    scene(config, Some(folder.path()));
    std::fs::write(entry.path(), text.replacen("retraining,0,0,0,", "retraining,0,0,0,1", 1))
        .unwrap();
    let site = Site { folder: Some(folder.path()), data: None };
    let error = Scene::new(config, 0, &site, &Default::default()).err().unwrap();
    assert!(matches!(error, TrialError::OtherData { .. }), "{error}");
}

#[test]
fn every_dialogue_is_tested_once_and_never_trained_on_before() {
    if !has_methods() {
        return;
    }
    let study = small(&["data.source.dialogues=5", "fine_tuning.validation_dialogues=0"]);
    let scene = scene(&study.resolved.config, None);
    for (task, size) in scene.test_sizes().into_iter().enumerate() {
        let folds = scene.fold_dialogues(task);
        assert_eq!(folds.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2]);
        let mut all = folds.concat();
        all.sort_unstable();
        assert_eq!(all, (0..size).collect::<Vec<_>>());
    }
    let base = scene.retrain("untrained").unwrap();
    assert_eq!((base.steps, base.trained_parameters), (0, 0));
    let tuned = scene.fine_tune(&base, ["untrained", "head"]).unwrap();
    // Two tasks, five dialogues each, two turns each.
    assert_eq!(tuned.own[0].split(' ').count(), 10);
    assert!(tuned.own[0].split(' ').all(|word| word.ends_with("/2")), "{:?}", tuned.own);
    assert_eq!((tuned.last.examples, tuned.best.is_none()), (20, true));
}

/// Vectors that are computed once serve as well as the whole encoder.
#[test]
fn a_head_alone_is_the_encoders_head() {
    if !has_methods() {
        return;
    }
    let study = small(&[]);
    let scene = scene(&study.resolved.config, None);
    let base = scene.retrain("standard").unwrap().parameters;
    let [whole, alone] = scene.losses_with_and_without_features(&base);
    // Sums of single-precision numbers of order 1 in another order.
    assert!((whole - alone).abs() < 1e-5, "{whole} {alone}");
    // Control: another base has another loss.
    let other = scene.retrain("untrained").unwrap().parameters;
    assert!((scene.losses_with_and_without_features(&other)[0] - whole).abs() > 1e-3);
}

#[test]
fn fewer_candidates_are_drawn_in_every_epoch_and_the_true_one_is_last() {
    if !has_methods() {
        return;
    }
    let study = small(&["data.source.candidates=8"]);
    let examples = scene(&study.resolved.config, None).first_examples(3);
    let epoch = |number: u64| peftml_linalg::Seed::root(1).child(number);
    let chosen = |seed: Option<&peftml_linalg::Seed>| -> Vec<Vec<usize>> {
        (0..examples.len()).map(|number| examples.chosen(number, seed)).collect()
    };
    let (one, two) = (chosen(Some(&epoch(0))), chosen(Some(&epoch(1))));
    assert_ne!(one, two);
    assert_eq!(one, chosen(Some(&epoch(0))));
    // The synthetic reply is the last of its turn, too.
    assert!(one.iter().all(|chosen| chosen.len() == 3 && chosen[2] == 7));
    assert!(chosen(None).iter().all(|chosen| *chosen == [0, 1, 7]));
}

#[test]
fn too_few_dialogues_and_missing_data_are_said() {
    if !has_methods() {
        return;
    }
    let refused = |edits: &[&str]| {
        let study = small(edits);
        let site = Site::default();
        let error = Scene::new(&study.resolved.config, 0, &site, &Default::default()).err();
        error.unwrap().to_string()
    };
    let text = refused(&["data.validation_dialogues=4"]);
    assert!(text.contains("4 dialogues, 5 are needed"), "{text}");
    let text = refused(&["fine_tuning.validation_dialogues=3"]);
    assert!(text.contains("4 dialogues, 6 are needed"), "{text}");
    let study = LanguageStudy::new(&recut::table("language/convai2.small", &[])).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let site = Site { folder: None, data: Some(empty.path()) };
    let reason = study.check_site(&site).unwrap_err();
    assert!(reason.contains("language/quick") && reason.contains("MiniLM"), "{reason}");
    assert!(small(&[]).check_site(&Site::default()).is_ok());
}

/// Where the real dialogues are at hand.
#[test]
fn the_real_dialogues_are_cut_as_asked_for() {
    if !has_methods() {
        return;
    }
    let Some(data) = std::env::var_os("PEFTML_DATA") else { return };
    let full = "data.test_tasks=5";
    let study = LanguageStudy::new(&recut::table("language/convai2.small", &[full])).unwrap();
    let site = Site { folder: None, data: Some(Path::new(&data)) };
    if study.check_site(&site).is_err() {
        return;
    }
    let scene = Scene::new(&study.resolved.config, 0, &site, &study.kept).unwrap();
    // 687 turns of 88 dialogues, cluster 0 among them.
    assert_eq!(scene.test_sizes(), [24, 18, 16, 16, 14]);
    assert_eq!(scene.test_turns(), 687);
    assert_eq!(study.kept.lock().unwrap().len(), 1, "read once");
}

#[test]
fn answers_say_chance_and_cluster_by_dialogue() {
    if !has_methods() {
        return;
    }
    let study = small(&["cells=[[\"standard\",\"lora\"],[\"reptile\",\"lora\"]]"]);
    let headers = study.headers();
    let mut text = headers.trials.clone() + "\n";
    let dialogues = |gain: usize| -> String {
        (0..8).map(|d| format!("{}:{d}:{}/5 ", d % 2, 1 + gain)).collect()
    };
    for (name, gain) in [("standard", 0), ("reptile", 2)] {
        let accuracy = 0.2 * (1 + gain) as f64;
        let rest = format!(",,,,,10,,,,,,,,{},ok", dialogues(gain).trim_end());
        text += &format!("language,quick,0,{name},lora,{accuracy},{accuracy}{rest}\n");
    }
    let curves = headers.curves + "\n";
    let tables = Tables {
        trials: crate::runs::csv::Table::parse(&text).unwrap(),
        curves: crate::runs::csv::Table::parse(&curves).unwrap(),
    };
    let summary = study.summary(&tables);
    assert!(summary.answer.starts_with("Synthetic personas"), "{}", summary.answer);
    assert!(summary.answer.contains("Chance is 0.250"), "{}", summary.answer);
    let test = &summary.figures["test_by_dialogue"]["reptile > lora"];
    assert_eq!((test["dialogues"].as_u64(), test["turns"].as_u64()), (Some(8), Some(40)));
    // All eight differences are positive: two of the 256 patterns are as extreme.
    assert_eq!(test["p_value"], 2.0 / 256.0);
    assert_eq!(test["difference"], 0.4);
    assert_eq!(summary.figures["accuracy_by_task"]["standard > lora"][1]["mean"], 0.2);
    let figure = &study.figures(&tables)[0];
    let chance = figure.series.last().unwrap();
    assert_eq!((chance.label.as_str(), chance.y[0]), ("chance", 0.25));
    assert_eq!(study.resolved.config.chance(), Some(0.25));
}
