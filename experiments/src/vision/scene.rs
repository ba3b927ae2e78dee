//! What all methods of one sweep point and seed share: images, split, network, initial weights.

use super::config::{Augmentation, Data, Source, VisionConfig};
use super::images::{Changes, ImageExamples};
use crate::checkpoints::{self, Trained};
use crate::networks::config::Keep;
use crate::networks::stages::{Base, Stages, TrialError, Tuned, checkpoint};
use crate::runs::Site;
use peftml_data::synthetic::images::ImageSpec;
use peftml_data::{Images, cifar};
use peftml_linalg::Seed;
use peftml_peft::models::WithoutBiases;
use peftml_peft::train::{Algorithm, Evaluation, Training, TrainingState, evaluate};
use peftml_peft::{Adapter, Network, Parameters, Place, Precision, Task};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Images to train on and images to test on.
#[derive(Clone)]
pub struct Pictures {
    /// Training images, of which validation images are taken as well.
    pub training: Arc<Images>,
    /// Test images.
    pub test: Arc<Images>,
}

/// See the module's header.
pub struct Scene<'c> {
    config: &'c VisionConfig,
    number: u64,
    seed: Seed,
    place: Place,
    network: Box<dyn Network>,
    /// The network as the reference's adapted layers are, where that flaw is switched on.
    unbiased: Option<WithoutBiases>,
    tasks: Vec<Task>,
    /// The unseen task.
    target: Vec<Task>,
    test: ImageExamples,
    initial: Parameters,
    checkpoints: Option<PathBuf>,
}

/// Real images, once they are read.
pub type Kept = Mutex<Option<Pictures>>;

impl Pictures {
    /// Synthetic images for seed `number`; `None` where the configuration asks for real ones.
    pub fn synthetic(data: &Data, number: u64) -> Option<Self> {
        let Source::Synthetic { side, noise_std } = data.source else { return None };
        let seed = root(number).child("data");
        let draw = |count: usize, role: &str| {
            Arc::new(
                ImageSpec { classes: 10, per_class: count / 2, side, noise_std }.draw(&seed, role),
            )
        };
        Some(Self {
            training: draw(data.training_images + data.validation_images, "training"),
            test: draw(data.test_images, "test"),
        })
    }

    /// The images of seed `number`; real ones are read once.
    pub fn of(
        config: &VisionConfig,
        number: u64,
        data: Option<&Path>,
        kept: &Kept,
    ) -> Result<Self, String> {
        if let Some(pictures) = Self::synthetic(&config.data, number) {
            return Ok(pictures);
        }
        // A thread that panicked while reading left nothing behind.
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pictures) = kept.as_ref() {
            return Ok(pictures.clone());
        }
        let folder = data.ok_or_else(|| not_there("no folder of real data is known"))?;
        let set = cifar::read(folder).map_err(|error| not_there(&error.to_string()))?;
        let (training, test) = (Arc::new(set.training), Arc::new(set.test));
        Ok(kept.insert(Self { training, test }).clone())
    }
}

fn not_there(reason: &str) -> String {
    format!(
        "CIFAR-10 cannot be read: {reason}; `cargo xtask data cifar10` gets it, PEFTML_DATA names the \
         folder that holds it, and the study vision/quick needs none"
    )
}

fn root(number: u64) -> Seed {
    Seed::root(number).child("vision")
}

impl<'c> Scene<'c> {
    /// The scene of seed `number`; checkpoints are kept in the run folder of `site`.
    ///
    /// # Errors
    /// [`TrialError`].
    pub fn new(
        config: &'c VisionConfig,
        number: u64,
        pictures: &Pictures,
        site: &Site<'_>,
    ) -> Result<Self, TrialError> {
        let (seed, place) = (root(number), Place::cpu(Precision::F32));
        let network = config.network()?;
        let initial = network.sites().initial(&seed.child("initial"), &place)?;
        let unbiased = match config.flaws.drop_biases {
            true => Some(WithoutBiases::new(config.network()?)),
            false => None,
        };
        let cut = Cut { config, seed: &seed, pictures };
        let tasks = config.data.retraining_tasks.iter();
        Ok(Self {
            tasks: tasks.map(|classes| cut.task(*classes)).collect::<Result<_, _>>()?,
            target: vec![cut.task(config.data.test_task)?],
            test: cut.test(config.data.test_task)?,
            checkpoints: site.folder.map(|folder| folder.join("checkpoints")),
            config,
            number,
            seed,
            place,
            network,
            unbiased,
            initial,
        })
    }

    /// Network and parameters as the configuration means them under `adapter`.
    fn for_adapter(&self, adapter: &Adapter, base: &Parameters) -> (&dyn Network, Parameters) {
        match &self.unbiased {
            Some(unbiased) if WithoutBiases::concerns(adapter, self.network.sites()) => {
                (unbiased, unbiased.kept(base))
            }
            _ => (self.network.as_ref(), base.clone()),
        }
    }

    /// `parameters` with zeros for biases that they lack.
    fn completed(&self, mut parameters: Parameters) -> Parameters {
        for (name, own) in self.initial.iter() {
            if parameters.get(name).is_none() {
                let mut zero = own.clone();
                zero.value = zero.value.zeros_like();
                parameters.insert(name, zero);
            }
        }
        parameters
    }

    /// The checkpoint of the training that `names` mean.
    fn checkpoint(&self, names: &[&str]) -> Result<Option<PathBuf>, TrialError> {
        let Some(folder) = &self.checkpoints else { return Ok(None) };
        let mut path = checkpoint(folder, self.config, self.number, names)?.into_os_string();
        path.push(".safetensors");
        Ok(Some(path.into()))
    }
}

impl Stages for Scene<'_> {
    fn retrain(&self, name: &str) -> Result<Base, TrialError> {
        let config = self.config.retraining_training(&self.config.retraining.methods[name]);
        let adapter = match &config.algorithm {
            Algorithm::PeftMl { adapter, .. } => Some(adapter),
            _ => None,
        };
        let (network, start) = match adapter {
            Some(adapter) => {
                let adapter = Adapter::new(adapter, self.network.sites())?;
                self.for_adapter(&adapter, &self.initial)
            }
            None => (self.network.as_ref(), self.initial.clone()),
        };
        let seed = self.seed.child("retraining");
        let training = Training::new(network, &self.tasks, config, &start, &seed, &self.place)?;
        let path = self.checkpoint(&[name])?;
        let Trained { training, state, spent } = checkpoints::train(
            training,
            &start,
            path.as_deref(),
            &mut checkpoints::at_validations,
            |_| (),
        )?;
        let adapters = training.adapter().map_or(0, Adapter::count) * self.tasks.len();
        let TrainingState { step, base, adapters: last, history, best, .. } = state;
        let found = best.as_ref().map(|best| (best.step, best.score));
        let (parameters, tasks) = match best {
            Some(best) if self.config.retraining.keep == Keep::Best => (best.base, best.adapters),
            _ => (base, last),
        };
        Ok(Base {
            parameters: self.completed(parameters),
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
        let config = self.config.fine_tuning_training(method);
        let adapter = Adapter::new(&method.adapter, self.network.sites())?;
        let (network, start) = self.for_adapter(&adapter, &base.parameters);
        let seed = self.seed.child("fine-tuning");
        let training = Training::new(network, &self.target, config, &start, &seed, &self.place)?;
        let path = self.checkpoint(&names)?;
        let keeps = self.config.flaws.keep_first_adapter;
        let Trained { training, state, spent } = checkpoints::train(
            training,
            &start,
            path.as_deref(),
            &mut checkpoints::at_validations,
            |state| {
                let first = base.adapters.first().zip(state.adapters.first_mut());
                if let Some((old, fresh)) = first.filter(|_| keeps)
                    && same_names(old, fresh)
                {
                    *fresh = old.clone();
                }
            },
        )?;
        let measure = |base: &Parameters, adapters: &[Parameters]| {
            let adapter = training.adapter().zip(adapters.first());
            evaluate(network, base, adapter, &self.test, &self.place)
        };
        let nothing = Evaluation { loss: f64::NAN, accuracy: None, examples: 0 };
        let last = measure(&state.base, &state.adapters)?.unwrap_or(nothing);
        let best = match &state.best {
            Some(best) if best.step == state.step => Some(last),
            Some(best) => measure(&best.base, &best.adapters)?,
            None => None,
        };
        Ok(Tuned {
            last,
            best,
            best_validation: state.best.as_ref().map(|best| (best.step, best.score)),
            steps: state.step,
            trained_parameters: adapter.count(),
            history: state.history,
            spent,
            own: Vec::new(),
        })
    }

    fn forget(&self, names: [&str; 2]) {
        if let Ok(Some(path)) = self.checkpoint(&names) {
            // A file that cannot be removed costs its place and nothing else.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether two adapters' parameters have the same names and shapes.
fn same_names(a: &Parameters, b: &Parameters) -> bool {
    let shapes = |p: &Parameters| {
        p.iter().map(|(name, p)| (name.to_owned(), p.shape.clone())).collect::<Vec<_>>()
    };
    shapes(a) == shapes(b)
}

/// The cut of a set into tasks.
struct Cut<'s> {
    config: &'s VisionConfig,
    seed: &'s Seed,
    pictures: &'s Pictures,
}

impl Cut<'_> {
    /// Half of each kind of image is of each class; which ones, the seed says.
    fn task(&self, classes: [u8; 2]) -> Result<Task, TrialError> {
        let data = &self.config.data;
        let (training, validation) = (data.training_images / 2, data.validation_images / 2);
        let (mut train_on, mut choose_by) = (Vec::new(), Vec::new());
        for class in classes {
            let mut numbers = of_class(&self.pictures.training, class);
            let needed = training + validation;
            if numbers.len() < needed {
                let (found, what) = (numbers.len(), "training");
                return Err(TrialError::TooFew { class, what, found, needed });
            }
            self.seed.child("split").child(u64::from(class)).stream().shuffle(&mut numbers);
            choose_by.extend(&numbers[..validation]);
            train_on.extend(&numbers[validation..needed]);
        }
        let name = format!("classes {} and {}", classes[0], classes[1]);
        let changes = match (data.augmentation, self.config.flaws.augment_once) {
            (Augmentation::None, _) => Changes::None,
            (Augmentation::CropFlip, false) => Changes::EveryEpoch,
            (Augmentation::CropFlip, true) => Changes::Once(self.seed.child(name.as_str())),
        };
        let training = ImageExamples::new(&self.pictures.training, train_on, changes);
        let validation = match self.config.flaws.select_on_test {
            true => self.test(classes)?,
            false => ImageExamples::new(&self.pictures.training, choose_by, Changes::None),
        };
        Ok(Task { name, training: Box::new(training), validation: Box::new(validation) })
    }

    fn test(&self, classes: [u8; 2]) -> Result<ImageExamples, TrialError> {
        let needed = self.config.data.test_images / 2;
        let mut chosen = Vec::new();
        for class in classes {
            let numbers = of_class(&self.pictures.test, class);
            let Some(first) = numbers.get(..needed) else {
                let (found, what) = (numbers.len(), "test");
                return Err(TrialError::TooFew { class, what, found, needed });
            };
            chosen.extend(first);
        }
        Ok(ImageExamples::new(&self.pictures.test, chosen, Changes::None))
    }
}

fn of_class(images: &Images, class: u8) -> Vec<usize> {
    (0..images.len()).filter(|&number| images.labels()[number] == class).collect()
}

/// What tests ask.
#[cfg(test)]
impl Scene<'_> {
    /// Numbers of training and validation images, of every task and of the unseen one.
    pub fn sizes(&self) -> Vec<[usize; 2]> {
        let all = self.tasks.iter().chain(&self.target);
        all.map(|task| [task.training.len(), task.validation.len()]).collect()
    }

    pub fn initial(&self) -> &Parameters {
        &self.initial
    }

    pub fn test_images(&self) -> usize {
        peftml_peft::Examples::len(&self.test)
    }
}
