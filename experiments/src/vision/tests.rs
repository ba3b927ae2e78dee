use super::*;
use crate::config::{StudyName, load, names, set};
use crate::recut;
use crate::runs::{Outcome, Site, Study, Tables, Trial};
use crate::vision::config::Flaws;
use crate::vision::scene::{Pictures, Scene};
use peftml_peft::Adapter;
use std::path::Path;

/// A workspace without a method of the studies has nothing to run.
fn has_methods() -> bool {
    ["lora", "last-layer", "dora", "bitfit", "full"]
        .iter()
        .all(|name| peftml_peft::methods::entry(name).is_ok())
}

/// A cut of the quick study that takes seconds.
fn small(edits: &[&str]) -> VisionStudy {
    let fixed = ["seeds=0..2", "retraining.steps=10", "retraining.validate_every=5"];
    let cheap = ["fine_tuning.steps=4", "fine_tuning.validate_every=2", "network.width=8"];
    let data = ["data.training_images=24", "data.validation_images=8", "data.test_images=16"];
    let batches = ["retraining.batch=8", "fine_tuning.batch=8"];
    let edits = [&fixed[..], &cheap, &data, &batches, edits].concat();
    VisionStudy::new(&recut::table("vision/quick", &edits)).unwrap()
}

#[test]
fn every_configuration_of_the_suite_is_a_study() {
    if !has_methods() {
        return;
    }
    let mut found = 0;
    for name in names().filter(|name| name.starts_with("vision/")) {
        let study = VisionStudy::new(&load(&StudyName(name.to_owned())).unwrap()).unwrap();
        assert_eq!(format!("{}/{}", study.about().suite, study.about().name), name);
        assert!(!study.trials().is_empty());
        found += 1;
    }
    assert_eq!(found, 7);
}

#[test]
fn presets_hold_the_numbers_of_the_experiments() {
    if !has_methods() {
        return;
    }
    let config = |name: &str| {
        let table = load(&StudyName(name.to_owned())).unwrap();
        VisionStudy::new(&table).unwrap().resolved.config
    };
    for name in ["vision/cifar10", "vision/cifar10.authors", "vision/cifar10.short"] {
        let c = config(name);
        assert_eq!(c.data.retraining_tasks, [[0, 1], [2, 3], [4, 5], [6, 7]]);
        assert_eq!((c.data.test_task, c.data.test_images), ([8, 9], 2000));
        assert_eq!(c.network().unwrap().sites().count(), 325_186);
        assert_eq!((c.retraining.batch, c.fine_tuning.batch), (256, 256));
        let lora =
            Adapter::new(&c.fine_tuning.methods["lora"].adapter, c.network().unwrap().sites());
        assert_eq!(lora.unwrap().count(), 3250);
    }
    let authors = config("vision/cifar10.authors");
    let Flaws { drop_biases, keep_first_adapter, augment_once, batch_per_task, select_on_test } =
        authors.flaws;
    assert!(drop_biases && keep_first_adapter && augment_once && batch_per_task && select_on_test);
    // 40 steps an epoch against 157, each of a batch of every task.
    let steps = |name: &str| {
        let training = authors.retraining_training(&authors.retraining.methods[name]);
        (training.steps, training.batch)
    };
    assert_eq!((steps("standard"), steps("lora-ml")), ((15_700, 256), (4000, 1024)));
    for name in ["vision/cifar10", "vision/cifar10.short", "vision/quick"] {
        let c = config(name);
        assert_eq!(c.flaws, Flaws::default());
        // Equal budgets: every round fits, and validations fall on the same steps.
        for method in c.retraining.methods.values() {
            let training = c.retraining_training(method);
            assert_eq!(training.steps % training.round_steps(), 0);
            assert_eq!(training.validate_every % training.round_steps(), 0);
            assert_eq!((training.steps, training.batch), (c.retraining.steps, c.retraining.batch));
        }
    }
    let short = VisionStudy::new(&recut::table("vision/cifar10.short", &[])).unwrap();
    assert_eq!(short.trials().len(), 15 * 6);
}

#[test]
fn values_that_cannot_be_are_refused_by_name() {
    if !has_methods() {
        return;
    }
    let rank = "retraining.methods.lora-ml.algorithm.adapter.rank=-1";
    for (edit, named) in [
        ("suite=linear", "vision"),
        ("study=../elsewhere", "study"),
        ("seeds=5..2", "seeds"),
        ("cells=[]", "at least one pair"),
        ("cells=[[\"standard\",\"magic\"]]", "last-layer"),
        ("cells=[[\"magic\",\"lora\"]]", "reptile"),
        ("cells=[[\"standard\",\"lora\"],[\"standard\",\"lora\"]]", "twice"),
        ("baseline=magic", "baseline"),
        ("data.test_task=[8,10]", "data.test_task"),
        ("data.test_task=[2,4]", "one of them odd"),
        ("data.training_images=3", "even"),
        ("data.source.side=15", "network.image_side"),
        ("network.patch_side=5", "patch_side"),
        ("network.classes=3", "network.classes"),
        ("network.dropout=1.5", "dropout"),
        ("retraining.batch=3", "batch"),
        ("retraining.steps=0", "retraining.steps"),
        ("retraining.step_factor=-1", "retraining.step_factor"),
        ("retraining.optimiser.step_size=-0.1", "step_size"),
        ("fine_tuning.optimiser.weight_decay=-1", "weight_decay"),
        ("fine_tuning.methods.lora.adapter.method=lore", "lora"),
        (rank, "rank"),
    ] {
        let mut table = load(&StudyName("vision/quick".into())).unwrap();
        set(&mut table, edit).unwrap();
        let error = VisionStudy::new(&table).err().unwrap_or_else(|| panic!("{edit}")).to_string();
        assert!(error.contains(named), "{edit}: {error}");
    }
}

#[test]
fn every_leaf_refuses_or_obeys() {
    if !has_methods() {
        return;
    }
    for name in ["vision/quick", "vision/cifar10.authors"] {
        recut::every_leaf_refuses_or_obeys(name, VisionStudy::new);
    }
}

const FOUR: &str = "cells=[[\"standard\",\"lora\"],[\"standard\",\"full\"],[\"lora-ml\",\"lora\"],\
                    [\"reptile\",\"bitfit\"]]";

#[test]
fn results_do_not_depend_on_threads_shards_or_interruptions() {
    if !has_methods() {
        return;
    }
    let (study, other) = (small(&[FOUR]), small(&[FOUR, "seeds=1..3"]));
    recut::independent_of_how_it_is_cut(&study, &other);
}

fn outcome(study: &VisionStudy, at: usize) -> Outcome {
    let trials = study.trials();
    let mut found = None;
    study.run(&[&trials[at]], &mut |_, outcome| found = Some(outcome.unwrap()));
    found.unwrap()
}

#[test]
fn every_retraining_method_feeds_every_fine_tuning_method() {
    if !has_methods() {
        return;
    }
    let config = small(&[]).resolved.config;
    let all: Vec<String> = config
        .retraining
        .methods
        .keys()
        .flat_map(|first| {
            config
                .fine_tuning
                .methods
                .keys()
                .map(move |second| format!("[\"{first}\",\"{second}\"]"))
        })
        .collect();
    let cells = format!("cells=[{}]", all.join(","));
    let study = small(&[&cells, "seeds=0..1", "retraining.steps=5", "fine_tuning.steps=2"]);
    let trials = study.trials();
    assert_eq!(trials.len(), 7 * 5);
    for group in 0..7 {
        let members: Vec<&Trial> = trials.iter().filter(|trial| trial.group == group).collect();
        study.run(&members, &mut |trial, outcome| {
            let outcome = outcome.unwrap();
            assert_eq!(outcome.refused, None, "{}", trial.id);
            assert!(outcome.trials[0].ends_with(",ok"));
        });
    }
}

#[test]
fn every_flaw_changes_what_it_is_about_and_nothing_else() {
    if !has_methods() {
        return;
    }
    let cells = "cells=[[\"standard\",\"lora\"],[\"lora-ml\",\"lora\"]]";
    let rows = |edits: &[&str]| {
        let study = small(&[&[cells, "seeds=0..1"], edits].concat());
        [0, 1].map(|at| {
            let Outcome { trials, curves, .. } = outcome(&study, at);
            (trials, curves)
        })
    };
    let fair = rows(&[]);
    assert_eq!(fair, rows(&[]));
    for (flaw, changes) in [
        ("drop_biases", [true, true]),
        ("keep_first_adapter", [false, true]),
        ("augment_once", [true, true]),
        ("batch_per_task", [false, true]),
        ("select_on_test", [true, true]),
    ] {
        let found = rows(&[&format!("flaws.{flaw}=true")]);
        let differ = [0, 1].map(|at| found[at] != fair[at]);
        assert_eq!(differ, changes, "{flaw}");
    }
}

#[test]
fn a_loss_that_is_no_number_leaves_a_row_without_numbers_and_its_place() {
    if !has_methods() {
        return;
    }
    let diverging = ["retraining.optimiser.step_size=1e30", "cells=[[\"standard\",\"lora\"]]"];
    let outcome = outcome(&small(&diverging), 0);
    assert!(outcome.trials[0].ends_with("not finite"), "{:?}", outcome.trials);
    let reason = outcome.refused.unwrap();
    assert!(reason.contains("standard") && reason.contains("step"), "{reason}");
}

#[test]
fn a_seeds_split_is_of_the_sizes_asked_for_and_its_start_is_its_own() {
    if !has_methods() {
        return;
    }
    let study = small(&[]);
    let config = &study.resolved.config;
    let scene = |seed: u64| {
        let pictures = Pictures::synthetic(&config.data, seed).unwrap();
        Scene::new(config, seed, &pictures, &Site::default()).unwrap()
    };
    let (one, again, other) = (scene(1), scene(1), scene(2));
    assert_eq!(one.sizes(), [[24, 8]; 5]);
    assert_eq!(one.test_images(), 16);
    assert!(one.initial().same_bits(again.initial()).unwrap());
    assert!(!one.initial().same_bits(other.initial()).unwrap());
}

/// Where the real images are at hand.
#[test]
fn the_real_images_are_cut_as_asked_for() {
    if !has_methods() {
        return;
    }
    let Some(data) = std::env::var_os("PEFTML_DATA") else { return };
    let study = VisionStudy::new(&recut::table("vision/cifar10.short", &[])).unwrap();
    let site = Site { folder: None, data: Some(Path::new(&data)) };
    if study.check_site(&site).is_err() {
        return;
    }
    let config = &study.resolved.config;
    let pictures = Pictures::of(config, 0, site.data, &study.kept).unwrap();
    let scene = Scene::new(config, 0, &pictures, &site).unwrap();
    assert_eq!(scene.sizes(), [[2250, 250]; 5]);
    assert_eq!(scene.test_images(), 2000);
}

#[test]
fn without_images_the_study_says_how_to_get_them() {
    if !has_methods() {
        return;
    }
    let study = VisionStudy::new(&recut::table("vision/cifar10.short", &[])).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let site = Site { folder: None, data: Some(empty.path()) };
    let reason = study.check_site(&site).unwrap_err();
    assert!(reason.contains("cargo xtask data cifar10"), "{reason}");
    assert!(small(&[]).check_site(&Site::default()).is_ok());
}

#[test]
fn answers_say_what_images_and_pair_by_seed() {
    if !has_methods() {
        return;
    }
    let study = small(&["cells=[[\"standard\",\"lora\"],[\"reptile\",\"lora\"]]", "seeds=0..6"]);
    let headers = study.headers();
    let mut text = headers.trials.clone() + "\n";
    for seed in 0..6 {
        // Beside the baseline, a seed's own difficulty cancels.
        for (name, gain) in [("standard", 0.0), ("reptile", 0.02 + 0.001 * f64::from(seed))] {
            let accuracy = 0.5 + 0.05 * f64::from(seed) + gain;
            let rest = ",,,,,10,,,,,,,,ok";
            text += &format!("vision,quick,{seed},{name},lora,{accuracy},{accuracy}{rest}\n");
        }
    }
    let curves = headers.curves + "\n";
    let tables = Tables {
        trials: crate::runs::csv::Table::parse(&text).unwrap(),
        curves: crate::runs::csv::Table::parse(&curves).unwrap(),
    };
    let summary = study.summary(&tables);
    assert!(summary.answer.starts_with("Synthetic images, not photographs."), "{}", summary.answer);
    let test = &summary.figures["accuracy_sign_flip_test"]["reptile > lora"];
    assert_eq!(test["against"], "standard > lora");
    // All six differences are positive: two of the 64 patterns are as extreme.
    assert_eq!(test["p_value"], 2.0 / 64.0);
    assert!((test["difference"].as_f64().unwrap() - 0.0225).abs() < 1e-12);
    let names: Vec<String> = study.figures(&tables).into_iter().map(|figure| figure.name).collect();
    assert_eq!(names, ["accuracy", "paired"]);
}
