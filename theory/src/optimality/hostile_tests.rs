//! Ten thousand hostile points: refused in one sentence, or judged; never a panic.

use super::*;
use peftml_linalg::Stream;

/// Entries that sums, squares and quotients stumble over.
const ENTRIES: [f64; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-8,
    1e8,
    1e36,
    -1e75,
    1e154,
    f64::MAX,
    f64::MIN_POSITIVE,
    5e-324,
    f64::INFINITY,
    f64::NAN,
];

/// Mostly normal draws, some of [`ENTRIES`]; `how` 0 has none, 1 those that are small, 2 all.
fn hostile(rows: usize, cols: usize, how: u64, stream: &mut Stream) -> Mat<f64> {
    Mat::from_fn(rows, cols, |_, _| match (how, stream.below(4)) {
        (1, 0) => ENTRIES[stream.below(6) as usize],
        (2, 0) => ENTRIES[stream.below(ENTRIES.len() as u64) as usize],
        _ => stream.normal(),
    })
}

fn tasks(count: usize, d: usize, how: u64, stream: &mut Stream) -> Option<Tasks> {
    if stream.below(2) == 0 {
        return Tasks::exact((0..count).map(|_| hostile(d, d, how, stream))).ok();
    }
    // Few samples: second moments of low rank, too.
    let samples = 1 + stream.below(4) as usize;
    let pairs: Vec<_> = (0..count)
        .map(|_| (hostile(d, samples, how, stream), hostile(d, samples, how, stream)))
        .collect();
    Tasks::from_samples(pairs.iter().map(|(x, y)| (x.as_ref(), y.as_ref()))).ok()
}

#[test]
fn hostile_points_are_refused_in_one_sentence_or_judged() {
    let (mut refused, mut judged) = (0, [0; 7]);
    let mut without_tasks = 0;
    for round in 0..10_000_u64 {
        let mut stream = Seed::root(6).child("hostile").child(round).stream();
        let (count, d) = (1 + stream.below(4) as usize, 1 + stream.below(3) as usize);
        let (of_tasks, of_point) = (stream.below(3).min(1), stream.below(3));
        let Some(tasks) = tasks(count, d, of_tasks, &mut stream) else {
            without_tasks += 1;
            continue;
        };
        // Now and then a width, a count or a dimension that does not fit.
        let off = |usual: usize, stream: &mut Stream| match stream.below(12) {
            0 => usual + 1,
            1 => usual.saturating_sub(1),
            _ => usual,
        };
        let width = 1 + stream.below(d as u64) as usize;
        let (rows, k) = (off(d, &mut stream), off(width, &mut stream));
        let number = off(count, &mut stream);
        let mut factors = || -> Vec<Mat<f64>> {
            (0..number).map(|_| hostile(rows, k, of_point, &mut stream)).collect()
        };
        let (left, right) = (factors(), factors());
        let right = (round % 2 == 0).then_some(right);
        let base = hostile(rows, d, of_point, &mut stream);
        let known = Known {
            zero_is_attained: round % 3 == 0,
            solver_value: (round % 5 == 0).then(|| ENTRIES[(round / 5 % 14) as usize]),
        };
        let found = Point::new(&tasks, base, left, right, UNIT)
            .and_then(|point| assess(&tasks, &point, known, &Seed::root(round)));
        match found {
            Ok(found) => judged[found.verdict as usize] += 1,
            Err(error) => {
                let text = error.to_string();
                assert!(text.len() < 500 && !text.chars().any(char::is_control), "{text:?}");
                refused += 1;
            }
        }
    }
    let all: usize = judged.iter().sum();
    assert_eq!(without_tasks + refused + all, 10_000);
    assert!(
        refused > 1000 && all > 1000 && without_tasks < 5000,
        "{without_tasks} {refused} {judged:?}"
    );
    assert!(judged.iter().filter(|count| **count > 0).count() >= 3, "{judged:?}");
}
