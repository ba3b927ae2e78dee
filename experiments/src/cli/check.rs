//! `peftml check`: what a point of the LoRA-ML objective is, and certificates of it.
//!
//! Exit status 0 for every verdict, 1 only where a certificate that was asked for is not proved.

mod truth;

use super::{Common, Failure, print_json};
use crate::runs;
use clap::Args;
use faer::MatRef;
use peftml_data::{linear, npz};
use peftml_linalg::{Blocks, Seed};
use peftml_solvers::iterate::Silent;
use peftml_solvers::low_rank::{Global, global};
use peftml_solvers::{BaseSolver, Problem};
use peftml_theory::certificate::{self, Certificate, LARGEST_TEXT};
use peftml_theory::linear::{Kind, Tasks};
use peftml_theory::optimality::{
    self, Assessment, Direction, Globality, Known, OptimalityError, Point, PointVerdict,
};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use truth::Offsets;

/// Up to this many unknowns a certificate is tried without being asked for: it takes well below a
/// second.
const TRIED: usize = 120;
/// Directions of more numbers are not printed, only written.
const PRINTED: usize = 20_000;

/// Tell what a point is (stationary, saddle, minimum, ..), prove it, or prove a stored certificate
#[derive(Args)]
pub struct Arguments {
    /// Tasks (.npz): A; A with S; or X and Y; with U_true (and V_true) where known
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "certificate_file",
        requires = "point"
    )]
    tasks: Option<PathBuf>,
    /// Point (.npz): A, U, and V where adapters are asymmetric
    #[arg(long, value_name = "FILE", requires = "tasks")]
    point: Option<PathBuf>,
    /// Where to write a rigorous certificate (.json) of a strict local minimum of exact tasks
    #[arg(long, value_name = "FILE", requires = "point")]
    certificate: Option<PathBuf>,
    /// Where to write the direction of negative curvature of a strict saddle (.npz: A, U, V)
    #[arg(long, value_name = "FILE", requires = "point")]
    direction: Option<PathBuf>,
    /// Prove this stored certificate (.json) again instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tasks", "point"])]
    certificate_file: Option<PathBuf>,
}

impl From<OptimalityError> for Failure {
    fn from(error: OptimalityError) -> Self {
        match error {
            OptimalityError::Linear(error) => error.into(),
            error @ OptimalityError::Decomposition { .. } => Failure::refused(error),
            error => Failure::input(error),
        }
    }
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
    match (&arguments.certificate_file, &arguments.tasks, &arguments.point) {
        (Some(file), _, _) => prove_again(file),
        (None, Some(tasks), Some(point)) => judge(arguments, tasks, point, common),
        // The command line's rules leave nothing else.
        _ => Err(Failure::input("--tasks and --point, or --certificate-file, are needed")),
    }
}

fn prove_again(path: &Path) -> Result<(), Failure> {
    let certificate = Certificate::from_json(&read_text(path)?)
        .map_err(|error| Failure::input(format_args!("{}: {error}", path.display())))?;
    let found = certificate::verify(&certificate);
    print_json(&json!({
        "claim": certificate.claim,
        "proved": found.is_ok(),
        "certified": if found.is_ok() { "rigorous" } else { "no" },
        "reason": found.as_ref().err().map(ToString::to_string),
        "radius": certificate.radius,
        "lambda_min_lower": certificate.lambda_min_lower,
        "objective_lower": certificate.objective_lower,
        "gradient_upper": certificate.gradient_upper,
        "gradient_found": found.as_ref().ok().map(|proof| proof.gradient),
        "objective_found": found.as_ref().ok().map(|proof| proof.objective),
        "unknowns": certificate.centre.values.len(),
    }))?;
    found.map(|_| ()).map_err(|error| {
        Failure::refused(format_args!("{} is not proved: {error}", path.display()))
    })
}

/// A regular file's text, at most [`LARGEST_TEXT`] bytes of it.
fn read_text(path: &Path) -> Result<String, Failure> {
    let failed = |what: &dyn std::fmt::Display| {
        Failure::input(format_args!("{} cannot be read: {what}", path.display()))
    };
    let kind = std::fs::metadata(path).map_err(|error| failed(&error))?;
    if !kind.is_file() {
        return Err(failed(&"it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_TEXT as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|_| failed(&"it is not UTF-8 text"))
}

fn judge(
    arguments: &Arguments,
    tasks_path: &Path,
    point_path: &Path,
    common: &Common,
) -> Result<(), Failure> {
    check_outputs(arguments, &[("--tasks", tasks_path), ("--point", point_path)])?;
    let tasks = linear::read_tasks(tasks_path)?;
    let read = linear::read_point(point_path)?;
    let left = read.adapters.iter().map(|a| a.left().to_owned()).collect();
    let right = (read.kind == Kind::Asymmetric)
        .then(|| read.adapters.iter().map(|a| a.right().to_owned()).collect());
    let point = Point::new(&tasks, read.base, left, right, read.storage_roundoff)?;
    let seed = Seed::root(common.seed).child("check");

    let mut offsets = truth::read(tasks_path, &tasks, point.kind(), point.rank())?;
    let mut known = Known { zero_is_attained: offsets.is_some(), solver_value: None };
    let mut found = optimality::assess(&tasks, &point, known, &seed)?;
    if found.global == Globality::Unknown
        && let Some((value, solved)) = solve(&tasks, &point)
    {
        known.solver_value = Some(value);
        found = optimality::assess(&tasks, &point, known, &seed)?;
        offsets = solved;
    }
    let certificate = prove(arguments, &tasks, &point, &found, offsets.as_ref());
    if let (Some(path), Ok(certificate)) = (&arguments.certificate, &certificate) {
        let path = npz::destination(path)?;
        let text = certificate.to_json() + "\n";
        runs::write_atomically(&path, text.as_bytes()).map_err(Failure::input)?;
    }
    if let (Some(path), Some(direction)) = (&arguments.direction, &found.direction) {
        write_direction(path, direction)?;
    }
    let mut result = describe(&tasks, &point, &found);
    result["certified"] = json!(if certificate.is_ok() { "rigorous" } else { "floating point" });
    result["certificate"] = match (&arguments.certificate, &certificate) {
        (Some(path), Ok(_)) => json!(path.to_string_lossy()),
        _ => Value::Null,
    };
    result["instance_from"] = json!(offsets.as_ref().map(|o| o.source));
    print_json(&result)?;
    match (&arguments.certificate, certificate) {
        (Some(_), Err(reason)) => Err(Failure::refused(format_args!("no certificate: {reason}"))),
        _ => Ok(()),
    }
}

/// Before the work begins: outputs can be written, and none overwrites an input or another output.
fn check_outputs(arguments: &Arguments, inputs: &[(&str, &Path)]) -> Result<(), Failure> {
    let mut taken = inputs.to_vec();
    let outputs =
        [("--certificate", &arguments.certificate), ("--direction", &arguments.direction)];
    for (option, path) in outputs.iter().filter_map(|(o, p)| p.as_deref().map(|p| (*o, p))) {
        if let Some((other, _)) = taken.iter().find(|(_, input)| npz::same_file(path, input)) {
            return Err(Failure::input(format_args!(
                "{option} and {other} name the same file, {}; name another one to write",
                path.display()
            )));
        }
        npz::destination(path)?;
        taken.push((option, path));
    }
    Ok(())
}

/// The global solver's value, and the offsets that it found where they explain exact tasks. The
/// widest adapters come first; narrower ones count as well.
fn solve(tasks: &Tasks, point: &Point) -> Option<(f64, Option<Offsets>)> {
    (1..=point.rank()).rev().find_map(|rank| {
        if !global::within_conditions(tasks.dimension(), rank, tasks.count()) {
            return None;
        }
        let problem = Problem { tasks, kind: point.kind(), rank };
        let solution = Global::default().solve(&problem, None, &mut Silent).ok()?;
        let exact = tasks.is_exact() && point.kind() == Kind::Symmetric;
        let offsets = exact.then(|| Offsets {
            factors: solution.adapters.iter().map(|a| a.left().to_owned()).collect(),
            source: "global solver",
        });
        Some((solution.loss, offsets))
    })
}

/// The certificate, or why there is none.
fn prove(
    arguments: &Arguments,
    tasks: &Tasks,
    point: &Point,
    found: &Assessment,
    offsets: Option<&Offsets>,
) -> Result<Certificate, String> {
    if found.verdict != PointVerdict::StrictLocalMinimum {
        return Err(format!(
            "certificates are of strict local minima, this point is {}",
            found.verdict.name()
        ));
    }
    if !tasks.is_exact() || point.kind() != Kind::Symmetric {
        return Err("certificates are of exact tasks with symmetric adapters".into());
    }
    let Some(offsets) = offsets else {
        return Err(
            "the tasks' offsets are not known: the file has no U_true that explains A, and \
                    the global solver does not determine them"
                .into(),
        );
    };
    let unknowns = point.factors().as_slice().len();
    if arguments.certificate.is_none() && unknowns > TRIED {
        return Err("not asked for".into());
    }
    let factors: Vec<_> = offsets.factors.iter().map(|u| truth::widened(u, point.rank())).collect();
    let near = Blocks::from_matrices("U", (0..tasks.count()).map(|t| point.left(t)));
    certificate::certify("strict local minimum, not global", &factors, &near)
        .map_err(|error| error.to_string())
}

fn describe(tasks: &Tasks, point: &Point, found: &Assessment) -> Value {
    json!({
        "verdict": found.verdict.name(),
        "global": found.global.name(),
        "compared_with": found.compared_with.map(|reference| reference.name()),
        "reference_value": found.reference_value,
        "loss": found.loss,
        "residual_loss": tasks.residual_loss(),
        "gradient_norm": found.gradient_scaled,
        "gradient": found.gradient,
        "gradient_tolerance": found.gradient_tolerance,
        "gradient_base": found.gradient_base,
        "gradient_base_tolerance": found.gradient_base_tolerance,
        "curvature": found.curvature,
        "curvature_resolution": found.curvature_resolution,
        "curvature_residual": found.curvature_residual,
        "gauge_dimension": found.gauge_dimension,
        "relative_size": found.relative_size,
        "rho": found.rho,
        "kind": point.kind().name(),
        "rank": point.rank(),
        "dimension": tasks.dimension(),
        "tasks": tasks.count(),
        "direction": found.direction.as_ref().and_then(|d| direction(point, d)),
    })
}

/// The direction as arrays of a point's names.
fn direction(point: &Point, direction: &Direction) -> Option<Value> {
    if direction.factors.as_slice().len() + point.base().nrows().pow(2) > PRINTED {
        return None;
    }
    let count = point.count();
    let stack = |blocks: std::ops::Range<usize>| -> Value {
        blocks.map(|i| matrix(direction.factors.block(i))).collect()
    };
    let mut value = json!({ "A": matrix(direction.base.as_ref()), "U": stack(0..count) });
    if point.kind() == Kind::Asymmetric {
        value["V"] = stack(count..2 * count);
    }
    Some(value)
}

fn matrix(m: MatRef<'_, f64>) -> Value {
    (0..m.nrows()).map(|i| (0..m.ncols()).map(|j| m[(i, j)]).collect::<Value>()).collect()
}

fn write_direction(path: &Path, direction: &Direction) -> Result<(), Failure> {
    let named = |prefix: &str| {
        let specs = direction.factors.layout().specs();
        let of = |i: &usize| specs[*i].name.starts_with(prefix);
        (0..specs.len()).filter(of).map(|i| direction.factors.block(i)).collect::<Vec<_>>()
    };
    let mut arrays = vec![
        npz::ArrayRef::matrix("A", direction.base.as_ref()),
        npz::ArrayRef::stack("U", named("U")),
    ];
    let right = named("V");
    if !right.is_empty() {
        arrays.push(npz::ArrayRef::stack("V", right));
    }
    Ok(npz::stage(path, &arrays)?.commit()?)
}
