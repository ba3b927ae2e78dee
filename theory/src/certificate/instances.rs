//! The instances of theory.md C7: strict local minima that are not global, and what is made of them.
//!
//! Centres are given to four digits; [`Instance::certify`] polishes them.

use super::error::MakeError;
use super::{Certificate, certify};
use faer::Mat;
use peftml_linalg::Blocks;

/// Offsets with a point near a strict local minimum.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Name, as in claims: `"integer"`.
    pub name: String,
    /// The factors `U*_t`, each d x k.
    pub offsets: Vec<Mat<f64>>,
    /// Near a critical point, each d x k.
    pub near: Vec<Mat<f64>>,
}

impl Instance {
    /// d = 4, T = 3, k = 1, whole numbers; F = 3.195, smallest curvature 0.2997.
    pub fn integer() -> Self {
        let offsets = [[0., -4., 0., 3.], [-1., -1., -1., 3.], [-4., 0., -1., 3.]];
        let near = [
            [-1.6632, 4.4395, -0.5554, -1.8031],
            [-2.303, 2.3157, -0.7336, 0.3063],
            [4.43, -1.7323, 1.0535, -1.9152],
        ];
        Self::vectors("integer", &offsets, &near)
    }

    /// d = 2, T = 4, k = 1; F = 0.0469, smallest curvature 0.0558.
    pub fn plane() -> Self {
        let offsets = [[-2., 2.], [-2., 1.], [-2., 0.], [3., 1.]];
        let near = [[0.8775, -2.657], [0.2366, -2.0059], [-0.8405, -1.7546], [-2.3324, -1.9891]];
        Self::vectors("plane", &offsets, &near)
    }

    /// d = 3, T = 3, k = 1; F = 0.00375, smallest curvature 0.0097.
    pub fn space() -> Self {
        let offsets = [[0.5, -0.7, 0.9], [0.9, 0.6, 0.1], [-0.1, -0.6, 0.1]];
        let near = [[0.8702, -0.5089, 1.0133], [-1.158, -0.371, -0.4438], [0.7444, -0.0081, 0.513]];
        Self::vectors("space", &offsets, &near)
    }

    /// The integer instance beside three coordinates in which every task has its own direction
    /// `4 e_t`: d = 7, T = 3, k = 2.
    pub fn rank_two() -> Self {
        let base = Self::integer();
        let beside = |matrices: &[Mat<f64>]| -> Vec<Mat<f64>> {
            let lift = |(t, m): (usize, &Mat<f64>)| {
                Mat::from_fn(7, 2, |a, i| match i {
                    0 if a < 4 => m[(a, 0)],
                    1 if a == 4 + t => 4.0,
                    _ => 0.0,
                })
            };
            matrices.iter().enumerate().map(lift).collect()
        };
        let (offsets, near) = (beside(&base.offsets), beside(&base.near));
        Self { name: "rank-two".into(), offsets, near }
    }

    /// With zero coordinates added up to dimension `d`; at least its own.
    pub fn padded(&self, d: usize) -> Self {
        let pad = |m: &Mat<f64>| {
            let own = m.nrows();
            let at = |a, i| if a < own { m[(a, i)] } else { 0.0 };
            Mat::from_fn(d.max(own), m.ncols(), at)
        };
        Self {
            name: format!("{}-padded-{d}", self.name),
            offsets: self.offsets.iter().map(pad).collect(),
            near: self.near.iter().map(pad).collect(),
        }
    }

    /// With every task `times` times: the curvature is divided by `times`.
    pub fn copied(&self, times: usize) -> Self {
        let copy = |matrices: &[Mat<f64>]| (0..times).flat_map(|_| matrices.to_vec()).collect();
        Self {
            name: format!("{}-copied-{times}", self.name),
            offsets: copy(&self.offsets),
            near: copy(&self.near),
        }
    }

    /// Every instance that theory.md names: three for k = 1, padded, copied, k = 2.
    pub fn all() -> Vec<Self> {
        let (integer, plane, space) = (Self::integer(), Self::plane(), Self::space());
        vec![
            integer.padded(8),
            integer.copied(2),
            plane.padded(4),
            plane.copied(2),
            space.padded(6),
            space.copied(3),
            Self::rank_two(),
            Self::rank_two().padded(9),
            Self::rank_two().copied(2),
            integer,
            plane,
            space,
        ]
    }

    /// The certificate of its minimum.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn certify(&self) -> Result<Certificate, MakeError> {
        let near = Blocks::from_matrices("U", self.near.iter().map(|m| m.as_ref()));
        certify(&format!("C7.{}", self.name), &self.offsets, &near)
    }

    fn vectors<const D: usize>(name: &str, offsets: &[[f64; D]], near: &[[f64; D]]) -> Self {
        let columns = |vectors: &[[f64; D]]| {
            vectors.iter().map(|v| Mat::from_fn(D, 1, |a, _| v[a])).collect::<Vec<_>>()
        };
        Self { name: name.into(), offsets: columns(offsets), near: columns(near) }
    }
}
