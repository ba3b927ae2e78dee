//! `peftml methods`: the parameter-efficient methods, with what they train on a given network.

use super::{Common, Failure};
use clap::{Args, ValueEnum};

/// List the parameter-efficient methods, with the parameters that they train on a network
#[derive(Args)]
pub struct Arguments {
    /// The network that parameters are counted on
    #[arg(long, value_enum, default_value_t = Network::Mixer)]
    network: Network,
}

/// Networks of the studies, at their full size.
#[derive(Clone, Copy, ValueEnum)]
enum Network {
    /// MLP-Mixer on 32 x 32 images
    Mixer,
    /// Multilayer perceptron on 32 x 32 images
    Mlp,
    /// Encoder of 6 layers, width 384
    Encoder,
}

#[cfg(not(feature = "networks"))]
pub fn run(arguments: &Arguments, _: &Common) -> Result<(), Failure> {
    let Arguments { network: _ } = arguments;
    Err(Failure::input(
        "this binary was built without networks; build it with `--features networks`",
    ))
}

#[cfg(feature = "networks")]
pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
    with_networks::run(arguments, common)
}

#[cfg(feature = "networks")]
mod with_networks {
    use super::super::{print_json, print_line};
    use super::{Arguments, Common, Failure, Network};
    use peftml_peft::methods::{Entry, registry};
    use peftml_peft::models::{
        Encoder, EncoderConfig, EncoderForm, Mixer, MixerConfig, Mlp, MlpConfig,
    };
    use peftml_peft::{Adapter, AdapterConfig, PeftError};
    use serde_json::json;

    pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
        let network = network(arguments.network).map_err(Failure::refused)?;
        let sites = network.sites();
        for entry in registry() {
            let adapter = Adapter::new(&AdapterConfig::new(entry.name), sites);
            if common.json {
                print_json(&object(entry, &adapter))?;
                continue;
            }
            print_line(&format!("{}: {}", entry.name, entry.summary))?;
            print_line(&format!("  parameters: {}", entry.formula))?;
            match &adapter {
                Ok(adapter) => {
                    let share = 100.0 * adapter.count() as f64 / sites.count() as f64;
                    print_line(&format!("  here: {} ({share:.2} %)", adapter.count()))?;
                    for note in adapter.notes() {
                        print_line(&format!("  note: {note}"))?;
                    }
                }
                Err(error) => print_line(&format!("  here: none; {error}"))?,
            }
            print_line(&format!("  source: {}", entry.source))?;
        }
        Ok(())
    }

    fn object(entry: &Entry, adapter: &Result<Adapter, PeftError>) -> serde_json::Value {
        let adapter = adapter.as_ref();
        let notes = adapter.map(|a| a.notes().iter().map(ToString::to_string).collect::<Vec<_>>());
        json!({
            "name": entry.name,
            "summary": entry.summary,
            "formula": entry.formula,
            "source": entry.source,
            "hugging_face": entry.hugging_face.map(|format| format.peft_type),
            "trainable_parameters": adapter.map(Adapter::count).ok(),
            "starts_at_base": adapter.map(Adapter::starts_at_base).ok(),
            "mergeable": adapter.map(Adapter::is_mergeable).ok(),
            "notes": notes.unwrap_or_default(),
            "refused": adapter.err().map(ToString::to_string),
        })
    }

    fn network(kind: Network) -> Result<Box<dyn peftml_peft::Network>, PeftError> {
        Ok(match kind {
            Network::Mixer => Box::new(Mixer::new(MixerConfig::default())?),
            Network::Mlp => {
                let (hidden, dropout) = (vec![512, 512], 0.1);
                let config = MlpConfig { inputs: 32 * 32 * 3, hidden, classes: 2, dropout };
                Box::new(Mlp::new(config)?)
            }
            Network::Encoder => Box::new(Encoder::new(EncoderConfig {
                vocabulary: 30_522,
                width: 384,
                layers: 6,
                heads: 12,
                hidden: 1536,
                positions: 512,
                segments: 2,
                classes: 2,
                dropout: 0.1,
                form: EncoderForm::default(),
            })?),
        })
    }
}
