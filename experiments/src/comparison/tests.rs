//! Profiles, counts and intervals of tables made by hand, and a comparison of two of our methods.

use super::*;
use crate::config::{StudyName, load, set};
use crate::runs::csv::Table as Csv;

const HEADER: &str = "suite,study,size,samples_per_task,kind,family,seed,method,seconds,iterations,gradients,hessian_products,factorisations,loss,relative_loss,start_loss,gradient_ratio,stop_reason,status";

fn row(seed: usize, method: &str, seconds: &str, loss: &str, ratio: &str) -> String {
    format!(
        "solvers,compare,d=3 k=1 T=3,0,symmetric,iid,{seed},{method},{seconds},10,12,0,0,{loss},{loss},1.0,{ratio},stationary,ok"
    )
}

#[test]
fn the_global_optimum_is_the_least_that_any_method_found_and_a_refusal_is_no_success() {
    let rows = [
        HEADER.to_owned(),
        row(0, "lbfgs", "1.0", "1e-12", "1e-9"),
        row(0, "scipy/lbfgs", "30.0", "1e-13", "1e-9"),
        row(1, "lbfgs", "1.0", "0.25", "1e-9"),
        row(1, "scipy/lbfgs", "20.0", "0.2", "1e-9"),
        row(2, "lbfgs", "1.0", "0.0", "1e-3"),
        row(2, "scipy/lbfgs", "", "", ""),
    ];
    let text = rows.join("\n") + "\n";
    let table = Csv::parse(&text).unwrap();
    let scores = scores(&table, 1e-8);
    let counts: Vec<_> = scores.iter().map(|s| (s.problems, s.stationary, s.global)).collect();
    assert_eq!(counts, [(3, 2, 2), (3, 2, 2)]);
    // Two of three: Clopper and Pearson's table has 9.4 to 99.2 %.
    let (low, high) = scores[0].interval;
    assert!((low - 0.0943).abs() < 1e-3 && (high - 0.9916).abs() < 1e-3, "{low} {high}");
    let tables = Tables { trials: table, curves: Csv::parse("a\n").unwrap() };
    let summary = score::summary(&tables, 1e-8);
    // sqrt(30 * 20), of the two problems where both are stationary.
    let ratio = summary.figures["lbfgs.scipy/lbfgs.time_ratio"].as_f64().unwrap();
    assert!((ratio - 600.0_f64.sqrt()).abs() < 1e-9);
    let profile = draw::figures(&tables, 1e-8).into_iter().next().unwrap();
    let lbfgs = &profile.series[0];
    assert_eq!((lbfgs.x[0], *lbfgs.y.last().unwrap()), (1.0, 2.0 / 3.0));
    assert_eq!(profile.series[1].x[0], 20.0);
}

#[test]
fn our_methods_run_from_the_same_start_and_are_judged_outside() {
    let mut table = load(&StudyName("solvers/compare.quick".into())).unwrap();
    for edit in [
        "seeds=0",
        "repetitions=1",
        "sweep.size=[\"d=6 k=1 T=3\"]",
        "sweep.samples_per_task=[0, 50]",
    ] {
        set(&mut table, edit).unwrap();
    }
    let names = ["lbfgs", "trust-region", "global", "two-task"].map(toml::Value::from).to_vec();
    table.insert("methods".to_owned(), toml::Value::Array(names));
    let study = ComparisonStudy::new(&table).unwrap();
    let trials = study.trials();
    assert_eq!(trials.len(), 8);
    let headers = study.headers();
    let mut text = headers.trials + "\n";
    for half in [&trials[..4], &trials[4..]] {
        let group: Vec<&Trial> = half.iter().collect();
        study.run(&group, &mut |trial, outcome| {
            let outcome = outcome.unwrap_or_else(|reason| panic!("{}: {reason}", trial.id));
            text += &(outcome.trials.join("\n") + "\n");
            assert_eq!(outcome.curves.is_empty(), trial.id.ends_with("two-task"));
        });
    }
    let table = Csv::parse(&text).unwrap();
    let scores = scores(&table, 1e-8);
    for score in &scores[..3] {
        assert_eq!((score.answered, score.stationary), (2, 2), "{}", score.method);
    }
    assert_eq!(scores[3].answered, 0, "three tasks are not two");
    let starts: Vec<_> = (0..4).map(|row| table.text(row, table.column("start_loss"))).collect();
    assert!(starts.iter().all(|start| *start == starts[0]));
}

#[test]
fn names_and_sizes_that_cannot_be_are_refused() {
    let table = load(&StudyName("solvers/compare.quick".into())).unwrap();
    for (key, value) in [
        ("methods", toml::Value::Array(vec!["lbfsg".into()])),
        ("size", "d=3 k=4 T=3".into()),
        ("tolerance", 0.0.into()),
        ("family", "none".into()),
    ] {
        let mut wrong = table.clone();
        wrong.insert(key.to_owned(), value);
        wrong.remove("sweep");
        assert!(ComparisonStudy::new(&wrong).is_err(), "{key}");
    }
}
