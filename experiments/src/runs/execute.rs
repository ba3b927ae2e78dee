//! Runs the trials of a study that are not finished yet.

use super::parts::{Finished, Mixtures, PartWriter, Record};
use super::provenance::{self, Origin};
use super::study::{Site, Study, Trial};
use super::{RunError, RunFolder};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Shard k of m, k from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    k: usize,
    m: usize,
}

impl Shard {
    /// Parses `K/M` with 1 <= K <= M; `0/M` is `M/M`, for job arrays that count from 0.
    ///
    /// # Errors
    /// [`RunError::Shard`].
    pub fn parse(text: &str) -> Result<Self, RunError> {
        let wrong = || RunError::Shard { text: text.to_owned() };
        let (k, m) = text.split_once('/').ok_or_else(wrong)?;
        let (k, m): (usize, usize) =
            (k.trim().parse().map_err(|_| wrong())?, m.trim().parse().map_err(|_| wrong())?);
        if m == 0 || k > m {
            return Err(wrong());
        }
        Ok(Self { k: if k == 0 { m } else { k }, m })
    }

    /// All shards of a cut into `m`.
    pub fn all(m: usize) -> impl Iterator<Item = Self> {
        (1..=m).map(move |k| Self { k, m })
    }

    /// Its number, from 1, and how many there are.
    pub fn numbers(self) -> (usize, usize) {
        (self.k, self.m)
    }

    /// The trials of this shard. Groups are given, costliest first, each to the shard with the least
    /// cost so far: every shard can work this out for itself.
    pub fn select(self, trials: &[Trial]) -> Vec<&Trial> {
        let mut loads = vec![0.0_f64; self.m];
        let mut chosen = Vec::new();
        for group in groups(trials.iter().collect()) {
            let least =
                (0..self.m).fold(0, |best, i| if loads[i] < loads[best] { i } else { best });
            loads[least] += cost(&group);
            if least + 1 == self.k {
                chosen.extend(group);
            }
        }
        chosen
    }
}

/// How a part file is called: names must differ between all processes that ever write one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartName {
    /// Job, `local` where there is none.
    pub job: String,
    /// Shard, `all` where there is none.
    pub shard: String,
    /// How often the job was restarted.
    pub restart: String,
}

impl PartName {
    pub(super) fn file_name(&self, attempt: usize) -> String {
        let Self { job, shard, restart } = self;
        let (host, pid) = (provenance::host(), std::process::id());
        format!("{job}-{shard}-{restart}-{host}-{pid}-{attempt}.jsonl")
    }
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads.
    pub threads: usize,
    /// Mixtures of revisions and machines that are allowed.
    pub allowed: Mixtures,
    /// Name of the part file.
    pub part: PartName,
    /// The shard to run; everything where `None`.
    pub shard: Option<Shard>,
    /// The folder of real data sets.
    pub data: Option<PathBuf>,
}

/// Is told how far a run is.
pub trait Progress {
    /// `done` of `total` trials are finished; `remaining` is the part of the work, by estimated cost,
    /// that is left, from 1 at the start of this process to 0.
    fn advance(&mut self, done: usize, total: usize, remaining: f64);
    /// Something that a person should know.
    fn note(&mut self, text: &str);
}

/// Says nothing.
pub struct Silent;

impl Progress for Silent {
    fn advance(&mut self, _: usize, _: usize, _: f64) {}
    fn note(&mut self, _: &str) {}
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Execution {
    /// Trials that were finished before.
    pub before: usize,
    /// Trials finished now.
    pub computed: usize,
    /// Trials that failed now, with the reason.
    pub failed: Vec<(String, String)>,
    /// Wall time.
    pub seconds: f64,
}

/// Runs what is missing of `study` (or of one shard of it) in a thread pool of its own, and appends
/// it to a part file. The caller holds the folder's lock.
///
/// # Errors
/// [`RunError`]: unreadable, contradictory or mixed part files; a part file that cannot be written.
/// A failing trial is no error here, see [`Execution::failed`].
pub fn execute(
    study: &dyn Study,
    folder: &RunFolder,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Execution, RunError> {
    let started = Instant::now();
    let trials = study.trials();
    let mine = match options.shard {
        Some(shard) => shard.select(&trials),
        None => trials.iter().collect(),
    };
    let finished = Finished::read(folder)?;
    for path in &finished.torn {
        progress.note(&format!(
            "{}: the last line is torn, its trial is computed again",
            path.display()
        ));
    }
    let total = mine.len();
    let missing: Vec<&Trial> =
        mine.into_iter().filter(|trial| !finished.records.contains_key(&trial.id)).collect();
    let here = Origin::here();
    let names = trials.iter().map(|trial| trial.id.as_str());
    finished.check_origins(names, (!missing.is_empty()).then_some(&here), options.allowed)?;
    drop(finished);
    let mut outcome = Execution { before: total - missing.len(), ..Execution::default() };
    if !missing.is_empty() {
        let site = Site { folder: Some(folder.path()), data: options.data.as_deref() };
        study.check_site(&site).map_err(|reason| RunError::NotReady { reason })?;
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let crew = Crew { study, site, origin: here, next, stop };
        crew.run(missing, folder, options, progress, &mut outcome)?;
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    Ok(outcome)
}

/// Groups of trials, costliest first, equal ones in their order.
fn groups(trials: Vec<&Trial>) -> Vec<Vec<&Trial>> {
    let mut groups: Vec<Vec<&Trial>> = Vec::new();
    for trial in trials {
        match groups.last_mut() {
            Some(group) if group[0].group == trial.group => group.push(trial),
            _ => groups.push(vec![trial]),
        }
    }
    groups.sort_by(|a, b| cost(b).total_cmp(&cost(a)));
    groups
}

fn cost(group: &[&Trial]) -> f64 {
    group.iter().map(|trial| trial.cost).sum()
}

/// A finished or failed trial on its way to the part file.
struct Report {
    record: Record,
    cost: f64,
}

/// The workers: each takes the next group until there is none.
struct Crew<'s> {
    study: &'s dyn Study,
    site: Site<'s>,
    origin: Origin,
    next: AtomicUsize,
    stop: AtomicBool,
}

impl Crew<'_> {
    fn run(
        &self,
        missing: Vec<&Trial>,
        folder: &RunFolder,
        options: &Options,
        progress: &mut dyn Progress,
        outcome: &mut Execution,
    ) -> Result<(), RunError> {
        let total = missing.len() + outcome.before;
        let groups = groups(missing);
        let useful = if self.study.shares_threads() { usize::MAX } else { groups.len() };
        let threads = options.threads.clamp(1, useful);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("trials-{i}"))
            .build()
            .map_err(|e| RunError::Threads { threads, reason: e.to_string() })?;
        let mut writer = PartWriter::create(folder, &options.part)?;
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            let groups = &groups;
            scope.spawn(move || pool.broadcast(|_| self.work(groups, &sender)));
            let all = groups.iter().map(|group| cost(group)).sum();
            let written =
                collect(&receiver, &mut writer, &mut Account { all, total, progress, outcome });
            // Workers end after the group in hand; what they still send is not wanted.
            self.stop.store(written.is_err(), Ordering::Relaxed);
            written
        })
    }

    fn work(&self, groups: &[Vec<&Trial>], sender: &Sender<Report>) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(group) = groups.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            self.run_group(group, sender);
        }
    }

    fn run_group(&self, group: &[&Trial], sender: &Sender<Report>) {
        let mut open: Vec<&str> = group.iter().map(|trial| trial.id.as_str()).collect();
        let mut started = Instant::now();
        let mut send = |id: &str, cost: f64, outcome| {
            let seconds = started.elapsed().as_secs_f64();
            let at = provenance::unix_time();
            let record = Record::new(id, self.origin.clone(), at, seconds, outcome);
            // A receiver that is gone has met an error, which is reported there.
            let _ = sender.send(Report { record, cost });
            started = Instant::now();
        };
        let ended = catch_unwind(AssertUnwindSafe(|| {
            self.study.run_at(&self.site, group, &mut |trial, outcome| {
                open.retain(|id| *id != trial.id);
                send(&trial.id, trial.cost, outcome);
            });
        }));
        let reason = match ended {
            Ok(()) => "the study gave no result".to_owned(),
            Err(panic) => format!("panicked: {}", panic_message(&*panic)),
        };
        for trial in group.iter().filter(|trial| open.contains(&trial.id.as_str())) {
            send(&trial.id, trial.cost, Err(reason.clone()));
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "without words",
    }
}

struct Account<'a> {
    all: f64,
    total: usize,
    progress: &'a mut dyn Progress,
    outcome: &'a mut Execution,
}

/// Writes what arrives until the workers are done.
fn collect(
    receiver: &Receiver<Report>,
    writer: &mut PartWriter<std::fs::File>,
    account: &mut Account<'_>,
) -> Result<(), RunError> {
    let mut spent = 0.0;
    let Account { all, total, progress, outcome } = account;
    progress.advance(outcome.before, *total, 1.0);
    loop {
        match receiver.recv_timeout(Duration::from_secs(1)) {
            Ok(Report { record, cost }) => {
                writer.append(&record)?;
                spent += cost;
                match record.failed {
                    Some(reason) => {
                        progress.note(&format!("trial `{}` failed: {reason}", record.trial));
                        outcome.failed.push((record.trial, reason));
                    }
                    None => outcome.computed += 1,
                }
                let done = outcome.before + outcome.computed;
                progress.advance(done, *total, (1.0 - spent / *all).max(0.0));
            }
            // A finished trial must not wait for the next one to be safe.
            Err(RecvTimeoutError::Timeout) => writer.sync()?,
            Err(RecvTimeoutError::Disconnected) => return writer.sync(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trials(costs: &[f64]) -> Vec<Trial> {
        let trial =
            |(group, cost): (usize, &f64)| Trial { id: format!("{group}"), group, cost: *cost };
        costs.iter().enumerate().map(trial).collect()
    }

    #[test]
    fn shards_cover_every_trial_once_and_are_balanced() {
        let trials = trials(&[5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 8.0, 2.0]);
        for m in 1..=10 {
            let shards: Vec<Vec<&Trial>> =
                (1..=m).map(|k| Shard { k, m }.select(&trials)).collect();
            let mut seen: Vec<&str> =
                shards.iter().flatten().map(|trial| trial.id.as_str()).collect();
            seen.sort_unstable();
            assert_eq!(seen, ["0", "1", "2", "3", "4", "5", "6", "7"], "{m} shards");
            // Greedy scheduling: no shard exceeds the mean by more than the largest group.
            let most = shards.iter().map(|shard| cost(shard)).fold(0.0, f64::max);
            assert!(most <= 20.0 / m as f64 + 8.0);
        }
    }

    #[test]
    fn shards_are_read_from_either_count() {
        assert_eq!(Shard::parse("2/3").unwrap().numbers(), (2, 3));
        assert_eq!(Shard::parse("0/3").unwrap().numbers(), (3, 3));
        for text in ["4/3", "1/0", "1", "a/2", "-1/2", "1/2/3", ""] {
            assert!(Shard::parse(text).is_err(), "{text}");
        }
    }
}
