//! `cargo xtask slurm`: the same study here and on the cluster that `sbatch` reaches.
//!
//! The cluster's run must end with the bytes of the local one: undisturbed, with a node taken down in
//! mid-run, with the controller killed and started again (where that is allowed here), with one shard
//! run twice, and with trials that fail (the others complete, the exit status is 1). Without a cluster
//! it says so and succeeds.

use crate::compare::compare;
use crate::failure::Failure;
use crate::flags::{Flag, Parsed, Verb};
use crate::scratch::Scratch;
use crate::workspace;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The verb.
pub const VERB: Verb = Verb {
    name: "slurm",
    summary: "Compare a run on the cluster that sbatch reaches with a local one.",
    operands: "",
    operand_count: 0..=0,
    flags: &[
        Flag {
            name: "--study",
            value: Some("STUDY"),
            help: "one study (default: linear/sweep_n and shallow/sweep_n.quick, which is run undisturbed)",
        },
        Flag { name: "--seeds", value: Some("A..B"), help: "seeds (default: 0..4)" },
        Flag { name: "--shards", value: Some("M"), help: "shards (default: 6)" },
    ],
    rest: None,
    run,
};

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let nodes = match nodes() {
        Some(nodes) if !nodes.is_empty() => nodes,
        _ => {
            println!("skipped: no Slurm cluster answers here");
            return Ok(());
        }
    };
    let bench = Bench {
        binary: workspace::build_peftml(None)?,
        root: workspace::root()?,
        place: Scratch::new(&std::env::temp_dir())?,
        seeds: parsed.value("--seeds").unwrap_or("0..4").to_string(),
        shards: parsed.value("--shards").unwrap_or("6").to_string(),
        nodes,
    };
    let chosen = parsed.value("--study").unwrap_or("linear/sweep_n");
    let calm: Scenario = |bench, study| bench.on_cluster(study, &|| Ok(()));
    let mut scenarios: Vec<(Study, Scenario)> = vec![
        (Study::named("undisturbed", chosen), calm),
        (Study::named("node", chosen), |bench, study| {
            bench.on_cluster(study, &|| take_down(&bench.nodes[0]))
        }),
        (Study::named("controller", chosen), |bench, study| {
            bench.on_cluster(study, &restart_controller)
        }),
        (Study::named("twice", chosen), Bench::twice),
        (bench.failing()?, Bench::fails),
    ];
    if parsed.value("--study").is_none() {
        scenarios.insert(1, (Study::named("shallow", "shallow/sweep_n.quick"), calm));
    }
    let mut failed = false;
    for (study, scenario) in &scenarios {
        let name = study.scenario;
        let outcome = bench.locally(study).and_then(|()| scenario(&bench, study)).and_then(|()| {
            compare(&bench.folder("local", study)?, &bench.folder("cluster", study)?)
        });
        match outcome {
            Ok(()) => println!("{name:<12} equals the local run"),
            Err(failure) => {
                failed = true;
                println!("{name:<12} FAILS: {}", failure.message().unwrap_or("the run failed"));
            }
        }
    }
    if failed { Err(Failure::Work("the cluster's run differs".into())) } else { Ok(()) }
}

/// A study, and the scenario that it is run in.
struct Study {
    scenario: &'static str,
    /// Its name, or the path of its file.
    name: String,
    suite: String,
    /// Whether some of its trials fail, here and there.
    fails: bool,
}

impl Study {
    fn named(scenario: &'static str, name: &str) -> Self {
        let suite = name.split('/').next().unwrap_or_default().to_string();
        Study { scenario, name: name.to_string(), suite, fails: false }
    }
}

/// Runs on the cluster, disturbed or not, into the folder of that name.
type Scenario = fn(&Bench, &Study) -> Result<(), Failure>;

struct Bench {
    binary: PathBuf,
    root: PathBuf,
    place: Scratch,
    seeds: String,
    shards: String,
    nodes: Vec<String>,
}

impl Bench {
    /// Where a study's run of this kind goes: `local` or `cluster`.
    fn out(&self, kind: &str, study: &Study) -> PathBuf {
        self.place.path().join(study.scenario).join(kind)
    }

    fn command(&self, kind: &str, study: &Study, more: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(&self.root).stdin(Stdio::null()).stdout(Stdio::null());
        command.args(["run", &study.name, "--seeds", &self.seeds, "--out"]);
        command.arg(self.out(kind, study)).args(more);
        command
    }

    fn folder(&self, kind: &str, study: &Study) -> Result<PathBuf, Failure> {
        let below = self.out(kind, study).join(&study.suite);
        let entry = std::fs::read_dir(&below).ok().and_then(|mut entries| entries.next());
        entry
            .and_then(Result::ok)
            .map(|entry| entry.path())
            .ok_or_else(|| Failure::Work(format!("{}: no run folder", below.display())))
    }

    fn locally(&self, study: &Study) -> Result<(), Failure> {
        let mut command = self.command("local", study, &["--threads", "2"]);
        if study.fails {
            // Its failures are meant.
            command.stderr(Stdio::null());
        }
        let status = command.status();
        let status = status.map_err(|error| Failure::Work(error.to_string()))?;
        let expected = i32::from(study.fails);
        if status.code() == Some(expected) {
            return Ok(());
        }
        Err(Failure::Work(format!("the local run ended with {status}, not with {expected}")))
    }

    /// A study half of whose trials fail: with this noise the samples are beyond what may be read.
    fn failing(&self) -> Result<Study, Failure> {
        let config = self.root.join("configs/linear/sweep_n.quick.toml");
        let text = std::fs::read_to_string(&config)
            .map_err(|error| Failure::Work(format!("{}: {error}", config.display())))?;
        let kept = text.split("[sweep]").next().unwrap_or_default();
        let file = self.place.path().join("failing.toml");
        std::fs::write(&file, format!("{kept}[sweep]\nnoise_std = [0.1, 1e300]\n"))
            .map_err(|error| Failure::Work(format!("{}: {error}", file.display())))?;
        let name = file.display().to_string();
        Ok(Study { scenario: "failing", name, suite: "linear".into(), fails: true })
    }

    /// Failing trials are reported, also by `status`, and the others complete.
    fn fails(&self, study: &Study) -> Result<(), Failure> {
        let slurm = ["--engine", "slurm", "--shards", &self.shards];
        let output = self.command("cluster", study, &slurm).stderr(Stdio::piped()).output();
        let output = output.map_err(|error| Failure::Work(error.to_string()))?;
        let words = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(1) {
            let ended = output.status;
            return Err(Failure::Work(format!("failing trials ended with {ended}, not with 1")));
        }
        if !words.contains("failed: ") {
            return Err(Failure::Work(format!("no failing trial is named: {words}")));
        }
        Ok(())
    }

    /// Submits, disturbs once results come in, and waits; submits again until nothing is missing.
    fn on_cluster(
        &self,
        study: &Study,
        disturb: &dyn Fn() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let slurm = ["--engine", "slurm", "--shards", &self.shards];
        let mut child = self
            .command("cluster", study, &slurm)
            .spawn()
            .map_err(|error| Failure::Work(format!("cannot start the run: {error}")))?;
        let started = Instant::now();
        let results = || {
            let parts = self.folder("cluster", study).ok()?.join("parts");
            std::fs::read_dir(parts).ok()?.next()
        };
        while results().is_none() && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(50));
        }
        disturb()?;
        let status = loop {
            match child.try_wait().map_err(|error| Failure::Work(error.to_string()))? {
                Some(status) => break status,
                None => {
                    // As a site's operator would: a controller that was lost drains nodes.
                    self.nodes.iter().for_each(|node| resume(node));
                    std::thread::sleep(Duration::from_secs(2));
                }
            }
        };
        if status.success() {
            return Ok(());
        }
        // What a disturbance has cost is made up by the same command.
        workspace::run(&mut self.command("cluster", study, &slurm))
    }

    /// After a run on the cluster, one shard again, as a controller that lost its mind would.
    fn twice(&self, study: &Study) -> Result<(), Failure> {
        self.on_cluster(study, &|| Ok(()))?;
        let folder = self.folder("cluster", study)?;
        // The first part file is lost, so that shards have something to do again.
        let parts = folder.join("parts");
        let lost = std::fs::read_dir(&parts).ok().and_then(|mut parts| parts.next()?.ok());
        if let Some(part) = lost {
            std::fs::remove_file(part.path()).map_err(|error| Failure::Work(error.to_string()))?;
        }
        let mut shards = Vec::new();
        let count: usize = self.shards.parse().unwrap_or(1);
        for k in (1..=count).flat_map(|k| [k, k]) {
            let mut command = Command::new(&self.binary);
            command.arg("shard").arg(&folder).arg(format!("{k}/{count}"));
            command.stdout(Stdio::null()).stderr(Stdio::null());
            shards.push(command.spawn().map_err(|error| Failure::Work(error.to_string()))?);
        }
        for mut shard in shards {
            // The second of a pair may be refused while the first works: that is as it should be.
            shard.wait().map_err(|error| Failure::Work(error.to_string()))?;
        }
        workspace::run(Command::new(&self.binary).arg("merge").arg(&folder).stdout(Stdio::null()))
    }
}

/// Names of the cluster's nodes; `None` where no controller answers.
fn nodes() -> Option<Vec<String>> {
    let output = Command::new("sinfo").args(["-h", "-N", "-o", "%N"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.lines().map(|line| line.trim().to_string()).collect())
}

fn take_down(node: &str) -> Result<(), Failure> {
    let update = |state: &str| {
        let mut command = Command::new("scontrol");
        command.args(["update", &format!("NodeName={node}"), &format!("State={state}")]);
        if state == "DOWN" {
            command.arg("Reason=test");
        }
        command.stderr(Stdio::null()).status()
    };
    let failed = |error: std::io::Error| Failure::Work(format!("scontrol: {error}"));
    let down = update("DOWN").map_err(failed)?;
    std::thread::sleep(Duration::from_secs(2));
    // It may be back by itself.
    update("RESUME").map_err(failed)?;
    if down.success() { Ok(()) } else { Err(Failure::Work("no right to take a node down".into())) }
}

/// Takes a node that is down or drained back into service; others do not mind.
fn resume(node: &str) {
    let state = Command::new("sinfo").args(["-h", "-n", node, "-o", "%T"]).output();
    let state = state.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if state.is_ok_and(|state| state.starts_with("down") || state.starts_with("drain")) {
        let mut command = Command::new("scontrol");
        command.args(["update", &format!("NodeName={node}"), "State=RESUME"]);
        // It may be back by itself.
        let _ = command.stderr(Stdio::null()).status();
    }
}

/// Kills the controller and starts it again, where it runs on this machine under our user.
fn restart_controller() -> Result<(), Failure> {
    let failed = |what: &str| Failure::Work(format!("the controller: {what}"));
    let config = Command::new("scontrol").args(["show", "config"]).output();
    let config = config.map_err(|error| failed(&error.to_string()))?;
    let config = String::from_utf8_lossy(&config.stdout).into_owned();
    let setting = |name: &str| {
        let line = config.lines().find(|line| line.trim_start().starts_with(name))?;
        Some(line.split_once('=')?.1.trim().to_string())
    };
    let pid_file = setting("SlurmctldPidFile").ok_or_else(|| failed("no pid file"))?;
    let pid = std::fs::read_to_string(Path::new(&pid_file));
    let pid = pid.map_err(|_| failed("not on this machine"))?;
    let kill = Command::new("kill").args(["-9", pid.trim()]).status();
    if !kill.is_ok_and(|status| status.success()) {
        return Err(failed("no right to kill it"));
    }
    std::thread::sleep(Duration::from_secs(3));
    let mut start = Command::new("slurmctld");
    if let Ok(conf) = std::env::var("SLURM_CONF") {
        start.args(["-f", &conf]);
    }
    let started = start.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if started.is_ok_and(|status| status.success()) { Ok(()) } else { Err(failed("no start")) }
}
