//! Errors that tests plant, to see that a verdict turns.
//!
//! Claims look at the library through [`super::Context`], which hands the planted error on: an
//! objective with a sign turned, a constant of a bound multiplied. Nothing plants one outside tests.

/// An error to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The profile objective's value is halved.
    ValueScale,
    /// The gradient's sign is turned.
    GradientSign,
    /// The gradient in the last block alone has the wrong sign.
    GradientLastBlock,
    /// The Hessian product's sign is turned.
    HessianSign,
    /// The Hessian product lacks the terms with the residual.
    HessianWithoutResidual,
    /// SR's base is the sum of the tasks, not their mean.
    StandardBaseSum,
    /// The tail is without its factor 1/2.
    TailFactor,
    /// The tail starts one singular value late.
    TailShift,
    /// `s_min(W)^2 / T` without the T.
    SmallestConstant,
    /// The sandwich's shift k is k - 1.
    SandwichShift,
    /// `1 + 1/T` of `E tail_0` is `1 - 1/T`.
    TailZeroConstant,
    /// `1/2 k^2 (d - k)` is `1/2 k (d - k)`.
    LimitConstant,
    /// The large-d formula is 10 % higher.
    LargeDimensionConstant,
    /// `k d^2 / (2T)` is `k d^2 / (4T)`.
    AsymmetricConstant,
    /// `rank(A - A*) <= 2k` is `<= k`.
    TwoRanksConstant,
    /// `d >= 3k - 1` is `d >= 3k`.
    IdentifiableConstant,
    /// The conic's matrix itself, not its inverse, is the base's error.
    ConicInverse,
    /// The stability constant without its factor q.
    StabilityConstant,
    /// The quadratic form is that of H/2.
    LocalConstant,
    /// `rho = (T-2)/T` is `(T-1)/T`.
    OrthogonalConstant,
    /// Contraction at `1 - 2 rho`.
    ContractionConstant,
    /// The T = 2 value is 1/2, not 1/4, of the sum.
    TwoTaskConstant,
    /// The two adapters of the T = 2 flow attract each other: the second gradient's sign is turned.
    FlowSign,
    /// The spurious minimum's curvature is claimed 1 % higher.
    CurvatureConstant,
    /// The bound of the third derivative is a sixth.
    ThirdDerivativeConstant,
    /// The global solver's predicted error without the skew part's `d (d-1) / (2T)`.
    BaseErrorConstant,
    /// The fine-tuning risk without its `(d-r) r / (n-r-1)`.
    RiskConstant,
    /// The least-squares risk with `d` for `d^2`.
    LeastSquaresConstant,
    /// The floor's `(1 - k/d)^2` is `1`.
    FloorConstant,
    /// `A* + C C^T`, not `A* - C C^T`, is the base of wide adapters.
    WideSign,
    /// The gauge's dimension is one too small.
    GaugeDimension,
    /// The factored operator's inner product without the weight 2 of `Y`.
    FactoredWeight,
    /// The sampled T = 2 value has `S_1 + S_2` in place of the inverses' sum.
    TwoTaskWeight,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 33] = [
        Fault::ValueScale,
        Fault::GradientSign,
        Fault::GradientLastBlock,
        Fault::HessianSign,
        Fault::HessianWithoutResidual,
        Fault::StandardBaseSum,
        Fault::TailFactor,
        Fault::TailShift,
        Fault::SmallestConstant,
        Fault::SandwichShift,
        Fault::TailZeroConstant,
        Fault::LimitConstant,
        Fault::LargeDimensionConstant,
        Fault::AsymmetricConstant,
        Fault::TwoRanksConstant,
        Fault::IdentifiableConstant,
        Fault::ConicInverse,
        Fault::StabilityConstant,
        Fault::LocalConstant,
        Fault::OrthogonalConstant,
        Fault::ContractionConstant,
        Fault::TwoTaskConstant,
        Fault::FlowSign,
        Fault::CurvatureConstant,
        Fault::ThirdDerivativeConstant,
        Fault::BaseErrorConstant,
        Fault::RiskConstant,
        Fault::LeastSquaresConstant,
        Fault::FloorConstant,
        Fault::WideSign,
        Fault::FactoredWeight,
        Fault::GaugeDimension,
        Fault::TwoTaskWeight,
    ];
}

/// What is planted: nothing, outside tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(Option<Fault>);

impl Faults {
    /// Nothing.
    pub const NONE: Faults = Faults(None);

    /// One fault.
    pub fn planted(fault: Fault) -> Self {
        Self(Some(fault))
    }

    /// Whether `fault` is planted.
    pub fn has(self, fault: Fault) -> bool {
        self.0 == Some(fault)
    }

    /// `wrong` where `fault` is planted, else `right`.
    pub fn choose<T>(self, fault: Fault, right: T, wrong: T) -> T {
        if self.has(fault) { wrong } else { right }
    }
}
