//! `cargo xtask faults`: runs are killed, cut, starved of disk and doubled, and must end alike.
//!
//! An undisturbed run gives the bytes to be met: trials.csv, curves.csv and figures/*.svg. Then, each in
//! a folder of its own and each followed by an undisturbed run of the same command:
//! * kills: SIGKILL at moments spread over the whole run; no finished line of a part file may vanish
//! * cuts: SIGKILL, then part files cut at any byte, as a loss of power may leave them
//! * limits: file sizes limited with SIGXFSZ ignored, so that writes fail as on a full disk
//! * doubles: a second process on the same folder must be refused and say who holds it

use crate::compare::{compare, io, listing, with_extension};
use crate::failure::Failure;
use crate::flags::{self, Flag, Parsed, Verb};
use crate::scratch::Scratch;
use crate::workspace;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The verb.
pub const VERB: Verb = Verb {
    name: "faults",
    summary: "Kill, cut and starve a run, and compare what it ends with.",
    operands: "",
    operand_count: 0..=0,
    flags: &[
        Flag { name: "--kills", value: Some("N"), help: "kills at random moments (default: 50)" },
        Flag { name: "--seconds", value: Some("S"), help: "least work of the run (default: 30)" },
        Flag { name: "--study", value: Some("STUDY"), help: "the study (default: linear/sweep_d)" },
        flags::THREADS,
    ],
    rest: None,
    run: faults,
};

/// Disturbs the run in the folder of that name, and says what it did.
type Scenario<'b> = &'b dyn Fn(&str) -> Result<String, Failure>;

fn faults(parsed: &Parsed) -> Result<(), Failure> {
    flags::check_threads(parsed)?;
    let kills = number(parsed, "--kills", 50)?;
    let seconds = number(parsed, "--seconds", 30)?;
    let study = parsed.value("--study").unwrap_or("linear/sweep_d").to_string();
    let suite = study.split_once('/').map(|(suite, _)| suite.to_string());
    let binary = workspace::build_peftml(suite.as_deref())?;
    let root = workspace::root()?;
    let place = Scratch::new(&std::env::temp_dir())?;
    let threads = parsed.value(flags::THREADS.name).unwrap_or("2").to_string();
    let mut bench = Bench { binary, root, place, study, threads, seeds: 1, seconds: 0.0 };
    bench.size(seconds as f64)?;
    let expected = bench.folder("undisturbed")?;

    let scenarios: [(&str, Scenario<'_>); 4] = [
        ("kills", &|name| bench.kills(name, kills)),
        ("cuts", &|name| bench.cuts(name, kills.div_ceil(5))),
        ("limits", &|name| bench.limits(name)),
        ("doubles", &|name| bench.doubles(name)),
    ];
    let mut failed = false;
    for (name, scenario) in scenarios {
        let outcome = scenario(name).and_then(|what| {
            bench.finish(name)?;
            compare(&expected, &bench.folder(name)?)?;
            Ok(what)
        });
        match outcome {
            Ok(what) => println!("{name:<8} ends identical: {what}"),
            Err(failure) => {
                failed = true;
                println!("{name:<8} FAILS: {}", failure.message().unwrap_or("the run failed"));
            }
        }
    }
    if failed { Err(Failure::Work("a disturbed run differs".into())) } else { Ok(()) }
}

fn number(parsed: &Parsed, name: &str, default: usize) -> Result<usize, Failure> {
    match parsed.value(name) {
        None => Ok(default),
        Some(text) => {
            text.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                Failure::Usage(format!("{name} {text}: a positive number is needed"))
            })
        }
    }
}

fn failed(what: impl Into<String>) -> Failure {
    Failure::Work(what.into())
}

/// A running process that is not left behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The run that is disturbed.
struct Bench {
    binary: PathBuf,
    root: PathBuf,
    place: Scratch,
    study: String,
    threads: String,
    seeds: usize,
    seconds: f64,
}

impl Bench {
    fn arguments(&self, name: &str) -> Vec<String> {
        let out = self.place.path().join(name).display().to_string();
        let seeds = format!("0..{}", self.seeds);
        ["run", &self.study, "--seeds", &seeds, "--threads", &self.threads, "--out", &out]
            .map(String::from)
            .to_vec()
    }

    fn spawn(&self, mut command: Command) -> Result<Running, Failure> {
        command.current_dir(&self.root).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::piped()).spawn().map_err(io(&self.binary))?;
        Ok(Running(child))
    }

    fn start(&self, name: &str) -> Result<Running, Failure> {
        let mut command = Command::new(&self.binary);
        command.args(self.arguments(name));
        self.spawn(command)
    }

    /// Runs the same command to its end.
    fn finish(&self, name: &str) -> Result<(), Failure> {
        let (status, message) = wait(self.start(name)?)?;
        if status.success() {
            return Ok(());
        }
        Err(failed(format!("the undisturbed run afterwards ends with {status}: {message}")))
    }

    /// Finds a number of seeds that makes at least `seconds` of work, and makes the run to be met.
    fn size(&mut self, seconds: f64) -> Result<(), Failure> {
        loop {
            let started = Instant::now();
            self.finish("undisturbed")?;
            self.seconds = started.elapsed().as_secs_f64();
            eprintln!("{} with {} seeds: {:.1} s", self.study, self.seeds, self.seconds);
            if self.seconds >= seconds {
                return Ok(());
            }
            // A quarter more than the measure asks for, and at most tenfold: start-up dominates at first.
            let factor = (1.25 * seconds / self.seconds).clamp(1.3, 10.0);
            self.seeds = (self.seeds as f64 * factor).ceil() as usize;
            let folder = self.place.path().join("undisturbed");
            std::fs::remove_dir_all(&folder).map_err(io(&folder))?;
        }
    }

    /// The one run folder below `name`.
    fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let suite = self.study.split('/').next().unwrap_or_default();
        let below = self.place.path().join(name).join(suite);
        let mut folders = listing(&below)?;
        match (folders.pop(), folders.is_empty()) {
            (Some(folder), true) => Ok(folder),
            _ => Err(failed(format!("{}: one run folder is expected", below.display()))),
        }
    }

    /// A moment up to twice the share of the whole run that one of `lives` has, so that `lives`
    /// lives cover the run; number `life` of a fixed sequence.
    fn moment(&self, life: usize, lives: usize) -> Duration {
        let share = self.seconds / lives as f64;
        // Start-up must not eat every life, else the run never advances.
        Duration::from_secs_f64(0.02 + 2.0 * share * fraction(life as u64))
    }

    /// Starts the run and kills it after `pause`; `None` where it ended before.
    fn life(&self, name: &str, pause: Duration) -> Result<Option<()>, Failure> {
        let mut running = self.start(name)?;
        std::thread::sleep(pause);
        if running.0.try_wait().map_err(io(&self.binary))?.is_some() {
            return Ok(None);
        }
        running.0.kill().map_err(io(&self.binary))?;
        running.0.wait().map_err(io(&self.binary))?;
        Ok(Some(()))
    }

    fn kills(&self, name: &str, kills: usize) -> Result<String, Failure> {
        let (mut done, mut ends, mut life) = (0, 0, 0);
        let mut lines = 0;
        while done < kills {
            life += 1;
            if self.life(name, self.moment(life, kills))?.is_some() {
                done += 1;
                let now = self.folder(name).map_or(Ok(0), |folder| whole_lines(&folder))?;
                if now < lines {
                    return Err(failed(format!(
                        "kill {done}: {lines} finished lines became {now}"
                    )));
                }
                lines = now;
            } else {
                // The run is over: what it gave must be right already; the next one begins anew.
                ends += 1;
                compare(&self.folder("undisturbed")?, &self.folder(name)?)?;
                let folder = self.place.path().join(name);
                std::fs::remove_dir_all(&folder).map_err(io(&folder))?;
                lines = 0;
            }
        }
        Ok(format!("{done} kills over {} runs of {:.1} s of work", ends + 1, self.seconds))
    }

    fn cuts(&self, name: &str, cuts: usize) -> Result<String, Failure> {
        let (mut done, mut life) = (0, 1000);
        let mut lost = 0;
        while done < cuts {
            life += 1;
            if self.life(name, self.moment(life, cuts))?.is_none() {
                let folder = self.place.path().join(name);
                std::fs::remove_dir_all(&folder).map_err(io(&folder))?;
                continue;
            }
            let Ok(folder) = self.folder(name) else { continue };
            for (i, part) in parts(&folder)?.iter().enumerate() {
                let length = std::fs::metadata(part).map_err(io(part))?.len();
                let kept = (length as f64 * fraction((life * 100 + i) as u64)) as u64;
                let file = std::fs::OpenOptions::new().write(true).open(part).map_err(io(part))?;
                file.set_len(kept).map_err(io(part))?;
                lost += length - kept;
            }
            done += 1;
        }
        Ok(format!("{done} kills with part files cut, {lost} bytes lost"))
    }

    /// Writes fail at several sizes; each time the run must say so in words.
    fn limits(&self, name: &str) -> Result<String, Failure> {
        let whole = parts(&self.folder("undisturbed")?)?
            .iter()
            .filter_map(|part| std::fs::metadata(part).ok())
            .map(|data| data.len())
            .max()
            .unwrap_or(0);
        // Blocks of 512 bytes: nothing at all, a few lines, half of the part file.
        let limits = [0, 4, whole / 1024];
        for blocks in limits {
            let mut command = Command::new("sh");
            command.args(["-c", "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"", "limits"]);
            command.arg(blocks.to_string()).arg(&self.binary).args(self.arguments(name));
            let (status, message) = wait(self.spawn(command)?)?;
            let told = !message.trim().is_empty() && !message.contains("panicked");
            if status.success() || status.code().is_none() || !told {
                return Err(failed(format!("limit of {blocks} blocks: {status}: {message}")));
            }
        }
        Ok(format!("refused in words at {limits:?} blocks of file size"))
    }

    /// The second process on a folder must not run, and must name the first.
    fn doubles(&self, name: &str) -> Result<String, Failure> {
        let first = self.start(name)?;
        let pid = first.0.id().to_string();
        // The first must have got as far as holding its folder.
        let patience = Instant::now();
        while self.folder(name).is_err() || parts(&self.folder(name)?)?.is_empty() {
            if patience.elapsed() > Duration::from_secs(20) {
                return Err(failed("the first process makes no part file"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let (status, message) = wait(self.start(name)?)?;
        let (first_status, first_message) = wait(first)?;
        if !first_status.success() {
            return Err(failed(format!(
                "the first process ends with {first_status}: {first_message}"
            )));
        }
        if status.success() || !message.contains(&pid) {
            return Err(failed(format!(
                "the second process must name process {pid}, it ends with {status}: {message}"
            )));
        }
        Ok(format!(
            "the second process is refused: {}",
            message.trim().lines().next_back().unwrap_or("")
        ))
    }
}

/// Waits for the end; returns what was written to standard error.
fn wait(running: Running) -> Result<(ExitStatus, String), Failure> {
    use std::io::Read;
    let mut running = running;
    let mut message = Vec::new();
    if let Some(mut stderr) = running.0.stderr.take() {
        stderr.read_to_end(&mut message).map_err(|error| failed(error.to_string()))?;
    }
    let status = running.0.wait().map_err(|error| failed(error.to_string()))?;
    Ok((status, String::from_utf8_lossy(&message).into_owned()))
}

/// A number in [0, 1), the same for the same `index` (splitmix64).
fn fraction(index: u64) -> f64 {
    let mut z = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn parts(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    with_extension(&folder.join("parts"), "jsonl")
}

/// Finished lines in all part files.
fn whole_lines(folder: &Path) -> Result<usize, Failure> {
    let mut lines = 0;
    for part in parts(folder)? {
        let bytes = std::fs::read(&part).map_err(io(&part))?;
        lines += bytes.iter().filter(|byte| **byte == b'\n').count();
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("parts")).unwrap();
        std::fs::write(folder.path().join("parts/a.jsonl"), "{}\n{}\n{\"tr").unwrap();
        assert_eq!(whole_lines(folder.path()), Ok(2));
    }

    #[test]
    fn moments_spread_over_the_unit_interval() {
        let draws: Vec<f64> = (0..1000).map(fraction).collect();
        for tenth in 0..10 {
            let low = tenth as f64 / 10.0;
            // Binomial(1000, 1/10): six standard deviations are 57.
            let count = draws.iter().filter(|x| (low..low + 0.1).contains(*x)).count();
            assert!((43..=157).contains(&count), "{count}");
        }
    }
}
