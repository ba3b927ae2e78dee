//! Which binary, which machine, when.

use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// Binary and machine of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Revision of the sources; see `build.rs`.
    pub revision: String,
    /// The CPU features that arithmetic kernels choose by: they change the last bits.
    pub features: String,
    /// Name of the machine.
    pub host: String,
}

impl Origin {
    /// This binary on this machine.
    pub fn here() -> Self {
        Self { revision: revision().to_owned(), features: cpu_features(), host: host() }
    }
}

/// Revision of the sources that this binary is built from: the last commit that touched them, `-dirty`
/// where they differed from it, and their fingerprint.
pub fn revision() -> &'static str {
    env!("PEFTML_REVISION")
}

/// Whether two revisions are builds of the same sources: their fingerprints, which stand last, are equal.
pub fn same_sources(one: &str, other: &str) -> bool {
    let fingerprint = |revision: &str| revision.rsplit('-').next().map(str::to_owned);
    fingerprint(one) == fingerprint(other)
}

/// Architecture and those of its extensions that matter to numerical kernels.
pub fn cpu_features() -> String {
    let mut text = std::env::consts::ARCH.to_owned();
    #[cfg(target_arch = "x86_64")]
    {
        let found = [
            ("avx", is_x86_feature_detected!("avx")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
        ];
        for (name, there) in found {
            if there {
                text.push('+');
                text.push_str(name);
            }
        }
    }
    text
}

/// Name of the processor, as far as the system tells.
pub fn cpu_name() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Name of this machine, of letters, digits, dots and dashes.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    let clean: String = name
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        .collect();
    if clean.is_empty() { "unnamed".to_owned() } else { clean }
}

/// Seconds since 1970, UTC.
pub fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// `2026-01-31T23:59:59Z`.
pub fn timestamp(unix_time: u64) -> String {
    let (days, seconds) = (unix_time / 86_400, unix_time % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart_by_their_fingerprint() {
        assert!(same_sources("0123456789ab-dirty-00c0ffee", "ba9876543210-00c0ffee"));
        assert!(!same_sources("0123456789ab-00c0ffee", "0123456789ab-dirty-00c0ffef"));
        assert!(same_sources(revision(), revision()));
    }

    #[test]
    fn times_are_written_in_the_gregorian_calendar() {
        // `date -u -d @N` gives these.
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_798_761_599), "2026-12-31T23:59:59Z");
    }
}
