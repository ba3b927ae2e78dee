//! What a verification says, as data.
//!
//! A claim returns [`Evidence`]: comparisons `measured <= bound + tolerance` (or `>=`, or `=`), and
//! controls, comparisons of the same form that must fail. The verdict follows from these numbers and
//! nothing else, so a reader of the JSON line can draw it again:
//!
//! | every control fails | every check holds | verdict |
//! |---|---|---|
//! | yes | yes | holds |
//! | yes | no | fails |
//! | no | | inconclusive |
//!
//! For a statement that is known to be false the check replays its counterexample: if it fails there
//! as it must, the verdict is refuted, otherwise inconclusive.

use serde_json::{Value, json};

/// What a claim's evidence rests on, weakest check counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidenceKind {
    /// Integer or rational arithmetic.
    Exact,
    /// Interval arithmetic with outward rounding.
    Interval,
    /// Floating point with an error bound.
    Deterministic,
    /// A test with a stated error probability.
    Statistical,
}

impl EvidenceKind {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            EvidenceKind::Exact => "exact",
            EvidenceKind::Interval => "interval",
            EvidenceKind::Deterministic => "deterministic",
            EvidenceKind::Statistical => "statistical",
        }
    }
}

/// How `measured` has to compare with `bound`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `measured <= bound + tolerance`.
    AtMost,
    /// `measured >= bound - tolerance`.
    AtLeast,
    /// `|measured - bound| <= tolerance`.
    Equal,
}

impl Relation {
    /// The sign in files and tables.
    pub fn sign(self) -> &'static str {
        match self {
            Relation::AtMost => "<=",
            Relation::AtLeast => ">=",
            Relation::Equal => "=",
        }
    }
}

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What is compared.
    pub what: String,
    /// The figure found; the worst one over instances.
    pub measured: f64,
    /// How it has to compare.
    pub relation: Relation,
    /// What theory says.
    pub bound: f64,
    /// What rounding or chance may add.
    pub tolerance: f64,
    /// Where the tolerance comes from.
    pub tolerance_from: String,
}

impl Check {
    /// `measured <= bound`.
    pub fn at_most(what: impl Into<String>, measured: f64, bound: f64) -> Self {
        Self::new(what, measured, Relation::AtMost, bound)
    }

    /// `measured >= bound`.
    pub fn at_least(what: impl Into<String>, measured: f64, bound: f64) -> Self {
        Self::new(what, measured, Relation::AtLeast, bound)
    }

    /// `measured = bound`.
    pub fn equal(what: impl Into<String>, measured: f64, bound: f64) -> Self {
        Self::new(what, measured, Relation::Equal, bound)
    }

    fn new(what: impl Into<String>, measured: f64, relation: Relation, bound: f64) -> Self {
        let tolerance_from = "no tolerance: exact".to_string();
        Self { what: what.into(), measured, relation, bound, tolerance: 0.0, tolerance_from }
    }

    /// The same with a tolerance, and where it comes from.
    pub fn within(mut self, tolerance: f64, from: impl Into<String>) -> Self {
        self.tolerance = tolerance;
        self.tolerance_from = from.into();
        self
    }

    /// Whether the comparison holds; not where a figure is not a number.
    pub fn holds(&self) -> bool {
        match self.relation {
            Relation::AtMost => self.measured <= self.bound + self.tolerance,
            Relation::AtLeast => self.measured >= self.bound - self.tolerance,
            Relation::Equal => (self.measured - self.bound).abs() <= self.tolerance,
        }
    }

    /// Whether the comparison fails by its figures, not for want of them.
    pub fn fails(&self) -> bool {
        !self.holds() && ![self.measured, self.bound, self.tolerance].iter().any(|x| x.is_nan())
    }

    fn to_json(&self) -> Value {
        json!({
            "what": self.what,
            "measured": self.measured,
            "relation": self.relation.sign(),
            "bound": self.bound,
            "tolerance": self.tolerance,
            "tolerance_from": self.tolerance_from,
        })
    }
}

/// What a claim's verification found.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// By which kind of evidence.
    pub kind: EvidenceKind,
    /// What must hold, the leading one first.
    pub checks: Vec<Check>,
    /// What must fail: an assumption dropped, a constant tightened, an error planted.
    pub controls: Vec<Check>,
    /// Problems to replay.
    pub instances: Vec<Value>,
    /// Certificates as JSON text, with a name each.
    pub certificates: Vec<(String, String)>,
    /// Assumptions that the chosen settings violate.
    pub violated: Vec<String>,
}

impl Evidence {
    /// Evidence of one kind without checks as yet.
    pub fn new(kind: EvidenceKind) -> Self {
        Self {
            kind,
            checks: Vec::new(),
            controls: Vec::new(),
            instances: Vec::new(),
            certificates: Vec::new(),
            violated: Vec::new(),
        }
    }

    /// With a check that must hold.
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// With a check that must fail.
    pub fn control(mut self, check: Check) -> Self {
        self.controls.push(check);
        self
    }

    /// With a problem to replay.
    pub fn instance(mut self, instance: Value) -> Self {
        self.instances.push(instance);
        self
    }
}

/// The four answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every check holds and every control fails.
    Holds,
    /// A check fails.
    Fails,
    /// The check cannot fail, or its figures are missing.
    Inconclusive,
    /// The statement is false, and its counterexample replays.
    Refuted,
}

impl Outcome {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Holds => "holds",
            Outcome::Fails => "fails",
            Outcome::Inconclusive => "inconclusive",
            Outcome::Refuted => "refuted",
        }
    }

    /// Whether the suite may end with status 0.
    pub fn is_sound(self) -> bool {
        matches!(self, Outcome::Holds | Outcome::Refuted)
    }
}

/// A claim's verdict.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The claim, dotted: `"C1.rank"`.
    pub id: String,
    /// The answer.
    pub outcome: Outcome,
    /// What it follows from.
    pub evidence: Evidence,
    /// The claim's statement.
    pub statement: String,
    /// The claim's assumptions.
    pub assumptions: Vec<String>,
    /// Why there is no evidence, where there is none.
    pub error: Option<String>,
    /// That sentence again, where the user's settings are to blame.
    pub usage: Option<String>,
    /// Time taken.
    pub seconds: f64,
}

impl Verdict {
    /// The answer that `evidence` gives; `refuted` for statements known to be false.
    pub fn outcome_of(evidence: &Evidence, refuted: bool) -> Outcome {
        let controlled =
            !evidence.controls.is_empty() && evidence.controls.iter().all(Check::fails);
        let broken = evidence.checks.iter().any(Check::fails);
        let holds = !evidence.checks.is_empty() && evidence.checks.iter().all(Check::holds);
        match (controlled, refuted) {
            (false, _) => Outcome::Inconclusive,
            (true, true) if broken => Outcome::Refuted,
            (true, true) => Outcome::Inconclusive,
            (true, false) if holds => Outcome::Holds,
            (true, false) if broken => Outcome::Fails,
            (true, false) => Outcome::Inconclusive,
        }
    }

    /// The comparison that decided: the first that fails, else the first.
    pub fn deciding(&self) -> Option<&Check> {
        let checks = &self.evidence.checks;
        checks.iter().find(|c| !c.holds()).or(checks.first())
    }

    /// The control that speaks: the first that does not fail, else the first.
    pub fn deciding_control(&self) -> Option<&Check> {
        let controls = &self.evidence.controls;
        controls.iter().find(|c| !c.fails()).or(controls.first())
    }

    /// One JSON object.
    pub fn to_json(&self) -> Value {
        let check = self.deciding();
        let control = self.deciding_control().map(|c| {
            let mut object = c.to_json();
            object["outcome"] = json!(if c.fails() { "caught" } else { "passed" });
            object
        });
        let mut assumptions = self.assumptions.clone();
        assumptions.extend(self.evidence.violated.iter().map(|v| format!("violated: {v}")));
        let mut object = json!({
            "id": self.id,
            "verdict": self.outcome.name(),
            "kind": self.evidence.kind.name(),
            "measured": check.map(|c| c.measured),
            "relation": check.map(|c| c.relation.sign()),
            "bound": check.map(|c| c.bound),
            "tolerance": check.map(|c| c.tolerance),
            "tolerance_from": check.map(|c| c.tolerance_from.clone()),
            "assumptions": assumptions,
            "control": control,
            "instances": self.evidence.instances,
            "seconds": self.seconds,
            "statement": self.statement,
            "checks": self.evidence.checks.iter().map(Check::to_json).collect::<Vec<_>>(),
            "controls": self.evidence.controls.iter().map(Check::to_json).collect::<Vec<_>>(),
        });
        if let Some(error) = &self.error {
            object["error"] = json!(error);
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(check: f64, control: f64) -> Evidence {
        Evidence::new(EvidenceKind::Deterministic)
            .check(Check::at_most("c", check, 1.0))
            .control(Check::at_most("d", control, 1.0))
    }

    #[test]
    fn verdicts_follow_from_the_figures() {
        assert_eq!(Verdict::outcome_of(&evidence(0.5, 2.0), false), Outcome::Holds);
        assert_eq!(Verdict::outcome_of(&evidence(1.5, 2.0), false), Outcome::Fails);
        assert_eq!(Verdict::outcome_of(&evidence(0.5, 0.5), false), Outcome::Inconclusive);
        assert_eq!(Verdict::outcome_of(&evidence(f64::NAN, 2.0), false), Outcome::Inconclusive);
        assert_eq!(Verdict::outcome_of(&evidence(0.5, f64::NAN), false), Outcome::Inconclusive);
        assert_eq!(Verdict::outcome_of(&evidence(1.5, 2.0), true), Outcome::Refuted);
        assert_eq!(Verdict::outcome_of(&evidence(0.5, 2.0), true), Outcome::Inconclusive);
        let empty = Evidence::new(EvidenceKind::Exact);
        assert_eq!(Verdict::outcome_of(&empty, false), Outcome::Inconclusive);
    }

    #[test]
    fn tolerances_widen_on_the_right_side() {
        assert!(Check::at_most("", 1.05, 1.0).within(0.1, "").holds());
        assert!(Check::at_least("", 0.95, 1.0).within(0.1, "").holds());
        assert!(Check::equal("", 1.2, 1.0).within(0.1, "").fails());
    }
}
