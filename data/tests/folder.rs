//! Tasks in a folder: what a folder says is what an archive says, and what is no folder of tasks is refused in
//! one sentence that names the file.

use faer::Mat;
use peftml_data::DataError;
use peftml_data::folder::{FolderTasks, open_tasks};
use peftml_linalg::{Seed, compare, kernel};
use peftml_theory::linear::{TaskSource, Tasks};
use std::path::Path;

#[derive(Clone, Copy)]
enum Layout {
    DoubleC,
    SingleFortran,
    BigEndianC,
}

fn write(path: &Path, m: &Mat<f64>, layout: Layout) {
    let (rows, cols) = (m.nrows(), m.ncols());
    let (descr, fortran) = match layout {
        Layout::DoubleC => ("<f8", "False"),
        Layout::SingleFortran => ("<f4", "True"),
        Layout::BigEndianC => (">f8", "False"),
    };
    let text =
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': ({rows}, {cols}), }}");
    let text = format!("{text:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.bytes());
    let by_rows = (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j)));
    match layout {
        Layout::DoubleC => by_rows.for_each(|at| bytes.extend(m[at].to_le_bytes())),
        Layout::BigEndianC => by_rows.for_each(|at| bytes.extend(m[at].to_be_bytes())),
        Layout::SingleFortran => {
            for j in 0..cols {
                (0..rows).for_each(|i| bytes.extend((m[(i, j)] as f32).to_le_bytes()));
            }
        }
    }
    std::fs::write(path, bytes).unwrap();
}

fn random(rows: usize, cols: usize, label: &str) -> Mat<f64> {
    Seed::root(8).child(label).stream().normal_matrix(rows, cols, 1.0)
}

fn memory(folder: &Path) -> Tasks {
    match open_tasks(folder).unwrap() {
        FolderTasks::Memory(tasks) => tasks,
        FolderTasks::Matrices(_) => panic!("small tasks belong into memory"),
    }
}

fn refusal(folder: &Path) -> String {
    let error = open_tasks(folder).err().expect("a refusal").to_string();
    assert!(error.starts_with(&folder.display().to_string()), "{error}");
    assert!(!error.contains(". ") && !error.contains('\n'), "no sentence: {error}");
    error
}

#[test]
fn matrices_come_back_to_the_last_bit_whatever_their_layout() {
    for (layout, first) in
        [(Layout::DoubleC, 0), (Layout::SingleFortran, 1), (Layout::BigEndianC, 0)]
    {
        let folder = tempfile::tempdir().unwrap();
        let all: Vec<_> = (0..11).map(|t| random(5, 5, &format!("A{t}"))).collect();
        for (t, a) in all.iter().enumerate() {
            // Ten stands behind two in the order of names.
            write(&folder.path().join(format!("A_{}.npy", t + first)), a, layout);
        }
        std::fs::write(folder.path().join("notes.txt"), "left alone").unwrap();
        let tasks = memory(folder.path());
        assert!(tasks.is_exact());
        assert_eq!(tasks.count(), 11);
        for (t, a) in all.iter().enumerate() {
            let stored = match layout {
                Layout::SingleFortran => Mat::from_fn(5, 5, |i, j| f64::from(a[(i, j)] as f32)),
                _ => a.clone(),
            };
            assert_eq!(tasks.task(t).least_squares(), stored.as_ref(), "task {t}");
        }
        let expected = match layout {
            Layout::SingleFortran => f64::from(f32::EPSILON) / 2.0,
            _ => f64::EPSILON / 2.0,
        };
        assert_eq!(tasks.storage_roundoff(), expected);
    }
}

#[test]
fn samples_summed_in_blocks_give_the_statistics_of_all() {
    // More than one block of 512 columns, and a rest; numbers of samples differ between tasks.
    let folder = tempfile::tempdir().unwrap();
    let mut pairs = Vec::new();
    for (t, n) in [1100, 513, 700].into_iter().enumerate() {
        let (x, a) = (random(6, n, &format!("X{t}")), random(6, 6, &format!("T{t}")));
        let mut y = random(6, n, &format!("N{t}"));
        kernel::mul_add(y.as_mut(), a.as_ref(), x.as_ref(), 1.0);
        let layout = if t == 1 { Layout::BigEndianC } else { Layout::DoubleC };
        write(&folder.path().join(format!("X_{t}.npy")), &x, layout);
        write(&folder.path().join(format!("Y_{t}.npy")), &y, layout);
        pairs.push((x, y));
    }
    let tasks = memory(folder.path());
    let whole = Tasks::from_samples(pairs.iter().map(|(x, y)| (x.as_ref(), y.as_ref()))).unwrap();
    for (t, (x, _)) in pairs.iter().enumerate() {
        let (a, b) = (tasks.task(t), whole.task(t));
        assert_eq!(a.source(), TaskSource::Samples { count: x.ncols() });
        // Sums of at most 1100 terms in another order; S is well conditioned.
        let error = compare::relative_error(a.least_squares(), b.least_squares());
        assert!(error < 1e-13, "{error:e}");
        assert!((a.residual_loss() / b.residual_loss() - 1.0).abs() < 1e-12);
    }
    // Control: another task's statistics are not within the tolerance.
    let (a, b) = (tasks.task(0).least_squares(), whole.task(1).least_squares());
    assert!(compare::relative_error(a, b) > 0.1);
}

#[test]
fn what_is_no_folder_of_tasks_is_refused_with_the_files_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let put = |name: &str, rows, cols| {
        write(&path.join(name), &random(rows, cols, name), Layout::DoubleC);
    };
    let remove = |name: &str| std::fs::remove_file(path.join(name)).unwrap();
    assert!(refusal(path).contains("without tasks"));
    put("A_0.npy", 4, 4);
    put("A_2.npy", 4, 4);
    assert!(refusal(path).contains("A_1.npy"));
    put("A_1.npy", 4, 3);
    assert!(refusal(path).contains("A_1.npy"));
    put("A_1.npy", 4, 4);
    assert_eq!(memory(path).count(), 3, "control");
    put("X_0.npy", 4, 9);
    assert!(refusal(path).contains("either"));
    (0..3).for_each(|t| remove(&format!("A_{t}.npy")));
    assert!(refusal(path).contains("files Y_t.npy"));
    put("Y_0.npy", 4, 8);
    assert!(refusal(path).contains("Y_0.npy"));
    put("Y_0.npy", 4, 9);
    assert_eq!(memory(path).count(), 1, "control");
    // Bytes that are no array, numbers that are not finite.
    std::fs::write(path.join("Y_0.npy"), b"no array").unwrap();
    assert!(refusal(path).contains("Y_0.npy"));
    let mut bad = random(4, 9, "bad");
    bad[(2, 5)] = f64::NAN;
    write(&path.join("Y_0.npy"), &bad, Layout::DoubleC);
    let text = refusal(path);
    assert!(text.contains("NaN"), "{text}");
    assert!(matches!(open_tasks(&path.join("missing")), Err(DataError::File { .. })));
}
