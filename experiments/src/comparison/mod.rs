//! Solvers compared on the same problems: ours from the registry, and the packages that people would
//! otherwise use.
//!
//! A trial is (problem, seed, method). All methods of a problem and a seed start at the same point and
//! end at the same test, `||grad F|| <= tolerance * scale`; where they ended is judged by one objective,
//! ours. Peers are timed by the CPU time of their thread, which other processes cannot lengthen; the
//! shortest of the repetitions counts. Ours by wall clock, the shortest run, or by their thread's CPU time, the mean of
//! all runs, whichever is less: on a quiet machine the two agree.
//!
//! Unlike those of other studies, the tables hold times and so differ from run to run. Performance
//! profiles: Dolan and Moré, Math. Program. 91 (2002). A method finds the global optimum of a problem
//! where `F - F_best <= 1e-6 (F(start) - F_best)`, `F_best` the least that any method found there.

pub mod config;
mod draw;
mod measure;
pub mod peers;
mod score;

pub use score::{Score, scores};

use crate::config::resolved::{Resolved, plain};
use crate::config::{ConfigError, Seeds, sweep};
use crate::figures::Figure;
use crate::runs::csv::Line;
use crate::runs::{About, Group, Headers, Outcome, Study, Summary, Tables, Trial};
use config::ComparisonConfig;
use measure::{Measured, Scene};
use peers::PEERS;
use peftml_solvers::{entry, registry};
use toml::{Table, Value};

/// Columns that name a problem.
const PROBLEM: [&str; 4] = ["size", "samples_per_task", "kind", "family"];

/// Measured columns.
const MEASURES: [&str; 6] =
    ["seconds", "iterations", "gradients", "hessian_products", "relative_loss", "gradient_ratio"];

/// A comparison of solvers.
pub struct ComparisonStudy {
    about: About,
    resolved: Resolved<ComparisonConfig>,
    seeds: Seeds,
    /// Swept leaves that have no column among those of the problem.
    extra: Vec<String>,
}

/// All names that a comparison takes, ours first.
pub fn names() -> impl Iterator<Item = &'static str> {
    registry().iter().map(|entry| entry.name).chain(PEERS.iter().map(|peer| peer.name))
}

/// Checks that the files of a configuration hold a problem and a start that fit it.
///
/// # Errors
/// One sentence.
pub fn check_file(table: &Table) -> Result<(), String> {
    let resolved = Resolved::<ComparisonConfig>::read(table).map_err(|error| error.to_string())?;
    Scene::new(&resolved.config, 0).map(|_| ())
}

impl ComparisonStudy {
    /// The study of a configuration table.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(table: &Table) -> Result<Self, ConfigError> {
        let resolved = Resolved::<ComparisonConfig>::read(table)?;
        let config = &resolved.config;
        if let Some(wrong) = config.methods.iter().find(|m| !names().any(|name| name == *m)) {
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(ConfigError::value("methods", wrong, format!("known are {known}")));
        }
        let extra: Vec<String> = resolved
            .swept
            .iter()
            .filter(|path| !PROBLEM.contains(&path.as_str()))
            .cloned()
            .collect();
        let text = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let about = About {
            suite: config.suite.clone(),
            name: About::full_name(&config.study, &config.preset),
            title: config.title.clone(),
            question: config.question.clone(),
            swept: resolved.swept.clone(),
            keys: [text(&PROBLEM), extra.clone(), text(&["seed", "method"])].concat(),
            measures: text(&MEASURES),
        };
        Ok(Self { about, seeds: Seeds::parse(&config.seeds)?, extra, resolved })
    }

    /// Cells up to and with the method.
    fn prefix(&self, point: usize, seed: u64, method: &str) -> Line {
        let (values, config) = &self.resolved.points[point];
        let mut line = Line::new();
        line.text(&config.suite).text(&config.study);
        line.text(&config.size).integer(config.samples_per_task as u64);
        line.text(config.kind().name()).text(&config.family);
        for path in &self.extra {
            let value = values.iter().find(|(swept, _)| swept == path).map(|(_, value)| value);
            line.text(&value.map(plain).unwrap_or_default());
        }
        line.integer(seed).text(method);
        line
    }

    fn header(&self, rest: &str) -> String {
        let extra: String = self.extra.iter().map(|path| format!(",{path}")).collect();
        format!("suite,study,{}{extra},seed,method,{rest}", PROBLEM.join(","))
    }

    fn outcome(&self, scene: &Scene, prefix: &Line, found: Result<Measured, String>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut line = prefix.clone();
        let curve = match &found {
            Ok(found) => {
                line.number(found.seconds).integer(found.iterations as u64);
                line.integer(found.gradients as u64).integer(found.hessian_products as u64);
                line.integer(found.factorisations as u64).number(found.loss);
                line.number(found.loss / scene.start_value).number(scene.start_value);
                line.number(found.gradient_norm / scene.gradient_scale);
                line.text(&found.stop_reason).text("ok");
                found.curve.as_slice()
            }
            Err(reason) => {
                for _ in 0..7 {
                    line.text("");
                }
                line.number(scene.start_value).text("").text("refused").text(reason);
                &[]
            }
        };
        outcome.trials.push(line.finish());
        for (seconds, value) in curve {
            let mut line = prefix.clone();
            let line = line.number(*seconds).text("relative_loss");
            outcome.curves.push(line.number(value / scene.start_value).finish());
        }
        if let Ok(found) = &found {
            outcome.timings.push(prefix.clone().number(found.seconds).finish());
        }
        outcome
    }
}

impl Study for ComparisonStudy {
    fn about(&self) -> &About {
        &self.about
    }

    fn config(&self) -> &Table {
        &self.resolved.table
    }

    /// Without seeds, swept values and methods, on which no trial depends; a file counts by its bytes.
    fn identity(&self) -> Table {
        let mut identity = sweep::without_values(&self.resolved.table);
        identity.remove("seeds");
        identity.remove("methods");
        if let Some(Value::Table(file)) = identity.get_mut("file") {
            file.remove("tasks");
            file.remove("start");
        }
        identity
    }

    fn headers(&self) -> Headers {
        Headers {
            trials: self.header(
                "seconds,iterations,gradients,hessian_products,factorisations,loss,relative_loss,start_loss,gradient_ratio,stop_reason,status",
            ),
            curves: self.header("elapsed,quantity,value"),
            timings: self.header("seconds"),
        }
    }

    fn trials(&self) -> Vec<Trial> {
        let mut trials = Vec::new();
        for (point, (values, config)) in self.resolved.points.iter().enumerate() {
            let mut name = format!(
                "{} N={} {} {}",
                config.size,
                config.samples_per_task,
                config.kind().name(),
                config.family
            );
            for (path, value) in values.iter().filter(|(path, _)| self.extra.contains(path)) {
                name += &format!(" {path}={}", plain(value));
            }
            let (d, k, t) = config.sizes().unwrap_or((1, 1, 1));
            let power = if config.samples_per_task == 0 { k } else { d };
            for (index, seed) in self.seeds.values().iter().enumerate() {
                for method in &config.methods {
                    let symmetric_only =
                        PEERS.iter().any(|peer| peer.name == method && peer.symmetric_only);
                    if symmetric_only && config.kind().name() != "symmetric" {
                        continue;
                    }
                    trials.push(Trial {
                        id: format!("{name} seed={seed} {method}"),
                        group: point * self.seeds.values().len() + index,
                        cost: (t * d * d * power) as f64,
                    });
                }
            }
        }
        trials
    }

    fn run(&self, group: &Group<'_>, finish: &mut dyn FnMut(&Trial, Result<Outcome, String>)) {
        let Some(first) = group.first() else { return };
        let seeds = self.seeds.values();
        let (point, seed) = (first.group / seeds.len(), seeds[first.group % seeds.len()]);
        let scene = match Scene::new(&self.resolved.points[point].1, seed) {
            Ok(scene) => scene,
            Err(reason) => {
                return group.iter().for_each(|trial| finish(trial, Err(reason.clone())));
            }
        };
        let method = |trial: &Trial| trial.id.rsplit(' ').next().unwrap_or_default().to_owned();
        let mut theirs: Vec<&Trial> = Vec::new();
        for trial in group {
            let name = method(trial);
            match entry(&name) {
                Some(entry) => {
                    let prefix = self.prefix(point, seed, &name);
                    finish(trial, Ok(self.outcome(&scene, &prefix, scene.ours(entry))));
                }
                None => theirs.push(trial),
            }
        }
        let names: Vec<String> = theirs.iter().map(|trial| method(trial)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        if names.is_empty() {
            return;
        }
        for ((trial, name), found) in theirs.iter().zip(&names).zip(peers::run(&scene, &names)) {
            let prefix = self.prefix(point, seed, name);
            finish(trial, Ok(self.outcome(&scene, &prefix, found)));
        }
    }

    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure> {
        draw::figures(tables, self.resolved.config.tolerance)
    }

    fn summary(&self, tables: &Tables<'_>) -> Summary {
        score::summary(tables, self.resolved.config.tolerance)
    }
}

#[cfg(test)]
mod tests;
