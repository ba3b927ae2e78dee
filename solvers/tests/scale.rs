//! The global solver that passes over its matrices: right to rounding, four passes, bits that do not depend
//! on workers or on how the matrices lie.

use faer::{Mat, MatRef};
use peftml_linalg::{LowRank, Seed, Sequential, Stream, Workers, compare, decompose, kernel};
use peftml_solvers::iterate::Silent;
use peftml_solvers::low_rank::Global;
use peftml_solvers::{BaseSolver, Problem, Solution, SolveError};
use peftml_theory::linear::{
    GroundTruth, Identification, Kind, LinearError, Task, TaskMatrices, Tasks,
};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

const KINDS: [Kind; 2] = [Kind::Symmetric, Kind::Asymmetric];

fn draw(kind: Kind, d: usize, k: usize, count: usize, seed: &Seed) -> GroundTruth {
    let mut stream = seed.stream();
    let mut base = stream.normal_matrix(d, d, 1.0);
    if kind == Kind::Symmetric {
        kernel::symmetrise(base.as_mut());
    }
    let offset = |stream: &mut Stream| {
        let u = stream.normal_matrix(d, k, 1.0);
        match kind {
            Kind::Symmetric => LowRank::symmetric(u),
            Kind::Asymmetric => LowRank::new(u, stream.normal_matrix(d, k, 1.0)).unwrap(),
        }
    };
    GroundTruth { offsets: (0..count).map(|_| offset(&mut stream)).collect(), base, kind }
}

fn exact(truth: &GroundTruth) -> Tasks {
    Tasks::exact((0..truth.count()).map(|t| truth.task(t))).unwrap()
}

fn solve(source: &dyn TaskMatrices, kind: Kind, k: usize) -> Result<Solution, SolveError> {
    Global::default().solve_matrices(source, kind, k, &Sequential)
}

fn rho_of(truth: &GroundTruth) -> f64 {
    let basis = |m: MatRef<'_, f64>| decompose::orthonormal_basis(m);
    let left: Vec<_> = truth.offsets.iter().map(|o| basis(o.left())).collect();
    let right: Vec<_> = truth.offsets.iter().map(|o| basis(o.right())).collect();
    Identification::new(truth.kind, &left, &right).unwrap().rho().unwrap()
}

/// Counts the numbers asked for; may hand out rows instead of columns.
struct Counting<'a> {
    tasks: &'a Tasks,
    transposes: Option<Vec<Mat<f64>>>,
    columns: AtomicUsize,
}

impl<'a> Counting<'a> {
    fn new(tasks: &'a Tasks, transposed: bool) -> Self {
        let transpose = |t: &Task| t.least_squares().transpose().to_owned();
        let transposes = transposed.then(|| tasks.iter().map(transpose).collect());
        Self { tasks, transposes, columns: AtomicUsize::new(0) }
    }

    /// Passes over all matrices.
    fn passes(&self) -> f64 {
        let all = self.tasks.count() * self.tasks.dimension();
        self.columns.load(Ordering::Relaxed) as f64 / all as f64
    }
}

impl TaskMatrices for Counting<'_> {
    fn dimension(&self) -> usize {
        self.tasks.dimension()
    }

    fn count(&self) -> usize {
        self.tasks.count()
    }

    fn storage_roundoff(&self) -> f64 {
        self.tasks.storage_roundoff()
    }

    fn is_exact(&self) -> bool {
        self.tasks.is_exact()
    }

    fn transposed(&self) -> bool {
        self.transposes.is_some()
    }

    fn columns<'b>(
        &'b self,
        task: usize,
        columns: Range<usize>,
        _: &'b mut Vec<f64>,
    ) -> Result<MatRef<'b, f64>, LinearError> {
        self.columns.fetch_add(columns.len(), Ordering::Relaxed);
        let matrix = match &self.transposes {
            Some(transposes) => transposes[task].as_ref(),
            None => self.tasks.task(task).least_squares(),
        };
        Ok(matrix.subcols(columns.start, columns.len()))
    }
}

/// Jobs on as many threads as there are jobs, last one first.
struct Threads;

impl Workers for Threads {
    fn run(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for i in (0..count).rev() {
                scope.spawn(move || job(i));
            }
        });
    }
}

#[test]
fn exact_tasks_give_the_base_to_rounding_in_four_passes() {
    for kind in KINDS {
        // Few tasks; many (T k above d); partners beyond two (d close to 2k).
        for (d, k, count) in [(60, 3, 5), (100, 4, 16), (40, 3, 20), (20, 7, 6), (33, 1, 3)] {
            let truth = draw(kind, d, k, count, &Seed::root(21).child(kind.name()).child(d));
            let tasks = exact(&truth);
            let source = Counting::new(&tasks, false);
            let found = solve(&source, kind, k).unwrap();
            let rho = rho_of(&truth);
            let error = compare::relative_error(found.base.as_ref(), truth.base.as_ref());
            // The first-order bound of rounding; the subspaces' error enters squared.
            let limit = 20.0 * f64::EPSILON / rho;
            assert!(error <= limit, "{kind:?} {d} {k} {count}: {error:e} > {limit:e}");
            let reported = found.rho.unwrap();
            assert!((reported - rho).abs() <= 0.02 * rho, "{reported} against {rho}");
            let predicted = found.predicted_error.unwrap() / kernel::norm(truth.base.as_ref());
            assert!(error <= predicted, "{error:e} > {predicted:e}");
            if k < 7 {
                assert!(source.passes() <= 4.0, "{kind:?} {d} {k}: {} passes", source.passes());
            }
            for (adapter, offset) in found.adapters.iter().zip(&truth.offsets) {
                let (a, b) = (adapter.to_dense(), offset.to_dense());
                let error = compare::distance(a.as_ref(), b.as_ref());
                assert!(error <= limit * kernel::norm(tasks.task(0).least_squares()) * 10.0);
            }
        }
    }
}

#[test]
fn neither_workers_nor_the_order_of_the_matrices_show_in_the_answer() {
    for kind in KINDS {
        let truth = draw(kind, 50, 2, 4, &Seed::root(22).child(kind.name()));
        let tasks = exact(&truth);
        let alone = solve(&tasks, kind, 2).unwrap();
        let together = Global::default().solve_matrices(&tasks, kind, 2, &Threads).unwrap();
        assert_eq!(alone.base, together.base, "bits");
        assert_eq!(alone.adapters, together.adapters, "bits");
        let rows = solve(&Counting::new(&tasks, true), kind, 2).unwrap();
        let limit = 20.0 * f64::EPSILON / rho_of(&truth);
        assert!(compare::relative_error(rows.base.as_ref(), truth.base.as_ref()) <= limit);
        let (a, b) = (rows.adapters[1].to_dense(), truth.offsets[1].to_dense());
        assert!(compare::relative_error(a.as_ref(), b.as_ref()) < 1e-11);
        // Control: an asymmetric base is not its transpose.
        if kind == Kind::Asymmetric {
            assert!(compare::relative_error(rows.base.transpose(), truth.base.as_ref()) > 0.1);
        }
        // Another sketch: other bits, the same answer.
        let other = Global { sketch_seed: 1, ..Default::default() };
        let other = other.solve_matrices(&tasks, kind, 2, &Sequential).unwrap();
        assert!(compare::relative_error(other.base.as_ref(), truth.base.as_ref()) <= limit);
    }
}

#[test]
fn what_exact_tasks_do_not_determine_is_refused() {
    for kind in KINDS {
        let truth = draw(kind, 60, 2, 5, &Seed::root(23).child(kind.name()));
        let tasks = exact(&truth);
        assert!(solve(&tasks, kind, 2).is_ok(), "control");
        assert!(matches!(solve(&tasks, kind, 1), Err(SolveError::RankMismatch { rank: 1, .. })));
        assert!(matches!(solve(&tasks, kind, 3), Err(SolveError::RankTooLarge { rank: 3 })));
        let twice = [truth.task(0), truth.task(1), truth.task(0)];
        let answer = solve(&Tasks::exact(twice).unwrap(), kind, 2);
        assert!(
            matches!(
                answer,
                Err(SolveError::NotIdentifiable { .. } | SolveError::RankMismatch { .. })
            ),
            "{answer:?}"
        );
        let same = Tasks::exact(vec![truth.task(0); 3]).unwrap();
        assert!(matches!(solve(&same, kind, 2), Err(SolveError::RankTooLarge { rank: 2 })));
        let zero = Tasks::exact(vec![Mat::zeros(50, 50); 3]).unwrap();
        assert!(matches!(solve(&zero, kind, 2), Err(SolveError::RankTooLarge { rank: 2 })));
        // A repeated task among enough others does no harm.
        let repeated = Tasks::exact((0..5).chain([1]).map(|t| truth.task(t))).unwrap();
        let found = solve(&repeated, kind, 2).unwrap();
        assert!(compare::relative_error(found.base.as_ref(), truth.base.as_ref()) < 1e-12);
    }
}

#[test]
fn estimates_end_where_the_dense_decompositions_end() {
    for kind in KINDS {
        // Noise of the size of a tenth and of the half of the smallest offset's singular value.
        for (noise, allowed) in [(0.1, 1e-2), (3.0, 0.1)] {
            let seed = Seed::root(24).child(kind.name());
            let (d, k, count, n) = (40, 2, 5, 400);
            let truth = draw(kind, d, k, count, &seed);
            let mut stream = seed.child("samples").stream();
            let task = |t: usize, stream: &mut Stream| {
                let x = stream.normal_matrix(d, n, 1.0);
                let mut y = stream.normal_matrix(d, n, noise);
                kernel::mul_add(y.as_mut(), truth.task(t).as_ref(), x.as_ref(), 1.0);
                Task::from_samples(t, x.as_ref(), y.as_ref()).unwrap()
            };
            let all = (0..count).map(|t| task(t, &mut stream)).collect();
            let tasks = Tasks::new(all, f64::EPSILON / 2.0).unwrap();
            let dense = Global { polish: false, ..Default::default() };
            let problem = Problem { tasks: &tasks, kind, rank: k };
            let dense = dense.solve(&problem, None, &mut Silent).unwrap();
            let sketched = solve(&tasks, kind, k).unwrap();
            let error = compare::distance(dense.base.as_ref(), truth.base.as_ref());
            let gap = compare::distance(dense.base.as_ref(), sketched.base.as_ref());
            // Both alternate base and adapters towards one fixed point; the dense one stops where its steps
            // no longer halve, which leaves a part of the estimates' own error.
            assert!(gap <= 0.3 * error, "{kind:?} {noise}: {gap:e} against {error:e}");
            let longer = Global { rounds: 60, ..Default::default() };
            let longer = longer.solve_matrices(&tasks, kind, k, &Sequential).unwrap();
            let gap = compare::distance(longer.base.as_ref(), sketched.base.as_ref());
            assert!(gap <= allowed * error, "{kind:?} {noise}: {gap:e} against {error:e}");
            let ratio = sketched.predicted_error.unwrap() / dense.predicted_error.unwrap();
            assert!((ratio - 1.0).abs() < 0.1, "{kind:?} {noise}: {ratio}");
        }
    }
}
