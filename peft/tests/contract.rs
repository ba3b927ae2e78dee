//! The laws that every method of the registry keeps, each with a control that breaks it.
//!
//! Nothing here names a method: registering one is testing it.

mod common;

use common::{
    batch, cases, double, encoder, fresh, largest_difference, loss, moved, output, tasks, weights,
};
use peftml_linalg::Seed;
use peftml_peft::methods::Note;
use peftml_peft::optimiser::{AdamConfig, OptimiserConfig, ScheduleConfig};
use peftml_peft::parameters::{Gradients, Init};
use peftml_peft::train::{Algorithm, Rounds, Training, TrainingConfig};
use peftml_peft::{
    Adapter, AdapterConfig, Batch, Network, Parameters, Pass, PeftError, Place, Precision, device,
    store,
};

/// Outputs are of order 1 and come out of some thousand additions in double precision: differences of
/// order changes stay far below this, and any real one far above.
const ROUNDING: f64 = 1e-11;

#[test]
fn it_starts_at_the_base_model_or_says_that_it_does_not() {
    let (network, place) = (encoder(0.0), double());
    let (base, batch) = (weights(&network, &place), batch(&place));
    let plain = output(&network, &base, None, &batch);
    for (name, config) in cases() {
        let (adapter, theta) = fresh(&network, &config, &base, 1, &place);
        let distance = |theta: &Parameters| {
            let adapted = output(&network, &base, Some((&adapter, theta)), &batch);
            largest_difference(&adapted, &plain)
        };
        let start = distance(&theta);
        assert_eq!(start < ROUNDING, adapter.starts_at_base(), "{name}: {start}");
        // Control: parameters elsewhere are seen.
        let control = distance(&moved(&theta, "elsewhere", 0.1));
        assert!(control > 1e-6, "{name}: {control}");
    }
}

/// Loss, and its gradients in the adapter and in the base.
fn slope(
    network: &dyn Network,
    base: &Parameters,
    adapter: &Adapter,
    theta: &Parameters,
    batch: &Batch,
) -> (f64, Gradients, Gradients) {
    let (base, theta) = (base.tracked(), theta.tracked());
    let pass = Pass::new(&base).with_adapter(adapter, &theta);
    let loss = batch.loss(network.forward(&pass, &batch.input).unwrap()).unwrap();
    let value = device::scalar(&loss).unwrap();
    let mut backward = loss.backward();
    (value, theta.gradients(&mut backward), base.gradients(&mut backward))
}

/// `parameters + factor gradients`.
fn along(parameters: &Parameters, gradients: &Gradients, factor: f64) -> Parameters {
    let mut moved = parameters.clone();
    for (name, gradient) in gradients.iter() {
        let value = moved.get_mut(name).unwrap();
        *value = value.clone() + gradient.clone().mul_scalar(factor);
    }
    moved
}

fn squared_norm(gradients: &Gradients) -> f64 {
    let squares = |g: &_| device::values(g).unwrap().iter().map(|x| x * x).sum::<f64>();
    gradients.iter().map(|(_, g)| squares(g)).sum()
}

#[test]
fn a_step_from_its_start_lowers_the_loss() {
    let (network, place) = (encoder(0.0), double());
    let (base, batch) = (weights(&network, &place), batch(&place));
    for (name, config) in cases() {
        let (adapter, theta) = fresh(&network, &config, &base, 1, &place);
        let (start, gradient, _) = slope(&network, &base, &adapter, &theta, &batch);
        let norm = squared_norm(&gradient).sqrt();
        assert!(norm > 1e-8, "{name}: training cannot start, the gradient is {norm}");
        // So short that curvature does not matter, so long that rounding (1e-16) does not.
        let step = 1e-5 / norm;
        let at = |factor: f64| {
            let theta = along(&theta, &gradient, factor * step);
            loss(&network, &base, Some((&adapter, &theta)), &batch) - start
        };
        assert!(at(-1.0) < 0.0, "{name}: {}", at(-1.0));
        // Control: the other way it rises.
        assert!(at(1.0) > 0.0, "{name}: {}", at(1.0));
    }
}

#[test]
fn gradients_are_finite_differences() {
    let (network, place) = (encoder(0.0), double());
    let (base, batch) = (weights(&network, &place), batch(&place));
    let mut exact = 0;
    for (name, config) in cases() {
        let (adapter, start) = fresh(&network, &config, &base, 1, &place);
        // Away from the start, where factors of zero would hide their partners' gradients.
        let theta = moved(&start, "point", 0.1);
        let (_, in_adapter, in_base) = slope(&network, &base, &adapter, &theta, &batch);
        let value = |base: &Parameters, theta: &Parameters| {
            loss(&network, base, Some((&adapter, theta)), &batch)
        };
        // Central differences of fourth order.
        let h = 1e-3;
        let difference = |f: &dyn Fn(f64) -> f64, h: f64| (f(h) - f(-h)) / (2.0 * h);
        let central =
            |f: &dyn Fn(f64) -> f64| (4.0 * difference(f, h) - difference(f, 2.0 * h)) / 3.0;
        let along_theta = central(&|t| value(&base, &ahead(&theta, "direction", t)));
        let along_base = central(&|t| value(&ahead(&base, "direction", t), &theta));
        let expected = [(&theta, &in_adapter, along_theta), (&base, &in_base, along_base)];
        for (parameters, gradients, difference) in expected {
            let slope = directional(parameters, gradients, "direction");
            // 4 h^4 / 30 times fifth derivatives along directions of length 1, below 1e4 in a network
            // whose slopes are of order 1, and some roundings of 1e-16 / h: 1e-9 holds both.
            let agrees = (slope - difference).abs() < 1e-9;
            if adapter.exact_gradient() {
                assert!(agrees, "{name}: {slope} {difference}");
            }
            if squared_norm(gradients) == 0.0 {
                // A base that is replaced as a whole.
                assert_eq!(difference, 0.0, "{name}");
                continue;
            }
            // Control: another direction has another slope.
            let other = directional(parameters, gradients, "another direction");
            assert!((other - difference).abs() > 1e-6, "{name}: {other} {difference}");
        }
        if adapter.exact_gradient() {
            exact += 1;
        } else {
            // What says that it is not exact is not.
            let slope = directional(&theta, &in_adapter, "direction");
            assert!((slope - along_theta).abs() > 1e-6, "{name}");
        }
    }
    assert!(exact > cases().len() / 2, "most gradients are compared");
}

/// `t` along the direction `name`, whose length is about 1.
fn ahead(parameters: &Parameters, name: &str, t: f64) -> Parameters {
    moved(parameters, name, t / (parameters.count() as f64).sqrt())
}

/// The slope along the direction that [`ahead`] moves in.
fn directional(parameters: &Parameters, gradients: &Gradients, direction: &str) -> f64 {
    let ahead = ahead(parameters, direction, 1.0);
    let part = |(name, gradient): (&str, &_)| -> f64 {
        let (to, from) = (ahead.values(name).unwrap(), parameters.values(name).unwrap());
        let gradient = device::values(gradient).unwrap();
        gradient.iter().zip(to.iter().zip(&from)).map(|(g, (a, b))| g * (a - b)).sum()
    };
    gradients.iter().map(part).sum()
}

#[test]
fn merged_weights_give_the_forward_passs_outputs() {
    let (network, place) = (encoder(0.0), double());
    let (base, batch) = (weights(&network, &place), batch(&place));
    let mut merged = 0;
    for (name, config) in cases() {
        let (adapter, start) = fresh(&network, &config, &base, 1, &place);
        let theta = moved(&start, "point", 0.1);
        let adapted = output(&network, &base, Some((&adapter, &theta)), &batch);
        if !adapter.is_mergeable() {
            let error = adapter.merged(&base, &theta).err();
            assert!(matches!(error, Some(PeftError::NotMergeable { .. })), "{name}");
            continue;
        }
        merged += 1;
        let whole = |theta| output(&network, &adapter.merged(&base, theta).unwrap(), None, &batch);
        let distance = largest_difference(&whole(&theta), &adapted);
        assert!(distance < ROUNDING, "{name}: {distance}");
        // Control: other parameters make other weights.
        let control = largest_difference(&whole(&moved(&theta, "other", 0.1)), &adapted);
        assert!(control > 1e-6, "{name}: {control}");
    }
    assert!(merged > 0);
}

#[test]
fn the_number_of_parameters_is_the_documented_formula() {
    let (network, place) = (encoder(0.0), double());
    let base = weights(&network, &place);
    let narrow = peftml_peft::models::Mlp::new(peftml_peft::models::MlpConfig {
        inputs: 12,
        hidden: vec![12],
        classes: 3,
        dropout: 0.0,
    });
    let narrow = narrow.unwrap();
    for (name, config) in cases() {
        let (adapter, theta) = fresh(&network, &config, &base, 1, &place);
        assert_eq!(adapter.count(), adapter.expected_count(), "{name}");
        assert_eq!(theta.count(), adapter.expected_count(), "{name}");
        // Control: the formula depends on the network.
        if let Ok(other) = Adapter::new(&config, narrow.sites()) {
            assert_eq!(other.count(), other.expected_count(), "{name}");
            assert_ne!(other.expected_count(), adapter.expected_count(), "{name}");
        }
    }
}

#[test]
fn saving_and_loading_is_the_identity() {
    for precision in [Precision::F64, Precision::F32] {
        let (network, place) = (encoder(0.0), Place::cpu(precision));
        let base = weights(&network, &place);
        let folder = tempfile::tempdir().unwrap();
        for (number, (name, mut config)) in cases().into_iter().enumerate() {
            // A head beside the method, where the method leaves it alone.
            if number.is_multiple_of(2) {
                config.modules_to_save = vec!["classifier".into()];
            }
            let (adapter, theta) = fresh(&network, &config, &base, 1, &place);
            let path = folder.path().join(number.to_string());
            store::save_adapter(&path, &adapter, &theta, precision).unwrap();
            let (loaded, read) = store::load_adapter(&path, network.sites(), &place).unwrap();
            assert_eq!(loaded.config(), &config, "{name}");
            assert!(read.same_bits(&theta).unwrap(), "{name}");
            assert!(loaded.constants().same_bits(adapter.constants()).unwrap(), "{name}");
            let shapes = |p: &Parameters| -> Vec<Vec<usize>> {
                p.iter().map(|(_, parameter)| parameter.shape.clone()).collect()
            };
            assert_eq!(shapes(&read), shapes(&theta), "{name}");
            // Control: one changed bit is seen.
            let other = theta.mapped(|x| x.clone().mul_scalar(1.0 + precision.epsilon()));
            let zero =
                theta.iter().all(|(n, _)| theta.values(n).unwrap().iter().all(|x| *x == 0.0));
            assert!(zero || !read.same_bits(&other).unwrap(), "{name}");
        }
    }
}

#[test]
fn a_start_is_fixed_by_its_seed() {
    let (network, place) = (encoder(0.0), double());
    let base = weights(&network, &place);
    for (name, config) in cases() {
        let of_seed = |seed| {
            let (adapter, theta) = fresh(&network, &config, &base, seed, &place);
            let drawn = |init: &Init| matches!(init, Init::Normal { .. } | Init::Uniform { .. });
            let copies = theta.iter().all(|(name, _)| base.get(name).is_some());
            let random = adapter.specs().iter().any(|(_, spec)| drawn(&spec.init))
                && !(copies && adapter.starts_at_base());
            (adapter.constants().clone(), theta, random)
        };
        let same = |a: &(Parameters, Parameters, bool), b: &(Parameters, Parameters, bool)| {
            a.0.same_bits(&b.0).unwrap() && a.1.same_bits(&b.1).unwrap()
        };
        let (first, again, other) = (of_seed(1), of_seed(1), of_seed(2));
        assert!(same(&first, &again), "{name}");
        // Control: where anything is drawn, another seed draws something else.
        assert_eq!(same(&first, &other), !first.2, "{name}");
    }
}

fn training_config(algorithm: Algorithm, steps: u64) -> TrainingConfig {
    TrainingConfig {
        algorithm,
        steps,
        batch: 8,
        optimiser: OptimiserConfig::Adam(AdamConfig::new(1e-2, 1e-3)),
        schedule: ScheduleConfig::Cosine,
        validate_every: 2,
    }
}

fn peft_ml(adapter: AdapterConfig) -> Algorithm {
    Algorithm::PeftMl { adapter, rounds: Rounds::Joint, adapter_optimiser: None }
}

#[test]
fn threads_do_not_change_a_bit() {
    let (network, place) = (encoder(0.1), Place::cpu(Precision::F32));
    let (base, tasks) = (weights(&network, &place), tasks(&["a", "b"]));
    for (name, config) in cases() {
        let mut ends = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let algorithm = Algorithm::FineTuning { adapter: config.clone() };
                let config = training_config(algorithm, 2);
                let seed = Seed::root(4);
                let training =
                    Training::new(&network, &tasks, config, &base, &seed, &place).unwrap();
                let mut state = training.start(&base).unwrap();
                training.run(&mut state, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
                state.adapters.remove(0)
            })
        });
        let [one, two, five] = &mut ends;
        assert!(one.same_bits(two).unwrap() && one.same_bits(five).unwrap(), "{name}");
    }
}

#[test]
fn what_is_frozen_keeps_its_bits() {
    let (network, place) = (encoder(0.1), double());
    let (base, tasks) = (weights(&network, &place), tasks(&["a", "b"]));
    for (name, config) in cases() {
        let end = |algorithm| {
            let config = training_config(algorithm, 3);
            let training =
                Training::new(&network, &tasks, config, &base, &Seed::root(4), &place).unwrap();
            let mut state = training.start(&base).unwrap();
            let start = state.adapters.clone();
            training.run(&mut state, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
            for (before, after) in start.iter().zip(&state.adapters) {
                assert!(!before.same_bits(after).unwrap(), "{name}: nothing was trained");
            }
            state.base
        };
        let frozen = end(Algorithm::FineTuning { adapter: config.clone() });
        assert!(frozen.same_bits(&base).unwrap(), "{name}");
        // Control: in retraining the base moves, where anything of it is in use.
        let adapter = Adapter::new(&config, network.sites()).unwrap();
        match adapter.check_shares(network.sites()) {
            Ok(()) => assert!(!end(peft_ml(config)).same_bits(&base).unwrap(), "{name}"),
            Err(error) => assert!(matches!(error, PeftError::NothingShared { .. }), "{name}"),
        }
    }
}

#[test]
fn tasks_adapters_do_not_leak_into_each_other() {
    let (network, place) = (encoder(0.1), double());
    let base = weights(&network, &place);
    let (two, one, swapped) = (tasks(&["a", "b"]), tasks(&["a"]), tasks(&["b", "a"]));
    for (name, config) in cases() {
        let first_adapter = |tasks: &[peftml_peft::Task]| {
            let algorithm = Algorithm::FineTuning { adapter: config.clone() };
            let config = training_config(algorithm, 3);
            let training =
                Training::new(&network, tasks, config, &base, &Seed::root(4), &place).unwrap();
            let mut state = training.start(&base).unwrap();
            training.run(&mut state, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
            state.adapters.remove(0)
        };
        let together = first_adapter(&two);
        assert!(together.same_bits(&first_adapter(&one)).unwrap(), "{name}");
        // Control: another task's examples do change an adapter.
        assert!(!together.same_bits(&first_adapter(&swapped)).unwrap(), "{name}");
    }
}

#[test]
fn a_pattern_that_matches_nothing_is_answered_with_the_nearest_paths() {
    let network = encoder(0.0);
    let mut config = AdapterConfig::new(peftml_peft::methods::registry()[0].name);
    config.targets = Some(peftml_peft::Targets::Pattern("clasifier".into()));
    let error = Adapter::new(&config, network.sites()).err().unwrap();
    let PeftError::NoTarget { paths, .. } = &error else { panic!("{error}") };
    assert_eq!(paths[0], "classifier");
    assert_eq!(paths.len(), network.sites().linears().len());
    config.targets = Some(peftml_peft::Targets::Names(vec!["query".into(), "kye".into()]));
    let error = Adapter::new(&config, network.sites()).err().unwrap();
    assert!(matches!(&error, PeftError::NoTarget { pattern, .. } if pattern == "kye"), "{error}");
    config.targets = Some(peftml_peft::Targets::Names(vec!["query".into()]));
    assert!(Adapter::new(&config, network.sites()).is_ok());
}

#[test]
fn what_does_not_fit_a_layer_is_noted() {
    let network = encoder(0.0);
    let mut noted = 0;
    for entry in peftml_peft::methods::registry() {
        // Defaults are made for networks larger than this one.
        let Ok(adapter) = Adapter::new(&AdapterConfig::new(entry.name), network.sites()) else {
            continue;
        };
        for note in adapter.notes() {
            let (Note::RankCapped { layer, .. }
            | Note::BlockSize { layer, .. }
            | Note::Skipped { layer, .. }) = note;
            assert!(note.to_string().starts_with(layer.as_str()));
            noted += 1;
        }
    }
    assert!(noted > 0);
}

#[test]
fn nothing_but_its_file_and_its_line_knows_a_method() {
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![sources];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => files.push((path.clone(), std::fs::read_to_string(path).unwrap())),
            }
        }
    }
    for entry in peftml_peft::methods::registry() {
        let module = entry.name.replace('-', "_");
        let own = |path: &std::path::Path| path.ends_with(format!("methods/{module}.rs"));
        let quoted = format!("\"{}\"", entry.name);
        let naming: Vec<_> =
            files.iter().filter(|(_, text)| text.contains(&quoted)).map(|(path, _)| path).collect();
        // Its own file is the control: there the name must be found.
        assert!(naming.len() == 1 && own(naming[0]), "{}: {naming:?}", entry.name);
        let line = format!("    {module},\n");
        let registry = files.iter().find(|(path, _)| path.ends_with("methods/mod.rs")).unwrap();
        assert_eq!(registry.1.matches(&line).count(), 1, "{}", entry.name);
    }
}
