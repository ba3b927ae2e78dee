use super::*;
use crate::linear::Task;
use peftml_linalg::{Layout, Stream};

/// `U U^T` tasks on a common base.
fn tasks_of(base: &Mat<f64>, left: &[Mat<f64>], right: &[Mat<f64>]) -> Tasks {
    Tasks::exact(left.iter().zip(right).map(|(u, v)| {
        let mut a = base.clone();
        kernel::mul_add(a.as_mut(), u.as_ref(), v.transpose(), 1.0);
        a
    }))
    .unwrap()
}

fn column(values: &[f64]) -> Mat<f64> {
    Mat::from_fn(values.len(), 1, |i, _| values[i])
}

fn normals(stream: &mut Stream, count: usize, d: usize, k: usize) -> Vec<Mat<f64>> {
    (0..count).map(|_| stream.normal_matrix(d, k, 1.0)).collect()
}

fn judge(tasks: &Tasks, point: &Point, zero_is_attained: bool) -> Assessment {
    let known = Known { zero_is_attained, solver_value: None };
    assess(tasks, point, known, &Seed::root(9)).unwrap()
}

/// The integer instance of C7 and the four-digit centre of its minimum.
fn integer_instance() -> (Tasks, Vec<Mat<f64>>) {
    let truth: Vec<_> = [[0., -4., 0., 3.], [-1., -1., -1., 3.], [-4., 0., -1., 3.]]
        .iter()
        .map(|u| column(u))
        .collect();
    let centre = [
        [-1.6632, 4.4395, -0.5554, -1.8031],
        [-2.303, 2.3157, -0.7336, 0.3063],
        [4.43, -1.7323, 1.0535, -1.9152],
    ];
    let tasks = tasks_of(&Mat::zeros(4, 4), &truth, &truth);
    (tasks, centre.iter().map(|u| column(u)).collect())
}

fn on_profile(tasks: &Tasks, left: &[Mat<f64>], right: Option<&[Mat<f64>]>) -> Point {
    let kind = if right.is_some() { Kind::Asymmetric } else { Kind::Symmetric };
    let objective = ProfileObjective::new(tasks, kind, left[0].ncols()).unwrap();
    let mut x = Blocks::zeros(objective.layout().clone());
    for (i, m) in left.iter().chain(right.into_iter().flatten()).enumerate() {
        x.block_mut(i).copy_from(m);
    }
    Point::from_blocks(tasks, objective.base(&x), &x, kind).unwrap()
}

fn polished(tasks: &Tasks, point: &Point) -> Point {
    let objective = ProfileObjective::new(tasks, point.kind(), point.rank()).unwrap();
    let x = polish(&objective, point.factors(), 20).unwrap().unwrap();
    Point::from_blocks(tasks, objective.base(&x), &x, point.kind()).unwrap()
}

#[test]
fn the_integer_instance_has_a_strict_minimum_that_is_not_global() {
    let (tasks, centre) = integer_instance();
    let near = on_profile(&tasks, &centre, None);
    assert_eq!(judge(&tasks, &near, true).verdict, PointVerdict::NotStationary);
    let point = polished(&tasks, &near);
    let found = judge(&tasks, &point, true);
    assert_eq!(found.verdict, PointVerdict::StrictLocalMinimum, "{found:?}");
    assert_eq!((found.global, found.compared_with), (Globality::No, Some(Reference::Zero)));
    // The figures of theory.md, to the digits given there.
    assert!((found.loss - 3.19522100931253).abs() < 1e-13);
    assert!((found.curvature - 0.299735755852).abs() < 1e-11);
    assert_eq!(judge(&tasks, &point, false).global, Globality::Unknown);
    let known = Known { zero_is_attained: false, solver_value: Some(1e-20) };
    let found = assess(&tasks, &point, known, &Seed::root(0)).unwrap();
    assert_eq!((found.global, found.compared_with), (Globality::No, Some(Reference::GlobalSolver)));

    // A and U are judged jointly: off the profile the gradient in A is not zero.
    let mut base = point.base().to_owned();
    base[(0, 1)] += 1e-5;
    let off = Point::from_blocks(&tasks, base, point.factors(), Kind::Symmetric).unwrap();
    assert_eq!(judge(&tasks, &off, true).verdict, PointVerdict::NotStationary);
}

#[test]
fn truth_is_a_global_minimum_of_every_kind() {
    for (d, k, count) in [(5, 1, 1), (5, 2, 2), (7, 2, 3), (4, 2, 5), (3, 3, 3)] {
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            let mut stream = Seed::root(1).child(d).child(kind.name()).stream();
            let left = normals(&mut stream, count, d, k);
            let right = match kind {
                Kind::Symmetric => left.clone(),
                Kind::Asymmetric => normals(&mut stream, count, d, k),
            };
            let base = stream.normal_matrix(d, d, 3.0);
            let tasks = tasks_of(&base, &left, &right);
            let right = (kind == Kind::Asymmetric).then(|| right.clone());
            let point = Point::new(&tasks, base, left, right, UNIT).unwrap();
            let found = judge(&tasks, &point, true);
            assert_eq!(found.verdict, PointVerdict::GlobalMinimum, "{found:?}");
            assert_eq!(found.compared_with, Some(Reference::Zero));
            let per_task = if kind == Kind::Symmetric { k * (k - 1) / 2 } else { k * k };
            assert_eq!(found.gauge_dimension, count * per_task);
            // C4: identified for d >= 3k - 1 (symmetric) or 3k, T >= 3, and for T >= 4.
            let identified = (count == 3 && d == 7) || count == 5;
            assert_eq!(found.rho.unwrap() > 1e-3, identified, "{found:?}");
            assert!(identified || found.rho.unwrap() < 1e-12, "{found:?}");
        }
    }
}

#[test]
fn zero_adapters_are_a_strict_saddle_whose_direction_falls() {
    for (d, k, count) in [(4, 1, 2), (5, 2, 3)] {
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            let mut stream = Seed::root(2).child(d).child(kind.name()).stream();
            let left = normals(&mut stream, count, d, k);
            let tasks = tasks_of(&Mat::zeros(d, d), &left, &left);
            let zero = vec![Mat::<f64>::zeros(d, k); count];
            let right = (kind == Kind::Asymmetric).then_some(zero.as_slice());
            let point = on_profile(&tasks, &zero, right);
            let found = judge(&tasks, &point, true);
            assert_eq!(found.verdict, PointVerdict::StrictSaddle, "{found:?}");
            let direction = found.direction.unwrap();
            let mut factors = point.factors().clone();
            factors.add_scaled(0.1, &direction.factors);
            let mut base = point.base().to_owned();
            kernel::add_scaled(base.as_mut(), 0.1, direction.base.as_ref());
            let moved = Point::from_blocks(&tasks, base, &factors, kind).unwrap();
            assert!(judge(&tasks, &moved, true).loss < found.loss);
        }
    }
}

#[test]
fn equal_tasks_make_zero_adapters_global() {
    let base = Seed::root(3).stream().normal_matrix(3, 3, 1.0);
    let tasks = Tasks::exact((0..3).map(|_| base.clone())).unwrap();
    let zero = vec![Mat::<f64>::zeros(3, 1); 3];
    let point = Point::new(&tasks, base, zero, None, UNIT).unwrap();
    let found = judge(&tasks, &point, false);
    assert_eq!(found.verdict, PointVerdict::GlobalMinimum, "{found:?}");
    assert!((found.rho.unwrap() - 1.0).abs() < 1e-14);
}

#[test]
fn two_tasks_of_another_rank_are_compared_with_the_closed_form() {
    // Rank 2 offsets, rank 1 adapters: the least value is positive.
    let mut stream = Seed::root(4).stream();
    let left = normals(&mut stream, 2, 6, 2);
    let tasks = tasks_of(&Mat::zeros(6, 6), &left, &left);
    let mut m = Mat::<f64>::zeros(6, 6);
    kernel::mul(m.as_mut(), left[0].as_ref(), left[0].transpose(), 1.0);
    kernel::mul_add(m.as_mut(), left[1].as_ref(), left[1].transpose(), -1.0);
    let (values, vectors) = peftml_linalg::decompose::symmetric_eigen(m.as_ref()).unwrap();
    let root = |i: usize| Mat::from_fn(6, 1, |row, _| values[i].abs().sqrt() * vectors[(row, i)]);
    let best = on_profile(&tasks, &[root(5), root(0)], None);
    let found = judge(&tasks, &best, false);
    assert_eq!(found.verdict, PointVerdict::GlobalMinimum, "{found:?}");
    assert_eq!(found.compared_with, Some(Reference::ClosedForm));
    assert!(found.loss > 0.01);
    // Control: the second eigenvector is stationary, too, and a saddle (C6).
    let other = on_profile(&tasks, &[root(4), root(0)], None);
    let found = judge(&tasks, &other, false);
    assert_eq!(found.verdict, PointVerdict::StrictSaddle, "{found:?}");
    assert_eq!(found.global, Globality::No);
}

#[test]
fn a_run_to_infinity_is_diverging() {
    // C6, T = 2: U_t = s u + x_t / s has R_1 - R_2 near u (x_1 - x_2)^T + (x_1 - x_2) u^T; the best
    // such x are a critical value at infinity, approached like s^-2.
    let mut stream = Seed::root(5).stream();
    let d = 5;
    let left = normals(&mut stream, 2, d, 2);
    let tasks = tasks_of(&Mat::zeros(d, d), &left, &left);
    let mut m = Mat::<f64>::zeros(d, d);
    kernel::mul(m.as_mut(), left[0].as_ref(), left[0].transpose(), 1.0);
    kernel::mul_add(m.as_mut(), left[1].as_ref(), left[1].transpose(), -1.0);
    let (_, vectors) = peftml_linalg::decompose::symmetric_eigen(m.as_ref()).unwrap();
    let u = vectors.as_ref().subcols(d - 1, 1).to_owned();
    // M u = w: the best x = x_1 - x_2 has u x^T + x u^T = M on u: x = w - u (u^T w) / 2.
    let mut w = Mat::<f64>::zeros(d, 1);
    kernel::mul(w.as_mut(), m.as_ref(), u.as_ref(), 1.0);
    let overlap = kernel::inner(u.as_ref(), w.as_ref());
    let x = Mat::from_fn(d, 1, |i, _| w[(i, 0)] - 0.5 * overlap * u[(i, 0)]);
    let at = |s: f64| {
        let side =
            |sign: f64| Mat::from_fn(d, 1, |i, _| s * u[(i, 0)] + sign * 0.5 / s * x[(i, 0)]);
        on_profile(&tasks, &[side(1.0), side(-1.0)], None)
    };
    for s in [300.0, 3e3] {
        let found = judge(&tasks, &at(s), false);
        assert_eq!(found.verdict, PointVerdict::Diverging, "{found:?}");
    }
    // Control: the same family at the size of the problem is not.
    assert_ne!(judge(&tasks, &at(1.0), false).verdict, PointVerdict::Diverging);
    // Control: a far but exact solution (U* Q with a hyperbolic Q) is a global minimum.
    let stretch = 1e3_f64;
    let (c, h) = ((1.0 + stretch * stretch).sqrt(), stretch);
    let turned =
        |a: f64, b: f64| Mat::from_fn(d, 2, |i, j| a * left[0][(i, j)] + b * left[1][(i, j)]);
    let far = on_profile(&tasks, &[turned(c, h), turned(h, c)], None);
    let found = judge(&tasks, &far, true);
    assert_eq!(found.verdict, PointVerdict::GlobalMinimum, "{found:?}");
}

#[test]
fn wide_rank_deficient_adapters_have_fewer_gauge_directions() {
    // [u_t, 0, 0] for the integer instance's minimum: the empty columns see sym G_t, which is
    // indefinite there. Gauge: u W has rank 2 of 3.
    let (tasks, centre) = integer_instance();
    let point = polished(&tasks, &on_profile(&tasks, &centre, None));
    let wide: Vec<Mat<f64>> = (0..3)
        .map(|t| Mat::from_fn(4, 3, |i, j| if j == 0 { point.left(t)[(i, 0)] } else { 0.0 }))
        .collect();
    let found = judge(&tasks, &on_profile(&tasks, &wide, None), true);
    assert_eq!(found.gauge_dimension, 3 * 2);
    assert_eq!(found.verdict, PointVerdict::StrictSaddle, "{found:?}");
    // As asymmetric: (u X, -v X^T) has rank 2k - 1 = 5 of 9.
    let right = wide.clone();
    let found = judge(&tasks, &on_profile(&tasks, &wide, Some(&right)), true);
    assert_eq!(found.gauge_dimension, 3 * 5);
    assert_eq!(found.verdict, PointVerdict::StrictSaddle, "{found:?}");
}

#[test]
fn verdicts_do_not_depend_on_the_split_between_the_factors() {
    let mut stream = Seed::root(6).stream();
    let (left, right) = (normals(&mut stream, 3, 7, 2), normals(&mut stream, 3, 7, 2));
    let tasks = tasks_of(&Mat::zeros(7, 7), &left, &right);
    let scaled = |m: &[Mat<f64>], factor: f64| -> Vec<Mat<f64>> {
        m.iter().map(|m| Mat::from_fn(7, 2, |i, j| factor * m[(i, j)])).collect()
    };
    for factor in [1.0, 1e4, 1e-7] {
        let point = on_profile(&tasks, &scaled(&left, factor), Some(&scaled(&right, 1.0 / factor)));
        let found = judge(&tasks, &point, true);
        assert_eq!(found.verdict, PointVerdict::GlobalMinimum, "{factor}: {found:?}");
        let off =
            on_profile(&tasks, &scaled(&left, factor * 1.1), Some(&scaled(&right, 1.0 / factor)));
        assert_eq!(judge(&tasks, &off, true).verdict, PointVerdict::NotStationary);
    }
}

fn sampled(stream: &mut Stream, left: &[Mat<f64>], n: usize, noise_std: f64) -> Tasks {
    let d = left[0].nrows();
    let truth = tasks_of(&Mat::zeros(d, d), left, left);
    let tasks = (0..left.len()).map(|t| {
        let x = stream.normal_matrix(d, n, 1.0);
        let mut y = stream.normal_matrix(d, n, noise_std);
        kernel::mul_add(y.as_mut(), truth.task(t).least_squares(), x.as_ref(), 1.0);
        Task::from_samples(t, x.as_ref(), y.as_ref()).unwrap()
    });
    Tasks::new(tasks.collect(), UNIT).unwrap()
}

#[test]
fn two_sampled_tasks_have_a_degenerate_minimum() {
    // C6: the minima are an orbit of O(k,k), of dimension k^2 modulo gauge; k^2 = 4 flat directions.
    let mut stream = Seed::root(10).stream();
    let left = normals(&mut stream, 2, 6, 2);
    let tasks = sampled(&mut stream, &left, 300, 0.05);
    let point = polished(&tasks, &on_profile(&tasks, &left, None));
    let found = judge(&tasks, &point, false);
    assert_eq!(found.verdict, PointVerdict::DegenerateMinimum, "{found:?}");
    assert!(found.loss > 1e-6 && found.global == Globality::Unknown);
}

#[test]
fn sampled_tasks_have_a_strict_minimum_of_unknown_globality() {
    for kind in [Kind::Symmetric, Kind::Asymmetric] {
        let mut stream = Seed::root(7).child(kind.name()).stream();
        let (d, k, count, n) = (6, 1, 3, 400);
        let left = normals(&mut stream, count, d, k);
        let tasks = sampled(&mut stream, &left, n, 0.05);
        let right = (kind == Kind::Asymmetric).then_some(left.as_slice());
        let start = on_profile(&tasks, &left, right);
        assert_eq!(judge(&tasks, &start, false).verdict, PointVerdict::NotStationary);
        let point = polished(&tasks, &start);
        let found = judge(&tasks, &point, false);
        assert_eq!(found.verdict, PointVerdict::StrictLocalMinimum, "{found:?}");
        assert_eq!((found.global, found.compared_with), (Globality::Unknown, None));
        let known = Known { zero_is_attained: false, solver_value: Some(found.loss) };
        let found = assess(&tasks, &point, known, &Seed::root(0)).unwrap();
        assert_eq!(found.global, Globality::Unknown);
        assert_eq!(found.compared_with, Some(Reference::GlobalSolver));
    }
}

#[test]
fn many_unknowns_are_judged_by_lanczos() {
    let (d, k, count) = (60, 3, 5);
    let mut stream = Seed::root(8).stream();
    let left = normals(&mut stream, count, d, k);
    let tasks = tasks_of(&Mat::zeros(d, d), &left, &left);
    assert!(d * k * count > curvature::DENSE);
    let truth = Point::new(&tasks, Mat::zeros(d, d), left, None, UNIT).unwrap();
    let found = judge(&tasks, &truth, true);
    assert_eq!(found.verdict, PointVerdict::GlobalMinimum, "{found:?}");
    assert!(found.curvature > 0.0 && found.rho.unwrap() > 0.0, "{found:?}");
    let zero = vec![Mat::<f64>::zeros(d, k); count];
    let found = judge(&tasks, &on_profile(&tasks, &zero, None), true);
    assert_eq!(found.verdict, PointVerdict::StrictSaddle, "{found:?}");
}

#[test]
fn rho_of_orthogonal_tasks_is_the_closed_form() {
    // theory.md C5: (T-2)/T for mutually orthogonal tasks.
    for count in 3..6 {
        let left: Vec<Mat<f64>> =
            (0..count).map(|t| Mat::from_fn(6, 1, |i, _| if i == t { 2.0 } else { 0.0 })).collect();
        let tasks = tasks_of(&Mat::zeros(6, 6), &left, &left);
        let point = Point::new(&tasks, Mat::zeros(6, 6), left, None, UNIT).unwrap();
        let rho = judge(&tasks, &point, true).rho.unwrap();
        assert!((rho - (count as f64 - 2.0) / count as f64).abs() < 1e-12, "{rho}");
    }
}

#[test]
fn what_is_no_point_is_a_typed_error() {
    let (tasks, centre) = integer_instance();
    let base = Mat::<f64>::zeros(4, 4);
    let new = |left: Vec<Mat<f64>>| Point::new(&tasks, base.clone(), left, None, UNIT);
    assert!(matches!(new(vec![]), Err(OptimalityError::Rank { rank: 0, .. })));
    assert!(matches!(new(centre[..2].to_vec()), Err(OptimalityError::Count { found: 2, .. })));
    let wide = vec![Mat::<f64>::zeros(4, 5); 3];
    assert!(matches!(new(wide), Err(OptimalityError::Rank { rank: 5, dimension: 4 })));
    let mut bad = centre.clone();
    bad[1][(2, 0)] = f64::NAN;
    assert!(matches!(new(bad.clone()), Err(OptimalityError::NotFinite { task: 1, row: 2, .. })));
    bad[1][(2, 0)] = 1e300;
    assert!(matches!(new(bad), Err(OptimalityError::NotFinite { .. })));
    let short = vec![Mat::<f64>::zeros(3, 1); 3];
    assert!(matches!(new(short), Err(OptimalityError::Shape { rows: 3, .. })));
    let point = new(centre).unwrap();
    let known = Known { zero_is_attained: false, solver_value: Some(f64::NAN) };
    assert!(matches!(
        assess(&tasks, &point, known, &Seed::root(0)),
        Err(OptimalityError::Reference { .. })
    ));
    let layout = Layout::repeated("U", 2, 4, 1);
    let two = Blocks::zeros(layout);
    assert!(Point::from_blocks(&tasks, Mat::zeros(4, 4), &two, Kind::Symmetric).is_err());
}
