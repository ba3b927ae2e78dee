//! The `peftml` binary on one's own matrices: round trips, refusals, and what stays untouched.

use faer::Mat;
use peftml_data::npz::{self, ArrayRef};
use peftml_data::synthetic::linear::{Family, LinearSpec, sample};
use peftml_data::{linear, npz::Archive};
use peftml_linalg::{Seed, compare};
use peftml_theory::linear::Kind;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A folder in which commands run.
struct Place {
    folder: TempDir,
}

/// What a command left.
#[derive(Debug)]
struct Run {
    status: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().expect("ended by itself"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `peftml` with the words of `line`.
    fn run(&self, line: &str) -> Run {
        Command::new(env!("CARGO_BIN_EXE_peftml"))
            .args(line.split_whitespace())
            .current_dir(self.path())
            .output()
            .unwrap()
            .into()
    }

    /// The JSON object of a command that works.
    fn json(&self, line: &str) -> Value {
        let run = self.run(line);
        assert_eq!(run.status, 0, "{line}: {run:?}");
        assert_eq!(run.stdout.lines().count(), 1, "{line}: {run:?}");
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// The sentence of a command that fails, after which the folder is as before.
    fn refusal(&self, status: i32, line: &str) -> String {
        let before = self.contents();
        let run = self.run(line);
        check_refusal(status, line, &run);
        assert_eq!(self.contents(), before, "{line} changed the folder");
        run.stderr
    }

    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        std::fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, std::fs::read(&path).unwrap())
            })
            .collect()
    }

    fn write(&self, name: &str, arrays: &[ArrayRef<'_>]) {
        npz::stage(&self.path().join(name), arrays).unwrap().commit().unwrap();
    }

    fn matrix(&self, file: &str, name: &'static str) -> Mat<f64> {
        let mut archive = Archive::open(&self.path().join(file), "").unwrap();
        archive.array(name, "").unwrap().matrix(0).to_owned()
    }
}

fn check_refusal(status: i32, line: &str, run: &Run) {
    assert_eq!(run.status, status, "{line}: {run:?}");
    assert_eq!(run.stdout, "", "{line}");
    assert_eq!(run.stderr.lines().count(), 1, "{line}: {run:?}");
    assert!(run.stderr.starts_with("peftml: "), "{line}: {run:?}");
    assert!(!run.stderr.contains("panicked"), "{line}: {run:?}");
}

#[test]
fn exact_tasks_give_the_base_back() {
    let place = Place::new();
    for (kind, option) in [("symmetric", ""), ("asymmetric", "--asymmetric")] {
        place.json(&format!(
            "generate linear --d 9 --k 2 --tasks 4 --exact {option} --seed 3 --out tasks.npz --test-out test.npz"
        ));
        let solved =
            place.json(&format!("solve --tasks tasks.npz --rank 2 --{kind} --out solution.npz"));
        let keys = "loss residual_loss rho gap predicted_error iterations stop_reason seconds";
        for key in keys.split(' ').chain(["solver", "kind", "input_asymmetry"]) {
            assert!(!solved[key].is_null(), "{key}: {solved}");
        }
        let (a, truth) = (place.matrix("solution.npz", "A"), place.matrix("tasks.npz", "A_true"));
        let error = compare::relative_error(a.as_ref(), truth.as_ref());
        // The answer's own bound, which is what a user has.
        let predicted = solved["predicted_error"].as_f64().unwrap();
        assert!(error <= predicted.max(1e-12), "{kind}: {error:e} against {predicted:e}");
        // Rank 2 then explains the test task; rank 1 does not.
        let tuned =
            place.json("fine-tune --base solution.npz --data test.npz --rank 2 --out tuned.npz");
        assert!(tuned["loss"].as_f64().unwrap() < 1e-20, "{tuned}");
        let tuned =
            place.json("fine-tune --base solution.npz --data test.npz --rank 1 --out tuned.npz");
        assert!(tuned["loss"].as_f64().unwrap() > 1e-3, "{tuned}");
        let standard = place.json("standard --tasks tasks.npz --test test.npz --out sr.npz");
        // k (T + 1) = 10 > d: full rank.
        assert_eq!(standard["residual_rank"], 9, "{standard}");
        assert_eq!(standard["singular_values"].as_array().unwrap().len(), 9);
        assert_eq!(standard["tail"].as_array().unwrap().len(), 10);
    }
}

#[test]
fn samples_go_the_whole_way() {
    let place = Place::new();
    place.json(
        "generate linear --d 6 --k 1 --tasks 3 --samples 2000 --noise-std 0.1 --seed 7 --out tasks.npz --test-samples 50 --test-out test.npz",
    );
    let solved = place.json("solve --tasks tasks.npz --rank 1 --symmetric --out solution.npz");
    let first = std::fs::read(place.path().join("solution.npz")).unwrap();
    place.json("solve --tasks tasks.npz --rank 1 --symmetric --threads 2 --out solution.npz");
    assert_eq!(std::fs::read(place.path().join("solution.npz")).unwrap(), first);
    let residual = solved["residual_loss"].as_f64().unwrap();
    // (1/2) noise^2 d, less what the fit takes: 0.03 within six standard errors.
    assert!(
        (residual - 0.03).abs() < 6.0 * 0.03 * (2.0 / 36_000.0_f64).sqrt() + 1e-4,
        "{residual}"
    );
    let authors = place.json(
        "solve --tasks tasks.npz --rank 1 --symmetric --solver authors --max-iterations 200 --seed 1 --trace trace.csv --out slow.npz",
    );
    assert!(authors["loss"].as_f64().unwrap() >= solved["loss"].as_f64().unwrap());
    let trace = std::fs::read_to_string(place.path().join("trace.csv")).unwrap();
    assert_eq!(trace.lines().count(), 202, "a header, the start and every iteration");
    let tuned =
        place.json("fine-tune --base solution.npz --data test.npz --rank 1 --out tuned.npz");
    let gradient = place.json(
        "fine-tune --base solution.npz --data test.npz --rank 1 --method gradient --steps 300 --out slow.npz",
    );
    assert!(gradient["loss"].as_f64().unwrap() >= tuned["loss"].as_f64().unwrap());
    // D = U V^T, and the base is the one given.
    assert_eq!(place.matrix("tuned.npz", "A"), place.matrix("solution.npz", "A"));
    let (u, v) = (place.matrix("tuned.npz", "U"), place.matrix("tuned.npz", "V"));
    let product = Mat::from_fn(6, 6, |i, j| u[(i, 0)] * v[(j, 0)]);
    let d = place.matrix("tuned.npz", "D");
    assert!(compare::relative_error(d.as_ref(), product.as_ref()) < 1e-15);
    // The solution is a start, too.
    place.json(
        "solve --tasks tasks.npz --rank 1 --symmetric --solver authors --max-iterations 1 --start solution.npz --out slow.npz",
    );
}

#[test]
fn generate_draws_from_the_streams_of_the_studies() {
    let place = Place::new();
    let spec = LinearSpec {
        dimension: 5,
        rank: 2,
        tasks: 3,
        samples_per_task: 40,
        test_samples: 8,
        noise_std: 0.3,
        kind: Kind::Asymmetric,
        family: Family::BadlyScaled,
    };
    let line = "generate linear --d 5 --k 2 --tasks 3 --samples 40 --noise-std 0.3 --asymmetric --family badly-scaled --test-samples 8 --seed 11";
    place.json(&format!("{line} --out a.npz --test-out ta.npz"));
    place.json(&format!("{line} --out b.npz --test-out tb.npz"));
    let files = place.contents();
    assert_eq!(files["a.npz"], files["b.npz"]);
    assert_eq!(files["ta.npz"], files["tb.npz"]);
    let seed = spec.seed(11);
    let truth = spec.ground_truth(&seed);
    let (x, y) = sample(&truth, 0, 40, 0.3, &seed);
    assert_eq!(place.matrix("a.npz", "X"), x);
    assert_eq!(place.matrix("a.npz", "Y"), y);
    assert_eq!(place.matrix("a.npz", "A_true"), truth.base);
    assert_eq!(place.matrix("a.npz", "V_true").as_ref(), truth.offsets[0].right());
    assert_eq!(place.matrix("ta.npz", "X"), spec.test_samples(&truth, &seed).0);
    assert_eq!(place.matrix("ta.npz", "U_true").as_ref(), truth.left(3));
}

#[test]
fn solvers_refuse_with_status_1_and_leave_the_output() {
    let place = Place::new();
    std::fs::write(place.path().join("out.npz"), b"precious").unwrap();
    place.json("generate linear --d 8 --k 1 --tasks 2 --exact --out two.npz");
    let said = place.refusal(1, "solve --tasks two.npz --rank 1 --symmetric --out out.npz");
    assert!(said.contains("--solver two-task"), "{said}");
    place.json("generate linear --d 8 --k 2 --tasks 4 --exact --out four.npz");
    let said = place.refusal(1, "solve --tasks four.npz --rank 4 --symmetric --out out.npz");
    assert!(said.contains("outside the conditions"), "{said}");
    place.refusal(1, "solve --tasks four.npz --rank 1 --symmetric --out out.npz");
    let said = place
        .refusal(1, "solve --tasks four.npz --rank 2 --symmetric --solver two-task --out out.npz");
    assert!(said.contains("two-task"), "{said}");
    // Control: what the sentences recommend works.
    place.json("solve --tasks two.npz --rank 1 --symmetric --solver two-task --out out.npz");
    place.json("solve --tasks four.npz --rank 2 --symmetric --out out.npz");
}

#[test]
fn what_is_not_symmetric_is_reported() {
    let place = Place::new();
    place.json("generate linear --d 8 --k 1 --tasks 3 --exact --seed 2 --out tasks.npz");
    let mut tasks = linear::read_tasks(&place.path().join("tasks.npz")).unwrap();
    let solved = place.json("solve --tasks tasks.npz --rank 1 --symmetric --out a.npz");
    assert_eq!(solved["input_asymmetry"], 0.0);
    // The same skew part in all tasks belongs to the base.
    let skew = |i: usize, j: usize| if i < j { 1.0 } else { -1.0 } * (i.abs_diff(j) as f64);
    let moved: Vec<Mat<f64>> = tasks
        .iter()
        .map(|t| Mat::from_fn(8, 8, |i, j| t.least_squares()[(i, j)] + skew(i, j)))
        .collect();
    place.write("moved.npz", &[ArrayRef::stack("A", moved.iter().map(|a| a.as_ref()))]);
    let solved = place.json("solve --tasks moved.npz --rank 1 --symmetric --out b.npz");
    assert!(solved["input_asymmetry"].as_f64().unwrap() > 0.1, "{solved}");
    let (a, b) = (place.matrix("a.npz", "A"), place.matrix("b.npz", "A"));
    let expected = Mat::from_fn(8, 8, |i, j| a[(i, j)] + skew(i, j));
    assert!(compare::relative_error(b.as_ref(), expected.as_ref()) < 1e-12);
    tasks = linear::read_tasks(&place.path().join("moved.npz")).unwrap();
    assert_eq!(tasks.count(), 3);
}

#[test]
fn bad_usage_gives_one_sentence_and_status_2() {
    let place = Place::new();
    place.json(
        "generate linear --d 6 --k 1 --tasks 3 --samples 50 --out tasks.npz --test-out test.npz",
    );
    place
        .json("generate linear --d 7 --k 1 --tasks 3 --exact --out seven.npz --test-out test7.npz");
    std::fs::create_dir(place.path().join("folder")).unwrap();
    let solve = "solve --tasks tasks.npz --rank 1 --symmetric";
    for (line, word) in [
        (String::new(), "command"),
        ("nonsense".into(), "nonsense"),
        ("solve".into(), "--tasks"),
        ("solve --tasks tasks.npz --rank 1 --out a.npz".into(), "--symmetric"),
        (format!("{solve} --asymmetric --out a.npz"), "--asymmetric"),
        (format!("{solve} --solver nonsense --out a.npz"), "nonsense"),
        (format!("{solve} --set nonsense --out a.npz"), "key=value"),
        (format!("{solve} --set nonsense=1 --out a.npz"), "nonsense"),
        (format!("{solve} --tolerance -1 --out a.npz"), "tolerance"),
        (format!("{solve} --threads 0 --out a.npz"), "--threads"),
        (format!("{solve} --start test.npz --solver authors --out a.npz"), "test.npz"),
        ("solve --tasks tasks.npz --rank 0 --symmetric --out a.npz".into(), "rank 0"),
        ("solve --tasks tasks.npz --rank 7 --symmetric --out a.npz".into(), "rank 7"),
        ("solve --tasks tasks.npz --rank -1 --symmetric --out a.npz".into(), "-1"),
        ("solve --tasks tasks.npz --rank 1.5 --symmetric --out a.npz".into(), "1.5"),
        (format!("{solve} --out tasks.npz"), "same file"),
        (format!("{solve} --out ./tasks.npz"), "same file"),
        (format!("{solve} --trace a.npz --out a.npz"), "same file"),
        (format!("{solve} --out missing/a.npz"), "folder"),
        (format!("{solve} --out folder"), "regular file"),
        (format!("{solve} --out tasks.npz/a.npz"), "tasks.npz/a.npz"),
        ("solve --tasks folder --rank 1 --symmetric --out a.npz".into(), "folder"),
        ("solve --tasks absent.npz --rank 1 --symmetric --out a.npz".into(), "absent.npz"),
        ("standard --tasks tasks.npz --test test7.npz --out a.npz".into(), "dimension"),
        ("fine-tune --base seven.npz --data test.npz --rank 1 --out a.npz".into(), "seven.npz"),
        ("fine-tune --base test7.npz --data test.npz --rank 1 --out a.npz".into(), "dimension"),
        ("fine-tune --base test7.npz --data test7.npz --rank 8 --out a.npz".into(), "rank 8"),
        ("generate linear --d 0 --out a.npz".into(), "dimension"),
        ("generate linear --d 2 --k 3 --out a.npz".into(), "rank"),
        ("generate linear --noise-std -1 --out a.npz".into(), "noise_std"),
        ("generate linear --noise-std nan --out a.npz".into(), "noise_std"),
        ("generate linear --samples 1000000000000 --out a.npz".into(), "numbers"),
        ("generate linear --d 18446744073709551615 --out a.npz".into(), "numbers"),
        ("generate linear --exact --samples 3 --out a.npz".into(), "--samples"),
        ("generate linear --out a.npz --test-out a.npz".into(), "same file"),
        ("generate linear --out a.npz --test-out missing/a.npz".into(), "missing"),
        ("generate linear --family nonsense --out a.npz".into(), "nonsense"),
    ] {
        let said = place.refusal(2, &line);
        assert!(said.contains(word), "{line}: {said}");
    }
}

#[test]
fn malformed_files_give_one_sentence_and_status_2() {
    let place = Place::new();
    place.json("generate linear --d 4 --k 1 --tasks 3 --exact --out good.npz --test-out test.npz");
    std::fs::write(place.path().join("out.npz"), b"precious").unwrap();
    let good = std::fs::read(place.path().join("good.npz")).unwrap();
    let identity = Mat::<f64>::identity(4, 4);
    let nan = Mat::from_fn(4, 4, |i, j| if (i, j) == (2, 1) { f64::NAN } else { 1.0 });
    place.write("nan.npz", &[ArrayRef::stack("A", [identity.as_ref(), nan.as_ref()])]);
    place.write("matrix.npz", &[ArrayRef::matrix("A", identity.as_ref())]);
    place.write("other.npz", &[ArrayRef::matrix("B", identity.as_ref())]);
    let file = |name: &str, bytes: &[u8]| std::fs::write(place.path().join(name), bytes).unwrap();
    file("empty.npz", b"");
    file("text.npz", b"1,2\n3,4\n");
    file("cut.npz", &good[..good.len() / 2]);
    let mut flipped = good.clone();
    flipped[200] ^= 1;
    file("flipped.npz", &flipped);
    file("array.npz", b"\x93NUMPY\x01\x00");
    for (name, word) in [
        ("nan.npz", "NaN at (1, 2, 1)"),
        ("matrix.npz", "(4, 4)"),
        ("other.npz", "no array A"),
        ("empty.npz", "is empty"),
        ("text.npz", "no .npz file"),
        ("cut.npz", "truncated"),
        ("flipped.npz", "checksum"),
        ("array.npz", "numpy.savez"),
    ] {
        let solve = format!("solve --tasks {name} --rank 1 --symmetric --out out.npz");
        let said = place.refusal(2, &solve);
        assert!(said.contains(word) && said.contains(name), "{name}: {said}");
        place.refusal(2, &format!("standard --tasks {name} --out out.npz"));
        let tuned = format!("fine-tune --base good.npz --data {name} --rank 1 --out out.npz");
        place.refusal(2, &tuned);
    }
    place.refusal(2, "standard --tasks good.npz --test nan.npz --out out.npz");
    // Control.
    place.json("standard --tasks good.npz --test test.npz --out out.npz");
}

#[cfg(unix)]
#[test]
fn two_gigabytes_of_address_space_suffice() {
    let place = Place::new();
    let limited = |line: &str| -> Run {
        let binary = env!("CARGO_BIN_EXE_peftml");
        Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -v 2097152 && exec '{binary}' {line}"))
            .current_dir(place.path())
            .output()
            .unwrap()
            .into()
    };
    let made = limited("generate linear --d 20 --k 2 --tasks 5 --samples 100000 --out tasks.npz");
    assert_eq!(made.status, 0, "{made:?}");
    let solved = limited("solve --tasks tasks.npz --rank 2 --symmetric --out solution.npz");
    assert_eq!(solved.status, 0, "{solved:?}");
    // A member that declares four gigabytes in its header, but no zip field can be believed.
    let path = place.path().join("tasks.npz");
    let mut bytes = std::fs::read(&path).unwrap();
    let central = (0..bytes.len()).rev().find(|i| bytes[*i..].starts_with(b"PK\x01\x02")).unwrap();
    bytes[central + 20..central + 28].copy_from_slice(&[0xfe; 8]);
    std::fs::write(&path, bytes).unwrap();
    let line = "solve --tasks tasks.npz --rank 2 --symmetric --out solution.npz";
    check_refusal(2, line, &limited(line));
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let place = Place::new();
    for line in ["solvers", "solvers --json", "generate linear --exact --out a.npz", "--help"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_peftml"))
            .args(line.split_whitespace())
            .current_dir(place.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let run: Run = child.wait_with_output().unwrap().into();
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{line}");
    }
}

#[test]
fn solvers_are_listed_for_people_and_for_programs() {
    let place = Place::new();
    let lines = place.run("solvers --json");
    let names: Vec<String> = lines
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["name"].as_str().unwrap().into())
        .collect();
    let table = place.run("solvers").stdout;
    for name in ["global", "two-task", "authors"] {
        assert!(names.iter().any(|n| n == name) && table.contains(name), "{name}: {table}");
    }
}

#[test]
fn random_starts_come_from_the_seed() {
    let place = Place::new();
    place.json("generate linear --d 5 --k 1 --tasks 3 --exact --out tasks.npz");
    let solve = |seed: u64, out: &str| {
        place.json(&format!(
            "solve --tasks tasks.npz --rank 1 --asymmetric --solver authors --max-iterations 3 --seed {seed} --out {out}"
        ));
        std::fs::read(place.path().join(out)).unwrap()
    };
    assert_eq!(solve(1, "a.npz"), solve(1, "b.npz"));
    assert_ne!(solve(1, "a.npz"), solve(2, "b.npz"));
    // The stream is a named one: no two commands share it.
    assert_ne!(Seed::root(1).child("solve"), Seed::root(1).child("fine-tune"));
}
