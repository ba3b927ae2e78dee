//! The algorithms against their definitions, computed by hand on a linear map, and the laws of training:
//! resumption, validation, refusal of losses that are no numbers.

mod common;

use common::{cases, double, encoder, small_weight_method, tasks, weights};
use peftml_linalg::Seed;
use peftml_peft::methods::entry;
use peftml_peft::models::Linear;
use peftml_peft::optimiser::{AdamConfig, OptimiserConfig, ScheduleConfig};
use peftml_peft::pretrained::Encoded;
use peftml_peft::train::{
    Algorithm, InnerState, Rounds, Training, TrainingConfig, TrainingState, evaluate_each,
};
use peftml_peft::{
    Adapter, AdapterConfig, Batch, Examples, Input, Network, Parameters, PeftError, Place,
    Precision, Sequences, Target, Task, VectorExamples,
};
use std::ops::ControlFlow;

const D: usize = 3;
const N: usize = 4;

/// Samples as rows: `x` N x D, `y` N x D.
#[derive(Clone)]
struct Samples {
    x: Vec<f64>,
    y: Vec<f64>,
}

fn samples(tasks: usize) -> Vec<Samples> {
    let draw = |t: usize, name: &str| -> Vec<f64> {
        let mut stream = Seed::root(21).child("samples").child(t).child(name).stream();
        (0..N * D).map(|_| stream.normal()).collect()
    };
    (0..tasks).map(|t| Samples { x: draw(t, "x"), y: draw(t, "y") }).collect()
}

fn linear_tasks(samples: &[Samples]) -> Vec<Task> {
    let examples =
        |s: &Samples| Box::new(VectorExamples::values(D, s.x.clone(), D, s.y.clone()).unwrap());
    let task = |(t, s): (usize, &Samples)| Task {
        name: format!("task {t}"),
        training: examples(s),
        validation: examples(s),
    };
    samples.iter().enumerate().map(task).collect()
}

/// `1/N X^T (X W - Y)`, the gradient of `1/(2N) ||X W - Y||^2`.
fn gradient(s: &Samples, w: &[f64]) -> Vec<f64> {
    let mut g = vec![0.0; D * D];
    for row in 0..N {
        for j in 0..D {
            let predicted: f64 = (0..D).map(|i| s.x[row * D + i] * w[i * D + j]).sum();
            for i in 0..D {
                g[i * D + j] += s.x[row * D + i] * (predicted - s.y[row * D + j]) / N as f64;
            }
        }
    }
    g
}

fn stepped(w: &[f64], g: &[f64], factor: f64) -> Vec<f64> {
    w.iter().zip(g).map(|(w, g)| w + factor * g).collect()
}

/// `W + U U^T`, U one column.
fn with_adapter(w: &[f64], u: &[f64]) -> Vec<f64> {
    (0..D * D).map(|i| w[i] + u[i / D] * u[i % D]).collect()
}

/// `(G + G^T) u`.
fn adapter_gradient(g: &[f64], u: &[f64]) -> Vec<f64> {
    (0..D).map(|i| (0..D).map(|j| (g[i * D + j] + g[j * D + i]) * u[j]).sum()).collect()
}

/// Base and adapters.
type Weights = (Vec<f64>, Vec<Vec<f64>>);
type ByHand = fn(&[Samples], Vec<f64>, Vec<Vec<f64>>) -> Weights;

struct Case {
    algorithm: Algorithm,
    steps: u64,
    /// Base (and adapters) from the training's own start, by hand.
    by_hand: ByHand,
}

const RATE: f64 = 0.1;
const INNER_RATE: f64 = 0.05;

fn symmetric() -> AdapterConfig {
    AdapterConfig::new("symmetric-lora").with_settings("rank = 1\nstart_std = 0.5").unwrap()
}

fn standard_by_hand(s: &[Samples], mut w: Vec<f64>, u: Vec<Vec<f64>>) -> Weights {
    for _ in 0..4 {
        // Tasks of one size: the union's mean is the mean of the tasks'.
        let gradients: Vec<_> = s.iter().map(|s| gradient(s, &w)).collect();
        for g in gradients {
            w = stepped(&w, &g, -RATE / s.len() as f64);
        }
    }
    (w, u)
}

fn joint_by_hand(s: &[Samples], mut w: Vec<f64>, mut u: Vec<Vec<f64>>) -> Weights {
    for _ in 0..4 {
        let slopes = s.iter().zip(&u).map(|(s, u)| gradient(s, &with_adapter(&w, u)));
        let slopes: Vec<_> = slopes.collect();
        for (t, g) in slopes.iter().enumerate() {
            u[t] = stepped(&u[t].clone(), &adapter_gradient(g, &u[t]), -INNER_RATE);
            w = stepped(&w, g, -RATE / s.len() as f64);
        }
    }
    (w, u)
}

fn alternating_by_hand(s: &[Samples], mut w: Vec<f64>, mut u: Vec<Vec<f64>>) -> Weights {
    for _ in 0..2 {
        for _ in 0..3 {
            for (s, u) in s.iter().zip(&mut u) {
                let g = gradient(s, &with_adapter(&w, u));
                *u = stepped(&u.clone(), &adapter_gradient(&g, u), -INNER_RATE);
            }
        }
        let slopes: Vec<_> =
            s.iter().zip(&u).map(|(s, u)| gradient(s, &with_adapter(&w, u))).collect();
        for g in slopes {
            w = stepped(&w, &g, -RATE / s.len() as f64);
        }
    }
    (w, u)
}

fn cycle_by_hand(s: &[Samples], mut w: Vec<f64>, mut u: Vec<Vec<f64>>) -> Weights {
    for step in 0..4 {
        let t = step % s.len();
        let g = gradient(&s[t], &with_adapter(&w, &u[t]));
        u[t] = stepped(&u[t].clone(), &adapter_gradient(&g, &u[t]), -INNER_RATE);
        w = stepped(&w, &g, -RATE);
    }
    (w, u)
}

fn reptile_by_hand(s: &[Samples], mut w: Vec<f64>, u: Vec<Vec<f64>>) -> Weights {
    for round in 0..4 {
        let mut theta = w.clone();
        for _ in 0..3 {
            theta = stepped(&theta, &gradient(&s[round % s.len()], &theta), -RATE);
        }
        // eps falls from 0.8 at the first of 12 steps to 0 behind the last.
        let eps = 0.8 * (1.0 - 3.0 * round as f64 / 12.0);
        w = w.iter().zip(&theta).map(|(w, theta)| w + eps * (theta - w)).collect();
    }
    (w, u)
}

fn reptile_with_own_by_hand(s: &[Samples], mut w: Vec<f64>, mut u: Vec<Vec<f64>>) -> Weights {
    for round in 0..4 {
        let t = round % s.len();
        let mut theta = w.clone();
        for _ in 0..3 {
            let g = gradient(&s[t], &with_adapter(&theta, &u[t]));
            u[t] = stepped(&u[t].clone(), &adapter_gradient(&g, &u[t]), -RATE);
            theta = stepped(&theta, &g, -RATE);
        }
        let eps = 0.8 * (1.0 - 3.0 * round as f64 / 12.0);
        w = w.iter().zip(&theta).map(|(w, theta)| w + eps * (theta - w)).collect();
    }
    (w, u)
}

fn fomaml_by_hand(s: &[Samples], mut w: Vec<f64>, u: Vec<Vec<f64>>) -> Weights {
    for round in 0..4 {
        let own = &s[round % s.len()];
        let mut theta = w.clone();
        for _ in 0..2 {
            theta = stepped(&theta, &gradient(own, &theta), -INNER_RATE);
        }
        w = stepped(&w, &gradient(own, &theta), -RATE);
    }
    (w, u)
}

fn definitions() -> Vec<Case> {
    let peft_ml = |rounds| Algorithm::PeftMl {
        adapter: symmetric(),
        rounds,
        adapter_optimiser: Some(OptimiserConfig::sgd(INNER_RATE)),
    };
    let reptile = |own| Algorithm::Reptile {
        inner_steps: 3,
        outer_step_size: 0.8,
        inner_state: InnerState::Fresh,
        outer: None,
        reversed: false,
        own,
    };
    let fomaml = Algorithm::Fomaml { inner_steps: 3, inner: OptimiserConfig::sgd(INNER_RATE) };
    let alternating = peft_ml(Rounds::Alternating { inner: 3, outer: 1 });
    vec![
        Case { algorithm: Algorithm::Standard, steps: 4, by_hand: standard_by_hand },
        Case { algorithm: peft_ml(Rounds::Joint), steps: 4, by_hand: joint_by_hand },
        Case { algorithm: alternating, steps: 8, by_hand: alternating_by_hand },
        Case { algorithm: peft_ml(Rounds::Cycle), steps: 4, by_hand: cycle_by_hand },
        Case { algorithm: reptile(None), steps: 12, by_hand: reptile_by_hand },
        Case {
            algorithm: reptile(Some(symmetric())),
            steps: 12,
            by_hand: reptile_with_own_by_hand,
        },
        Case { algorithm: fomaml, steps: 12, by_hand: fomaml_by_hand },
    ]
}

fn plain(algorithm: Algorithm, steps: u64) -> TrainingConfig {
    TrainingConfig {
        algorithm,
        steps,
        batch: 2 * N,
        optimiser: OptimiserConfig::sgd(RATE),
        schedule: ScheduleConfig::Constant,
        validate_every: 0,
    }
}

fn keep_going(_: &TrainingState) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn every_algorithm_is_its_definition_and_a_flipped_outer_update_is_not() {
    let (samples, place) = (samples(2), double());
    let tasks = linear_tasks(&samples);
    let network = Linear::new(D, D).unwrap();
    let base = network.sites().initial(&Seed::root(1), &place).unwrap();
    let numbers = |p: &Parameters| -> Vec<f64> {
        p.iter().flat_map(|(name, _)| p.values(name).unwrap()).collect()
    };
    // A workspace without the method that the hand computes has nothing to compare there.
    let known = |case: &Case| {
        let config = plain(case.algorithm.clone(), case.steps);
        config.adapter().is_none_or(|adapter| entry(&adapter.method).is_ok())
    };
    for case in definitions().into_iter().filter(known) {
        let distance = |flipped: bool| {
            let config = plain(case.algorithm.clone(), case.steps);
            let training =
                Training::new(&network, &tasks, config, &base, &Seed::root(2), &place).unwrap();
            let training = if flipped { training.with_outer_sign_flipped() } else { training };
            let mut state = training.start(&base).unwrap();
            let start = state.adapters.iter().map(numbers).collect();
            let (w, u) = (case.by_hand)(&samples, numbers(&state.base), start);
            training.run(&mut state, &mut keep_going).unwrap();
            assert_eq!(state.step, case.steps);
            let own = state.adapters.iter().map(numbers).chain([numbers(&state.base)]);
            let expected = u.into_iter().chain([w]);
            let pairs = own.flatten().zip(expected.flatten());
            pairs.map(|(x, y): (f64, f64)| (x - y).abs()).fold(0.0, f64::max)
        };
        // A dozen steps on numbers of order 1, each some dozen roundings.
        assert!(distance(false) < 1e-13, "{:?}: {}", case.algorithm, distance(false));
        assert!(distance(true) > 1e-3, "{:?}: {}", case.algorithm, distance(true));
    }
}

#[test]
fn an_outer_optimiser_and_a_reversed_sign_do_what_they_are_called() {
    let (samples, place) = (samples(2), double());
    let tasks = linear_tasks(&samples);
    let network = Linear::new(D, D).unwrap();
    let base = network.sites().initial(&Seed::root(1), &place).unwrap();
    let end = |outer: Option<OptimiserConfig>, reversed: bool| {
        let algorithm = Algorithm::Reptile {
            inner_steps: 3,
            outer_step_size: 1.0,
            inner_state: InnerState::Fresh,
            outer,
            reversed,
            own: None,
        };
        let config = TrainingConfig { steps: 3, ..plain(algorithm, 3) };
        let training =
            Training::new(&network, &tasks, config, &base, &Seed::root(2), &place).unwrap();
        let mut state = training.start(&base).unwrap();
        training.run(&mut state, &mut keep_going).unwrap();
        state.base.values("linear.weight").unwrap()
    };
    // From W = 0 with eps = 1 a round ends at theta; a plain outer step of 1/2 half way; reversed, at its
    // mirror image.
    let theta = end(None, false);
    let half = end(Some(OptimiserConfig::sgd(0.5)), false);
    let mirrored = end(None, true);
    for ((theta, half), mirrored) in theta.iter().zip(&half).zip(&mirrored) {
        assert!((theta / 2.0 - half).abs() < 1e-15 && (theta + mirrored).abs() < 1e-15);
    }
    assert!(theta.iter().any(|x| x.abs() > 1e-3));
}

/// A method whose adapters have constants that belong to no task.
fn with_constants() -> AdapterConfig {
    let network = encoder(0.0);
    let constant = |config: &AdapterConfig| {
        let adapter = Adapter::new(config, network.sites()).unwrap();
        adapter.specs().iter().any(|(_, spec)| !spec.trainable)
    };
    cases().into_iter().map(|(_, config)| config).find(constant).unwrap()
}

/// All algorithms with everything that a state can hold: moments, masks, orders, validations.
fn rich(batch: usize) -> Vec<TrainingConfig> {
    let adam = || OptimiserConfig::Adam(AdamConfig::new(1e-2, 1e-3));
    let peft_ml = |rounds, adapter| Algorithm::PeftMl {
        adapter,
        rounds,
        adapter_optimiser: Some(OptimiserConfig::AdamW(AdamConfig::new(2e-2, 1e-2))),
    };
    let reptile = |inner_state, outer, own| Algorithm::Reptile {
        inner_steps: 2,
        outer_step_size: 1.0,
        inner_state,
        outer,
        reversed: false,
        own,
    };
    [
        Algorithm::Standard,
        peft_ml(Rounds::Joint, small_weight_method()),
        peft_ml(Rounds::Alternating { inner: 1, outer: 1 }, with_constants()),
        peft_ml(Rounds::Cycle, small_weight_method()),
        reptile(InnerState::Kept, None, Some(small_weight_method())),
        reptile(InnerState::Fresh, Some(adam()), None),
        Algorithm::Fomaml { inner_steps: 2, inner: OptimiserConfig::sgd(0.1) },
        Algorithm::FineTuning { adapter: small_weight_method() },
    ]
    .into_iter()
    .map(|algorithm| TrainingConfig {
        algorithm,
        steps: 8,
        batch,
        optimiser: adam(),
        schedule: ScheduleConfig::Cosine,
        validate_every: 2,
    })
    .collect()
}

fn same(a: &TrainingState, b: &TrainingState) -> bool {
    let pairs = |a: &[Parameters], b: &[Parameters]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same_bits(b).unwrap())
    };
    let (best_a, best_b) = (a.best.as_ref().unwrap(), b.best.as_ref().unwrap());
    a.step == b.step
        && a.loss.to_bits() == b.loss.to_bits()
        && a.history == b.history
        && a.base.same_bits(&b.base).unwrap()
        && pairs(&a.adapters, &b.adapters)
        && best_a.step == best_b.step
        && best_a.base.same_bits(&best_b.base).unwrap()
        && pairs(&best_a.adapters, &best_b.adapters)
}

#[test]
fn a_stopped_training_resumed_ends_at_the_same_bits() {
    let (network, place) = (encoder(0.1), Place::cpu(Precision::F32));
    let (base, tasks) = (weights(&network, &place), tasks(&["a", "b"]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    for config in rich(8) {
        let training = |seed| {
            let (config, seed) = (config.clone(), Seed::root(seed));
            Training::new(&network, &tasks, config, &base, &seed, &place).unwrap()
        };
        let whole = training(1);
        let mut undisturbed = whole.start(&base).unwrap();
        whole.run(&mut undisturbed, &mut keep_going).unwrap();
        assert_eq!(undisturbed.step, 8);
        assert!(undisturbed.history.len() >= 2);
        for stop in [2, 4, 6] {
            let first = training(1);
            let mut state = first.start(&base).unwrap();
            let mut watch = |s: &TrainingState| {
                if s.step >= stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            first.run(&mut state, &mut watch).unwrap();
            first.save(&state, &path).unwrap();
            let (second, mut state) = training(1).resume(&path).unwrap();
            second.run(&mut state, &mut keep_going).unwrap();
            assert!(same(&state, &undisturbed), "{:?} stopped at {stop}", config.algorithm);
        }
        // Control: another seed ends elsewhere, and does not resume from this file.
        let other = training(7);
        let mut elsewhere = other.start(&base).unwrap();
        other.run(&mut elsewhere, &mut keep_going).unwrap();
        assert!(!same(&elsewhere, &undisturbed), "{:?}", config.algorithm);
        let error = other.resume(&path).err().unwrap().to_string();
        assert!(error.contains("another training"), "{error}");
    }
}

/// Candidates, a row each, of lengths between 1 and 6; the true one is drawn.
struct Turns;

impl Examples for Turns {
    fn len(&self) -> usize {
        20
    }

    fn rows(&self) -> usize {
        3
    }

    fn batch(
        &self,
        numbers: &[usize],
        _: Option<&Seed>,
        place: &Place,
    ) -> Result<Batch, PeftError> {
        let (mut rows, mut truth) = (Vec::new(), Vec::new());
        for &number in numbers {
            let mut stream = Seed::root(31).child(number).stream();
            let answer = stream.below(3);
            for candidate in 0..3 {
                let length = 1 + stream.below(6);
                let ids: Vec<u32> = (0..length).map(|_| 1 + stream.below(10) as u32).collect();
                rows.push(Encoded { segments: vec![0; ids.len()], ids });
                truth.push(i64::from(candidate == answer));
            }
        }
        let count = truth.len();
        let input = Input::Sequences(Sequences { rows, padding: 0, place: place.clone() });
        let truth = place.integers(truth, [count])?;
        Ok(Batch { input, target: Target::Candidates { truth, each: 3 } })
    }
}

#[test]
fn candidates_of_any_length_come_out_in_their_order_and_the_largest_is_the_answer() {
    let (network, place) = (encoder(0.1), double());
    let base = weights(&network, &place);
    let numbers: Vec<usize> = (0..20).collect();
    let batch = Turns.batch(&numbers, None, &place).unwrap();
    let together = common::output(&network, &base, None, &batch);
    let Input::Sequences(all) = &batch.input else { panic!() };
    // One by one: no padding at all.
    let alone: Vec<f64> = (0..60)
        .flat_map(|row| {
            let input = Input::Tokens(Box::new(all.padded(&[row]).unwrap()));
            let target = Target::Classes(place.integers(vec![0], [1]).unwrap());
            common::output(&network, &base, None, &Batch { input, target })
        })
        .collect();
    // A few hundred operations on numbers of order 1, in another order.
    assert!(common::largest_difference(&together, &alone) < 1e-12);
    let turned: Vec<f64> = alone.chunks(2).rev().flatten().copied().collect();
    assert!(common::largest_difference(&together, &turned) > 1e-3, "no order to keep");

    // Loss and hits by their definitions.
    let Target::Candidates { truth, .. } = &batch.target else { panic!() };
    let truth = truth.to_data().try_to_vec::<i64>().unwrap();
    let rows: Vec<&[f64]> = alone.chunks(2).collect();
    let entropy =
        |(row, truth): (&&[f64], &i64)| (row[0].exp() + row[1].exp()).ln() - row[*truth as usize];
    let loss: f64 = rows.iter().zip(&truth).map(entropy).sum::<f64>() / 60.0;
    let hit = |turn: usize| {
        let scores: Vec<f64> = (0..3).map(|i| rows[3 * turn + i][1]).collect();
        let best = (0..3).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
        truth[3 * turn + best] == 1
    };
    let expected: Vec<bool> = (0..20).map(hit).collect();
    let (found, hits) = evaluate_each(&network, &base, None, &Turns, &place).unwrap().unwrap();
    assert!((found.loss - loss).abs() < 1e-12);
    assert_eq!(hits, expected);
    assert!(hits.contains(&true) && hits.contains(&false));
    let share = expected.iter().filter(|hit| **hit).count() as f64 / 20.0;
    assert_eq!(found.accuracy, Some(share));
}

#[test]
fn a_checkpoint_of_other_data_is_refused_and_ties_go_to_the_lower_loss() {
    let (network, place) = (encoder(0.0), double());
    let (base, tasks) = (weights(&network, &place), tasks(&["a", "b"]));
    let config = TrainingConfig { steps: 40, validate_every: 1, ..rich(24).swap_remove(0) };
    let training =
        || Training::new(&network, &tasks, config.clone(), &base, &Seed::root(1), &place).unwrap();
    let end = |training: &Training<'_>| {
        let mut state = training.start(&base).unwrap();
        training.run(&mut state, &mut keep_going).unwrap();
        state
    };
    let one = training().on_data("one".into());
    let state = end(&one);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    one.save(&state, &path).unwrap();
    assert!(training().on_data("one".into()).resume(&path).is_ok());
    let error = training().on_data("two".into()).resume(&path).err().unwrap().to_string();
    assert!(
        error.contains("its data") && error.contains("one") && error.contains("two"),
        "{error}"
    );
    assert!(training().resume(&path).is_err());

    let by_loss = end(&training().breaking_ties_by_loss());
    let scores = |step: u64| {
        let record = state.history.iter().find(|record| record.step == step).unwrap();
        (record.mean.score(), record.mean.loss)
    };
    let [first, lowest] = [state.best.unwrap().step, by_loss.best.unwrap().step];
    assert_eq!(scores(first).0, scores(lowest).0);
    let tied = state.history.iter().filter(|record| record.mean.score() == scores(first).0);
    let least = tied.map(|record| record.mean.loss).fold(f64::INFINITY, f64::min);
    assert_eq!(scores(lowest).1, least);
    assert!(scores(first).1 > least, "no tie to break");
}

#[test]
fn every_algorithm_learns_and_keeps_its_best() {
    let (network, place) = (encoder(0.0), double());
    let (base, tasks) = (weights(&network, &place), tasks(&["a", "b"]));
    for mut config in rich(24) {
        config.steps = 60;
        config.validate_every = 10;
        config.schedule = ScheduleConfig::Constant;
        let algorithm = config.algorithm.clone();
        let training =
            Training::new(&network, &tasks, config, &base, &Seed::root(1), &place).unwrap();
        let mut state = training.start(&base).unwrap();
        let mut first = None;
        training
            .run(&mut state, &mut |state| {
                first.get_or_insert(state.loss);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(state.loss < 0.9 * first.unwrap(), "{algorithm:?}: {first:?} {}", state.loss);
        let best = state.best.unwrap();
        let scores = state.history.iter().map(|record| (record.step, record.mean.score()));
        let expected = scores.fold((0, f64::NEG_INFINITY), |a, b| if b.1 > a.1 { b } else { a });
        assert_eq!((best.step, best.score), expected, "{algorithm:?}");
    }
}

#[test]
fn a_loss_that_is_no_number_stops_and_leaves_the_state() {
    let (network, place) = (encoder(0.0), double());
    let (base, tasks) = (weights(&network, &place), tasks(&["a", "b"]));
    for mut config in rich(8) {
        config.optimiser = OptimiserConfig::sgd(1e200);
        config.validate_every = 0;
        if let Algorithm::PeftMl { adapter_optimiser, .. } = &mut config.algorithm {
            *adapter_optimiser = Some(OptimiserConfig::sgd(1e200));
        }
        if let Algorithm::Reptile { outer, .. } = &mut config.algorithm {
            *outer = None;
        }
        let training =
            Training::new(&network, &tasks, config.clone(), &base, &Seed::root(1), &place).unwrap();
        let mut state = training.start(&base).unwrap();
        let mut last = state.clone();
        let error = loop {
            last.step = state.step;
            last.base = state.base.clone();
            match training.advance(&mut state) {
                Ok(()) => assert!(state.step < 8, "{:?} never stopped", config.algorithm),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, PeftError::NotFinite { .. }), "{error}");
        assert_eq!(state.step, last.step);
        assert!(state.base.same_bits(&last.base).unwrap());
    }
}

#[test]
fn tasks_and_settings_that_cannot_be_trained_with_are_refused() {
    let (network, place) = (encoder(0.0), double());
    let base = weights(&network, &place);
    let new = |tasks: &[Task], config: TrainingConfig| {
        Training::new(&network, tasks, config, &base, &Seed::root(1), &place).err()
    };
    let config = rich(8).swap_remove(1);
    assert!(matches!(new(&[], config.clone()), Some(PeftError::Tasks { .. })));
    let mut empty = tasks(&["a", "b"]);
    empty[1].training = Box::new(common::Sentences::new("none", 0));
    let error = new(&empty, config.clone()).unwrap().to_string();
    assert!(error.starts_with("b: "), "{error}");
    let small = TrainingConfig { batch: 1, ..config.clone() };
    assert!(matches!(new(&tasks(&["a", "b"]), small), Some(PeftError::Range { .. })));
    let negative = TrainingConfig { optimiser: OptimiserConfig::sgd(-0.1), ..config };
    assert!(matches!(new(&tasks(&["a", "b"]), negative), Some(PeftError::Range { .. })));
}

#[test]
fn a_configuration_in_a_file_says_what_it_says_here() {
    let text = "
        steps = 33
        batch = 256
        validate_every = 11
        [algorithm]
        name = 'peft-ml'
        adapter = { method = 'METHOD', targets = '.*' }
        rounds = { name = 'alternating', inner = 10, outer = 1 }
        [optimiser]
        name = 'adam'
        step_size = 1e-4
        weight_decay = 1e-5
        [schedule]
        name = 'cosine'
    ";
    let text = text.replace("METHOD", peftml_peft::methods::registry()[0].name);
    let config: TrainingConfig = toml::from_str(&text).unwrap();
    assert_eq!(config.round_steps(), 11);
    let again: TrainingConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    let wrong = [("targets =", "tragets ="), ("method = '", "method = 'x"), ("inner =", "iner =")];
    for (right, wrong) in wrong {
        let error = toml::from_str::<TrainingConfig>(&text.replace(right, wrong)).unwrap_err();
        let named = wrong.split(' ').next().unwrap().replace("method", "no method is called");
        assert!(error.to_string().contains(&named), "{error}");
    }
}
