//! Rows of trials.csv taken together over seeds.

use super::paired::{holm, sign_flip};
use crate::runs::csv::Table;

/// Column that is taken together.
const SEED: &str = "seed";
/// Column that says whether a row has numbers.
const STATUS: &str = "status";

/// One sweep point and method.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    /// Cells of the columns that name the group.
    pub cells: Vec<String>,
    /// Whether this is the first method of its sweep point, which the others are compared with.
    pub is_baseline: bool,
    /// Rows without a number, and the first reason.
    pub refused: Option<(usize, String)>,
    /// One entry a measure; `None` where no row has a number.
    pub statistics: Vec<Option<Statistics>>,
}

/// A measure of one group over its seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Statistics {
    pub count: usize,
    pub mean: f64,
    /// Standard error of the mean; `None` for one seed.
    pub standard_error: Option<f64>,
    pub least: f64,
    pub most: f64,
    /// Of the paired test against the baseline, Holm-corrected over the measure's table.
    pub p: Option<f64>,
}

/// All groups of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Aggregate {
    /// Names of the columns that differ between groups.
    pub columns: Vec<String>,
    /// Columns that are the same everywhere, with their value.
    pub constants: Vec<(String, String)>,
    pub measures: Vec<String>,
    pub groups: Vec<Group>,
}

/// Takes the rows of `table` together. `swept` and `keys` are columns that name a row; those that
/// the table lacks are passed over, as are `measures`.
pub(super) fn aggregate(
    table: &Table<'_>,
    swept: &[String],
    keys: &[String],
    measures: &[String],
) -> Aggregate {
    let there = |name: &&String| table.column(name).is_some();
    let mut names: Vec<&String> = swept.iter().filter(there).collect();
    for key in keys.iter().filter(there).filter(|key| *key != SEED) {
        if !names.contains(&key) {
            names.push(key);
        }
    }
    let measures: Vec<&String> = measures.iter().filter(there).collect();
    let cell = |row: usize, name: &str| table.text(row, table.column(name)).to_owned();
    let (constants, columns): (Vec<&String>, Vec<&String>) = names.into_iter().partition(|name| {
        !swept.contains(name) && (1..table.len()).all(|row| cell(row, name) == cell(0, name))
    });

    let mut rows: Vec<(Vec<String>, Vec<usize>)> = Vec::new();
    let mut index = std::collections::HashMap::new();
    for row in 0..table.len() {
        let cells: Vec<String> = columns.iter().map(|name| cell(row, name)).collect();
        let at = *index.entry(cells.clone()).or_insert_with(|| {
            rows.push((cells, Vec::new()));
            rows.len() - 1
        });
        rows[at].1.push(row);
    }
    let points = swept.iter().filter(there).count();
    let statistics =
        measures.iter().map(|measure| column_statistics(table, measure, points, &rows));
    let by_measure: Vec<Vec<Option<Statistics>>> = statistics.collect();
    let groups = rows.iter().enumerate().map(|(i, (cells, members))| Group {
        cells: cells.clone(),
        is_baseline: baseline(points, &rows, i) == i,
        refused: refusals(table, members),
        statistics: by_measure.iter().map(|statistics| statistics[i]).collect(),
    });
    Aggregate {
        groups: groups.collect(),
        constants: constants
            .into_iter()
            .filter(|_| !table.is_empty())
            .map(|name| (name.clone(), cell(0, name)))
            .collect(),
        columns: columns.into_iter().cloned().collect(),
        measures: measures.into_iter().cloned().collect(),
    }
}

/// First group at the sweep point of group `i`: the first `points` cells are the point.
fn baseline(points: usize, rows: &[(Vec<String>, Vec<usize>)], i: usize) -> usize {
    rows.iter().position(|(cells, _)| cells[..points] == rows[i].0[..points]).unwrap_or(i)
}

fn column_statistics(
    table: &Table<'_>,
    measure: &str,
    points: usize,
    rows: &[(Vec<String>, Vec<usize>)],
) -> Vec<Option<Statistics>> {
    let column = table.column(measure);
    // Values by seed; a seed that occurs twice has no partner.
    let values = |i: usize| -> Vec<(&str, f64)> {
        let members = rows[i].1.iter();
        members
            .filter_map(|&row| {
                Some((table.text(row, table.column(SEED)), table.number(row, column)?))
            })
            .collect()
    };
    let p = (0..rows.len()).map(|i| {
        let first = baseline(points, rows, i);
        if first == i {
            return None;
        }
        let partners: std::collections::HashMap<&str, f64> = values(first).into_iter().collect();
        let differences: Vec<f64> = values(i)
            .into_iter()
            .filter_map(|(seed, value)| Some(value - partners.get(seed)?))
            .collect();
        if differences.len() < 2 { None } else { sign_flip(&differences) }
    });
    let p = holm(&p.collect::<Vec<_>>());
    (0..rows.len()).map(|i| summarise(&values(i), p[i])).collect()
}

fn summarise(values: &[(&str, f64)], p: Option<f64>) -> Option<Statistics> {
    let count = values.len();
    if count == 0 {
        return None;
    }
    // Shifted by the first value: exact where all are equal.
    let origin = values[0].1;
    let mean = origin + values.iter().map(|(_, v)| v - origin).sum::<f64>() / count as f64;
    let squares: f64 = values.iter().map(|(_, v)| (v - mean).powi(2)).sum();
    let fold = |start: f64, choose: fn(f64, f64) -> f64| {
        values.iter().fold(start, |m, (_, v)| choose(m, *v))
    };
    Some(Statistics {
        count,
        mean,
        standard_error: (count > 1).then(|| (squares / (count - 1) as f64 / count as f64).sqrt()),
        least: fold(f64::INFINITY, f64::min),
        most: fold(f64::NEG_INFINITY, f64::max),
        p,
    })
}

fn refusals(table: &Table<'_>, members: &[usize]) -> Option<(usize, String)> {
    let status = table.column(STATUS)?;
    let mut refused =
        members.iter().map(|&row| table.text(row, Some(status))).filter(|text| *text != "ok");
    let first = refused.next()?.to_owned();
    Some((1 + refused.count(), first))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIALS: &str = "study,n,seed,method,error,status\n\
        s,10,0,plain,4.0,ok\n\
        s,10,1,plain,6.0,ok\n\
        s,10,2,plain,8.0,ok\n\
        s,10,0,meta,1.0,ok\n\
        s,10,1,meta,2.0,ok\n\
        s,10,2,meta,,outside conditions\n\
        s,20,0,plain,3.0,ok\n\
        s,20,0,meta,3.0,ok\n";

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn rows_are_taken_together_over_seeds() {
        let table = Table::parse(TRIALS).unwrap();
        let keys = names(&["study", "n", "seed", "method", "absent"]);
        let all = aggregate(&table, &names(&["n"]), &keys, &names(&["error", "absent"]));
        assert_eq!(all.columns, ["n", "method"]);
        assert_eq!(all.constants, [("study".to_owned(), "s".to_owned())]);
        assert_eq!(all.measures, ["error"]);
        assert_eq!(all.groups.len(), 4);
        let plain = all.groups[0].statistics[0].unwrap();
        assert_eq!((plain.count, plain.mean, plain.least, plain.most), (3, 6.0, 4.0, 8.0));
        // Standard deviation 2 over the root of 3.
        assert!((plain.standard_error.unwrap() - 2.0 / 3f64.sqrt()).abs() < 4.0 * f64::EPSILON);
        let meta = &all.groups[1];
        assert_eq!(meta.refused, Some((1, "outside conditions".to_owned())));
        // Differences −3 and −4 on the two shared seeds: p = 2/4, alone in the table.
        assert_eq!(meta.statistics[0].unwrap().p, Some(0.5));
        assert!(all.groups[0].is_baseline && !meta.is_baseline);
        let single = all.groups[3].statistics[0].unwrap();
        assert_eq!((single.standard_error, single.p), (None, None));
    }

    #[test]
    fn an_empty_table_has_no_groups() {
        let table = Table::parse("n,seed,error\n").unwrap();
        let all = aggregate(&table, &names(&["n"]), &names(&["n"]), &names(&["error"]));
        assert!(all.groups.is_empty() && all.constants.is_empty());
    }
}
