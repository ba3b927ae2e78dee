//! Parameters in safetensors files, in the layout that the PyTorch world keeps them in.
//!
//! Matrices of linear maps are turned on the way (see [`Stored`]); a network's file has its parameters'
//! own names, an adapter's folder `adapter_model.safetensors` with Hugging Face's key grammar,
//! `base_model.model.<path>.<name>`, and `adapter_config.json`. Files appear whole or not at all.

use crate::parameters::{Parameter, Parameters, Spec, Stored};
use crate::{Adapter, AdapterConfig, FileProblem, PeftError, Place, Precision};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::Path;

pub(crate) const ADAPTER_FILE: &str = "adapter_model.safetensors";
pub(crate) const ADAPTER_DESCRIPTION: &str = "adapter_config.json";
const ADAPTER_PREFIX: &str = "base_model.model.";
/// Parameters that belong to no module of the network.
const SHARED_PREFIX: &str = "base_model.";

/// Largest file that is read: more than any network that this crate is for.
const LARGEST: u64 = 1 << 36;

/// A file's tensors and texts in memory, before they are written.
#[derive(Default)]
pub(crate) struct Archive {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    texts: HashMap<String, String>,
}

impl Archive {
    /// Adds `parameters`, each under what `key` makes of its name.
    pub(crate) fn add(
        &mut self,
        parameters: &Parameters,
        precision: Precision,
        key: impl Fn(&str) -> String,
    ) -> Result<(), PeftError> {
        for (name, parameter) in parameters.iter() {
            let (shape, numbers) = turned_out(parameter, parameters.values(name)?);
            let (kind, bytes) = match precision {
                Precision::F64 => {
                    (Dtype::F64, numbers.iter().flat_map(|x| x.to_le_bytes()).collect())
                }
                // The numbers are single-precision ones, widened: nothing is rounded.
                Precision::F32 => {
                    let bytes = numbers.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect();
                    (Dtype::F32, bytes)
                }
            };
            self.tensors.insert(key(name), (kind, shape, bytes));
        }
        Ok(())
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, key: &str, text: String) {
        self.texts.insert(key.into(), text);
    }

    /// Writes the file at `path`, whole or not at all.
    pub(crate) fn write(self, path: &Path) -> Result<(), PeftError> {
        let views = self.tensors.iter().map(|(key, (kind, shape, bytes))| {
            let view = TensorView::new(*kind, shape.clone(), bytes);
            view.map(|view| (key, view)).map_err(|error| format_problem(path, &error))
        });
        let views = views.collect::<Result<Vec<_>, _>>()?;
        let texts = (!self.texts.is_empty()).then_some(self.texts);
        let bytes =
            safetensors::serialize(views, texts).map_err(|error| format_problem(path, &error))?;
        write_whole(path, &bytes)
    }
}

/// A file's bytes, checked as safetensors on use.
pub(crate) struct Contents {
    path: std::path::PathBuf,
    bytes: Vec<u8>,
}

impl Contents {
    pub(crate) fn read(path: &Path) -> Result<Self, PeftError> {
        let io = |source| PeftError::Io { path: path.into(), source };
        let size = std::fs::metadata(path).map_err(io)?.len();
        if size > LARGEST {
            let problem = FileProblem::Format(format!("{size} bytes are more than are read"));
            return Err(PeftError::File { path: path.into(), problem });
        }
        Ok(Self { path: path.into(), bytes: std::fs::read(path).map_err(io)? })
    }

    fn tensors(&self) -> Result<SafeTensors<'_>, PeftError> {
        SafeTensors::deserialize(&self.bytes).map_err(|error| format_problem(&self.path, &error))
    }

    /// All texts.
    pub(crate) fn texts(&self) -> Result<HashMap<String, String>, PeftError> {
        let (_, header) = SafeTensors::read_metadata(&self.bytes)
            .map_err(|error| format_problem(&self.path, &error))?;
        Ok(header.metadata().clone().unwrap_or_default())
    }

    /// All keys.
    pub(crate) fn keys(&self) -> Result<Vec<String>, PeftError> {
        Ok(self.tensors()?.names().into_iter().map(str::to_owned).collect())
    }

    /// The shape of the tensor `key`.
    pub(crate) fn shape(&self, key: &str) -> Result<Vec<usize>, PeftError> {
        let tensors = self.tensors()?;
        let view = tensors.tensor(key).map_err(|error| format_problem(&self.path, &error))?;
        Ok(view.shape().to_vec())
    }

    /// Exactly the parameters `specs`, whose keys are what `key` makes of their names.
    pub(crate) fn parameters<'a>(
        &self,
        specs: impl IntoIterator<Item = (&'a str, &'a Spec)>,
        key: impl Fn(&str) -> String,
        place: &Place,
    ) -> Result<Parameters, PeftError> {
        let tensors = self.tensors()?;
        let mut missing = Vec::new();
        let mut found = Parameters::default();
        for (name, spec) in specs {
            let key = key(name);
            match tensors.tensor(&key) {
                Ok(view) => found.insert(name, self.parameter(&key, &view, spec, place)?),
                Err(_) => missing.push(key),
            }
        }
        if missing.is_empty() {
            Ok(found)
        } else {
            Err(self.problem(FileProblem::Missing(missing)))
        }
    }

    fn parameter(
        &self,
        key: &str,
        view: &TensorView<'_>,
        spec: &Spec,
        place: &Place,
    ) -> Result<Parameter, PeftError> {
        let turned = matches!((spec.stored, spec.shape.len()), (Stored::Transposed, 2));
        let mut expected = spec.shape.clone();
        if turned {
            expected.reverse();
        }
        if view.shape() != expected {
            let (key, found) = (key.to_owned(), view.shape().to_vec());
            return Err(self.problem(FileProblem::Shape { key, expected, found }));
        }
        let mut numbers = numbers(view).ok_or_else(|| {
            let (key, found) = (key.to_owned(), format!("{:?}", view.dtype()));
            self.problem(FileProblem::ElementType { key, found })
        })?;
        if turned {
            numbers = transposed(&numbers, expected[0], expected[1]);
        }
        let value = place.tensor(numbers, [spec.count()])?;
        Ok(Parameter { value, shape: spec.shape.clone(), stored: spec.stored })
    }

    /// Refuses keys for which `known` does not hold.
    pub(crate) fn only(&self, known: impl Fn(&str) -> bool) -> Result<(), PeftError> {
        let strange: Vec<String> = self.keys()?.into_iter().filter(|key| !known(key)).collect();
        if strange.is_empty() {
            return Ok(());
        }
        Err(self.problem(FileProblem::Unexpected(strange)))
    }

    pub(crate) fn problem(&self, problem: FileProblem) -> PeftError {
        PeftError::File { path: self.path.clone(), problem }
    }
}

/// Saves a network's parameters at `path`.
///
/// # Errors
/// [`PeftError::Io`]; the file that was there before then still is.
pub fn save_parameters(
    path: &Path,
    parameters: &Parameters,
    precision: Precision,
) -> Result<(), PeftError> {
    let mut archive = Archive::default();
    archive.add(parameters, precision, str::to_owned)?;
    archive.text("format", "pt".into());
    archive.write(path)
}

/// A network's parameters from `path`: those of `specs`, no more and no fewer.
///
/// # Errors
/// [`PeftError::Io`], [`PeftError::File`].
pub fn load_parameters(
    path: &Path,
    specs: &[Spec],
    place: &Place,
) -> Result<Parameters, PeftError> {
    let contents = Contents::read(path)?;
    contents.only(|key| specs.iter().any(|spec| spec.name == key))?;
    let named = specs.iter().map(|spec| (spec.name.as_str(), spec));
    contents.parameters(named, str::to_owned, place)
}

/// Saves `adapter` at `theta` in `folder`, which is made where it is missing.
///
/// # Errors
/// [`PeftError::Io`].
pub fn save_adapter(
    folder: &Path,
    adapter: &Adapter,
    theta: &Parameters,
    precision: Precision,
) -> Result<(), PeftError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| PeftError::Io { path: folder.into(), source })?;
    let mut archive = Archive::default();
    archive.add(theta, precision, |name| adapter_key(name, true))?;
    archive.add(adapter.constants(), precision, |name| adapter_key(name, false))?;
    archive.text("format", "pt".into());
    archive.write(&folder.join(ADAPTER_FILE))?;
    let config = adapter.config().to_table();
    let description = serde_json::json!({
        "peft_type": adapter.entry().hugging_face.map(|format| format.peft_type),
        "peftml": config,
    });
    write_whole(&folder.join(ADAPTER_DESCRIPTION), format!("{description:#}\n").as_bytes())
}

/// The same in a folder that must be absent or empty, and that appears whole or not at all.
///
/// # Errors
/// [`PeftError::Io`]; [`PeftError::File`] where `folder` holds something.
pub fn save_new_adapter(
    folder: &Path,
    adapter: &Adapter,
    theta: &Parameters,
    precision: Precision,
) -> Result<(), PeftError> {
    crate::pretrained::in_new_folder(folder, |new| save_adapter(new, adapter, theta, precision))
}

/// The adapter in `folder`, bound to `network`'s modules, with its parameters.
///
/// # Errors
/// [`PeftError::Io`], [`PeftError::File`]; as [`Adapter::new`] where it does not fit the network.
pub fn load_adapter(
    folder: &Path,
    sites: &crate::Sites,
    place: &Place,
) -> Result<(Adapter, Parameters), PeftError> {
    let config = read_description(&folder.join(ADAPTER_DESCRIPTION))?;
    let adapter = Adapter::new(&config, sites)?;
    let contents = Contents::read(&folder.join(ADAPTER_FILE))?;
    let known = |key: &str| {
        adapter.specs().iter().any(|(name, spec)| adapter_key(name, spec.trainable) == key)
    };
    contents.only(known)?;
    let part = |trainable: bool| {
        let named = adapter.specs().iter().filter(|(_, spec)| spec.trainable == trainable);
        let named = named.map(|(name, spec)| (name.as_str(), spec));
        contents.parameters(named, |name| adapter_key(name, trainable), place)
    };
    let (theta, constants) = (part(true)?, part(false)?);
    Ok((adapter.with_constants(constants), theta))
}

/// Hugging Face's key of an adapter's parameter. What belongs to no module has its bare name where it is
/// trained (prompts), and stands below the model where it is not (VeRA's projections).
fn adapter_key(name: &str, trainable: bool) -> String {
    match (name.contains('.'), trainable) {
        (true, _) => format!("{ADAPTER_PREFIX}{name}"),
        (false, true) => name.to_owned(),
        (false, false) => format!("{SHARED_PREFIX}{name}"),
    }
}

fn read_description(path: &Path) -> Result<AdapterConfig, PeftError> {
    /// More than any configuration needs: memory stays bounded.
    const LARGEST: u64 = 1 << 24;
    let io = |source| PeftError::Io { path: path.into(), source };
    let wrong = |text: String| PeftError::File {
        path: path.into(),
        problem: FileProblem::Description(text),
    };
    if std::fs::metadata(path).map_err(io)?.len() > LARGEST {
        return Err(wrong("it is larger than any configuration".into()));
    }
    let text = std::fs::read_to_string(path).map_err(io)?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let table = json.get("peftml").ok_or_else(|| wrong("it has no key `peftml`".into()))?;
    let table: toml::Table =
        serde_json::from_value(table.clone()).map_err(|error| wrong(error.to_string()))?;
    AdapterConfig::from_table(table)
}

/// Writes `bytes` at `path`: into a file beside it, synced, then renamed. The prefix is that of all our
/// temporary files, so that those of a killed process can be told and removed.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), PeftError> {
    let io = |source| PeftError::Io { path: path.into(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

fn turned_out(parameter: &Parameter, numbers: Vec<f64>) -> (Vec<usize>, Vec<f64>) {
    match (parameter.stored, parameter.shape.as_slice()) {
        (Stored::Transposed, &[rows, cols]) => (vec![cols, rows], transposed(&numbers, rows, cols)),
        _ => (parameter.shape.clone(), numbers),
    }
}

fn transposed(numbers: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..rows * cols).map(|i| numbers[(i % rows) * cols + i / rows]).collect()
}

/// The numbers of a view; `None` for an element type that is not read.
fn numbers(view: &TensorView<'_>) -> Option<Vec<f64>> {
    fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
    }
    let bytes = view.data();
    Some(match view.dtype() {
        Dtype::F64 => each(bytes, f64::from_le_bytes),
        Dtype::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
        // The upper half of a single-precision number.
        Dtype::BF16 => each(bytes, |[a, b]| f64::from(f32::from_le_bytes([0, 0, a, b]))),
        Dtype::F16 => each(bytes, |b| half_precision(u16::from_le_bytes(b))),
        _ => return None,
    })
}

/// The value of an IEEE half-precision number.
fn half_precision(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}

fn format_problem(path: &Path, error: &safetensors::SafeTensorError) -> PeftError {
    PeftError::File { path: path.into(), problem: FileProblem::Format(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Init;
    use peftml_linalg::Seed;

    fn saved(folder: &Path) -> (std::path::PathBuf, Vec<Spec>, Parameters) {
        let specs = vec![
            Spec::matrix("a.weight", 2, 3, Init::Normal { std: 1.0 }),
            Spec::new("a.bias", [3], Init::Normal { std: 1.0 }),
        ];
        let place = Place::cpu(Precision::F32);
        let mut stream = Seed::root(1).child("store").stream();
        let start = |s: &Spec| (s.name.clone(), s.start(&mut stream, None, &place).unwrap());
        let parameters: Parameters = specs.iter().map(start).collect();
        let path = folder.join("model.safetensors");
        save_parameters(&path, &parameters, Precision::F32).unwrap();
        (path, specs, parameters)
    }

    #[test]
    fn what_is_saved_is_loaded_and_matrices_lie_turned_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, specs, parameters) = saved(folder.path());
        let place = Place::cpu(Precision::F32);
        assert!(load_parameters(&path, &specs, &place).unwrap().same_bits(&parameters).unwrap());
        let contents = Contents::read(&path).unwrap();
        let view = contents.tensors().unwrap();
        assert_eq!(view.tensor("a.weight").unwrap().shape(), [3, 2]);
        let second = numbers(&view.tensor("a.weight").unwrap()).unwrap()[1];
        assert_eq!(second, parameters.values("a.weight").unwrap()[3]);
    }

    #[test]
    fn other_shapes_missing_and_foreign_tensors_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut specs, _) = saved(folder.path());
        let place = Place::cpu(Precision::F32);
        let error = |specs: &[Spec]| load_parameters(&path, specs, &place).unwrap_err().to_string();
        assert!(error(&specs[..1]).contains("a.bias"));
        specs.push(Spec::new("b", [1], Init::Constant(0.0)));
        assert!(error(&specs).contains("missing: b"));
        specs.pop();
        specs[1].shape = vec![4];
        assert!(error(&specs).contains("expected shape [4], found [3]"));
    }

    #[test]
    fn ten_thousand_corrupted_files_are_answered_without_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let (path, specs, _) = saved(folder.path());
        let good = std::fs::read(&path).unwrap();
        let place = Place::cpu(Precision::F32);
        let mut stream = Seed::root(2).child("corrupt").stream();
        let mut refused = 0;
        for _ in 0..10_000 {
            let mut bytes = good.clone();
            for _ in 0..1 + stream.below(4) {
                let at = stream.below(bytes.len() as u64) as usize;
                bytes[at] = stream.below(256) as u8;
            }
            bytes.truncate(stream.below(2 * good.len() as u64).max(1) as usize);
            let contents = Contents { path: path.clone(), bytes };
            let named = specs.iter().map(|spec| (spec.name.as_str(), spec));
            let _ = contents.texts();
            refused += usize::from(contents.parameters(named, str::to_owned, &place).is_err());
        }
        // Half of the lengths are short; a changed number inside a tensor is no damage to the format.
        assert!((5_000..10_000).contains(&refused), "{refused}");
    }

    #[test]
    fn half_precision_numbers_are_read() {
        let cases = [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f64.powi(-24)), (0x7bff, 65504.0)];
        for (bits, value) in cases {
            assert_eq!(half_precision(bits), value);
        }
        assert!(half_precision(0x7e00).is_nan() && half_precision(0xfc00) == f64::NEG_INFINITY);
    }

    #[test]
    fn a_folder_that_cannot_be_written_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, _, parameters) = saved(folder.path());
        let before = std::fs::read(&path).unwrap();
        // A folder in the place of the file cannot be replaced by one.
        let blocked = folder.path().join("blocked");
        std::fs::create_dir(&blocked).unwrap();
        std::fs::write(blocked.join("x"), "").unwrap();
        let error = save_parameters(&blocked, &parameters, Precision::F32).unwrap_err();
        assert!(matches!(error, PeftError::Io { .. }));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        // Nothing half-written is left behind.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
