//! Counts, intervals and ratios of a comparison, from its trials.csv.

use crate::claims::clopper_pearson;
use crate::runs::csv::Table;
use crate::runs::{Summary, Tables};
use std::collections::BTreeMap;

/// Gap of the value, relative to that of the start, below which an end is the global optimum.
const GLOBAL: f64 = 1e-6;

/// Two implementations of a gradient differ by rounding: the test of the end point allows for it.
const SLACK: f64 = 1.01;

/// Pairs of methods that are one algorithm: ours, and the peer's.
const PAIRS: [(&str, &str); 4] = [
    ("lbfgs", "scipy/lbfgs"),
    ("trust-region", "pymanopt/trust-region"),
    ("lbfgs", "torch/lbfgs"),
    ("authors", "numpy/authors"),
];

/// One trial as it counts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct End {
    /// Problem with seed.
    pub problem: String,
    /// The method.
    pub method: String,
    /// Shortest time; `None` where the method refused.
    pub seconds: Option<f64>,
    /// Iterations.
    pub iterations: f64,
    /// Passes the scaled gradient test.
    pub stationary: bool,
    /// At the least value that any method found.
    pub global: bool,
}

/// A method's counts over all problems.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The method.
    pub method: String,
    /// Problems, seeds counted.
    pub problems: usize,
    /// Problems where it gave an answer.
    pub answered: usize,
    /// Ends that pass the scaled gradient test.
    pub stationary: usize,
    /// Ends at the global optimum.
    pub global: usize,
    /// Clopper and Pearson's 95 % interval of the rate of global optima.
    pub interval: (f64, f64),
    /// Median of the seconds.
    pub median_seconds: f64,
}

/// The trials of a table, judged; the order is the table's.
pub(super) fn ends(table: &Table<'_>, tolerance: f64) -> Vec<End> {
    let method = table.column("method");
    let first = table.column("size").unwrap_or(0);
    let problem = |row: usize| -> String {
        let cells = first..method.unwrap_or(first);
        cells.map(|c| table.text(row, Some(c))).collect::<Vec<_>>().join(", ")
    };
    let number = |row: usize, name: &str| table.number(row, table.column(name));
    let mut best: BTreeMap<String, f64> = BTreeMap::new();
    for row in 0..table.len() {
        let least = best.entry(problem(row)).or_insert(f64::INFINITY);
        *least = least.min(number(row, "loss").unwrap_or(f64::INFINITY));
    }
    let end = |row: usize| {
        let problem = problem(row);
        let least = best.get(&problem).copied().unwrap_or(f64::INFINITY);
        let start = number(row, "start_loss").unwrap_or(f64::NAN);
        let loss = number(row, "loss").unwrap_or(f64::INFINITY);
        End {
            method: table.text(row, method).to_owned(),
            seconds: number(row, "seconds"),
            iterations: number(row, "iterations").unwrap_or(f64::NAN),
            stationary: number(row, "gradient_ratio").is_some_and(|r| r <= SLACK * tolerance),
            global: loss - least <= GLOBAL * (start - least),
            problem,
        }
    };
    (0..table.len()).map(end).collect()
}

/// The methods of a table, in its order.
pub(super) fn methods(ends: &[End]) -> Vec<&str> {
    let mut methods: Vec<&str> = Vec::new();
    for end in ends {
        if !methods.contains(&end.method.as_str()) {
            methods.push(&end.method);
        }
    }
    methods
}

/// Every method's counts.
pub fn scores(table: &Table<'_>, tolerance: f64) -> Vec<Score> {
    let ends = ends(table, tolerance);
    let score = |method: &str| {
        let mine: Vec<&End> = ends.iter().filter(|end| end.method == method).collect();
        let count = |test: &dyn Fn(&End) -> bool| mine.iter().filter(|end| test(end)).count();
        let global = count(&|end| end.global);
        let mut seconds: Vec<f64> = mine.iter().filter_map(|end| end.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        Score {
            method: method.to_owned(),
            problems: mine.len(),
            answered: seconds.len(),
            stationary: count(&|end| end.stationary),
            global,
            interval: clopper_pearson(global, mine.len(), 0.025),
            median_seconds: seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN),
        }
    };
    methods(&ends).into_iter().map(score).collect()
}

/// Geometric means over the problems where both are stationary: the ratio of times (the peer's over
/// ours), and of iterations; `None` where there is no such problem.
fn ratios(ends: &[End], ours: &str, theirs: &str) -> Option<(usize, f64, f64)> {
    let find = |problem: &str, method: &str| {
        ends.iter().find(|e| e.problem == problem && e.method == method && e.stationary)
    };
    let mut logs = Vec::new();
    for mine in ends.iter().filter(|end| end.method == ours) {
        let (mine, other) = (find(&mine.problem, ours), find(&mine.problem, theirs));
        if let (Some(mine), Some(other)) = (mine, other)
            && let (Some(a), Some(b)) = (mine.seconds, other.seconds)
        {
            logs.push(((b / a).ln(), (other.iterations / mine.iterations).ln()));
        }
    }
    let n = logs.len() as f64;
    let mean = |part: &dyn Fn(&(f64, f64)) -> f64| (logs.iter().map(part).sum::<f64>() / n).exp();
    (!logs.is_empty()).then(|| (logs.len(), mean(&|l| l.0), mean(&|l| l.1)))
}

/// The answer: ratios of the pairs, and who found the global optimum how often.
pub(super) fn summary(tables: &Tables<'_>, tolerance: f64) -> Summary {
    let ends = ends(&tables.trials, tolerance);
    let mut figures = serde_json::Map::new();
    let mut parts = Vec::new();
    for (ours, theirs) in PAIRS {
        if let Some((count, time, iterations)) = ratios(&ends, ours, theirs) {
            parts.push(format!(
                "{theirs} took {time:.1} times as long as {ours}, with {iterations:.2} times its iterations (geometric means of {count} problems)"
            ));
            figures.insert(format!("{ours}.{theirs}.time_ratio"), time.into());
            figures.insert(format!("{ours}.{theirs}.iteration_ratio"), iterations.into());
        }
    }
    for score in scores(&tables.trials, tolerance) {
        let (low, high) = score.interval;
        for (name, value) in [
            ("problems", score.problems as f64),
            ("stationary", score.stationary as f64),
            ("global", score.global as f64),
            ("low", low),
            ("high", high),
            ("median_seconds", score.median_seconds),
        ] {
            figures.insert(format!("{}.{name}", score.method), value.into());
        }
        parts.push(format!(
            "{} found the global optimum {} times of {} ({:.0} to {:.0} %)",
            score.method,
            score.global,
            score.problems,
            100.0 * low,
            100.0 * high
        ));
    }
    if parts.is_empty() {
        parts.push("no method has run yet".to_owned());
    }
    let answer = format!("From the same starts to the same test, {}.", parts.join("; "));
    Summary { answer, figures }
}
