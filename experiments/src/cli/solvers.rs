//! `peftml solvers`: the methods that `peftml solve` knows.

use super::{Common, Failure, print_json, print_line};
use clap::Args;
use peftml_solvers::{Entry, registry};
use serde_json::{Value, json};

/// List the methods of `peftml solve`
#[derive(Args)]
pub struct Arguments {}

pub fn run(_: &Arguments, common: &Common) -> Result<(), Failure> {
    if common.json {
        return registry().iter().try_for_each(|entry| print_json(&object(entry)));
    }
    for (i, entry) in registry().iter().enumerate() {
        if i > 0 {
            print_line("")?;
        }
        print_line(&format!("{} ({} order)", entry.name, entry.order.name()))?;
        print_line(&format!("  {}", entry.summary))?;
        print_line(&format!("  memory: {}", entry.memory))?;
        print_line(&format!("  guarantees: {}", entry.guarantees))?;
        for setting in entry.settings {
            let (name, default, meaning) = (setting.name, setting.default, setting.meaning);
            print_line(&format!("  --set {name}={default}: {meaning}"))?;
        }
    }
    Ok(())
}

fn object(entry: &Entry) -> Value {
    let settings = entry.settings.iter().map(|setting| {
        json!({ "name": setting.name, "default": setting.default, "meaning": setting.meaning })
    });
    json!({
        "name": entry.name,
        "summary": entry.summary,
        "order": entry.order.name(),
        "memory": entry.memory,
        "guarantees": entry.guarantees,
        "needs_start": entry.needs_start,
        "settings": settings.collect::<Vec<Value>>(),
    })
}
