//! `peftml adapt`: retraining an encoder on labelled text, and fine-tuning an adapter.

#[cfg(not(feature = "networks"))]
use super::{Common, Failure};
use clap::{Args, ValueEnum};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Retrain an encoder on tasks of labelled text, or fine-tune an adapter on one
///
/// Retraining (standard, peft-ml, reptile) takes --tasks, a folder with one .csv or .jsonl file a task, and writes
/// the base as a model's folder without a head; fine-tune takes --data, one file, and writes an adapter with its
/// head in Hugging Face's format. Columns: text, label and perhaps text_pair. A run that was stopped goes on where its
/// checkpoint (OUT.checkpoint) stands.
#[derive(Args)]
pub struct Arguments {
    /// The model's folder in Hugging Face's layout
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Tasks to retrain on: a folder with one .csv or .jsonl file a task
    #[arg(long, value_name = "DIR", conflicts_with = "data", required_unless_present = "data")]
    tasks: Option<PathBuf>,
    /// The task to fine-tune on: a .csv or .jsonl file
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// How to train
    #[arg(long, value_enum)]
    algorithm: Way,
    /// Method of the adapters
    #[arg(long, default_value = "lora", value_name = "NAME")]
    method: String,
    /// Settings of the method, as TOML ("rank = 4"); its defaults otherwise
    #[arg(long, default_value = "", value_name = "TOML")]
    settings: String,
    /// The folder to write; it must not exist or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Passes over the examples
    #[arg(long, default_value_t = 3.0, value_name = "NUMBER")]
    epochs: f64,
    /// Examples of an optimiser step
    #[arg(long, default_value = "16", value_name = "COUNT")]
    batch: NonZeroUsize,
    /// Largest step size of AdamW; 5e-5 in retraining, 1e-4 in fine-tuning where nothing is said
    #[arg(long, value_name = "NUMBER")]
    step_size: Option<f64>,
    /// Texts are cut at so many tokens
    #[arg(long, default_value = "128", value_name = "COUNT")]
    max_length: NonZeroUsize,
    /// Share of every task's examples that is held out for validation
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    validation: f64,
    /// Seconds between checkpoints
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    save_every: u64,
    /// Say what would be trained, how much memory and time it takes, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Ways to train.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// One set of weights and one head on the union of the tasks
    Standard,
    /// One base, an adapter and a head per task
    PeftMl,
    /// First-order meta-learning
    Reptile,
    /// The base is frozen, an adapter and a head are trained
    FineTune,
}

#[cfg(not(feature = "networks"))]
pub fn run(arguments: &Arguments, _: &Common) -> Result<(), Failure> {
    let Arguments { model: _, tasks: _, data: _, algorithm: _, method: _, settings: _, .. } =
        arguments;
    let Arguments { out: _, epochs: _, batch: _, step_size: _, max_length: _, .. } = arguments;
    let Arguments { validation: _, save_every: _, dry_run: _, .. } = arguments;
    super::networks::missing()
}

#[cfg(feature = "networks")]
pub use with_networks::run;

#[cfg(feature = "networks")]
mod with_networks {
    use super::super::networks::{failure, in_pool};
    use super::super::{Common, Failure, print_json};
    use super::{Arguments, Way};
    use crate::checkpoints::{self, Trained};
    use indicatif::{ProgressBar, ProgressStyle};
    use peftml_data::texts::{self, LabelledText};
    use peftml_linalg::Seed;
    use peftml_peft::optimiser::{AdamConfig, OptimiserConfig, ScheduleConfig};
    use peftml_peft::pretrained::{Head, Pretrained, TextExamples, Tokenizer};
    use peftml_peft::train::{
        Algorithm, Evaluation, InnerState, Rounds, Training, TrainingConfig, TrainingState,
    };
    use peftml_peft::{
        AdapterConfig, Network as _, Place, Precision, Targets, Task, exchange, store,
    };
    use serde_json::{Value, json};
    use sha2::{Digest, Sha256};
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    type Texts = Vec<(String, Vec<LabelledText>)>;

    pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
        let tasks = read(arguments)?;
        if !arguments.dry_run {
            check_out(&arguments.out)?;
        }
        let share = arguments.validation;
        if !(0.0..1.0).contains(&share) {
            return Err(Failure::input(format_args!("--validation {share}: from 0 to below 1")));
        }
        in_pool(common, || adapt(arguments, common, &tasks))
    }

    fn read(arguments: &Arguments) -> Result<Texts, Failure> {
        match (&arguments.tasks, &arguments.data, arguments.algorithm) {
            (None, Some(data), Way::FineTune) => {
                let name = data.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                Ok(vec![(name, texts::read(data)?)])
            }
            (Some(folder), None, way) if way != Way::FineTune => Ok(texts::read_folder(folder)?),
            _ => Err(Failure::input("fine-tune takes --data, retraining takes --tasks")),
        }
    }

    fn check_out(out: &Path) -> Result<(), Failure> {
        let empty = std::fs::read_dir(out).map(|mut entries| entries.next().is_none());
        if out.exists() && !matches!(empty, Ok(true)) {
            return Err(Failure::input(format_args!(
                "--out {} exists already; name a new folder",
                out.display()
            )));
        }
        Ok(())
    }

    fn adapt(arguments: &Arguments, common: &Common, texts: &Texts) -> Result<(), Failure> {
        let place = Place::cpu(Precision::F32);
        let seed = Seed::root(common.seed).child("adapt");
        let labels = labels(texts, arguments.algorithm);
        let classes = labels.iter().map(Vec::len).max().unwrap_or(0);
        if classes < 2 {
            return Err(Failure::input("the examples have one label only; nothing can be learned"));
        }
        let head = Head::New(classes, seed.child("head"));
        let model = Pretrained::load(&arguments.model, &head, &place).map_err(failure)?;
        let tokenizer = Tokenizer::from_folder(&arguments.model).map_err(failure)?;
        let config = model.encoder.config();
        if tokenizer.vocabulary() > config.vocabulary {
            return Err(Failure::input(format_args!(
                "{}: the tokenizer has {} tokens, the model {}",
                arguments.model.display(),
                tokenizer.vocabulary(),
                config.vocabulary
            )));
        }
        let most = arguments.max_length.get().min(config.longest());
        let tokenizer = tokenizer.cut_at(most).map_err(failure)?;
        let share = arguments.validation;
        let mut tasks = Vec::new();
        for ((name, rows), labels) in texts.iter().zip(&labels) {
            let seed = seed.child("split").child(name.as_str());
            tasks.push(task(name, rows, labels, &tokenizer, config.form.padding, share, &seed)?);
        }
        let examples: usize = tasks.iter().map(|task| task.training.len()).sum();
        let training = settings(arguments, examples)?;
        let steps = training.steps;
        let training = Training::new(&model.encoder, &tasks, training, &model.base, &seed, &place);
        // Labels shared by chance are common in small sets: the loss tells such models apart.
        let training = training.map_err(failure)?.on_data(named(texts)).breaking_ties_by_loss();
        let about = json!({
            "tasks": tasks.iter().zip(&labels).map(|(task, labels)| json!({
                "name": task.name, "training": task.training.len(),
                "validation": task.validation.len(), "labels": labels,
            })).collect::<Vec<_>>(),
            "classes": classes,
            "parameters": model.encoder.sites().count(),
            "trainable_parameters_per_task": training.adapter().map(|adapter| adapter.count()),
            "steps": steps,
        });
        if arguments.dry_run {
            return dry_run(about, &training, &model, tasks.len(), arguments.algorithm);
        }
        let every = Duration::from_secs(arguments.save_every);
        let (training, state) = train(training, &model, &checkpoint(&arguments.out), every)?;
        write(arguments, &model, &training, &state, about, &labels)
    }

    /// A hash of all examples.
    fn named(texts: &Texts) -> String {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        for (name, rows) in texts {
            add(name);
            add(&rows.len().to_string());
            for LabelledText { text, pair, label } in rows {
                add(text);
                // A text without a pair is not one with an empty pair.
                add(if pair.is_some() { "1" } else { "0" });
                add(pair.as_deref().unwrap_or_default());
                add(label);
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Every task's labels, sorted; where the tasks share a head, all tasks'.
    fn labels(texts: &Texts, way: Way) -> Vec<Vec<String>> {
        let own = |rows: &[LabelledText]| -> BTreeSet<String> {
            rows.iter().map(|row| row.label.clone()).collect()
        };
        if let Way::PeftMl | Way::FineTune = way {
            return texts.iter().map(|(_, rows)| own(rows).into_iter().collect()).collect();
        }
        let all: BTreeSet<String> = texts.iter().flat_map(|(_, rows)| own(rows)).collect();
        vec![all.into_iter().collect(); texts.len()]
    }

    fn task(
        name: &str,
        rows: &[LabelledText],
        labels: &[String],
        tokenizer: &Tokenizer,
        padding: usize,
        share: f64,
        seed: &Seed,
    ) -> Result<Task, Failure> {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let mut stream = seed.stream();
        for last in (1..order.len()).rev() {
            order.swap(last, stream.below(last as u64 + 1) as usize);
        }
        let held_out = (share * rows.len() as f64).floor() as usize;
        let (validation, training) = order.split_at(held_out);
        let examples = |numbers: &[usize]| {
            let encode = |&number: &usize| match &rows[number].pair {
                Some(pair) => tokenizer.encode_pair(&rows[number].text, pair),
                None => tokenizer.encode(&rows[number].text),
            };
            let encoded = numbers.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
            let class = |&number: &usize| labels.binary_search(&rows[number].label).unwrap_or(0);
            TextExamples::new(encoded, numbers.iter().map(class).collect(), padding)
        };
        Ok(Task {
            name: name.into(),
            training: Box::new(examples(training).map_err(failure)?),
            validation: Box::new(examples(validation).map_err(failure)?),
        })
    }

    fn settings(arguments: &Arguments, examples: usize) -> Result<TrainingConfig, Failure> {
        let (batch, epochs) = (arguments.batch.get(), arguments.epochs);
        if !(epochs > 0.0 && epochs <= 1e6) {
            return Err(Failure::input(format_args!("--epochs {epochs}: a positive number")));
        }
        let per_epoch = examples.div_ceil(batch).max(1);
        let steps = (epochs * per_epoch as f64).ceil() as u64;
        let adapter = || -> Result<AdapterConfig, Failure> {
            let config = AdapterConfig::new(&arguments.method);
            let mut config = config.with_settings(&arguments.settings).map_err(failure)?;
            let entry = peftml_peft::methods::entry(&arguments.method).map_err(failure)?;
            if entry.acts_on_linear_layers() {
                config.targets = Some(Targets::Pattern("all-linear".into()));
            }
            config.modules_to_save = vec!["classifier".into()];
            Ok(config)
        };
        let (algorithm, default) = match arguments.algorithm {
            Way::Standard => (Algorithm::Standard, 5e-5),
            Way::PeftMl => {
                let (rounds, adapter_optimiser) = (Rounds::Joint, None);
                (Algorithm::PeftMl { adapter: adapter()?, rounds, adapter_optimiser }, 5e-5)
            }
            Way::Reptile => {
                let (inner_steps, outer_step_size, reversed, own) = (5, 1.0, false, None);
                let (inner_state, outer) = (InnerState::Fresh, None);
                let algorithm = Algorithm::Reptile {
                    inner_steps,
                    outer_step_size,
                    inner_state,
                    outer,
                    reversed,
                    own,
                };
                (algorithm, 5e-5)
            }
            Way::FineTune => (Algorithm::FineTuning { adapter: adapter()? }, 1e-4),
        };
        let step_size = arguments.step_size.unwrap_or(default);
        let optimiser = OptimiserConfig::AdamW(AdamConfig::new(step_size, 0.01));
        let schedule = ScheduleConfig::Linear { warmup: 0.1, end: 1.0 };
        let validate_every = per_epoch as u64;
        Ok(TrainingConfig { algorithm, steps, batch, optimiser, schedule, validate_every })
    }

    fn checkpoint(out: &Path) -> PathBuf {
        let mut name = out.as_os_str().to_owned();
        name.push(".checkpoint");
        name.into()
    }

    /// Trains to the end from the beginning or from the checkpoint.
    fn train<'a>(
        training: Training<'a>,
        model: &Pretrained,
        checkpoint: &Path,
        every: Duration,
    ) -> Result<(Training<'a>, TrainingState), Failure> {
        let bar = ProgressBar::new(training.config().steps);
        // The template is fixed; without it the library's own serves.
        if let Ok(style) =
            ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg} {eta}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix("adapt");
        let (mut saved, mut begun) = (Instant::now(), false);
        let mut due = |state: &TrainingState, _: bool| {
            bar.set_position(state.step);
            bar.set_message(format!("loss {:.4}", state.loss));
            if !std::mem::replace(&mut begun, true) {
                // The time left is that of the steps from here.
                bar.reset_eta();
            }
            let due = saved.elapsed() >= every;
            if due {
                saved = Instant::now();
            }
            due
        };
        let trained = checkpoints::train(training, &model.base, Some(checkpoint), &mut due, |_| ());
        bar.finish_and_clear();
        let Trained { training, state, .. } = trained.map_err(failure)?;
        Ok((training, state))
    }

    fn write(
        arguments: &Arguments,
        model: &Pretrained,
        training: &Training<'_>,
        state: &TrainingState,
        mut about: Value,
        labels: &[Vec<String>],
    ) -> Result<(), Failure> {
        let figures = |e: &Evaluation| json!({"loss": e.loss, "accuracy": e.accuracy});
        let record = |record: &peftml_peft::train::Record| {
            let tasks: Vec<Value> = record.tasks.iter().map(figures).collect();
            json!({"step": record.step, "training_loss": record.training_loss,
                   "mean": figures(&record.mean), "tasks": tasks})
        };
        about["validation"] = state.history.iter().map(record).collect();
        about["out"] = json!(arguments.out);
        let (base, adapters) = match &state.best {
            Some(best) => (&best.base, &best.adapters),
            None => (&state.base, &state.adapters),
        };
        about["kept_step"] = json!(state.best.as_ref().map_or(state.step, |best| best.step));
        match (arguments.algorithm, training.adapter(), adapters.first()) {
            (Way::FineTune, Some(adapter), Some(theta)) => {
                let name = arguments.model.to_str();
                let sites = model.encoder.sites();
                // What Hugging Face's format lacks is kept in ours, with its numbers all the same.
                match adapter.entry().hugging_face {
                    Some(_) => {
                        exchange::export_adapter(&arguments.out, adapter, theta, sites, name)
                    }
                    None => store::save_new_adapter(&arguments.out, adapter, theta, Precision::F32),
                }
                .map_err(failure)?;
                let text = format!("{:#}\n", json!(labels.first()));
                peftml_data::npz::stage_text(&arguments.out.join("labels.json"), &text)?
                    .commit()?;
            }
            _ => {
                let bare = model.bare(base).map_err(failure)?;
                bare.save(&arguments.out, &bare.base, Some(&arguments.model)).map_err(failure)?;
            }
        }
        // The result stands; a checkpoint that stays is only in the way.
        let _ = std::fs::remove_file(checkpoint(&arguments.out));
        print_json(&about)
    }

    /// Two steps are timed, the second counts.
    fn dry_run(
        mut about: Value,
        training: &Training<'_>,
        model: &Pretrained,
        tasks: usize,
        way: Way,
    ) -> Result<(), Failure> {
        let mut state = training.start(&model.base).map_err(failure)?;
        let mut seconds = 0.0;
        for _ in 0..2 {
            let (before, started) = (state.step, Instant::now());
            training.advance(&mut state).map_err(failure)?;
            seconds = started.elapsed().as_secs_f64() / (state.step - before).max(1) as f64;
        }
        let steps = training.config().steps;
        let all = model.encoder.sites().count() as f64;
        let own = training.adapter().map_or(0, |adapter| adapter.count()) as f64;
        // Four bytes a number; what is trained has a gradient and two moments beside it.
        let base = if way == Way::FineTune { all } else { 4.0 * all };
        about["memory_bytes_without_activations"] = json!(4.0 * (base + 4.0 * own * tasks as f64));
        about["estimated_seconds"] = json!(seconds * steps as f64);
        print_json(&about)
    }
}
