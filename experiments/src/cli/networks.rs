//! What the commands on networks have in common; without the feature `networks`, their refusal.

#[cfg(not(feature = "networks"))]
use super::Failure;

/// The refusal of a binary that has no networks.
#[cfg(not(feature = "networks"))]
pub fn missing() -> Result<(), Failure> {
    Err(Failure::input(
        "this binary was built without networks; build it with `--features networks`",
    ))
}

#[cfg(feature = "networks")]
pub use with_networks::{Model, failure, in_pool};

#[cfg(feature = "networks")]
mod with_networks {
    use super::super::study::threads;
    use super::super::{Common, Failure};
    use peftml_linalg::Seed;
    use peftml_peft::pretrained::{Head, Pretrained};
    use peftml_peft::{Adapter, Parameters, Pass, PeftError, Place, Precision, exchange};
    use peftml_peft::{Network as _, Sites};
    use std::path::Path;

    /// Exit status 1 where the work failed, 2 where the input is wrong.
    pub fn failure(error: PeftError) -> Failure {
        match error {
            PeftError::Execution { .. }
            | PeftError::NotFinite { .. }
            | PeftError::NotMergeable { .. }
            | PeftError::NotInFormat { .. } => Failure::refused(error),
            error => Failure::input(error),
        }
    }

    /// Runs `work` on as many threads as `--threads` says.
    pub fn in_pool<T: Send>(
        common: &Common,
        work: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads(common)).build();
        let pool = pool.map_err(|error| Failure::refused(format_args!("no threads: {error}")))?;
        pool.install(work)
    }

    /// A model's folder, with an adapter's where one is named.
    pub struct Model {
        pub place: Place,
        pub pretrained: Pretrained,
        pub adapter: Option<(Adapter, Parameters)>,
    }

    impl Model {
        /// Reads both. A head that is saved with the adapter takes the place of the model's own.
        pub fn load(
            model: &Path,
            adapter: Option<&Path>,
            common: &Common,
        ) -> Result<Self, Failure> {
            let place = Place::cpu(Precision::F32);
            let classes = adapter.map(exchange::saved_classes).transpose().map_err(failure)?;
            let seed = Seed::root(common.seed).child("head");
            let head = match classes.flatten() {
                Some(classes) => Head::Fitting(classes, seed),
                None => Head::Own,
            };
            let pretrained = Pretrained::load(model, &head, &place).map_err(failure)?;
            let sites = pretrained.encoder.sites();
            let load = |folder: &Path| exchange::load_adapter(folder, sites, &place);
            let adapter = adapter.map(load).transpose().map_err(failure)?;
            Ok(Self { place, pretrained, adapter })
        }

        /// A pass through the model as it stands.
        pub fn pass(&self) -> Pass<'_> {
            let pass = Pass::new(&self.pretrained.base);
            match &self.adapter {
                Some((adapter, theta)) => pass.with_adapter(adapter, theta),
                None => pass,
            }
        }

        pub fn sites(&self) -> &Sites {
            self.pretrained.encoder.sites()
        }
    }
}
