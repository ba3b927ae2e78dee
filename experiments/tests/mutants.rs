//! Planted faults: each must turn a verdict of the claims that watch it.
//!
//! `cargo test` plants a handful, `cargo xtask mutants` all of them. No harness: the list is the test,
//! and one run without a fault serves all.

use peftml_experiments::claims::{self, Fault, Faults, Outcome, Request};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Every fault with the claim that is to notice it.
const WATCHED: [(Fault, &str); 33] = [
    (Fault::ValueScale, "D.value"),
    (Fault::GradientSign, "D.population-symmetric"),
    (Fault::GradientLastBlock, "D.population-asymmetric"),
    (Fault::HessianSign, "D.samples-symmetric"),
    (Fault::HessianWithoutResidual, "D.samples-asymmetric"),
    (Fault::StandardBaseSum, "C1.base"),
    (Fault::TailFactor, "C1.tail"),
    (Fault::TailShift, "C1.tail"),
    (Fault::SmallestConstant, "C2.smallest"),
    (Fault::SandwichShift, "C2.sandwich"),
    (Fault::TailZeroConstant, "C2.tail-zero"),
    (Fault::LimitConstant, "C2.limit"),
    (Fault::LargeDimensionConstant, "C2.large-dimension"),
    (Fault::AsymmetricConstant, "C2.asymmetric"),
    (Fault::TwoRanksConstant, "C3.bound"),
    (Fault::IdentifiableConstant, "C4.identifiable"),
    (Fault::ConicInverse, "C4.hyperbola"),
    (Fault::StabilityConstant, "C5.bound"),
    (Fault::LocalConstant, "C5.local"),
    (Fault::OrthogonalConstant, "C5.orthogonal"),
    (Fault::ContractionConstant, "C5.contraction"),
    (Fault::TwoTaskConstant, "C6.value"),
    (Fault::FlowSign, "C6.conservation"),
    (Fault::CurvatureConstant, "C7.integer"),
    (Fault::ThirdDerivativeConstant, "C7.third-derivative"),
    (Fault::BaseErrorConstant, "C9.error"),
    (Fault::RiskConstant, "C10.risk"),
    (Fault::LeastSquaresConstant, "C10.least-squares"),
    (Fault::FloorConstant, "C10.floor"),
    (Fault::WideSign, "C11.wide"),
    (Fault::FactoredWeight, "C9.factored"),
    (Fault::GaugeDimension, "D.gauge"),
    (Fault::TwoTaskWeight, "C6.samples"),
];

/// What `cargo test` plants.
const HANDFUL: [Fault; 6] = [
    Fault::GradientLastBlock,
    Fault::HessianSign,
    Fault::SandwichShift,
    Fault::ConicInverse,
    Fault::CurvatureConstant,
    Fault::TwoTaskWeight,
];

fn main() -> ExitCode {
    let all = std::env::args().any(|argument| argument == "all");
    let chosen: Vec<_> =
        WATCHED.iter().filter(|(fault, _)| all || HANDFUL.contains(fault)).collect();
    let missing = Fault::ALL.iter().filter(|f| WATCHED.iter().all(|(g, _)| g != *f)).count();
    let mut failures = usize::from(missing > 0);
    let mut sound = BTreeMap::new();
    for (fault, id) in chosen {
        let clean = *sound.entry(*id).or_insert_with(|| outcome(id, Faults::NONE));
        let planted = outcome(id, Faults::planted(*fault));
        let caught = clean == Some(Outcome::Holds) && planted.is_some_and(|o| !o.is_sound());
        println!(
            "{:<26} {id:<24} {:<13} {}",
            format!("{fault:?}"),
            planted.map_or("no verdict", Outcome::name),
            if caught { "caught" } else { "SURVIVES" }
        );
        failures += usize::from(!caught);
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The claim's outcome with a fault planted.
fn outcome(id: &str, faults: Faults) -> Option<Outcome> {
    let chosen = claims::select(&claims::all(), &[id.to_string()]).ok()?;
    let request = Request { faults, ..Default::default() };
    let verdicts = claims::run(&chosen, &request, |_| {}).ok()?;
    verdicts.first().map(|v| v.outcome)
}
