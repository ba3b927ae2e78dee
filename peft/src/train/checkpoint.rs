//! A training's state in a file: parameters, optimisers, validations, step. The file names the training
//! that it belongs to by configuration, seed and network, and no other resumes from it.

use super::training::{Best, Record, Training, TrainingState};
use crate::optimiser::OptimiserState;
use crate::parameters::{Init, Parameters, Spec};
use crate::store::{Archive, Contents};
use crate::{FileProblem, PeftError};
use std::collections::BTreeMap;
use std::path::Path;

const TEXT: &str = "training";

/// What a checkpoint says beside its tensors.
#[derive(serde::Serialize, serde::Deserialize)]
struct Text {
    configuration: String,
    seed: u64,
    network: u64,
    precision: String,
    #[serde(default)]
    data: Option<String>,
    step: u64,
    /// Its bits: JSON knows no number that is none.
    loss: u64,
    history: Vec<Record>,
    best: Option<(u64, f64)>,
    base_steps: BTreeMap<String, u64>,
    adapter_steps: Vec<BTreeMap<String, u64>>,
}

impl Training<'_> {
    /// Writes `state` to `path`, whole or not at all.
    ///
    /// # Errors
    /// [`PeftError::Io`]; the checkpoint that was there before then still is.
    pub fn save(&self, state: &TrainingState, path: &Path) -> Result<(), PeftError> {
        let precision = self.place.precision();
        let mut archive = Archive::default();
        let mut add = |parameters: &Parameters, prefix: &str| {
            archive.add(parameters, precision, |name| format!("{prefix}/{name}"))
        };
        add(&state.base, "base")?;
        for (t, adapter) in state.adapters.iter().enumerate() {
            add(adapter, &format!("adapter.{t}"))?;
        }
        if let Some(best) = &state.best {
            add(&best.base, "best/base")?;
            for (t, adapter) in best.adapters.iter().enumerate() {
                add(adapter, &format!("best/adapter.{t}"))?;
            }
        }
        for (prefix, optimiser) in optimisers(state) {
            add(&optimiser.means, &format!("{prefix}/means"))?;
            add(&optimiser.squares, &format!("{prefix}/squares"))?;
        }
        if let Some(adapter) = &self.adapter {
            add(adapter.constants(), "constants")?;
        }
        let text = serde_json::to_string(&self.text(state)).map_err(|error| PeftError::File {
            path: path.into(),
            problem: FileProblem::Description(error.to_string()),
        })?;
        archive.text(TEXT, text);
        archive.write(path)
    }

    /// The state at `path`, and this training with what its method never trains as it was then.
    ///
    /// # Errors
    /// [`PeftError::Io`]; [`PeftError::File`] where it is no checkpoint of this training.
    pub fn resume(self, path: &Path) -> Result<(Self, TrainingState), PeftError> {
        let contents = Contents::read(path)?;
        let wrong = |text: &str| contents.problem(FileProblem::Description(text.into()));
        let texts = contents.texts()?;
        let text = texts.get(TEXT).ok_or_else(|| wrong("it is no checkpoint"))?;
        let text: Text = serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        self.check_same(&text).map_err(|problem| contents.problem(problem))?;
        let adapters = if self.adapter.is_some() { self.tasks.len() } else { 0 };
        if text.adapter_steps.len() != adapters {
            return Err(wrong("it holds another number of adapters"));
        }
        let state = self.state(&contents, &text)?;
        let Some(adapter) = self.adapter else { return Ok((self, state)) };
        let constant = adapter.specs().iter().filter(|(_, spec)| !spec.trainable);
        let constant = constant.map(|(name, spec)| (name.as_str(), spec));
        let key = |name: &str| format!("constants/{name}");
        let constants = contents.parameters(constant, key, &self.place)?;
        Ok((Self { adapter: Some(adapter.with_constants(constants)), ..self }, state))
    }

    fn state(&self, contents: &Contents, text: &Text) -> Result<TrainingState, PeftError> {
        let base_specs: Vec<(&str, &Spec)> =
            self.network.sites().parameters().iter().map(|s| (s.name.as_str(), s)).collect();
        let adapter_specs: Vec<(&str, &Spec)> = self.adapter.as_ref().map_or(Vec::new(), |a| {
            let trained = a.specs().iter().filter(|(_, spec)| spec.trainable);
            trained.map(|(name, spec)| (name.as_str(), spec)).collect()
        });
        let part = |specs: &[(&str, &Spec)], prefix: &str| {
            let key = |name: &str| format!("{prefix}/{name}");
            contents.parameters(specs.iter().copied(), key, &self.place)
        };
        let adapters = |prefix: &str| {
            let numbers = 0..text.adapter_steps.len();
            numbers
                .map(|t| part(&adapter_specs, &format!("{prefix}adapter.{t}")))
                .collect::<Result<Vec<_>, _>>()
        };
        let optimiser = |steps: &BTreeMap<String, u64>, prefix: &str| {
            self.optimiser(
                contents,
                steps,
                &[&base_specs, &adapter_specs].map(Vec::as_slice),
                prefix,
            )
        };
        let best = match text.best {
            Some((step, score)) => {
                let (base, adapters) = (part(&base_specs, "best/base")?, adapters("best/")?);
                Some(Best { step, score, base, adapters })
            }
            None => None,
        };
        let memories = text.adapter_steps.iter().enumerate();
        let memories = memories.map(|(t, steps)| optimiser(steps, &format!("optimiser.{t}")));
        Ok(TrainingState {
            step: text.step,
            base: part(&base_specs, "base")?,
            adapters: adapters("")?,
            loss: f64::from_bits(text.loss),
            history: text.history.clone(),
            best,
            base_optimiser: optimiser(&text.base_steps, "optimiser")?,
            adapter_optimisers: memories.collect::<Result<_, _>>()?,
        })
    }

    /// The moments of those parameters that have made steps; flat, as optimisers keep them.
    fn optimiser(
        &self,
        contents: &Contents,
        steps: &BTreeMap<String, u64>,
        specs: &[&[(&str, &Spec)]; 2],
        prefix: &str,
    ) -> Result<OptimiserState, PeftError> {
        let flat: Vec<Spec> = specs
            .iter()
            .flat_map(|part| part.iter())
            .filter(|(name, _)| steps.contains_key(*name))
            .map(|(name, spec)| Spec::new(*name, [spec.count()], Init::Constant(0.0)))
            .collect();
        let part = |what: &str| {
            let named = flat.iter().map(|spec| (spec.name.as_str(), spec));
            contents.parameters(named, |name| format!("{prefix}/{what}/{name}"), &self.place)
        };
        Ok(OptimiserState {
            means: part("means")?,
            squares: part("squares")?,
            steps: steps.clone(),
        })
    }

    fn text(&self, state: &TrainingState) -> Text {
        let steps = |optimiser: &OptimiserState| optimiser.steps.clone();
        Text {
            configuration: format!("{:?}", self.config),
            seed: self.seed.number(),
            network: self.network.sites().count() as u64,
            precision: format!("{:?}", self.place.precision()),
            data: self.data.clone(),
            step: state.step,
            loss: state.loss.to_bits(),
            history: state.history.clone(),
            best: state.best.as_ref().map(|best| (best.step, best.score)),
            base_steps: steps(&state.base_optimiser),
            adapter_steps: state.adapter_optimisers.iter().map(steps).collect(),
        }
    }

    fn check_same(&self, found: &Text) -> Result<(), FileProblem> {
        let own = format!("{:?}", self.config);
        let number = |n: u64| n.to_string();
        let data = |name: &Option<String>| name.clone().unwrap_or_else(|| "unnamed".into());
        let fields = [
            ("its configuration", own, found.configuration.clone()),
            ("its seed", number(self.seed.number()), number(found.seed)),
            (
                "its network's number of parameters",
                number(self.network.sites().count() as u64),
                number(found.network),
            ),
            ("its precision", format!("{:?}", self.place.precision()), found.precision.clone()),
            ("its data", data(&self.data), data(&found.data)),
        ];
        for (field, expected, found) in fields {
            if expected != found {
                return Err(FileProblem::OtherTraining { field, expected, found });
            }
        }
        Ok(())
    }
}

/// All optimisers of `state`, with the names that their tensors begin with.
fn optimisers(state: &TrainingState) -> Vec<(String, &OptimiserState)> {
    let adapters = state.adapter_optimisers.iter().enumerate();
    let adapters = adapters.map(|(t, optimiser)| (format!("optimiser.{t}"), optimiser));
    std::iter::once(("optimiser".to_owned(), &state.base_optimiser)).chain(adapters).collect()
}
