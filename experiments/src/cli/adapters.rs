//! `peftml adapters`: Hugging Face's format, both ways.

#[cfg(not(feature = "networks"))]
use super::{Common, Failure};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Take adapters from and to Hugging Face's format, merge them, look into them
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Read an adapter of Hugging Face's format and write it in ours
    Import(Files),
    /// Read an adapter and write it in Hugging Face's format
    Export(Files),
    /// Write a model's folder with the adapter in its weights
    Merge(Files),
    /// Say what an adapter is; with a model, also whether it fits
    Inspect {
        /// The adapter's folder
        #[arg(long, value_name = "DIR")]
        adapter: PathBuf,
        /// The model's folder
        #[arg(long, value_name = "DIR")]
        model: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Files {
    /// The model's folder in Hugging Face's layout
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The adapter's folder, in Hugging Face's format or ours
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    /// The folder to write; it must not exist or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[cfg(not(feature = "networks"))]
pub fn run(arguments: &Arguments, _: &Common) -> Result<(), Failure> {
    match &arguments.action {
        Action::Import(Files { model: _, adapter: _, out: _ })
        | Action::Export(Files { .. })
        | Action::Merge(Files { .. })
        | Action::Inspect { adapter: _, model: _ } => super::networks::missing(),
    }
}

#[cfg(feature = "networks")]
pub use with_networks::run;

#[cfg(feature = "networks")]
mod with_networks {
    use super::super::networks::{Model, failure, in_pool};
    use super::super::{Common, Failure, print_json, print_line};
    use super::{Action, Arguments, Files};
    use peftml_peft::{Adapter, Parameters, Precision, exchange, store};
    use serde_json::{Map, Value, json};
    use std::path::Path;

    pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
        in_pool(common, || match &arguments.action {
            Action::Import(files) => with_files(files, common, |model, adapter, theta| {
                let _ = model;
                store::save_new_adapter(&files.out, adapter, theta, Precision::F32)
            }),
            Action::Export(files) => with_files(files, common, |model, adapter, theta| {
                let base = files.model.to_str();
                exchange::export_adapter(&files.out, adapter, theta, model.sites(), base)
            }),
            Action::Merge(files) => with_files(files, common, |model, adapter, theta| {
                let merged = adapter.merged(&model.pretrained.base, theta)?;
                model.pretrained.save(&files.out, &merged, Some(&files.model))
            }),
            Action::Inspect { adapter, model } => inspect(adapter, model.as_deref(), common),
        })
    }

    fn with_files(
        files: &Files,
        common: &Common,
        write: impl FnOnce(&Model, &Adapter, &Parameters) -> Result<(), peftml_peft::PeftError>,
    ) -> Result<(), Failure> {
        let model = Model::load(&files.model, Some(&files.adapter), common)?;
        let Some((adapter, theta)) = &model.adapter else {
            return Err(Failure::refused("there is no adapter"));
        };
        write(&model, adapter, theta).map_err(failure)?;
        let mut object = said(adapter);
        object.insert("out".into(), json!(files.out));
        print_json(&Value::Object(object))
    }

    /// What a bound adapter is.
    fn said(adapter: &Adapter) -> Map<String, Value> {
        let notes: Vec<String> = adapter.notes().iter().map(ToString::to_string).collect();
        let object = json!({
            "method": adapter.entry().name,
            "hugging_face": adapter.entry().hugging_face.map(|format| format.peft_type),
            "trainable_parameters": adapter.count(),
            "mergeable": adapter.is_mergeable(),
            "config": adapter.config().to_table(),
            "notes": notes,
        });
        object.as_object().cloned().unwrap_or_default()
    }

    fn inspect(folder: &Path, model: Option<&Path>, common: &Common) -> Result<(), Failure> {
        let exchange::Inspected { description, tensors } =
            exchange::inspect(folder).map_err(failure)?;
        let mut object = match model {
            Some(model) => {
                let model = Model::load(model, Some(folder), common)?;
                model.adapter.as_ref().map(|(adapter, _)| said(adapter)).unwrap_or_default()
            }
            None => Map::new(),
        };
        if common.json {
            let shapes = tensors.iter().map(|(key, shape)| (key.clone(), json!(shape)));
            object.insert("description".into(), Value::Object(description));
            object.insert("tensors".into(), Value::Object(shapes.collect()));
            return print_json(&Value::Object(object));
        }
        for (key, value) in description.iter().chain(&object) {
            // What is not set says nothing.
            if !value.is_null() && *value != json!({}) && *value != json!([]) {
                print_line(&format!("{key}: {value}"))?;
            }
        }
        let count: usize = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        print_line(&format!("{} tensors, {count} numbers", tensors.len()))?;
        for (key, shape) in &tensors {
            print_line(&format!("  {key} {shape:?}"))?;
        }
        Ok(())
    }
}
