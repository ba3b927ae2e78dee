//! Running a peer's script: one thread, an allocator that keeps its memory, JSON back.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One thread for every library that numpy may be built on, and an allocator that does not give its
/// memory back between steps.
const ENVIRONMENT: [(&str, &str); 8] = [
    ("OMP_NUM_THREADS", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
    ("BLIS_NUM_THREADS", "1"),
    ("VECLIB_MAXIMUM_THREADS", "1"),
    ("MALLOC_TOP_PAD_", "268435456"),
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
];

/// The Python that peers run on: the program named by `PEFTML_PYTHON`, else `python3`.
pub fn python() -> PathBuf {
    std::env::var_os("PEFTML_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

/// Why `python` cannot run a peer that needs `modules`; `None` where it can.
pub fn missing(python: &Path, modules: &[&str]) -> Option<String> {
    let imports: Vec<String> = modules.iter().map(|m| format!("import {m}")).collect();
    match Command::new(python).args(["-c", &imports.join("; ")]).output() {
        Err(error) => Some(format!("{} does not start ({error})", python.display())),
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr);
            let last = message.lines().last().unwrap_or("no message").to_owned();
            Some(format!("{} lacks a module ({last})", python.display()))
        }
    }
}

/// Runs a script of `benches/peers` and parses the JSON object on the last line of its output.
///
/// # Errors
/// One sentence on what went wrong.
pub fn run(python: &Path, script: &str, arguments: &[String]) -> Result<Value, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
    let output = Command::new(python)
        .arg(&path)
        .args(arguments)
        .envs(ENVIRONMENT)
        .output()
        .map_err(|error| format!("{} does not start: {error}", python.display()))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{script} failed: {}", message.lines().last().unwrap_or("no message")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|error| format!("{script} printed no JSON: {error}"))
}

/// Raw little-endian doubles of `matrices`, each row by row.
pub fn raw<'a>(matrices: impl IntoIterator<Item = faer::MatRef<'a, f64>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for m in matrices {
        for i in 0..m.nrows() {
            for j in 0..m.ncols() {
                bytes.extend_from_slice(&m[(i, j)].to_le_bytes());
            }
        }
    }
    bytes
}

/// Least time of `repetitions` runs of `work`, in seconds: the time without disturbance.
pub fn best_seconds<T>(repetitions: usize, mut work: impl FnMut() -> T) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..repetitions {
        let begin = std::time::Instant::now();
        std::hint::black_box(work());
        best = best.min(begin.elapsed().as_secs_f64());
    }
    best
}

/// Seconds that this thread has had a processor for, by the clock that Python's `time.thread_time` reads too;
/// `None` where the system has none.
fn thread_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Some(now.tv_sec as f64 + 1e-9 * now.tv_nsec as f64)
    }
    #[cfg(not(unix))]
    None
}

/// Least times of `repetitions` runs of `work` by both clocks: CPU seconds of this thread (wall seconds where the
/// system has no such clock), and wall seconds.
pub fn best_of_both<T>(repetitions: usize, mut work: impl FnMut() -> T) -> [f64; 2] {
    let mut best = [f64::INFINITY; 2];
    for _ in 0..repetitions {
        let (begin, before) = (std::time::Instant::now(), thread_seconds());
        std::hint::black_box(work());
        let wall = begin.elapsed().as_secs_f64();
        let spent = before.zip(thread_seconds()).map_or(wall, |(before, now)| now - before);
        best = [best[0].min(spent), best[1].min(wall)];
    }
    best
}
