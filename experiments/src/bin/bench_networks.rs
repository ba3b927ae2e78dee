//! `peftml-bench-networks`: training steps of networks, ours and PyTorch's in one run.
//!
//! Same networks, shapes and optimiser, single precision, two threads. Every case of either side runs in a
//! process of its own, so that its peak memory is its own; the sides take turns for `--rounds` rounds and the
//! best step of all rounds counts. PyTorch runs with the C library's allocator told to keep its memory, and
//! once more without, for its peak memory alone: the smaller one counts. Processor time a step stands
//! beside: it says whether the machine was quiet. A mixer step of PyTorch above 1.3 s voids the ratios.
//!
//! Without arguments: the table in Markdown on standard output. The Python is PEFTML_PYTHON, else `python3`.

use clap::Parser;
use peftml_linalg::Seed;
use peftml_peft::models::{Encoder, EncoderConfig, Mixer, MixerConfig};
use peftml_peft::optimiser::{AdamConfig, OptimiserConfig, ScheduleConfig};
use peftml_peft::train::{Algorithm, Rounds, Training, TrainingConfig};
use peftml_peft::{
    AdapterConfig, Batch, Examples, Input, Network, Pass, PeftError, Place, Precision, Target,
    Task, Tokens, device,
};
use serde_json::{Value, json};
use std::error::Error;
use std::process::Command;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SCRIPT: &str = include_str!("../../peers/networks_torch.py");

/// Blocks are neither mapped one by one nor given back.
const KEEPING: [(&str, &str); 3] = [
    ("MALLOC_MMAP_MAX_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "8589934592"),
    ("MALLOC_TOP_PAD_", "268435456"),
];

/// Above this a mixer step of PyTorch says that the machine was not quiet, or is another kind of machine.
const QUIET_SECONDS: f64 = 1.3;

/// The cases, and the largest ratio of times that is asked for.
const CASES: [(&str, Option<f64>); 6] = [
    ("mixer", Some(0.6)),
    ("lora-ml", Some(0.7)),
    ("lora", Some(0.7)),
    ("encoder", None),
    ("encoder-lora", Some(0.95)),
    ("encoder-evaluation", Some(0.9)),
];

/// Time training steps of networks beside PyTorch's.
#[derive(Parser, Debug)]
struct Arguments {
    /// Cases with commas between; all where nothing is said
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// Steps of each case in a round
    #[arg(long, default_value_t = 8)]
    steps: usize,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Without PyTorch
    #[arg(long)]
    ours: bool,
    /// One case of ours in this process; prints JSON
    #[arg(long, hide = true)]
    case: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if let Some(case) = &arguments.case {
        rayon::ThreadPoolBuilder::new().num_threads(2).build_global()?;
        println!("{}", run_case(case, arguments.steps)?);
        return Ok(());
    }
    let known = CASES.map(|(name, _)| name);
    if let Some(unknown) = arguments.cases.iter().find(|case| !known.contains(&case.as_str())) {
        return Err(format!("unknown case `{unknown}`; known: {}", known.join(", ")).into());
    }
    compare(&arguments)
}

/// Least seconds, least processor seconds and peak bytes of both sides; the table.
fn compare(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    println!(
        "| case | ours, ms | PyTorch, ms | ratio | at most | CPU ms | CPU ms, PyTorch | ratio | MB | MB, PyTorch | ratio |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut slow = None;
    for (case, most) in CASES {
        if !arguments.cases.is_empty() && !arguments.cases.iter().any(|wanted| wanted == case) {
            continue;
        }
        let (mut ours, mut peer) = (Figures::NONE, Figures::NONE);
        for round in 0..arguments.rounds {
            eprintln!("{case}: round {} of {}", round + 1, arguments.rounds);
            ours.take(&own(case, arguments.steps)?);
            if !arguments.ours {
                peer.take(&torch(case, arguments.steps, &KEEPING)?);
            }
        }
        if !arguments.ours {
            peer.bytes = peer.bytes.min(number(&torch(case, 2, &[])?, "peak_bytes"));
        }
        if case == "mixer" && peer.seconds.is_finite() && peer.seconds > QUIET_SECONDS {
            slow = Some(peer.seconds);
        }
        println!("{}", row(case, most, &ours, &peer));
    }
    if let Some(seconds) = slow {
        println!(
            "\nVoid: PyTorch's mixer step took {seconds:.2} s, more than {QUIET_SECONDS} s; the machine was not quiet."
        );
    }
    Ok(())
}

fn row(case: &str, most: Option<f64>, ours: &Figures, peer: &Figures) -> String {
    let most = most.map_or(String::new(), |most| most.to_string());
    format!(
        "| {case} | {:.0} | {:.0} | {:.2} | {most} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.2} |",
        ours.seconds * 1e3,
        peer.seconds * 1e3,
        ours.seconds / peer.seconds,
        ours.processor * 1e3,
        peer.processor * 1e3,
        ours.processor / peer.processor,
        ours.bytes / 1e6,
        peer.bytes / 1e6,
        ours.bytes / peer.bytes,
    )
}

/// The least of what was measured.
struct Figures {
    seconds: f64,
    processor: f64,
    bytes: f64,
}

impl Figures {
    const NONE: Self =
        Self { seconds: f64::INFINITY, processor: f64::INFINITY, bytes: f64::INFINITY };

    fn take(&mut self, found: &Value) {
        self.seconds = self.seconds.min(number(found, "seconds"));
        self.processor = self.processor.min(number(found, "processor_seconds"));
        self.bytes = self.bytes.min(number(found, "peak_bytes"));
    }
}

fn number(object: &Value, key: &str) -> f64 {
    object[key].as_f64().unwrap_or(f64::INFINITY)
}

fn own(case: &str, steps: usize) -> Result<Value, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    last_line(command.args(["--case", case, "--steps", &steps.to_string()]))
}

fn torch(case: &str, steps: usize, environment: &[(&str, &str)]) -> Result<Value, Box<dyn Error>> {
    let python = std::env::var_os("PEFTML_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    command.args(["-c", SCRIPT, case, &steps.to_string()]).env("OMP_NUM_THREADS", "2");
    last_line(command.envs(environment.iter().copied()))
}

/// The JSON object on the last line that the program prints.
fn last_line(command: &mut Command) -> Result<Value, Box<dyn Error>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program}: {}", message.lines().last().unwrap_or("failed")).into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(serde_json::from_str(text.lines().last().unwrap_or_default())?)
}

fn run_case(case: &str, steps: usize) -> Result<Value, Box<dyn Error>> {
    let place = Place::cpu(Precision::F32);
    let lora = |rank: usize| AdapterConfig::new("lora").with_settings(&format!("rank = {rank}"));
    let (algorithm, tasks) = match case {
        "lora-ml" => {
            let (adapter, rounds) = (lora(1)?, Rounds::Joint);
            (Algorithm::PeftMl { adapter, rounds, adapter_optimiser: None }, 4)
        }
        "lora" => (Algorithm::FineTuning { adapter: lora(1)? }, 1),
        "encoder-lora" => (Algorithm::FineTuning { adapter: lora(8)? }, 1),
        _ => (Algorithm::Standard, 1),
    };
    let encoder = case.starts_with("encoder");
    let network: Box<dyn Network> = if encoder {
        Box::new(Encoder::new(EncoderConfig {
            vocabulary: Sentences::WORDS,
            width: 384,
            layers: 6,
            heads: 12,
            hidden: 1536,
            positions: 512,
            segments: 2,
            classes: 2,
            dropout: 0.1,
            form: Default::default(),
        })?)
    } else {
        Box::new(Mixer::new(MixerConfig::default())?)
    };
    let task = |t: usize| Task {
        name: t.to_string(),
        training: if encoder { Box::new(Sentences) } else { Box::new(Images::new(256)) },
        validation: Box::new(Images::new(0)),
    };
    let tasks: Vec<Task> = (0..tasks).map(task).collect();
    let base = network.sites().initial(&Seed::root(1), &place)?;
    if case == "encoder-evaluation" {
        let numbers = Vec::from_iter(0..32);
        let input = tasks[0].training.batch(&numbers, None, &place)?.input;
        let pass = Pass::new(&base);
        return timed(steps, || {
            device::values(&network.forward(&pass, &input)?)?;
            Ok(())
        });
    }
    let config = TrainingConfig {
        algorithm,
        steps: u64::MAX,
        batch: if encoder { 32 } else { 256 },
        optimiser: OptimiserConfig::Adam(AdamConfig::new(1e-4, 1e-5)),
        schedule: ScheduleConfig::Constant,
        validate_every: 0,
    };
    let training = Training::new(network.as_ref(), &tasks, config, &base, &Seed::root(2), &place)?;
    let mut state = training.start(&base)?;
    timed(steps, || training.advance(&mut state))
}

/// `work` once, then the best of `steps` times.
fn timed(
    steps: usize,
    mut work: impl FnMut() -> Result<(), PeftError>,
) -> Result<Value, Box<dyn Error>> {
    work()?;
    let (mut best, before) = (f64::INFINITY, processor_seconds());
    for _ in 0..steps {
        let begin = Instant::now();
        work()?;
        best = best.min(begin.elapsed().as_secs_f64());
    }
    let processor = (processor_seconds() - before) / steps as f64;
    Ok(json!({ "seconds": best, "processor_seconds": processor, "peak_bytes": peak_bytes() }))
}

/// Processor seconds of this process, where the system says so; no number elsewhere.
fn processor_seconds() -> f64 {
    /// Linux counts in hundredths for every program.
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: Option<Vec<f64>> = fields.map(|field| field.parse().ok()).collect();
    ticks.filter(|ticks| ticks.len() == 2).map_or(f64::NAN, |ticks| (ticks[0] + ticks[1]) / TICKS)
}

/// The most memory that this process ever held, where the system says so.
fn peak_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.map_or(f64::NAN, |kilobytes| kilobytes * 1024.0)
}

/// Random images of the mixer's size.
struct Images {
    numbers: Vec<f32>,
    count: usize,
}

const PIXELS: usize = 3 * 32 * 32;

impl Images {
    fn new(count: usize) -> Self {
        let mut stream = Seed::root(1).child("images").stream();
        Self { numbers: (0..count * PIXELS).map(|_| stream.normal() as f32).collect(), count }
    }
}

impl Examples for Images {
    fn len(&self) -> usize {
        self.count
    }

    fn batch(
        &self,
        numbers: &[usize],
        _: Option<&Seed>,
        place: &Place,
    ) -> Result<Batch, PeftError> {
        let mut chosen = Vec::with_capacity(numbers.len() * PIXELS);
        for &i in numbers {
            chosen.extend_from_slice(&self.numbers[i * PIXELS..(i + 1) * PIXELS]);
        }
        let images = place.tensor_f32(chosen, [numbers.len(), 3, 32, 32])?;
        let classes = numbers.iter().map(|&i| (i % 2) as i64).collect();
        let target = Target::Classes(place.integers(classes, [numbers.len()])?);
        Ok(Batch { input: Input::Images(images), target })
    }
}

/// Random token sequences of one length.
struct Sentences;

impl Sentences {
    const WORDS: usize = 30_522;
    const LENGTH: usize = 64;
}

impl Examples for Sentences {
    fn len(&self) -> usize {
        32
    }

    fn batch(
        &self,
        numbers: &[usize],
        _: Option<&Seed>,
        place: &Place,
    ) -> Result<Batch, PeftError> {
        let (count, length) = (numbers.len(), Self::LENGTH);
        let mut stream = Seed::root(1).child("tokens").stream();
        let ids = (0..count * length).map(|_| stream.below(Self::WORDS as u64) as i64).collect();
        let classes = numbers.iter().map(|&i| (i % 2) as i64).collect();
        let tokens = Tokens {
            ids: place.integers(ids, [count, length])?,
            mask: place.tensor_f32(vec![1.0; count * length], [count, length])?,
            segments: None,
        };
        let target = Target::Classes(place.integers(classes, [count])?);
        Ok(Batch { input: Input::Tokens(Box::new(tokens)), target })
    }
}
