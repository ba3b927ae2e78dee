//! Laws of the shallow objectives, over shapes.

use super::*;
use crate::derivative_check;
use crate::linear::Kind;
use crate::objective::Objective;
use faer::{Col, Mat};
use peftml_linalg::{Blocks, Seed, Stream};

struct Case {
    sizes: Sizes,
    adapters: Option<Adapters>,
    counts: Vec<usize>,
}

/// Shapes that meet every tile's remainder, several blocks and incomplete quads.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (inputs, hidden, biases) in
        [(1, 1, false), (3, 7, true), (10, 10, false), (6, 4, false), (21, 21, true)]
    {
        let sizes = Sizes { inputs, hidden, biases };
        for rank in [1, 2, 4] {
            let asymmetric = Some(Adapters { kind: Kind::Asymmetric, rank });
            cases.push(Case { sizes, adapters: asymmetric, counts: vec![5, 400, 33] });
            if inputs == hidden {
                let symmetric = Some(Adapters { kind: Kind::Symmetric, rank });
                cases.push(Case { sizes, adapters: symmetric, counts: vec![101, 64] });
            }
        }
        cases.push(Case { sizes, adapters: None, counts: vec![9, 130] });
    }
    cases
}

struct Data {
    inputs: Vec<Mat<f64>>,
    labels: Vec<Col<f64>>,
    samples: Vec<Samples>,
}

fn data(case: &Case, stream: &mut Stream) -> Data {
    let d = case.sizes.inputs;
    let inputs: Vec<_> = case.counts.iter().map(|n| stream.normal_matrix(d, *n, 1.0)).collect();
    let labels: Vec<_> =
        case.counts.iter().map(|n| Col::from_fn(*n, |_| stream.normal())).collect();
    let samples = inputs
        .iter()
        .zip(&labels)
        .map(|(x, y)| Samples::new(case.sizes, x.as_ref(), y.as_ref()).unwrap())
        .collect();
    Data { inputs, labels, samples }
}

fn random(objective: &dyn Objective, std: f64, stream: &mut Stream) -> Blocks {
    let mut x = Blocks::zeros(objective.layout().clone());
    stream.fill_normal(std, x.as_mut_slice());
    x
}

/// The objective as its header states it, one scalar at a time.
fn naive_value(case: &Case, data: &Data, x: &Blocks) -> f64 {
    let mut value = 0.0;
    for (t, (inputs, labels)) in data.inputs.iter().zip(&data.labels).enumerate() {
        let mut first = x.named("W").unwrap().to_owned();
        if let Some(adapters) = case.adapters {
            let u = x.named(&format!("U{t}")).unwrap();
            let v = match adapters.kind {
                Kind::Symmetric => u,
                Kind::Asymmetric => x.named(&format!("V{t}")).unwrap(),
            };
            first = &first + u * v.transpose();
        }
        let mut sum = 0.0;
        for s in 0..inputs.ncols() {
            let mut y = x.named("b_out").map_or(0.0, |b| b[(0, 0)]);
            for i in 0..case.sizes.hidden {
                let mut z = x.named("b").map_or(0.0, |b| b[(i, 0)]);
                for j in 0..case.sizes.inputs {
                    z += first[(i, j)] * inputs[(j, s)];
                }
                y += x.named("c").unwrap()[(i, 0)] / (1.0 + (-z).exp());
            }
            sum += (y - labels[s]).powi(2);
        }
        value += sum / inputs.ncols() as f64;
    }
    value
}

#[test]
fn the_value_is_the_formula() {
    let mut stream = Seed::root(1).child("shallow").stream();
    for case in cases() {
        let data = data(&case, &mut stream);
        let f = RetrainingObjective::new(case.sizes, case.adapters, &data.samples).unwrap();
        let x = random(&f, 0.5, &mut stream);
        let mut work = vec![f64::NAN; f.work_len()];
        let (value, plain) = (f.value(&x, &mut work), naive_value(&case, &data, &x));
        // Sums of at most 400 positive terms, each within some 100 roundings.
        assert!((value - plain).abs() < 1e-13 * plain, "{value} {plain}");
        let mut g = x.zeros_like();
        assert_eq!(f.gradient(&x, &mut g, &mut work), value);
    }
}

#[test]
fn gradients_and_hessian_products_have_the_right_slopes() {
    let mut stream = Seed::root(2).child("shallow").stream();
    for case in cases() {
        let data = data(&case, &mut stream);
        let f = RetrainingObjective::new(case.sizes, case.adapters, &data.samples).unwrap();
        let (x, v) = (random(&f, 0.5, &mut stream), random(&f, 0.5, &mut stream));
        let gradient = derivative_check::gradient(&f, &x, &v).unwrap();
        assert!(gradient.passes(), "{:?} {gradient:?}", case.sizes);
        let hessian = derivative_check::hessian_product(&f, &x, &v).unwrap();
        assert!(hessian.passes(), "{:?} {hessian:?}", case.sizes);

        let Some(adapters) = case.adapters else { continue };
        let network = Network::from_blocks(case.sizes, &x).unwrap();
        let f = FineTuningObjective::new(&network, adapters, &data.samples[0]).unwrap();
        let (x, v) = (random(&f, 0.5, &mut stream), random(&f, 0.5, &mut stream));
        let gradient = derivative_check::gradient(&f, &x, &v).unwrap();
        assert!(gradient.passes(), "fine-tuning {:?} {gradient:?}", case.sizes);
        let hessian = derivative_check::hessian_product(&f, &x, &v).unwrap();
        assert!(hessian.passes(), "fine-tuning {:?} {hessian:?}", case.sizes);
    }
}

/// Columns of the dense matrix, spread over all blocks, against products; the Hessian is another one.
#[test]
fn the_dense_gauss_newton_matrix_is_that_of_the_products() {
    let mut stream = Seed::root(6).child("shallow").stream();
    for case in cases() {
        let data = data(&case, &mut stream);
        let f = RetrainingObjective::new(case.sizes, case.adapters, &data.samples).unwrap();
        let x = random(&f, 0.5, &mut stream);
        dense_is_products(&f, &x, case.sizes);
        let Some(adapters) = case.adapters else { continue };
        let network = Network::from_blocks(case.sizes, &x).unwrap();
        let f = FineTuningObjective::new(&network, adapters, &data.samples[0]).unwrap();
        let x = random(&f, 0.5, &mut stream);
        dense_is_products(&f, &x, case.sizes);
    }
}

fn dense_is_products(f: &dyn Objective, x: &Blocks, sizes: Sizes) {
    let n = x.as_slice().len();
    let mut dense = Mat::from_fn(n, n, |_, _| f64::NAN);
    f.gauss_newton_matrix(x, dense.as_mut(), &mut vec![f64::NAN; f.work_len()]);
    let (mut unit, mut product, mut full) = (x.zeros_like(), x.zeros_like(), x.zeros_like());
    let mut work = vec![0.0; f.work_len()];
    let (mut error, mut residual_terms) = (0.0_f64, 0.0_f64);
    for j in (0..n).step_by(n.div_ceil(60)) {
        unit.as_mut_slice()[j] = 1.0;
        f.gauss_newton_product(x, &unit, &mut product, &mut work);
        f.hessian_product(x, &unit, &mut full, &mut work);
        unit.as_mut_slice()[j] = 0.0;
        for (i, (value, full)) in product.as_slice().iter().zip(full.as_slice()).enumerate() {
            error = error.max((dense[(i, j)] - value).abs());
            residual_terms = residual_terms.max((full - value).abs());
        }
    }
    // Sums of 400 products: some 400 roundings of their largest.
    assert!(error < 1e-13 * dense.norm_max(), "{sizes:?} {error}");
    assert!(residual_terms > 1e-3 * dense.norm_max(), "{sizes:?}: no teeth");
}

/// Wrong by one part in 10^6 of one block: the slopes must see it.
struct Wrong<'a>(RetrainingObjective<'a>);

impl Objective for Wrong<'_> {
    fn layout(&self) -> &peftml_linalg::Layout {
        self.0.layout()
    }
    fn work_len(&self) -> usize {
        self.0.work_len()
    }
    fn value(&self, x: &Blocks, work: &mut [f64]) -> f64 {
        self.0.value(x, work)
    }
    fn gradient(&self, x: &Blocks, out: &mut Blocks, work: &mut [f64]) -> f64 {
        let value = self.0.gradient(x, out, work);
        out.block_mut(1)[(0, 0)] *= 1.0 + 1e-6;
        value
    }
    fn hessian_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.0.gauss_newton_product(x, v, out, work);
    }
    fn gauss_newton_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.0.gauss_newton_product(x, v, out, work);
    }
    fn gauge(&self) -> crate::Gauge {
        self.0.gauge()
    }
}

#[test]
fn slopes_see_a_gradient_off_by_a_millionth_and_a_hessian_without_its_residual_terms() {
    let mut stream = Seed::root(3).child("shallow").stream();
    let case = cases().swap_remove(8);
    let data = data(&case, &mut stream);
    let f = Wrong(RetrainingObjective::new(case.sizes, case.adapters, &data.samples).unwrap());
    let (x, v) = (random(&f, 0.5, &mut stream), random(&f, 0.5, &mut stream));
    assert!(!derivative_check::gradient(&f, &x, &v).unwrap().passes());
    assert!(!derivative_check::hessian_product(&f, &x, &v).unwrap().passes());
}

/// Where every residual is zero the Gauss-Newton matrix is the Hessian; elsewhere it is not, and is
/// positive semidefinite all the same.
#[test]
fn gauss_newton_is_the_hessian_at_an_exact_fit() {
    let mut stream = Seed::root(4).child("shallow").stream();
    let sizes = Sizes { inputs: 5, hidden: 6, biases: true };
    let adapters = Adapters { kind: Kind::Asymmetric, rank: 2 };
    let x = stream.normal_matrix(5, 50, 1.0);
    let mut truth = Network::zeros(sizes).unwrap();
    stream.fill_normal(1.0, truth.weights_mut().as_mut_slice());
    let (u, v) = (stream.normal_matrix(6, 2, 1.0), stream.normal_matrix(5, 2, 1.0));
    let labels = truth.adapted(u.as_ref(), v.as_ref()).unwrap().outputs(x.as_ref()).unwrap();
    let samples = [Samples::new(sizes, x.as_ref(), labels.as_ref()).unwrap()];
    let retraining = RetrainingObjective::new(sizes, Some(adapters), &samples).unwrap();
    let fine_tuning = FineTuningObjective::new(&truth, adapters, &samples[0]).unwrap();
    for (f, blocks) in [(&retraining as &dyn Objective, 4), (&fine_tuning, 0)] {
        let mut point = Blocks::zeros(f.layout().clone());
        for i in 0..blocks {
            point.block_mut(i).copy_from(truth.weights().block(i));
        }
        point.block_mut(blocks).copy_from(&u);
        point.block_mut(blocks + 1).copy_from(&v);
        let mut work = vec![0.0; f.work_len()];
        assert!(f.value(&point, &mut work) < 1e-28);
        let direction = random(f, 1.0, &mut stream);
        let (mut full, mut gauss_newton) = (point.zeros_like(), point.zeros_like());
        f.hessian_product(&point, &direction, &mut full, &mut work);
        f.gauss_newton_product(&point, &direction, &mut gauss_newton, &mut work);
        let size = full.norm();
        full.add_scaled(-1.0, &gauss_newton);
        assert!(full.norm() < 1e-12 * size && size > 0.0);
        let elsewhere = random(f, 1.0, &mut stream);
        f.hessian_product(&elsewhere, &direction, &mut full, &mut work);
        f.gauss_newton_product(&elsewhere, &direction, &mut gauss_newton, &mut work);
        assert!(gauss_newton.dot(&direction) > 0.0);
        full.add_scaled(-1.0, &gauss_newton);
        assert!(full.norm() > 1e-3 * size);
    }
}

#[test]
fn fine_tuning_is_retraining_with_the_base_held() {
    let mut stream = Seed::root(5).child("shallow").stream();
    for case in cases() {
        let Some(adapters) = case.adapters else { continue };
        let data = data(&case, &mut stream);
        let all = RetrainingObjective::new(case.sizes, Some(adapters), &data.samples[..1]).unwrap();
        let x = random(&all, 0.5, &mut stream);
        let network = Network::from_blocks(case.sizes, &x).unwrap();
        let f = FineTuningObjective::new(&network, adapters, &data.samples[0]).unwrap();
        let mut adapter = Blocks::zeros(f.layout().clone());
        let skip = x.as_slice().len() - adapter.as_slice().len();
        adapter.as_mut_slice().copy_from_slice(&x.as_slice()[skip..]);
        let (mut g, mut part) = (x.zeros_like(), adapter.zeros_like());
        let value = all.gradient(&x, &mut g, &mut vec![f64::NAN; all.work_len()]);
        let mut work = vec![f64::NAN; f.work_len()];
        let same = f.gradient(&adapter, &mut part, &mut work);
        // The products associate otherwise: (W + U V^T) x against W x + U (V^T x).
        assert!((value - same).abs() < 1e-12 * value);
        assert_eq!(f.value(&adapter, &mut work), same);
        let error = g.as_slice()[skip..]
            .iter()
            .zip(part.as_slice())
            .fold(0.0, |worst: f64, (a, b)| worst.max((a - b).abs()));
        assert!(error < 1e-11 * part.max_abs(), "{:?}", case.sizes);
        let tuned = f.network_at(&adapter).unwrap();
        let direct = tuned.mean_squared_error(&data.samples[0]).unwrap();
        assert!((direct - value).abs() < 1e-12 * value);
        let outputs = tuned.outputs(data.inputs[0].as_ref()).unwrap();
        let plain = (&outputs - &data.labels[0]).squared_norm_l2() / outputs.nrows() as f64;
        assert!((plain - value).abs() < 1e-12 * value);
    }
}

#[test]
fn what_is_not_defined_is_refused() {
    let wide = Sizes { inputs: 3, hidden: 4, biases: false };
    let symmetric = Adapters { kind: Kind::Symmetric, rank: 1 };
    assert!(matches!(symmetric.layout(wide, 1), Err(ShallowError::NotSquare { .. })));
    let none = Adapters { kind: Kind::Asymmetric, rank: 0 };
    assert!(matches!(none.layout(wide, 1), Err(ShallowError::Zero { .. })));
    assert!(matches!(RetrainingObjective::new(wide, None, &[]), Err(ShallowError::NoTasks)));
    let x = Mat::zeros(2, 4);
    let samples = [Samples::new(Sizes::square(2), x.as_ref(), Col::zeros(4).as_ref()).unwrap()];
    assert!(matches!(
        RetrainingObjective::new(wide, None, &samples),
        Err(ShallowError::Sizes { task: 0, .. })
    ));
}
