//! Verbs and their command lines.

use crate::failure::Failure;

/// An option of a verb.
pub struct Flag {
    /// The option with its dashes.
    pub name: &'static str,
    /// What its value is called; `None` for a switch.
    pub value: Option<&'static str>,
    /// One line of help.
    pub help: &'static str,
}

/// A command of xtask.
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// One line of help.
    pub summary: &'static str,
    /// What stands behind the name besides options, for instance `DIR..`; empty for nothing.
    pub operands: &'static str,
    /// How many operands there may be.
    pub operand_count: std::ops::RangeInclusive<usize>,
    /// Its options.
    pub flags: &'static [Flag],
    /// What arguments after `--` are handed to; `None` where there is nobody to take them.
    pub rest: Option<&'static str>,
    /// What it does.
    pub run: fn(&Parsed) -> Result<(), Failure>,
}

/// A command line, checked against its verb.
#[derive(Debug, Default)]
pub struct Parsed {
    options: Vec<(&'static str, String)>,
    /// What stands behind the name besides options.
    pub operands: Vec<String>,
    /// What stands behind `--`.
    pub rest: Vec<String>,
}

impl Parsed {
    /// The value of an option, the last one where it is given repeatedly.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().rfind(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    /// Whether a switch is given.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The options called `names`, as they are handed to another command.
    pub fn forwarded(&self, names: &[&str]) -> Vec<String> {
        let named = self.options.iter().filter(|(name, _)| names.contains(name));
        named.flat_map(|(name, value)| [name.to_string(), value.clone()]).collect()
    }
}

impl Verb {
    /// Reads `arguments`.
    ///
    /// # Errors
    /// [`Failure::Usage`] for an option that the verb does not have, a missing value, or a number of
    /// operands that it does not take.
    pub fn parse(&self, arguments: &[String]) -> Result<Parsed, Failure> {
        let mut parsed = Parsed::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" && self.rest.is_some() {
                parsed.rest = arguments.cloned().collect();
                break;
            }
            if !argument.starts_with('-') {
                parsed.operands.push(argument.clone());
                continue;
            }
            let (name, inline) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (argument.as_str(), None),
            };
            let flag = self
                .flags
                .iter()
                .find(|flag| flag.name == name)
                .ok_or_else(|| self.unknown_option(name))?;
            let value = match (flag.value, inline) {
                (None, None) => String::new(),
                (None, Some(_)) => {
                    return Err(Failure::Usage(format!("{name} takes no value")));
                }
                (Some(_), Some(value)) => value,
                (Some(what), None) => arguments
                    .next()
                    .cloned()
                    .ok_or_else(|| Failure::Usage(format!("{name} needs a value ({what})")))?,
            };
            parsed.options.push((flag.name, value));
        }
        let count = parsed.operands.len();
        if !self.operand_count.contains(&count) {
            let expected = if self.operands.is_empty() { "none" } else { self.operands };
            return Err(Failure::Usage(format!(
                "`{}` takes {expected} besides options, {count} given",
                self.name
            )));
        }
        Ok(parsed)
    }

    fn unknown_option(&self, name: &str) -> Failure {
        let known: Vec<_> = self.flags.iter().map(|flag| flag.name).collect();
        let known = if known.is_empty() {
            "it has none".into()
        } else {
            "known: ".to_string() + &known.join(", ")
        };
        Failure::Usage(format!("unknown option `{name}` of `{}`; {known}", self.name))
    }

    /// The help text.
    pub fn help(&self) -> String {
        let mut text = format!("{}\n\nUsage: cargo xtask {}", self.summary, self.name);
        if !self.operands.is_empty() {
            text += &format!(" {}", self.operands);
        }
        if !self.flags.is_empty() {
            text += " [OPTIONS]";
        }
        if let Some(who) = self.rest {
            text += &format!(" [-- ARGUMENTS of {who}]");
        }
        text += "\n";
        for flag in self.flags {
            let left = format!("{} {}", flag.name, flag.value.unwrap_or(""));
            text += &format!("\n  {left:<24} {}", flag.help);
        }
        if !self.flags.is_empty() {
            text += "\n";
        }
        text
    }
}

/// `--threads`, which several verbs hand to the binary.
pub const THREADS: Flag =
    Flag { name: "--threads", value: Some("N"), help: "worker threads (default: all cores)" };

/// `--out`, the folder that replaces `results`.
pub const OUT: Flag =
    Flag { name: "--out", value: Some("DIR"), help: "folder for results (default: results)" };

/// Checks `--threads` before minutes of building are spent.
///
/// # Errors
/// [`Failure::Usage`] where it is no positive number.
pub fn check_threads(parsed: &Parsed) -> Result<(), Failure> {
    match parsed.value(THREADS.name) {
        Some(text) if !text.parse::<usize>().is_ok_and(|n| n > 0) => {
            Err(Failure::Usage(format!("--threads {text}: a positive whole number is needed")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERB: Verb = Verb {
        name: "example",
        summary: "An example.",
        operands: "DIR",
        operand_count: 1..=1,
        flags: &[THREADS, OUT, Flag { name: "--all", value: None, help: "everything" }],
        rest: Some("cargo"),
        run: |_| Ok(()),
    };

    fn parse(line: &str) -> Result<Parsed, Failure> {
        VERB.parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn both_spellings_of_a_value_are_read_and_forwarded() {
        let parsed = parse("--threads 2 place --out=a=b --all -- --threads 7").unwrap();
        assert_eq!(parsed.operands, ["place"]);
        assert_eq!(parsed.value("--threads"), Some("2"));
        assert_eq!(parsed.value("--out"), Some("a=b"));
        assert!(parsed.has("--all"));
        assert_eq!(parsed.rest, ["--threads", "7"]);
        assert_eq!(parsed.forwarded(&["--threads"]), ["--threads", "2"]);
    }

    #[test]
    fn what_does_not_fit_the_verb_is_bad_usage() {
        for line in ["", "a b", "a --out", "a --al", "a --all=yes", "a -x"] {
            assert!(matches!(parse(line), Err(Failure::Usage(_))), "{line}");
        }
        for (line, right) in [("a --threads 0", false), ("a --threads x", false), ("a", true)] {
            assert_eq!(check_threads(&parse(line).unwrap()).is_ok(), right, "{line}");
        }
    }
}
