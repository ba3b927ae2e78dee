//! `cargo xtask slurm`: the same study here and on the cluster that `sbatch` reaches.
//!
//! The cluster's run must end with the bytes of the local one: undisturbed, with a node taken down in
//! mid-run, with the controller killed and started again (where that is allowed here), with one shard
//! run twice, and with files of a killed submission left behind. Without a cluster it says so and
//! succeeds.

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
        Flag { name: "--study", value: Some("STUDY"), help: "the study (default: linear/sweep_n)" },
        Flag { name: "--seeds", value: Some("A..B"), help: "its seeds (default: 0..4)" },
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
    let study = parsed.value("--study").unwrap_or("linear/sweep_n").to_string();
    let suite = study.split('/').next().unwrap_or_default().to_string();
    let bench = Bench {
        binary: workspace::build_peftml(Some(&suite))?,
        root: workspace::root()?,
        place: Scratch::new(&std::env::temp_dir())?,
        seeds: parsed.value("--seeds").unwrap_or("0..4").to_string(),
        shards: parsed.value("--shards").unwrap_or("6").to_string(),
        study,
        suite,
    };
    workspace::run(&mut bench.command("local", &["--threads", "2"]))?;
    let expected = bench.folder("local")?;
    let scenarios: [(&str, Scenario<'_>); 4] = [
        ("undisturbed", &|name| bench.on_cluster(name, &|| Ok(()))),
        ("node", &|name| bench.on_cluster(name, &|| take_down(&nodes[0]))),
        ("controller", &|name| bench.on_cluster(name, &restart_controller)),
        ("twice", &|name| bench.twice(name)),
    ];
    let mut failed = false;
    for (name, scenario) in scenarios {
        let outcome = scenario(name).and_then(|()| compare(&expected, &bench.folder(name)?));
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

/// Runs on the cluster, disturbed or not, into the folder of that name.
type Scenario<'b> = &'b dyn Fn(&str) -> Result<(), Failure>;

struct Bench {
    binary: PathBuf,
    root: PathBuf,
    place: Scratch,
    study: String,
    suite: String,
    seeds: String,
    shards: String,
}

impl Bench {
    fn command(&self, name: &str, more: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(&self.root).stdin(Stdio::null()).stdout(Stdio::null());
        command.args(["run", &self.study, "--seeds", &self.seeds, "--out"]);
        command.arg(self.place.path().join(name)).args(more);
        command
    }

    fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let below = self.place.path().join(name).join(&self.suite);
        let entry = std::fs::read_dir(&below).ok().and_then(|mut entries| entries.next());
        entry
            .and_then(Result::ok)
            .map(|entry| entry.path())
            .ok_or_else(|| Failure::Work(format!("{}: no run folder", below.display())))
    }

    /// Submits, disturbs once results come in, and waits; submits again until nothing is missing.
    fn on_cluster(
        &self,
        name: &str,
        disturb: &dyn Fn() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let slurm = ["--engine", "slurm", "--shards", &self.shards];
        let mut child = self
            .command(name, &slurm)
            .spawn()
            .map_err(|error| Failure::Work(format!("cannot start the run: {error}")))?;
        let started = Instant::now();
        let results = || {
            let parts = self.folder(name).ok()?.join("parts");
            std::fs::read_dir(parts).ok()?.next()
        };
        while results().is_none() && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(50));
        }
        disturb()?;
        let status = child.wait().map_err(|error| Failure::Work(error.to_string()))?;
        if status.success() {
            return Ok(());
        }
        // What a disturbance has cost is made up by the same command.
        workspace::run(&mut self.command(name, &slurm))
    }

    /// After a run on the cluster, one shard again, as a controller that lost its mind would.
    fn twice(&self, name: &str) -> Result<(), Failure> {
        self.on_cluster(name, &|| Ok(()))?;
        let folder = self.folder(name)?;
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
