//! Synthetic images: the embedded stand-in for real ones.
//!
//! Class c is a grating: `value = 128 + 60 cos(2 pi (u_c x + v_c y) / side + phase) w_c[channel] + noise`,
//! with a frequency and colour weights of the class, a phase and normal noise (standard deviation
//! `noise_std`, in grey levels) of each image. What tells classes apart is common to all of them, and how
//! is the class's own, as with photographs' textures; nothing else of photographs is claimed.

use crate::images::Images;
use peftml_linalg::Seed;
use std::f64::consts::TAU;

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageSpec {
    /// Number of classes, at most 256.
    pub classes: usize,
    /// Images of each class.
    pub per_class: usize,
    /// Height and width.
    pub side: usize,
    /// Standard deviation of the noise, in grey levels.
    pub noise_std: f64,
}

impl ImageSpec {
    /// The images of role `role` (`"training"`, `"test"`) below `seed`; classes are drawn below `seed` alone,
    /// so that all roles show the same ones. Class by class in turn: image i has label i mod `classes`.
    pub fn draw(&self, seed: &Seed, role: &str) -> Images {
        let mut images = Images::empty(3, self.side);
        let classes: Vec<Class> = (0..self.classes).map(|c| Class::draw(seed, c)).collect();
        for number in 0..self.per_class * self.classes {
            let label = number % self.classes;
            let pixels = self.image(&classes[label], &seed.child(role).child(number));
            images.push(label as u8, &pixels);
        }
        images
    }

    fn image(&self, class: &Class, seed: &Seed) -> Vec<u8> {
        let mut stream = seed.stream();
        let phase = TAU * stream.uniform();
        let mut pixels = Vec::with_capacity(3 * self.side * self.side);
        for weight in class.colours {
            for y in 0..self.side {
                for x in 0..self.side {
                    let (x, y) = (x as f64, y as f64);
                    let angle = TAU * (class.across * x + class.down * y) / self.side as f64;
                    let noise = self.noise_std * stream.normal();
                    let value = 128.0 + 60.0 * weight * (angle + phase).cos() + noise;
                    pixels.push(value.clamp(0.0, 255.0) as u8);
                }
            }
        }
        pixels
    }
}

struct Class {
    across: f64,
    down: f64,
    colours: [f64; 3],
}

impl Class {
    fn draw(seed: &Seed, class: usize) -> Self {
        let mut stream = seed.child("class").child(class).stream();
        let mut frequency = || (stream.below(9) as f64) - 4.0;
        let (across, down) = (frequency(), 1.0 + frequency().abs());
        let colours = [(); 3].map(|()| 2.0 * stream.uniform() - 1.0);
        Self { across, down, colours }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: ImageSpec = ImageSpec { classes: 4, per_class: 3, side: 8, noise_std: 10.0 };

    #[test]
    fn classes_are_common_to_roles_and_images_are_not() {
        let seed = Seed::root(2);
        let (training, test) = (SPEC.draw(&seed, "training"), SPEC.draw(&seed, "test"));
        assert_eq!(training.labels(), [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!(training, SPEC.draw(&seed, "training"));
        assert_ne!(training.pixels(0), test.pixels(0));
        assert_ne!(training.pixels(0), training.pixels(4));
    }

    #[test]
    fn without_noise_an_image_is_its_classs_grating() {
        let spec = ImageSpec { noise_std: 0.0, ..SPEC };
        let images = spec.draw(&Seed::root(2), "training");
        // Around 128, within the amplitude, and not flat.
        let pixels = images.pixels(1);
        assert!(pixels.iter().all(|p| (67..=188).contains(p)));
        assert!(pixels.iter().max() > pixels.iter().min());
    }
}
