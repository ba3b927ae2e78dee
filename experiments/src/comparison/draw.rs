//! Figures of a comparison: performance profiles, time to accuracy, success rates.

use super::score::{End, ends, methods, scores};
use crate::figures::{Axis, Figure, Series};
use crate::runs::Tables;
use crate::runs::csv::Table;
use std::collections::BTreeMap;

/// Levels of `F / F(start)`: four a decade from 1 to 1e-14.
const LEVELS: i32 = 56;

pub(super) fn figures(tables: &Tables<'_>, tolerance: f64) -> Vec<Figure> {
    let ends = ends(&tables.trials, tolerance);
    let mut figures = vec![
        profile(&ends, "profile_stationary", "to the scaled gradient test", |end| end.stationary),
        profile(&ends, "profile_global", "to the global optimum", |end| end.global),
    ];
    figures.extend(times_to_accuracy(&tables.curves));
    figures.push(success(tables, tolerance));
    figures.retain(|figure| !figure.series.is_empty());
    figures
}

/// Share of the problems that a method solves within a factor of the fastest method's time there.
fn profile(ends: &[End], name: &str, what: &str, solved: impl Fn(&End) -> bool) -> Figure {
    let mut fastest: BTreeMap<&str, f64> = BTreeMap::new();
    let time = |end: &End| end.seconds.filter(|_| solved(end));
    for end in ends {
        let least = fastest.entry(&end.problem).or_insert(f64::INFINITY);
        *least = least.min(time(end).unwrap_or(f64::INFINITY));
    }
    let most = ends.iter().filter_map(|e| Some(time(e)? / fastest[e.problem.as_str()]));
    let right = most.fold(1.0, f64::max) * 1.2;
    let mut series = Vec::new();
    for (colour, method) in methods(ends).into_iter().enumerate() {
        let mine: Vec<&End> = ends.iter().filter(|end| end.method == method).collect();
        let mut ratios: Vec<f64> =
            mine.iter().filter_map(|e| Some(time(e)? / fastest[e.problem.as_str()])).collect();
        if ratios.is_empty() {
            continue;
        }
        ratios.sort_by(f64::total_cmp);
        let share = |count: usize| count as f64 / mine.len() as f64;
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for (i, ratio) in ratios.iter().enumerate() {
            // A step: flat up to the ratio, then one problem more.
            x.extend([*ratio, *ratio]);
            y.extend([share(i), share(i + 1)]);
        }
        x.push(right);
        y.push(share(ratios.len()));
        series.push(Series::line(method, colour, x, y));
    }
    Figure {
        name: name.to_owned(),
        title: format!("Performance profile, {what}"),
        x: Axis::log("time over the fastest method's"),
        y: Axis::linear("share of problems solved"),
        series,
        description: format!(
            "For each method the share of all problems that it brings {what} within a multiple of the shortest time that any method took on the problem; further left and higher is better."
        ),
    }
}

/// One figure a problem: the median over seeds of the time to each level of `F / F(start)`.
fn times_to_accuracy(table: &Table<'_>) -> Vec<Figure> {
    let column = |name: &str| table.column(name);
    let (method, seed) = (column("method"), column("seed"));
    let first = column("size").unwrap_or(0);
    let mut problems: Vec<(String, Vec<String>)> = Vec::new();
    // Times by problem, method and seed; levels from the curve's running minimum.
    let mut times: BTreeMap<(String, String, String), Vec<f64>> = BTreeMap::new();
    for row in 0..table.len() {
        let cells: Vec<&str> =
            (first..seed.unwrap_or(first)).map(|c| table.text(row, Some(c))).collect();
        let name = table.text(row, method).to_owned();
        let problem = in_words(&cells);
        match problems.iter_mut().find(|(known, _)| *known == problem) {
            Some((_, methods)) if methods.contains(&name) => {}
            Some((_, methods)) => methods.push(name.clone()),
            None => problems.push((problem.clone(), vec![name.clone()])),
        }
        let key = (problem, name, table.text(row, seed).to_owned());
        let levels = times.entry(key).or_insert_with(|| vec![f64::INFINITY; LEVELS as usize + 1]);
        let seconds = table.number(row, column("elapsed")).unwrap_or(f64::INFINITY);
        let value = table.number(row, column("value")).unwrap_or(f64::INFINITY);
        for (i, time) in levels.iter_mut().enumerate() {
            if value <= level(i) && *time == f64::INFINITY {
                *time = seconds;
            }
        }
    }
    let figure = |(index, (problem, methods)): (usize, &(String, Vec<String>))| {
        let line = |(colour, method): (usize, &String)| {
            let runs: Vec<&Vec<f64>> = times
                .iter()
                .filter(|((p, m, _), _)| p == problem && m == method)
                .map(|(_, levels)| levels)
                .collect();
            let (mut x, mut y) = (Vec::new(), Vec::new());
            for i in 0..=LEVELS as usize {
                let mut at: Vec<f64> = runs.iter().map(|levels| levels[i]).collect();
                at.sort_by(f64::total_cmp);
                let median = at[(at.len() - 1) / 2];
                if median.is_finite() && median > 0.0 {
                    x.push(median);
                    y.push(level(i));
                }
            }
            Series::line(method, colour, x, y)
        };
        let series = methods.iter().enumerate().map(line).filter(|s| !s.x.is_empty());
        Figure {
            name: format!("accuracy_{index}"),
            title: format!("Time to accuracy: {problem}"),
            x: Axis::log("seconds"),
            y: Axis::log("F / F(start)"),
            series: series.collect(),
            description: "Median over the seeds of the time until F has fallen to a fraction of its value at the start; samples and noise set a floor.".to_owned(),
        }
    };
    problems.iter().enumerate().map(figure).collect()
}

/// A problem's cells: size, samples, kind, family and what else is swept.
fn in_words(cells: &[&str]) -> String {
    let word = |(i, cell): (usize, &&str)| match (i, *cell) {
        (1, "0") => if cells.get(3) == Some(&"file") { "" } else { "exact" }.to_owned(),
        (1, samples) => format!("N={samples}"),
        (_, cell) => cell.to_owned(),
    };
    let words: Vec<String> = cells.iter().enumerate().map(word).filter(|w| !w.is_empty()).collect();
    words.join(", ")
}

fn level(i: usize) -> f64 {
    10_f64.powf(-(i as f64) / 4.0)
}

fn success(tables: &Tables<'_>, tolerance: f64) -> Figure {
    let scores = scores(&tables.trials, tolerance);
    let series = scores.iter().enumerate().map(|(i, score)| {
        let rate = score.global as f64 / score.problems.max(1) as f64;
        let (low, high) = score.interval;
        Series::points(&score.method, i, vec![i as f64 + 1.0], vec![rate])
            .with_interval(vec![low], vec![high])
    });
    Figure {
        name: "success".to_owned(),
        title: "Global optimum found".to_owned(),
        x: Axis::linear("method, in the order of the legend"),
        y: Axis::linear("share of problems"),
        series: series.collect(),
        description: "Share of the problems on which a method ends at the least value that any method found, with Clopper and Pearson's 95 % intervals.".to_owned(),
    }
}
