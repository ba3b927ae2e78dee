//! What all methods of one sweep point and seed share: dialogues, held-out ones, folds, encoder, fresh head.

use super::config::{Folds, LanguageConfig, Model, Validate};
use super::examples::{CandidateExamples, Features};
use super::talk::{Stage, Talk, TalkTask};
use crate::checkpoints::{self, Trained};
use crate::config::hash8;
use crate::networks::config::Keep;
use crate::networks::stages::{Base, Stages, TrialError, Tuned, checkpoint};
use crate::runs::{Site, write_atomically};
use peftml_linalg::Seed;
use peftml_peft::models::{Encoder, EncoderHead};
use peftml_peft::pretrained::{Head, Pretrained};
use peftml_peft::train::{
    Evaluation, Record, Training, TrainingConfig, TrainingState, evaluate_each,
};
use peftml_peft::{Adapter, Network, Parameters, Pass, Place, Precision, Sequences, Task, device};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use toml::Table;

/// Steps between checkpoints of a retraining, beside those at validations.
const SAVE_EVERY: u64 = 25;
/// Rows of one pass that computes vectors for a head: bounds memory, changes nothing else.
const AT_ONCE: usize = 256;

/// Real dialogues as tokens, once they are read, by what they depend on.
pub type Kept = Mutex<Vec<(String, Arc<Talk>)>>;

/// See the module's header.
pub struct Scene<'c> {
    config: &'c LanguageConfig,
    number: u64,
    seed: Seed,
    place: Place,
    talk: Arc<Talk>,
    encoder: Encoder,
    /// The base before retraining, with the seed's fresh head.
    initial: Parameters,
    tasks: Vec<Task>,
    checkpoints: Option<PathBuf>,
}

/// A fold of a test task, trained and tested.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Fold {
    task: usize,
    fold: usize,
    /// After the last step.
    last: Tested,
    /// After the step of the best validation, with step and score.
    best: Option<(Tested, u64, f64)>,
    history: Vec<Record>,
    steps: u64,
}

/// A fold's held-out dialogues under a model.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Tested {
    /// Mean over turns.
    loss: f64,
    /// Number of a dialogue, hits among its turns, turns.
    dialogues: Vec<(usize, usize, usize)>,
}

/// What is kept of a trial under way.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Progress {
    data: String,
    folds: Vec<Fold>,
}

impl<'c> Scene<'c> {
    /// The scene of seed `number`; checkpoints are kept in the run folder of `site`.
    ///
    /// # Errors
    /// [`TrialError`].
    pub fn new(
        config: &'c LanguageConfig,
        number: u64,
        site: &Site<'_>,
        kept: &Kept,
    ) -> Result<Self, TrialError> {
        let seed = Seed::root(number).child("language");
        let place = Place::cpu(Precision::F32);
        let (key, talk) = talk(config, number, &seed, site, kept)?;
        let (encoder, initial) = encoder(config, &talk, &seed, site, &place)?;
        let (most, asked) = (encoder.config().longest(), config.data.max_length);
        if asked > most {
            return Err(TrialError::Length { asked, most });
        }
        config.check_methods(encoder.sites())?;
        if let Some(folder) = site.folder {
            talk.keep_hashes(folder, &key)?;
        }
        let checkpoints = site.folder.map(|folder| folder.join("checkpoints"));
        let tasks = Vec::new();
        let mut scene =
            Self { config, number, seed, place, talk, encoder, initial, tasks, checkpoints };
        scene.tasks = scene.retraining_tasks()?;
        let tests = &scene.talk.test.tasks;
        tests.iter().enumerate().try_for_each(|(at, task)| scene.folds(at, task).map(|_| ()))?;
        Ok(scene)
    }

    fn examples(&self, stage: &Stage, numbers: Vec<usize>, each: usize) -> CandidateExamples {
        let padding = self.encoder.config().form.padding;
        CandidateExamples::new(&stage.turns, numbers, each, padding)
    }

    fn retraining_tasks(&self) -> Result<Vec<Task>, TrialError> {
        let (data, stage) = (&self.config.data, &self.talk.retraining);
        let task = |(at, task): (usize, &TalkTask)| {
            let mut order: Vec<usize> = (0..task.dialogues.len()).collect();
            self.seed.child("split").child(at).stream().shuffle(&mut order);
            let (found, needed) = (order.len(), data.validation_dialogues + 1);
            if found < needed {
                return Err(TrialError::FewDialogues { task: task.name.clone(), found, needed });
            }
            let (held_out, training) = order.split_at(data.validation_dialogues);
            let validated = match self.config.retraining.validate {
                Validate::Never => &[][..],
                Validate::Epoch | Validate::End => held_out,
            };
            let examples = |dialogues: &[usize]| {
                Box::new(self.examples(stage, turns(task, dialogues), data.training_candidates))
            };
            let name = task.name.clone();
            Ok(Task { name, training: examples(training), validation: examples(validated) })
        };
        stage.tasks.iter().enumerate().map(task).collect()
    }

    /// Dialogues of each fold of test task `at`, every dialogue in one.
    fn folds(&self, at: usize, task: &TalkTask) -> Result<Vec<Vec<usize>>, TrialError> {
        let found = task.dialogues.len();
        let mut order: Vec<usize> = (0..found).collect();
        self.seed.child("folds").child(at).stream().shuffle(&mut order);
        let held_out = self.config.fine_tuning.validation_dialogues;
        let count = match self.config.data.folds {
            Folds::Folds { count } => count,
            Folds::Dialogues { count } => found.div_ceil(count),
        };
        let largest = found.div_ceil(count.max(1));
        let needed = (largest + held_out + 1).max(count).max(2);
        if found < needed {
            return Err(TrialError::FewDialogues { task: task.name.clone(), found, needed });
        }
        Ok((0..count).map(|f| order.iter().skip(f).step_by(count).copied().collect()).collect())
    }

    /// The checkpoint of the training that `names` mean.
    fn checkpoint(&self, names: &[&str], end: &str) -> Result<Option<PathBuf>, TrialError> {
        let Some(folder) = &self.checkpoints else { return Ok(None) };
        let mut path = checkpoint(folder, self.config, self.number, names)?.into_os_string();
        path.push(end);
        Ok(Some(path.into()))
    }

    /// The base's encoder with the seed's fresh head.
    fn with_fresh_head(&self, base: &Parameters) -> Parameters {
        let mut start = base.clone();
        let head = self.initial.iter().filter(|(name, _)| self.encoder.sites().in_head(name));
        head.for_each(|(name, parameter)| start.insert(name, parameter.clone()));
        start
    }

    /// The first token's vector of every sequence of the test tasks.
    fn features(&self, base: &Parameters) -> Result<Features, TrialError> {
        let (width, pass) = (self.encoder.config().width, Pass::new(base));
        let padding = self.encoder.config().form.padding as i64;
        let mut turns = Vec::new();
        for some in self.talk.test.turns.chunks((AT_ONCE / self.config.candidates()).max(1)) {
            let rows = some.iter().flat_map(|turn| turn.rows.iter().cloned()).collect();
            let sequences = Sequences { rows, padding, place: self.place.clone() };
            let vectors = device::values(&self.encoder.first_vectors(&pass, &sequences)?)?;
            let mut vectors = vectors.into_iter().map(|x| x as f32);
            turns.extend(
                some.iter().map(|turn| vectors.by_ref().take(turn.rows.len() * width).collect()),
            );
        }
        Ok(Features { width, turns })
    }
}

impl Stages for Scene<'_> {
    fn retrain(&self, name: &str) -> Result<Base, TrialError> {
        let stage = &self.config.retraining;
        let turns: usize = self.tasks.iter().map(|task| task.training.len()).sum();
        let per_epoch = turns.div_ceil(stage.batch) as u64;
        let steps = stage.epochs.saturating_mul(per_epoch);
        let method = &stage.methods[name];
        let Some(config) = self.config.retraining_training(method, steps, per_epoch) else {
            return Ok(Base {
                parameters: self.initial.clone(),
                adapters: Vec::new(),
                history: Vec::new(),
                best: None,
                steps: 0,
                trained_parameters: 0,
                spent: (0, 0.0),
            });
        };
        let (network, start) = (&self.encoder, &self.initial);
        let seed = self.seed.child("retraining");
        let training = Training::new(network, &self.tasks, config, start, &seed, &self.place)?
            .on_data(self.talk.name.clone());
        let path = self.checkpoint(&[name], ".safetensors")?;
        let Trained { training, state, spent } = checkpoints::train(
            training,
            start,
            path.as_deref(),
            &mut checkpoints::every(SAVE_EVERY),
            |_| (),
        )?;
        let adapters = training.adapter().map_or(0, Adapter::count) * self.tasks.len();
        let TrainingState { step, base, adapters: last, history, best, .. } = state;
        let found = best.as_ref().map(|best| (best.step, best.score));
        let (parameters, tasks) = match best {
            Some(best) if stage.keep == Keep::Best => (best.base, best.adapters),
            _ => (base, last),
        };
        Ok(Base {
            parameters,
            adapters: tasks,
            history,
            best: found,
            steps: step,
            trained_parameters: network.sites().count() + adapters,
            spent,
        })
    }

    fn fine_tune(&self, base: &Base, names: [&str; 2]) -> Result<Tuned, TrialError> {
        let method = &self.config.fine_tuning.methods[names[1]];
        let adapter = Adapter::new(&method.adapter, self.encoder.sites())?;
        let start = self.with_fresh_head(&base.parameters);
        let path = self.checkpoint(&names, ".json")?;
        let mut progress = Progress::read(path.as_deref(), &self.talk.name);
        let started = std::time::Instant::now();
        let mut spent = 0;
        // Where nothing but the head is trained, what goes into it never changes.
        let in_head = |name: &str| self.encoder.sites().in_head(name);
        let alone = adapter.specs().iter().all(|(name, spec)| in_head(name) && spec.trainable);
        let mut features: Option<Arc<Features>> = None;
        for (at, task) in self.talk.test.tasks.iter().enumerate() {
            for (fold, held_out) in self.folds(at, task)?.into_iter().enumerate() {
                if progress.folds.iter().any(|known| (known.task, known.fold) == (at, fold)) {
                    continue;
                }
                if alone && features.is_none() {
                    features = Some(Arc::new(self.features(&start)?));
                }
                let place = [at, fold];
                let tuning = Tuning { scene: self, start: &start, names, place, task };
                let fold = tuning.run(&held_out, features.as_ref())?;
                spent += fold.steps;
                progress.folds.push(fold);
                if let Some(path) = &path {
                    progress.write(path)?;
                }
            }
        }
        let spent = (spent, started.elapsed().as_secs_f64());
        Ok(self.measured(&progress.folds, adapter.count(), spent))
    }

    fn forget(&self, names: [&str; 2]) {
        if let Ok(Some(path)) = self.checkpoint(&names, ".json") {
            // A file that cannot be removed costs its place and nothing else.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Scene<'_> {
    /// All folds together: means over the tasks of their means over turns.
    fn measured(&self, folds: &[Fold], trained_parameters: usize, spent: (u64, f64)) -> Tuned {
        let tasks = 0..self.talk.test.tasks.len();
        let of = |task: usize| folds.iter().filter(move |fold| fold.task == task);
        let evaluation = |of_fold: &dyn Fn(&Fold) -> Option<Tested>| {
            let one = |task: usize| {
                let tested: Option<Vec<Tested>> = of(task).map(of_fold).collect();
                tested.and_then(|tested| together(&tested))
            };
            let all: Option<Vec<Evaluation>> = tasks.clone().map(one).collect();
            all.and_then(|all| Evaluation::mean(&all))
        };
        let nothing = Evaluation { loss: f64::NAN, accuracy: None, examples: 0 };
        let scores: Option<Vec<(u64, f64)>> =
            folds.iter().map(|f| f.best.as_ref().map(|best| (best.1, best.2))).collect();
        let best_validation = scores.filter(|scores| !scores.is_empty()).map(|scores| {
            let mean = scores.iter().map(|score| score.1).sum::<f64>() / scores.len() as f64;
            (scores.iter().map(|score| score.0).max().unwrap_or(0), mean)
        });
        let hits = tasks.clone().flat_map(|task| {
            let dialogues = of(task).flat_map(|fold| &fold.last.dialogues);
            let mut dialogues: Vec<_> = dialogues.copied().collect();
            dialogues.sort_unstable();
            dialogues
                .into_iter()
                .map(move |(dialogue, hits, turns)| format!("{task}:{dialogue}:{hits}/{turns}"))
        });
        Tuned {
            last: evaluation(&|fold| Some(fold.last.clone())).unwrap_or(nothing),
            best: evaluation(&|fold| fold.best.as_ref().map(|best| best.0.clone())),
            best_validation,
            history: history(folds),
            steps: folds.iter().map(|fold| fold.steps).sum(),
            trained_parameters,
            spent,
            own: vec![hits.collect::<Vec<_>>().join(" ")],
        }
    }
}

/// One fold to fine-tune on and to test.
struct Tuning<'s, 'c> {
    scene: &'s Scene<'c>,
    start: &'s Parameters,
    names: [&'s str; 2],
    /// Numbers of task and fold.
    place: [usize; 2],
    task: &'s TalkTask,
}

impl Tuning<'_, '_> {
    fn run(
        &self,
        held_out: &[usize],
        features: Option<&Arc<Features>>,
    ) -> Result<Fold, TrialError> {
        let Tuning { scene, start, names, place: [at, fold], task } = *self;
        let (data, stage) = (&scene.config.data, &scene.config.fine_tuning);
        let seed = scene.seed.child("fine-tuning").child(at).child(fold);
        let mut others: Vec<usize> =
            (0..task.dialogues.len()).filter(|number| !held_out.contains(number)).collect();
        seed.child("split").stream().shuffle(&mut others);
        let (validated, trained) = others.split_at(stage.validation_dialogues);
        let examples = |dialogues: &[usize], each: usize| {
            let examples = scene.examples(&scene.talk.test, turns(task, dialogues), each);
            match features {
                Some(features) => examples.with_features(features),
                None => examples,
            }
        };
        let training = examples(trained, data.training_candidates);
        let per_epoch = peftml_peft::Examples::len(&training).div_ceil(stage.batch) as u64;
        let (training, validation) =
            (Box::new(training), Box::new(examples(validated, data.training_candidates)));
        let tasks = [Task { name: task.name.clone(), training, validation }];
        let head = EncoderHead(&scene.encoder);
        let network: &dyn Network = if features.is_some() { &head } else { &scene.encoder };
        let method = &stage.methods[names[1]];
        let steps = stage.epochs.saturating_mul(per_epoch);
        let config: TrainingConfig = scene.config.fine_tuning_training(method, steps, per_epoch);
        let training = Training::new(network, &tasks, config, start, &seed, &scene.place)?
            .on_data(scene.talk.name.clone());
        // Without validations a fold is short, and begun anew.
        let path = match stage.validation_dialogues {
            0 => None,
            _ => scene.checkpoint(&names, &format!("-{at}-{fold}.safetensors"))?,
        };
        let Trained { training, state, .. } = checkpoints::train(
            training,
            start,
            path.as_deref(),
            &mut checkpoints::at_validations,
            |_| (),
        )?;
        let tests = examples(held_out, scene.config.candidates());
        let test = |base: &Parameters, adapters: &[Parameters]| -> Result<Tested, TrialError> {
            let adapter = training.adapter().zip(adapters.first());
            let found = evaluate_each(network, base, adapter, &tests, &scene.place)?;
            let (loss, hits) = found.map_or((f64::NAN, Vec::new()), |(all, hits)| (all.loss, hits));
            Ok(Tested { loss, dialogues: by_dialogue(task, held_out, &hits) })
        };
        let last = test(&state.base, &state.adapters)?;
        let best = match &state.best {
            Some(best) if best.step == state.step => Some((last.clone(), best.step, best.score)),
            Some(best) => Some((test(&best.base, &best.adapters)?, best.step, best.score)),
            None => None,
        };
        if let Some(path) = path {
            // As above: it would only cost its place.
            let _ = std::fs::remove_file(path);
        }
        let (history, steps) = (state.history, state.step);
        Ok(Fold { task: at, fold, last, best, history, steps })
    }
}

impl Progress {
    /// What is at `path` for these data; nothing where there is no such file.
    fn read(path: Option<&Path>, data: &str) -> Self {
        let bytes = path.and_then(|path| std::fs::read(path).ok());
        let found = bytes.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        let same = found.filter(|found| found.data == data);
        same.unwrap_or_else(|| Self { data: data.to_owned(), folds: Vec::new() })
    }

    fn write(&self, path: &Path) -> Result<(), TrialError> {
        // Numbers, texts and lists: nothing that JSON has not.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        Ok(write_atomically(path, &bytes)?)
    }
}

/// The dialogues as tokens; real ones are read once. With a name for what they depend on.
fn talk(
    config: &LanguageConfig,
    number: u64,
    seed: &Seed,
    site: &Site<'_>,
    kept: &Kept,
) -> Result<(String, Arc<Talk>), TrialError> {
    let mut key = Table::new();
    // A configuration was made from a table.
    key.insert("data".into(), Table::try_from(&config.data).unwrap_or_default().into());
    key.insert("model".into(), Table::try_from(&config.model).unwrap_or_default().into());
    if config.spec().is_some() {
        let key = format!("{}-{number}", hash8(&key));
        return Ok((key, Arc::new(Talk::new(config, seed, site)?)));
    }
    let key = hash8(&key);
    // A thread that panicked while reading left nothing behind.
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, talk)) = kept.iter().find(|(known, _)| *known == key) {
        return Ok((key, Arc::clone(talk)));
    }
    let talk = Arc::new(Talk::new(config, seed, site)?);
    kept.push((key.clone(), Arc::clone(&talk)));
    Ok((key, talk))
}

/// The encoder and its weights, with a fresh head of the seed.
fn encoder(
    config: &LanguageConfig,
    talk: &Talk,
    seed: &Seed,
    site: &Site<'_>,
    place: &Place,
) -> Result<(Encoder, Parameters), TrialError> {
    match (&config.model, config.random_encoder(talk.vocabulary)) {
        (Model::Folder { folder }, _) => {
            let folder = site.data.unwrap_or(Path::new("")).join(folder);
            let head = Head::New(2, seed.child("head"));
            let Pretrained { encoder, base, .. } = Pretrained::load(&folder, &head, place)?;
            let (tokens, known) = (talk.vocabulary, encoder.config().vocabulary);
            if tokens > known {
                return Err(TrialError::Vocabulary { tokens, known });
            }
            Ok((encoder, base))
        }
        (Model::Random { .. }, sizes) => {
            let encoder = sizes.map(Encoder::new).transpose()?;
            let known = talk.vocabulary;
            let encoder = encoder.ok_or(TrialError::Vocabulary { tokens: 0, known })?;
            let initial = encoder.sites().initial(&seed.child("initial"), place)?;
            Ok((encoder, initial))
        }
    }
}

/// Places of the turns of `task`'s dialogues with these numbers.
fn turns(task: &TalkTask, dialogues: &[usize]) -> Vec<usize> {
    dialogues.iter().flat_map(|&number| task.dialogues[number].1.clone()).collect()
}

/// Hits of the turns of `dialogues`, in their order, dialogue by dialogue.
fn by_dialogue(task: &TalkTask, dialogues: &[usize], hits: &[bool]) -> Vec<(usize, usize, usize)> {
    let mut rest = hits;
    let one = |&number: &usize| {
        let (file, places) = &task.dialogues[number];
        let (own, others) = rest.split_at(places.len().min(rest.len()));
        rest = others;
        (*file, own.iter().filter(|hit| **hit).count(), places.len())
    };
    dialogues.iter().map(one).collect()
}

/// Loss and accuracy over the turns of several folds.
fn together(folds: &[Tested]) -> Option<Evaluation> {
    let turns = |fold: &Tested| fold.dialogues.iter().map(|d| d.2).sum::<usize>();
    let all: usize = folds.iter().map(turns).sum();
    let hits: usize = folds.iter().flat_map(|fold| &fold.dialogues).map(|d| d.1).sum();
    let loss: f64 = folds.iter().map(|fold| fold.loss * turns(fold) as f64).sum();
    let (count, accuracy) = (all as f64, Some(hits as f64 / all as f64));
    (all > 0).then(|| Evaluation { loss: loss / count, accuracy, examples: all })
}

/// The mean course of all folds: their first validations, their second ones, and so on, each at the largest
/// of its steps.
fn history(folds: &[Fold]) -> Vec<Record> {
    let length = folds.iter().map(|fold| fold.history.len()).min().unwrap_or(0);
    let at = |number: usize| {
        let all: Vec<&Record> = folds.iter().map(|fold| &fold.history[number]).collect();
        let means: Vec<Evaluation> = all.iter().map(|record| record.mean).collect();
        let losses: f64 = all.iter().map(|record| record.training_loss).sum();
        Some(Record {
            step: all.iter().map(|record| record.step).max()?,
            training_loss: losses / all.len() as f64,
            mean: Evaluation::mean(&means)?,
            tasks: means,
        })
    };
    (0..length).filter_map(at).collect()
}

/// What tests ask.
#[cfg(test)]
impl Scene<'_> {
    /// Numbers of dialogues of the test tasks.
    pub fn test_sizes(&self) -> Vec<usize> {
        self.talk.test.tasks.iter().map(|task| task.dialogues.len()).collect()
    }

    pub fn test_turns(&self) -> usize {
        self.talk.test.turns.len()
    }

    pub fn fold_dialogues(&self, task: usize) -> Vec<Vec<usize>> {
        self.folds(task, &self.talk.test.tasks[task]).unwrap()
    }

    /// All test turns with so many candidates.
    pub fn first_examples(&self, each: usize) -> CandidateExamples {
        self.examples(&self.talk.test, (0..self.test_turns()).collect(), each)
    }

    /// The mean loss of all test turns through the whole encoder, and through its head on vectors.
    pub fn losses_with_and_without_features(&self, base: &Parameters) -> [f64; 2] {
        let all = self.first_examples(self.config.candidates());
        let alone = all.clone().with_features(&Arc::new(self.features(base).unwrap()));
        let head = EncoderHead(&self.encoder);
        let loss = |network: &dyn Network, examples: &CandidateExamples| {
            evaluate_each(network, base, None, examples, &self.place).unwrap().unwrap().0.loss
        };
        [loss(&self.encoder, &all), loss(&head, &alone)]
    }
}
