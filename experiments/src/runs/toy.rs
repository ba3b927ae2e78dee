//! A study for tests: fast, and failing where it is told to.

use super::*;
use crate::figures::{Axis, Figure, Series};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

/// Trials (x, seed) with the row `x, seed, sin(x + seed)`.
pub(crate) struct Toy {
    about: About,
    config: toml::Table,
    seeds: u64,
    /// Trials that fail, and how.
    failing: Mutex<BTreeMap<String, &'static str>>,
    /// How often each trial was run.
    runs: Mutex<BTreeMap<String, usize>>,
}

impl Toy {
    pub(crate) fn new(seeds: u64) -> Self {
        let text = |s: &str| s.to_owned();
        let about = About {
            suite: text("toy"),
            name: text("sines"),
            title: text("Sines"),
            question: text("What is the sine?"),
            swept: vec![text("x")],
            keys: vec![text("x"), text("seed")],
            measures: vec![text("sine")],
        };
        let config = toml::from_str(&format!("size = 3\nseeds = \"0..{seeds}\"\n")).unwrap();
        Self { about, config, seeds, failing: Mutex::default(), runs: Mutex::default() }
    }

    pub(crate) fn failing(self, trial: &str, how: &'static str) -> Self {
        self.failing.lock().unwrap().insert(trial.to_owned(), how);
        self
    }

    pub(crate) fn ran(&self) -> usize {
        self.runs.lock().unwrap().values().sum()
    }
}

impl Study for Toy {
    fn about(&self) -> &About {
        &self.about
    }

    fn config(&self) -> &toml::Table {
        &self.config
    }

    fn identity(&self) -> toml::Table {
        let mut identity = self.config.clone();
        identity.remove("seeds");
        identity
    }

    fn headers(&self) -> Headers {
        Headers {
            trials: "x,seed,sine".to_owned(),
            curves: "x,seed,iteration,value".to_owned(),
            timings: "x,seed,seconds".to_owned(),
        }
    }

    fn trials(&self) -> Vec<Trial> {
        let mut trials = Vec::new();
        for x in 0..3 {
            for seed in 0..self.seeds {
                for method in 0..2 {
                    trials.push(Trial {
                        id: format!("x={x} seed={seed} {method}"),
                        group: x * self.seeds as usize + seed as usize,
                        cost: (x + 1) as f64,
                    });
                }
            }
        }
        trials
    }

    fn run(&self, group: &Group<'_>, finish: &mut dyn FnMut(&Trial, Result<Outcome, String>)) {
        for trial in group {
            *self.runs.lock().unwrap().entry(trial.id.clone()).or_default() += 1;
            let how = self.failing.lock().unwrap().get(&trial.id).copied();
            match how {
                Some("panic") => panic!("as asked"),
                Some(reason) if reason != "refuse" => {
                    finish(trial, Err(reason.to_owned()));
                    continue;
                }
                _ => {}
            }
            let value = trial.id.bytes().map(f64::from).sum::<f64>().sin();
            let line = |end: f64| csv::Line::new().integer(1).integer(2).number(end).finish();
            finish(
                trial,
                Ok(Outcome {
                    trials: vec![line(value)],
                    curves: vec![
                        csv::Line::new().integer(1).integer(2).integer(3).number(value).finish(),
                    ],
                    timings: vec![line(provenance::unix_time() as f64)],
                    refused: (how == Some("refuse")).then(|| "no answer".to_owned()),
                    instances: (value > 0.5)
                        .then(|| Instance {
                            name: trial.id.replace([' ', '='], "-"),
                            text: format!("{value}"),
                        })
                        .into_iter()
                        .collect(),
                }),
            );
        }
    }

    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure> {
        let y = (0..tables.trials.len()).filter_map(|i| tables.trials.number(i, Some(2))).collect();
        let x = (0..tables.trials.len()).map(|i| i as f64).collect();
        vec![Figure {
            name: "sine".to_owned(),
            x: Axis::linear("row"),
            y: Axis::linear("sine"),
            series: vec![Series::line("sine", 0, x, y)],
            ..Figure::default()
        }]
    }

    fn write_instance(&self, instance: &Instance, folder: &Path) -> Result<(), String> {
        let bytes = instance.text.as_bytes();
        std::fs::write(folder.join("value.txt"), bytes).map_err(|error| error.to_string())
    }

    fn summary(&self, tables: &Tables<'_>) -> Summary {
        let mut figures = serde_json::Map::new();
        figures.insert("rows".to_owned(), tables.trials.len().into());
        Summary { answer: format!("{} rows.", tables.trials.len()), figures }
    }
}
