//! Peers: the packages that people would otherwise use, run by Python on the same problem.
//!
//! The script is part of the binary (`benches/peers/solvers.py`); versions of the packages stand in
//! `benches/peers/requirements.txt`. Problem and start travel as .npz, figures come back as JSON, end
//! points as .npz. One thread, and an allocator that keeps its memory between steps, so that large
//! temporary arrays cost a peer no page faults.

use super::measure::{Measured, Scene};
use crate::runs::write_atomically;
use peftml_data::linear;
use peftml_data::npz::{self, ArrayRef};
use peftml_linalg::Blocks;
use peftml_theory::linear::Kind;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const SCRIPT: &str = include_str!("../../peers/solvers.py");

/// Variables that peers run with.
const ENVIRONMENT: [(&str, &str); 8] = [
    ("OMP_NUM_THREADS", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
    ("BLIS_NUM_THREADS", "1"),
    ("VECLIB_MAXIMUM_THREADS", "1"),
    ("MALLOC_TOP_PAD_", "268435456"),
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
];

/// A method of a package.
pub struct Peer {
    /// `package/method`.
    pub name: &'static str,
    /// The module that it needs.
    pub module: &'static str,
    /// Whether it is for symmetric adapters alone.
    pub symmetric_only: bool,
}

const fn peer(name: &'static str, module: &'static str) -> Peer {
    Peer { name, module, symmetric_only: false }
}

/// All peers.
pub const PEERS: &[Peer] = &[
    peer("scipy/lbfgs", "scipy"),
    peer("scipy/trust-ncg", "scipy"),
    peer("pymanopt/trust-region", "pymanopt"),
    peer("pymanopt/conjugate-gradient", "pymanopt"),
    Peer { name: "pymanopt/psd-trust-region", module: "pymanopt", symmetric_only: true },
    Peer { name: "pymanopt/psd-conjugate-gradient", module: "pymanopt", symmetric_only: true },
    peer("torch/lbfgs", "torch"),
    peer("torch/adamw", "torch"),
    peer("numpy/authors", "numpy"),
];

/// The Python that peers run on: `PEFTML_PYTHON`, else the environment that `cargo xtask bench
/// --make-peers` makes below the current folder, else `python3`.
pub fn python() -> PathBuf {
    let made = PathBuf::from("target/peers/bin/python");
    match std::env::var_os("PEFTML_PYTHON") {
        Some(program) => program.into(),
        None if made.is_file() => made,
        None => "python3".into(),
    }
}

/// Why `python` cannot run what needs `module`; `None` where it can.
pub fn missing(python: &Path, module: &str) -> Option<String> {
    match Command::new(python).args(["-c", &format!("import numpy, {module}")]).output() {
        Err(error) => Some(format!("{} does not start ({error})", python.display())),
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr);
            let last = message.lines().last().unwrap_or("no message").to_owned();
            Some(format!("{} cannot import it ({last})", python.display()))
        }
    }
}

/// Runs `names` on the problem, one process for all; what each found, or why there is nothing.
pub fn run(scene: &Scene, names: &[&str]) -> Vec<Result<Measured, String>> {
    match outputs(scene, names) {
        Err(reason) => names.iter().map(|_| Err(reason.clone())).collect(),
        Ok((folder, lines, complaint)) => {
            let find = |name: &&str| {
                let line = lines.iter().find(|line| line["method"] == **name);
                let line = line.ok_or_else(|| format!("{name} gave nothing: {complaint}"))?;
                measured(scene, folder.path(), name, line)
            };
            names.iter().map(find).collect()
        }
    }
}

type Outputs = (tempfile::TempDir, Vec<Value>, String);

fn outputs(scene: &Scene, names: &[&str]) -> Result<Outputs, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let folder = tempfile::tempdir().map_err(|e| words(&e))?;
    let file = |name: &str| folder.path().join(name);
    write_atomically(&file("solvers.py"), SCRIPT.as_bytes()).map_err(|e| words(&e))?;
    let write = |name: &str, arrays: &[ArrayRef<'_>]| {
        npz::stage(&file(name), arrays).and_then(|staged| staged.commit()).map_err(|e| words(&e))
    };
    let tasks = &scene.tasks;
    let identity = faer::Mat::<f64>::identity(tasks.dimension(), tasks.dimension());
    let mut arrays = vec![ArrayRef::stack("A", tasks.iter().map(|t| t.least_squares()))];
    if !tasks.is_exact() {
        let moments = tasks.iter().map(|t| t.second_moment().unwrap_or(identity.as_ref()));
        arrays.push(ArrayRef::stack("S", moments));
    }
    write("tasks.npz", &arrays)?;
    let count = tasks.count();
    let factors = |first: usize| (first..first + count).map(|i| scene.start.block(i));
    let mut arrays = vec![ArrayRef::stack("U", factors(0))];
    if scene.kind == Kind::Asymmetric {
        arrays.push(ArrayRef::stack("V", factors(count)));
    }
    write("start.npz", &arrays)?;
    let mut command = Command::new(python());
    command.arg(file("solvers.py")).arg(file("tasks.npz")).arg(file("start.npz"));
    command.args(["--methods", &names.join(",")]).arg("--out").arg(folder.path());
    for (option, value) in [
        ("--gradient-norm", scene.tolerance * scene.gradient_scale),
        ("--max-iterations", scene.max_iterations as f64),
        ("--max-seconds", scene.max_seconds),
        ("--repetitions", scene.repetitions as f64),
    ] {
        command.arg(option).arg(value.to_string());
    }
    if scene.kind == Kind::Symmetric {
        command.arg("--symmetric");
    }
    let output = command.envs(ENVIRONMENT).output().map_err(|e| words(&e))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.lines().last().unwrap_or("no message").to_owned();
    Ok((folder, lines, complaint))
}

/// A peer's figures, with loss and gradient judged at its end point by our objective.
fn measured(scene: &Scene, folder: &Path, name: &str, line: &Value) -> Result<Measured, String> {
    let path = folder.join(format!("{}.npz", name.replace('/', "-")));
    let point = linear::read_point(&path).map_err(|error| format!("{name}: {error}"))?;
    let mut end: Blocks = scene.start.zeros_like();
    let count = scene.tasks.count();
    if point.adapters.len() != count {
        return Err(format!("{name} gave {} adapters for {count} tasks", point.adapters.len()));
    }
    for (t, adapter) in point.adapters.iter().enumerate() {
        end.block_mut(t).copy_from(adapter.left());
        if scene.kind == Kind::Asymmetric {
            end.block_mut(count + t).copy_from(adapter.right());
        }
    }
    let number = |key: &str| line[key].as_f64().ok_or_else(|| format!("{name} gave no {key}"));
    let pairs = line["curve"].as_array().map(Vec::as_slice).unwrap_or_default();
    let pair = |pair: &Value| Some((pair[0].as_f64()?, pair[1].as_f64()?));
    let (loss, gradient_norm) = scene.judge(&end)?;
    Ok(Measured {
        seconds: number("seconds")?,
        iterations: number("iterations")? as usize,
        gradients: number("gradients")? as usize,
        hessian_products: number("hessian_products")? as usize,
        factorisations: 0,
        loss,
        gradient_norm,
        stop_reason: line["stop_reason"].as_str().unwrap_or("unknown").to_owned(),
        curve: pairs.iter().filter_map(pair).collect(),
    })
}
