//! `peftml check` from the outside: verdicts, certificates, exit statuses, hostile files.

use faer::Mat;
use peftml_data::npz::{self, ArrayRef};
use peftml_linalg::{Blocks, Seed, kernel};
use peftml_theory::certificate::{Instance, LARGEST_TEXT};
use peftml_theory::linear::{Kind, ProfileObjective, Tasks};
use peftml_theory::optimality;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A folder with the tasks of an instance and its polished minimum.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(instance: &Instance, with_truth: bool) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        let d = instance.offsets[0].nrows();
        let base = Mat::from_fn(d, d, |i, j| i as f64 - 0.5 * j as f64);
        let truths: Vec<Mat<f64>> = instance
            .offsets
            .iter()
            .map(|u| {
                let mut a = base.clone();
                kernel::mul_add(a.as_mut(), u.as_ref(), u.transpose(), 1.0);
                a
            })
            .collect();
        let mut arrays = vec![ArrayRef::stack("A", truths.iter().map(|a| a.as_ref()))];
        if with_truth {
            arrays.push(ArrayRef::stack("U_true", instance.offsets.iter().map(|u| u.as_ref())));
        }
        npz::stage(&files.path("tasks.npz"), &arrays).unwrap().commit().unwrap();
        let tasks = Tasks::exact(truths).unwrap();
        let rank = instance.near[0].ncols();
        let objective = ProfileObjective::new(&tasks, Kind::Symmetric, rank).unwrap();
        let near = Blocks::from_matrices("U", instance.near.iter().map(|u| u.as_ref()));
        let x = optimality::polish(&objective, &near, 20).unwrap().unwrap();
        files.point("minimum.npz", &objective.base(&x), &x.to_matrices(0..x.count()));
        files.point("truth.npz", &base, &instance.offsets);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn point(&self, name: &str, base: &Mat<f64>, left: &[Mat<f64>]) {
        let arrays = [
            ArrayRef::matrix("A", base.as_ref()),
            ArrayRef::stack("U", left.iter().map(|u| u.as_ref())),
        ];
        npz::stage(&self.path(name), &arrays).unwrap().commit().unwrap();
    }

    /// Exit status, the object on standard output, standard error.
    fn check(&self, arguments: &[&str]) -> (i32, Option<Value>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_peftml"))
            .arg("check")
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        let value = if out.is_empty() { None } else { Some(serde_json::from_str(&out).unwrap()) };
        (output.status.code().unwrap(), value, String::from_utf8(output.stderr).unwrap())
    }

    fn judge(&self, point: &str, more: &[&str]) -> (i32, Value, String) {
        let all = [&["--tasks", "tasks.npz", "--point", point], more].concat();
        let (status, value, error) = self.check(&all);
        (status, value.unwrap_or_else(|| panic!("{error}")), error)
    }
}

#[test]
fn spurious_minima_are_certified_and_proved_again() {
    for (instance, with_truth, source) in [
        (Instance::integer(), true, "U_true"),
        // From the matrices alone: the global solver determines the offsets.
        (Instance::integer(), false, "global solver"),
        (Instance::plane(), true, "U_true"),
        (Instance::rank_two(), true, "U_true"),
    ] {
        let files = Files::new(&instance, with_truth);
        let (status, found, error) = files.judge("minimum.npz", &["--certificate", "proof.json"]);
        assert_eq!(status, 0, "{error}");
        assert_eq!(found["verdict"], "strict_local_minimum", "{found}");
        assert_eq!(found["global"], "no");
        assert_eq!(found["certified"], "rigorous");
        assert_eq!(found["instance_from"], source);
        let compared = if with_truth { "zero" } else { "global solver" };
        assert_eq!(found["compared_with"], compared);
        let (status, proof, error) = files.check(&["--certificate-file", "proof.json"]);
        assert_eq!((status, &proof.unwrap()["proved"]), (0, &Value::Bool(true)), "{error}");

        // A bound above the smallest eigenvalue at the centre.
        let text = std::fs::read_to_string(files.path("proof.json")).unwrap();
        let mut claimed: Value = serde_json::from_str(&text).unwrap();
        let lower: f64 = claimed["lambda_min_lower"].as_str().unwrap().parse().unwrap();
        claimed["lambda_min_lower"] = format!("{}", 1.001 * lower).into();
        std::fs::write(files.path("more.json"), claimed.to_string()).unwrap();
        let (status, proof, error) = files.check(&["--certificate-file", "more.json"]);
        assert_eq!((status, &proof.unwrap()["proved"]), (1, &Value::Bool(false)));
        assert!(error.contains("curvature"), "{error}");
    }
}

#[test]
fn every_verdict_ends_with_status_zero_unless_a_certificate_is_missing() {
    let instance = Instance::integer();
    let files = Files::new(&instance, true);
    let (status, found, _) = files.judge("truth.npz", &[]);
    assert_eq!((status, found["verdict"].as_str()), (0, Some("global_minimum")));
    assert_eq!(found["certified"], "floating point");
    let (status, found, error) = files.judge("truth.npz", &["--certificate", "no.json"]);
    assert_eq!((status, found["verdict"].as_str()), (1, Some("global_minimum")));
    assert!(error.contains("strict local minima") && !files.path("no.json").exists(), "{error}");

    files.point("near.npz", &Mat::zeros(4, 4), &instance.near);
    let (status, found, _) = files.judge("near.npz", &[]);
    assert_eq!((status, found["verdict"].as_str()), (0, Some("not_stationary")));

    // U = 0 with the mean: a saddle, its direction printed and written.
    let mut mean = Mat::from_fn(4, 4, |i, j| i as f64 - 0.5 * j as f64);
    for u in &instance.offsets {
        kernel::mul_add(mean.as_mut(), u.as_ref(), u.transpose(), 1.0 / 3.0);
    }
    files.point("zero.npz", &mean, &vec![Mat::zeros(4, 1); 3]);
    let (status, found, _) = files.judge("zero.npz", &["--direction", "down.npz"]);
    assert_eq!((status, found["verdict"].as_str()), (0, Some("strict_saddle")));
    assert_eq!(found["direction"]["U"].as_array().unwrap().len(), 3);
    let written = peftml_data::linear::read_point(&files.path("down.npz")).unwrap();
    let first = found["direction"]["U"][0][0][0].as_f64().unwrap();
    assert_eq!(written.adapters[0].left()[(0, 0)], first);
}

#[test]
fn true_factors_that_do_not_explain_the_matrices_prove_nothing() {
    let files = Files::new(&Instance::plane(), false);
    let (status, found, _) = files.judge("minimum.npz", &[]);
    assert_eq!((status, found["global"].as_str()), (0, Some("unknown")));
    assert!(found["instance_from"].is_null());
    let mut wrong = Instance::plane();
    wrong.offsets[0][(0, 0)] += 1e-3;
    let other = Files::new(&wrong, true);
    let tasks = peftml_data::linear::read_tasks(&files.path("tasks.npz")).unwrap();
    let arrays = [
        ArrayRef::stack("A", tasks.iter().map(|t| t.least_squares())),
        ArrayRef::stack("U_true", wrong.offsets.iter().map(|u| u.as_ref())),
    ];
    npz::stage(&other.path("tasks.npz"), &arrays).unwrap().commit().unwrap();
    std::fs::copy(files.path("minimum.npz"), other.path("minimum.npz")).unwrap();
    let (_, found, _) = other.judge("minimum.npz", &[]);
    assert_eq!(found["verdict"], "strict_local_minimum");
    assert_eq!(found["global"], "unknown");
}

#[test]
fn bad_usage_and_hostile_files_are_one_sentence_and_status_two() {
    let files = Files::new(&Instance::space(), true);
    let write = |name: &str, text: &[u8]| std::fs::write(files.path(name), text).unwrap();
    write("deep.json", "[".repeat(200_000).as_bytes());
    write("exponent.json", br#"{"claim":"","instance":[["1e99999999"]],"centre":[["1"]]}"#);
    write("empty.json", b"{}");
    write("bytes.json", &[0xff, 0xfe, 0x00]);
    write("long.json", &vec![b' '; LARGEST_TEXT + 10]);
    files.point("two.npz", &Mat::zeros(3, 3), &vec![Mat::zeros(3, 1); 2]);
    files.point("nan.npz", &Mat::from_fn(3, 3, |_, _| f64::NAN), &vec![Mat::zeros(3, 1); 3]);
    files.point("wide.npz", &Mat::zeros(3, 3), &vec![Mat::zeros(3, 4); 3]);
    let tasks_and = |point| vec!["--tasks", "tasks.npz", "--point", point];
    let stored = |name| vec!["--certificate-file", name];
    for arguments in [
        vec![],
        vec!["--tasks", "tasks.npz"],
        vec!["--point", "minimum.npz"],
        tasks_and("missing.npz"),
        tasks_and("two.npz"),
        tasks_and("nan.npz"),
        tasks_and("wide.npz"),
        tasks_and("deep.json"),
        [tasks_and("minimum.npz"), vec!["--certificate", "missing/out.json"]].concat(),
        [tasks_and("minimum.npz"), vec!["--certificate", "minimum.npz"]].concat(),
        [tasks_and("minimum.npz"), vec!["--certificate", "x", "--direction", "x"]].concat(),
        [tasks_and("minimum.npz"), stored("empty.json")].concat(),
        stored("deep.json"),
        stored("exponent.json"),
        stored("empty.json"),
        stored("bytes.json"),
        stored("long.json"),
        stored("minimum.npz"),
        stored("."),
        stored("missing.json"),
    ] {
        let (status, value, error) = files.check(&arguments);
        assert_eq!((status, value), (2, None), "{arguments:?}: {error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{arguments:?}: {error}");
    }
    assert!(Path::new(&files.path("minimum.npz")).exists());
}

/// Damage as the readers' own property tests do it, seen from the outside: a few, for a process costs more.
#[test]
fn damaged_points_and_certificates_never_crash_the_command() {
    let files = Files::new(&Instance::space(), true);
    let (status, _, error) = files.judge("minimum.npz", &["--certificate", "good.json"]);
    assert_eq!(status, 0, "{error}");
    let originals =
        ["minimum.npz", "good.json"].map(|name| std::fs::read(files.path(name)).unwrap());
    let mut refused = 0;
    for round in 0..60_u64 {
        let mut stream = Seed::root(8).child("damage").child(round).stream();
        let (which, name) = [(0, "damaged.npz"), (1, "damaged.json")][(round % 2) as usize];
        let mut bytes = originals[which].clone();
        let at = stream.below(bytes.len() as u64) as usize;
        match stream.below(4) {
            0 => bytes[at] ^= 1 << stream.below(8),
            1 => bytes.truncate(at),
            2 => bytes.insert(at, b"0e[{\"9-"[stream.below(7) as usize]),
            _ => drop(bytes.drain(at..(at + 9).min(originals[which].len()))),
        }
        std::fs::write(files.path(name), bytes).unwrap();
        let (status, value, error) = match which {
            0 => files.check(&["--tasks", "tasks.npz", "--point", name]),
            _ => files.check(&["--certificate-file", name]),
        };
        // 0: the damage says nothing; 1: read, and not proved; 2: refused.
        assert!((0..=2).contains(&status), "{round}: {status} {error}");
        assert_eq!(value.is_none(), status == 2, "{round}: {error}");
        assert_eq!(error.trim_end().lines().count(), usize::from(status > 0), "{round}: {error}");
        refused += usize::from(status == 2);
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn a_moved_centre_and_a_bound_beyond_the_truth_are_not_proved() {
    let files = Files::new(&Instance::integer(), true);
    assert_eq!(files.judge("minimum.npz", &["--certificate", "good.json"]).0, 0);
    let text = std::fs::read_to_string(files.path("good.json")).unwrap();
    let good: Value = serde_json::from_str(&text).unwrap();
    let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    let prove = |value: &Value| {
        std::fs::write(files.path("edited.json"), value.to_string()).unwrap();
        let (status, found, error) = files.check(&["--certificate-file", "edited.json"]);
        (status, found.unwrap()["proved"].clone(), error)
    };
    assert_eq!(prove(&good).0, 0, "the control: as it was made");
    let mut moved = good.clone();
    let place = &mut moved["centre"][0][1];
    *place = (number(place) + 11.0 * number(&good["radius"])).to_string().into();
    let (status, proved, error) = prove(&moved);
    assert_eq!((status, proved), (1, Value::Bool(false)), "{error}");
    let mut claimed = good.clone();
    claimed["lambda_min_lower"] = (1.001 * number(&good["lambda_min_lower"])).to_string().into();
    let (status, proved, error) = prove(&claimed);
    assert_eq!((status, proved), (1, Value::Bool(false)), "{error}");
}
