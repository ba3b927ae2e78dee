//! Figures of a linear study, from the merged tables alone.
//!
//! * `reference_loss_<point>`: the reference's curve at each sweep point, mean with min-max band
//! * `final_excess_risk`: after fine-tuning against the swept quantity, theory's rates and floors
//!   dashed
//! * `final_reference_loss`, `base_error`: the same for the reference's loss and the base
//! * `retraining_convergence`: the base's error against the round

use super::LinearStudy;
use super::methods::{FINE_TUNING, FineTuningMethod, RETRAINING, RetrainingMethod};
use super::stats::{Band, Profiles, profiles};
use crate::figures::{Axis, Figure, Series, Style};
use crate::runs::Tables;
use crate::runs::csv::Table;
use crate::swept::{Swept, words};

/// The method of a row, with its position in the registry: the colour.
fn retraining_of(table: &Table<'_>, row: usize) -> Option<(usize, &'static RetrainingMethod)> {
    let (retraining, solver) =
        (table.text(row, table.column("retraining")), table.text(row, table.column("solver")));
    let tasks = table.number(row, table.column("tasks"))? as usize;
    RETRAINING
        .iter()
        .enumerate()
        .find(|(_, m)| m.retraining == retraining && (m.solver)(tasks) == solver)
}

fn fine_tuning_of(table: &Table<'_>, row: usize) -> Option<&'static FineTuningMethod> {
    let name = table.text(row, table.column("fine_tuning"));
    FINE_TUNING.iter().find(|method| method.name == name)
}

/// The colour of a label that begins with a retraining method's.
fn colour(label: &str) -> usize {
    RETRAINING.iter().position(|m| label.starts_with(m.label)).unwrap_or(RETRAINING.len())
}

/// All figures.
pub(super) fn figures(study: &LinearStudy, tables: &Tables<'_>) -> Vec<Figure> {
    let swept = study.frame.swept();
    let shown = study.frame.resolved.config.fine_tuning.shown_steps as f64;
    let mut figures = curves(study, &swept, tables, shown);
    figures.push(final_excess_risk(study, &swept, &tables.trials));
    figures.push(final_reference_loss(study, &swept, &tables.trials));
    figures.push(base_error(study, &swept, &tables.trials));
    figures.push(convergence(study, &swept, tables));
    figures.retain(|figure| !figure.series.is_empty());
    figures
}

fn with_band(label: &str, band: Band) -> Series {
    let colour = colour(label);
    Series::line(label, colour, band.x, band.mean).with_interval(band.low, band.high)
}

fn lines(profiles: Profiles) -> Vec<Series> {
    profiles.into_iter().map(|(label, profile)| with_band(&label, profile.band())).collect()
}

/// Dashed lines of what theory says, in the colour of the last method that it speaks of.
fn dashed(profiles: Profiles, what: &str) -> Vec<Series> {
    let colour = |label: &str| {
        let speaks = |told: &str| {
            label.strip_prefix(told).is_some_and(|rest| rest.is_empty() || rest.starts_with(", "))
        };
        RETRAINING.iter().rposition(|method| speaks(method.told)).unwrap_or(RETRAINING.len())
    };
    profiles
        .into_iter()
        .map(|(label, profile)| {
            let band = profile.band();
            Series::dashed(format!("{what}: {label}"), colour(&label), band.x, band.mean)
        })
        .filter(|line| line.y.iter().any(|y| *y > 0.0))
        .collect()
}

/// The reference's curves: one figure a sweep point.
fn curves(study: &LinearStudy, swept: &Swept<'_>, tables: &Tables<'_>, shown: f64) -> Vec<Figure> {
    let table = &tables.curves;
    let iteration = table.column("iteration");
    let quantity = table.column("quantity");
    let mut points: Vec<(String, String)> = Vec::new();
    let mut rows: Vec<Vec<usize>> = Vec::new();
    for row in 0..table.len() {
        if table.text(row, quantity) != "reference_loss" {
            continue;
        }
        let point = swept.point(table, row);
        match points.iter().position(|(known, _)| *known == point) {
            Some(at) => rows[at].push(row),
            None => {
                points.push((point, swept.title(table, row)));
                rows.push(vec![row]);
            }
        }
    }
    let figure = |((point, title), rows): ((String, String), Vec<usize>)| {
        let mut profiles: Profiles = Vec::new();
        for row in rows {
            let Some(x) = table.number(row, iteration).filter(|x| *x <= shown) else { continue };
            let Some(y) = table.number(row, table.column("value")) else { continue };
            let Some((_, method)) = retraining_of(table, row) else { continue };
            match profiles.iter_mut().find(|(label, _)| label == method.label) {
                Some((_, profile)) => profile.add(x, y),
                None => {
                    let mut profile = super::stats::Profile::default();
                    profile.add(x, y);
                    profiles.push((method.label.to_owned(), profile));
                }
            }
        }
        Figure {
            name: if point.is_empty() {
                "reference_loss".into()
            } else {
                format!("reference_loss_{point}")
            },
            title: format!("Fine-tuning by gradient steps, {title}"),
            x: Axis::linear("fine-tuning step"),
            y: Axis::log("reference loss (sum over fine-tuning inputs)"),
            series: lines(profiles),
            description: format!(
                "Loss on the test task against the fine-tuning step at {title}, mean over {} seeds \
                 with the range from the smallest to the largest, by retraining method.",
                study.frame.seeds.len()
            ),
        }
    };
    points.into_iter().zip(rows).map(figure).collect()
}

/// Excess risk after fine-tuning, with rates and floors.
fn final_excess_risk(study: &LinearStudy, swept: &Swept<'_>, table: &Table<'_>) -> Figure {
    // The best that the stated rank can do, where it was run, and the authors' steps otherwise.
    let method = study
        .fine_tuning
        .iter()
        .find(|method| method.name == "reduced-rank-regression")
        .or(study.fine_tuning.first());
    let chosen = |row: usize| {
        fine_tuning_of(table, row)
            .filter(|found| method.is_some_and(|method| method.name == found.name))
    };
    let label = |row: usize| {
        chosen(row)?;
        Some(format!("{}{}", retraining_of(table, row)?.1.label, swept.others(table, row)))
    };
    let x = |row: usize| swept.x(table, row);
    let mut series = lines(profiles(table, "excess_risk", label, x));
    let full = |row: usize| {
        let (method, (index, _)) = (fine_tuning_of(table, row)?, retraining_of(table, row)?);
        let first = RETRAINING.iter().position(|m| m.name == study.retraining[0].name);
        (method.name == "least-squares" && Some(index) == first)
            .then(|| format!("{}{}", method.label, swept.others(table, row)))
    };
    series.extend(lines(profiles(table, "excess_risk", full, x)));
    let told = |row: usize| {
        chosen(row)?;
        Some(format!("{}{}", retraining_of(table, row)?.1.told, swept.others(table, row)))
    };
    let expected = dashed(profiles(table, "predicted_excess_risk", told, x), "theory");
    let floors = dashed(profiles(table, "predicted_floor", told, x), "floor");
    // Where theory expects no more than the floor, one line tells both.
    let new = |floor: &Series| !expected.iter().any(|line| line.y == floor.y);
    let floors: Vec<Series> = floors.into_iter().filter(new).collect();
    series.extend(expected);
    series.extend(floors);
    Figure {
        name: "final_excess_risk".into(),
        title: "Excess risk after fine-tuning".into(),
        x: swept.axis(table),
        y: Axis::log("excess risk on the test task"),
        series,
        description: format!(
            "Population excess risk on the test task after {} against {}, mean and range over {} \
             seeds, by retraining method; dashed: theory's prediction and its floor.",
            method.map_or("fine-tuning", |method| method.label),
            words(swept.path()),
            study.frame.seeds.len()
        ),
    }
}

/// The reference's loss after the last gradient step.
fn final_reference_loss(study: &LinearStudy, swept: &Swept<'_>, table: &Table<'_>) -> Figure {
    let label = |row: usize| {
        let method = fine_tuning_of(table, row)?;
        let first = study.fine_tuning.first()?;
        let label = retraining_of(table, row)?.1.label;
        (method.name == first.name).then(|| format!("{label}{}", swept.others(table, row)))
    };
    let x = |row: usize| swept.x(table, row);
    let name = study.fine_tuning.first().map_or("fine-tuning", |method| method.label);
    Figure {
        name: "final_reference_loss".into(),
        title: format!("Reference loss after {name}"),
        x: swept.axis(table),
        y: Axis::log("reference loss (sum over fine-tuning inputs)"),
        series: lines(profiles(table, "reference_loss", label, x)),
        description: format!(
            "Loss on the test task's fine-tuning inputs after {name} against {}, mean and range \
             over {} seeds, by retraining method.",
            words(swept.path()),
            study.frame.seeds.len()
        ),
    }
}

/// The base's squared error, with theory's prediction.
fn base_error(study: &LinearStudy, swept: &Swept<'_>, table: &Table<'_>) -> Figure {
    let label = |row: usize| {
        let method = fine_tuning_of(table, row)?;
        let first = study.fine_tuning.first()?;
        let label = retraining_of(table, row)?.1.label;
        (method.name == first.name).then(|| format!("{label}{}", swept.others(table, row)))
    };
    let x = |row: usize| swept.x(table, row);
    let mut series = lines(profiles(table, "base_error_squared", label, x));
    let told = |row: usize| {
        label(row)?;
        Some(format!("{}{}", retraining_of(table, row)?.1.told, swept.others(table, row)))
    };
    series.extend(dashed(profiles(table, "predicted_base_error_squared", told, x), "theory"));
    Figure {
        name: "base_error".into(),
        title: "Squared error of the base".into(),
        x: swept.axis(table),
        y: Axis::log("squared Frobenius error of the base"),
        series,
        description: format!(
            "Squared Frobenius distance of the base from the common ground truth against {}, mean \
             and range over {} seeds, by retraining method; dashed: theory's prediction.",
            words(swept.path()),
            study.frame.seeds.len()
        ),
    }
}

/// The base's error against the retraining round.
fn convergence(study: &LinearStudy, swept: &Swept<'_>, tables: &Tables<'_>) -> Figure {
    let table = &tables.curves;
    let label = |row: usize| {
        let retraining = table.text(row, table.column("stage")) == "retraining";
        let label = retraining_of(table, row)?.1.label;
        retraining.then(|| format!("{label}, {}", swept.title(table, row)))
    };
    // Round 0 has no place on a logarithmic axis.
    let x = |row: usize| table.number(row, table.column("iteration")).filter(|x| *x >= 1.0);
    let series = profiles(table, "value", label, x)
        .into_iter()
        .enumerate()
        .map(|(index, (label, profile))| {
            let band = profile.band();
            let line = Series::line(&*label, index, band.x, band.mean);
            let line = line.with_interval(band.low, band.high);
            let standard = RETRAINING.iter().any(|m| m.is_standard && label.starts_with(m.label));
            Series { style: if standard { Style::Dashed } else { Style::Line }, ..line }
        })
        .collect();
    Figure {
        name: "retraining_convergence".into(),
        title: "Convergence of retraining".into(),
        x: Axis::log("round"),
        y: Axis::log("squared Frobenius error of the base"),
        series,
        description: format!(
            "Squared Frobenius distance of the base from the common ground truth against the \
             retraining round, mean and range over {} seeds, by scheme and sweep point.",
            study.frame.seeds.len()
        ),
    }
}
