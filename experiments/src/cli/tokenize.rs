//! `peftml tokenize`: lines of text as numbers of tokens.

use super::{Common, Failure};
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Turn lines of text into numbers of tokens with a model's tokenizer
#[derive(Args)]
pub struct Arguments {
    /// Folder with tokenizer.json, or vocab.txt, or vocab.json and merges.txt
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Text in UTF-8; one list of numbers is printed per line
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Cut at so many tokens, special ones included; nothing is cut otherwise
    #[arg(long, value_name = "COUNT")]
    max_length: Option<NonZeroUsize>,
}

#[cfg(not(feature = "networks"))]
pub fn run(arguments: &Arguments, _: &Common) -> Result<(), Failure> {
    let Arguments { model: _, text: _, max_length: _ } = arguments;
    super::networks::missing()
}

#[cfg(feature = "networks")]
pub fn run(arguments: &Arguments, _: &Common) -> Result<(), Failure> {
    use super::networks::failure;
    use super::print_json;
    use peftml_peft::pretrained::Tokenizer;
    use serde_json::json;
    use std::io::{BufRead, BufReader, Read};

    /// A longer line is no text: memory stays bounded.
    const LONGEST: u64 = 1 << 24;
    let mut tokenizer = Tokenizer::from_folder(&arguments.model).map_err(failure)?;
    if let Some(most) = arguments.max_length {
        tokenizer = tokenizer.cut_at(most.get()).map_err(failure)?;
    }
    let path = arguments.text.display();
    let cannot = |error: std::io::Error| Failure::input(format_args!("{path}: {error}"));
    let file = std::fs::File::open(&arguments.text).map_err(cannot)?;
    let mut reader = BufReader::new(file);
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        reader.by_ref().take(LONGEST + 1).read_until(b'\n', &mut bytes).map_err(cannot)?;
        if bytes.is_empty() {
            break;
        }
        if bytes.len() as u64 > LONGEST {
            return Err(Failure::input(format_args!(
                "{path}: line {number} is longer than {LONGEST} bytes"
            )));
        }
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line))
            .map_err(|e| Failure::input(format_args!("{path}: line {number} is no UTF-8: {e}")))?;
        let encoded = tokenizer.encode(line).map_err(failure)?;
        print_json(&json!(encoded.ids))?;
    }
    Ok(())
}
