//! A method bound to a network: which modules it acts on, with which parameters.
//!
//! An [`Adapter`] is structure, shared by all tasks; a task's own numbers are one [`Parameters`], made by
//! [`Adapter::fresh`]. What a method never trains (random projections, singular vectors) is held once.

use crate::methods::{
    Configured, Entry, Kind, Note, Selection, Theta, entry, joined, nearest, read_settings, whole,
};
use crate::parameters::{Parameters, Spec, WeightView};
use crate::sites::{LinearSite, Sites, is_within};
use crate::{PeftError, Place};
use peftml_linalg::Seed;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Which modules a method acts on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(untagged)]
pub enum Targets {
    /// A regular expression that must match a module's whole path; or `all-linear`, all but the head.
    Pattern(String),
    /// Module paths, or their last parts.
    Names(Vec<String>),
}

/// A method's name and settings, its targets, and what else an adapter trains.
///
/// In a file: one table, in which the method's own settings stand beside these keys.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "toml::Table", into = "toml::Table")]
pub struct AdapterConfig {
    /// The method's name.
    pub method: String,
    /// Which modules; all that the method can act on, the head included, where nothing is said.
    pub targets: Option<Targets>,
    /// Modules of the network that get a copy of their own, trained and saved with the adapter.
    pub modules_to_save: Vec<String>,
    /// Whether those start drawn anew instead of as copies.
    pub fresh_modules: bool,
    /// The method's own settings.
    pub settings: toml::Table,
}

impl AdapterConfig {
    /// `method` with its defaults.
    pub fn new(method: &str) -> Self {
        Self {
            method: method.into(),
            targets: None,
            modules_to_save: Vec::new(),
            fresh_modules: false,
            settings: toml::Table::new(),
        }
    }

    /// The same with the settings of the TOML text `settings`.
    ///
    /// # Errors
    /// [`PeftError::Settings`] where it is no TOML.
    pub fn with_settings(self, settings: &str) -> Result<Self, PeftError> {
        let settings = settings.parse().map_err(|source| PeftError::Settings {
            of: self.method.clone(),
            source: Box::new(source),
        })?;
        Ok(Self { settings, ..self })
    }

    /// What the table of a configuration says.
    ///
    /// # Errors
    /// [`PeftError::Settings`] for a missing method or wrong types; [`PeftError::UnknownMethod`], and what
    /// the method says of its settings.
    pub fn from_table(mut table: toml::Table) -> Result<Self, PeftError> {
        #[derive(serde::Deserialize)]
        struct Common {
            method: String,
            targets: Option<Targets>,
            #[serde(default)]
            modules_to_save: Vec<String>,
            #[serde(default)]
            fresh_modules: bool,
        }
        const KEYS: [&str; 4] = ["method", "targets", "modules_to_save", "fresh_modules"];
        let common = KEYS.iter().filter_map(|&key| Some((key.to_owned(), table.remove(key)?)));
        let common: Common = read_settings("adapter", common.collect())?;
        let Common { method, targets, modules_to_save, fresh_modules } = common;
        (entry(&method)?.configure)(table.clone())?;
        Ok(Self { method, targets, modules_to_save, fresh_modules, settings: table })
    }

    /// The table that [`AdapterConfig::from_table`] reads.
    pub fn to_table(&self) -> toml::Table {
        let mut table = toml::Table::new();
        table.insert("method".into(), self.method.clone().into());
        match &self.targets {
            Some(Targets::Pattern(pattern)) => {
                table.insert("targets".into(), pattern.clone().into());
            }
            Some(Targets::Names(names)) => {
                table.insert("targets".into(), names.clone().into());
            }
            None => {}
        }
        if !self.modules_to_save.is_empty() {
            table.insert("modules_to_save".into(), self.modules_to_save.clone().into());
            table.insert("fresh_modules".into(), self.fresh_modules.into());
        }
        table.extend(self.settings.clone());
        table
    }
}

impl TryFrom<toml::Table> for AdapterConfig {
    type Error = PeftError;

    fn try_from(table: toml::Table) -> Result<Self, PeftError> {
        Self::from_table(table)
    }
}

impl From<AdapterConfig> for toml::Table {
    fn from(config: AdapterConfig) -> Self {
        config.to_table()
    }
}

/// A method bound to a network's modules; see the module's text.
pub struct Adapter {
    config: AdapterConfig,
    entry: &'static Entry,
    method: Arc<Configured>,
    specs: Vec<(String, Spec)>,
    modules: BTreeSet<String>,
    selected: BTreeMap<String, Selection>,
    deltas: BTreeMap<String, String>,
    expected_count: usize,
    constants: Parameters,
    notes: Vec<Note>,
}

impl Adapter {
    /// Binds the method of `config` to the modules of `sites`.
    ///
    /// # Errors
    /// [`PeftError::UnknownMethod`], [`PeftError::Settings`], [`PeftError::Range`],
    /// [`PeftError::Pattern`]; [`PeftError::NoTarget`] where a pattern or a name matches nothing;
    /// [`PeftError::NoSite`] where the network has nothing that the method acts on;
    /// [`PeftError::Rank`] where a rank was named for one layer and does not fit it.
    pub fn new(config: &AdapterConfig, sites: &Sites) -> Result<Self, PeftError> {
        let entry = entry(&config.method)?;
        let mut adapter = Self {
            config: config.clone(),
            entry,
            method: Arc::new((entry.configure)(config.settings.clone())?),
            specs: Vec::new(),
            modules: BTreeSet::new(),
            selected: BTreeMap::new(),
            deltas: BTreeMap::new(),
            expected_count: 0,
            constants: Parameters::default(),
            notes: Vec::new(),
        };
        adapter.bind(sites)?;
        adapter.save_modules(sites)?;
        if adapter.specs.is_empty() {
            return Err(PeftError::NoSite { method: entry.name, needed: "modules it can act on" });
        }
        Ok(adapter)
    }

    /// The same with what the method never trains, made for the weights `base`.
    ///
    /// # Errors
    /// [`PeftError::MissingParameter`] where `base` is another network's;
    /// [`PeftError::Decomposition`] for weights that are no finite numbers.
    pub fn prepared(
        self,
        base: &Parameters,
        seed: &Seed,
        place: &Place,
    ) -> Result<Self, PeftError> {
        let constants = self.start(base, seed, place, false)?;
        Ok(Self { constants, ..self })
    }

    pub(crate) fn with_constants(self, constants: Parameters) -> Self {
        Self { constants, ..self }
    }

    /// A task's parameters at their start; each draws from the child of `seed` of its own name, so
    /// that methods' starts are paired where their names are the same.
    ///
    /// # Errors
    /// As [`Adapter::prepared`].
    pub fn fresh(
        &self,
        base: &Parameters,
        seed: &Seed,
        place: &Place,
    ) -> Result<Parameters, PeftError> {
        self.start(base, seed, place, true)
    }

    /// The base with the adapter written into it.
    ///
    /// # Errors
    /// [`PeftError::NotMergeable`] where the method's map is no change of parameters;
    /// [`PeftError::MissingParameter`].
    pub fn merged(&self, base: &Parameters, theta: &Parameters) -> Result<Parameters, PeftError> {
        let mut merged = base.clone();
        if let Kind::Activation(_) | Kind::Input(_) = self.method.kind {
            let reason = "what it does is no change of the network's own parameters";
            return Err(PeftError::NotMergeable { method: self.entry.name, reason });
        }
        for (name, selection) in &self.selected {
            let own = theta.tensor_flat(&self.name_in_theta(name))?;
            let value = match selection {
                Selection::Delta => base.tensor_flat(name)? + own,
                Selection::Copy | Selection::Fresh => own,
            };
            merged.replace(name, value)?;
        }
        if let Kind::Weight(method) = &self.method.kind {
            for path in &self.modules {
                let theta = Theta::new(theta, &self.constants, path, None);
                let (weight, bias) = (format!("{path}.weight"), format!("{path}.bias"));
                let new = method.weight(merged.tensor(&weight)?, &theta)?;
                let count = new.dims().iter().product::<usize>();
                merged.replace(&weight, new.reshape([count]))?;
                if base.get(&bias).is_some() {
                    merged.replace(&bias, method.bias(merged.tensor(&bias)?, &theta)?)?;
                }
            }
        }
        Ok(merged)
    }

    /// How many numbers a task trains, counted from the parameters.
    pub fn count(&self) -> usize {
        self.specs.iter().filter(|(_, s)| s.trainable).map(|(_, spec)| spec.count()).sum()
    }

    /// How many numbers a task trains by the method's documented formula.
    pub fn expected_count(&self) -> usize {
        self.expected_count
    }

    /// What binding changed or left out.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The configuration that it was made from.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The registry's entry of its method.
    pub fn entry(&self) -> &'static Entry {
        self.entry
    }

    /// Whether a fresh adapter leaves the network's outputs as they are.
    pub fn starts_at_base(&self) -> bool {
        let fresh = self.config.fresh_modules && !self.config.modules_to_save.is_empty();
        self.method.starts_at_base && !fresh
    }

    /// Whether gradients are derivatives of the formula.
    pub fn exact_gradient(&self) -> bool {
        self.method.exact_gradient
    }

    /// Whether it can be written into the weights.
    pub fn is_mergeable(&self) -> bool {
        matches!(self.method.kind, Kind::Weight(_) | Kind::Selection(_))
    }

    /// Whether some of the base's numbers stay in use under the adapter.
    ///
    /// # Errors
    /// [`PeftError::NothingShared`] where none do.
    pub fn check_shares(&self, sites: &Sites) -> Result<(), PeftError> {
        let replaced = |spec: &Spec| self.replaces(&spec.name);
        if sites.parameters().iter().all(replaced) {
            return Err(PeftError::NothingShared { method: self.entry.name });
        }
        Ok(())
    }

    /// What the method never trains.
    pub fn constants(&self) -> &Parameters {
        &self.constants
    }

    /// All parameters' full names with what they are.
    pub fn specs(&self) -> &[(String, Spec)] {
        &self.specs
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.method.kind
    }

    pub(crate) fn acts_on(&self, path: &str) -> bool {
        self.modules.contains(path)
    }

    pub(crate) fn replaces(&self, name: &str) -> bool {
        matches!(self.selected.get(name), Some(Selection::Copy | Selection::Fresh))
    }

    pub(crate) fn delta_name(&self, name: &str) -> Option<&str> {
        self.deltas.get(name).map(String::as_str)
    }

    fn name_in_theta(&self, name: &str) -> String {
        self.delta_name(name).unwrap_or(name).to_owned()
    }

    fn bind(&mut self, sites: &Sites) -> Result<(), PeftError> {
        let configured = Arc::clone(&self.method);
        match &configured.kind {
            Kind::Weight(method) => {
                let layers =
                    self.targeted(sites.linears(), sites, "linear layers", |site| &site.path)?;
                self.bind_weights(method.as_ref(), layers)?;
            }
            Kind::Activation(method) => {
                let blocks =
                    self.targeted(sites.blocks(), sites, "sublayers", |site| &site.path)?;
                for block in blocks {
                    self.expected_count += method.count(&block);
                    self.add(&block.path, method.parameters(&block));
                }
            }
            Kind::Input(method) => {
                if self.config.targets.is_some() {
                    return Err(PeftError::NoChoice { method: self.entry.name });
                }
                self.expected_count += method.count(sites);
                self.add("", method.parameters(sites)?);
            }
            Kind::Selection(method) => {
                let modules: BTreeSet<String> =
                    sites.parameters().iter().map(|spec| holder(&spec.name)).collect();
                let modules = Vec::from_iter(modules);
                let modules = self.targeted(&modules, sites, "modules", |path| path)?;
                let chosen = |spec: &&Spec| modules.contains(&holder(&spec.name));
                for spec in sites.parameters().iter().filter(chosen) {
                    if let Some(selection) = method.select(spec, sites) {
                        self.expected_count += spec.count();
                        self.select(spec, selection);
                    }
                }
            }
        }
        Ok(())
    }

    fn bind_weights(
        &mut self,
        method: &dyn crate::methods::WeightMethod,
        layers: Vec<LinearSite>,
    ) -> Result<(), PeftError> {
        let mut used = Vec::new();
        for layer in layers {
            let specs = method.parameters(&layer, &mut self.notes)?;
            if specs.is_empty() {
                continue;
            }
            self.expected_count += method.count(&layer);
            self.add(&layer.path, specs);
            used.push(layer);
        }
        for spec in method.shared(&used) {
            self.specs.push((spec.name.clone(), spec));
        }
        Ok(())
    }

    fn save_modules(&mut self, sites: &Sites) -> Result<(), PeftError> {
        let selection = if self.config.fresh_modules { Selection::Fresh } else { Selection::Copy };
        for module in self.config.modules_to_save.clone() {
            let matches = |spec: &&Spec| {
                is_within(&spec.name, &module) || ends_with_module(&holder(&spec.name), &module)
            };
            let found: Vec<&Spec> = sites.parameters().iter().filter(matches).collect();
            if found.is_empty() {
                let paths = sites.parameters().iter().map(|spec| holder(&spec.name));
                let paths: BTreeSet<String> = paths.collect();
                let paths = nearest(&module, paths);
                return Err(PeftError::NoTarget { pattern: module, what: "modules", paths });
            }
            for spec in found {
                if self.selected.insert(spec.name.clone(), selection).is_none() {
                    self.expected_count += spec.count();
                    self.specs.push((spec.name.clone(), spec.clone()));
                }
            }
        }
        Ok(())
    }

    /// Those of `all` that the configuration targets; a module that is saved whole is none.
    fn targeted<S: Clone>(
        &self,
        all: &[S],
        sites: &Sites,
        what: &'static str,
        path: impl Fn(&S) -> &String,
    ) -> Result<Vec<S>, PeftError> {
        let saved = |p: &str| {
            let modules = &self.config.modules_to_save;
            modules.iter().any(|module| is_within(p, module) || ends_with_module(p, module))
        };
        let none = |pattern: &str| PeftError::NoTarget {
            pattern: pattern.into(),
            what,
            paths: nearest(pattern, all.iter().map(|site| path(site).clone())),
        };
        let mut chosen: Vec<S> = match &self.config.targets {
            None => all.to_vec(),
            Some(Targets::Pattern(all_linear)) if all_linear == "all-linear" => {
                all.iter().filter(|site| !sites.in_head(path(site))).cloned().collect()
            }
            Some(Targets::Pattern(pattern)) => {
                let regex = whole(pattern)?;
                let chosen: Vec<S> =
                    all.iter().filter(|site| regex.is_match(path(site))).cloned().collect();
                if chosen.is_empty() {
                    return Err(none(pattern));
                }
                chosen
            }
            Some(Targets::Names(names)) => {
                let hits = |name: &String, site: &&S| {
                    path(site) == name || ends_with_module(path(site), name)
                };
                if let Some(name) = names.iter().find(|name| !all.iter().any(|s| hits(name, &s))) {
                    return Err(none(name));
                }
                all.iter().filter(|s| names.iter().any(|name| hits(name, s))).cloned().collect()
            }
        };
        chosen.retain(|site| !saved(path(site)));
        Ok(chosen)
    }

    fn add(&mut self, path: &str, specs: Vec<Spec>) {
        self.modules.insert(path.to_owned());
        self.specs.extend(specs.into_iter().map(|spec| (joined(path, &spec.name), spec)));
    }

    fn select(&mut self, spec: &Spec, selection: Selection) {
        self.selected.insert(spec.name.clone(), selection);
        if selection == Selection::Delta {
            let name = format!("{}_delta", spec.name);
            let init = crate::parameters::Init::Constant(0.0);
            self.specs.push((name.clone(), Spec { init, ..spec.clone() }));
            self.deltas.insert(spec.name.clone(), name);
        } else {
            self.specs.push((spec.name.clone(), spec.clone()));
        }
    }

    fn start(
        &self,
        base: &Parameters,
        seed: &Seed,
        place: &Place,
        trainable: bool,
    ) -> Result<Parameters, PeftError> {
        let mut parameters = Parameters::default();
        for (name, spec) in self.specs.iter().filter(|(_, spec)| spec.trainable == trainable) {
            if self.selected.get(name) == Some(&Selection::Copy) {
                let own = base
                    .get(name)
                    .ok_or_else(|| PeftError::MissingParameter { name: name.clone() })?;
                parameters.insert(name.clone(), own.clone());
                continue;
            }
            let weight = self.weight_of(name, spec, base)?;
            let view = weight.as_ref().map(|(values, inputs, outputs)| WeightView {
                values,
                inputs: *inputs,
                outputs: *outputs,
            });
            let mut stream = seed.child(name.as_str()).stream();
            parameters.insert(name.clone(), spec.start(&mut stream, view, place)?);
        }
        Ok(parameters)
    }

    /// The weight that a start is computed from, where it is.
    fn weight_of(
        &self,
        name: &str,
        spec: &Spec,
        base: &Parameters,
    ) -> Result<Option<(Vec<f64>, usize, usize)>, PeftError> {
        let crate::parameters::Init::FromWeight(_) = spec.init else { return Ok(None) };
        let path = name.strip_suffix(spec.name.as_str()).unwrap_or(name);
        let weight = format!("{path}weight");
        let missing = || PeftError::MissingParameter { name: weight.clone() };
        let shape = &base.get(&weight).ok_or_else(missing)?.shape;
        let &[inputs, outputs] = shape.as_slice() else { return Err(missing()) };
        Ok(Some((base.values(&weight)?, inputs, outputs)))
    }
}

/// Whether `path` ends in the module name `name`, as Hugging Face's `target_modules` are read.
fn ends_with_module(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The path of the module that holds the parameter `name`.
fn holder(name: &str) -> String {
    name.rsplit_once('.').map_or("", |(holder, _)| holder).to_owned()
}
