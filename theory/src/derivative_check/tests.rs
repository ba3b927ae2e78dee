use super::*;
use crate::linear::{Kind, ProfileObjective, Task, Tasks};
use crate::objective::Gauge;
use faer::Mat;
use peftml_linalg::{Layout, Seed, Stream, kernel};

/// What is wrong with a planted objective.
#[derive(Clone, Copy)]
enum Fault {
    Gradient,
    Hessian,
    /// The Gauss-Newton product in place of the Hessian's.
    GaussNewton,
}

/// An objective with a fault of relative size `size`.
struct Faulty<'a> {
    inner: &'a ProfileObjective<'a>,
    fault: Fault,
    size: f64,
}

impl Objective for Faulty<'_> {
    fn layout(&self) -> &Layout {
        self.inner.layout()
    }
    fn work_len(&self) -> usize {
        self.inner.work_len()
    }
    fn value(&self, x: &Blocks, work: &mut [f64]) -> f64 {
        self.inner.value(x, work)
    }
    fn gradient(&self, x: &Blocks, out: &mut Blocks, work: &mut [f64]) -> f64 {
        let value = self.inner.gradient(x, out, work);
        if matches!(self.fault, Fault::Gradient) {
            out.scale(1.0 + self.size);
        }
        value
    }
    fn hessian_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        match self.fault {
            Fault::GaussNewton => self.inner.gauss_newton_product(x, v, out, work),
            Fault::Hessian => {
                self.inner.hessian_product(x, v, out, work);
                out.scale(1.0 + self.size);
            }
            Fault::Gradient => self.inner.hessian_product(x, v, out, work),
        }
    }
    fn gauss_newton_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.inner.gauss_newton_product(x, v, out, work);
    }
    fn gauge(&self) -> Gauge {
        self.inner.gauge()
    }
}

fn exact_tasks(stream: &mut Stream, d: usize, count: usize) -> Tasks {
    Tasks::exact((0..count).map(|_| stream.normal_matrix(d, d, 1.0))).unwrap()
}

fn sampled_tasks(stream: &mut Stream, d: usize, count: usize) -> Tasks {
    let tasks = (0..count)
        .map(|t| {
            let x = stream.normal_matrix(d, 2 * d + 1, 1.0);
            let y = stream.normal_matrix(d, 2 * d + 1, 1.0);
            Task::from_samples(t, x.as_ref(), y.as_ref()).unwrap()
        })
        .collect();
    Tasks::new(tasks, f64::EPSILON / 2.0).unwrap()
}

/// Every combination of sizes, kind and source.
fn for_all(mut check: impl FnMut(&ProfileObjective<'_>, &mut Stream, String)) {
    for (d, k, count) in [(1, 1, 2), (3, 1, 2), (4, 2, 3), (5, 5, 3), (8, 3, 5)] {
        for sampled in [false, true] {
            for kind in [Kind::Symmetric, Kind::Asymmetric] {
                let name = format!("d={d} k={k} T={count} sampled={sampled} {}", kind.name());
                let mut stream = Seed::root(4).child(name.as_str()).stream();
                let tasks = if sampled {
                    sampled_tasks(&mut stream, d, count)
                } else {
                    exact_tasks(&mut stream, d, count)
                };
                check(&ProfileObjective::new(&tasks, kind, k).unwrap(), &mut stream, name);
            }
        }
    }
}

fn draw(objective: &dyn Objective, stream: &mut Stream) -> Blocks {
    let mut x = Blocks::zeros(objective.layout().clone());
    stream.fill_normal(1.0, x.as_mut_slice());
    x
}

#[test]
fn the_profile_objective_has_the_derivatives_that_it_says() {
    for_all(|objective, stream, name| {
        for _ in 0..3 {
            let (x, v) = (draw(objective, stream), draw(objective, stream));
            let first = gradient(objective, &x, &v).unwrap();
            assert!(first.passes(), "{name}: {first:?}");
            let second = hessian_product(objective, &x, &v).unwrap();
            assert!(second.passes(), "{name}: {second:?}");
        }
    });
}

#[test]
fn one_task_has_the_objective_zero() {
    for sampled in [false, true] {
        let mut stream = Seed::root(6).stream();
        let tasks =
            if sampled { sampled_tasks(&mut stream, 4, 1) } else { exact_tasks(&mut stream, 4, 1) };
        let objective = ProfileObjective::new(&tasks, Kind::Symmetric, 2).unwrap();
        let x = draw(&objective, &mut stream);
        let mut work = vec![0.0; objective.work_len()];
        let mut g = x.zeros_like();
        let value = objective.gradient(&x, &mut g, &mut work);
        // A = Ahat - R up to rounding of terms of norm below 20, times cond(S) below 1e3.
        let error = 20.0 * 1e3 * 10.0 * f64::EPSILON;
        assert!(value.abs() < error * error && g.norm() < 20.0 * error);
    }
}

#[test]
fn planted_errors_are_seen() {
    for_all(|objective, stream, name| {
        let (x, v) = (draw(objective, stream), draw(objective, stream));
        for size in [-2.0, 1e-2, 1e-5] {
            let faulty = Faulty { inner: objective, fault: Fault::Gradient, size };
            let check = gradient(&faulty, &x, &v).unwrap();
            assert!(!check.passes(), "{name}, gradient off by {size}: {check:?}");
            let faulty = Faulty { inner: objective, fault: Fault::Hessian, size };
            let check = hessian_product(&faulty, &x, &v).unwrap();
            assert!(!check.passes(), "{name}, Hessian off by {size}: {check:?}");
        }
        let faulty = Faulty { inner: objective, fault: Fault::GaussNewton, size: 0.0 };
        assert!(!hessian_product(&faulty, &x, &v).unwrap().passes(), "{name}: Gauss-Newton");
    });
}

/// `1/2 <x, D x> + cubic/6 sum x_i^3` with diagonal D.
struct Polynomial {
    layout: Layout,
    cubic: f64,
}

impl Objective for Polynomial {
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn work_len(&self) -> usize {
        0
    }
    fn value(&self, x: &Blocks, _: &mut [f64]) -> f64 {
        let terms = x.as_slice().iter().enumerate();
        terms.map(|(i, x)| 0.5 * (i as f64 - 1.0) * x * x + self.cubic / 6.0 * x * x * x).sum()
    }
    fn gradient(&self, x: &Blocks, out: &mut Blocks, work: &mut [f64]) -> f64 {
        for (i, (out, x)) in out.as_mut_slice().iter_mut().zip(x.as_slice()).enumerate() {
            *out = (i as f64 - 1.0) * x + 0.5 * self.cubic * x * x;
        }
        self.value(x, work)
    }
    fn hessian_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, _: &mut [f64]) {
        let pairs = x.as_slice().iter().zip(v.as_slice());
        for (i, (out, (x, v))) in out.as_mut_slice().iter_mut().zip(pairs).enumerate() {
            *out = (i as f64 - 1.0 + self.cubic * x) * v;
        }
    }
    fn gauss_newton_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.hessian_product(x, v, out, work);
    }
    fn gauge(&self) -> Gauge {
        Gauge::None
    }
}

#[test]
fn quadratics_are_the_exact_case_and_cubics_have_the_slopes() {
    let mut stream = Seed::root(5).stream();
    for cubic in [0.0, 2.0] {
        let f = Polynomial { layout: Layout::repeated("x", 1, 6, 1), cubic };
        let (x, v) = (draw(&f, &mut stream), draw(&f, &mut stream));
        let first = gradient(&f, &x, &v).unwrap();
        let second = hessian_product(&f, &x, &v).unwrap();
        assert!(first.passes() && second.passes());
        assert_eq!(second.central.order, Order::Exact);
        assert_eq!(first.central.order == Order::Exact, cubic == 0.0, "{first:?}");
        assert_eq!(second.forward.order == Order::Exact, cubic == 0.0, "{second:?}");
        if cubic != 0.0 {
            let Order::Slope(slope) = first.central.order else { panic!("{first:?}") };
            assert!((slope - 3.0).abs() < 0.05);
        }
    }
}

#[test]
fn nothing_is_seen_along_zero() {
    let f = Polynomial { layout: Layout::repeated("x", 1, 2, 1), cubic: 0.0 };
    let x = Blocks::zeros(f.layout.clone());
    assert_eq!(gradient(&f, &x, &x), Err(DerivativeCheckError::Direction));
    let other = Blocks::zeros(Layout::repeated("y", 1, 2, 1));
    assert!(matches!(gradient(&f, &other, &x), Err(DerivativeCheckError::Layout { .. })));
}

/// `1/(2T) sum_t tr((A + R_t - Ahat_t) S_t (..)^T)`, entry by entry.
fn joint_value(objective: &ProfileObjective<'_>, x: &Blocks, a: &Mat<f64>) -> f64 {
    let tasks = objective.tasks();
    let d = tasks.dimension();
    let identity = Mat::identity(d, d);
    let mut sum = 0.0;
    for t in 0..tasks.count() {
        let right = match objective.kind() {
            Kind::Symmetric => x.block(t),
            Kind::Asymmetric => x.block(tasks.count() + t),
        };
        let mut e = Mat::from_fn(d, d, |i, j| a[(i, j)] - tasks.task(t).least_squares()[(i, j)]);
        kernel::mul_add(e.as_mut(), x.block(t), right.transpose(), 1.0);
        let s = tasks.task(t).second_moment().unwrap_or(identity.as_ref());
        for i in 0..d {
            for j in 0..d {
                for l in 0..d {
                    sum += e[(i, j)] * s[(j, l)] * e[(i, l)];
                }
            }
        }
    }
    sum / (2.0 * tasks.count() as f64)
}

#[test]
fn the_base_is_the_minimiser_for_fixed_adapters() {
    for_all(|objective, stream, name| {
        let tasks = objective.tasks();
        let d = tasks.dimension();
        let x = draw(objective, stream);
        let base = objective.base(&x);
        let least = joint_value(objective, &x, &base);
        let mut work = vec![0.0; objective.work_len()];
        let value = objective.value(&x, &mut work);
        // Rounding: each entry of E_t carries about (d + k + 3) u of the sizes that it is summed from
        // (here at most 30 in norm), S at most 10 in norm; the value at most 2 |E| |S| times that.
        let size = 30.0 * (1.0 + value.sqrt()) * 10.0;
        let allowed = 40.0 * f64::EPSILON * size;
        assert!((least - value).abs() < allowed, "{name}: {least} against {value}");
        // J(A + D) - J(A) = 1/(2T) tr(D (sum_t S_t) D^T): the closed form of a quadratic's minimum;
        // with the opposite sign of A, or T-fold A, the linear term would stand out.
        let step = stream.normal_matrix(d, d, 1.0);
        let moved = Mat::from_fn(d, d, |i, j| base[(i, j)] + step[(i, j)]);
        let mut curvature = 0.0;
        let identity = Mat::identity(d, d);
        for task in tasks.iter() {
            let mut product = Mat::zeros(d, d);
            let s = task.second_moment().unwrap_or(identity.as_ref());
            kernel::mul(product.as_mut(), step.as_ref(), s, 1.0);
            curvature += kernel::inner(product.as_ref(), step.as_ref());
        }
        curvature /= 2.0 * tasks.count() as f64;
        let rise = joint_value(objective, &x, &moved) - least;
        assert!((rise - curvature).abs() < allowed * 10.0, "{name}: {rise} against {curvature}");
        // Control: from another base the rise is not the quadratic's.
        let off = Mat::from_fn(d, d, |i, j| base[(i, j)] + 1e-6 * step[(i, j)]);
        let back = Mat::from_fn(d, d, |i, j| off[(i, j)] + step[(i, j)]);
        let rise = joint_value(objective, &x, &back) - joint_value(objective, &x, &off);
        assert!((rise - curvature).abs() > 1e-7 * curvature, "{name}: control passes");
    });
}
