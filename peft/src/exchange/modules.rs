//! Which modules a description means, as peft resolves it, and how they are called there.

use super::Description;
use crate::parameters::Spec;
use crate::sites::{LinearSite, is_within};
use crate::{Adapter, PeftError, Sites};
use fancy_regex::{Regex, RegexBuilder};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const MODEL: &str = "base_model.model.";
const SHARED: &str = "base_model.";

/// A network's own name of all but its head; that of a bare one is left out in files.
pub struct Naming {
    family: Option<String>,
    bare: bool,
}

impl Naming {
    /// As the network's class has it: a bare one has no name of its own in the paths.
    pub fn of_network(sites: &Sites) -> Self {
        let headless = !sites.parameters().iter().any(|spec| sites.in_head(&spec.name));
        Self { family: family(sites), bare: headless }
    }

    /// As a file's keys have it.
    pub fn of_keys<'a>(sites: &Sites, keys: impl Iterator<Item = &'a str>) -> Self {
        let network = Self::of_network(sites);
        let Some(family) = &network.family else { return network };
        let (mut named, mut unnamed) = (false, false);
        for key in keys {
            let key = key.strip_prefix(MODEL).unwrap_or(key);
            named |= is_within(key, family);
            unnamed |= is_within(key, "encoder") || is_within(key, "embeddings");
        }
        let bare = if named == unnamed { network.bare } else { unnamed };
        Self { bare, ..network }
    }

    /// Whether the family's name is left out.
    pub fn is_bare(&self) -> bool {
        self.bare
    }

    /// Our module path as peft's.
    pub fn foreign<'a>(&self, path: &'a str) -> &'a str {
        let Some(family) = self.family.as_ref().filter(|_| self.bare) else { return path };
        match path.strip_prefix(family.as_str()).and_then(|rest| rest.strip_prefix('.')) {
            Some(rest) => rest,
            None => path,
        }
    }

    /// The key of the adapter's parameter `name` in a file.
    pub fn key(&self, adapter: &Adapter, name: &str, spec: &Spec, prompt: bool) -> String {
        let path = self.foreign(name);
        match (name.contains('.'), spec.trainable) {
            // Beside a prompt, modules that are saved whole lie one level higher.
            (true, _) if prompt && adapter.replaces(name) => format!("{SHARED}{path}"),
            (true, _) => format!("{MODEL}{path}"),
            (false, true) => name.to_owned(),
            (false, false) => format!("{SHARED}{name}"),
        }
    }

    /// Our names of the modules that peft saves whole for `names`; those that the network has not are peft's
    /// habit for every head.
    pub fn saved(&self, sites: &Sites, names: &[String]) -> Vec<String> {
        let mut found = Vec::new();
        for name in names {
            let matches = |path: &str| {
                let foreign = self.foreign(path);
                foreign == name || foreign.ends_with(&format!(".{name}"))
            };
            for path in module_paths(sites).into_iter().filter(|path| matches(path)) {
                if !found.iter().any(|module: &String| is_within(&path, module)) {
                    found.push(path);
                }
            }
        }
        found
    }

    /// peft's list for our modules; null for none.
    pub fn saved_names(&self, modules: &[String]) -> Value {
        if modules.is_empty() {
            return Value::Null;
        }
        json!(modules.iter().map(|module| self.foreign(module)).collect::<Vec<_>>())
    }
}

/// The family's name, where the network has one above its layers.
fn family(sites: &Sites) -> Option<String> {
    let name = |spec: &Spec| Some(spec.name.split_once(".embeddings.")?.0.to_owned());
    sites.parameters().iter().find_map(name)
}

/// All paths of modules, outer ones first.
fn module_paths(sites: &Sites) -> Vec<String> {
    let mut all = BTreeSet::new();
    for spec in sites.parameters() {
        let mut path = spec.name.as_str();
        while let Some((holder, _)) = path.rsplit_once('.') {
            all.insert(holder.to_owned());
            path = holder;
        }
    }
    // A module sorts before those below it.
    all.into_iter().collect()
}

/// The linear layers that an adapter acts on, with their names there.
pub struct Layers {
    all: Vec<(LinearSite, String)>,
    /// Width of the attentions and how many there are, where the method is about them.
    attentions: Vec<usize>,
    shapes: Vec<(String, Vec<usize>)>,
}

/// Ranks and scales by layer, in our form.
pub struct Ranks {
    /// The keys `rank`, `alpha`, `rank_pattern`, `alpha_pattern`.
    pub table: toml::Table,
}

impl Layers {
    /// For methods that act on the network as a whole.
    pub(super) fn none(sites: &Sites) -> Self {
        let attentions = sites.attentions().iter().map(|site| site.width).collect();
        Self { all: Vec::new(), attentions, shapes: Vec::new() }
    }

    /// Those of a bound adapter.
    pub(super) fn of_adapter(adapter: &Adapter, sites: &Sites, naming: &Naming) -> Self {
        let acted = sites.linears().iter().filter(|site| adapter.acts_on(&site.path));
        let all = acted.map(|s| (s.clone(), naming.foreign(&s.path).to_owned())).collect();
        let shape = |(name, spec): &(String, Spec)| (name.clone(), spec.shape.clone());
        let shapes = adapter.specs().iter().map(shape).collect();
        Self { all, shapes, ..Self::none(sites) }
    }

    /// The layers, each with its path there.
    pub fn iter(&self) -> impl Iterator<Item = (&LinearSite, &str)> {
        self.all.iter().map(|(site, foreign)| (site, foreign.as_str()))
    }

    /// Widths of all attentions.
    pub fn attentions(&self) -> &[usize] {
        &self.attentions
    }

    /// The shape of the bound adapter's parameter `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.iter().find(|(own, _)| own == name).map(|(_, shape)| shape.as_slice())
    }

    pub(super) fn own_paths(&self) -> Vec<String> {
        self.all.iter().map(|(site, _)| site.path.clone()).collect()
    }

    /// Ranks and scales of a description (`rank_pattern`, `alpha_pattern`; the first pattern that matches counts),
    /// layer by layer. Where a method caps ranks at a layer's smaller side (`capped`), a larger one of a file is
    /// named for its layer, so that it is refused and not cut.
    ///
    /// # Errors
    /// [`PeftError::File`] for values of other types and patterns that are none.
    pub fn ranks(
        &self,
        description: &mut Description,
        alpha_key: &str,
        capped: bool,
    ) -> Result<Ranks, PeftError> {
        let rank: usize = description.taken("r")?.unwrap_or(8);
        let alpha: f64 = description.taken(alpha_key)?.unwrap_or(8.0);
        let ranks = patterns::<usize>(description, "rank_pattern")?;
        let alphas = patterns::<f64>(description, "alpha_pattern")?;
        let mut table = toml::Table::new();
        table.insert("rank".into(), whole(rank));
        table.insert("alpha".into(), alpha.into());
        let (mut own_ranks, mut own_alphas) = (toml::Table::new(), toml::Table::new());
        for (site, foreign) in self.iter() {
            let escaped = || regex::escape(&site.path);
            let own = first(&ranks, foreign).unwrap_or(rank);
            if own != rank || capped && own > site.inputs.min(site.outputs) {
                own_ranks.insert(escaped(), whole(own));
            }
            if let Some(own) = first(&alphas, foreign).filter(|own| *own != alpha) {
                own_alphas.insert(escaped(), own.into());
            }
        }
        for (key, own) in [("rank_pattern", own_ranks), ("alpha_pattern", own_alphas)] {
            if !own.is_empty() {
                table.insert(key.into(), own.into());
            }
        }
        Ok(Ranks { table })
    }

    /// Our paths of the layers that `key` names by the ends of their paths (with or without a whole name) or by a
    /// regular expression.
    ///
    /// # Errors
    /// [`PeftError::File`].
    pub fn named(
        &self,
        description: &mut Description,
        key: &str,
    ) -> Result<Vec<String>, PeftError> {
        let Some(choice) = Choice::read(description, key)? else { return Ok(Vec::new()) };
        let hit = |foreign: &str| match &choice {
            Choice::Ends(ends) => ends.iter().any(|end| foreign.ends_with(end.as_str())),
            choice => choice.hits(foreign),
        };
        Ok(self.iter().filter(|(_, foreign)| hit(foreign)).map(|(s, _)| s.path.clone()).collect())
    }

    /// A pattern table for a file: every layer whose value is not `common`.
    pub fn pattern(&self, common: f64, value: impl Fn(&LinearSite) -> f64) -> Value {
        let own = self.iter().map(|(site, foreign)| (foreign, value(site)));
        let own = own.filter(|(_, value)| *value != common);
        own.map(|(foreign, value)| (regex::escape(foreign), number(value)))
            .collect::<Map<_, _>>()
            .into()
    }

    /// The ends of paths that name exactly these layers, or their whole paths.
    pub(super) fn shortest_names(&self, sites: &Sites, naming: &Naming) -> Vec<String> {
        let chosen = |path: &str| self.all.iter().any(|(site, _)| site.path == path);
        let ends: BTreeSet<&str> = self
            .all
            .iter()
            .map(|(_, foreign)| foreign.rsplit('.').next().unwrap_or(foreign))
            .collect();
        // Also modules that are no linear layers must not be hit.
        let hit = |path: &String| {
            let foreign = naming.foreign(path);
            ends.iter().any(|end| foreign == *end || foreign.ends_with(&format!(".{end}")))
        };
        let exact = module_paths(sites).iter().filter(|path| hit(path)).all(|path| chosen(path));
        if exact {
            ends.into_iter().map(str::to_owned).collect()
        } else {
            self.all.iter().map(|(_, foreign)| foreign.clone()).collect()
        }
    }
}

/// A number as it stands in a file: whole where it is.
pub fn number(value: f64) -> Value {
    /// Whole numbers up to here are exact.
    const MOST: f64 = 9e15;
    if value.fract() == 0.0 && value.abs() < MOST { json!(value as i64) } else { json!(value) }
}

fn whole(number: usize) -> toml::Value {
    toml::Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Patterns in the order of the file, which decides.
fn patterns<T: Copy + serde::de::DeserializeOwned>(
    description: &mut Description,
    key: &str,
) -> Result<Vec<(Regex, T)>, PeftError> {
    let map: Map<String, Value> = description.taken(key)?.unwrap_or_default();
    let compile = |(pattern, value): (&String, &Value)| {
        let number = serde_json::from_value(value.clone())
            .map_err(|error| description.wrong(format!("{key}: {pattern}: {error}")))?;
        Ok((regex(description, key, pattern, &format!(r"^(?:.*\.)?(?:{pattern})$"))?, number))
    };
    map.iter().map(compile).collect()
}

fn first<T: Copy>(patterns: &[(Regex, T)], path: &str) -> Option<T> {
    patterns.iter().find(|(regex, _)| matches(regex, path)).map(|(_, value)| *value)
}

/// A pattern too hard to decide is one that does not match.
fn matches(regex: &Regex, path: &str) -> bool {
    regex.is_match(path).unwrap_or(false)
}

fn regex(
    description: &Description,
    key: &str,
    shown: &str,
    pattern: &str,
) -> Result<Regex, PeftError> {
    /// Both bounded, since patterns come from users' files.
    const STEPS: usize = 100_000;
    const BYTES: usize = 1 << 20;
    const LONGEST: usize = 1 << 14;
    let problem = |text: String| description.wrong(format!("{key}: {shown:?}: {text}"));
    if pattern.len() > LONGEST {
        return Err(description.wrong(format!("{key} is longer than any pattern")));
    }
    let mut builder = RegexBuilder::new(pattern);
    builder.backtrack_limit(STEPS).delegate_size_limit(BYTES).delegate_dfa_size_limit(BYTES);
    builder.build().map_err(|error| problem(error.to_string()))
}

/// A choice by a regular expression over the whole path, or by ends of paths.
enum Choice {
    Pattern(Regex),
    Ends(Vec<String>),
    AllLinear,
}

impl Choice {
    fn read(description: &mut Description, key: &str) -> Result<Option<Self>, PeftError> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Raw {
            One(String),
            Many(Vec<String>),
        }
        Ok(match description.taken::<Raw>(key)? {
            None => None,
            Some(Raw::One(text)) if text.eq_ignore_ascii_case("all-linear") => {
                Some(Self::AllLinear)
            }
            Some(Raw::One(text)) => {
                Some(Self::Pattern(regex(description, key, &text, &format!("^(?:{text})$"))?))
            }
            Some(Raw::Many(ends)) => Some(Self::Ends(ends)),
        })
    }

    fn hits(&self, path: &str) -> bool {
        match self {
            Choice::Pattern(regex) => matches(regex, path),
            Choice::Ends(ends) => ends.iter().any(|end| {
                path.strip_suffix(end.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
            Choice::AllLinear => true,
        }
    }

    /// Whether numbers of layers narrow it down for `path`: not a pattern, nor a path named whole.
    fn numbered(&self, path: &str) -> bool {
        match self {
            Choice::Ends(ends) => !ends.iter().any(|end| end == path),
            _ => false,
        }
    }
}

/// The layers that `description` chooses.
pub(super) fn chosen(
    description: &mut Description,
    sites: &Sites,
    naming: &Naming,
    saved: &[String],
) -> Result<Layers, PeftError> {
    let targets = Choice::read(description, "target_modules")?;
    let targets = targets.ok_or_else(|| description.wrong("it has no target_modules".into()))?;
    let excluded = Choice::read(description, "exclude_modules")?;
    let numbers = LayerNumbers::read(description)?;
    let whole = |path: &str| {
        saved.iter().any(|name| {
            let within = |part: &str| part == name || part.starts_with(&format!("{name}."));
            within(path) || path.match_indices('.').any(|(at, _)| within(&path[at + 1..]))
        })
    };
    let mut all = Vec::new();
    for site in sites.linears() {
        let path = naming.foreign(&site.path);
        let by_head = matches!(targets, Choice::AllLinear) && sites.in_head(&site.path);
        let out =
            excluded.as_ref().is_some_and(|choice| choice.hits(path)) || whole(path) || by_head;
        let layer = !targets.numbered(path) || numbers.hits(path);
        if !out && layer && targets.hits(path) {
            all.push((site.clone(), path.to_owned()));
        }
    }
    if all.is_empty() {
        let names = sites.linears().iter().map(|site| naming.foreign(&site.path).to_owned());
        let names: Vec<String> = names.take(12).collect();
        let reason = format!("no layer of this model is meant; there are {} ..", names.join(", "));
        return Err(description.foreign("target_modules", reason));
    }
    Ok(Layers { all, ..Layers::none(sites) })
}

/// `layers_to_transform` with `layers_pattern`.
struct LayerNumbers {
    numbers: Option<Vec<u64>>,
    patterns: Vec<Regex>,
}

impl LayerNumbers {
    fn read(description: &mut Description) -> Result<Self, PeftError> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Numbers {
            One(u64),
            Many(Vec<u64>),
        }
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Names {
            One(String),
            Many(Vec<String>),
        }
        let numbers = match description.taken::<Numbers>("layers_to_transform")? {
            None => None,
            Some(Numbers::One(number)) => Some(vec![number]),
            Some(Numbers::Many(numbers)) => Some(numbers).filter(|numbers| !numbers.is_empty()),
        };
        let names = match description.taken::<Names>("layers_pattern")? {
            None => Vec::new(),
            Some(Names::One(name)) => vec![name],
            Some(Names::Many(names)) => names,
        };
        let key = "layers_pattern";
        let named = |name: &String| {
            regex(description, key, name, &format!(r"^(?:.*?\.)?(?:{name})\.(?<number>\d+)\."))
        };
        let patterns = if names.is_empty() {
            let any = r"^.*?\.[^.]*\.(?<number>\d+)\.";
            vec![regex(description, key, any, any)?]
        } else {
            names.iter().map(named).collect::<Result<_, _>>()?
        };
        Ok(Self { numbers, patterns })
    }

    fn hits(&self, path: &str) -> bool {
        let Some(numbers) = &self.numbers else { return true };
        let found = self.patterns.iter().find_map(|regex| regex.captures(path).ok().flatten());
        let number = found.and_then(|found| found.name("number")?.as_str().parse::<u64>().ok());
        number.is_some_and(|number| numbers.contains(&number))
    }
}
