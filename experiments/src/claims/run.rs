//! From a request to verdicts.

use super::claim::{Claim, ClaimError, Context, Scale, Setting};
use super::faults::Faults;
use super::verdict::{Evidence, EvidenceKind, Outcome, Verdict};
use peftml_linalg::Seed;
use std::collections::BTreeMap;
use std::time::Instant;

/// What is to be verified.
#[derive(Clone, Debug)]
pub struct Request {
    /// How much to spend.
    pub scale: Scale,
    /// Number of the random streams' root.
    pub seed: u64,
    /// `key=value` as the user wrote them.
    pub settings: Vec<String>,
    /// Errors planted by tests.
    pub faults: Faults,
}

impl Default for Request {
    fn default() -> Self {
        Self { scale: Scale::Quick, seed: 0, settings: Vec::new(), faults: Faults::NONE }
    }
}

/// A request that cannot be met.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RunError {
    /// No claim of that name.
    #[error("there is no claim `{id}`; known are {known}")]
    UnknownClaim {
        /// What was asked for.
        id: String,
        /// The ids.
        known: String,
    },
    /// Not of the form `key=value`.
    #[error("`{text}` is not of the form key=value; known keys of the chosen claims: {known}")]
    Form {
        /// What was given.
        text: String,
        /// The keys.
        known: String,
    },
    /// No chosen claim has this key.
    #[error("no chosen claim has a setting `{key}`; known are {known}")]
    UnknownKey {
        /// What was given.
        key: String,
        /// The keys.
        known: String,
    },
    /// A value out of range.
    #[error("{key} = {value} is out of range: {expected}")]
    Value {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// What would do.
        expected: String,
    },
}

/// The claims whose id is one of `ids` or whose family is; all where there are no ids.
///
/// # Errors
/// [`RunError::UnknownClaim`].
pub fn select<'a>(
    claims: &[&'a dyn Claim],
    ids: &[String],
) -> Result<Vec<&'a dyn Claim>, RunError> {
    let selects = |id: &str, claim: &dyn Claim| {
        claim.id() == id || claim.id().strip_prefix(id).is_some_and(|rest| rest.starts_with('.'))
    };
    if let Some(id) = ids.iter().find(|id| !claims.iter().any(|c| selects(id, *c))) {
        let known = claims.iter().map(|c| c.id()).collect::<Vec<_>>().join(", ");
        return Err(RunError::UnknownClaim { id: id.clone(), known });
    }
    Ok(claims
        .iter()
        .copied()
        .filter(|c| ids.is_empty() || ids.iter().any(|id| selects(id, *c)))
        .collect())
}

/// `key=value` pairs, checked against what the claims can be set to.
///
/// # Errors
/// [`RunError`] that names the known keys, or the range.
fn settings(claims: &[&dyn Claim], texts: &[String]) -> Result<BTreeMap<String, f64>, RunError> {
    let mut known: Vec<Setting> = Vec::new();
    for setting in claims.iter().flat_map(|c| c.settings()) {
        if !known.iter().any(|k| k.key == setting.key) {
            known.push(*setting);
        }
    }
    let names = || match known.is_empty() {
        true => "none".to_string(),
        false => known
            .iter()
            .map(|k| format!("{} ({}, {} to {})", k.key, k.meaning, k.least, k.most))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let mut values = BTreeMap::new();
    for text in texts {
        let Some((key, value)) = text.split_once('=') else {
            return Err(RunError::Form { text: text.clone(), known: names() });
        };
        let key = key.trim();
        let Some(setting) = known.iter().find(|k| k.key == key) else {
            return Err(RunError::UnknownKey { key: key.to_string(), known: names() });
        };
        let number = value.trim().parse::<f64>().ok().filter(|v| {
            (setting.least..=setting.most).contains(v) && (!setting.whole || v.fract() == 0.0)
        });
        let Some(number) = number else {
            let what = if setting.whole { "a whole number" } else { "a number" };
            return Err(RunError::Value {
                key: key.to_string(),
                value: value.to_string(),
                expected: format!("{what} from {} to {}", setting.least, setting.most),
            });
        };
        values.insert(key.to_string(), number);
    }
    Ok(values)
}

/// Verifies `claims` in order, handing each verdict to `on_verdict` as it comes.
///
/// # Errors
/// [`RunError`] for settings that no claim has.
pub fn run(
    claims: &[&dyn Claim],
    request: &Request,
    on_verdict: impl Fn(&Verdict) + Sync,
) -> Result<Vec<Verdict>, RunError> {
    use rayon::prelude::*;
    let settings = settings(claims, &request.settings)?;
    Ok(claims
        .par_iter()
        .map(|claim| {
            let own = settings
                .iter()
                .filter(|(key, _)| claim.settings().iter().any(|s| s.key == key.as_str()))
                .map(|(key, value)| (key.clone(), *value))
                .collect();
            let context = Context {
                scale: request.scale,
                seed: Seed::root(request.seed).child("claims").child(claim.id()),
                root: request.seed,
                settings: own,
                faults: request.faults,
            };
            let verdict = verify(*claim, &context);
            on_verdict(&verdict);
            verdict
        })
        .collect())
}

/// One claim's verdict; an error is inconclusive, with its sentence.
fn verify(claim: &dyn Claim, context: &Context) -> Verdict {
    let start = Instant::now();
    let (evidence, error): (Evidence, Option<ClaimError>) = match claim.verify(context) {
        Ok(evidence) => (evidence, None),
        Err(error) => (Evidence::new(EvidenceKind::Deterministic), Some(error)),
    };
    let outcome = match error {
        None => Verdict::outcome_of(&evidence, claim.is_refuted()),
        Some(_) => Outcome::Inconclusive,
    };
    Verdict {
        id: claim.id().to_string(),
        outcome,
        statement: claim.statement().to_string(),
        assumptions: claim.assumptions().iter().map(|a| a.to_string()).collect(),
        usage: error.as_ref().filter(|e| e.is_usage()).map(|e| e.to_string()),
        error: error.map(|e| e.to_string()),
        evidence,
        seconds: start.elapsed().as_secs_f64(),
    }
}
