//! Every method on a mixer, whose blocks are operations of their own: gradients and merged weights. In
//! double precision, where finite differences tell.

mod common;

use common::{
    cases, double, fresh, largest_difference, loss, moved, output, small_weight_method, weights,
};
use peftml_linalg::Seed;
use peftml_peft::models::{Mixer, MixerConfig};
use peftml_peft::parameters::Gradients;
use peftml_peft::{
    Adapter, AdapterConfig, Batch, Input, Network, Parameters, Pass, Place, Target, device,
};

/// Sides 12, 4, 8 and 2, so that ranks and blocks fit.
fn mixer(dropout: f64) -> Mixer {
    let config = MixerConfig {
        image_side: 4,
        channels: 3,
        patch_side: 2,
        width: 12,
        blocks: 2,
        token_expansion: 2.0,
        channel_expansion: 0.67,
        dropout,
        classes: 2,
    };
    Mixer::new(config).unwrap()
}

fn batch(place: &Place) -> Batch {
    let mut stream = Seed::root(6).child("images").stream();
    let numbers = (0..5 * 48).map(|_| stream.normal()).collect();
    Batch {
        input: Input::Images(place.tensor(numbers, [5, 3, 4, 4]).unwrap()),
        target: Target::Classes(place.integers(vec![0, 1, 1, 0, 1], [5]).unwrap()),
    }
}

/// `t` along the direction `name`, whose length is about 1.
fn ahead(parameters: &Parameters, name: &str, t: f64) -> Parameters {
    moved(parameters, name, t / (parameters.count() as f64).sqrt())
}

fn directional(parameters: &Parameters, gradients: &Gradients, direction: &str) -> f64 {
    let ahead = ahead(parameters, direction, 1.0);
    let part = |(name, gradient): (&str, &_)| -> f64 {
        let (to, from) = (ahead.values(name).unwrap(), parameters.values(name).unwrap());
        let gradient = device::values(gradient).unwrap();
        gradient.iter().zip(to.iter().zip(&from)).map(|(g, (a, b))| g * (a - b)).sum()
    };
    gradients.iter().map(part).sum()
}

/// Gradients in the adapter and in the base, each perhaps frozen.
fn slopes(
    network: &Mixer,
    (base, base_tracked): (&Parameters, bool),
    adapter: &Adapter,
    (theta, theta_tracked): (&Parameters, bool),
    batch: &Batch,
) -> (Gradients, Gradients) {
    let tracked = |p: &Parameters, yes: bool| if yes { p.tracked() } else { p.clone() };
    let (base, theta) = (tracked(base, base_tracked), tracked(theta, theta_tracked));
    let pass = Pass::new(&base).with_adapter(adapter, &theta);
    let loss = batch.loss(network.forward(&pass, &batch.input).unwrap()).unwrap();
    if !loss.is_tracked() {
        // A frozen adapter in the place of the whole base.
        return Default::default();
    }
    let mut backward = loss.backward();
    let gradients = |p: &Parameters, yes: bool, backward: &mut _| {
        if yes { p.gradients(backward) } else { Gradients::default() }
    };
    let in_theta = gradients(&theta, theta_tracked, &mut backward);
    (in_theta, gradients(&base, base_tracked, &mut backward))
}

#[test]
fn gradients_are_finite_differences() {
    let (network, place) = (mixer(0.0), double());
    let (base, batch) = (weights(&network, &place), batch(&place));
    let mut compared = 0;
    for (name, config) in cases() {
        // Methods that need tokens have no place in a mixer.
        if Adapter::new(&config, network.sites()).is_err() {
            continue;
        }
        let (adapter, start) = fresh(&network, &config, &base, 1, &place);
        if !adapter.exact_gradient() {
            continue;
        }
        compared += 1;
        let theta = moved(&start, "point", 0.1);
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
        // Frozen weights go another way to the adapter's gradient.
        for base_tracked in [true, false] {
            let (in_theta, in_base) =
                slopes(&network, (&base, base_tracked), &adapter, (&theta, true), &batch);
            let found = directional(&theta, &in_theta, "direction");
            // As for the encoder: 4 h^4 / 30 times fifth derivatives below 1e4, and roundings of 1e-16 / h.
            assert!((found - along_theta).abs() < 1e-9, "{name}: {found} {along_theta}");
            // Control: another direction has another slope.
            let other = directional(&theta, &in_theta, "another direction");
            assert!((other - along_theta).abs() > 1e-6, "{name}: {other}");
            if base_tracked {
                let found = directional(&base, &in_base, "direction");
                assert!((found - along_base).abs() < 1e-9, "{name}: {found} {along_base}");
            }
        }
        // A frozen adapter leaves the base's gradient as it is.
        let (_, in_base) = slopes(&network, (&base, true), &adapter, (&theta, false), &batch);
        let found = directional(&base, &in_base, "direction");
        assert!((found - along_base).abs() < 1e-9, "{name}: {found} {along_base}");
    }
    assert!(compared > 10, "{compared}");
}

#[test]
fn merged_weights_give_the_forward_passs_outputs() {
    let (network, place) = (mixer(0.0), double());
    let (base, batch) = (weights(&network, &place), batch(&place));
    for (name, config) in cases() {
        let Ok(adapter) = Adapter::new(&config, network.sites()) else { continue };
        if !adapter.is_mergeable() {
            continue;
        }
        let (adapter, start) = fresh(&network, &config, &base, 1, &place);
        let theta = moved(&start, "point", 0.1);
        let adapted = output(&network, &base, Some((&adapter, &theta)), &batch);
        let whole = |theta| output(&network, &adapter.merged(&base, theta).unwrap(), None, &batch);
        // Outputs of order 1, some thousand additions.
        assert!(largest_difference(&whole(&theta), &adapted) < 1e-11, "{name}");
        // Control: other parameters make other weights.
        let control = largest_difference(&whole(&moved(&theta, "other", 0.1)), &adapted);
        assert!(control > 1e-6, "{name}: {control}");
    }
}

#[test]
fn masks_of_an_adapters_own_are_drawn_in_training_only() {
    let (network, place) = (mixer(0.0), double());
    let (base, batch) = (weights(&network, &place), batch(&place));
    let masked = AdapterConfig {
        settings: "rank = 2\ndropout = 0.5".parse().unwrap(),
        ..small_weight_method()
    };
    let (adapter, start) = fresh(&network, &masked, &base, 1, &place);
    let theta = moved(&start, "point", 0.3);
    let outputs = |seed: Option<u64>| {
        let mut pass = Pass::new(&base).with_adapter(&adapter, &theta);
        if let Some(seed) = seed {
            pass = pass.training(&Seed::root(seed));
        }
        device::values(&network.forward(&pass, &batch.input).unwrap()).unwrap()
    };
    assert!(largest_difference(&outputs(None), &outputs(Some(1))) > 1e-6);
    assert!(largest_difference(&outputs(Some(2)), &outputs(Some(1))) > 1e-6);
    assert_eq!(outputs(Some(1)), outputs(Some(1)));
    // Control: without masks of its own, training and evaluation are one here.
    let (adapter, start) = fresh(&network, &small_weight_method(), &base, 1, &place);
    let theta = moved(&start, "point", 0.3);
    let plain = Pass::new(&base).with_adapter(&adapter, &theta);
    let [a, b] = [plain.clone(), plain.training(&Seed::root(1))]
        .map(|pass| device::values(&network.forward(&pass, &batch.input).unwrap()).unwrap());
    assert_eq!(a, b);
}
