//! A solver of one's own: heavy ball, `x <- x - a grad f(x) + b (x - x_before)`.

use peftml_linalg::{Blocks, Layout, Seed};
use peftml_solvers::{BaseSolver, Problem, Settings};
use peftml_solvers::{Iterative, Limits, SolveError, Solver, State, entry};
use peftml_theory::Objective;
use peftml_theory::linear::{Kind, Tasks};

struct HeavyBall {
    step_size: f64,
    momentum: f64,
}

impl Solver for HeavyBall {
    fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError> {
        State::at(f, x, 1, 0) // value and gradient at x; one vector: the last step
    }

    fn step(&self, f: &dyn Objective, state: &mut State) -> Result<(), SolveError> {
        state.vectors[0].scale(self.momentum);
        state.vectors[0].add_scaled(-self.step_size, &state.gradient);
        state.x.add_scaled(1.0, &state.vectors[0]);
        state.value = f.gradient(&state.x, &mut state.gradient, &mut state.work);
        state.gradient_norm = state.gradient.norm();
        state.evaluations.gradients += 1;
        state.iteration += 1;
        if state.value.is_finite() {
            Ok(())
        } else {
            Err(SolveError::NotFinite { iteration: state.iteration })
        }
    }
}

/// Solves one problem with both methods.
pub fn main() -> Result<(), SolveError> {
    let mut stream = Seed::root(0).child("own-solver").stream();
    let base = stream.normal_matrix(10, 10, 1.0);
    let offsets = (0..3).map(|_| stream.normal_matrix(10, 1, 1.0));
    let tasks = Tasks::exact(offsets.map(|u| &base + &u * u.transpose()))?;
    let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: 1 };
    let mut start = Blocks::zeros(Layout::repeated("U", 3, 10, 1));
    stream.fill_normal(0.1, start.as_mut_slice());

    let solver = HeavyBall { step_size: 0.03, momentum: 0.9 };
    let mine = Iterative { name: "heavy-ball", solver, limits: Limits::default() };
    let lbfgs = entry("lbfgs").expect("it is in the registry").build(&Settings::default())?;
    for (name, method) in [("heavy ball", &mine as &dyn BaseSolver), ("L-BFGS", &*lbfgs)] {
        let mut worst = 0.0_f64;
        let mut observer = |state: &State| worst = worst.max(state.gradient_norm);
        let found = method.solve(&problem, Some(&start), &mut observer)?;
        let (loss, steps) = (found.loss, found.iterations);
        println!(
            "{name}: {steps} steps, loss {loss:.1e}, {}, {worst:.1}",
            found.stop_reason.name()
        );
    }
    Ok(())
}
